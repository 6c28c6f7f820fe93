//! One log on its way into the store, for as long as its domain is here: whatever fails is tried
//! again, but for a log that the store has otherwise.
//!
//! Must not know: which logs are wanted, and why one ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::archive::{self, Archive, Ask, StreamStatus};
use logchain_core::backoff::Backoff;
use logchain_core::chain::NumberingChoice;
use logchain_core::transport::LogTransport;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::tally::{Tally, Waiting};
use super::target::Target;
use crate::agent::Vm;
use crate::blocking::blocking;
use crate::log::ConsoleLog;
use crate::stream::log::{Log, is_early};
use crate::{Error, Events, Result, neighbours};

/// Between two tries to begin. A thousand logs that wait ask the store some seventy times a
/// second.
const RETRY: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(15)).spread();

/// How long a history may take to come until its absence is told.
const LATE: Duration = Duration::from_secs(300);

/// One log, and where it goes.
pub(super) struct LogStream {
    pub(super) vm: Vm,
    pub(super) log: ConsoleLog,
    pub(super) numbering: NumberingChoice,
    pub(super) target: Arc<Target>,
    pub(super) tally: Tally,
    pub(super) events: Events,
    pub(super) ask: watch::Receiver<Ask>,
}

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The log, or its history, is not here yet.
    AwaitLog,
    /// The store cannot be used.
    AwaitStore(String),
    /// Tell it, and try again.
    Again(String),
    /// Tell it, and end.
    End(String),
}

impl Next {
    fn after(error: &Error) -> Self {
        let Error::Archive(error) = error else {
            return match error {
                Error::Chain(e) if e.is_not_found() => Self::AwaitLog,
                e => Self::Again(e.sentence()),
            };
        };
        match error {
            archive::Error::Transport(e) => Self::AwaitStore(e.to_string()),
            e if is_early(e) => Self::AwaitLog,
            archive::Error::Diverged { .. }
            | archive::Error::Damaged { .. }
            | archive::Error::NotPut { .. } => Self::End(error.to_string()),
            e => Self::Again(e.to_string()),
        }
    }
}

impl LogStream {
    /// Until it is asked to end and all that is here lies in the store, or cannot be put.
    pub(super) async fn run(mut self) {
        let _running = self.tally.begin();
        let mut waits = RETRY.start();
        let mut waiting = Some(self.tally.wait(None));
        // Since when its domain is gone.
        let mut left: Option<Instant> = None;
        let mut told = None;
        let store = tokio::select! {
            store = self.target.store() => store,
            () = self.is_over() => return,
        };
        waiting.take();
        // Since when its history is waited for.
        let mut late = None;
        loop {
            let gap = self.target.config.leave_gap_after;
            let leave_gap =
                late.is_some_and(|since: Instant| gap.is_some_and(|gap| since.elapsed() >= gap));
            let done = self.put(&store, leave_gap, &mut waiting).await;
            let ask = *self.ask.borrow();
            let error = match done {
                Ok(offset) => {
                    tracing::debug!(domain = %self.vm.uuid, console = %self.log.console, offset, "streamed");
                    return;
                }
                Err(e) => e,
            };
            let next = Next::after(&error);
            let is_store = matches!(next, Next::AwaitStore(_));
            match next {
                Next::AwaitLog => {
                    let since = *late.get_or_insert_with(Instant::now);
                    let reason = error.sentence();
                    if since.elapsed() > LATE && told.is_none() {
                        self.warn(&format!(
                            "{reason}; it is waited for (leave_gap_after under [stream] goes on \
                             without it)"
                        ));
                        told = Some(reason);
                    }
                    waiting = Some(self.tally.wait(None));
                }
                Next::AwaitStore(reason) => waiting = Some(self.tally.wait(Some(reason))),
                Next::Again(reason) => {
                    if told.as_ref() != Some(&reason) {
                        self.warn(&format!("{reason}; it is tried again"));
                        told = Some(reason);
                    }
                    waiting = Some(self.tally.wait(None));
                }
                Next::End(reason) if ask == Ask::End => {
                    tracing::info!(domain = %self.vm.uuid, reason, "a stream ends");
                    return;
                }
                Next::End(reason) => {
                    self.warn(&format!("{reason}; it is streamed no further"));
                    return;
                }
            }
            if ask == Ask::Drain {
                left.get_or_insert_with(Instant::now);
            }
            let linger = self.target.limits.linger;
            let lasts = is_store && left.is_none_or(|left| left.elapsed() < linger);
            if ask == Ask::End || (ask == Ask::Drain && !lasts) {
                tracing::debug!(
                    domain = %self.vm.uuid,
                    error = %error.sentence(),
                    "a stream ends that did not begin"
                );
                return;
            }
            // It has no end of its own.
            let wait = waits.next(Duration::ZERO).unwrap_or(LATE);
            tokio::select! {
                () = sleep(wait) => {}
                changed = self.ask.changed() => if changed.is_err() {
                    return;
                }
            }
        }
    }

    /// Puts it until it is asked to end, or fails.
    async fn put(
        &self,
        store: &Arc<dyn LogTransport>,
        leave_gap: bool,
        waiting: &mut Option<Waiting>,
    ) -> Result<u64> {
        let (path, numbering) = (self.log.path.clone(), self.numbering);
        let chain = blocking(move || Ok(neighbours::chain(&path, numbering)?)).await?;
        let log = Log {
            domain: self.vm.uuid,
            name: self.vm.name.clone(),
            console: self.log.console.clone(),
            chain,
        };
        let archive: Archive = log.archive(store);
        let streamer = log.streamer(&archive, self.target.limits)?;
        let mut streamer = streamer.in_pool(Arc::clone(&self.target.pool));
        if leave_gap {
            streamer = streamer.leaving_a_gap();
        }
        let mut standing = streamer.standing();
        let running = streamer.run(self.ask.clone());
        tokio::pin!(running);
        let mut at = None;
        loop {
            let done = tokio::select! {
                done = &mut running => Some(done),
                Ok(()) = standing.changed() => None,
            };
            if done.is_none() || standing.has_changed().is_ok_and(|changed| changed) {
                let now = standing.borrow_and_update().clone();
                self.see(&now, &mut at, waiting);
            }
            if let Some(done) = done {
                if let Ok(offset) = &done {
                    let offset = *offset;
                    self.tally.put(offset.saturating_sub(at.unwrap_or(offset)));
                }
                return Ok(done?);
            }
        }
    }

    /// Counts what was put since, and tells whether it waits for the store.
    fn see(&self, now: &StreamStatus, at: &mut Option<u64>, waiting: &mut Option<Waiting>) {
        // The first offset is where it begins.
        let before = at.replace(now.offset).unwrap_or(now.offset);
        self.tally.put(now.offset.saturating_sub(before));
        match &now.trouble {
            Some((reason, _)) if waiting.is_none() => {
                *waiting = Some(self.tally.wait(Some(reason.clone())));
            }
            Some(_) => {}
            None => *waiting = None,
        }
    }

    /// Waits until it is asked to end before it has begun, or until its domain has left for so
    /// long that nothing of it is waited for any more.
    async fn is_over(&self) {
        let mut ask = self.ask.clone();
        // Whoever asks is gone: the same as being asked to end.
        if ask.wait_for(|ask| *ask != Ask::Go).await.is_ok() {
            let ended = ask.wait_for(|ask| *ask == Ask::End);
            let _ = timeout(self.target.limits.linger, ended).await;
        }
    }

    fn warn(&self, what: &str) {
        let (vm, console) = (&self.vm.name, &self.log.console);
        self.events.warn(format!("{vm}: {console}: {what}"));
    }
}
