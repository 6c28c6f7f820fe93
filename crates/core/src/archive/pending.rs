//! Which bytes go into the next batch, and when: decided here, done elsewhere.

use std::time::{Duration, Instant};

use super::batch::MOST;
use super::pool::Memory;

/// What was read and is not put yet: one run of bytes.
#[derive(Debug, Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    /// When the oldest of them was read.
    since: Option<Instant>,
    /// Whether bytes are missing before them, nobody knows how many.
    pub(super) after_gap: bool,
    /// The share of the pool's memory that they take.
    memory: Memory,
}

impl Pending {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn push(&mut self, bytes: &[u8], memory: Memory, now: Instant) {
        if !bytes.is_empty() {
            self.since.get_or_insert(now);
            self.bytes.extend_from_slice(bytes);
            self.memory.add(memory);
        }
    }

    /// Whether so many more would be more than a batch.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= MOST
    }

    /// When they must be put, if there are any.
    pub(super) fn due(&self, delay: Duration) -> Option<Instant> {
        self.since
            .map(|since| since.checked_add(delay).unwrap_or(since))
    }

    /// What a batch made now would hold.
    pub(super) fn next(&self) -> &[u8] {
        let most = self.bytes.len().min(MOST);
        self.bytes.get(..most).unwrap_or_default()
    }

    /// So many of them lie in the transport.
    pub(super) fn done(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
        self.after_gap = false;
        self.memory.keep(self.bytes.len());
        if self.bytes.is_empty() {
            self.since = None;
            self.bytes = Vec::new();
        }
    }
}

/// What a batch of another streamer at our offset means for us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Theirs {
    /// So many of our bytes are in it, and no others: go on behind it.
    Ours(usize),
    /// All that we have is in it, and more.
    Ahead,
    /// It is another stream.
    Other,
}

pub(super) fn compare(ours: &[u8], theirs: &[u8]) -> Theirs {
    let both = ours.len().min(theirs.len());
    if ours.get(..both) != theirs.get(..both) {
        Theirs::Other
    } else if both == theirs.len() {
        Theirs::Ours(both)
    } else {
        Theirs::Ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_by_the_age_of_its_oldest_byte() {
        let mut pending = Pending::default();
        let (now, delay) = (Instant::now(), Duration::from_secs(5));
        pending.push(b"", Memory::default(), now);
        assert_eq!(pending.due(delay), None);
        pending.push(b"a", Memory::default(), now);
        pending.push(b"b", Memory::default(), now + Duration::from_secs(4));
        assert_eq!(pending.due(delay), Some(now + delay));
        pending.done(1);
        assert_eq!(pending.due(delay), Some(now + delay));
        pending.done(1);
        assert_eq!(pending.due(delay), None);
    }

    #[test]
    fn a_batch_is_never_larger_than_one() {
        let mut pending = Pending::default();
        pending.push(&vec![1; MOST - 1], Memory::default(), Instant::now());
        assert!(!pending.is_full());
        pending.push(&[2; 10], Memory::default(), Instant::now());
        assert!(pending.is_full());
        assert_eq!(pending.next().len(), MOST);
        pending.done(MOST);
        assert_eq!(pending.next(), [2; 9]);
    }

    #[test]
    fn another_streamer_is_told_from_another_stream() {
        assert_eq!(compare(b"abc", b"ab"), Theirs::Ours(2));
        assert_eq!(compare(b"abc", b"abc"), Theirs::Ours(3));
        assert_eq!(compare(b"abc", b"abcd"), Theirs::Ahead);
        assert_eq!(compare(b"abc", b"abx"), Theirs::Other);
        assert_eq!(compare(b"ax", b"abcd"), Theirs::Other);
        assert_eq!(compare(b"", b"a"), Theirs::Ahead);
    }
}
