//! One connection at a time, made anew when it broke, and not too often.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use logchain_core::backoff::Backoff;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::debug;

use crate::failure::Failure;

/// How long no connection is tried after one that was of no use.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(500), Duration::from_secs(8));

/// What a [`Line`] holds.
pub(crate) trait Connection {
    /// A way in that outlives a lock on the line.
    type LinkEntry;

    fn is_broken(&self) -> bool;
    fn way(&self) -> Self::LinkEntry;
}

pub(crate) struct Line<C> {
    state: Mutex<State<C>>,
    /// Connections in a row that were of no use.
    useless: AtomicU32,
}

struct State<C> {
    connection: Option<C>,
    /// When a connection was tried last.
    tried: Option<Instant>,
    /// Why that failed.
    failure: Option<Failure>,
}

impl<C: Connection> Line<C> {
    pub(crate) fn new(connection: Option<C>) -> Self {
        Self {
            state: Mutex::new(State {
                connection,
                tried: None,
                failure: None,
            }),
            useless: AtomicU32::new(0),
        }
    }

    /// The way into the connection, made with `open` where there is none.
    pub(crate) async fn way(
        &self,
        open: impl Future<Output = Result<C, Failure>>,
    ) -> Result<C::LinkEntry, Failure> {
        let mut state = self.state.lock().await;
        if let Some(there) = state.connection.as_ref().filter(|c| !c.is_broken()) {
            return Ok(there.way());
        }
        // Many requests at once try once.
        let useless = self.useless.load(Ordering::Relaxed);
        if state
            .tried
            .is_some_and(|at| at.elapsed() < RETRY.after(useless))
        {
            let broke = || Failure::unreachable("the connection broke");
            return Err(state.failure.clone().unwrap_or_else(broke));
        }
        state.tried = Some(Instant::now());
        // Until it answers a request it is of no use.
        self.useless.fetch_add(1, Ordering::Relaxed);
        if state.connection.take().is_some() {
            debug!(useless, "the connection broke: made anew");
        }
        match open.await {
            Ok(connection) => {
                let way = connection.way();
                state.connection = Some(connection);
                state.failure = None;
                Ok(way)
            }
            Err(failure) => {
                state.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    /// A request was answered.
    pub(crate) fn is_of_use(&self) {
        self.useless.store(0, Ordering::Relaxed);
    }
}
