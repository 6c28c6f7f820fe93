//! How far a job is: pure.
//!
//! Must not know: where it is shown, and how the figures come about.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Phase {
    /// The destination is not ready yet.
    Prepare,
    /// The log is sent ahead of the migration.
    HeadStart,
    /// libvirt copies the guest's memory.
    Memory,
    /// The guest is stopped; its last bytes are sent before it runs there.
    Switchover,
    /// The source's process ends.
    SourceEnd,
    /// The rest of the log is sent, and the destination confirms it.
    Arrival,
    /// The migration failed or was interrupted, and everything is put back.
    Undo,
}

/// How much of something is done, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Amount {
    /// How much is done.
    pub done: u64,
    /// How much there is in all; 0 if that is not known.
    pub total: u64,
}

impl Amount {
    /// What is left to do.
    #[must_use]
    pub fn left(self) -> u64 {
        self.total.saturating_sub(self.done)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            done: self.done.saturating_add(other.done),
            total: self.total.saturating_add(other.total),
        }
    }
}

/// All that is known at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Progress {
    /// What the job waits for.
    pub phase: Phase,
    /// How many milliseconds this phase has lasted.
    pub elapsed_ms: u64,
    /// Memory of the guest that libvirt has copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Amount>,
    /// Disks of the guest that libvirt has copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Amount>,
    /// History that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Amount>,
    /// Speed of what the job waits for, in bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Seconds until what the job waits for is done at this speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

impl Progress {
    /// At the beginning of a phase.
    #[must_use]
    pub fn of(phase: Phase) -> Self {
        Self {
            phase,
            elapsed_ms: 0,
            memory: None,
            disks: None,
            log: None,
            rate: None,
            seconds_left: None,
        }
    }

    /// What is waited for, as far as it can be counted.
    #[must_use]
    pub fn goal(&self) -> Option<Amount> {
        let goal = match self.phase {
            Phase::Memory => match (self.memory, self.disks) {
                (Some(memory), Some(disks)) => Some(memory.plus(disks)),
                (memory, disks) => memory.or(disks),
            },
            Phase::HeadStart => self.log,
            Phase::Arrival => self.log.filter(|log| log.left() > 0 || log.total == 0),
            Phase::Prepare | Phase::Switchover | Phase::SourceEnd | Phase::Undo => None,
        };
        goal.filter(|goal| goal.total > 0 || self.phase == Phase::Arrival)
    }

    /// The same at this rate, in bytes a second.
    #[must_use]
    pub fn at_rate(self, rate: Option<u64>) -> Self {
        let left = self.goal().filter(|goal| goal.total > 0).map(Amount::left);
        let seconds_left = left
            .zip(rate.filter(|rate| *rate > 0))
            .map(|(left, rate)| left.div_ceil(rate));
        Self {
            rate,
            seconds_left,
            ..self
        }
    }
}

/// Over which time a rate is reckoned.
const SPAN: Duration = Duration::from_secs(3);

/// How fast something grows.
#[derive(Debug, Default)]
pub(crate) struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    /// Bytes a second, once half a second is known.
    pub(crate) fn next(&mut self, now: Instant, done: u64) -> Option<u64> {
        if self.0.back().is_some_and(|(_, last)| *last > done) {
            self.0.clear();
        }
        let old = |at: &Instant| now.saturating_duration_since(*at) > SPAN;
        while self.0.front().is_some_and(|(at, _)| old(at)) {
            self.0.pop_front();
        }
        self.0.push_back((now, done));
        let (at, first) = self.0.front()?;
        let millis = u64::try_from(now.saturating_duration_since(*at).as_millis()).ok()?;
        let grown = done.saturating_sub(*first);
        (millis >= 500).then(|| grown.saturating_mul(1000) / millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let start = Instant::now();
        let mut rate = Rate::default();
        let mut at = |millis, done| rate.next(start + Duration::from_millis(millis), done);
        assert_eq!(at(0, 0), None);
        assert_eq!(at(100, 10), None);
        assert_eq!(at(1000, 2000), Some(2000));
        // The quick beginning is forgotten.
        assert_eq!(at(4000, 2000), Some(0));
        // Something else is counted now.
        assert_eq!(at(4500, 0), None);
    }

    #[test]
    fn what_is_left_is_reckoned_at_the_rate() {
        let log = Some(Amount { done: 1, total: 10 });
        let ahead = Progress {
            log,
            ..Progress::of(Phase::HeadStart)
        };
        assert_eq!(ahead.at_rate(Some(2)).seconds_left, Some(5));
        assert_eq!(ahead.at_rate(Some(0)).seconds_left, None);
        assert_eq!(ahead.at_rate(None).seconds_left, None);
        let most = Amount {
            done: u64::MAX,
            total: u64::MAX,
        };
        let copied = Progress {
            memory: Some(most),
            disks: Some(most),
            ..Progress::of(Phase::Memory)
        };
        assert_eq!(copied.at_rate(Some(u64::MAX)).seconds_left, Some(0));
    }
}
