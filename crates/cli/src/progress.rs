//! Pure: where a job stands, as a line for people or an event for programs.
//!
//! Must not know: where it is shown, and how the figures come about.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The destination is not ready yet.
    Prepare,
    /// The log goes ahead of the migration.
    HeadStart,
    /// libvirt copies the guest's memory.
    Memory,
    /// The guest stands still; its last bytes go before it runs there.
    Switchover,
    /// The source's process ends.
    SourceEnd,
    /// What is left of the log goes over, and is confirmed.
    Arrival,
    /// It failed, or was interrupted: all is put back.
    Undo,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::HeadStart => "head-start",
            Self::Memory => "memory",
            Self::Switchover => "switchover",
            Self::SourceEnd => "source-end",
            Self::Arrival => "arrival",
            Self::Undo => "undo",
        }
    }

    pub(crate) fn event(self) -> Value {
        json!({ "event": "phase", "phase": self.name() })
    }
}

/// Bytes, of so many; a total of 0 is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) done: u64,
    pub(crate) total: u64,
}

impl Part {
    fn left(self) -> u64 {
        self.total.saturating_sub(self.done)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            done: self.done.saturating_add(other.done),
            total: self.total.saturating_add(other.total),
        }
    }

    fn event(self) -> Value {
        json!({ "done": self.done, "total": self.total })
    }

    /// `1.5 of 4.0 MiB`; the total only while it is not reached.
    fn text(self) -> String {
        let all = self.total.max(self.done);
        let (unit, name, decimals) = match all {
            0..0x400 => (1.0, "bytes", 0),
            0x400..0x10_0000 => (1024.0, "KiB", 1),
            0x10_0000..0x4000_0000 => (1024.0 * 1024.0, "MiB", 1),
            _ => (1024.0 * 1024.0 * 1024.0, "GiB", 2),
        };
        #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
        let shown = |n: u64| format!("{:.decimals$}", n as f64 / unit);
        if self.left() == 0 {
            return format!("{} {name}", shown(self.done));
        }
        format!("{} of {} {name}", shown(self.done), shown(self.total))
    }
}

/// All that is known at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) phase: Phase,
    /// How long it has been in this phase.
    pub(crate) since: Duration,
    pub(crate) memory: Option<Part>,
    pub(crate) disks: Option<Part>,
    pub(crate) log: Option<Part>,
    /// Bytes a second, of what is waited for.
    pub(crate) rate: Option<u64>,
}

