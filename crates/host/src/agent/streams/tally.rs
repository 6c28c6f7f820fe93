//! What the streams do, counted: for the metrics, for the status, and for the one sentence about
//! a store that does not answer, however many logs wait for it.
//!
//! Must not know: what a stream is made of.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::Events;
use crate::agent::metrics::Metrics;

/// Between two sentences about the same store.
const REMIND: Duration = Duration::from_secs(300);

/// Clones are the same.
#[derive(Clone)]
pub(super) struct Tally(Arc<Inner>);

struct Inner {
    metrics: Arc<Metrics>,
    events: Events,
    now: Mutex<Now>,
    /// How many streams run.
    running: watch::Sender<u64>,
}

#[derive(Default)]
struct Now {
    /// Streams that wait: for the store, or for a history.
    waiting: u64,
    /// What waits for the store: streams, and whoever opens it.
    away: u64,
    /// Why the store could not be used the last time, while it cannot.
    reason: Option<String>,
    told: Option<Instant>,
    bytes: u64,
}

/// What the streams do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) running: u64,
    pub(super) waiting: u64,
    pub(super) bytes: u64,
    /// Why the store cannot be used.
    pub(super) reason: Option<String>,
}

impl Tally {
    pub(super) fn new(metrics: Arc<Metrics>, events: Events) -> Self {
        Self(Arc::new(Inner {
            metrics,
            events,
            now: Mutex::default(),
            running: watch::Sender::new(0),
        }))
    }

    pub(super) fn counts(&self) -> Counts {
        let now = self.now();
        Counts {
            running: *self.0.running.borrow(),
            waiting: now.waiting,
            bytes: now.bytes,
            reason: now.reason.clone(),
        }
    }

    /// A stream runs, for as long as what this gives lives.
    pub(super) fn begin(&self) -> Running {
        self.0.running.send_modify(|n| *n = n.saturating_add(1));
        self.show();
        Running(self.clone())
    }

    /// So many bytes more lie in the store.
    pub(super) fn put(&self, bytes: u64) {
        let mut now = self.now();
        now.bytes = now.bytes.saturating_add(bytes);
        drop(now);
        self.0.metrics.streamed(bytes);
    }

    /// A stream waits, for as long as what this gives lives. `store`: why the store cannot be
    /// used, where it is the store that is waited for.
    pub(super) fn wait(&self, store: Option<String>) -> Waiting {
        self.count(1, store)
    }

    /// The store cannot be opened, for as long as what this gives lives.
    pub(super) fn away(&self, reason: String) -> Waiting {
        self.count(0, Some(reason))
    }

    fn count(&self, streams: u64, store: Option<String>) -> Waiting {
        let mut now = self.now();
        now.waiting = now.waiting.saturating_add(streams);
        let is_store = store.is_some();
        if let Some(reason) = store {
            now.away = now.away.saturating_add(1);
            if now.away == 1 && now.told.is_none_or(|at| at.elapsed() > REMIND) {
                now.told = Some(Instant::now());
                self.0.events.warn(format!(
                    "the store of the streams cannot be used: {reason}; it is tried again, and \
                     the logs are held"
                ));
            }
            now.reason = Some(reason);
        }
        drop(now);
        self.show();
        Waiting {
            tally: self.clone(),
            streams,
            is_store,
        }
    }

    /// Waits until no stream runs any more.
    pub(super) async fn all_ended(&self) {
        let mut running = self.0.running.subscribe();
        // The sender is here.
        let _ = running.wait_for(|n| *n == 0).await;
    }

    fn show(&self) {
        let counts = self.counts();
        self.0.metrics.streams(counts.running, counts.waiting);
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Each change is one step, so a panic leaves no half of one.
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that runs.
#[must_use]
pub(super) struct Running(Tally);

impl Drop for Running {
    fn drop(&mut self) {
        let running = &self.0.0.running;
        running.send_modify(|n| *n = n.saturating_sub(1));
        self.0.show();
    }
}

/// What waits.
#[must_use]
pub(super) struct Waiting {
    tally: Tally,
    streams: u64,
    is_store: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut now = self.tally.now();
        now.waiting = now.waiting.saturating_sub(self.streams);
        if self.is_store {
            now.away = now.away.saturating_sub(1);
            if now.away == 0 && now.reason.take().is_some() {
                tracing::info!("no stream waits for the store any more");
            }
        }
        drop(now);
        self.tally.show();
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::Event;

    #[test]
    fn a_store_that_is_away_is_told_once_however_many_wait() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let events = Events::to(move |event: &Event| heard.lock().unwrap().push(event.to_json()));
        let metrics = Arc::new(Metrics::new(UNIX_EPOCH, false).unwrap());
        let tally = Tally::new(Arc::clone(&metrics), events);
        let running: Vec<_> = (0..3).map(|_| tally.begin()).collect();
        let away: Vec<_> = (0..2).map(|_| tally.wait(Some("full".into()))).collect();
        let history = tally.wait(None);
        tally.put(7);
        let counts = Counts {
            running: 3,
            waiting: 3,
            bytes: 7,
            reason: Some("full".to_owned()),
        };
        assert_eq!(tally.counts(), counts);
        let page = metrics.page();
        for line in ["streams 3", "streams_waiting 3", "streamed_bytes_total 7"] {
            assert!(page.contains(&format!("logchain_agent_{line}\n")), "{page}");
        }
        drop(away);
        assert_eq!(tally.counts().reason, None);
        // It comes and goes: that is one sentence.
        drop(tally.wait(Some("full".into())));
        drop((history, running));
        assert_eq!(told.lock().unwrap().len(), 1);
        let counts = tally.counts();
        assert_eq!((counts.running, counts.waiting), (0, 0));
    }
}
