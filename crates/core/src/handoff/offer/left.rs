//! What is left to do for a chain whose VM has left.

use uuid::Uuid;

use crate::chain::LogChain;
use crate::handoff::message::MAX_MESSAGE;
use crate::handoff::{Handoff, blocking};
use crate::record::{Offered, Record};
use crate::transport::{ConsoleName, HandoffId, LogTransport, LogTransportExt, ObjectName};

/// What is left to do for a chain whose VM has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It was handed over, just as it is.
    Nothing(Offered),
    /// It was committed to this transport: only the receipt is missing.
    Receipt(Offered),
    /// It was begun and not committed: some pieces may be there already.
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
/// A sentence: the folder's, the record's, the transport's.
pub async fn left(
    chain: &LogChain,
    domain: Uuid,
    console: &ConsoleName,
    transport: &dyn LogTransport,
) -> Result<Left, String> {
    let folder = chain.folder().try_clone().map_err(|e| e.to_string())?;
    let (base, of_console) = (chain.base_name().to_owned(), console.clone());
    let work = move || -> Result<(Option<Offered>, Option<HandoffId>), String> {
        let record = match Record::read(&folder, &base, domain, &of_console) {
            // It is begun anew.
            Err(crate::record::Error::Damaged { .. }) => None,
            record => record.map_err(|e| e.to_string())?,
        };
        let Some(record) = record else {
            return Ok((None, None));
        };
        let listing = crate::chain::Listing::read(&folder, &base).map_err(|e| e.to_string())?;
        let rotated = listing.rotated().iter().map(|r| r.stat);
        let files = rotated.chain(listing.base().copied());
        let all = record.offered_all(files.map(|s| (s.id, s.size)));
        Ok((record.offered.filter(|_| all), record.begun))
    };
    let (offered, begun) = blocking(work).await?;
    let handoff = |id| Handoff {
        domain,
        console: console.clone(),
        id,
    };
    let is_there = async |id: HandoffId, object| {
        let key = handoff(id).key(object);
        let there = transport.get_opt(&key, MAX_MESSAGE).await;
        there.map(|t| t.is_some()).map_err(|e| e.to_string())
    };
    let Some(offered) = offered else {
        let Some(begun) = begun else {
            return Ok(Left::All);
        };
        for over in [ObjectName::Abort, ObjectName::Commit, ObjectName::Receipt] {
            if is_there(begun, over).await? {
                return Ok(Left::All);
            }
        }
        return Ok(match is_there(begun, ObjectName::Begin).await? {
            true => Left::Rest(begun),
            false => Left::All,
        });
    };
    if offered.received {
        return Ok(Left::Nothing(offered));
    }
    for object in [ObjectName::Receipt, ObjectName::Commit] {
        if is_there(offered.handoff, object).await? {
            return Ok(Left::Receipt(offered));
        }
    }
    Ok(Left::All)
}
