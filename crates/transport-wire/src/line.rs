//! One connection at a time, made anew when it broke, and not too often.
//!
//! Must not know: how a connection is made.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use logchain_core::backoff::Backoff;
use logchain_core::transport::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::debug;

/// How long no connection is tried after one that was of no use.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(500), Duration::from_secs(8));

/// What a [`Line`] holds.
pub trait Connection {
    /// A way in that outlives a lock on the line.
    type LinkEntry;

    /// Whether it is of no use any more.
    fn is_broken(&self) -> bool;

    /// A way in.
    fn way(&self) -> Self::LinkEntry;
}

/// Why a connection could not be made.
pub trait DialFailure: Clone + fmt::Debug + Send + Sync + 'static {
    /// Of a connection that broke, and that is too soon to be made anew.
    fn broke() -> Self;

    /// As a transport of this name tells it.
    fn into_error(self, transport: String) -> Error;
}

/// A connection, or why there is none.
pub struct Line<C, F> {
    state: Mutex<State<C, F>>,
    /// Connections in a row that were of no use.
    useless: AtomicU32,
}

impl<C, F> fmt::Debug for Line<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

struct State<C, F> {
    connection: Option<C>,
    /// When a connection was tried last.
    tried: Option<Instant>,
    /// Why that failed.
    failure: Option<F>,
}

impl<C: Connection, F: DialFailure> Line<C, F> {
    /// With a connection that is there, or without.
    pub fn new(connection: Option<C>) -> Self {
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
    ///
    /// # Errors
    /// What `open` gives, also where it gave that so shortly before that it is not called again.
    pub async fn way(&self, open: impl Future<Output = Result<C, F>>) -> Result<C::LinkEntry, F> {
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
            return Err(state.failure.clone().unwrap_or_else(F::broke));
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
    pub fn is_of_use(&self) {
        self.useless.store(0, Ordering::Relaxed);
    }
}
