//! One log on its way into the transport: it is tried again while it may be better soon, and
//! trouble is told.
//!
//! Must not know: domains, and why a log ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::OkLogged as _;
use logchain_core::archive::{self, Archive, Ask, Limits, StreamStatus, Streamer};
use logchain_core::chain::LogChain;
use logchain_core::ids::ConsoleName;
use logchain_core::transport::LogTransport;
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use super::LOOK;
use crate::{Event, Events, Result, consoles, neighbours};

/// Between two sentences about the same trouble.
const REMIND: Duration = Duration::from_secs(300);

/// One log of a domain.
pub(crate) struct Log {
    pub(crate) domain: Uuid,
    pub(crate) name: String,
    pub(crate) console: ConsoleName,
    pub(crate) chain: LogChain,
}

impl Log {
    /// Where its stream lies in a transport.
    pub(crate) fn archive(&self, transport: &Arc<dyn LogTransport>) -> Archive {
        Archive::new(Arc::clone(transport), self.domain, self.console.clone())
    }

    /// What puts it there.
    pub(crate) fn streamer(&self, archive: &Archive, limits: Limits) -> Result<Streamer> {
        let streamer = Streamer::new(archive.clone(), self.chain.try_clone()?);
        let host = consoles::own_name();
        Ok(streamer
            .with_names(self.name.clone(), host)
            .with_limits(limits))
    }
}

/// What putting one log needs.
pub(super) struct LogStream {
    pub(super) limits: Limits,
    pub(super) leave_gap: bool,
    pub(super) events: Events,
    pub(super) transport: Arc<dyn LogTransport>,
    pub(super) ask: watch::Receiver<Ask>,
}

impl LogStream {
    /// Gives what was told of it where it failed.
    pub(super) async fn run(self, log: Log) -> Option<Event> {
        let (events, console) = (self.events.clone(), log.console.clone());
        for remark in remarks(&log).await {
            events.warn(format!("{console}: {remark}"));
        }
        match self.put(&log).await {
            Ok(offset) => {
                events.tell(Event::Ended { console, offset });
                None
            }
            Err(e) => Some(events.fail(Event::failed(console, e.sentence()))),
        }
    }

    /// Tried again while the log, or its history, is not here yet.
    async fn put(mut self, log: &Log) -> Result<u64> {
        let archive = log.archive(&self.transport);
        let mut told: Option<Instant> = None;
        loop {
            let streamer = log.streamer(&archive, self.limits)?;
            let streamer = if self.leave_gap {
                streamer.leaving_a_gap()
            } else {
                streamer
            };
            let watch = tokio::spawn(tell(
                self.events.clone(),
                log.console.clone(),
                streamer.standing(),
            ));
            let done = streamer.run(self.ask.clone()).await;
            watch.abort();
            let reason = match done {
                Ok(offset) => return Ok(offset),
                Err(e) if !is_early(&e) => return Err(e.into()),
                Err(e) => e,
            };
            if *self.ask.borrow() != Ask::Go {
                return Err(reason.into());
            }
            if told.is_none_or(|at| at.elapsed() > REMIND) {
                told = Some(Instant::now());
                self.events.warn(format!(
                    "{}: {reason}; waiting for it{}",
                    log.console,
                    match &reason {
                        archive::Error::NotHere { .. } => " (--leave-gap goes on without it)",
                        _ => "",
                    }
                ));
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = self.ask.changed() => {}
            }
        }
    }
}

/// What of the log is not put, or is in doubt. A log that is not here yet has none.
async fn remarks(log: &Log) -> Vec<String> {
    let Ok(chain) = log.chain.try_clone() else {
        return Vec::new();
    };
    let look = move || {
        let snapshot = chain.snapshot();
        let snapshot = snapshot.ok_logged("a log that is not here yet has no remarks")?;
        let remarks = snapshot.remarks().iter();
        let path = chain.path();
        Some(remarks.map(|r| neighbours::sentence(&path, r)).collect())
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.ok().flatten().unwrap_or_default()
}

/// Whether it may be otherwise in a moment.
pub(crate) fn is_early(error: &archive::Error) -> bool {
    match error {
        archive::Error::NotHere { .. } => true,
        archive::Error::Transport(e) => e.advice() == logchain_core::transport::Advice::Retry,
        archive::Error::Log(logchain_core::offsets::Error::Chain(e)) => e.is_not_found(),
        _ => false,
    }
}

/// Tells where it begins, and of trouble with the transport.
async fn tell(events: Events, console: ConsoleName, mut standing: watch::Receiver<StreamStatus>) {
    let mut begun = false;
    let mut in_trouble = false;
    while standing.changed().await.is_ok() {
        let now = standing.borrow_and_update().clone();
        if !begun {
            begun = true;
            events.tell(Event::Streaming {
                console: console.clone(),
                offset: now.offset,
            });
        }
        match (&now.trouble, in_trouble) {
            (Some((reason, _)), false) => {
                in_trouble = true;
                events.warn(format!(
                    "{console}: {reason}; it is tried again, and the log is held"
                ));
            }
            (None, true) => {
                in_trouble = false;
                let console = console.clone();
                events.tell(Event::Recovered { console });
            }
            _ => {}
        }
    }
}
