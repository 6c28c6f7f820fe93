//! Reads a log for a client of the control socket: from what it asks for to [`Frame`]s.
//!
//! A thread of its own reads, and waits where the client does not take what was read: no more is
//! ever read ahead than the channel holds.
//!
//! Must not know: libvirt, which file a log is, HTTP.

use std::collections::VecDeque;
use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use logchain_core::chain::LogChain;
use logchain_core::live::{Live, News};
use logchain_core::offsets::{Lookup, Offsets};
use logchain_core::stream::StreamOffset;
use logchain_core::{OkLogged as _, chain};
use tokio::sync::{mpsc, oneshot};

use super::control::{Boot, Frame, Head, LogFile, LogRequest, MissingFiles, Part, Refusal, Start};
use crate::{Error, Result};

/// Frames that wait for a client that reads slowly.
pub(super) const AHEAD: usize = 4;

/// Bytes in one frame.
const PIECE: usize = 64 << 10;

/// Between two looks at a log that is followed, where no notice comes. Whether the client is
/// still there is seen then, too.
const LOOK: Duration = Duration::from_secs(1);

/// Where the last lines are looked for first, in bytes from the end; then four times as far, and
/// so on.
const LINES: u64 = 64 << 10;

/// The client went away.
struct Gone;

/// Reads what a client asks for of a log. `head` has what the caller knows of it. `begun` is told
/// whether the log can be read; from then on a failure is a frame. Blocks, as long as the client
/// reads.
pub(super) fn read(
    chain: chain::Result<LogChain>,
    head: Head,
    request: &LogRequest,
    begun: oneshot::Sender<Result<(), Refusal>>,
    frames: &mpsc::Sender<Frame>,
) {
    let opened = open(chain, head, request);
    let (chain, offsets, head, span) = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            // Whoever asked may be gone.
            let _ = begun.send(Err(refusal));
            return;
        }
    };
    if begun.send(Ok(())).is_err() {
        return;
    }
    let start = head.start;
    let sent = put(frames, Frame::Head(Box::new(head))).and_then(|()| match start {
        Start::At(_) => send(chain, &offsets, span, request.follow, frames),
        Start::Expired(next) | Start::Arriving(next) => {
            put(frames, Frame::End { next, more: true })
        }
        Start::Beyond | Start::NoSuchBoot => {
            let next = span.end.get();
            put(frames, Frame::End { next, more: false })
        }
    });
    if sent.is_err() {
        tracing::debug!("a client that read a log went away");
    }
}

/// What is read of a log that has `end` now.
#[derive(Clone, Copy)]
struct Span {
    from: StreamOffset,
    most: u64,
    end: StreamOffset,
}

type Opened = (LogChain, Offsets, Head, Span);

fn open(
    chain: chain::Result<LogChain>,
    mut head: Head,
    request: &LogRequest,
) -> std::result::Result<Opened, Refusal> {
    let refused = |e: Error| match e {
        Error::Chain(e) if e.is_not_found() => Refusal::NoSuchLog(e.to_string()),
        e => Refusal::Failed(e.sentence()),
    };
    let opened = (|| {
        let chain = chain?;
        let offsets = Offsets::of(&chain)?;
        // A full disk, say, is no reason not to read what is there.
        offsets
            .remember(&chain)
            .ok_logged("what the files hold is remembered at a later look");
        let end = offsets.end()?;
        if request.list_boots || request.boot.is_some() {
            head.boots = boots(&offsets)?;
        }
        let within = match request.boot {
            None => Some((StreamOffset::START, end)),
            Some(boot) => {
                let age = usize::try_from(boot.unsigned_abs()).unwrap_or(usize::MAX);
                let boot = head.boots.iter().rev().nth(age);
                boot.map(|b| (StreamOffset::new(b.start), StreamOffset::new(b.end)))
            }
        };
        let (first, last) = within.unwrap_or((end, end));
        let (from, most) = match request.part {
            Part::All => (first, None),
            Part::LastBytes(bytes) => (last.saturating_sub(bytes).max(first), None),
            Part::LastLines(lines) => (last_lines(&offsets, (first, last), lines)?, None),
            Part::From { offset, most } => (StreamOffset::new(offset), most),
        };
        let is_exact = matches!(request.part, Part::From { .. });
        head.start = match within {
            Some(_) => start(&offsets, from, is_exact)?,
            None => Start::NoSuchBoot,
        };
        let from = match head.start {
            Start::At(offset) => StreamOffset::new(offset),
            _ => from,
        };
        let most = most
            .unwrap_or(u64::MAX)
            .min(last.saturating_bytes_since(from));
        head.stop = from.saturating_add(most).get();
        head.end = end.get();
        Ok((chain, offsets, Span { from, most, end }))
    })();
    let (chain, offsets, span) = opened.map_err(refused)?;
    describe(&mut head, &chain, &offsets);
    Ok((chain, offsets, head, span))
}

