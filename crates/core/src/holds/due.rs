//! Pure: when which log is to be looked at.
//!
//! Must not know: what a look is, what time it is.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::table::Key;

/// How long names are left alone before they are looked at: a rollover is several events.
const REST: Duration = Duration::from_millis(5);

/// The least time between two looks at one log: one that is rolled over all the time does
/// not keep the others waiting.
const SPACING: Duration = Duration::from_millis(40);

/// Logs that are to be looked at, each at its time.
#[derive(Debug, Default)]
pub(super) struct Due {
    queue: BTreeSet<(Instant, Key)>,
    times: HashMap<Key, Times>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Due {
    /// Something happened to this log.
    pub(super) fn event(&mut self, key: Key, now: Instant) {
        let last = self.times.get(&key).and_then(|times| times.last);
        let rested = now.checked_add(REST);
        let spaced = last.and_then(|last| last.checked_add(SPACING));
        self.at(key, rested.max(spaced).unwrap_or(now));
    }

    /// This log is looked at then, or earlier where that is due.
    pub(super) fn at(&mut self, key: Key, time: Instant) {
        let times = self.times.entry(key).or_default();
        if times.due.is_some_and(|due| due <= time) {
            return;
        }
        if let Some(due) = times.due.replace(time) {
            self.queue.remove(&(due, key));
        }
        self.queue.insert((time, key));
    }

    /// This log is looked at now, whatever is due.
    pub(super) fn looked(&mut self, key: Key, now: Instant) {
        let times = self.times.entry(key).or_default();
        times.last = Some(now);
        if let Some(due) = times.due.take() {
            self.queue.remove(&(due, key));
        }
    }

    /// The next log whose time has come.
    pub(super) fn next(&mut self, now: Instant) -> Option<Key> {
        let (due, key) = *self.queue.first()?;
        if due > now {
            return None;
        }
        self.looked(key, now);
        Some(key)
    }

    /// How long nothing is due; `None`: until something happens.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let (due, _) = self.queue.first()?;
        Some(due.saturating_duration_since(now))
    }

    /// This log is not held any more.
    pub(super) fn forget(&mut self, key: Key) {
        if let Some(due) = self.times.remove(&key).and_then(|times| times.due) {
            self.queue.remove(&(due, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_events_are_one_look_and_looks_keep_their_distance() {
        let (mut due, start) = (Due::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(due.rest(start), None);
        for ms in 0..5 {
            due.event(1, after(ms));
        }
        // From the first one: who changes names all the time is looked at as well.
        assert_eq!(due.rest(start), Some(REST));
        assert_eq!(due.next(after(4)), None);
        assert_eq!(due.next(after(5)), Some(1));
        assert_eq!(due.next(after(5)), None);
        due.event(1, after(6));
        due.event(2, after(6));
        assert_eq!(due.next(after(11)), Some(2));
        assert_eq!(due.next(after(44)), None);
        assert_eq!(due.next(after(45)), Some(1));
    }

    #[test]
    fn the_earlier_time_counts_and_a_look_in_between_settles_it() {
        let (mut due, start) = (Due::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        due.at(1, after(5000));
        due.event(1, start);
        due.at(1, after(5000));
        assert_eq!(due.rest(start), Some(REST));
        due.looked(1, after(1));
        assert_eq!(due.rest(start), None);
        due.at(1, after(9));
        due.forget(1);
        assert_eq!((due.rest(start), due.next(after(9))), (None, None));
    }
}
