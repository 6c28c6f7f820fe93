//! A log by offsets, and as it grows.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use logchain_core::chain::LogChain;
use logchain_core::escape::Escaper;
use logchain_core::live::{Live, News};
use logchain_core::offsets::{Found, Offsets};
use serde_json::json;

use super::json::{Place, Shown, text};
use super::{BLOCK, Subject, each_block, reader, say_gaps};
use crate::args::{Amount, DEFAULT_BYTES, Format, Show};
use crate::exit::Exit;

/// Between two looks where no notice comes.
const WAIT: Duration = Duration::from_secs(1);

pub(super) fn show(args: &Show, subject: &Subject, chain: LogChain) -> anyhow::Result<Exit> {
    let offsets = Offsets::of(&chain)?;
    if let Err(e) = offsets.remember(&chain) {
        eprintln!("logchain: offsets are not kept: {e}");
    }
    say_gaps(subject, offsets.snapshot());
    let mut out = Out::new(args)?;
    let (Some(offset), Format::Json, false) = (args.from, args.format, args.follow) else {
        if let Some(exit) = begin(args, &offsets, &mut out)? {
            return Ok(exit);
        }
        if !args.follow {
            return Ok(Exit::Done);
        }
        return follow(Live::after(&offsets, chain)?, &mut out);
    };
    one_object(
        Shown::of(subject, &chain, offsets.snapshot()),
        &offsets,
        offset,
        budget(args),
    )
}

fn budget(args: &Show) -> u64 {
    match args.bytes {
        Some(Amount::Bytes(bytes)) => bytes,
        Some(Amount::All) => u64::MAX,
        // Whoever follows from an offset misses nothing.
        None if args.follow => u64::MAX,
        None => DEFAULT_BYTES,
    }
}

/// What is there before anything is followed. `Some`: there is nothing to follow.
fn begin(args: &Show, offsets: &Offsets, out: &mut Out) -> anyhow::Result<Option<Exit>> {
    let Some(from) = args.from else {
        let mut at = offsets.layout(u64::MAX)?.end();
        if let Out::Json(_) = out {
            // Where the last lines begin is known once they were read.
            each_block(reader(args, offsets.snapshot())?, |bytes| {
                at = at.saturating_sub(bytes.len() as u64);
                Ok(())
            })?;
        }
        each_block(reader(args, offsets.snapshot())?, |bytes| {
            out.push(at, bytes)?;
            at = at.saturating_add(bytes.len() as u64);
            Ok(())
        })?;
        return Ok(None);
    };
    let (mut at, mut left) = (from, budget(args));
    let more = loop {
        match offsets.from(at, left)? {
            Found::Run(run) => {
                let (next, more) = (run.next(), run.more());
                left = left.saturating_sub(next.saturating_sub(at));
                each_block(run, |bytes| {
                    out.push(at, bytes)?;
                    at = at.saturating_add(bytes.len() as u64);
                    Ok(())
                })?;
                at = next;
                if left == 0 || !more {
                    break more;
                }
            }
            Found::Gone { next, arriving } if at == from => {
                eprintln!("logchain: {}", gone(at, next, arriving));
                return Ok(Some(Exit::Failed));
            }
            Found::Gone { next, .. } => {
                out.missing(next, Some(next.saturating_sub(at)))?;
                at = next;
            }
            Found::Beyond { end } if at > end => {
                eprintln!("logchain: {}", beyond(at, end));
                return Ok(Some(Exit::Failed));
            }
            Found::Beyond { .. } => break false,
        }
    };
    if !args.follow {
        out.finish()?;
        let rest = if more {
            "more follows"
        } else {
            "that is all so far"
        };
        eprintln!("logchain: offsets {from} to {at}; {rest}");
    }
    Ok(None)
}

fn gone(offset: u64, next: u64, arriving: bool) -> String {
    if arriving {
        format!("offset {offset} is not there yet: history is being put in place; try again")
    } else {
        format!("offset {offset} has expired: the first one still there is {next}")
    }
}

fn beyond(offset: u64, end: u64) -> String {
    format!("offset {offset} is not there yet: the log ends at {end}")
}

