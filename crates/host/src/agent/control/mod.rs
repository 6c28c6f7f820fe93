//! The agent's control socket: what an operator asks of a running agent, over HTTP/1.1 on a Unix
//! socket.
//!
//! | call | what it does |
//! | --- | --- |
//! | `GET /metrics` | the page for Prometheus |
//! | `GET /healthz` | 200, or 503 with reasons |
//! | `GET /v1/status` | what is under way, as [`Status`] |
//! | `GET /v1/handoffs` | every handoff on this host, as [`Report`] |
//! | `GET /v1/log/{domain}/{console}?from=OFFSET&follow=true` | a log, as bytes or as [`Frame`]s |
//! | `POST /v1/drain` | begin nothing new, and finish what is under way |
//! | `POST /v1/reload` | load the configuration anew |
//!
//! The first two are also on the TCP address that the operator gives for Prometheus, and nothing
//! else is. An error is a status and `{"error": "a sentence"}`.
//!
//! Everything has a bound: connections, the length of a request, the time it takes, and how long
//! a client may leave its answer unread.
//!
//! - `socket`: the socket file, created with its mode. `peer`: who is allowed in.
//! - `route`, `log_request`: pure: which call a request is. `answer`: from a call to its answer.
//! - `frame`: pure: a log in frames.
//! - `serve`: connections. `write_timeout`: a client that reads nothing.
//! - [`client`]: the other end. `log_client`: a client that reads a log, over several connections
//!   where one breaks off.
//!
//! Must not know: how the agent does what it is asked: [`Agent`] does it.

mod answer;
pub mod client;
mod frame;
mod log_client;
mod log_request;
mod peer;
mod route;
mod serve;
mod socket;
#[cfg(test)]
mod tests;
mod write_timeout;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::config::Changes;
use crate::status::Report;

pub use frame::{Boot, Frame, Head, LogFile, MissingFiles, Start};
pub use log_client::LogReader;
pub use log_request::{LogRequest, Part};
pub use serve::{serve, serve_metrics};
pub use socket::Socket;

/// What the control socket asks of the agent.
#[async_trait]
pub trait Agent: Send + Sync + 'static {
    /// What is under way.
    async fn status(&self) -> Status;

    /// Whether the agent does its work.
    async fn health(&self) -> Health;

    /// The page for Prometheus.
    async fn metrics(&self) -> String;

    /// Every handoff on this host, under way or not.
    async fn handoffs(&self) -> Report;

    /// A log, the head first. `slot` is held by whatever works for this answer.
    async fn log(&self, request: LogRequest, slot: Slot) -> Result<Frames, Refusal>;

    /// From now on begin nothing new. It returns at once; [`Agent::status`] tells how far it is.
    async fn drain(&self) -> Result<Draining, Refusal>;

    /// Load the configuration anew. [`Refusal::Wrong`]: the file is wrong, and the old one is in
    /// force.
    async fn reload(&self) -> Result<Changes, Refusal>;
}

/// What an agent does now. Fields may be added; a client that does not find one takes its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// This host's own name.
    pub host: String,
    /// The release of the running agent.
    pub release: String,
    /// When it started, in seconds since 1970 (UTC).
    pub started: u64,
    /// Whether it is connected to libvirt.
    pub libvirt_connected: bool,
    /// Whether it begins nothing new.
    pub draining: bool,
    /// Handoffs that have begun and have not ended.
    pub handoffs: Vec<HandoffStatus>,
    /// What waits in the outbox.
    pub outbox: OutboxStatus,
    /// What is streamed, where the configuration says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<StreamsStatus>,
    /// Agents of other hosts that answer.
    pub peers: Vec<String>,
    /// Keys of the configuration whose new value waits for a restart.
    pub needs_restart: Vec<String>,
    /// What an operator should know, in sentences.
    pub warnings: Vec<String>,
}

/// A handoff that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandoffStatus {
    /// Name of the domain.
    pub domain: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Which console, as libvirt names it.
    pub console: String,
    /// This host's half: `source` or `destination`.
    pub role: String,
    /// What it waits for, in words.
    pub phase: String,
    /// How many bytes have arrived at the destination.
    pub bytes: u64,
    /// The other host, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// When it began, in seconds since 1970 (UTC).
    pub since: u64,
}

/// What waits in the outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboxStatus {
    /// How many logs.
    pub logs: u64,
    /// Their size.
    pub bytes: u64,
    /// The age of the oldest one in seconds; 0 without any.
    pub oldest_seconds: u64,
}

/// What is streamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamsStatus {
    /// URL of the store.
    pub to: String,
    /// How many logs are streamed.
    pub running: u64,
    /// How many of them wait: for the store, or for a history that did not come yet.
    pub waiting: u64,
    /// Bytes that went to the store, or were found there, since the agent started.
    pub bytes: u64,
    /// Why the store cannot be used now, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Whether the agent does its work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Why it does not, in sentences; none if it does.
    pub reasons: Vec<String>,
}

impl Health {
    /// Whether it does its work.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// What a drain found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Draining {
    /// How many handoffs are still under way.
    pub under_way: u64,
}

/// A log as it is read.
pub type Frames = BoxStream<'static, Frame>;

/// Room for one reader of logs. It is free again once the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Slot(#[expect(dead_code, reason = "held, not used")] Arc<OwnedSemaphorePermit>);

/// Why the agent does not do what it was asked. Each has a sentence for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such log here.
    #[error("{0}")]
    NoSuchLog(String),
    /// Not now; the same request may succeed later.
    #[error("{0}")]
    NotNow(String),
    /// What was asked for, or the configuration file, is wrong.
    #[error("{0}")]
    Wrong(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}
