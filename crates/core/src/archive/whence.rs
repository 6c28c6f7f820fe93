//! Where a streamer goes on: behind what the transport has, if the log here is the same stream.
//!
//! Must not know: how the log is put from there on.

use std::io::Read;

use super::{Archive, End, Error, Result};
use crate::chain::{self, LogChain};
use crate::offsets::{self, Lookup, Offsets};
use crate::record::{self, Record};
use crate::stream::StreamOffset;

/// The offset of the first byte to be put. `leave_gap`: where the transport has more of the
/// stream than is known here, what is here follows it, after a gap.
///
/// # Errors
/// [`Error::NotHere`]; the log's.
pub(super) async fn whence(
    chain: LogChain,
    archive: &Archive,
    end: Option<&End>,
    leave_gap: bool,
) -> Result<u64> {
    let transport = archive.transport.to_string();
    let archive = archive.clone();
    let Some(end) = end.cloned() else {
        let begins = blocking(move || {
            // The VM came just now: what is here follows a history of unknown length.
            let begins = !Offsets::of(&chain)?.is_arriving();
            if begins {
                own(&chain, &archive)?;
            }
            Ok(begins)
        });
        return if begins.await? {
            Ok(0)
        } else {
            let archived = 0;
            Err(Error::NotHere {
                archived,
                transport,
            })
        };
    };
    let archived = end.offset;
    let goes_on = blocking(move || -> Result<bool> {
        let goes_on = goes_on(&chain, &archive, &end)?;
        if goes_on {
            own(&chain, &archive)?;
        } else if leave_gap {
            follow_on(&chain, &archive, end.offset)?;
        }
        Ok(goes_on || leave_gap)
    });
    if goes_on.await? {
        return Ok(archived);
    }
    Err(Error::NotHere {
        archived,
        transport,
    })
}

/// Whether the log is the stream that `end` is the end of. Bytes decide where
/// both have some; where the rotation dropped them here, the record's word does.
fn goes_on(chain: &LogChain, archive: &Archive, end: &End) -> Result<bool> {
    let offsets = Offsets::of(chain)?;
    let (from, to) = (
        StreamOffset::new(end.last.offset),
        StreamOffset::new(end.offset),
    );
    if offsets.is_arriving() || offsets.layout(from)?.end() < to {
        return Ok(false);
    }
    let (mut at, mut seen) = (from, false);
    while at < to {
        let most = to.saturating_bytes_since(at);
        let mut run = match offsets.from(at, most)? {
            Lookup::Run(run) => run,
            Lookup::Gone { next, .. } => {
                at = next.max(at.saturating_add(1));
                continue;
            }
            Lookup::Beyond { .. } => break,
        };
        let mut bytes = Vec::new();
        let read = run.read_to_end(&mut bytes);
        read.map_err(|e| log(chain::Error::of_io(e, chain.path())))?;
        let into = usize::try_from(at.saturating_bytes_since(from)).unwrap_or(usize::MAX);
        let theirs = end.last.bytes.get(into..).unwrap_or_default();
        if bytes.is_empty() || theirs.get(..bytes.len()) != Some(&bytes) {
            return Ok(false);
        }
        seen = true;
        at = at.saturating_add(bytes.len() as u64);
    }
    let is_ours = |r: Record| r.is_of(archive.domain, &archive.console);
    let record = || chain.record().map_err(offsets::Error::from);
    Ok(seen || record()?.is_some_and(is_ours))
}

/// Puts down whose log it is: it is recognised when the VM comes back. Where
/// nothing can be written, it is streamed all the same.
fn own(chain: &LogChain, archive: &Archive) -> Result<()> {
    change(chain, archive, |_| ()).or_else(|e| match e {
        record::Error::Folder(e) if e.is_refusal() => Ok(()),
        e => Err(offsets::Error::from(e).into()),
    })
}

/// What is here follows what the transport has, after a gap.
fn follow_on(chain: &LogChain, archive: &Archive, offset: u64) -> Result<()> {
    let changed = change(chain, archive, |record| {
        record.ledger.go_on_at(StreamOffset::new(offset));
    });
    Ok(changed.map_err(offsets::Error::from)?)
}

fn change(
    chain: &LogChain,
    archive: &Archive,
    change: impl FnOnce(&mut Record),
) -> Result<(), record::Error> {
    let (folder, base) = (chain.folder(), chain.base_name());
    Record::update(folder, base, archive.domain, &archive.console, change)
}

pub(super) fn log(error: chain::Error) -> Error {
    offsets::Error::from(error).into()
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}