impl Standing {
    /// What the bar is of: what is waited for.
    pub(crate) fn goal(&self) -> Option<Part> {
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

    /// Seconds until the goal, at this rate.
    fn seconds_left(&self) -> Option<u64> {
        let left = self.goal().filter(|goal| goal.total > 0)?.left();
        Some(left.div_ceil(self.rate.filter(|rate| *rate > 0)?))
    }

    pub(crate) fn event(&self) -> Value {
        let mut event = json!({
            "event": "progress",
            "phase": self.phase.name(),
            "elapsed_ms": u64::try_from(self.since.as_millis()).ok(),
        });
        let figures = [
            ("memory", self.memory.map(Part::event)),
            ("disks", self.disks.map(Part::event)),
            ("log", self.log.map(Part::event)),
            ("rate", self.rate.map(Value::from)),
            ("seconds_left", self.seconds_left().map(Value::from)),
        ];
        if let Some(event) = event.as_object_mut() {
            for (name, figure) in figures {
                event.extend(figure.map(|figure| (name.to_owned(), figure)));
            }
        }
        event
    }

    /// One line, of at most `width` columns: what would not fit is left out, the
    /// least important first. `bar`: with one.
    pub(crate) fn line(&self, bar: bool, width: usize) -> String {
        let mut line = self.words().to_owned();
        let mut add = |more: String| {
            let fits = line.chars().count() + more.chars().count() <= width;
            if fits {
                line.push_str(&more);
            }
        };
        let goal = self.goal().filter(|goal| goal.total > 0);
        if let Some(goal) = goal {
            let (done, total) = (goal.done.min(goal.total), goal.total);
            let share = |of: u64| u128::from(done) * u128::from(of) / u128::from(total.max(1));
            if bar {
                let full = usize::try_from(share(20)).unwrap_or(20);
                add(format!(" [{}{}]", "#".repeat(full), "-".repeat(20 - full)));
            }
            add(format!(" {} %", share(100)));
        }
        for (name, part) in [("memory", self.memory), ("disks", self.disks)] {
            if let (Phase::Memory, Some(part)) = (self.phase, part) {
                add(format!(", {name} {}", part.text()));
            }
        }
        if let Some(log) = self.log {
            add(format!(", log {}", log.text()));
        }
        if let (Some(_), Some(rate)) = (goal, self.rate) {
            let rate = Part {
                done: rate,
                total: rate,
            };
            add(format!(", {}/s", rate.text()));
        }
        match self.seconds_left() {
            Some(seconds) => add(format!(", {seconds} s left")),
            None if self.since >= Duration::from_secs(2) => {
                add(format!(", for {} s", self.since.as_secs()));
            }
            None => {}
        }
        line.chars().take(width).collect()
    }

    fn words(&self) -> &'static str {
        match self.phase {
            Phase::Prepare => "waiting for the destination to be ready",
            Phase::HeadStart => "sending the log ahead",
            Phase::Memory => "migrating",
            Phase::Switchover => "the guest moves over",
            Phase::SourceEnd => "waiting for the source to end",
            Phase::Arrival if self.goal().is_some() => "bringing the log over",
            Phase::Arrival => "waiting for the log to be confirmed",
            Phase::Undo => "putting all back as it was",
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

    const MIB: u64 = 1 << 20;

    fn part(done: u64, total: u64) -> Option<Part> {
        let (done, total) = (done * MIB, total * MIB);
        Some(Part { done, total })
    }

    fn standing(phase: Phase) -> Standing {
        Standing {
            phase,
            since: Duration::from_secs(1),
            memory: None,
            disks: None,
            log: None,
            rate: None,
        }
    }

    #[test]
    fn each_phase_says_what_is_waited_for() {
        let copying = Standing {
            memory: part(40, 96),
            log: part(64, 64),
            rate: Some(28 * MIB),
            ..standing(Phase::Memory)
        };
        assert_eq!(
            copying.line(true, 200),
            "migrating [########------------] 41 %, memory 40.0 of 96.0 MiB, log 64.0 MiB, \
             28.0 MiB/s, 2 s left"
        );
        let ahead = Standing {
            log: part(512, 1024),
            rate: Some(0),
            ..standing(Phase::HeadStart)
        };
        assert_eq!(
            ahead.line(false, 200),
            "sending the log ahead 50 %, log 0.50 of 1.00 GiB, 0 bytes/s"
        );
        let waits = Standing {
            since: Duration::from_secs(7),
            log: Some(Part {
                done: 700,
                total: 0,
            }),
            ..standing(Phase::SourceEnd)
        };
        assert_eq!(
            waits.line(true, 200),
            "waiting for the source to end, log 700 bytes, for 7 s"
        );
        let rest = Standing {
            log: part(1, 4),
            ..standing(Phase::Arrival)
        };
        assert_eq!(
            rest.line(false, 200),
            "bringing the log over 25 %, log 1.0 of 4.0 MiB"
        );
        let there = Standing {
            log: part(4, 4),
            ..standing(Phase::Arrival)
        };
        assert_eq!(
            there.line(true, 200),
            "waiting for the log to be confirmed, log 4.0 MiB"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_no_second_line() {
        let copying = Standing {
            memory: part(40, 96),
            disks: part(1, 1000),
            log: part(64, 64),
            rate: Some(28 * MIB),
            ..standing(Phase::Memory)
        };
        for width in 0..140 {
            let line = copying.line(true, width);
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert_eq!(copying.line(true, 12), "migrating");
        // What is left out leaves room for what is shorter.
        assert_eq!(copying.line(true, 20), "migrating 3 %");
    }

    #[test]
    fn an_event_has_the_figures_that_are_known() {
        let ahead = Standing {
            log: part(1, 4),
            rate: Some(MIB),
            ..standing(Phase::HeadStart)
        };
        assert_eq!(
            ahead.event(),
            json!({
                "event": "progress", "phase": "head-start", "elapsed_ms": 1000,
                "log": { "done": MIB, "total": 4 * MIB }, "rate": MIB, "seconds_left": 3,
            })
        );
        assert_eq!(
            standing(Phase::Prepare).event(),
            json!({ "event": "progress", "phase": "prepare", "elapsed_ms": 1000 })
        );
    }

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
    fn no_figure_overflows() {
        let most = Some(Part {
            done: u64::MAX,
            total: u64::MAX,
        });
        let most = Standing {
            memory: most,
            disks: most,
            log: most,
            rate: Some(u64::MAX),
            ..standing(Phase::Memory)
        };
        assert!(most.line(true, 300).contains("100 %"));
        assert_eq!(most.event()["seconds_left"], 0);
    }
}
