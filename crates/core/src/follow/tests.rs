use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::chain::NumberingChoice;
use crate::testing::FakeWriters;

/// A log from one, as logrotate rotates it.
struct Bed {
    dir: tempfile::TempDir,
    log: File,
    printed: Vec<u8>,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&dir.path().join("l"));
        let printed = Vec::new();
        Self { dir, log, printed }
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.path().join(format!("l{ending}"))
    }

    fn print(&mut self, bytes: usize) {
        // No two places look alike, not even a few bytes of them.
        let from = self.printed.len();
        let mut text = vec![0; bytes];
        let mut all = blake3::Hasher::new().finalize_xof();
        all.set_position(from as u64);
        all.fill(&mut text);
        self.log.write_all(&text).unwrap();
        self.printed.extend(text);
    }

    fn make_room(&self) {
        for number in (1..50).rev() {
            for packed in ["", ".zst"] {
                let from = self.path(&format!(".{number}{packed}"));
                if from.exists() {
                    rename(&from, &self.path(&format!(".{}{packed}", number + 1)));
                }
            }
        }
    }

    fn roll_over(&mut self) {
        self.make_room();
        rename(&self.path(""), &self.path(".1"));
        self.log = open(&self.path(""));
    }

    fn copy_and_truncate(&self, copy: bool) {
        self.make_room();
        if copy {
            fs::copy(self.path(""), self.path(".1")).unwrap();
        }
        self.log.set_len(0).unwrap();
    }

    fn compress(&self) {
        let Ok(bytes) = fs::read(self.path(".1")) else {
            return;
        };
        let packed = zstd::bulk::compress(&bytes, 1).unwrap();
        fs::write(self.path(".1.zst"), packed).unwrap();
        fs::remove_file(self.path(".1")).unwrap();
    }

    fn follow(&self) -> Follower {
        let chain = LogChain::open(&self.path(""), NumberingChoice::FromOne).unwrap();
        Follower::begin(&chain).unwrap()
    }
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.append(true).create(true).open(path).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "it plays logrotate")]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

fn read(follower: &mut Follower, all: &mut Vec<u8>) {
    while let Some(piece) = follower.next(50, true).unwrap() {
        assert_eq!(piece.offset, all.len() as u64);
        all.extend(piece.bytes);
    }
}

#[test]
fn what_copytruncate_took_away_is_read_from_the_copy() {
    for compressed in [false, true] {
        for first in [0, 100] {
            let mut bed = Bed::new();
            bed.print(first);
            let mut follower = bed.follow();
            let mut all = Vec::new();
            read(&mut follower, &mut all);
            bed.print(500);
            follower.refresh(&FakeWriters::SOMEBODY).unwrap();
            bed.print(50);
            bed.copy_and_truncate(true);
            if compressed {
                bed.compress();
            }
            bed.print(2000);
            follower.refresh(&FakeWriters::SOMEBODY).unwrap();
            read(&mut follower, &mut all);
            assert_eq!(all, bed.printed);
            assert_eq!(follower.missed(), []);
            // By the files that hold it now.
            let files = follower.files();
            let given: Vec<u64> = files.iter().map(|file| file.given).collect();
            assert_eq!(given, [first as u64 + 550, 2000]);
            assert_eq!(follower.moved(), [(files[1].id, files[0].id)]);
            assert_eq!(follower.drained(&NoWriters).unwrap(), Writer::None);
        }
    }
}

#[test]
fn a_backlog_that_was_never_read_lies_in_the_copy() {
    let mut bed = Bed::new();
    bed.print(3000);
    let mut follower = bed.follow();
    bed.copy_and_truncate(true);
    bed.print(40);
    bed.copy_and_truncate(true);
    bed.print(4000);
    let mut all = Vec::new();
    read(&mut follower, &mut all);
    assert_eq!((all, follower.missed()), (bed.printed, &[][..]));
}

