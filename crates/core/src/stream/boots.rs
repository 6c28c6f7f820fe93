//! Where the boots of a VM lie in its stream.
//!
//! A [`Boot`] is a boundary: behind it comes what the VM printed after a start that began a new
//! log. The boundary goes with the history over handoffs.
//!
//! Must not know: who keeps the log of an earlier boot, and when.

use jiff::Timestamp;

use super::ledger::Known;
use super::{Boot, BootRun, History, Ledger, StreamOffset};
use crate::folder::FileId;

impl Ledger {
    /// What each boot printed between the offsets `first` and `end`, oldest first. The last one
    /// is the present boot, also where it has printed nothing yet.
    #[must_use]
    pub fn boots(&self, first: StreamOffset, end: StreamOffset) -> Vec<BootRun> {
        let mut runs = Vec::new();
        let (mut since, mut start) = (None, first);
        for boot in self.boots.iter().filter(|boot| boot.start <= end) {
            if boot.start > start {
                runs.push(BootRun {
                    since,
                    start,
                    end: boot.start,
                });
            }
            (since, start) = (Some(boot.since), boot.start.max(first));
        }
        runs.push(BootRun { since, start, end });
        runs
    }

    /// The VM was started anew, and its log with it: what is known here is of boots before.
    pub fn end_boot(&mut self, since: Timestamp) {
        let start = self.end;
        // As it is read again.
        let since = Timestamp::from_millisecond(since.as_millisecond()).unwrap_or(since);
        self.boots.retain(|boot| boot.start < start);
        self.boots.push(Boot { start, since });
    }

    /// Whether a boot began anew behind all that is known here.
    #[must_use]
    pub(crate) fn is_ended_boot(&self) -> bool {
        self.boots.last().is_some_and(|boot| boot.start == self.end)
    }

    /// Whether this history lies here, or lay here, as far as boots tell: a boot that ended it
    /// since wiped what was here.
    pub(crate) fn has_end_of(&self, history: &History) -> bool {
        let mut ended = history
            .boots
            .iter()
            .filter(|boot| boot.start == history.end());
        ended.all(|boot| self.boots.iter().any(|known| known.since == boot.since))
    }

    /// Where the last `count` boots begin that have ended; `None` where no older one is known.
    #[must_use]
    pub fn start_of_ended_boots(&self, count: u32) -> Option<StreamOffset> {
        let last = self.boots.len().checked_sub(1)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let oldest = last.checked_sub(count)?;
        self.boots.get(oldest).map(|boot| boot.start)
    }

    /// Forgets what lies before `first`, since its files are not kept, and of the file in which
    /// it lies only what follows is copied. Gives the files that begin before it, and how many
    /// bytes of each are not wanted; `None`: all of it.
    pub(crate) fn cut(&mut self, first: StreamOffset) -> Vec<(FileId, Option<u64>)> {
        let mut cuts: Vec<(FileId, u64)> = Vec::new();
        for run in self.known.iter().filter(|run| run.start < first) {
            let within = first.saturating_bytes_since(run.start).min(run.length);
            let bytes = run.skip.saturating_add(within);
            match cuts.iter_mut().find(|(id, _)| *id == run.id) {
                Some((_, most)) => *most = bytes.max(*most),
                None => cuts.push((run.id, bytes)),
            }
        }
        let cut = |run: &Known| {
            let before = cuts.iter().find(|(id, _)| *id == run.id);
            let Some((_, bytes)) = before.copied() else {
                return Some(*run);
            };
            let gone = bytes.saturating_sub(run.skip).min(run.length);
            let is_there = run.length > gone || run.start >= first;
            is_there.then(|| Known {
                print: run.print.filter(|_| gone == 0),
                ..Known::new(
                    run.id,
                    run.skip.saturating_add(gone).saturating_sub(bytes),
                    run.start.saturating_add(gone),
                    run.length.saturating_sub(gone),
                )
            })
        };
        self.known = self.known.iter().filter_map(cut).collect();
        self.keep(first);
        let is_left = |id| self.known.iter().any(|run| run.id == id);
        let cuts = cuts.into_iter();
        cuts.map(|(id, bytes)| (id, is_left(id).then_some(bytes)))
            .collect()
    }

