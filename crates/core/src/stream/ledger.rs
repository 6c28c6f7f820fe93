//! What is remembered, and what follows from it for the files that are there.

use serde::{Deserialize, Serialize};

use super::layout::between;
use super::{Boot, Fingerprint, Hole, Hop, Layout, Measure, Seen, Segment, Span, StreamOffset};
use crate::folder::FileId;

/// Hosts remembered. A VM that moved more often forgets the first ones.
const HOPS_KEPT: usize = 256;

/// Holes remembered.
const HOLES_KEPT: usize = 256;

/// Boots remembered.
const BOOTS_KEPT: usize = 256;

/// Segments remembered. What lies before them counts to the first one.
pub(super) const SEGMENTS_KEPT: usize = 256;

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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) boots: Vec<Boot>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) segments: Vec<Segment>,
    pub(super) end: StreamOffset,
}

/// A run of bytes whose place is known. A file has more than one where a hole
/// lies in it: carried history is cut as the rotation cuts, not at holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) id: FileId,
    /// Bytes of the file before it.
    pub(super) skip: u64,
    pub(super) start: StreamOffset,
    /// Its length when it was last seen.
    pub(super) length: u64,
    /// What it held, where that is known: not for runs that an earlier release wrote
    /// down, and not where the bytes tell nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) print: Option<Fingerprint>,
    /// Whether no file is known to hold it any more: its own is gone, or holds other
    /// bytes. Found out anew at each look.
    #[serde(skip)]
    pub(super) gone: bool,
}

impl Known {
    /// A run of which the bytes were not looked at.
    pub(super) fn new(id: FileId, skip: u64, start: StreamOffset, length: u64) -> Self {
        Self {
            id,
            skip,
            start,
            length,
            print: None,
            gone: false,
        }
    }

    pub(super) fn end(&self) -> StreamOffset {
        self.start.saturating_add(self.length)
    }
}

