//! How much is held of one log: what is beyond that is let go, the oldest first.
//!
//! Must not know: why a file has lost its name.

use super::decide;
use super::generation::HeldFile;
use super::log::State;
use super::notice::{Bound, Notice};

/// Files of one log held at most, as many as a [`Follower`](crate::follow::Follower) holds.
pub(super) const HELD: usize = 64;

impl State {
    /// Lets go of the oldest of what nobody finds by name, until the rest is within bounds.
    pub(super) fn keep_within(&mut self, generations: usize, most: u64) {
        while self.earlier.len() > generations {
            let bytes = self.earlier.pop_front().map_or(0, |log| log.bytes());
            let why = Bound::Generations;
            self.notices.tell(Notice::LetGo { bytes, why });
        }
        let (newest, older) = match self.current.files.split_last() {
            Some((newest, older)) => (Some(newest.id()), older),
            None => (None, &[][..]),
        };
        let current = self.current.number;
        let of = |number: u64| move |held: &HeldFile| (number, held.id(), held.unlinked());
        let vanished = older.iter().filter(|held| held.vanished.is_some());
        let earlier = self.earlier.iter();
        let earlier = earlier.flat_map(|log| log.files.iter().map(of(log.number)));
        // The newest stays: whoever writes it keeps it on the disk in any case.
        let rest = older.iter().filter(|held| held.vanished.is_none());
        let all = vanished.map(of(current)).chain(earlier);
        let all = all.chain(rest.map(of(current)));
        let all: Vec<_> = all.filter(|(_, _, bytes)| *bytes > 0).collect();
        let sizes: Vec<_> = all.iter().map(|(_, _, bytes)| *bytes).collect();
        let surplus = decide::surplus(&sizes, most);
        if surplus == 0 {
            return;
        }
        let gone: Vec<_> = all
            .iter()
            .take(surplus)
            .map(|file| (file.0, file.1))
            .collect();
        let bytes = sizes.iter().take(surplus).copied();
        let bytes = bytes.fold(0, u64::saturating_add);
        let logs = self.earlier.iter_mut().chain([&mut self.current]);
        for log in logs {
            let number = log.number;
            log.files
                .retain(|held| Some(held.id()) == newest || !gone.contains(&(number, held.id())));
        }
        self.earlier.retain(|log| !log.files.is_empty());
        let why = Bound::Bytes;
        self.notices.tell(Notice::LetGo { bytes, why });
    }

    /// Descriptors are bounded. What goes has its name, as a rule, and is found by it.
    pub(super) fn keep_newest(&mut self) {
        let surplus = self.current.files.len().saturating_sub(HELD);
        self.current.files.drain(..surplus);
    }

    /// How many bytes of files without a name are held, the newest of the log left out.
    pub(super) fn unlinked(&self) -> u64 {
        let older = self.current.files.split_last().map(|(_, older)| older);
        let earlier = self.earlier.iter().flat_map(|log| &log.files);
        let files = earlier.chain(older.unwrap_or_default());
        files.map(HeldFile::unlinked).fold(0, u64::saturating_add)
    }
}