    /// By how much history that ends at `ends` is shifted, where its end is just where the oldest
    /// of the files begins that the VM wrote since: only as far as these need it, since no offset
    /// of theirs may fall. `None`: they lie elsewhere, or nobody knows.
    pub(super) fn shift_of_newer(
        &self,
        newer: &[(FileId, u64)],
        ends: StreamOffset,
    ) -> Option<u64> {
        let (oldest, _) = newer.first()?;
        if self.start_of(*oldest) != Some(ends) {
            return None;
        }
        let (mut at, mut shift) = (ends, 0);
        for (id, length) in newer {
            if let Some(start) = self.start_of(*id) {
                shift = start.saturating_bytes_since(at).max(shift);
            }
            at = at.saturating_add(*length);
        }
        Some(shift)
    }

    /// The boots that began in this file, where it begins at `start` from now on.
    pub(super) fn boots_within(
        &self,
        id: FileId,
        start: StreamOffset,
    ) -> impl Iterator<Item = Boot> {
        let runs = self.known.iter().filter(move |run| run.id == id);
        runs.flat_map(move |run| {
            let (first, end) = (run.start, run.end());
            let within =
                move |boot: &&Boot| boot.start == first || (first..end).contains(&boot.start);
            self.boots.iter().filter(within).map(move |boot| Boot {
                start: start
                    .saturating_add(run.skip)
                    .saturating_add(boot.start.saturating_bytes_since(first)),
                ..*boot
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Arrival, Seen};
    use super::*;

    fn id(ino: u64) -> FileId {
        FileId { ino, born: None }
    }

    fn at(offset: u64) -> StreamOffset {
        StreamOffset::new(offset)
    }

    fn since(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn lengths(ledger: &Ledger) -> Vec<u64> {
        let first = ledger.known.first().map_or(ledger.end, |run| run.start);
        let boots = ledger.boots(first, ledger.end).into_iter();
        boots
            .map(|boot| boot.end.saturating_bytes_since(boot.start))
            .collect()
    }

    #[test]
    fn what_lies_between_boundaries_is_a_boot() {
        let mut ledger = Ledger::default();
        let files = [Seen::plain(id(1), 10), Seen::plain(id(2), 20)];
        let layout = ledger.lay(&files, StreamOffset::START).unwrap();
        ledger.remember(&layout);
        let one = |since, start, end| BootRun {
            since,
            start: at(start),
            end: at(end),
        };
        assert_eq!(ledger.boots(at(0), at(30)), [one(None, 0, 30)]);
        ledger.end_boot(since(7));
        let both = [one(None, 0, 30), one(Some(since(7)), 30, 30)];
        assert_eq!(ledger.boots(at(0), at(30)), both);
        assert_eq!(ledger.boots(at(30), at(40)), [one(Some(since(7)), 30, 40)]);
        assert_eq!(ledger.start_of_ended_boots(1), None);
        assert_eq!(ledger.start_of_ended_boots(0), Some(at(30)));
    }

    #[test]
    fn a_cut_within_a_file_leaves_the_rest_of_it_in_its_place() {
        let mut ledger = Ledger::default();
        let files = [10, 20, 30].map(|length| Seen::plain(id(length), length));
        let layout = ledger.lay(&files, StreamOffset::START).unwrap();
        ledger.remember(&layout);
        let cuts = ledger.cut(at(15));
        assert_eq!(cuts, [(id(10), None), (id(20), Some(5))]);
        assert_eq!(ledger.start_of(id(20)), Some(at(15)));
        assert_eq!(ledger.length_of(id(20)), Some(15));
        assert_eq!(ledger.start_of(id(30)), Some(at(30)));
    }

    #[test]
    fn the_same_bytes_before_a_later_boot_are_not_here_already() {
        let mut ledger = Ledger::default();
        let ended = |second| History {
            boots: vec![Boot {
                start: at(5),
                since: since(second),
            }],
            ..History::of(5)
        };
        assert!(ledger.has_end_of(&History::of(5)));
        assert!(!ledger.has_end_of(&ended(1)));
        let arrival = Arrival {
            parts: vec![(id(1), 5)],
            newer: vec![(id(2), 0)],
            older: Vec::new(),
            stayed: None,
        };
        ledger = ledger.arrived(&ended(1), &arrival, ("h1", since(1)));
        assert!(ledger.has_end_of(&ended(1)));
        assert!(!ledger.has_end_of(&ended(2)));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Write(u64),
        Rollover,
        /// A reader looked, and wrote down what it found.
        Look,
        /// The VM is started anew. Whether its earlier log is put behind the new one at once, or
        /// when the new one has bytes already.
        Boot {
            late: u64,
            is_seen: bool,
        },
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (1..50_u64).prop_map(Act::Write),
            2 => Just(Act::Rollover),
            1 => Just(Act::Look),
            3 => (0..40_u64, any::<bool>()).prop_map(|(late, is_seen)| Act::Boot { late, is_seen }),
        ];
        proptest::collection::vec(act, 0..40)
    }

    proptest! {
        /// The boots that are kept are the model's last ones, each with all of its bytes, and no
        /// offset of a byte falls.
        #[test]
        fn boots_are_the_models(acts in acts(), keep in 1..4_u32, rolled in 1..60_u64) {
            let mut ledger = Ledger::default();
            let mut next = 1;
            let mut new_file = |length: u64| {
                next += 1;
                (id(next), length)
            };
            let mut files = vec![new_file(0)];
            let mut model = vec![0_u64];
            let look = |ledger: &mut Ledger, files: &[(FileId, u64)]| {
                let seen: Vec<_> = files.iter().map(|(id, length)| Seen::plain(*id, *length)).collect();
                let layout = ledger.lay(&seen, StreamOffset::START).unwrap();
                ledger.remember(&layout);
                layout
            };
            for (second, act) in (1_i64..).zip(acts) {
                match act {
                    Act::Write(bytes) => {
                        files.last_mut().unwrap().1 += bytes;
                        *model.last_mut().unwrap() += bytes;
                    }
                    Act::Rollover => files.push(new_file(0)),
                    Act::Look => drop(look(&mut ledger, &files)),
                    Act::Boot { late, is_seen } => {
                        if *model.last().unwrap() == 0 {
                            continue;
                        }
                        let mut ended = ledger.clone();
                        look(&mut ended, &files);
                        ended.end_boot(since(second));
                        let mut parts = files.clone();
                        if let Some(first) = ended.start_of_ended_boots(keep) {
                            for (file, before) in ended.cut(first) {
                                match before {
                                    None => parts.retain(|(id, _)| *id != file),
                                    Some(bytes) => {
                                        let part = parts.iter_mut().find(|(id, _)| *id == file);
                                        part.unwrap().1 -= bytes;
                                    }
                                }
                            }
                        }
                        let layout = look(&mut ended, &parts);
                        let history = ended.history(&layout, "h1", &[]);
                        let bytes: u64 = parts.iter().map(|(_, length)| *length).sum();
                        prop_assert_eq!(history.bytes(), Some(bytes));
                        // The new log, and what a reader found of it before the earlier one lay
                        // behind it.
                        files = vec![new_file(late)];
                        model.push(late);
                        let mut here = ledger.clone();
                        if is_seen {
                            look(&mut here, &files);
                        }
                        let before = here.start_of(files[0].0);
                        // The rotation cuts history as it likes.
                        let mut placed = Vec::new();
                        let mut left = bytes;
                        while left > 0 {
                            let length = left.min(rolled);
                            placed.push(new_file(length));
                            left -= length;
                        }
                        let arrival = Arrival { parts: placed.clone(), newer: files.clone(), older: Vec::new(), stayed: None, };
                        ledger = here.arrived(&history, &arrival, ("h1", since(second)));
                        prop_assert!(ledger.start_of(files[0].0) >= before);
                        prop_assert!(ledger.hops.len() <= 1, "{:?}", ledger.hops);
                        files.splice(0..0, placed);
                    }
                }
                let mut seen = ledger.clone();
                look(&mut seen, &files);
                let kept = model.len().saturating_sub(1).min(keep as usize) + 1;
                prop_assert_eq!(lengths(&seen), &model[model.len() - kept..]);
            }
        }
    }
}