impl Ledger {
    /// The offset after the last byte known.
    #[must_use]
    pub fn end(&self) -> StreamOffset {
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

    /// The offset of the oldest byte known to be in a file that is not `seen` any more.
    pub(crate) fn oldest_gone(&self, seen: &[Seen]) -> Option<StreamOffset> {
        let mut known = self.known.iter().filter(|known| known.length > 0);
        let gone = known.find(|known| seen.iter().all(|seen| seen.id != known.id));
        gone.map(|known| known.start)
    }

    /// Whether this file is no part of the stream, or has no place in it yet.
    #[must_use]
    pub fn is_foreign(&self, id: FileId) -> bool {
        self.foreign.contains(&id)
    }

    /// The offset at which this file begins, where that is known.
    #[must_use]
    pub fn start_of(&self, id: FileId) -> Option<StreamOffset> {
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
    pub fn lay(&self, seen: &[Seen], down_to: StreamOffset) -> Result<Layout, Measure> {
        let ours: Vec<(usize, &Seen)> = seen
            .iter()
            .enumerate()
            .filter(|(_, s)| !self.is_foreign(s.id))
            .collect();
        let is_here = |known: &Known| !known.gone && ours.iter().any(|(_, s)| s.id == known.id);
        // An empty file marks no place, since a copy of what it held may lie before it. Only
        // where the last known bytes are gone does its offset tell how many there were.
        let last_bytes = self.known.iter().rfind(|known| known.length > 0);
        let is_empty = |id| !self.known.iter().any(|k| k.id == id && k.length > 0);
        let is_place = |id| last_bytes.is_some_and(|known| !is_here(known)) || !is_empty(id);
        let newest = ours
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, (_, seen))| is_place(seen.id))
            .find_map(|(at, (file, seen))| Some((at, self.whole(*file, seen)?)));
        // It may have grown after it was seen last and before it was compressed.
        if let Some((file, seen)) = newest.as_ref().and_then(|(at, _)| ours.get(*at))
            && seen.compressed
            && seen.length.is_none()
            && self.known.last().is_some_and(|known| known.id == seen.id)
        {
            return Err(Measure(*file));
        }
        let (older, newer) = ours.split_at(newest.as_ref().map_or(0, |(at, _)| *at));
        let mut holes = Vec::new();

        let mut spans = Vec::new();
        let mut newer = newer.iter();
        let mut end = self.end;
        // The newest known file is gone or was replaced. It may have grown before, so the size
        // of the gap is not known.
        let mut cut = false;
        let upto = match newest {
            Some((_, whole)) => {
                newer.next();
                let start = whole.first().map_or(self.end, |s| s.start);
                let last = whole.last().map_or(self.end, Span::end);
                // Newer files that are known and gone: so are their bytes. One that was empty
                // may be what was compressed since.
                let was_compressed = |known: &Known| {
                    known.length == 0 && newer.clone().next().is_some_and(|(_, s)| s.compressed)
                };
                let newest_known = self.known.last();
                let is_there = newest_known.is_some_and(|k| is_here(k) || was_compressed(k));
                cut = !is_there || last < self.end;
                end = last.max(self.end);
                spans.extend(whole);
                Some(start)
            }
            None => {
                let is_any_here = self.known.iter().any(is_here);
                if self.end > StreamOffset::START && !ours.is_empty() && !is_any_here {
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
            let start = end;
            let follows_nothing = index == 0 && upto.is_none();
            if (seen.after_gap && !follows_nothing) || (cut && index == 0) {
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
        holes.sort_by_key(|h| h.at);
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
        mut upto: StreamOffset,
        down_to: StreamOffset,
    ) -> Result<Vec<Span>, Measure> {
        let mut spans = Vec::new();
        // Whether the file that is looked at ends where the next newer one begins.
        let mut adjoins = true;
        for (index, (file, seen)) in older.iter().enumerate().rev() {
            if upto <= down_to {
                break;
            }
            if let Some(mut whole) = self.whole(*file, seen) {
                upto = whole.first().map_or(upto, |s| s.start);
                whole.reverse();
                spans.extend(whole);
                adjoins = true;
                continue;
            }
            // Known, and replaced since: its bytes do not belong at this place in the stream.
            adjoins &= !self.known.iter().any(|k| k.id == seen.id);
            if !adjoins {
                continue;
            }
            let length = seen.length.ok_or(Measure(*file))?;
            let mut room = older.iter().take(index).rev();
            let room = room.find_map(|(file, seen)| self.whole(*file, seen)?.last().map(Span::end));
            // One that holds more than there is room for is not of this stream, nor is
            // one that lies where other bytes are known to have been.
            let start = upto
                .checked_sub(length)
                .filter(|start| room.is_none_or(|room| *start >= room))
                .filter(|start| seen.compressed || !self.is_taken(*start, upto));
            let Some(start) = start else {
                adjoins = false;
                continue;
            };
            spans.push(Span::whole_file(*file, seen.id, start, length));
            upto = start;
        }
        spans.reverse();
        Ok(spans)
    }

    /// Whether bytes with a telling fingerprint lay between these offsets and are in no plain
    /// file any more.
    fn is_taken(&self, from: StreamOffset, to: StreamOffset) -> bool {
        let gone = self.known.iter().filter(|k| k.gone);
        let mut told = gone.filter(|k| k.print.is_some_and(|p| p.is_telling()));
        told.any(|k| k.start < to && k.end() > from)
    }

    /// The runs of a file that is known and still is what it was; its last run
    /// may have grown.
    fn whole(&self, file: usize, seen: &Seen) -> Option<Vec<Span>> {
        let known = self.known.iter().filter(|k| k.id == seen.id && !k.gone);
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

    /// The ledger of copies of its files; `now` gives the copy of a file.
    #[must_use]
    pub fn copied(&self, now: impl Fn(FileId) -> Option<FileId>) -> Self {
        let known = self.known.iter().filter(|known| !known.gone);
        let known = known.filter_map(|known| {
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

    /// The stream went on elsewhere up to `offset`: the files here go on from there,
    /// behind a gap.
    pub fn go_on_at(&mut self, offset: StreamOffset) {
        self.known.clear();
        self.end = self.end.max(offset);
    }

    /// A file was `length` bytes long when it was last seen. It may be gone by now.
    pub fn grown(&mut self, id: FileId, length: u64) {
        if let Some(last) = self.known.iter_mut().rfind(|k| k.id == id) {
            last.length = last.length.max(length.saturating_sub(last.skip));
            self.end = self.end.max(last.end());
        }
    }

    /// A reader has got bytes up to this offset, wherever they lie now.
    pub(crate) fn reach(&mut self, offset: StreamOffset) {
        self.end = self.end.max(offset);
    }

    /// Takes over what a layout found. Says whether that is worth writing down:
    /// growth alone is not.
    pub fn remember(&mut self, layout: &Layout) -> bool {
        let first = layout.first().unwrap_or(layout.end);
        // Older files that are there, but nobody asked for, stay known.
        let older = self.known.iter().copied();
        let older = older.filter(|k| k.start < first && !k.gone && layout.seen.contains(&k.id));
        let spans = layout.spans.iter().map(|s| {
            let is_it = |k: &&Known| !k.gone && (k.id, k.skip) == (s.id, s.skip);
            let print = self.known.iter().find(is_it).and_then(|k| k.print);
            Known {
                print: print.filter(|p| p.length() <= s.length),
                ..Known::new(s.id, s.skip, s.start, s.length)
            }
        });
        let known: Vec<Known> = older.chain(spans).collect();
        let before = self.clone();
        self.known = known;
        let news = !self.has_places_of(&before) || !layout.holes.is_empty();
        self.end = self.end.max(layout.end);
        self.holes.extend(&layout.holes);
        let first = self.known.first().map_or(self.end, |k| k.start);
        self.keep(first);
        news
    }

    /// Whether both know the same runs, however long those are by now.
    pub(crate) fn has_places_of(&self, other: &Self) -> bool {
        let places = |ledger: &Self| {
            let places = ledger.known.iter().map(|k| (k.id, k.skip, k.start));
            places.collect::<Vec<_>>()
        };
        places(self) == places(other)
    }

    /// Forgets what is missing before `first`, and what is more than is kept.
    pub(super) fn keep(&mut self, first: StreamOffset) {
        self.holes.sort_by_key(|h| h.at);
        self.holes.retain(|h| h.at >= first);
        keep_last(&mut self.holes, HOLES_KEPT);
        keep_last(&mut self.hops, HOPS_KEPT);
        self.boots.sort_by_key(|boot| boot.start);
        self.boots.dedup_by_key(|boot| boot.start);
        self.boots.retain(|boot| boot.start >= first);
        keep_last(&mut self.boots, BOOTS_KEPT);
        self.segments.sort_by_key(|segment| segment.end);
        self.segments.retain(|segment| segment.end > first);
        keep_last(&mut self.segments, SEGMENTS_KEPT);
    }
}

pub(super) fn keep_last<T>(list: &mut Vec<T>, most: usize) {
    let surplus = list.len().saturating_sub(most);
    list.drain(..surplus);
}
