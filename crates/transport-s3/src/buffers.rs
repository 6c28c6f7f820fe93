//! Memory for what is read, used again: pages that come fresh from the system cost
//! as much as reading into them does.
//!
//! Must not know: what is read, or from where.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use logchain_core::transport::MAX_OBJECT;

/// Buffers that wait for their next use at the most: all of one handoff's.
const KEPT: usize = 8;

/// Less than this the allocator has at hand by itself.
const LARGE: usize = 1 << 20;

/// Lends buffers. It keeps none while nobody reads, or has what was read.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Weak<Shelf>>);

impl Buffers {
    /// One for all who read at this time.
    pub(crate) fn shelf(&self) -> Arc<Shelf> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *known = Arc::downgrade(&new);
            new
        })
    }
}

/// Buffers that wait for their next use.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<Vec<Vec<u8>>>);

impl Shelf {
    /// An empty one for so many bytes, [`MAX_OBJECT`] at the most.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        if len < LARGE {
            return Buffer {
                bytes: Vec::with_capacity(len),
                home: None,
            };
        }
        // Of few sizes, so that one fits the next; what is not touched takes no memory.
        let size = len.min(MAX_OBJECT).next_power_of_two();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = kept.iter().position(|bytes| bytes.capacity() == size);
        let bytes = fits.map(|at| kept.swap_remove(at));
        drop(kept);
        Buffer {
            bytes: bytes.unwrap_or_else(|| Vec::with_capacity(size)),
            home: Some(Arc::clone(self)),
        }
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(bytes);
        // The oldest is of a size that nobody asks for any more.
        let odd = (kept.len() > KEPT).then(|| kept.remove(0));
        drop(kept);
        drop(odd);
    }
}

/// A buffer; it goes back by itself.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Option<Arc<Shelf>>,
}

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// All of it; it goes back with the last of these bytes.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give_back(mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bytes: &[u8]) -> *const u8 {
        bytes.as_ptr()
    }

    fn full(shelf: &Arc<Shelf>, len: usize) -> Bytes {
        let mut buffer = shelf.take(len);
        assert_eq!(buffer.len(), 0);
        buffer.push(&vec![7; len]);
        buffer.freeze()
    }

    fn kept(shelf: &Shelf) -> usize {
        shelf.0.lock().unwrap().len()
    }

    #[test]
    fn one_is_used_again_once_its_last_bytes_are_gone() {
        let shelf = Buffers::default().shelf();
        let first = full(&shelf, MAX_OBJECT);
        let (place, part) = (at(&first), first.slice(5..6));
        drop(first);
        let second = full(&shelf, MAX_OBJECT);
        assert_ne!(at(&second), place, "still in use");
        assert_eq!(part, [7][..]);
        drop(part);
        // Other sizes do not get it, and those of its own do.
        drop(full(&shelf, LARGE));
        assert_eq!(kept(&shelf), 2);
        for len in [MAX_OBJECT, MAX_OBJECT - 9, MAX_OBJECT / 2 + 1] {
            assert_eq!(at(&full(&shelf, len)), place, "{len}");
            assert_eq!(kept(&shelf), 2, "{len}");
        }
    }

    #[test]
    fn few_are_kept_and_none_where_nobody_reads() {
        let buffers = Buffers::default();
        let shelf = buffers.shelf();
        let another = buffers.shelf();
        let many: Vec<_> = (0..=KEPT).map(|_| full(&shelf, MAX_OBJECT)).collect();
        assert_eq!(kept(&another), 0);
        drop(many);
        assert_eq!(kept(&another), KEPT);
        // Sizes change: the new one is kept.
        drop(full(&shelf, LARGE));
        let sizes: Vec<_> = shelf.0.lock().unwrap().iter().map(Vec::capacity).collect();
        assert!(sizes.contains(&LARGE) && sizes.len() == KEPT, "{sizes:?}");
        let late = full(&shelf, MAX_OBJECT);
        drop((shelf, another));
        assert_eq!(kept(&buffers.shelf()), KEPT - 1);
        drop(late);
        assert!(buffers.0.lock().unwrap().upgrade().is_none());
    }

    #[test]
    fn small_ones_are_no_matter() {
        let shelf = Buffers::default().shelf();
        drop(full(&shelf, LARGE - 1));
        assert_eq!(kept(&shelf), 0);
    }
}
