//! What work on pieces takes, used again: a fresh buffer of some MiB costs more in
//! page faults than reading into it does, and zstd's state as much as a small piece.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pump::PIECE;

/// Of each kind so many wait to be used again.
const KEPT: usize = 4;

/// What is lent and given back, by any thread: a runtime has far more of them than are
/// ever at work.
#[derive(Debug, Default)]
pub(super) struct Spares<T>(Mutex<Vec<T>>);

impl<T> Spares<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(super) fn take(&self) -> Option<T> {
        self.lock().pop()
    }

    pub(super) fn give(&self, it: T) {
        let mut kept = self.lock();
        if kept.len() < KEPT {
            kept.push(it);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        // Every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buffers that are lent and given back.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Spares<Vec<u8>>>);

impl Memory {
    /// One for so many bytes, or a new one that holds nothing yet: a few bytes in
    /// a large buffer would hold memory that nobody counts.
    pub(super) fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes < PIECE / 2 {
            return Vec::new();
        }
        self.0.take().unwrap_or_default()
    }

    pub(super) fn give(&self, buffer: Vec<u8>) {
        if (1..=PIECE).contains(&buffer.capacity()) {
            self.0.give(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_buffers_are_kept_and_no_large_ones() {
        let memory = Memory::default();
        memory.give(Vec::new());
        memory.give(vec![0; PIECE + 1]);
        assert_eq!(memory.take(PIECE).capacity(), 0);
        for _ in 0..2 * KEPT {
            memory.give(vec![0; PIECE]);
        }
        assert_eq!(memory.take(PIECE / 4).capacity(), 0, "too large for that");
        let kept = std::iter::repeat_with(|| memory.take(PIECE)).take_while(|b| !b.is_empty());
        assert_eq!(kept.count(), KEPT);
    }
}
