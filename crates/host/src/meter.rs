//! Tells how far a job is while it is waited for.
//!
//! Must not know: what the job does, who listens.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::event::{Event, Events};
use crate::progress::{Amount, Phase, Progress, Rate};

/// Between two looks; a listener may want to hear of fewer.
const LOOK: Duration = Duration::from_millis(250);

/// What is known of a job so far.
#[derive(Debug, Default)]
struct Known {
    phase: Option<(Phase, Instant)>,
    memory: Option<Amount>,
    disks: Option<Amount>,
    logs: Vec<(watch::Receiver<u64>, u64)>,
    rate: Rate,
    /// What was told last, and when.
    told: Option<(Phase, Instant)>,
}

/// How far one job is.
#[derive(Debug)]
pub(crate) struct Meter {
    events: Events,
    known: Mutex<Known>,
    /// A phase began: it is told at once.
    news: Notify,
}

impl Meter {
    /// Of a job that tells its events there.
    #[must_use]
    pub(crate) fn new(events: Events) -> Self {
        Self {
            events,
            known: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Whether anybody wants to know.
    #[must_use]
    pub(crate) fn is_wanted(&self) -> bool {
        self.events.progress_every().is_some()
    }

    fn know<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        // A change is one step.
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

    /// A log that is sent: how many bytes so far, and of how many at least.
    pub(crate) fn log(&self, sent: watch::Receiver<u64>, bytes: u64) {
        self.know(|known| known.logs.push((sent, bytes)));
    }

    /// What libvirt has copied of the guest.
    pub(crate) fn copied(&self, memory: Amount, disks: Option<Amount>) {
        self.know(|known| (known.memory, known.disks) = (Some(memory), disks));
    }

    fn progress(&self, now: Instant) -> Option<Progress> {
        self.know(|known| {
            let (phase, since) = known.phase?;
            let mut log = (!known.logs.is_empty()).then(Amount::default);
            for (sent, bytes) in &known.logs {
                let done = *sent.borrow();
                if let Some(log) = &mut log {
                    log.done = log.done.saturating_add(done);
                    // It grows while it is sent.
                    let total = if *bytes == 0 { 0 } else { done.max(*bytes) };
                    log.total = log.total.saturating_add(total);
                }
            }
            let elapsed = now.saturating_duration_since(since).as_millis();
            let progress = Progress {
                elapsed_ms: u64::try_from(elapsed).unwrap_or(u64::MAX),
                memory: known.memory,
                disks: known.disks,
                log,
                ..Progress::of(phase)
            };
            let goal = progress.goal();
            let rate = goal.and_then(|goal| known.rate.next(now, goal.done));
            Some(progress.at_rate(rate))
        })
    }

    /// Waits for `work`, and tells how far it is meanwhile.
    pub(crate) async fn during<T>(&self, phase: Phase, work: impl Future<Output = T>) -> T {
        self.enter(phase);
        let Some(pause) = self.events.progress_every() else {
            return work.await;
        };
        let _over = Over(&self.events);
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
            let Some(progress) = self.progress(now) else {
                continue;
            };
            let told = self.know(|known| known.told);
            let is_new = told.is_none_or(|(phase, _)| phase != progress.phase);
            let is_due = told.is_none_or(|(_, at)| now.saturating_duration_since(at) >= pause);
            if is_new || is_due {
                self.know(|known| known.told = Some((progress.phase, now)));
                if is_new {
                    let phase = progress.phase;
                    self.events.tell(Event::Phase { phase });
                }
                self.events.tell(Event::Progress(progress));
            }
        }
    }
}

/// Says so when the work ends, also where it is dropped.
struct Over<'a>(&'a Events);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.progress_is_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Listener;

    struct Every {
        every: Option<Duration>,
        heard: watch::Sender<Vec<Event>>,
        over: watch::Sender<u32>,
    }

    impl Listener for Every {
        fn hear(&self, event: &Event) {
            self.heard.send_modify(|heard| heard.push(event.clone()));
        }

        fn progress_every(&self) -> Option<Duration> {
            self.every
        }

        fn progress_is_over(&self) {
            self.over.send_modify(|over| *over += 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_done_whoever_listens() {
        for every in [None, Some(LOOK * 4)] {
            let heard = watch::Sender::new(Vec::new());
            let over = watch::Sender::new(0);
            let listener = Every {
                every,
                heard: heard.clone(),
                over: over.clone(),
            };
            let meter = Meter::new(Events::to(listener));
            let work = async {
                tokio::time::sleep(LOOK * 10).await;
                meter.enter(Phase::Arrival);
                tokio::time::sleep(LOOK).await;
                7
            };
            assert_eq!(meter.during(Phase::Prepare, work).await, 7);
            assert_eq!(*over.borrow(), u32::from(every.is_some()));
            let dropped = meter.during(Phase::Prepare, std::future::pending::<()>());
            let waited = tokio::time::timeout(LOOK, dropped).await;
            assert!(waited.is_err());
            assert_eq!(*over.borrow(), 2 * u32::from(every.is_some()));
            let phases = |event: &Event| match event {
                Event::Phase { phase } => Some(*phase),
                _ => None,
            };
            let phases: Vec<_> = heard.borrow().iter().filter_map(phases).collect();
            match every {
                None => assert!(heard.borrow().is_empty()),
                Some(_) => assert_eq!(phases, [Phase::Prepare, Phase::Arrival, Phase::Prepare]),
            }
        }
    }

    #[test]
    fn logs_are_told_together_and_grow() {
        let meter = Meter::new(Events::ignored());
        assert_eq!(meter.progress(Instant::now()), None);
        meter.enter(Phase::Arrival);
        let (one, two) = (watch::Sender::new(5), watch::Sender::new(30));
        meter.log(one.subscribe(), 10);
        meter.log(two.subscribe(), 20);
        let log = meter.progress(Instant::now()).unwrap().log;
        let (done, total) = (35, 40);
        assert_eq!(log, Some(Amount { done, total }));
    }
}
