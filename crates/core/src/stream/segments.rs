//! Which handoff first took along what the VM printed.
//!
//! A [`Segment`] is what the VM printed between two handoffs. A host can come by one segment in
//! more than one way: by its own copy of an earlier stay, and by histories that other hosts hand
//! over, early or late. By the name of the segment it knows the bytes again, places them once, and
//! knows between which others they belong.
//!
//! Must not know: files, who has which segment, how histories are put together on disk.

use std::collections::HashSet;

use jiff::Timestamp;

use super::history::joined;
use super::ledger::{SEGMENTS_KEPT, keep_last};
use super::{History, Hop, Ledger, Segment, StreamOffset};
use crate::folder::FileId;
use crate::ids::HandoffId;

/// Bytes of a history that belong to one segment, or to none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The segment; `None`: no handoff has taken it along.
    pub(crate) segment: Option<HandoffId>,
    /// As [`Segment::at`].
    pub(crate) at: Option<Timestamp>,
    /// The offset at which it begins.
    pub(crate) start: StreamOffset,
    /// The offset after it.
    pub(crate) end: StreamOffset,
    /// How many bytes of it there are.
    pub(crate) bytes: u64,
}

/// A piece that lies here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PieceHere {
    pub(crate) piece: Piece,
    /// Whether it lay here before the VM came: then it is older than a history that comes with the
    /// VM, unless something else tells.
    pub(crate) is_older: bool,
}

/// From where a piece is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It lies here.
    Here,
    /// It comes with the history.
    Coming,
}

/// In which order pieces that lie here and pieces that come belong, each segment once. `None`:
/// nothing has to be put between anything, and no segment is on both sides; what is older here,
/// the history, and what is newer here follow each other.
///
/// Segments on both sides tell the order of those between them. Where they do not, the times do,
/// as long as they can be true (`now`: none is later, and none falls within one side).
pub(crate) fn order(
    here: &[PieceHere],
    coming: &[Piece],
    now: Timestamp,
) -> Option<Vec<(Side, usize)>> {
    let place_here = |piece: &Piece| {
        let segment = piece.segment?;
        here.iter().position(|h| h.piece.segment == Some(segment))
    };
    let sides = [
        here.iter().map(|h| h.piece.at).collect::<Vec<_>>(),
        coming.iter().map(|c| c.at).collect(),
    ];
    let use_times = sides.iter().all(|times| can_be_true(times, now));
    let is_before = |here: &PieceHere, coming: &Piece| match (here.piece.at, coming.at) {
        // A clock that cannot tell two times apart says nothing.
        (Some(left), Some(right)) if use_times && left != right => left < right,
        _ => here.is_older,
    };
    let mut order = Vec::new();
    let (mut next_here, mut next_coming) = (0, 0);
    // Up to the next segment that is on both sides, and at last up to the ends.
    let both = coming.iter().enumerate();
    let both = both.filter_map(|(at, piece)| Some((place_here(piece)?, at)));
    let ends = (here.len(), coming.len());
    for (up_to_here, up_to_coming) in both.chain([ends]) {
        if up_to_here < next_here {
            // The other way round on this side, which is placed already.
            continue;
        }
        while next_here < up_to_here || next_coming < up_to_coming {
            let left = here.get(next_here).filter(|_| next_here < up_to_here);
            let right = coming
                .get(next_coming)
                .filter(|_| next_coming < up_to_coming);
            match (left, right) {
                (Some(left), right) if right.is_none_or(|right| is_before(left, right)) => {
                    order.push((Side::Here, next_here));
                    next_here += 1;
                }
                (_, Some(right)) => {
                    if place_here(right).is_none() {
                        order.push((Side::Coming, next_coming));
                    }
                    next_coming += 1;
                }
                _ => break,
            }
        }
        if let (Some(left), Some(right)) = (here.get(next_here), coming.get(next_coming)) {
            // The side that has more of it: a rotation may have dropped the rest.
            order.push(match right.bytes > left.piece.bytes {
                true => (Side::Coming, next_coming),
                false => (Side::Here, next_here),
            });
            (next_here, next_coming) = (next_here + 1, next_coming + 1);
        }
    }
    (order != usual_order(here, coming)).then_some(order)
}

/// What is older here, the history, what is newer here.
pub(crate) fn usual_order(here: &[PieceHere], coming: &[Piece]) -> Vec<(Side, usize)> {
    let at = |is_older: bool| {
        let all = here.iter().enumerate();
        all.filter(move |(_, h)| h.is_older == is_older)
            .map(|(at, _)| (Side::Here, at))
    };
    let coming = (0..coming.len()).map(|at| (Side::Coming, at));
    at(true).chain(coming).chain(at(false)).collect()
}

