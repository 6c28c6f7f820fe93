//! Where the files of a chain lie in the VM's stream: pure.
//!
//! The stream is every byte that the console ever printed, whichever host it
//! printed on. An **offset** counts from its first byte and never falls. The
//! [`Ledger`] remembers, by identity, at which offset each file begins; a
//! [`Layout`] says it of the files that are there now. What nobody saw (a
//! rollover that dropped bytes, a restart that wiped the log) is a [`Hole`].
//!
//! Must not know: files, I/O, clocks, who remembers the ledger.
//!
//! ```
//! use logchain_core::folder::FileId;
//! use logchain_core::stream::{Ledger, Seen};
//!
//! let file = |ino| FileId { dev: (8, 1), ino, born: None };
//! let seen = |ino, length| Seen { id: file(ino), length: Some(length), after_gap: false };
//!
//! let mut ledger = Ledger::default();
//! let before = [seen(1, 100), seen(2, 40)];
//! let layout = ledger.lay(&before, 0)?;
//! assert_eq!(layout.end(), 140);
//! ledger.remember(&layout);
//!
//! // A rollover dropped file 1, file 2 grew before it was rolled over, 3 is new.
//! let layout = ledger.lay(&[seen(2, 60), seen(3, 5)], 0)?;
//! assert_eq!((layout.first(), layout.end()), (Some(100), 165));
//! # Ok::<(), logchain_core::stream::Measure>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::folder::FileId;

/// Hosts remembered. A VM that moved more often forgets the first ones.
const HOPS_KEPT: usize = 256;

/// Holes remembered.
const HOLES_KEPT: usize = 256;

/// What is remembered of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Oldest first.
    known: Vec<Known>,
    /// Files under the chain's names that are no part of this stream.
    foreign: Vec<FileId>,
    holes: Vec<Hole>,
    hops: Vec<Hop>,
    end: u64,
}

/// A run of bytes whose place is known. A file has more than one where a hole
/// lies in it: carried history is cut as the rotation cuts, not at holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    id: FileId,
    /// Bytes of the file before it.
    skip: u64,
    start: u64,
    /// Its length when it was last seen.
    length: u64,
}

impl Known {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// Bytes that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The offset at which they are missing.
    pub at: u64,
    /// How many, where that is known: then offsets count them. `None`: they
    /// are not counted.
    pub size: Option<u64>,
}

/// A host that the VM was on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Its name, as it calls itself.
    pub host: String,
    /// When the VM's log came there, in seconds since 1970; `None`: it began there.
    pub since: Option<u64>,
    /// The offset of the first byte printed there. The hop ends where the next
    /// one begins.
    pub start: u64,
}

/// A file of the chain as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which file.
    pub id: FileId,
    /// Its length in the stream; `None`: it is compressed and was not gone through.
    pub length: Option<u64>,
    /// Whether numbers are missing between this file and the next older one.
    pub after_gap: bool,
}

/// The length of this file, by its place in the list, must be found out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the length of file {0} is needed")]
pub struct Measure(pub usize);

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
    pub start: u64,
    /// How many bytes.
    pub length: u64,
}

impl Span {
    fn end(&self) -> u64 {
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
        next: u64,
    },
    /// At the end, or beyond it.
    Beyond,
}

/// Where the files of a chain lie in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// By offset. Files before the offset that was asked for are left out.
    spans: Vec<Span>,
    /// What is missing and the ledger does not know of.
    holes: Vec<Hole>,
    end: u64,
    /// All files that were seen.
    seen: Vec<FileId>,
}

