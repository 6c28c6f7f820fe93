//! The destination's states, as drawn above, without I/O.

use super::Outcome;
use crate::handoff::{Commit, Error, Receipt};
use crate::sentence;

#[derive(Debug)]
pub(super) enum Event {
    Prepared,
    /// The source has this very folder.
    Shared,
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
    Failed(Error),
    /// What is in the transport is of no use to anybody, and why.
    Damaged(Error),
}

/// Why this host is put back as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    /// The source withdrew the handoff.
    Withdrawn,
    /// It failed here. The source may still offer it.
    Failed(String),
    /// What is in the transport is of no use to anybody.
    Damaged(String),
}

impl Undo {
    fn reason(self) -> Option<String> {
        match self {
            Self::Withdrawn => None,
            Self::Failed(reason) | Self::Damaged(reason) => Some(reason),
        }
    }
}

/// The states, as drawn above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Preparing,
    Staging,
    Sharing,
    Sealing(Commit),
    Placing,
    Receipting(Receipt),
    Cleaning(Receipt),
    Discarding(Undo),
    Done(Outcome),
}

impl State {
    pub(super) fn on(self, event: Event) -> Self {
        match (self, event) {
            (Self::Done(outcome), _) => Self::Done(outcome),
            (Self::Preparing, Event::Prepared) => Self::Staging,
            (Self::Preparing, Event::Shared) => Self::Sharing,
            (Self::Preparing | Self::Staging, Event::WasSealed) => Self::Placing,
            (
                Self::Preparing | Self::Staging | Self::Sharing | Self::Sealing(_),
                Event::WasAdopted(receipt),
            ) => Self::Receipting(receipt),
            (Self::Staging, Event::Complete(commit)) => Self::Sealing(commit),
            (Self::Staging | Self::Sharing, Event::AbortSeen) => Self::Discarding(Undo::Withdrawn),
            (Self::Sealing(_), Event::Sealed) => Self::Placing,
            (Self::Placing, Event::Placed(receipt)) => Self::Receipting(receipt),
            (Self::Receipting(receipt), Event::Receipted) => Self::Cleaning(receipt),
            (Self::Cleaning(receipt), Event::Cleaned | Event::Failed(_)) => {
                // The history is in place and the source knows; a staging folder
                // that would not go is cleared by the next start.
                Self::Done(Outcome::Adopted(receipt))
            }
            (Self::Discarding(undo), Event::Discarded) => Self::Done(match undo.reason() {
                None => Outcome::Aborted,
                Some(reason) => Outcome::Failed { reason },
            }),
            (Self::Discarding(undo), Event::Failed(also)) => {
                let first = undo.reason().map(|r| format!("{r}; ")).unwrap_or_default();
                let also = sentence(&also);
                let reason = format!("{first}this host could not be put back as it was: {also}");
                Self::Done(Outcome::Failed { reason })
            }
            (
                Self::Preparing | Self::Staging | Self::Sharing | Self::Sealing(_),
                Event::Failed(error),
            ) => Self::Discarding(Undo::Failed(sentence(&error))),
            (Self::Staging | Self::Sealing(_), Event::Damaged(error)) => {
                Self::Discarding(Undo::Damaged(sentence(&error)))
            }
            (_, Event::Failed(error) | Event::Damaged(error)) => Self::Done(Outcome::Failed {
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
    use crate::stream::History;

    fn event(which: u8) -> Event {
        let receipt = || Receipt::new((0, String::new()), "h2".to_owned(), 0, Vec::new());
        match which {
            0 => Event::Prepared,
            1 => Event::Shared,
            2 => Event::WasSealed,
            3 => Event::WasAdopted(receipt()),
            4 => Event::Complete(Commit::new(
                0,
                String::new(),
                Vec::new(),
                (History::default(), Vec::new()),
            )),
            5 => Event::AbortSeen,
            6 => Event::Sealed,
            7 => Event::Placed(receipt()),
            8 => Event::Receipted,
            9 => Event::Cleaned,
            10 => Event::Discarded,
            11 => Event::Damaged(Error::gave_up("it is torn")),
            _ => Event::Failed(Error::gave_up("it failed")),
        }
    }

    proptest! {
        /// What is sealed is placed, whatever happens: nothing puts this host back then.
        #[test]
        fn what_is_sealed_is_never_undone(
            events in proptest::collection::vec(0_u8..13, 0..20),
        ) {
            let mut state = State::Preparing;
            let mut is_sealed = false;
            for which in events {
                state = state.on(event(which));
                is_sealed |= matches!(state, State::Placing | State::Receipting(_));
                let is_undone = matches!(
                    state,
                    State::Discarding(_) | State::Done(Outcome::Aborted)
                );
                prop_assert!(!(is_sealed && is_undone), "{state:?}");
                if let State::Done(Outcome::Adopted(_)) = state {
                    prop_assert!(is_sealed, "adopted before it was sealed");
                }
            }
        }
    }
}