/// Whether clocks may have said this: no clock is ahead of this one, and time does not go back.
fn can_be_true(times: &[Option<Timestamp>], now: Timestamp) -> bool {
    let known: Vec<&Timestamp> = times.iter().flatten().collect();
    known.is_sorted() && known.last().is_none_or(|last| **last <= now)
}

impl Ledger {
    /// The handoff takes along what lies before `end`. What no handoff before it took is its
    /// segment. `at`: when the VM printed the last of it.
    pub(crate) fn end_segment(
        &mut self,
        handoff: HandoffId,
        end: StreamOffset,
        at: Option<Timestamp>,
    ) {
        let is_it = |s: &Segment| (s.handoff, s.end) == (handoff, end);
        if self.segments.iter().any(is_it) {
            return;
        }
        self.segments.retain(|s| s.handoff != handoff);
        let before = self.segments.last().map_or(StreamOffset::START, |s| s.end);
        if end > before {
            self.segments.push(Segment { handoff, end, at });
        }
    }

    /// What is known of these files.
    pub(crate) fn history_of(&self, wanted: impl Fn(FileId) -> bool) -> History {
        let known = self.known.iter();
        let known = known.filter(|run| run.length > 0 && wanted(run.id));
        History {
            runs: joined(known.map(|run| (run.start, run.length))),
            hops: self.hops.clone(),
            segments: self.segments.clone(),
            ..History::default()
        }
    }

    /// The file in which the byte at this offset was, when it was last seen.
    pub(crate) fn file_at(&self, offset: StreamOffset) -> Option<FileId> {
        let mut known = self.known.iter();
        let run = known.find(|run| run.start <= offset && offset < run.end())?;
        Some(run.id)
    }

    /// The ends of segments that lie in this file, where it begins at `start` from now on.
    pub(super) fn segments_within(
        &self,
        id: FileId,
        start: StreamOffset,
    ) -> impl Iterator<Item = Segment> {
        let runs = self.known.iter().filter(move |run| run.id == id);
        runs.flat_map(move |run| {
            let (first, end) = (run.start, run.end());
            let within = move |s: &&Segment| s.end > first && s.end <= end;
            self.segments.iter().filter(within).map(move |s| Segment {
                end: start
                    .saturating_add(run.skip)
                    .saturating_add(s.end.saturating_bytes_since(first)),
                ..*s
            })
        })
    }
}

impl History {
    /// As it is, with all of its bytes in segments: what no handoff before took along is the
    /// segment of `handoff`. A source of an earlier release names none; one that cannot be trusted
    /// may name anything.
    #[must_use]
    pub fn in_segments_of(mut self, handoff: HandoffId) -> Self {
        let (start, end) = (self.start(), self.end());
        self.segments.retain(|s| s.end > start && s.end <= end);
        self.segments.sort_by_key(|s| s.end);
        let mut names = HashSet::new();
        self.segments.retain(|s| names.insert(s.handoff));
        keep_last(&mut self.segments, SEGMENTS_KEPT);
        let is_named = self.segments.last().is_some_and(|s| s.end == end);
        if !is_named && end > self.start() {
            self.segments.retain(|s| s.handoff != handoff);
            self.segments.push(Segment {
                handoff,
                end,
                at: None,
            });
        }
        self
    }