fn one_object(shown: Shown, offsets: &Offsets, offset: u64, most: u64) -> anyhow::Result<Exit> {
    let mut out = io::stdout().lock();
    let (next, more, expired, exit) = match offsets.from(offset, most)? {
        Found::Run(run) => (run.next(), run.more(), None, Exit::Done),
        Found::Gone { next, arriving } => {
            eprintln!("logchain: {}", gone(offset, next, arriving));
            (next, true, (!arriving).then_some(next), Exit::Failed)
        }
        Found::Beyond { end } if offset > end => {
            eprintln!("logchain: {}", beyond(offset, end));
            (end, false, None, Exit::Failed)
        }
        Found::Beyond { end } => (end, false, None, Exit::Done),
    };
    let place = Place {
        offset,
        next,
        more,
        expired,
    };
    let content = || -> anyhow::Result<Box<dyn Read + '_>> {
        Ok(match offsets.from(offset, most)? {
            Found::Run(run) => Box::new(run),
            _ => Box::new(io::empty()),
        })
    };
    shown.at(place).write(content, &mut out)?;
    Ok(exit)
}

fn follow(mut live: Live, out: &mut Out) -> anyhow::Result<Exit> {
    let mut block = vec![0; BLOCK];
    loop {
        let offset = live.offset();
        match live.read(&mut block)? {
            News::Bytes(n) => out.push(offset, block.get(..n).unwrap_or_default())?,
            News::Missing { size } => out.missing(live.offset(), size)?,
            News::None => {
                out.flush()?;
                if out.is_closed() {
                    return Ok(Exit::Done);
                }
                live.wait(WAIT);
            }
        }
    }
}

/// Where bytes go.
enum Out {
    /// Past the standard output's own buffer, which looks for lines to flush.
    Raw(File),
    Escaped(Box<Escaper>),
    Json(io::Stdout),
}

impl Out {
    fn new(args: &Show) -> anyhow::Result<Self> {
        let plain = args.raw || !io::stdout().is_terminal();
        Ok(match args.format {
            Format::Json => Self::Json(io::stdout()),
            Format::Text if plain => {
                Self::Raw(File::from(io::stdout().as_fd().try_clone_to_owned()?))
            }
            Format::Text => Self::Escaped(Box::default()),
        })
    }

    fn push(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Raw(file) => Ok(file.write_all(bytes)?),
            Self::Escaped(escaper) => {
                let mut safe = Vec::new();
                escaper.push(bytes, &mut safe);
                Ok(io::stdout().write_all(&safe)?)
            }
            Self::Json(_) if bytes.is_empty() => Ok(()),
            Self::Json(out) => {
                let (encoding, content) = text(bytes);
                let next = offset.saturating_add(bytes.len() as u64);
                let piece = json!({
                    "offset": offset, "next": next, "encoding": encoding, "content": content,
                });
                Ok(writeln!(out, "{piece}")?)
            }
        }
    }

    fn missing(&mut self, next: u64, size: Option<u64>) -> anyhow::Result<()> {
        if let Self::Json(out) = self {
            let piece = json!({ "missing": size, "next": next });
            return Ok(writeln!(out, "{piece}")?);
        }
        self.flush()?;
        let many = size.map_or_else(|| "some bytes are".to_owned(), |s| format!("{s} bytes are"));
        eprintln!("logchain: {many} missing before offset {next}");
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        io::stdout().flush().context("cannot write")
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        if let Self::Escaped(escaper) = self {
            let mut safe = Vec::new();
            std::mem::take(&mut **escaper).finish(&mut safe);
            io::stdout().write_all(&safe)?;
        }
        self.flush()
    }

    /// Whether nobody reads what is written: a follower that waits for a log
    /// that is silent would never notice.
    fn is_closed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let out = io::stdout();
        let mut fds = [PollFd::new(&out, PollFlags::empty())];
        let ready = poll(&mut fds, Some(&rustix::event::Timespec::default()));
        let [fd] = fds;
        ready.is_ok_and(|n| n > 0) && fd.revents().intersects(PollFlags::ERR | PollFlags::NVAL)
    }
}
