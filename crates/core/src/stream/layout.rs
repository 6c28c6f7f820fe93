//! Where the files that are there lie.

use super::{Hole, StreamOffset};
use crate::folder::FileId;

/// A run of bytes in a file of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The file's place in the list that was seen.
    pub file: usize,
    /// Which file that is.
    pub id: FileId,
    /// Bytes of the file before it.
    pub skip: u64,
    /// The offset of its first byte.
    pub start: StreamOffset,
    /// How many bytes.
    pub length: u64,
}

impl Span {
    pub(super) fn whole_file(file: usize, id: FileId, start: StreamOffset, length: u64) -> Self {
        Self {
            file,
            id,
            skip: 0,
            start,
            length,
        }
    }

    pub(super) fn end(&self) -> StreamOffset {
        self.start.saturating_add(self.length)
    }
}

/// Where an offset lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file of the list, so many bytes in.
    In {
        /// The file.
        file: usize,
        /// Bytes of it to leave out.
        skip: u64,
    },
    /// No longer there, or never seen.
    Gone {
        /// The next offset that is there; the end of the stream where none is.
        next: StreamOffset,
    },
    /// At the end, or beyond it.
    Beyond,
}

/// Where the files of a chain lie in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// By offset. Files before the offset that was asked for are left out.
    pub(super) spans: Vec<Span>,
    /// What is missing and the ledger does not know of.
    pub(super) holes: Vec<Hole>,
    pub(super) end: StreamOffset,
    /// All files that were seen.
    pub(super) seen: Vec<FileId>,
}

/// Holes between runs whose places are known.
pub(super) fn between(spans: &[Span]) -> impl Iterator<Item = Hole> + '_ {
    spans
        .iter()
        .zip(spans.iter().skip(1))
        .filter_map(|(older, newer)| {
            let size = newer
                .start
                .bytes_since(older.end())
                .filter(|size| *size > 0)?;
            Some(Hole {
                at: older.end(),
                size: Some(size),
            })
        })
}

impl Layout {
    /// The runs, oldest first.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// What is missing and was not known to be.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// The offset of the first byte whose place was found; `None`: there is none.
    #[must_use]
    pub fn first(&self) -> Option<StreamOffset> {
        self.spans.first().map(|s| s.start)
    }

    /// The offset after the last byte.
    #[must_use]
    pub fn end(&self) -> StreamOffset {
        self.end
    }

    /// Where the byte at `offset` lies.
    #[must_use]
    pub fn find(&self, offset: StreamOffset) -> Place {
        if offset >= self.end {
            return Place::Beyond;
        }
        for span in &self.spans {
            if offset < span.start {
                return Place::Gone { next: span.start };
            }
            let into = offset
                .bytes_since(span.start)
                .filter(|into| *into < span.length);
            if let Some(into) = into {
                let skip = span.skip.saturating_add(into);
                return Place::In {
                    file: span.file,
                    skip,
                };
            }
        }
        Place::Gone { next: self.end }
    }

    /// Where the `length` bytes from `offset` on lie, before the next gap: for each file its
    /// place in the list, the bytes to leave out and how many follow.
    pub fn runs(
        &self,
        offset: StreamOffset,
        length: u64,
    ) -> impl Iterator<Item = (usize, u64, u64)> {
        let end = offset.saturating_add(length);
        self.spans.iter().filter_map(move |span| {
            let start = span.start.max(offset);
            let length = span.end().min(end).bytes_since(start).filter(|n| *n > 0)?;
            let skip = span
                .skip
                .saturating_add(start.saturating_bytes_since(span.start));
            Some((span.file, skip, length))
        })
    }

    /// How many bytes follow `offset` before the next gap.
    #[must_use]
    pub fn run_after(&self, offset: StreamOffset) -> u64 {
        let mut end = offset;
        for span in self.spans.iter().filter(|s| s.end() > offset) {
            if span.start > end {
                break;
            }
            end = span.end();
        }
        end.saturating_bytes_since(offset)
    }

    /// The offset of a place in a file, if that is known.
    #[must_use]
    pub fn offset_in(&self, id: FileId, at: u64) -> Option<StreamOffset> {
        let spans = self.spans.iter().filter(|s| s.id == id);
        let span = spans.rev().find(|s| s.skip <= at)?;
        Some(span.start.saturating_add(at.saturating_sub(span.skip)))
    }
}
