//! Tells each step of the source's half as a `debug` event.

use tracing::debug;

use super::Outcome;
use super::state::Event;
use crate::sentence;

/// The files are open: whatever happens to their names, these bytes are here.
pub(super) fn holds(bytes: u64) {
    debug!(bytes, "holds the log");
}

/// What came of an action. `put`: bytes put by this run so far.
pub(super) fn event(event: &Event, put: u64) {
    match event {
        Event::Begun(stored) => {
            let (bytes, pieces) = (stored.bytes(), stored.there.len());
            debug!(bytes, pieces, "begun; bytes put by an earlier run");
        }
        Event::Over => debug!(bytes = put, "the guest has left"),
        Event::Stays => debug!(bytes = put, "to be withdrawn"),
        Event::Drained(drained) => debug!(bytes = drained.bytes, "drained"),
        Event::Committed => debug!(bytes = put, "committed"),
        Event::Received(receipt) => debug!(bytes = receipt.bytes, "received"),
        Event::Withdrawn => debug!(bytes = put, "withdrawn"),
        Event::Failed(error) => debug!(bytes = put, error = %sentence(error), "failed"),
    }
}

/// How it ended.
pub(super) fn outcome(outcome: &Outcome) {
    match outcome {
        Outcome::Carried(receipt) => debug!(bytes = receipt.bytes, "ended: carried"),
        Outcome::Aborted => debug!("ended: aborted"),
        Outcome::NotCarried { reason } => debug!(reason, "ended: not carried"),
    }
}
