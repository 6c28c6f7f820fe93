//! The source's states, as drawn above, without I/O.

use super::Outcome;
use crate::handoff::Receipt;

/// What came of an action.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Begun,
    Over,
    Stays,
    Drained,
    Committed,
    Received(Receipt),
    Withdrawn,
    Failed(String),
}

/// The states, as drawn above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Opening,
    Following,
    Draining,
    Committing,
    Awaiting,
    Withdrawing { reason: Option<String> },
    Done(Outcome),
}

impl State {
    pub(super) fn can_withdraw(&self) -> bool {
        matches!(self, Self::Opening | Self::Following | Self::Draining)
    }

    pub(super) fn on(self, event: Event) -> Self {
        match (self, event) {
            (Self::Done(outcome), _) => Self::Done(outcome),
            (Self::Opening, Event::Begun) => Self::Following,
            (Self::Following, Event::Over) => Self::Draining,
            (Self::Opening | Self::Following | Self::Draining, Event::Stays) => {
                Self::Withdrawing { reason: None }
            }
            (Self::Draining, Event::Drained) => Self::Committing,
            (Self::Committing, Event::Committed) => Self::Awaiting,
            (Self::Awaiting, Event::Received(receipt)) => Self::Done(Outcome::Carried(receipt)),
            // Before the commit the destination must be told that nothing more
            // comes; after it, it must not: it may be placing already.
            (Self::Opening | Self::Following | Self::Draining, Event::Failed(reason)) => {
                Self::Withdrawing {
                    reason: Some(reason),
                }
            }
            (
                Self::Withdrawing {
                    reason: Some(reason),
                },
                Event::Withdrawn | Event::Failed(_),
            ) => Self::Done(Outcome::NotCarried { reason }),
            (Self::Withdrawing { reason: None }, Event::Withdrawn | Event::Failed(_)) => {
                Self::Done(Outcome::Aborted)
            }
            (_, Event::Failed(reason)) => Self::Done(Outcome::NotCarried { reason }),
            (state, _) => state,
        }
    }
}
