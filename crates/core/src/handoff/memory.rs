//! Memory of pieces, used again: a fresh buffer of some MiB costs more in page
//! faults than reading into it does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pump::PIECE;

/// Buffers that wait to be used again.
const KEPT: usize = 4;

/// Buffers that are lent and given back.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<Vec<Vec<u8>>>>);

impl Memory {
    /// One for so many bytes, or a new one that holds nothing yet: a few bytes in
    /// a large buffer would hold memory that nobody counts.
    pub(super) fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes < PIECE / 2 {
            return Vec::new();
        }
        self.lock().pop().unwrap_or_default()
    }

    pub(super) fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.lock();
        if kept.len() < KEPT && (1..=PIECE).contains(&buffer.capacity()) {
            kept.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
