//! Shows a log whose bytes come in pieces from somewhere else: from the agent, or from where
//! `logchain stream` put them. What it prints, and how it ends, is the same as for a log that is
//! read here.
//!
//! Must not know: where the pieces come from, and how.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use logchain_core::stream::{BootRun, Hop, StreamOffset};

use super::json::{Place, Shown};
use super::out::Out;
use super::spool::Spool;
use super::{boots, gap_sentence, hops, is_broken_pipe, stream};
use crate::args::{Amount, DEFAULT_BYTES, Format, Show};
use crate::exit::{Exit, Usage};

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes from this offset on.
    Bytes { offset: u64, bytes: Bytes },
    /// Bytes are missing before `next`.
    Missing { next: u64, size: Option<u64> },
    /// That is all for now.
    CaughtUp,
    /// That is all. `next`: the offset after the last byte.
    End { next: u64, more: bool },
}

/// A log that lies elsewhere.
#[derive(Clone, Debug)]
pub struct RemoteLog {
    /// Name and UUID.
    pub domain: (String, String),
    pub console: String,
    pub path: PathBuf,
    pub numbering: String,
    /// Names and sizes, the oldest first.
    pub files: Vec<(String, u64)>,
    /// Missing numbers: the first and the last one.
    pub gaps: Vec<(u32, u32)>,
    /// What of the log is not read, or is in doubt.
    pub remarks: Vec<String>,
    pub hops: Vec<Hop>,
    /// Oldest first; none where nobody asked for a boot.
    pub boots: Vec<BootRun>,
    pub start: Start,
    /// The offset after its last byte.
    pub end: u64,
}

/// Whether what was asked for is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From this offset on.
    At(u64),
    /// Not any more, or not yet; `next` is the first offset that is there.
    Gone { next: u64, arriving: bool },
    /// The log ends before it.
    Beyond,
    /// There is no log of that boot.
    NoSuchBoot,
}

/// Whether the options go together.
pub fn check(args: &Show) -> Result<(), Usage> {
    boots::check(args)
}

/// How many bytes are printed from an offset on, where there is a bound.
pub fn budget(args: &Show) -> Option<u64> {
    match args.bytes {
        Some(Amount::Bytes(bytes)) => Some(bytes),
        Some(Amount::All) => None,
        // Whoever follows from an offset misses nothing.
        None if args.follow => None,
        None => Some(DEFAULT_BYTES),
    }
}

/// Shows a log. Blocks.
pub fn show(
    args: &Show,
    log: &RemoteLog,
    pieces: impl Iterator<Item = anyhow::Result<Piece>>,
) -> anyhow::Result<Exit> {
    match shown(args, log, pieces) {
        // A pager that was closed has seen enough.
        Err(e) if is_broken_pipe(&e) => Ok(Exit::Done),
        shown => shown,
    }
}

fn shown(
    args: &Show,
    log: &RemoteLog,
    pieces: impl Iterator<Item = anyhow::Result<Piece>>,
) -> anyhow::Result<Exit> {
    if args.hops {
        let end = StreamOffset::new(log.end);
        return hops::print(args.format, &log.path, &log.hops, end);
    }
    if args.list_boots {
        return boots::print(args.format, &log.boots);
    }
    say_remarks(&log.path, &log.remarks, &log.gaps);
    if log.start != Start::NoSuchBoot && args.format == Format::Json && !args.follow {
        return one_object(args, log, pieces);
    }
    if let Some(sentence) = why_not_there(args, log) {
        eprintln!("logchain: {sentence}");
        return Ok(Exit::Failed);
    }
    let mut out = Out::new(args)?;
    let Some((next, more)) = print(&mut out, pieces)? else {
        return Ok(Exit::Done);
    };
    if let Some(from) = args.from {
        let rest = if more {
            "more follows"
        } else {
            "that is all so far"
        };
        eprintln!("logchain: offsets {from} to {next}; {rest}");
    }
    Ok(Exit::Done)
}

fn say_remarks(path: &Path, remarks: &[String], gaps: &[(u32, u32)]) {
    for remark in remarks {
        eprintln!("logchain: {}: {remark}", path.display());
    }
    for (first, last) in gaps {
        eprintln!("logchain: {}", gap_sentence(path, *first, *last));
    }
}

