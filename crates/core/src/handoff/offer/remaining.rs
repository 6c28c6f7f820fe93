//! What is left to do for a chain whose VM has left.

use std::ffi::OsStr;

use tracing::debug;
use uuid::Uuid;

use crate::chain::{LogChain, Ownership};
use crate::folder::Folder;
use crate::handoff::{Error, Handoff, Stage, blocking};
use crate::ids::{ConsoleName, HandoffId};
use crate::record::{Offered, OnDisk, Record};
use crate::sentence;
use crate::transport::{Entry, LogTransport, LogTransportExt};

/// What is left to do for a chain whose VM has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// It was handed over, just as it is.
    Nothing(Offered),
    /// It was committed to this transport: only the receipt is missing.
    Receipt(Offered),
    /// It was begun, and no commit came there: some pieces may be there already.
    Rest(HandoffId),
    /// All of it: it was never handed over, or not as it is now, or to a
    /// transport that does not have it (any more). Should a destination have it
    /// all the same, it will not have it twice.
    All,
}

/// What is left to do for `chain`, going by the record beside it and by what is
/// in `transport`.
///
/// # Errors
/// [`Error::Folder`] or [`Error::Chain`] where the log cannot be looked at, [`Error::Record`]
/// where its record cannot be read, [`Error::Transport`] where the transport does not answer.
pub async fn remaining(
    chain: &LogChain,
    domain: Uuid,
    console: &ConsoleName,
    transport: &dyn LogTransport,
) -> Result<Remaining, Error> {
    let folder = chain.folder().try_clone()?;
    let (base, of_console) = (chain.base_name().to_owned(), console.clone());
    let ownership = chain.ownership().clone();
    let work = move || Known::of(&folder, &base, domain, &of_console, &ownership);
    let Known { offered, goes_on } = blocking(work).await?;
    let handoff = |id| Handoff {
        domain,
        console: console.clone(),
        id,
    };
    let stage = async |id: HandoffId| {
        let entries = transport.list_all(&handoff(id).prefix()).await;
        let stage = |entries: Vec<Entry>| Stage::of(entries.iter().map(|e| e.key.object));
        entries.map(stage)
    };
    let rest = |id, stage| match stage {
        Some(Stage::Begun) => Remaining::Rest(id),
        _ => Remaining::All,
    };
    if let Some(offered) = offered {
        if offered.received {
            return Ok(Remaining::Nothing(offered));
        }
        let stage = stage(offered.handoff).await?;
        if stage.is_some_and(|s| s == Stage::Received || s.awaits_receipt()) {
            return Ok(Remaining::Receipt(offered));
        }
        if goes_on == Some(offered.handoff) {
            return Ok(rest(offered.handoff, stage));
        }
    }
    match goes_on {
        Some(id) => Ok(rest(id, stage(id).await?)),
        None => Ok(Remaining::All),
    }
}

/// Whether all that `chain` holds now was handed over: a handoff has it whose receipt was seen.
/// One of which no handoff is known was not, even where it holds nothing.
///
/// # Errors
/// [`Error::Folder`] or [`Error::Chain`] where the log cannot be looked at, [`Error::Record`]
/// where its record cannot be read.
pub fn is_handed_over(
    chain: &LogChain,
    domain: Uuid,
    console: &ConsoleName,
) -> Result<bool, Error> {
    let (folder, base) = (chain.folder(), chain.base_name());
    let known = Known::of(folder, base, domain, console, chain.ownership())?;
    Ok(known.offered.is_some_and(|offered| offered.received))
}

/// What the record beside a chain tells of it as it is now.
#[derive(Default)]
struct Known {
    /// All of it was committed.
    offered: Option<Offered>,
    /// What can be gone on with where no commit lies in the transport: what was begun
    /// and never committed; or else what was, if the files are the very same. Its commit
    /// may be on its way still, over a line that broke, and is then the same as what is
    /// committed again under its name.
    goes_on: Option<HandoffId>,
}

impl Known {
    fn of(
        folder: &Folder,
        base: &OsStr,
        domain: Uuid,
        console: &ConsoleName,
        ownership: &Ownership,
    ) -> Result<Self, Error> {
        let record = match Record::read(folder, base, domain, console) {
            Err(error @ crate::record::Error::Damaged { .. }) => {
                debug!(error = %sentence(&error), "it is begun anew");
                None
            }
            record => record?,
        };
        let Some(record) = record else {
            return Ok(Self::default());
        };
        let files = OnDisk::of_chain(folder, base, ownership)?;
        let all = record.offered_all(&files);
        let same = all && record.offered_no_other(&files);
        let offered = record.offered;
        let committed = offered.as_ref().map(|o| o.handoff);
        let offered = offered.filter(|_| all);
        let begun = record.begun.filter(|id| Some(*id) != committed);
        let goes_on = begun.or(committed.filter(|_| same));
        Ok(Self { offered, goes_on })
    }
}
