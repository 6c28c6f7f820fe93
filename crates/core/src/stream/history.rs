//! What goes from one host to the next.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ledger::Known;
use super::{Boot, Hole, Hop, Layout, Ledger, Segment, StreamOffset};
use crate::folder::FileId;
use crate::ids::HandoffId;

/// The files of a chain to which history comes, oldest first, and their sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The history.
    pub parts: Vec<(FileId, u64)>,
    /// What the VM wrote here since.
    pub newer: Vec<(FileId, u64)>,
    /// What else lies here, older than the history: of an earlier stay, or no part
    /// of this VM's stream at all.
    pub older: Vec<FileId>,
    /// The segment that becomes of what no handoff has taken along of that, and when the VM
    /// printed the last of it.
    pub stayed: Option<(HandoffId, Option<Timestamp>)>,
}

/// What one host tells the next of the history that it hands over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Offset and length of each run of its bytes, oldest first.
    pub runs: Vec<(StreamOffset, u64)>,
    /// What is missing in it.
    pub holes: Vec<Hole>,
    /// The hosts that the VM was on so far.
    pub hops: Vec<Hop>,
    /// Where boots of the VM began. One at the end of the history says that what the VM has
    /// printed since is of a later boot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boots: Vec<Boot>,
    /// Which handoffs took along which parts of it first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
}

impl History {
    /// That of `bytes` bytes of which nothing else is known.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self {
            runs: vec![(StreamOffset::START, bytes)],
            ..Self::default()
        }
    }

    /// As far as `bytes` bytes go: the last run goes on, or what is too much is cut.
    #[must_use]
    pub fn up_to(&self, bytes: u64) -> Self {
        let mut left = bytes;
        let mut runs = Vec::new();
        for (start, length) in &self.runs {
            let length = left.min(*length);
            runs.push((*start, length));
            left = left.saturating_sub(length);
            if left == 0 {
                break;
            }
        }
        if let Some((_, length)) = runs.last_mut() {
            *length = length.saturating_add(left);
        }
        Self {
            runs,
            ..self.clone()
        }
    }

    /// The offset of its first byte.
    #[must_use]
    pub fn start(&self) -> StreamOffset {
        let first = self.runs.first();
        first.map_or(StreamOffset::START, |(start, _)| *start)
    }

    /// The offset after its last byte.
    #[must_use]
    pub fn end(&self) -> StreamOffset {
        let last = self.runs.last();
        last.map_or(StreamOffset::START, |(start, length)| {
            start.saturating_add(*length)
        })
    }

    /// The same bytes at other offsets: `now` gives the new offset of each.
    #[must_use]
    pub(super) fn moved(mut self, now: impl Fn(StreamOffset) -> StreamOffset) -> Self {
        for (start, _) in &mut self.runs {
            *start = now(*start);
        }
        for hole in &mut self.holes {
            hole.at = now(hole.at);
        }
        for hop in &mut self.hops {
            hop.start = now(hop.start);
        }
        for boot in &mut self.boots {
            boot.start = now(boot.start);
        }
        for segment in &mut self.segments {
            segment.end = now(segment.end);
        }
        self
    }

    /// How many bytes it has. `None` where its runs overlap or overflow: it comes from another
    /// host, and may say anything.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let (mut at, mut bytes) = (StreamOffset::START, 0_u64);
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

