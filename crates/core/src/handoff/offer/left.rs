//! What is left to do for a chain whose VM has left.

use uuid::Uuid;

use crate::chain::LogChain;
use crate::handoff::message::MAX_MESSAGE;
use crate::handoff::{Handoff, blocking};
use crate::record::{Offered, Record};
use crate::transport::{ConsoleName, LogTransport, LogTransportExt, ObjectName};

/// What is left to do for a chain whose VM has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It was handed over, just as it is.
    Nothing(Offered),
    /// It was committed to this transport: only the receipt is missing.
    Receipt(Offered),
    /// All of it: it was never handed over, or not as it is now, or to a
    /// transport that does not have it (any more). Should a destination have it
    /// all the same, it will not have it twice.
    All,
}

/// What is left to do for `chain`, going by the record beside it and by what is
/// in `transport`.
///
/// # Errors
/// A sentence: the folder's, the record's, the transport's.
pub async fn left(
    chain: &LogChain,
    domain: Uuid,
    console: &ConsoleName,
    transport: &dyn LogTransport,
) -> Result<Left, String> {
    let folder = chain.folder().try_clone().map_err(|e| e.to_string())?;
    let (base, of_console) = (chain.base_name().to_owned(), console.clone());
    let work = move || -> Result<Option<Offered>, String> {
        let record = match Record::read(&folder, &base, domain, &of_console) {
            // It is begun anew.
            Err(crate::record::Error::Damaged { .. }) => None,
            record => record.map_err(|e| e.to_string())?,
        };
        let listing = crate::chain::Listing::read(&folder, &base).map_err(|e| e.to_string())?;
        let rotated = listing.rotated().iter().map(|r| r.stat);
        let files = rotated.chain(listing.base().copied());
        let same = |r: &Record| r.offered_all(files.map(|s| (s.id, s.size)));
        Ok(record.filter(same).and_then(|r| r.offered))
    };
    let Some(offered) = blocking(work).await? else {
        return Ok(Left::All);
    };
    if offered.received {
        return Ok(Left::Nothing(offered));
    }
    let handoff = Handoff {
        domain,
        console: console.clone(),
        id: offered.handoff,
    };
    for object in [ObjectName::Receipt, ObjectName::Commit] {
        let there = transport.get_opt(&handoff.key(object), MAX_MESSAGE).await;
        if there.map_err(|e| e.to_string())?.is_some() {
            return Ok(Left::Receipt(offered));
        }
    }
    Ok(Left::All)
}
