//! Connections: how many there are, how long one lasts, and how they end with the agent.
//!
//! A connection carries one request. Whoever connects while too many others are connected waits
//! in the kernel's queue.
//!
//! Must not know: what is asked, and by whom.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::{answer, error};
use super::route::Endpoint;
use super::write_timeout::WriteTimeout;
use super::{Agent, Socket};
use crate::stop::Stop;
use crate::{Error, Result};

/// Connections to the control socket at once.
const CONNECTIONS: usize = 48;

/// Logs that are read at once: fewer than connections, so that other calls are always answered.
const STREAMS: usize = 16;

/// Connections for Prometheus at once.
const SCRAPES: usize = 8;

/// How long a client may take to send its request.
const REQUEST: Duration = Duration::from_secs(10);

/// How long a connection lasts at most that reads no log.
const LIFETIME: Duration = Duration::from_secs(60);

/// How long a client may leave its answer unread.
const UNREAD: Duration = Duration::from_secs(30);

/// How long answers may take that are under way when the agent is asked to end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// After a connection could not be taken: without descriptors the next one cannot be either.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// The longest request line with its headers, in bytes.
const LONGEST_REQUEST: usize = 16 * 1024;

/// The most headers that a request has.
const HEADERS: usize = 64;

/// Serves the control socket until the agent is asked to end.
pub async fn serve(socket: Socket, agent: Arc<dyn Agent>, stop: &Stop) {
    let streams = Arc::new(Semaphore::new(STREAMS));
    let mut connections = Connections::new(CONNECTIONS);
    while let Some(permit) = connections.room(stop).await {
        let accepted = tokio::select! {
            () = stop.asked() => break,
            accepted = socket.listener.accept() => accepted,
        };
        let Some(stream) = taken(accepted.map(|(stream, _)| stream)).await else {
            continue;
        };
        let (agent, streams) = (Arc::clone(&agent), Arc::clone(&streams));
        let allowed = socket.allowed;
        connections.0.spawn(async move {
            let _permit = permit;
            if allowed.is_allowed(&stream).await {
                connection(stream, agent, Endpoint::Socket, streams).await;
            } else {
                refuse(stream).await;
            }
        });
    }
    connections.end().await;
}

/// Serves `/metrics` and `/healthz` on `listen` until the agent is asked to end. It returns when
/// the agent listens, with what remains to be run.
///
/// # Errors
/// [`Error::Io`] where nobody can listen there.
pub async fn serve_metrics(
    listen: SocketAddr,
    agent: Arc<dyn Agent>,
    stop: Stop,
) -> Result<(SocketAddr, impl Future<Output = ()> + Send)> {
    let failed = |source| Error::Io {
        action: format!("cannot listen on metrics.listen {listen}"),
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    let serving = async move {
        // No log is read here.
        let streams = Arc::new(Semaphore::new(0));
        let mut connections = Connections::new(SCRAPES);
        while let Some(permit) = connections.room(&stop).await {
            let accepted = tokio::select! {
                () = stop.asked() => break,
                accepted = listener.accept() => accepted,
            };
            let Some(stream) = taken(accepted.map(|(stream, _)| stream)).await else {
                continue;
            };
            let (agent, streams) = (Arc::clone(&agent), Arc::clone(&streams));
            connections.0.spawn(async move {
                let _permit = permit;
                connection(stream, agent, Endpoint::Network, streams).await;
            });
        }
        connections.end().await;
    };
    Ok((at, serving))
}

/// Connections under way, and room for more.
struct Connections(JoinSet<()>, Arc<Semaphore>);

impl Connections {
    fn new(most: usize) -> Self {
        Self(JoinSet::new(), Arc::new(Semaphore::new(most)))
    }

    /// Waits for room for one more; `None`: the agent is asked to end.
    async fn room(&mut self, stop: &Stop) -> Option<OwnedSemaphorePermit> {
        // Those that ended are forgotten.
        while self.0.try_join_next().is_some() {}
        tokio::select! {
            biased;
            () = stop.asked() => None,
            permit = Arc::clone(&self.1).acquire_owned() => permit.ok(),
        }
    }

    async fn end(mut self) {
        let all = async { while self.0.join_next().await.is_some() {} };
        // What is left is cut off: a log that is read has no end.
        let _ = timeout(LAST_ANSWERS, all).await;
        self.0.shutdown().await;
    }
}

async fn taken<S>(accepted: io::Result<S>) -> Option<S> {
    match accepted {
        Ok(stream) => Some(stream),
        Err(e) => {
            tracing::warn!(error = %e, "a connection to the agent cannot be taken");
            sleep(AFTER_FAILURE).await;
            None
        }
    }
}

fn server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .keep_alive(false)
        .max_buf_size(LONGEST_REQUEST)
        .max_headers(HEADERS);
    server
}

async fn connection<S>(
    stream: S,
    agent: Arc<dyn Agent>,
    endpoint: Endpoint,
    streams: Arc<Semaphore>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let is_stream = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let (agent, streams) = (Arc::clone(&agent), Arc::clone(&streams));
        let is_stream = Arc::clone(&is_stream);
        async move {
            let answer = answer(&*agent, &request, endpoint, &streams).await;
            is_stream.store(answer.is_stream, Ordering::Relaxed);
            Ok::<_, Infallible>(answer.response)
        }
    });
    let io = TokioIo::new(WriteTimeout::new(stream, UNREAD));
    let mut served = pin!(server().serve_connection(io, service));
    let ended = match timeout(LIFETIME, served.as_mut()).await {
        Err(_) if is_stream.load(Ordering::Relaxed) => served.await,
        Err(_) => return tracing::debug!("a client was given up that took too long"),
        Ok(ended) => ended,
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a client's connection broke off");
    }
}

/// For whoever must not call: the answer says who may.
async fn refuse(stream: UnixStream) {
    let service = service_fn(|_: Request<Incoming>| async {
        let what = "only root, the agent's own user and the members of control.group may call";
        Ok::<_, Infallible>(error(StatusCode::FORBIDDEN, what))
    });
    let io = TokioIo::new(WriteTimeout::new(stream, UNREAD));
    let _ = timeout(LIFETIME, server().serve_connection(io, service)).await;
}