/// The boots whose logs are there.
fn boots(offsets: &Offsets) -> Result<Vec<Boot>> {
    let boots = offsets.boots()?.into_iter().map(|boot| Boot {
        since: boot.since.map(Timestamp::as_second),
        start: boot.start.get(),
        end: boot.end.get(),
    });
    Ok(boots.collect())
}

fn describe(head: &mut Head, chain: &LogChain, offsets: &Offsets) {
    let snapshot = offsets.snapshot();
    head.path = chain.path().to_string_lossy().into_owned();
    head.numbering = chain.numbering().to_string();
    let files = snapshot.files().iter();
    head.files = files
        .map(|file| LogFile {
            name: file.name().to_string_lossy().into_owned(),
            size: file.size(),
        })
        .collect();
    let gaps = snapshot.gaps().iter();
    head.gaps = gaps
        .map(|gap| MissingFiles {
            first: gap.first,
            last: gap.last,
        })
        .collect();
    head.remarks = snapshot.remarks().iter().map(ToString::to_string).collect();
    head.hops = offsets.ledger().hops().to_vec();
}

/// Where an answer from `from` on begins. `is_exact`: the client asked for that very offset.
fn start(offsets: &Offsets, from: StreamOffset, is_exact: bool) -> Result<Start> {
    Ok(match offsets.from(from, 1)? {
        Lookup::Run(run) => Start::At(run.offset().get()),
        Lookup::Gone { next, .. } if !is_exact => Start::At(next.get()),
        Lookup::Gone { next, arriving } if arriving => Start::Arriving(next.get()),
        Lookup::Gone { next, .. } => Start::Expired(next.get()),
        Lookup::Beyond { end } if is_exact && from > end => Start::Beyond,
        Lookup::Beyond { end } => Start::At(end.get()),
    })
}

/// Where the last lines between two offsets begin.
fn last_lines(
    offsets: &Offsets,
    (floor, end): (StreamOffset, StreamOffset),
    lines: u64,
) -> Result<StreamOffset> {
    let keep = usize::try_from(lines).unwrap_or(usize::MAX);
    if keep == 0 {
        return Ok(end);
    }
    let mut back = LINES;
    loop {
        let from = end.saturating_sub(back).max(floor);
        // Where lines begin, the last ones last; no more than are asked for.
        let mut begins = VecDeque::new();
        let mut first = None;
        each_piece(offsets, from, end, |at, bytes| {
            first.get_or_insert(at);
            for (index, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'\n') {
                let begin = at.saturating_add(index as u64).saturating_add(1);
                if begin < end {
                    begins.push_back(begin);
                }
                if begins.len() > keep {
                    begins.pop_front();
                }
            }
        })?;
        // The line before the first newline may begin further back.
        match begins.front() {
            Some(begin) if begins.len() >= keep => return Ok(*begin),
            _ if from == floor => return Ok(first.unwrap_or(end)),
            // Nothing is there before.
            _ if first.is_none_or(|first| first > from) => return Ok(first.unwrap_or(end)),
            _ => back = back.saturating_mul(4),
        }
    }
}

