//! Calls to a running agent over its control socket.
//!
//! Must not know: how an answer is shown.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Draining, Health, Status};
use crate::agent::config::Changes;
use crate::status::Report;
use crate::{Error, Result};

/// How long an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer that is read.
const LONGEST: usize = 16 << 20;

/// What the agent at `socket` does now.
///
/// # Errors
/// [`Error::Refused`] where no agent answers there, or it refuses; the sentence says why.
pub async fn status(socket: &Path) -> Result<Status> {
    read(socket, ok(call(socket, Method::GET, "/v1/status").await?)?)
}

/// Every handoff on the host of the agent at `socket`, under way or not.
///
/// # Errors
/// As [`status`].
pub async fn handoffs(socket: &Path) -> Result<Report> {
    read(
        socket,
        ok(call(socket, Method::GET, "/v1/handoffs").await?)?,
    )
}

/// Whether an agent listens at `socket` and its file lets this process call. The agent may still
/// refuse who calls.
///
/// # Errors
/// [`Error::Refused`] where not; the sentence says why.
pub async fn reach(socket: &Path) -> Result<()> {
    let connected = timeout(PATIENCE, UnixStream::connect(socket)).await;
    let connected = connected.map_err(|_| silent(socket))?;
    connected.map(drop).map_err(|e| not_connected(socket, e))
}

/// Whether the agent at `socket` does its work.
///
/// # Errors
/// As [`status`].
pub async fn health(socket: &Path) -> Result<Health> {
    let (status, text) = call(socket, Method::GET, "/healthz").await?;
    match status {
        StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => read(socket, text),
        status => read(socket, ok((status, text))?),
    }
}

/// Asks the agent at `socket` to begin nothing new.
///
/// # Errors
/// As [`status`].
pub async fn drain(socket: &Path) -> Result<Draining> {
    read(socket, ok(call(socket, Method::POST, "/v1/drain").await?)?)
}

/// Asks the agent at `socket` to load its configuration anew.
///
/// # Errors
/// As [`status`]; also where the file is wrong: the agent keeps the old one then.
pub async fn reload(socket: &Path) -> Result<Changes> {
    read(socket, ok(call(socket, Method::POST, "/v1/reload").await?)?)
}

/// The page for Prometheus of the agent at `socket`.
///
/// # Errors
/// As [`status`].
pub async fn metrics(socket: &Path) -> Result<String> {
    let page = ok(call(socket, Method::GET, "/metrics").await?)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

pub(super) fn ok((status, text): (StatusCode, Bytes)) -> Result<Bytes> {
    if status == StatusCode::OK {
        return Ok(text);
    }
    let said: Option<Value> = serde_json::from_slice(&text).ok();
    let said = said.and_then(|said| Some(said.get("error")?.as_str()?.to_owned()));
    let said = said.unwrap_or_else(|| format!("the agent answered with status {status}"));
    Err(Error::Refused(said))
}

fn read<T: DeserializeOwned>(socket: &Path, text: Bytes) -> Result<T> {
    serde_json::from_slice(&text).map_err(|e| {
        Error::Refused(format!(
            "what listens at {} does not answer as an agent does: {e}",
            socket.display()
        ))
    })
}

async fn call(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, Bytes)> {
    let answered = timeout(PATIENCE, exchange(socket, method, path)).await;
    answered.unwrap_or_else(|_| Err(silent(socket)))
}

pub(super) fn silent(socket: &Path) -> Error {
    Error::Refused(format!(
        "the agent at {} did not answer within {} s; look at its journal",
        socket.display(),
        PATIENCE.as_secs()
    ))
}

pub(super) fn broken(socket: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Refused(format!(
        "the connection to the agent at {} broke off: {why}",
        socket.display()
    ))
}

/// An answer whose body is still to come, and what carries it.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    _connection: AbortOnDrop,
}

async fn exchange(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|e| not_connected(socket, e))?;
    let answer = send(stream, method, path).await;
    let answer = answer.map_err(|e| broken(socket, &e))?;
    let collected = collected(answer.response).await;
    collected.map_err(|e| broken(socket, &e))
}

/// Sends a request; gives the answer once it begins.
pub(super) async fn send(
    stream: UnixStream,
    method: Method,
    path: &str,
) -> std::result::Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDrop(tokio::spawn(async move {
        // What breaks it is told to the sender.
        let _ = connection.await;
    }));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "agent")
        .body(Empty::<Bytes>::new())?;
    Ok(Answer {
        response: sender.send_request(request).await?,
        _connection: connection,
    })
}

/// All of a short answer.
pub(super) async fn collected(
    answer: Response<Incoming>,
) -> std::result::Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await?;
    Ok((status, body.to_bytes()))
}

pub(super) fn not_connected(socket: &Path, source: io::Error) -> Error {
    let at = socket.display();
    Error::Refused(match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no agent listens at {at}; start it with `systemctl start logchain-agent`, or name the \
             socket of one that runs"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "the agent's socket {at} may not be used; become root or a member of control.group"
        ),
        _ => format!("cannot connect to the agent at {at}: {source}"),
    })
}

/// Ends a task with whoever waits for it.
pub(super) struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
