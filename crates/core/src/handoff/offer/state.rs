//! The source's states, as drawn above, without I/O.

use std::sync::Arc;

use super::Outcome;
use crate::handoff::Receipt;
use crate::handoff::pump::Drained;
use crate::handoff::put::AlreadyStored;

/// What came of an action.
pub(super) enum Event {
    Begun(Arc<AlreadyStored>),
    Over,
    Stays,
    Drained(Drained),
    Committed,
    Received(Receipt),
    Withdrawn,
    Failed(String),
}

/// The states, as drawn above, each with what it goes on with.
pub(super) enum State {
    Opening,
    Following(Arc<AlreadyStored>),
    Draining(Arc<AlreadyStored>),
    Committing(Drained),
    Awaiting(Drained),
    Withdrawing { reason: Option<String> },
    Done(Outcome),
}

impl State {
    pub(super) fn can_withdraw(&self) -> bool {
        matches!(self, Self::Opening | Self::Following(_) | Self::Draining(_))
    }

    pub(super) fn on(self, event: Event) -> Self {
        match (self, event) {
            (Self::Done(outcome), _) => Self::Done(outcome),
            (Self::Opening, Event::Begun(stored)) => Self::Following(stored),
            (Self::Following(stored), Event::Over) => Self::Draining(stored),
            (Self::Opening | Self::Following(_) | Self::Draining(_), Event::Stays) => {
                Self::Withdrawing { reason: None }
            }
            (Self::Draining(_), Event::Drained(drained)) => Self::Committing(drained),
            (Self::Committing(drained), Event::Committed) => Self::Awaiting(drained),
            (Self::Awaiting(_), Event::Received(receipt)) => Self::Done(Outcome::Carried(receipt)),
            // Before the commit the destination must be told that nothing more
            // comes; after it, it must not: it may be placing already.
            (Self::Opening | Self::Following(_) | Self::Draining(_), Event::Failed(reason)) => {
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