#[test]
fn what_nobody_has_is_told_with_its_place() {
    for more in [10, 100, 5000] {
        let mut bed = Bed::new();
        bed.print(100);
        let mut follower = bed.follow();
        let mut all = Vec::new();
        read(&mut follower, &mut all);
        bed.copy_and_truncate(false);
        bed.print(more);
        // As long as it was: its length does not tell.
        if more == 100 {
            assert_eq!(follower.waiting(50, true).unwrap(), 0);
            assert_eq!(follower.drained(&NoWriters).unwrap(), Writer::Some);
        }
        read(&mut follower, &mut all);
        assert_eq!(all, bed.printed);
        let missed: Vec<u64> = follower.missed().iter().map(|m| m.offset).collect();
        assert_eq!(missed, [100]);
        assert_eq!(follower.drained(&NoWriters).unwrap(), Writer::None);
    }
}

#[test]
fn a_writer_that_keeps_its_place_leaves_a_hole_and_loses_nothing() {
    use std::os::unix::fs::FileExt;
    let bed = Bed::new();
    fs::write(bed.path(""), "one two ").unwrap();
    let mut follower = bed.follow();
    let mut all = Vec::new();
    read(&mut follower, &mut all);
    fs::write(bed.path(""), "one two three ").unwrap();
    bed.copy_and_truncate(true);
    let log = OpenOptions::new().write(true).open(bed.path("")).unwrap();
    log.write_all_at(b"four", 14).unwrap();
    read(&mut follower, &mut all);
    // As whoever reads the files sees it.
    assert_eq!(all, [&b"one two three "[..], &[0; 14], b"four"].concat());
    assert_eq!(follower.missed(), []);
}

#[derive(Clone, Debug)]
enum Act {
    Print(usize),
    RollOver,
    CopyAndTruncate(bool),
    Compress,
    Look,
    Read(usize),
}

proptest! {
    /// Each byte once and in order; where some are missing, that is said.
    #[test]
    fn nothing_is_doubled_and_no_loss_is_silent(
        acts in proptest::collection::vec(
            prop_oneof![
                4 => prop_oneof![9..40_usize, 9..700_usize].prop_map(Act::Print),
                1 => Just(Act::RollOver),
                2 => proptest::bool::weighted(0.8).prop_map(Act::CopyAndTruncate),
                1 => Just(Act::Compress),
                2 => Just(Act::Look),
                2 => (1..300_usize).prop_map(Act::Read),
            ],
            0..40,
        ),
    ) {
        let mut bed = Bed::new();
        let mut follower = bed.follow();
        let (mut all, mut lossless) = (Vec::new(), true);
        for act in acts {
            match act {
                Act::Print(bytes) => bed.print(bytes),
                Act::RollOver => bed.roll_over(),
                Act::CopyAndTruncate(copy) => {
                    // What nobody saw, and nobody has: no byte of it is left to tell of it.
                    if !copy {
                        follower.refresh(&FakeWriters::SOMEBODY).unwrap();
                        lossless = false;
                    }
                    bed.copy_and_truncate(copy);
                }
                Act::Compress => {
                    // The log was seen before: real looks are 10 ms apart.
                    follower.refresh(&FakeWriters::SOMEBODY).unwrap();
                    bed.compress();
                }
                Act::Look => follower.refresh(&FakeWriters::SOMEBODY).unwrap(),
                Act::Read(bytes) => {
                    if let Some(piece) = follower.next(bytes, true).unwrap() {
                        prop_assert_eq!(piece.offset, all.len() as u64);
                        all.extend(piece.bytes);
                    }
                }
            }
        }
        bed.print(9);
        follower.refresh(&FakeWriters::SOMEBODY).unwrap();
        read(&mut follower, &mut all);
        if lossless {
            prop_assert_eq!(follower.missed(), &[]);
            prop_assert_eq!(&all, &bed.printed);
        }
        // Without the places that were told it is what was printed.
        let cuts = follower.missed().iter().map(|m| usize::try_from(m.offset).unwrap());
        let mut cuts: Vec<usize> = cuts.collect();
        cuts.push(all.len());
        let (mut from, mut at) = (0, 0);
        for cut in cuts {
            let run = &all[from..cut];
            let found = bed.printed[at..].windows(run.len().max(1)).position(|w| w.starts_with(run));
            prop_assert!(run.is_empty() || found.is_some(), "{:?}", String::from_utf8_lossy(run));
            at += if run.is_empty() { 0 } else { found.unwrap_or_default() + run.len() };
            from = cut;
        }
        prop_assert_eq!(at, bed.printed.len());
    }
}