impl Ledger {
    /// What is told to the next host. `layout` is all of the chain; `missed` the
    /// places, in bytes from its first one, where bytes were missed.
    #[must_use]
    pub fn history(&self, layout: &Layout, host: &str, missed: &[u64]) -> History {
        let spans = layout.spans.iter().filter(|s| s.length > 0);
        let mut runs = joined(spans.map(|span| (span.start, span.length)));
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
                start: StreamOffset::START,
            });
        }
        all.keep(layout.first().unwrap_or(layout.end));
        History {
            runs,
            holes: all.holes,
            hops: all.hops,
            boots: all.boots,
            segments: all.segments,
        }
    }

    /// The ledger once the history from the host before lies here. `here` is this host's name and
    /// the time.
    #[must_use]
    pub fn arrived(&self, history: &History, arrival: &Arrival, here: (&str, Timestamp)) -> Self {
        // What stayed here at an earlier stay and comes before the history now.
        let ours = |id: &FileId| self.known.iter().any(|k| k.id == *id);
        let stayed = arrival.older.iter().any(ours);
        let ends = history.end();
        // Offsets never fall. Where this host's are ahead, all that arrives is shifted up: the
        // source never had what stayed here, or has forgotten it.
        let counts_on_from = if stayed { history.start() } else { ends };
        let shift = self
            .shift_of_newer(&arrival.newer, ends)
            .unwrap_or_else(|| self.end.saturating_bytes_since(counts_on_from));

        let mut known = Vec::new();
        let mut runs = history.runs.iter().rev().copied();
        let mut run = runs.next();
        for (id, length) in arrival.parts.iter().rev() {
            let mut left = *length;
            while let Some((start, has)) = run.filter(|_| left > 0) {
                let takes = left.min(has);
                left = left.saturating_sub(takes);
                let has = has.saturating_sub(takes);
                let start_here = start.saturating_add(has).saturating_add(shift);
                known.push(Known::new(*id, left, start_here, takes));
                run = if has > 0 {
                    Some((start, has))
                } else {
                    runs.next()
                };
            }
        }
        let mut older = self
            .known
            .iter()
            .filter(|k| arrival.older.contains(&k.id))
            .copied()
            .collect::<Vec<_>>();
        older.reverse();
        let mut segments = Vec::new();
        if stayed {
            let end = older.first().map_or(StreamOffset::START, Known::end);
            segments.extend(self.segments.iter().filter(|s| s.end <= end));
            if older.iter().any(|k| k.length > 0)
                && segments.last().is_none_or(|s: &Segment| s.end < end)
                && let Some((handoff, at)) = arrival.stayed
            {
                segments.push(Segment { handoff, end, at });
            }
        }
        known.extend(older);
        known.reverse();
        let start = ends.saturating_add(shift);
        let mut end = start;
        let its = history.clone().moved(|offset| offset.saturating_add(shift));
        let mut boots = if stayed {
            self.boots.clone()
        } else {
            Vec::new()
        };
        let mut newer_segments = Vec::new();
        for (id, length) in &arrival.newer {
            boots.extend(self.boots_within(*id, end));
            newer_segments.extend(self.segments_within(*id, end));
            known.push(Known::new(*id, 0, end, *length));
            end = end.saturating_add(*length);
        }
        // It comes from another host, and may say anything.
        boots.extend(its.boots.iter().filter(|boot| boot.start <= start));
        segments.extend(its.segments.iter().filter(|s| s.end <= start));
        segments.extend(newer_segments);

        let mut hops = if stayed {
            self.hops.clone()
        } else {
            Vec::new()
        };
        hops.extend(its.hops);
        // What comes behind an earlier boot of this host was printed on this host.
        let is_new_boot = history.boots.iter().any(|boot| boot.start == ends);
        let is_same_host = hops.last().is_some_and(|hop| hop.host == here.0);
        if !(is_new_boot && is_same_host) {
            let (host, since) = (here.0.to_owned(), Some(here.1));
            hops.push(Hop { host, since, start });
        }
        let mut holes = if stayed {
            self.holes.clone()
        } else {
            Vec::new()
        };
        holes.extend(its.holes);
        let first = known.first().map_or(end, |k| k.start);
        let foreign = arrival
            .older
            .iter()
            .copied()
            .filter(|id| !ours(id))
            .collect();
        let mut arrived = Self {
            known,
            foreign,
            holes,
            hops,
            boots,
            segments,
            end,
        };
        arrived.keep(first);
        arrived
    }
}

impl Ledger {
    /// The VM moved, its log did not: what is printed from the end of `history` on is
    /// printed on another host. `here` as in [`Ledger::arrived`].
    pub fn moved(&mut self, history: &History, here: (&str, Timestamp)) {
        let start = history.end();
        self.hops = history.hops.clone();
        self.boots = history.boots.clone();
        self.segments = history.segments.clone();
        let (host, since) = (here.0.to_owned(), Some(here.1));
        self.hops.push(Hop { host, since, start });
    }
}

/// Runs of which those that follow each other without a gap are one.
pub(super) fn joined(
    runs: impl IntoIterator<Item = (StreamOffset, u64)>,
) -> Vec<(StreamOffset, u64)> {
    let mut joined: Vec<(StreamOffset, u64)> = Vec::new();
    for (start, length) in runs {
        match joined.last_mut() {
            Some((last, has)) if last.saturating_add(*has) == start => {
                *has = has.saturating_add(length);
            }
            _ => joined.push((start, length)),
        }
    }
    joined
}

/// The offset of the byte with this number, counted from the first one of `runs`.
fn offset_of(runs: &[(StreamOffset, u64)], mut number: u64) -> Option<StreamOffset> {
    for (start, length) in runs {
        if number < *length {
            return Some(start.saturating_add(number));
        }
        number = number.saturating_sub(*length);
    }
    None
}
