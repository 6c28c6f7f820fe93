//! A log by offsets, and as it grows.

use std::io::{self, Read};
use std::time::Duration;

use logchain_core::chain::LogChain;
use logchain_core::live::{Live, News};
use logchain_core::offsets::{Lookup, Offsets};
use logchain_core::stream::StreamOffset;

use super::json::{Place, Shown};
use super::out::Out;
use super::{BLOCK, Subject, each_block, reader, remote, say_remarks};
use crate::args::{Format, Show};
use crate::exit::Exit;

/// Between two looks where no notice comes.
const WAIT: Duration = Duration::from_secs(1);

pub(super) fn show(args: &Show, subject: &Subject, chain: LogChain) -> anyhow::Result<Exit> {
    let offsets = Offsets::of(&chain)?;
    if let Err(e) = offsets.remember(&chain) {
        eprintln!("logchain: offsets are not kept: {e}");
    }
    say_remarks(subject, offsets.snapshot());
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
        StreamOffset::new(offset),
        budget(args),
    )
}

/// As [`remote::budget`]; all of it where there is no bound.
fn budget(args: &Show) -> u64 {
    remote::budget(args).unwrap_or(u64::MAX)
}

/// What is there before anything is followed. `Some`: there is nothing to follow.
fn begin(args: &Show, offsets: &Offsets, out: &mut Out) -> anyhow::Result<Option<Exit>> {
    let Some(from) = args.from else {
        let mut at = offsets.end()?;
        if let Out::Json(_) = out {
            // Where the last lines begin is known once they were read.
            each_block(reader(args, offsets.snapshot())?, |bytes| {
                at = at.saturating_sub(bytes.len() as u64);
                Ok(())
            })?;
        }
        each_block(reader(args, offsets.snapshot())?, |bytes| {
            out.push(at.get(), bytes)?;
            at = at.saturating_add(bytes.len() as u64);
            Ok(())
        })?;
        return Ok(None);
    };
    let from = StreamOffset::new(from);
    let Some((at, more)) = print(offsets, (from, budget(args)), out)? else {
        return Ok(Some(Exit::Failed));
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

/// Prints so many bytes from an offset on, and what of them is missing. Gives where that ends, and
/// whether more follows; `None`: the first of them is not there, and that was said.
pub(super) fn print(
    offsets: &Offsets,
    (from, most): (StreamOffset, u64),
    out: &mut Out,
) -> anyhow::Result<Option<(StreamOffset, bool)>> {
    let (mut at, mut left) = (from, most);
    loop {
        match offsets.from(at, left)? {
            Lookup::Run(run) => {
                let (next, more) = (run.next(), run.more());
                if run.follows_gap() {
                    out.missing(at.get(), None)?;
                }
                left = left.saturating_sub(next.saturating_bytes_since(at));
                each_block(run, |bytes| {
                    out.push(at.get(), bytes)?;
                    at = at.saturating_add(bytes.len() as u64);
                    Ok(())
                })?;
                at = next;
                if left == 0 || !more {
                    return Ok(Some((at, more)));
                }
            }
            Lookup::Gone { next, arriving } if at == from => {
                eprintln!("logchain: {}", gone(at, next, arriving));
                return Ok(None);
            }
            Lookup::Gone { next, .. } => {
                let missing = next.bytes_since(at);
                out.missing(next.get(), missing)?;
                left = left.saturating_sub(missing.unwrap_or(0));
                at = next;
            }
            Lookup::Beyond { end } if at > end => {
                eprintln!("logchain: {}", beyond(at, end));
                return Ok(None);
            }
            Lookup::Beyond { .. } => return Ok(Some((at, false))),
        }
    }
}

pub(super) fn gone(offset: StreamOffset, next: StreamOffset, arriving: bool) -> String {
    if arriving {
        format!("offset {offset} is not there yet: history is being put in place; try again")
    } else {
        format!("offset {offset} has expired: the first one still there is {next}")
    }
}

pub(super) fn beyond(offset: StreamOffset, end: StreamOffset) -> String {
    format!("offset {offset} is not there yet: the log ends at {end}")
}

pub(super) fn one_object(
    shown: Shown,
    offsets: &Offsets,
    offset: StreamOffset,
    most: u64,
) -> anyhow::Result<Exit> {
    let mut out = io::stdout().lock();
    let (next, more, expired, exit) = match offsets.from(offset, most)? {
        Lookup::Run(run) => {
            if run.follows_gap() {
                eprintln!(
                    "logchain: bytes are missing before offset {offset}, nobody knows how many"
                );
            }
            (run.next(), run.more(), None, Exit::Done)
        }
        Lookup::Gone { next, arriving } => {
            eprintln!("logchain: {}", gone(offset, next, arriving));
            (next, true, (!arriving).then_some(next), Exit::Failed)
        }
        Lookup::Beyond { end } if offset > end => {
            eprintln!("logchain: {}", beyond(offset, end));
            (end, false, None, Exit::Failed)
        }
        Lookup::Beyond { end } => (end, false, None, Exit::Done),
    };
    let place = Place {
        offset: offset.get(),
        next: next.get(),
        more,
        expired: expired.map(StreamOffset::get),
    };
    let content = || -> anyhow::Result<Box<dyn Read + '_>> {
        Ok(match offsets.from(offset, most)? {
            Lookup::Run(run) => Box::new(run),
            _ => Box::new(io::empty()),
        })
    };
    shown.at(place).write(content, &mut out)?;
    Ok(exit)
}

pub(super) fn follow(mut live: Live, out: &mut Out) -> anyhow::Result<Exit> {
    let mut block = vec![0; BLOCK];
    loop {
        let offset = live.offset();
        match live.read(&mut block)? {
            News::Bytes(n) => out.push(offset.get(), block.get(..n).unwrap_or_default())?,
            News::Missing { size } => out.missing(live.offset().get(), size)?,
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
