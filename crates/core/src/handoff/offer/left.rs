//! What is left to do for a chain whose VM has left.

use uuid::Uuid;

use crate::chain::LogChain;
use crate::handoff::{Handoff, blocking};
use crate::record::{Offered, Record};
use crate::transport::{ConsoleName, Entry, HandoffId, LogTransport, LogTransportExt, ObjectName};

/// What is left to do for a chain whose VM has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
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
    let lying = async |id: HandoffId| {
        let entries = transport.list_all(&handoff(id).prefix()).await;
        let names = |entries: Vec<Entry>| entries.iter().map(|e| e.key.object).collect();
        entries.map(names).map_err(|e| e.to_string())
    };
    match (offered, begun) {
        (Some(offered), _) if offered.received => Ok(Left::Nothing(offered)),
        (Some(offered), _) => {
            let lies: Vec<ObjectName> = lying(offered.handoff).await?;
            let is_here = |o: &ObjectName| matches!(o, ObjectName::Commit | ObjectName::Receipt);
            // What was committed over a line that broke may be on its way still, and is
            // the same as what is committed again under its name.
            match lies.iter().any(is_here) {
                true => Ok(Left::Receipt(offered)),
                false => Ok(rest(offered.handoff, &lies)),
            }
        }
        (None, Some(begun)) => Ok(rest(begun, &lying(begun).await?)),
        (None, None) => Ok(Left::All),
    }
}

/// What to do about a handoff of which this lies in the transport.
fn rest(id: HandoffId, lies: &[ObjectName]) -> Left {
    let goes_on = |o: &ObjectName| matches!(o, ObjectName::Begin | ObjectName::Chunk { .. });
    match lies.contains(&ObjectName::Begin) && lies.iter().all(goes_on) {
        true => Left::Rest(id),
        false => Left::All,
    }
}