/// Gives what is there between two offsets, piece by piece.
fn each_piece(
    offsets: &Offsets,
    from: StreamOffset,
    end: StreamOffset,
    mut take: impl FnMut(StreamOffset, &[u8]),
) -> Result<()> {
    let mut at = from;
    let mut piece = vec![0; PIECE];
    while at < end {
        match offsets.from(at, end.saturating_bytes_since(at))? {
            Lookup::Run(mut run) => {
                let next = run.next();
                loop {
                    let read = run.read(&mut piece).map_err(unreadable)?;
                    let bytes = piece.get(..read).unwrap_or_default();
                    if bytes.is_empty() {
                        break;
                    }
                    take(at, bytes);
                    at = at.saturating_add(bytes.len() as u64);
                }
                at = next;
            }
            Lookup::Gone { next, .. } => at = next,
            Lookup::Beyond { .. } => break,
        }
    }
    Ok(())
}

fn unreadable(source: std::io::Error) -> Error {
    Error::Io {
        action: "cannot read the log".to_owned(),
        source,
    }
}

fn put(frames: &mpsc::Sender<Frame>, frame: Frame) -> std::result::Result<(), Gone> {
    frames.blocking_send(frame).map_err(|_| Gone)
}

/// Sends what is there and, where it is asked for, what comes.
fn send(
    chain: LogChain,
    offsets: &Offsets,
    span: Span,
    follow: bool,
    frames: &mpsc::Sender<Frame>,
) -> std::result::Result<(), Gone> {
    let sent = send_span(offsets, span, frames).and_then(|sent| {
        let Some((next, more)) = sent else {
            return Ok(None);
        };
        if follow {
            return self::follow(Live::after(offsets, chain)?, frames);
        }
        let next = next.get();
        Ok(put(frames, Frame::End { next, more }).ok())
    });
    match sent {
        Ok(Some(())) => Ok(()),
        Ok(None) => Err(Gone),
        Err(e) => put(frames, Frame::Failed(e.sentence())),
    }
}

/// Gives where it ends, and whether the log has more; `None`: the client went away.
fn send_span(
    offsets: &Offsets,
    span: Span,
    frames: &mpsc::Sender<Frame>,
) -> Result<Option<(StreamOffset, bool)>> {
    let (mut at, mut left) = (span.from, span.most);
    loop {
        match offsets.from(at, left)? {
            Lookup::Run(mut run) => {
                let (next, more) = (run.next(), run.more());
                if run.follows_gap() {
                    let (next, size) = (at.get(), None);
                    if put(frames, Frame::Missing { next, size }).is_err() {
                        return Ok(None);
                    }
                }
                left = left.saturating_sub(next.saturating_bytes_since(at));
                loop {
                    let mut piece = vec![0; PIECE];
                    let read = run.read(&mut piece).map_err(unreadable)?;
                    if read == 0 {
                        break;
                    }
                    piece.truncate(read);
                    let (offset, bytes) = (at.get(), Bytes::from(piece));
                    if put(frames, Frame::Bytes { offset, bytes }).is_err() {
                        return Ok(None);
                    }
                    at = at.saturating_add(read as u64);
                }
                at = next;
                if left == 0 || !more {
                    return Ok(Some((at, more)));
                }
            }
            Lookup::Gone { next, .. } => {
                let size = next.bytes_since(at);
                left = left.saturating_sub(size.unwrap_or(0));
                at = next;
                let next = next.get();
                if put(frames, Frame::Missing { next, size }).is_err() {
                    return Ok(None);
                }
                if left == 0 {
                    return Ok(Some((at, true)));
                }
            }
            Lookup::Beyond { .. } => return Ok(Some((at, false))),
        }
    }
}

/// Ends when the client went away.
fn follow(mut live: Live, frames: &mpsc::Sender<Frame>) -> Result<Option<()>> {
    let mut piece = vec![0; PIECE];
    while !frames.is_closed() {
        let offset = live.offset().get();
        let frame = match live.read(&mut piece)? {
            News::None => {
                // It also says that the agent lives. A client that has yet to read other frames
                // needs no such sign.
                let _ = frames.try_send(Frame::CaughtUp);
                live.wait(LOOK);
                continue;
            }
            News::Bytes(read) => Frame::Bytes {
                offset,
                bytes: Bytes::copy_from_slice(piece.get(..read).unwrap_or_default()),
            },
            News::Missing { size } => Frame::Missing {
                next: live.offset().get(),
                size,
            },
        };
        if put(frames, frame).is_err() {
            break;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
