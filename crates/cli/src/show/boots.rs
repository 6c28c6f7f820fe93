//! What single boots of a VM printed.

use std::io::{self, Read as _, Write as _};

use jiff::Timestamp;
use logchain_core::chain::LogChain;
use logchain_core::live::Live;
use logchain_core::offsets::{Lookup, Offsets};
use logchain_core::stream::{BootRun, StreamOffset};
use serde_json::json;

use super::hops::utc;
use super::json::Shown;
use super::out::Out;
use super::{BLOCK, Subject, stream};
use crate::args::{Amount, DEFAULT_BYTES, Format, Show};
use crate::exit::{Exit, Usage};

/// Which boots' logs are there, oldest first.
pub(super) fn list(args: &Show, chain: &LogChain) -> anyhow::Result<Exit> {
    print(args.format, &Offsets::of(chain)?.boots()?)
}

/// Prints which boots there are.
pub(super) fn print(format: Format, boots: &[BootRun]) -> anyhow::Result<Exit> {
    let mut out = io::stdout().lock();
    for (boot, age) in boots.iter().zip((0..boots.len()).rev()) {
        let number = number(age);
        match format {
            Format::Text => {
                let since = boot.since.map_or_else(|| "the beginning".to_owned(), utc);
                let (start, end) = (boot.start, boot.end);
                writeln!(out, "{number}\tsince {since}\tbytes {start} to {end}")?;
            }
            Format::Json => {
                let boot = json!({
                    "boot": number,
                    "since": boot.since.map(Timestamp::as_second),
                    "start": boot.start.get(),
                    "end": boot.end.get(),
                });
                writeln!(out, "{boot}")?;
            }
        }
    }
    Ok(Exit::Done)
}

/// An earlier boot prints nothing more.
pub(super) fn check(args: &Show) -> Result<(), Usage> {
    if args.follow && args.boot.is_some_and(|boot| boot < 0) {
        let sentence = "--follow goes with the present boot, which is --boot 0";
        return Err(Usage(sentence.to_owned()));
    }
    Ok(())
}

/// That the log of a boot is not there, where those of the last `count` boots are.
pub(super) fn not_there(boot: i64, count: usize) -> String {
    let oldest = number(count.saturating_sub(1));
    format!("the log of boot {boot} is not there; the oldest there is of {oldest}")
}

/// What the boot with this number printed; its end, where not all of it is asked for.
pub(super) fn show(
    args: &Show,
    boot: i64,
    subject: &Subject,
    chain: LogChain,
) -> anyhow::Result<Exit> {
    check(args)?;
    let offsets = Offsets::of(&chain)?;
    if let Err(e) = offsets.remember(&chain) {
        eprintln!("logchain: offsets are not kept: {e}");
    }
    let boots = offsets.boots()?;
    let age = usize::try_from(boot.unsigned_abs()).unwrap_or(usize::MAX);
    let Some(run) = boots.iter().rev().nth(age) else {
        eprintln!("logchain: {}", not_there(boot, boots.len()));
        return Ok(Exit::Failed);
    };
    let from = match (args.lines, args.bytes) {
        (Some(lines), _) => start_of_lines(&offsets, run, lines)?,
        (None, Some(Amount::All)) => run.start,
        (None, Some(Amount::Bytes(bytes))) => run.start.max(run.end.saturating_sub(bytes)),
        (None, None) => run.start.max(run.end.saturating_sub(DEFAULT_BYTES)),
    };
    let most = run.end.saturating_bytes_since(from);
    if args.format == Format::Json && !args.follow {
        let shown = Shown::of(subject, &chain, offsets.snapshot());
        return stream::one_object(shown, &offsets, from, most);
    }
    let mut out = Out::new(args)?;
    if most > 0 && stream::print(&offsets, (from, most), &mut out)?.is_none() {
        return Ok(Exit::Failed);
    }
    if args.follow {
        return stream::follow(Live::after(&offsets, chain)?, &mut out);
    }
    out.finish()?;
    Ok(Exit::Done)
}

/// 0 is the present boot, and -1 the one before it.
fn number(age: usize) -> i64 {
    i64::try_from(age).map_or(i64::MIN, |age| -age)
}

/// Where the last lines of a boot begin.
fn start_of_lines(offsets: &Offsets, run: &BootRun, lines: u64) -> anyhow::Result<StreamOffset> {
    let mut all = 0_u64;
    let mut last = b'\n';
    each_piece(offsets, run, |_, bytes| {
        all = all.saturating_add(newlines(bytes));
        last = bytes.last().copied().unwrap_or(last);
        true
    })?;
    // One that is not ended yet counts as well.
    all = all.saturating_add(u64::from(last != b'\n'));
    let mut skip = all.saturating_sub(lines);
    let mut start = if skip == 0 { run.start } else { run.end };
    if skip == 0 || lines == 0 {
        return Ok(start);
    }
    each_piece(offsets, run, |at, bytes| {
        for (index, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            skip = skip.saturating_sub(1);
            if skip == 0 {
                start = at.saturating_add(index as u64).saturating_add(1);
                return false;
            }
        }
        true
    })?;
    Ok(start)
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Gives what is there of a boot piece by piece, with its offsets, until `take` has enough.
fn each_piece(
    offsets: &Offsets,
    boot: &BootRun,
    mut take: impl FnMut(StreamOffset, &[u8]) -> bool,
) -> anyhow::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut at = boot.start;
    while at < boot.end {
        match offsets.from(at, boot.end.saturating_bytes_since(at))? {
            Lookup::Run(mut run) => {
                let next = run.next();
                loop {
                    let read = run.read(&mut block)?;
                    let Some(bytes) = block.get(..read).filter(|bytes| !bytes.is_empty()) else {
                        break;
                    };
                    if !take(at, bytes) {
                        return Ok(());
                    }
                    at = at.saturating_add(read as u64);
                }
                at = next;
            }
            Lookup::Gone { next, .. } => at = next,
            Lookup::Beyond { .. } => break,
        }
    }
    Ok(())
}
