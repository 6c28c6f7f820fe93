//! Where streams go to, by one reading of the section `[stream]`: which logs, with which bounds,
//! and the store, which is opened as soon as it can be.
//!
//! Must not know: domains that come and go.

use std::sync::Arc;
use std::time::Duration;

use logchain_core::archive::{Limits, PoolLimits, StreamPool};
use logchain_core::backoff::Backoff;
use logchain_core::transport::LogTransport;
use tokio::sync::watch;
use tokio::time::sleep;

use super::tally::Tally;
use super::wanted::Wanted;
use crate::agent::config;
use crate::transports::{TransportChoice, ssh_options};
use crate::{Error, Result};

/// How long the store may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a put is tried again once the agent ends, or its configuration changes: the next
/// start goes on where this one was.
const LAST: Duration = Duration::from_secs(5);

/// How long the last bytes of a domain that left are held for a store that does not answer.
const LINGER: Duration = Duration::from_secs(3600);

/// Between two tries to open the store.
const REOPEN: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(30));

/// Where streams go to.
pub(super) struct Target {
    pub(super) config: config::Stream,
    pub(super) wanted: Wanted,
    pub(super) limits: Limits,
    pub(super) pool: Arc<StreamPool>,
    store: watch::Receiver<Option<Arc<dyn LogTransport>>>,
}

impl Target {
    /// `None`: nothing is streamed.
    ///
    /// # Errors
    /// The URL is none, or the system has no thread left.
    pub(super) fn of(config: &config::Stream, tally: &Tally) -> Result<Option<Self>> {
        let Some(url) = &config.to else {
            return Ok(None);
        };
        let choice = TransportChoice::of(Some(url), None)?;
        let limits = PoolLimits {
            memory: usize::try_from(config.memory).unwrap_or(usize::MAX),
            ..PoolLimits::default()
        };
        let pool = StreamPool::start(limits).map_err(|source| Error::Io {
            action: "cannot start a thread for streams".to_owned(),
            source,
        })?;
        let (opened, store) = watch::channel(None);
        tokio::spawn(open(choice, opened, tally.clone()));
        Ok(Some(Self {
            config: config.clone(),
            wanted: Wanted::of(config),
            limits: Limits {
                delay: config.delay,
                keep: config.keep,
                patience: LAST,
                linger: LINGER,
            },
            pool: Arc::new(pool),
            store,
        }))
    }

    /// The store, as soon as it is open.
    pub(super) async fn store(&self) -> Arc<dyn LogTransport> {
        let mut store = self.store.clone();
        let opened = store.wait_for(Option::is_some).await;
        let opened = opened.ok().and_then(|opened| opened.clone());
        match opened {
            Some(store) => store,
            // The runtime ends.
            None => std::future::pending().await,
        }
    }
}

/// Opens the store, again and again until that succeeds or nobody wants it any more.
async fn open(
    choice: TransportChoice,
    opened: watch::Sender<Option<Arc<dyn LogTransport>>>,
    tally: Tally,
) {
    let ssh = ssh_options(None, PATIENCE);
    let mut waits = REOPEN.start();
    let mut trouble = None;
    while !opened.is_closed() {
        match choice.open(&ssh, PATIENCE).await {
            Ok(store) => {
                opened.send_replace(Some(store));
                return;
            }
            Err(e) => {
                let reason = e.sentence();
                trouble = Some(trouble.unwrap_or_else(|| tally.away(reason)));
            }
        }
        // It has no end of its own.
        let wait = waits.next(Duration::ZERO).unwrap_or(PATIENCE);
        tokio::select! {
            () = sleep(wait) => {}
            () = opened.closed() => {}
        }
    }
    drop(trouble);
}
