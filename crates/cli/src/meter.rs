//! Shows where a job stands while it is waited for: on a terminal one line that is
//! written over, in a pipe a plain line now and then, for programs events.
//!
//! Must not know: what the job does.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::progress::{Part, Phase, Rate, Standing};
use crate::report::Report;

/// Between two looks: a terminal's line moves, the others tell of fewer.
const LOOK: Duration = Duration::from_millis(250);

/// Between two events of one phase.
const EVENTS: Duration = Duration::from_secs(1);

/// Between two plain lines of one phase.
const LINES: Duration = Duration::from_secs(5);

/// A terminal that does not say how wide it is.
const WIDTH: usize = 80;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Terminal,
    Pipe,
    Programs,
}

/// What is known of a job so far.
#[derive(Debug, Default)]
struct Known {
    phase: Option<(Phase, Instant)>,
    memory: Option<Part>,
    disks: Option<Part>,
    logs: Vec<(watch::Receiver<u64>, u64)>,
    rate: Rate,
    /// What was told last, and when.
    told: Option<(Phase, Instant)>,
}

#[derive(Debug)]
pub(crate) struct Meter {
    report: Report,
    audience: Option<Audience>,
    known: Mutex<Known>,
    /// A phase began: it is told at once.
    news: Notify,
}

impl Meter {
    /// `verbose`: in a pipe too. A terminal is shown where a job stands in any case.
    pub(crate) fn new(report: Report, verbose: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let audience = if report.is_for_programs() {
            Some(Audience::Programs)
        } else if std::io::stderr().is_terminal() && !dumb {
            Some(Audience::Terminal)
        } else {
            verbose.then_some(Audience::Pipe)
        };
        Self::of(report, audience)
    }

    /// For people at a terminal only.
    pub(crate) fn for_people(report: Report) -> Self {
        let mut meter = Self::new(report, false);
        meter.audience = meter.audience.filter(|a| *a == Audience::Terminal);
        meter
    }

    fn of(report: Report, audience: Option<Audience>) -> Self {
        Self {
            report,
            audience,
            known: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_wanted(&self) -> bool {
        self.audience.is_some()
    }

    fn know<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is waited for from now on.
    pub(crate) fn enter(&self, phase: Phase) {
        let is_new = self.know(|known| {
            let is_new = known.phase.is_none_or(|(now, _)| now != phase);
            if is_new {
                known.phase = Some((phase, Instant::now()));
                known.rate = Rate::default();
            }
            is_new
        });
        if is_new {
            self.news.notify_one();
        }
    }

    /// A log that is sent: how much so far, of how much at least.
    pub(crate) fn log(&self, sent: watch::Receiver<u64>, bytes: u64) {
        self.know(|known| known.logs.push((sent, bytes)));
    }

    pub(crate) fn copied(&self, memory: Part, disks: Option<Part>) {
        self.know(|known| (known.memory, known.disks) = (Some(memory), disks));
    }

    fn standing(&self, now: Instant) -> Option<Standing> {
        self.know(|known| {
            let (phase, since) = known.phase?;
            let mut log = (!known.logs.is_empty()).then(Part::default);
            for (sent, bytes) in &known.logs {
                let done = *sent.borrow();
                if let Some(log) = &mut log {
                    log.done = log.done.saturating_add(done);
                    // It grows while it is sent.
                    let total = if *bytes == 0 { 0 } else { done.max(*bytes) };
                    log.total = log.total.saturating_add(total);
                }
            }
            let mut standing = Standing {
                phase,
                since: now.saturating_duration_since(since),
                memory: known.memory,
                disks: known.disks,
                log,
                rate: None,
            };
            if let Some(goal) = standing.goal() {
                standing.rate = known.rate.next(now, goal.done);
            }
            Some(standing)
        })
    }

    /// Waits for `work`, and shows where it stands meanwhile.
    pub(crate) async fn during<T>(&self, phase: Phase, work: impl Future<Output = T>) -> T {
        self.enter(phase);
        let Some(audience) = self.audience else {
            return work.await;
        };
        let _line = Line;
        let mut work = std::pin::pin!(work);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.news.notified() => {}
                _ = look.tick() => {}
            }
            let now = Instant::now();
            let Some(standing) = self.standing(now) else {
                continue;
            };
            let pause = match audience {
                Audience::Terminal => Duration::ZERO,
                Audience::Pipe => LINES,
                Audience::Programs => EVENTS,
            };
            let told = self.know(|known| known.told);
            let is_new = told.is_none_or(|(phase, _)| phase != standing.phase);
            let is_due = told.is_none_or(|(_, at)| now.saturating_duration_since(at) >= pause);
            if is_new || is_due {
                self.know(|known| known.told = Some((standing.phase, now)));
                self.tell(audience, &standing, is_new);
            }
        }
    }

    fn tell(&self, audience: Audience, standing: &Standing, is_new: bool) {
        match audience {
            Audience::Terminal => show(&standing.line(true, width())),
            Audience::Pipe => {
                // Whoever closed our output does not want to hear of it.
                let line = standing.line(false, usize::MAX);
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            Audience::Programs => {
                if is_new {
                    self.report.event("", &standing.phase.event());
                }
                self.report.event("", &standing.event());
            }
        }
    }
}

/// Whether the terminal's last line is one of these: a process has one terminal.
static SHOWN: Mutex<bool> = Mutex::new(false);

fn show(line: &str) {
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "\r{line}\x1b[K").and_then(|()| out.flush());
    *shown = true;
}

/// Makes room for what is said for good.
pub(crate) fn clear() {
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::take(&mut *shown) {
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
    }
}

/// Clears the line when it is over, also where the work is dropped.
struct Line;

impl Drop for Line {
    fn drop(&mut self) {
        clear();
    }
}

/// One column less: where the last one is written some terminals go on below.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    match columns {
        0 => WIDTH,
        columns => columns,
    }
    .saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    #[tokio::test(start_paused = true)]
    async fn work_is_done_whoever_looks_on() {
        for audience in [None, Some(Audience::Pipe)] {
            let meter = Meter::of(Report::new(Format::Text), audience);
            let work = async {
                tokio::time::sleep(LOOK * 10).await;
                meter.enter(Phase::Arrival);
                tokio::time::sleep(LOOK).await;
                7
            };
            assert_eq!(meter.during(Phase::Prepare, work).await, 7);
        }
    }

    #[test]
    fn logs_are_told_together_and_grow() {
        let meter = Meter::of(Report::new(Format::Text), None);
        assert_eq!(meter.standing(Instant::now()), None);
        meter.enter(Phase::Arrival);
        let (one, two) = (watch::Sender::new(5), watch::Sender::new(30));
        meter.log(one.subscribe(), 10);
        meter.log(two.subscribe(), 20);
        let log = meter.standing(Instant::now()).unwrap().log;
        let (done, total) = (35, 40);
        assert_eq!(log, Some(Part { done, total }));
    }
}
