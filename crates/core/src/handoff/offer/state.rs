//! The source's states, as drawn above, without I/O.

use std::sync::Arc;

use super::Outcome;
use crate::handoff::pump::Drained;
use crate::handoff::put::AlreadyStored;
use crate::handoff::{Error, Receipt};
use crate::sentence;

/// What came of an action.
pub(super) enum Event {
    Begun(Arc<AlreadyStored>),
    Over,
    Stays,
    Drained(Drained),
    Committed,
    Received(Receipt),
    Withdrawn,
    Failed(Error),
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
            (Self::Opening | Self::Following(_) | Self::Draining(_), Event::Failed(error)) => {
                Self::Withdrawing {
                    reason: Some(sentence(&error)),
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
            (_, Event::Failed(error)) => Self::Done(Outcome::NotCarried {
                reason: sentence(&error),
            }),
            (state, _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(which: u8) -> Event {
        match which {
            0 => Event::Begun(Arc::default()),
            1 => Event::Over,
            2 => Event::Stays,
            3 => Event::Drained(Drained {
                bytes: 0,
                digest: String::new(),
                missed: Vec::new(),
                files: Vec::new(),
                moved: Vec::new(),
            }),
            4 => Event::Committed,
            5 => Event::Received(receipt()),
            6 => Event::Withdrawn,
            _ => Event::Failed(Error::gave_up("it failed")),
        }
    }

    fn receipt() -> Receipt {
        Receipt::new((0, String::new()), "h2".to_owned(), 0, Vec::new())
    }

    proptest! {
        /// The destination may be placing a committed handoff: nobody takes it back.
        #[test]
        fn what_may_be_committed_is_never_withdrawn(
            events in proptest::collection::vec(0_u8..8, 0..20),
        ) {
            let mut state = State::Opening;
            let mut is_committing = false;
            for which in events {
                state = state.on(event(which));
                is_committing |= matches!(state, State::Committing(_));
                let withdraws = matches!(
                    state,
                    State::Withdrawing { .. } | State::Done(Outcome::Aborted)
                );
                prop_assert!(!(is_committing && (withdraws || state.can_withdraw())));
                if let State::Done(Outcome::Carried(_)) = state {
                    prop_assert!(is_committing, "carried before it was committed");
                }
            }
        }
    }
}
