//! Tells each step of the destination's half as a `debug` event.

use tracing::debug;

use super::Outcome;
use super::state::Event;
use crate::sentence;

/// What came of an action. `staged`: bytes staged so far.
pub(super) fn event(event: &Event, staged: u64) {
    match event {
        Event::Prepared => debug!("ready"),
        Event::Shared => debug!("ready; the source has this very folder"),
        Event::WasSealed => debug!("sealed by an earlier run"),
        Event::WasAdopted(receipt) => debug!(bytes = receipt.bytes, "in place already"),
        Event::Complete(commit) => debug!(bytes = commit.bytes, "complete"),
        Event::AbortSeen => debug!(bytes = staged, "the source withdrew it"),
        Event::Sealed => debug!(bytes = staged, "sealed"),
        Event::Placed(receipt) => {
            debug!(bytes = receipt.bytes, dropped = receipt.dropped, "placed");
        }
        Event::Receipted => debug!(bytes = staged, "receipt given"),
        Event::Cleaned => debug!(bytes = staged, "staging folder removed"),
        Event::Discarded => debug!("this host is as it was found"),
        Event::Failed(error) => debug!(bytes = staged, error = %sentence(error), "failed"),
        Event::Damaged(error) => debug!(bytes = staged, error = %sentence(error), "damaged"),
    }
}

/// How it ended.
pub(super) fn outcome(outcome: &Outcome) {
    match outcome {
        Outcome::Adopted(receipt) => debug!(bytes = receipt.bytes, "ended: adopted"),
        Outcome::Aborted => debug!("ended: aborted"),
        Outcome::Failed { reason } => debug!(reason, "ended: failed"),
    }
}
