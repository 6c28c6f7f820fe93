//! Answers the calls of the control socket.
//!
//! Must not know: HTTP, sockets.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use logchain_core::chain::LogChain;
use logchain_core::live::{Live, News};
use logchain_core::offsets::{Lookup, Offsets};
use logchain_core::outbox::Outbox;
use logchain_core::stream::StreamOffset;
use tokio::sync::mpsc;

use super::afterwards::put_down_at;
use super::config::Changes;
use super::control::{
    Agent, Draining, Health, LogBytes, LogRequest, OutboxStatus, Refusal, Status,
};
use super::here::Here;
use super::reloader::Reloader;
use super::shared::Shared;
use crate::limits::numbering_of_host;
use crate::{Error, Result, consoles, neighbours};

/// Bytes in one piece of an answer.
const PIECE: usize = 64 << 10;

/// Pieces that wait for a client that reads slowly.
const PIECES: usize = 4;

/// Between two looks at a log that is followed, where no notice comes. Whether the client is
/// still there is seen then, too.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Desk {
    shared: Arc<Shared>,
    here: Here,
    reloader: Reloader,
    started: Timestamp,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, here: Here, reloader: Reloader) -> Self {
        Self {
            shared,
            here,
            reloader,
            started: Timestamp::now(),
        }
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

    fn metrics(&self) -> String {
        self.shared
            .metrics
            .libvirt_connected(self.here.connection().is_some());
        let (logs, unlinked) = self.shared.held.counts();
        self.shared.metrics.held(logs, unlinked);
        let peers = self.shared.meet.connected().len();
        self.shared.metrics.peers_connected(peers as u64);
        self.shared.metrics.page()
    }

    async fn log(&self, request: LogRequest) -> Result<LogBytes, Refusal> {
        let failed = |e: Error| Refusal::Failed(e.sentence());
        let Some(connection) = self.here.connection() else {
            return Err(Refusal::NotNow("libvirt is not connected".to_owned()));
        };
        let domain = match connection.lookup_uuid(request.domain).await {
            Err(e @ logchain_libvirt::Error::NoDomain { .. }) => {
                return Err(Refusal::NoSuchLog(e.to_string()));
            }
            found => found.map_err(|e| failed(e.into()))?,
        };
        let found = consoles::consoles_of(&domain).await;
        let found = found.map_err(|e| Refusal::NoSuchLog(e.sentence()))?;
        let console = found
            .into_iter()
            .find(|c| c.name == request.console.as_str());
        let Some(console) = console else {
            let (name, console) = (domain.name(), &request.console);
            let what = format!("domain {name} has no console {console}");
            return Err(Refusal::NoSuchLog(what));
        };
        let (put, pieces) = mpsc::channel(PIECES);
        let (tell, told) = tokio::sync::oneshot::channel();
        let events = self.shared.events.clone();
        tokio::task::spawn_blocking(move || {
            let opened = neighbours::chain(&console.path, numbering_of_host(&events));
            let opened = opened.map_err(|e| Refusal::Failed(Error::from(e).sentence()));
            let begun = opened.and_then(|chain| {
                let offsets = Offsets::of(&chain);
                let offsets = offsets.map_err(|e| Refusal::Failed(e.to_string()))?;
                let from = first(&offsets, request.from)?;
                Ok((chain, offsets, from))
            });
            let (chain, offsets, from) = match begun {
                Ok(begun) => begun,
                Err(refusal) => {
                    // Whoever asked may be gone.
                    let _ = tell.send(Err(refusal));
                    return;
                }
            };
            if tell.send(Ok(from.get())).is_err() {
                return;
            }
            if let Err(e) = send(chain, &offsets, from, request.follow, &put) {
                // The client sees that the answer breaks off.
                let _ = put.blocking_send(Err(e));
            }
        });
        let offset = told
            .await
            .map_err(|_| Refusal::Failed("the log's reader ended".to_owned()))??;
        let bytes = stream::unfold(pieces, |mut pieces| async move {
            Some((pieces.recv().await?, pieces))
        });
        Ok(LogBytes {
            offset,
            bytes: Box::pin(bytes),
        })
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

/// Where an answer begins.
fn first(offsets: &Offsets, from: Option<u64>) -> Result<StreamOffset, Refusal> {
    let failed = |e: logchain_core::OffsetError| Refusal::Failed(e.to_string());
    let asked = StreamOffset::new(from.unwrap_or(0));
    match offsets.from(asked, 1).map_err(failed)? {
        Lookup::Run(run) => Ok(run.offset()),
        Lookup::Gone { next, .. } if from.is_none() => Ok(next),
        Lookup::Gone { next, .. } => Err(Refusal::Expired(format!(
            "the bytes from offset {asked} on are gone; the oldest that is there is {next}"
        ))),
        Lookup::Beyond { end } if from.is_none() || asked == end => Ok(end),
        Lookup::Beyond { end } => Err(Refusal::Wrong(format!(
            "offset {asked} is beyond the end of the log, which is {end}"
        ))),
    }
}

/// Sends what is there and, where it is asked for, what comes. A client that is gone ends it.
fn send(
    chain: LogChain,
    offsets: &Offsets,
    from: StreamOffset,
    follow: bool,
    put: &mpsc::Sender<Result<Bytes>>,
) -> Result<()> {
    let mut at = from;
    loop {
        let (mut run, next) = match offsets.from(at, u64::MAX)? {
            Lookup::Run(run) => {
                let next = run.next();
                (run, next)
            }
            Lookup::Gone { next, .. } => {
                at = next;
                continue;
            }
            Lookup::Beyond { .. } => break,
        };
        let more = run.more();
        loop {
            let mut piece = vec![0; PIECE];
            let read = run.read(&mut piece).map_err(|source| Error::Io {
                action: format!("cannot read {}", chain.path().display()),
                source,
            })?;
            if read == 0 {
                break;
            }
            piece.truncate(read);
            if put.blocking_send(Ok(piece.into())).is_err() {
                return Ok(());
            }
        }
        at = next;
        if !more {
            break;
        }
    }
    if !follow {
        return Ok(());
    }
    let mut live = Live::after(offsets, chain)?;
    let mut piece = vec![0; PIECE];
    while !put.is_closed() {
        match live.read(&mut piece)? {
            News::None => live.wait(LOOK),
            News::Bytes(read) => {
                let bytes = piece.get(..read).unwrap_or_default();
                if put
                    .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
                    .is_err()
                {
                    return Ok(());
                }
            }
            // What is missing is seen by the offset of what follows.
            News::Missing { .. } => {}
        }
    }
    Ok(())
}
