//! `logchain show` as a process, beside `tail` and `cat`.
//!
//! `cargo bench -p logchain --bench process`. The goals: a tail in no more than
//! twice the time of `tail -c`, the whole log at no less than 0.9 times the speed
//! of `cat`. Ours and theirs take turns, so that a busy moment meets both.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LOGCHAIN: &str = env!("CARGO_BIN_EXE_logchain");
const MIB: u64 = 1 << 20;
const TAIL: &str = "102400";

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    // `cargo test --all-targets` starts it too, without this.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let text = lines(MIB);

    let huge = chain(folder.path(), "huge.log", |file| {
        // Holes, but for the end.
        file.set_len(2 << 30)?;
        file.write_all_at(&text, (2 << 30) - MIB)
    })?;
    let base = huge.last().ok_or("no base")?;
    let ours = || command(LOGCHAIN, &["show", "-n", TAIL], [base]);
    let theirs = || command("tail", &["-c", TAIL], [base]);
    compare("the last 100 KiB of 10 GiB", 300, &ours, &theirs, &discard)?;

    let whole = chain(folder.path(), "whole.log", |mut file| {
        (0..205).try_for_each(|_| file.write_all(&text))
    })?;
    let base = whole.last().ok_or("no base")?;
    let ours = || command(LOGCHAIN, &["show", "-n", "all"], [base]);
    let theirs = || command("cat", &[], &whole);
    compare("all of 1 GiB into a pipe", 9, &ours, &theirs, &discard)?;
    let out = folder.path().join("out");
    let into_file = |mut command: Command| {
        // A new one each time: one that is cut short costs whoever is next.
        let _ = fs::remove_file(&out);
        let began = Instant::now();
        let status = command.stdout(File::create(&out)?).status()?;
        let took = began.elapsed();
        if !status.success() {
            return Err("it failed".into());
        }
        // Written back now, not while the other one is measured.
        File::open(&out)?.sync_all()?;
        Ok(took)
    };
    compare("all of 1 GiB into a file", 9, &ours, &theirs, &into_file)
}

/// Five files, the oldest first.
fn chain(
    folder: &Path,
    name: &str,
    fill: impl Fn(&File) -> std::io::Result<()>,
) -> Outcome<Vec<PathBuf>> {
    let rotated = (0..4).rev().map(|n| folder.join(format!("{name}.{n}")));
    let files: Vec<_> = rotated.chain([folder.join(name)]).collect();
    for path in &files {
        fill(&File::create(path)?)?;
    }
    Ok(files)
}

/// Console text: numbered lines.
fn lines(size: u64) -> Vec<u8> {
    let mut text = Vec::new();
    let mut number = 0_u64;
    while (text.len() as u64) < size {
        let line = format!("[{number:12}] systemd[1]: started unit {}\n", number % 977);
        text.extend_from_slice(line.as_bytes());
        number += 1;
    }
    text.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    text
}

fn command<'a>(
    program: &str,
    args: &[&str],
    files: impl IntoIterator<Item = &'a PathBuf>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args).args(files);
    command
}

/// Reads what it writes, as a program that wants it would.
fn discard(mut command: Command) -> Outcome<Duration> {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut out = child.stdout.take().ok_or("no output")?;
    let mut block = vec![0; 1 << 20];
    while std::io::Read::read(&mut out, &mut block)? > 0 {}
    let status = child.wait()?;
    if !status.success() {
        return Err("it failed".into());
    }
    Ok(began.elapsed())
}

fn compare(
    what: &str,
    rounds: usize,
    ours: &dyn Fn() -> Command,
    theirs: &dyn Fn() -> Command,
    run: &dyn Fn(Command) -> Outcome<Duration>,
) -> Outcome {
    let (mut times, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        times.push(run(ours())?);
        beside.push(run(theirs())?);
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        middle.as_secs_f64() * 1e3
    };
    let program = theirs().get_program().to_string_lossy().into_owned();
    let (took, other) = (median(&mut times), median(&mut beside));
    println!(
        "{what:28} logchain {took:8.2} ms, {program} {other:8.2} ms: {:.2} times as long",
        took / other
    );
    Ok(())
}
