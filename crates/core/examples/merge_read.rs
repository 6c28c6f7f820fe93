//! Prints the end of a console log, rotated files and all.
//!
//! `cargo run -p logchain-core --example merge_read -- /var/log/libvirt/qemu/vm1.console.log 2000`

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use logchain_core::chain::{LogChain, NumberingChoice};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let path = args.next().ok_or("usage: merge_read PATH [BYTES]")?;
    let bytes = match args.next() {
        Some(bytes) => bytes.to_string_lossy().parse()?,
        None => 100 * 1024,
    };
    tail(Path::new(&path), bytes, &mut io::stdout())
}

/// Writes the last `bytes` of the chain whose base file is at `path`.
fn tail(path: &Path, bytes: u64, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let chain = LogChain::open(path, NumberingChoice::Auto)?;
    // All files of one moment, held open: a rollover from now on changes nothing.
    let snapshot = chain.snapshot()?;
    for gap in snapshot.gaps() {
        eprintln!("missing: {} to {}", gap.first, gap.last);
    }
    io::copy(&mut snapshot.tail(bytes)?, out)?;
    Ok(())
}

#[test]
fn it_reads_over_the_seam() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("console.log");
    std::fs::write(folder.path().join("console.log.0"), "older ")?;
    std::fs::write(&log, "newer")?;
    let mut end = Vec::new();
    tail(&log, 8, &mut end)?;
    assert_eq!(end, b"er newer");
    Ok(())
}
