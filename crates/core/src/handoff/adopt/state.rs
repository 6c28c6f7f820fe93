//! The destination's states, as drawn above, without I/O.

use super::Outcome;
use crate::handoff::{Commit, Receipt};

#[derive(Clone, Debug)]
pub(super) enum Event {
    Prepared,
    /// An earlier run sealed it: the parts are here.
    WasSealed,
    /// An earlier run placed it: only the receipt may be missing.
    WasAdopted(Receipt),
    Complete(Commit),
    AbortSeen,
    Sealed,
    Placed(Receipt),
    Receipted,
    Cleaned,
    Discarded,
    Failed(String),
}

/// The states, as drawn above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Preparing,
    Staging,
    Sealing(Commit),
    Placing,
    Receipting(Receipt),
    Cleaning(Receipt),
    Discarding { reason: Option<String> },
    Done(Outcome),
}

impl State {
    pub(super) fn on(self, event: Event) -> Self {
        match (self, event) {
            (Self::Done(outcome), _) => Self::Done(outcome),
            (Self::Preparing, Event::Prepared) => Self::Staging,
            (Self::Preparing | Self::Staging, Event::WasSealed) => Self::Placing,
            (Self::Preparing | Self::Staging | Self::Sealing(_), Event::WasAdopted(receipt)) => {
                Self::Receipting(receipt)
            }
            (Self::Staging, Event::Complete(commit)) => Self::Sealing(commit),
            (Self::Staging, Event::AbortSeen) => Self::Discarding { reason: None },
            (Self::Sealing(_), Event::Sealed) => Self::Placing,
            (Self::Placing, Event::Placed(receipt)) => Self::Receipting(receipt),
            (Self::Receipting(receipt), Event::Receipted) => Self::Cleaning(receipt),
            (Self::Cleaning(receipt), Event::Cleaned | Event::Failed(_)) => {
                // The history is in place and the source knows; a staging folder
                // that would not go is cleared by the next start.
                Self::Done(Outcome::Adopted(receipt))
            }
            (Self::Discarding { reason: None }, Event::Discarded) => Self::Done(Outcome::Aborted),
            (
                Self::Discarding {
                    reason: Some(reason),
                },
                Event::Discarded,
            ) => Self::Done(Outcome::Failed { reason }),
            (Self::Discarding { reason }, Event::Failed(also)) => {
                let first = reason.map(|r| format!("{r}; ")).unwrap_or_default();
                let reason = format!("{first}this host could not be put back as it was: {also}");
                Self::Done(Outcome::Failed { reason })
            }
            (Self::Preparing | Self::Staging | Self::Sealing(_), Event::Failed(reason)) => {
                Self::Discarding {
                    reason: Some(reason),
                }
            }
            (_, Event::Failed(reason)) => Self::Done(Outcome::Failed { reason }),
            (state, _) => state,
        }
    }
}
