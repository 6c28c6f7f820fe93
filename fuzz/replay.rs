//! Runs a target on its committed seeds and on what simple changes make of them:
//! the part of fuzzing that needs no fuzzer. Included by the tests of crates that
//! have targets.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is part of tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Names one changed seed, to run it alone.
const AGAIN: &str = "LOGCHAIN_FUZZ_SEED";

/// Longer ones find little more.
const LONGEST: usize = 16 << 10;

/// Every seed, then for `time` changed ones. The same each time: what number N
/// runs depends on N and the seeds alone.
pub(crate) fn replay(target: &str, run: fn(&[u8]), time: Duration) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder.join(target))
        .unwrap_or_else(|e| panic!("no seeds for {target}: {e}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no seeds for {target}");
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    if let Ok(number) = std::env::var(AGAIN) {
        return changed(target, run, &seeds, number.parse().unwrap());
    }
    for (path, seed) in paths.iter().zip(&seeds) {
        let _tell = Tell(format!("{target} fails on {}", path.display()));
        run(seed);
    }
    let until = Instant::now() + time;
    for number in 0.. {
        if Instant::now() > until {
            break;
        }
        changed(target, run, &seeds, number);
    }
}

fn changed(target: &str, run: fn(&[u8]), seeds: &[Vec<u8>], number: u64) {
    let _tell = Tell(format!(
        "{target} fails on changed seed {number}; {AGAIN}={number} runs it alone"
    ));
    run(&change(seeds, number));
}

/// Says on a panic what was run.
struct Tell(String);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// Numbers without end (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap();
        usize::try_from(self.next() % limit).unwrap()
    }
}

fn change(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut numbers = Numbers(number);
    let mut data = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(data.len() + 1);
        let end = (at + 1 + numbers.below(32)).min(data.len());
        let byte = numbers.next().to_le_bytes()[0];
        match numbers.below(8) {
            0 => data.truncate(at),
            1 => data.insert(at, byte),
            2 => drop(data.drain(at.min(end)..end)),
            3 => {
                let twice = data[at.min(end)..end].to_vec();
                data.splice(at..at, twice);
            }
            4 => {
                let other = &seeds[numbers.below(seeds.len())];
                data.truncate(at);
                data.extend_from_slice(&other[numbers.below(other.len() + 1)..]);
            }
            5 => {
                // Where a number is, one at a bound.
                let bound: &[u8] = [
                    &b"0"[..],
                    b"-1",
                    b"4294967296",
                    b"18446744073709551615",
                    b"1e999",
                    b"null",
                ][numbers.below(6)];
                let start = data.iter().skip(at).position(u8::is_ascii_digit);
                let start = start.map_or(at, |n| at + n);
                let digits = data[start..].iter().take_while(|b| b.is_ascii_digit());
                let end = start + digits.count();
                data.splice(start..end, bound.iter().copied());
            }
            _ => {
                if let Some(there) = data.get_mut(at) {
                    *there = if byte.is_multiple_of(2) {
                        byte
                    } else {
                        *there ^ (1 << (byte % 8))
                    };
                }
            }
        }
    }
    data.truncate(LONGEST);
    data
}
