//! Answers the calls of the control socket.
//!
//! Must not know: HTTP, sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream;
use jiff::Timestamp;
use logchain_core::OkLogged as _;
use logchain_core::ids::ConsoleName;
use logchain_core::outbox::Outbox;
use logchain_libvirt::Domain;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::afterwards::put_down_at;
use super::config::Changes;
use super::control::{
    Agent, Draining, Frames, Head, Health, LogRequest, OutboxStatus, Refusal, Slot, Status,
};
use super::here::Here;
use super::log_reader;
use super::reloader::Reloader;
use super::shared::Shared;
use crate::limits::numbering_of_host;
use crate::status::{self, Report};
use crate::{Error, Result, astray, consoles, neighbours};

pub(super) struct Desk {
    shared: Arc<Shared>,
    here: Here,
    reloader: Reloader,
    started: Timestamp,
    looks: Mutex<()>,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, here: Here, reloader: Reloader) -> Self {
        Self {
            shared,
            here,
            reloader,
            started: Timestamp::now(),
            looks: Mutex::new(()),
        }
    }

    /// Why what a running guest prints does not come to its log, if that is so.
    async fn not_written(domain: &Domain, log: &Path) -> Option<String> {
        if astray::has_writer(log).await {
            return None;
        }
        astray::not_written_by(domain, log).await
    }
}

#[async_trait]
impl Agent for Desk {
    async fn status(&self) -> Status {
        let state = self.shared.config().state.clone();
        let outbox = tokio::task::spawn_blocking(move || outbox(state)).await;
        let mut warnings = Vec::new();
        let outbox = match outbox {
            Ok(Ok(outbox)) => outbox,
            Ok(Err(e)) => {
                warnings.push(e.sentence());
                OutboxStatus::default()
            }
            Err(e) => {
                warnings.push(e.to_string());
                OutboxStatus::default()
            }
        };
        Status {
            host: consoles::own_name(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            started: u64::try_from(self.started.as_second()).unwrap_or(0),
            libvirt_connected: self.here.connection().is_some(),
            draining: self.shared.is_draining(),
            handoffs: self.shared.under_way(),
            outbox,
            streams: self.shared.streams.status(),
            peers: self.shared.meet.connected(),
            needs_restart: self.reloader.config.needs_restart(),
            warnings,
        }
    }

    async fn health(&self) -> Health {
        let mut reasons = Vec::new();
        if self.here.connection().is_none() {
            let uri = self.shared.config().connect.clone();
            reasons.push(format!(
                "{uri} is not connected, so no migration is noticed"
            ));
        }
        if let Err(e) = self.shared.meet.shared().await {
            reasons.push(e.sentence());
        }
        Health { reasons }
    }

    async fn metrics(&self) -> String {
        self.shared
            .metrics
            .libvirt_connected(self.here.connection().is_some());
        let held = self.shared.held.clone();
        let counts = tokio::task::spawn_blocking(move || held.counts());
        if let Some((logs, unlinked)) = counts.await.ok_logged("the last numbers stand") {
            self.shared.metrics.held(logs, unlinked);
        }
        let peers = self.shared.meet.connected().len();
        self.shared.metrics.peers_connected(peers as u64);
        self.shared.metrics.page()
    }

    async fn handoffs(&self) -> Report {
        let config = self.shared.config();
        let options = status::Options {
            connect: Some(config.connect.clone()),
            state: config.state.clone(),
        };
        // It looks at every domain and log: one look at a time is enough.
        let _turn = self.looks.lock().await;
        status::status(&options).await.report()
    }

    async fn log(&self, request: LogRequest, slot: Slot) -> Result<Frames, Refusal> {
        let failed = |e: Error| Refusal::Failed(e.sentence());
        let Some(connection) = self.here.connection() else {
            return Err(Refusal::NotNow("libvirt is not connected".to_owned()));
        };
        let domain = match connection.lookup(&request.domain).await {
            Err(e @ logchain_libvirt::Error::NoDomain { .. }) => {
                return Err(Refusal::NoSuchLog(e.to_string()));
            }
            found => found.map_err(|e| failed(e.into()))?,
        };
        let asked = request.console.as_ref().map(ConsoleName::as_str);
        let console = consoles::console_of(&domain, asked).await;
        let console = console.map_err(|e| match e {
            Error::Refused(sentence) => Refusal::NoSuchLog(sentence),
            e => failed(e),
        })?;
        let head = Head {
            domain: domain.name().to_owned(),
            uuid: domain.uuid(),
            console: console.name,
            not_written: Self::not_written(&domain, &console.path).await,
            ..Head::default()
        };
        let (put, frames) = mpsc::channel(log_reader::AHEAD);
        let (begun, begins) = oneshot::channel();
        let events = self.shared.events.clone();
        tokio::task::spawn_blocking(move || {
            let chain = neighbours::chain(&console.path, numbering_of_host(&events));
            log_reader::read(chain, head, &request, begun, &put);
            drop(slot);
        });
        let gone = || Refusal::Failed("the log's reader ended".to_owned());
        begins.await.map_err(|_| gone())??;
        let frames = stream::unfold(frames, |mut frames| async move {
            Some((frames.recv().await?, frames))
        });
        Ok(Box::pin(frames))
    }

    async fn drain(&self) -> Result<Draining, Refusal> {
        self.shared.drain();
        let under_way = self.shared.under_way().len() as u64;
        Ok(Draining { under_way })
    }

    async fn reload(&self) -> Result<Changes, Refusal> {
        let reloaded = self.reloader.reload().await;
        reloaded.map_err(|problems| Refusal::Wrong(problems.to_string()))
    }
}

/// What waits in the outbox. Blocks on files.
pub(super) fn outbox(state: PathBuf) -> Result<OutboxStatus> {
    let entries = Outbox::of(&state).all()?.entries;
    let oldest = entries.iter().filter_map(put_down_at);
    let oldest = oldest.filter_map(|at| at.elapsed().ok());
    let oldest = oldest.max().unwrap_or_default();
    Ok(OutboxStatus {
        logs: entries.len() as u64,
        bytes: entries.iter().map(|e| e.bytes).fold(0, u64::saturating_add),
        oldest_seconds: oldest.as_secs(),
    })
}