    /// Its segments and what follows them, each as far as there are bytes of it.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut start = self.start();
        let named = self.segments.iter().map(|s| (Some(s.handoff), s.at, s.end));
        for (segment, at, end) in named.chain([(None, None, self.end())]) {
            let bytes = self.bytes_between(start, end);
            if bytes > 0 {
                pieces.push(Piece {
                    segment,
                    at,
                    start,
                    end,
                    bytes,
                });
            }
            start = start.max(end);
        }
        pieces
    }

    /// Without its first bytes, so many.
    #[must_use]
    pub(crate) fn without_first(&self, mut bytes: u64) -> Self {
        for (start, length) in &self.runs {
            if bytes < *length {
                return self.slice(start.saturating_add(bytes), self.end());
            }
            bytes = bytes.saturating_sub(*length);
        }
        self.slice(self.end(), self.end())
    }

    /// How many of its bytes lie before this offset.
    pub(crate) fn bytes_before(&self, offset: StreamOffset) -> u64 {
        self.bytes_between(self.start(), offset)
    }

    fn bytes_between(&self, from: StreamOffset, to: StreamOffset) -> u64 {
        let runs = self.runs_between(from, to);
        runs.fold(0, |sum, (_, length)| sum.saturating_add(length))
    }

    fn runs_between(
        &self,
        from: StreamOffset,
        to: StreamOffset,
    ) -> impl Iterator<Item = (StreamOffset, u64)> {
        self.runs.iter().filter_map(move |(start, length)| {
            let end = start.saturating_add(*length).min(to);
            let start = (*start).max(from);
            let length = end.bytes_since(start).filter(|length| *length > 0)?;
            Some((start, length))
        })
    }

    /// What lies between two offsets.
    pub(crate) fn slice(&self, from: StreamOffset, to: StreamOffset) -> Self {
        let is_end = to == self.end();
        let is_within = |at: StreamOffset| (from..to).contains(&at) || (is_end && at == to);
        let before = self.hops.iter().rfind(|hop| hop.start <= from);
        let hops = self
            .hops
            .iter()
            .filter(|hop| hop.start > from && is_within(hop.start));
        let before = before.map(|hop| Hop {
            start: from,
            ..hop.clone()
        });
        let mut segments = self.segments.clone();
        segments.retain(|s| s.end > from && s.end <= to);
        Self {
            runs: self.runs_between(from, to).collect(),
            holes: self
                .holes
                .iter()
                .filter(|hole| is_within(hole.at))
                .copied()
                .collect(),
            hops: before.into_iter().chain(hops.cloned()).collect(),
            boots: self
                .boots
                .iter()
                .filter(|boot| is_within(boot.start))
                .copied()
                .collect(),
            segments,
        }
    }

    /// With `other` behind it, which begins where this one ends.
    pub(crate) fn followed_by(mut self, other: Self) -> Self {
        if self.runs.is_empty() {
            return other;
        }
        let (begins, end) = (other.start(), self.end());
        let now = |offset: StreamOffset| end.saturating_add(offset.saturating_bytes_since(begins));
        let other = other.moved(now);
        self.runs = joined(self.runs.into_iter().chain(other.runs));
        self.holes.extend(other.holes);
        self.hops.extend(other.hops);
        // The VM stayed where it was.
        self.hops
            .dedup_by(|hop, last| (&last.host, last.since) == (&hop.host, hop.since));
        self.boots.extend(other.boots);
        self.segments.extend(other.segments);
        self
    }

    /// Farther behind, so that it ends at this offset, unless it reaches beyond.
    pub(crate) fn ending_at(self, end: StreamOffset) -> Self {
        match end.bytes_since(self.end()) {
            Some(shift) => self.moved(|offset| offset.saturating_add(shift)),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(offset: u64) -> StreamOffset {
        StreamOffset::new(offset)
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn named_by(handoff: u128) -> HandoffId {
        let id = uuid::Uuid::from_u128(handoff);
        id.hyphenated().to_string().parse().unwrap()
    }

    /// The segment of this number, with so many bytes, printed by the second of its number.
    fn piece(number: u64, bytes: u64) -> Piece {
        Piece {
            segment: Some(named_by(number.into())),
            at: Some(second(number.try_into().unwrap())),
            start: StreamOffset::START,
            end: at(bytes),
            bytes,
        }
    }

    fn here(numbers: &[u64], older: usize) -> Vec<PieceHere> {
        let pieces = numbers.iter().enumerate();
        pieces
            .map(|(index, number)| PieceHere {
                piece: piece(*number, 1),
                is_older: index < older,
            })
            .collect()
    }

    /// The numbers of the segments, in the order in which they are put.
    fn put(here: &[PieceHere], coming: &[Piece], now: i64) -> Vec<Option<HandoffId>> {
        let order = order(here, coming, second(now)).unwrap_or_else(|| {
            let older = here.iter().filter(|h| h.is_older).count();
            let places = |side, range: std::ops::Range<usize>| range.map(move |at| (side, at));
            places(Side::Here, 0..older)
                .chain(places(Side::Coming, 0..coming.len()))
                .chain(places(Side::Here, older..here.len()))
                .collect()
        });
        order
            .into_iter()
            .map(|(side, index)| match side {
                Side::Here => here[index].piece.segment,
                Side::Coming => coming[index].segment,
            })
            .collect()
    }

    fn names(numbers: &[u64]) -> Vec<Option<HandoffId>> {
        numbers.iter().map(|n| piece(*n, 1).segment).collect()
    }

    #[test]
    fn what_both_have_is_there_once_and_the_rest_lies_around_it() {
        // 3 and 4 came to this host late, and 1, 2 lay here from an earlier stay.
        let (old, late) = (here(&[1, 2], 2), [piece(2, 1), piece(4, 1)]);
        assert_eq!(put(&old, &late, 9), names(&[1, 2, 4]));
        let here_now = here(&[2, 5], 0);
        let late = [piece(1, 1), piece(2, 1), piece(4, 1)];
        assert_eq!(put(&here_now, &late, 9), names(&[1, 2, 4, 5]));
        // Nothing is shared, and nothing has to be put between anything.
        assert_eq!(order(&here(&[1], 1), &[piece(2, 1)], second(9)), None);
        assert_eq!(order(&here(&[2], 0), &[piece(1, 1)], second(9)), None);
        // Two that come late, the older one first.
        let out_of_turn = order(&here(&[1, 5], 0), &[piece(3, 1)], second(9));
        let between = [(Side::Here, 0), (Side::Coming, 0), (Side::Here, 1)];
        assert_eq!(out_of_turn.as_deref(), Some(&between[..]));
    }

    #[test]
    fn the_side_that_has_more_of_a_segment_gives_it() {
        let order = order(&here(&[1, 2], 0), &[piece(1, 7)], second(9)).unwrap();
        assert_eq!(order, [(Side::Coming, 0), (Side::Here, 1)]);
    }

    #[test]
    fn times_that_cannot_be_true_count_for_nothing() {
        // The clock of the host that 7 comes from is ahead: what comes late is older all the same.
        assert_eq!(put(&here(&[5], 0), &[piece(7, 1)], 6), names(&[7, 5]));
        // What has one time may be of any order.
        let same = Piece {
            at: Some(second(5)),
            ..piece(4, 1)
        };
        assert_eq!(put(&here(&[5], 0), &[same], 9), names(&[4, 5]));
        assert_eq!(put(&here(&[5], 1), &[same], 9), names(&[5, 4]));
        // Time does not go back.
        assert_eq!(put(&here(&[5, 3], 0), &[piece(4, 1)], 9), names(&[4, 5, 3]));
    }

    #[test]
    fn a_source_may_say_anything_of_segments() {
        let named = |handoff: u128, end| Segment {
            handoff: named_by(handoff),
            end: at(end),
            at: None,
        };
        let history = History {
            segments: vec![
                named(1, 99),
                named(2, 7),
                named(3, 4),
                named(2, 5),
                named(4, 0),
            ],
            ..History::of(10)
        };
        let pieces = history.in_segments_of(named_by(9)).pieces();
        let lengths: Vec<_> = pieces.iter().map(|p| (p.segment, p.bytes)).collect();
        let of = |n| Some(named_by(n));
        assert_eq!(lengths, [(of(3), 4), (of(2), 1), (of(9), 5)]);
    }

    proptest! {
        /// Whatever each side has, in the end each segment is there once, in order.
        #[test]
        fn segments_are_in_the_models_order(
            sides in proptest::collection::vec(0_u8..4, 0..12),
            older in 0_usize..12,
        ) {
            let having = |bit: u8| -> Vec<u64> {
                let all = (1_u64..).zip(&sides);
                all.filter(|(_, side)| **side & bit != 0).map(|(n, _)| n).collect()
            };
            let (lies, comes) = (having(1), having(2));
            let coming: Vec<Piece> = comes.iter().map(|n| piece(*n, 1)).collect();
            let mut model = [lies.clone(), comes].concat();
            model.sort_unstable();
            model.dedup();
            prop_assert_eq!(put(&here(&lies, older), &coming, 99), names(&model));
        }

        /// A history that is cut at its segments and put together again is what it was.
        #[test]
        fn slices_make_up_the_whole(
            runs in proptest::collection::vec((0_u64..9, 1_u64..9), 1..6),
            ends in proptest::collection::vec(1_u64..80, 0..6),
        ) {
            let (mut whole, mut offset) = (History::default(), 5);
            for (gap, length) in runs {
                let start = offset + gap;
                match whole.runs.last_mut() {
                    Some((_, last)) if gap == 0 => *last += length,
                    _ => whole.runs.push((at(start), length)),
                }
                offset = start + length;
            }
            let start = whole.start().get();
            whole.segments = ends
                .iter()
                .zip(1..)
                .map(|(end, n)| Segment {
                    handoff: named_by(n),
                    end: at(start + end),
                    at: None,
                })
                .collect();
            let whole = whole.in_segments_of(named_by(99));
            let pieces = whole.pieces();
            let bytes: u64 = pieces.iter().map(|piece| piece.bytes).sum();
            prop_assert_eq!(Some(bytes), whole.bytes());
            let mut again = History::default();
            for piece in pieces {
                prop_assert_eq!(again.bytes(), Some(whole.bytes_before(piece.start)));
                again = again.followed_by(whole.slice(piece.start, piece.end));
            }
            prop_assert_eq!(again.bytes(), whole.bytes());
            prop_assert_eq!(again.clone().ending_at(at(1000)).end(), at(1000));
        }
    }
}
