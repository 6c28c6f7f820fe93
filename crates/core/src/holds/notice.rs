//! What the owner of a held log is told.
//!
//! Must not know: why it happened.

use tokio::sync::mpsc;

/// How many notices wait for the owner. One who falls behind by more is told so, and looks
/// at the log itself.
const WAITING: usize = 32;

/// Something happened to a held log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The files changed as a rotation changes them: rolled over, compressed, history placed.
    Rotated,
    /// The log was wiped and a new one begins. What there was is held as this generation.
    Wiped {
        /// Its number.
        generation: u64,
    },
    /// The path does not lead to a folder any more. What was in it is held.
    Gone,
    /// The path leads to a folder again.
    Back,
    /// Files without a name were let go, since more is not to be held.
    LetGo {
        /// How many bytes they had.
        bytes: u64,
        /// What there was too much of.
        why: Bound,
    },
    /// Notices before this one are missing.
    Lagged,
}

/// A bound on what is held although it has no name any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// [`Limits::generations`](super::Limits::generations).
    Generations,
    /// [`Limits::unlinked_bytes`](super::Limits::unlinked_bytes).
    Bytes,
}

/// Where notices are put. It never waits.
#[derive(Debug, Default)]
pub(super) struct Notices {
    owner: Option<mpsc::Sender<Notice>>,
    lagged: bool,
    /// What was told before anybody could listen.
    waiting: Option<mpsc::Receiver<Notice>>,
}

impl Notices {
    /// Whoever listens first gets what is told from now on: what happened while no process held
    /// the log is found before it has an owner.
    pub(super) fn kept_for_first() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self {
            owner: Some(sender),
            lagged: false,
            waiting: Some(receiver),
        }
    }

    /// Notices go to what is returned from now on.
    pub(super) fn subscribe(&mut self) -> mpsc::Receiver<Notice> {
        if let Some(waiting) = self.waiting.take() {
            return waiting;
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        (self.owner, self.lagged) = (Some(sender), false);
        receiver
    }

    pub(super) fn tell(&mut self, notice: Notice) {
        let Some(owner) = &self.owner else {
            return;
        };
        if self.lagged && owner.try_send(Notice::Lagged).is_err() {
            return;
        }
        self.lagged = owner.try_send(notice).is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_who_falls_behind_is_told_so_and_waited_for_by_nobody() {
        let mut notices = Notices::default();
        notices.tell(Notice::Gone); // nobody listens
        let mut owner = notices.subscribe();
        for _ in 0..WAITING + 5 {
            notices.tell(Notice::Rotated);
        }
        for _ in 0..WAITING {
            assert_eq!(owner.try_recv(), Ok(Notice::Rotated));
        }
        assert!(owner.try_recv().is_err());
        notices.tell(Notice::Back);
        assert_eq!(owner.try_recv(), Ok(Notice::Lagged));
        assert_eq!(owner.try_recv(), Ok(Notice::Back));
        notices.tell(Notice::Gone);
        assert_eq!(owner.try_recv(), Ok(Notice::Gone));
    }
}