/// What one host tells the next of the history that it hands over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Offset and length of each run of its bytes, oldest first.
    pub runs: Vec<(u64, u64)>,
    /// What is missing in it.
    pub holes: Vec<Hole>,
    /// The hosts that the VM was on so far.
    pub hops: Vec<Hop>,
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

    /// Finds the places of `seen`, oldest first. Files before the offset
    /// `down_to` are only looked at as far as needed.
    ///
    /// # Errors
    /// [`Measure`]: a compressed file's length decides.
    pub fn lay(&self, seen: &[Seen], down_to: u64) -> Result<Layout, Measure> {
        let ours: Vec<(usize, &Seen)> = seen
            .iter()
            .enumerate()
            .filter(|(_, s)| !self.foreign.contains(&s.id))
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
            spans.push(Span {
                file: *file,
                id: seen.id,
                skip: 0,
                start,
                length,
            });
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
            spans.push(Span {
                file: *file,
                id: seen.id,
                skip: 0,
                start,
                length,
            });
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

    /// Whether it knows nothing yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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

    fn keep(&mut self, first: u64) {
        self.holes.sort_by_key(|h| h.at);
        self.holes.retain(|h| h.at >= first);
        keep_last(&mut self.holes, HOLES_KEPT);
        keep_last(&mut self.hops, HOPS_KEPT);
    }

    /// What is told to the next host. `layout` is all of the chain; `missed` the
    /// places, in bytes from its first one, where bytes were missed.
    #[must_use]
    pub fn history(&self, layout: &Layout, host: &str, missed: &[u64]) -> History {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for span in layout.spans.iter().filter(|s| s.length > 0) {
            match runs.last_mut() {
                Some((start, length)) if start.saturating_add(*length) == span.start => {
                    *length = length.saturating_add(span.length);
                }
                _ => runs.push((span.start, span.length)),
            }
        }
        if runs.is_empty() {
            // It says where the stream is, also where nothing of it is left.
            runs.push((layout.end, 0));
        }
        let mut all = self.clone();
        all.holes.extend(&layout.holes);
        for at in missed {
            let at = offset_of(&runs, *at).unwrap_or(layout.end);
            if !all.holes.iter().any(|h| h.at == at) {
                all.holes.push(Hole { at, size: None });
            }
        }
        if all.hops.is_empty() {
            let host = host.to_owned();
            all.hops.push(Hop {
                host,
                since: None,
                start: 0,
            });
        }
        all.keep(layout.first().unwrap_or(layout.end));
        History {
            runs,
            holes: all.holes,
            hops: all.hops,
        }
    }

    /// The history of the host before came here at the time `now`. `parts` hold
    /// its last bytes, `newer` is what the VM wrote here since, `foreign` what
    /// else lies under the chain's names; oldest first each.
    #[must_use]
    pub fn arrived(
        &self,
        history: &History,
        parts: &[(FileId, u64)],
        newer: &[(FileId, u64)],
        foreign: Vec<FileId>,
        here: (&str, u64),
    ) -> Self {
        // A source that had forgotten what this host knows: offsets never fall.
        let ends = history
            .runs
            .last()
            .map_or(0, |(start, length)| start.saturating_add(*length));
        let shift = self.end.saturating_sub(ends);
        let mut known = Vec::new();
        let mut runs = history.runs.iter().rev().copied();
        let mut run = runs.next();
        for (id, length) in parts.iter().rev() {
            let mut left = *length;
            while let Some((start, has)) = run.filter(|_| left > 0) {
                let takes = left.min(has);
                left = left.saturating_sub(takes);
                let has = has.saturating_sub(takes);
                let start_here = start.saturating_add(has).saturating_add(shift);
                known.push(Known {
                    id: *id,
                    skip: left,
                    start: start_here,
                    length: takes,
                });
                run = if has > 0 {
                    Some((start, has))
                } else {
                    runs.next()
                };
            }
        }
        known.reverse();
        let start = ends.saturating_add(shift);
        let mut end = start;
        for (id, length) in newer {
            known.push(Known {
                id: *id,
                skip: 0,
                start: end,
                length: *length,
            });
            end = end.saturating_add(*length);
        }
        let mut hops = history.hops.clone();
        hops.iter_mut()
            .for_each(|h| h.start = h.start.saturating_add(shift));
        let (host, since) = (here.0.to_owned(), Some(here.1));
        hops.push(Hop { host, since, start });
        let mut holes = history.holes.clone();
        holes
            .iter_mut()
            .for_each(|h| h.at = h.at.saturating_add(shift));
        let first = known.first().map_or(end, |k| k.start);
        let mut arrived = Self {
            known,
            foreign,
            holes,
            hops,
            end,
        };
        arrived.keep(first);
        arrived
    }
}

/// The offset of the byte with this number, counted from the first one of `runs`.
fn offset_of(runs: &[(u64, u64)], mut number: u64) -> Option<u64> {
    for (start, length) in runs {
        if number < *length {
            return Some(start.saturating_add(number));
        }
        number = number.saturating_sub(*length);
    }
    None
}

fn keep_last<T>(list: &mut Vec<T>, most: usize) {
    let surplus = list.len().saturating_sub(most);
    list.drain(..surplus);
}

/// Holes between runs whose places are known.
fn between(spans: &[Span]) -> impl Iterator<Item = Hole> + '_ {
    spans
        .iter()
        .zip(spans.iter().skip(1))
        .filter_map(|(older, newer)| {
            let size = newer
                .start
                .checked_sub(older.end())
                .filter(|size| *size > 0)?;
            Some(Hole {
                at: older.end(),
                size: Some(size),
            })
        })
}

impl History {
    /// That of `bytes` bytes of which nothing else is known.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self {
            runs: vec![(0, bytes)],
            ..Self::default()
        }
    }

    /// How many bytes it has, where its runs make sense: it comes from another host.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let (mut at, mut bytes) = (0, 0_u64);
        for (start, length) in &self.runs {
            if *start < at {
                return None;
            }
            at = start.checked_add(*length)?;
            bytes = bytes.checked_add(*length)?;
        }
        Some(bytes)
    }
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
    pub fn first(&self) -> Option<u64> {
        self.spans.first().map(|s| s.start)
    }

    /// The offset after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Where the byte at `offset` lies.
    #[must_use]
    pub fn find(&self, offset: u64) -> Place {
        if offset >= self.end {
            return Place::Beyond;
        }
        for span in &self.spans {
            if offset < span.start {
                return Place::Gone { next: span.start };
            }
            let into = offset
                .checked_sub(span.start)
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

    /// How many bytes follow `offset` before the next gap.
    #[must_use]
    pub fn run_after(&self, offset: u64) -> u64 {
        let mut end = offset;
        for span in self.spans.iter().filter(|s| s.end() > offset) {
            if span.start > end {
                break;
            }
            end = span.end();
        }
        end.saturating_sub(offset)
    }

    /// The offset of a place in a file, if that is known.
    #[must_use]
    pub fn offset_in(&self, id: FileId, at: u64) -> Option<u64> {
        let spans = self.spans.iter().filter(|s| s.id == id);
        let span = spans.rev().find(|s| s.skip <= at)?;
        Some(span.start.saturating_add(at.saturating_sub(span.skip)))
    }
}

#[cfg(test)]
mod tests;
