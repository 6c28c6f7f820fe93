//! What is remembered, and what follows from it for the files that are there.

use serde::{Deserialize, Serialize};

use super::layout::between;
use super::{Hole, Hop, Layout, Measure, Seen, Span};
use crate::folder::FileId;

/// Hosts remembered. A VM that moved more often forgets the first ones.
const HOPS_KEPT: usize = 256;

/// Holes remembered.
const HOLES_KEPT: usize = 256;

/// What is remembered of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Oldest first.
    pub(super) known: Vec<Known>,
    /// Files under the chain's names that are no part of this stream, or have no
    /// place in it yet: a history that is not complete comes before them.
    pub(super) foreign: Vec<FileId>,
    pub(super) holes: Vec<Hole>,
    pub(super) hops: Vec<Hop>,
    pub(super) end: u64,
}

/// A run of bytes whose place is known. A file has more than one where a hole
/// lies in it: carried history is cut as the rotation cuts, not at holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) id: FileId,
    /// Bytes of the file before it.
    pub(super) skip: u64,
    pub(super) start: u64,
    /// Its length when it was last seen.
    pub(super) length: u64,
}

impl Known {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

impl Ledger {
    /// The offset after the last byte known.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The hosts that the VM was on, the first one first.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// What is missing, by offset.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Whether this file is no part of the stream, or has no place in it yet.
    #[must_use]
    pub fn is_foreign(&self, id: FileId) -> bool {
        self.foreign.contains(&id)
    }

    /// The offset at which this file begins, where that is known.
    #[must_use]
    pub fn start_of(&self, id: FileId) -> Option<u64> {
        self.known.iter().find(|k| k.id == id).map(|k| k.start)
    }

    /// How many bytes this file had when it was last seen, where it is known.
    #[must_use]
    pub fn length_of(&self, id: FileId) -> Option<u64> {
        let runs = self.known.iter().filter(|k| k.id == id);
        runs.map(|k| k.skip.saturating_add(k.length)).max()
    }

    /// Finds the places of `seen`, oldest first. Files before the offset
    /// `down_to` are only looked at as far as needed.
    ///
    /// # Errors
    /// [`Measure`]: a compressed file's length decides.
    pub fn lay(&self, seen: &[Seen], down_to: u64) -> Result<Layout, Measure> {
        let ours: Vec<(usize, &Seen)> = seen
            .iter()
            .enumerate()
            .filter(|(_, s)| !self.is_foreign(s.id))
            .collect();
        let newest = ours
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, (file, seen))| Some((at, self.whole(*file, seen)?)));
        let (older, newer) = ours.split_at(newest.as_ref().map_or(0, |(at, _)| *at));
        let mut holes = Vec::new();