fn why_not_there(args: &Show, log: &RemoteLog) -> Option<String> {
    let asked = StreamOffset::new(args.from.unwrap_or_default());
    match log.start {
        Start::At(_) => None,
        Start::Gone { next, arriving } => {
            Some(stream::gone(asked, StreamOffset::new(next), arriving))
        }
        Start::Beyond => Some(stream::beyond(asked, StreamOffset::new(log.end))),
        Start::NoSuchBoot => Some(boots::not_there(
            args.boot.unwrap_or_default(),
            log.boots.len(),
        )),
    }
}

/// Prints pieces as they come. Gives where the log ends, and whether it has more; `None`: nobody
/// reads any further. Blocks.
pub fn print(
    out: &mut Out,
    pieces: impl Iterator<Item = anyhow::Result<Piece>>,
) -> anyhow::Result<Option<(u64, bool)>> {
    let mut end = (0, false);
    for piece in pieces {
        match piece? {
            Piece::Bytes { offset, bytes } => {
                out.push(offset, &bytes)?;
                end = (offset.saturating_add(bytes.len() as u64), false);
            }
            Piece::Missing { next, size } => {
                out.missing(next, size)?;
                end = (next, false);
            }
            Piece::CaughtUp => {
                out.flush()?;
                if out.is_closed() {
                    return Ok(None);
                }
            }
            Piece::End { next, more } => end = (next, more),
        }
    }
    out.finish()?;
    Ok(Some(end))
}

/// As for a log that is read here: with an offset, up to the first gap.
fn one_object(
    args: &Show,
    log: &RemoteLog,
    pieces: impl Iterator<Item = anyhow::Result<Piece>>,
) -> anyhow::Result<Exit> {
    let mut spool = Spool::new();
    let shown = Shown::of_remote(log);
    let from = match log.start {
        // What a boot printed has its place as well.
        Start::At(offset) if args.boot.is_some() => Some(offset),
        _ => args.from,
    };
    let Some(from) = from else {
        for piece in pieces {
            if let Piece::Bytes { bytes, .. } = piece? {
                spool.write_all(&bytes)?;
            }
        }
        write(&shown, &spool)?;
        return Ok(Exit::Done);
    };
    if let Some(sentence) = why_not_there(args, log) {
        eprintln!("logchain: {sentence}");
    }
    let (next, more, expired) = match log.start {
        Start::Gone { next, arriving } => (next, true, (!arriving).then_some(next)),
        Start::Beyond | Start::NoSuchBoot => (log.end, false, None),
        Start::At(_) => {
            let (next, more) = up_to_a_gap(from, pieces, &mut spool)?;
            (next, more, None)
        }
    };
    let place = Place {
        offset: from,
        next,
        more,
        expired,
    };
    write(&shown.at(place), &spool)?;
    Ok(match log.start {
        Start::At(_) => Exit::Done,
        _ => Exit::Failed,
    })
}

fn write(shown: &Shown, spool: &Spool) -> anyhow::Result<()> {
    shown.write(|| Ok(spool.reader()), &mut io::stdout().lock())
}

/// Keeps the bytes before the first gap behind `from`. Gives the offset after them, and whether
/// the log has more.
fn up_to_a_gap(
    from: u64,
    pieces: impl Iterator<Item = anyhow::Result<Piece>>,
    spool: &mut Spool,
) -> anyhow::Result<(u64, bool)> {
    let mut at = from;
    for piece in pieces {
        match piece? {
            Piece::Bytes { bytes, .. } => {
                spool.write_all(&bytes)?;
                at = at.saturating_add(bytes.len() as u64);
            }
            Piece::Missing { next, size: None } if next == from && at == from => {
                eprintln!(
                    "logchain: bytes are missing before offset {from}, nobody knows how many"
                );
            }
            Piece::Missing { .. } => return Ok((at, true)),
            Piece::CaughtUp => {}
            Piece::End { next, more } => return Ok((next, more)),
        }
    }
    Ok((at, false))
}
