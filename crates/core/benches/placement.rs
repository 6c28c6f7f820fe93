//! How long it takes to place a history, by its size: it must not depend on it.
//!
//! `cargo bench -p logchain-core --bench placement`. Staging writes all bytes,
//! and sealing syncs them; placing gives names only.

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use logchain_core::chain::Numbering;
use logchain_core::follow::NoWriters;
use logchain_core::ids::HandoffId;
use logchain_core::placement::{Rules, Staging};
use logchain_core::rotation::Retention;

const MIB: u64 = 1 << 20;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    println!("size       files  append and seal        place");
    for size in [MIB, 64 * MIB, 1024 * MIB] {
        let mut places = Vec::new();
        let (mut staged, mut files) = (0.0, 0);
        // The largest once: its bytes are really written.
        for _ in 0..if size > 64 * MIB { 1 } else { ROUNDS } {
            let folder = tempfile::tempdir()?;
            let log = folder.path().join("console.log");
            fs::write(&log, "new\n")?;
            let rules = Rules {
                numbering: Numbering::FromZero,
                // Four files, as virtlogd would have cut them.
                retention: Retention::virtlogd(size / 4, 8),
            };
            let mut staging = Staging::open(&log, HandoffId::random(), rules, Arc::new(NoWriters))?;
            let block = vec![b'x'; usize::try_from(MIB / 4)?];
            let began = Instant::now();
            for _ in 0..4 {
                let mut left = size / 4;
                while left > 0 {
                    staging.append(left == size / 4, &block)?;
                    left = left.saturating_sub(MIB / 4);
                }
            }
            staging.seal(None)?;
            staged = began.elapsed().as_secs_f64() * 1e3;
            let began = Instant::now();
            files = staging.place()?.files.len();
            places.push(began.elapsed());
            staging.clean()?;
        }
        places.sort_unstable();
        let place = places.get(places.len() / 2).ok_or("no round")?;
        let place = place.as_secs_f64() * 1e3;
        println!(
            "{:5} MiB {files:5} {staged:13.1} ms {place:9.3} ms",
            size / MIB
        );
    }
    Ok(())
}