        let mut spans = Vec::new();
        let mut newer = newer.iter();
        let mut end = self.end;
        let upto = match newest {
            Some((_, whole)) => {
                newer.next();
                let start = whole.first().map_or(self.end, |s| s.start);
                let last = whole.last().map_or(self.end, Span::end);
                // Newer files that are known and gone: so are their bytes.
                let is_newest = self.known.last().map(|k| k.id) == whole.last().map(|s| s.id);
                end = if is_newest { last } else { last.max(self.end) };
                spans.extend(whole);
                Some(start)
            }
            None => {
                if self.end > 0 && !ours.is_empty() {
                    holes.push(Hole {
                        at: self.end,
                        size: None,
                    });
                }
                None
            }
        };
        // Files newer than all that are known follow each other.
        for (index, (file, seen)) in newer.enumerate() {
            // Emptied from outside since it was seen: what it held is gone.
            let was = self.known.iter().rfind(|k| k.id == seen.id).map(Known::end);
            let start = end.max(was.unwrap_or_default());
            let first_of_all = index == 0 && upto.is_none();
            if seen.after_gap && start == end && !first_of_all {
                holes.push(Hole {
                    at: start,
                    size: None,
                });
            }
            let length = seen.length.ok_or(Measure(*file))?;
            spans.push(Span::whole_file(*file, seen.id, start, length));
            end = start.saturating_add(length);
        }
        if let Some(upto) = upto {
            let before = self.lay_older(older, upto, down_to)?;
            spans.splice(0..0, before);
        }
        holes.extend(between(&spans));
        holes.retain(|h| !self.holes.iter().any(|k| k.at == h.at));
        let seen = seen.iter().map(|s| s.id).collect();
        Ok(Layout {
            spans,
            holes,
            end,
            seen,
        })
    }

    /// Files older than the newest that is known end where the next one begins.
    fn lay_older(
        &self,
        older: &[(usize, &Seen)],
        mut upto: u64,
        down_to: u64,
    ) -> Result<Vec<Span>, Measure> {
        let mut spans = Vec::new();
        for (file, seen) in older.iter().rev() {
            if upto <= down_to {
                break;
            }
            if let Some(mut whole) = self.whole(*file, seen) {
                upto = whole.first().map_or(upto, |s| s.start);
                whole.reverse();
                spans.extend(whole);
                continue;
            }
            let length = seen.length.ok_or(Measure(*file))?;
            // One that holds more than there is room for is not of this stream.
            let Some(start) = upto.checked_sub(length) else {
                break;
            };
            spans.push(Span::whole_file(*file, seen.id, start, length));
            upto = start;
        }
        spans.reverse();
        Ok(spans)
    }

    /// The runs of a file that is known and still is what it was; its last run
    /// may have grown.
    fn whole(&self, file: usize, seen: &Seen) -> Option<Vec<Span>> {
        let known = self.known.iter().filter(|k| k.id == seen.id);
        let mut spans: Vec<Span> = known
            .map(|k| Span {
                file,
                id: k.id,
                skip: k.skip,
                start: k.start,
                length: k.length,
            })
            .collect();
        let last = spans.last_mut()?;
        if let Some(length) = seen.length {
            last.length = length
                .checked_sub(last.skip)
                .filter(|now| *now >= last.length)?;
        }
        Some(spans)
    }

    /// The same bytes in other files: `now` gives the one that holds those of another.
    #[must_use]
    pub fn copied(&self, now: impl Fn(FileId) -> Option<FileId>) -> Self {
        let known = self.known.iter().filter_map(|known| {
            let id = now(known.id)?;
            Some(Known { id, ..*known })
        });
        Self {
            known: known.collect(),
            foreign: self.foreign.iter().filter_map(|id| now(*id)).collect(),
            ..self.clone()
        }
    }

    /// Whether it knows nothing yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The stream went on elsewhere up to `offset`: the files that are here follow
    /// it, after a gap.
    pub fn go_on_at(&mut self, offset: u64) {
        self.known.clear();
        self.end = self.end.max(offset);
    }

    /// A file that may be gone by now was `length` bytes long when it was last seen.
    pub fn grown(&mut self, id: FileId, length: u64) {
        if let Some(last) = self.known.iter_mut().rfind(|k| k.id == id) {
            last.length = last.length.max(length.saturating_sub(last.skip));
            self.end = self.end.max(last.end());
        }
    }

    /// Takes over what a layout found. Says whether that is worth writing down:
    /// growth alone is not.
    pub fn remember(&mut self, layout: &Layout) -> bool {
        let first = layout.first().unwrap_or(layout.end);
        // Older files that are there, but nobody asked for, stay known.
        let older = self.known.iter().copied();
        let older = older.filter(|k| k.start < first && layout.seen.contains(&k.id));
        let spans = layout.spans.iter().map(|s| Known {
            id: s.id,
            skip: s.skip,
            start: s.start,
            length: s.length,
        });
        let known: Vec<Known> = older.chain(spans).collect();
        let places = |known: &[Known]| {
            let places = known.iter().map(|k| (k.id, k.skip, k.start));
            places.collect::<Vec<_>>()
        };
        let news = places(&known) != places(&self.known) || !layout.holes.is_empty();
        self.known = known;
        self.end = self.end.max(layout.end);
        self.holes.extend(&layout.holes);
        let first = self.known.first().map_or(self.end, |k| k.start);
        self.keep(first);
        news
    }

    /// Forgets what is missing before `first`, and what is more than is kept.
    pub(super) fn keep(&mut self, first: u64) {
        self.holes.sort_by_key(|h| h.at);
        self.holes.retain(|h| h.at >= first);
        keep_last(&mut self.holes, HOLES_KEPT);
        keep_last(&mut self.hops, HOPS_KEPT);
    }
}

fn keep_last<T>(list: &mut Vec<T>, most: usize) {
    let surplus = list.len().saturating_sub(most);
    list.drain(..surplus);
}
