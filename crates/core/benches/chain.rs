//! How fast a chain is read, beside `tail` and `cat` on the same files.
//!
//! `cargo bench -p logchain-core --bench chain`; whole processes are measured by
//! `cargo bench -p logchain --bench peers`. The tools' times hold the start
//! of a process, about a millisecond; what counts for us is that a tail does not
//! depend on the chain's size, and that a whole read keeps up with `cat`.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use logchain_core::chain::{LogChain, NumberingChoice};

const MIB: u64 = 1 << 20;
const FILES: u32 = 8;
const FILE: u64 = 64 * MIB;
const TAIL: u64 = 100 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test --all-targets` starts it too, without this.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("console.log");
    let mut files = vec![log.clone()];
    files.extend((0..FILES).map(|n| folder.path().join(format!("console.log.{n}"))));
    files.reverse();
    // A small base, so that a tail of 100 KiB reaches over a seam.
    for path in &files {
        write_lines(path, if *path == log { 64 * 1024 } else { FILE })?;
    }
    let chain = LogChain::open(&log, NumberingChoice::Auto)?;
    let total = chain.snapshot()?.len()?;
    println!(
        "a chain of {} files, {} MiB, in the page cache",
        files.len(),
        total / MIB
    );

    report("snapshot", 0, time(1000, || Ok(chain.snapshot()?))?);
    report(
        "tail 100 KiB",
        TAIL,
        time(1000, || drain(&mut chain.snapshot()?.tail(TAIL)?, TAIL))?,
    );
    report(
        "last 1000 lines",
        0,
        time(1000, || {
            let snapshot = chain.snapshot()?;
            Ok(io::copy(&mut snapshot.tail_lines(1000)?, &mut io::sink())?)
        })?,
    );
    report(
        "read all",
        total,
        time(5, || drain(&mut chain.snapshot()?.read_all()?, total))?,
    );

    let tail = || {
        Command::new("tail")
            .arg("-c")
            .arg(TAIL.to_string())
            .arg(&log)
            .output()
    };
    report("tail -c 102400 (base only)", 0, time(100, || Ok(tail()?))?);
    // Into a pipe: given /dev/null, some tools do not read at all.
    let cat = || -> Result<(), Box<dyn Error>> {
        let mut cat = Command::new("cat")
            .args(&files)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut out = cat.stdout.take().ok_or("cat gives nothing")?;
        drain(&mut out, total)?;
        cat.wait()?;
        Ok(())
    };
    report("cat, through a pipe", total, time(5, cat)?);

    huge(folder.path())?;

    // The oldest file compressed, as logrotate would.
    let oldest = files.first().ok_or("no file")?;
    let gz = Command::new("gzip").arg("-1").arg(oldest).status()?;
    if gz.success() {
        report(
            "read all, one .gz",
            total,
            time(3, || drain(&mut chain.snapshot()?.read_all()?, total))?,
        );
        report(
            "tail 100 KiB, one .gz",
            TAIL,
            time(1000, || drain(&mut chain.snapshot()?.tail(TAIL)?, TAIL))?,
        );
    }
    Ok(())
}

/// A tail of a chain of 10 GiB, which must take no longer than one of some MiB,
/// and the same by hand in the base file alone, as `tail -c` does it.
fn huge(folder: &Path) -> Result<(), Box<dyn Error>> {
    let log = folder.join("huge.log");
    for path in (0..4)
        .map(|n| folder.join(format!("huge.log.{n}")))
        .chain([log.clone()])
    {
        // Holes, but for the end.
        write_lines(&path, MIB)?;
        let text = fs::read(&path)?;
        let file = File::create(&path)?;
        file.set_len(2 << 30)?;
        file.write_all_at(&text, (2 << 30) - MIB)?;
    }
    let by_hand = || {
        let mut file = File::open(&log)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(TAIL)))?;
        drain(&mut file, TAIL)
    };
    report("10 GiB: as tail does", TAIL, time(1000, by_hand)?);
    let tail = || {
        let chain = LogChain::open(&log, NumberingChoice::Auto)?;
        drain(&mut chain.snapshot()?.tail(TAIL)?, TAIL)
    };
    report("10 GiB: open, tail 100 KiB", TAIL, time(1000, tail)?);
    Ok(())
}

/// Console text: numbered lines.
fn write_lines(path: &Path, size: u64) -> io::Result<()> {
    let mut file = io::BufWriter::new(File::create(path)?);
    let (mut written, mut number) = (0, 0_u64);
    while written < size {
        let line = format!(
            "[{number:12}] systemd[1]: started unit number {}\n",
            number % 977
        );
        file.write_all(line.as_bytes())?;
        written += line.len() as u64;
        number += 1;
    }
    file.flush()?;
    drop(file);
    fs::OpenOptions::new().write(true).open(path)?.set_len(size)
}

/// Reads all, in blocks as a program would, and sees to it that nothing is missing.
fn drain(reader: &mut dyn Read, expected: u64) -> Result<(), Box<dyn Error>> {
    let (mut block, mut read) = (vec![0; 256 * 1024], 0_u64);
    loop {
        match reader.read(&mut block)? {
            0 => break,
            n => read += n as u64,
        }
    }
    if read != expected {
        return Err(format!("{read} bytes, expected {expected}").into());
    }
    Ok(())
}

/// The median time of one call.
fn time<T>(
    rounds: usize,
    mut call: impl FnMut() -> Result<T, Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    drop(call()?);
    let mut times = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        drop(call()?);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(rounds / 2).copied().unwrap_or_default())
}

fn report(what: &str, bytes: u64, took: Duration) {
    let took_us = took.as_secs_f64() * 1e6;
    if bytes == 0 {
        println!("{what:28} {took_us:12.1} µs");
    } else {
        // Bytes a microsecond are megabytes a second.
        #[expect(clippy::cast_precision_loss, reason = "a figure to be looked at")]
        let speed = bytes as f64 / took_us * 1e6 / MIB as f64;
        println!("{what:28} {took_us:12.1} µs {speed:10.0} MiB/s");
    }
}
