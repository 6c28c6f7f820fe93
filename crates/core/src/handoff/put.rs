//! How the source's half puts its objects: again and again while that may help,
//! and pieces of the log some at a time, so that a slow answer does not stop the
//! next piece.
//!
//! Must not know: where pieces come from, what the state machine makes of an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use blake3::Hash;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{Instrument as _, debug};

use super::budget::Room;
use super::chunk::CHUNK_HEADER;
use super::offer::{AdoptStatus, Source};
use super::pump::Cuts;
use super::streamed::Streamed;
use super::{Budget, Chunk, Error, Handoff, Result};
use crate::OkLogged as _;
use crate::backoff::Backoff;
use crate::follow::Piece;
use crate::sentence;
use crate::transport::{self, Advice, LogTransport, LogTransportExt, ObjectName};

/// Pieces of one handoff on their way at once: enough to fill a line
/// of some hundred Mbit/s and some ten milliseconds.
const IN_FLIGHT: usize = 12;

/// So many pieces that wait for the line say that it is slower than we are.
const BEHIND: usize = 1;

/// Between two tries of one put. Whether there is another try depends on the migration,
/// so nothing here ends them.
const RETRY: Backoff = Backoff::every(Duration::from_millis(250));

/// How long pieces may take to arrive that are not wanted any more: one that
/// came after all was cleared would stay.
const SETTLE: Duration = Duration::from_secs(2);

/// What putting needs to know.
pub(super) struct Putter {
    pub(super) handoff: Handoff,
    pub(super) transport: Arc<dyn LogTransport>,
    pub(super) source: watch::Receiver<Source>,
    pub(super) far: watch::Receiver<AdoptStatus>,
    pub(super) patience: Duration,
    pub(super) budget: Budget,
    pub(super) stored: Arc<AlreadyStored>,
}

/// What of the history lies in the transport already.
#[derive(Default)]
pub(super) struct AlreadyStored {
    /// Pieces that an earlier run put, by where they begin.
    pub(super) there: Cuts,
    pub(super) streamed: Streamed,
    /// Whether an earlier run may have committed them: not if one is of no use.
    pub(super) may_be_committed: Arc<AtomicBool>,
}

impl AlreadyStored {
    /// Bytes in pieces that an earlier run put.
    pub(super) fn bytes(&self) -> u64 {
        self.there.values().map(|len| u64::from(*len)).sum()
    }
}

impl Putter {
    /// Puts an object, trying again while that may help.
    pub(super) async fn put(&self, object: ObjectName, data: Bytes) -> Result<()> {
        match self.put_new(object, data).await? {
            None => Ok(()),
            Some(taken) => Err(taken.into()),
        }
    }

    /// As [`Putter::put`]; gives the error of an object that is there with other bytes.
    pub(super) async fn put_new(
        &self,
        object: ObjectName,
        data: Bytes,
    ) -> Result<Option<transport::Error>> {
        let key = self.handoff.key(object);
        let started = Instant::now();
        let mut waits = RETRY.start();
        loop {
            let put = match object {
                // One that is there is ours, of this run or of an earlier one: which
                // it was, the pieces behind it tell.
                ObjectName::Begin => self.transport.put(&key, data.clone()).await,
                // An answer that was lost is no second object.
                _ => self.transport.put_same(&key, data.clone()).await,
            };
            let error = match put {
                Ok(()) => return Ok(None),
                Err(taken @ transport::Error::AlreadyExists { .. }) => return Ok(Some(taken)),
                Err(e) => e,
            };
            // While the guest runs here, time is nobody's: the descriptors are held.
            let patient = match *self.source.borrow() {
                Source::Running | Source::Stopped => self.source.has_changed().is_ok(),
                Source::Over => started.elapsed() < self.patience,
                Source::Stays => false,
            };
            let wait = waits.next(started.elapsed());
            let Some(wait) = wait.filter(|_| patient && error.advice() == Advice::Retry) else {
                return Err(error.into());
            };
            if let AdoptStatus::Failed(reason) | AdoptStatus::Lost(reason) = &*self.far.borrow() {
                return Err(Error::gave_up(reason.clone()));
            }
            debug!(error = %sentence(&error), %key, ?wait, "put again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Whether a piece that an earlier run put is what is here now.
    async fn is_same(
        &self,
        object: ObjectName,
        (there, len): (u32, u32),
        chunk: &Chunk<Vec<u8>>,
    ) -> Result<()> {
        let key = self.handoff.key(object);
        let mut header = Vec::new();
        if there == len {
            let range = Some(0..CHUNK_HEADER as u64);
            let torn = |e: transport::Error| {
                if e.advice() != Advice::Retry {
                    self.never_whole();
                }
                e
            };
            let mut parts = self.transport.get(&key, range).await.map_err(torn)?;
            while let Some(part) = parts.next().await {
                header.extend_from_slice(&part.map_err(torn)?);
            }
        }
        if chunk.is_headed_by(&header) {
            return Ok(());
        }
        self.never_whole();
        let why = "what was put before is not what is here now; offer it again";
        Err(Error::gave_up(why))
    }

    fn never_whole(&self) {
        self.stored.may_be_committed.store(false, Ordering::Relaxed);
    }

    /// Gives the piece's length.
    async fn put_piece(
        self,
        (piece, up_to): (Piece, Hash),
        mut room: Room,
        line: Arc<Line>,
    ) -> Result<u64> {
        let len = u32::try_from(piece.bytes.len()).map_err(|e| Error::gave_up(e.to_string()))?;
        let is_there = self.stored.there.get(&piece.offset).copied();
        let object = ObjectName::Chunk {
            offset: piece.offset,
            len,
        };
        let chunk = Chunk {
            starts_file: piece.starts_file,
            bytes: piece.bytes,
            up_to,
        };
        if let Some(there) = is_there {
            self.is_same(object, (there, len), &chunk).await?;
            return Ok(u64::from(len));
        }
        let streamed = self.stored.streamed.piece(piece.offset, u64::from(len));
        let pack = streamed.is_none() && line.is_behind();
        let memory = self.budget.memory();
        let encode = move || {
            let data = match (streamed, pack) {
                (Some(offset), _) => chunk.encode_streamed(offset),
                (None, true) => chunk.encode(),
                (None, false) => chunk.encode_plain(),
            };
            memory.give(chunk.bytes);
            Ok::<_, Error>(data)
        };
        let data = self.budget.work(encode).await?;
        room.shrink(data.len());
        let _waits = line.wait();
        self.put(object, data).await?;
        Ok(u64::from(len))
    }
}

/// What is slower, the line or we: as long as pieces wait for the line there is
/// time to compress the next ones; where none does, compressing is what is waited
/// for. So both are kept busy, whatever either is capable of.
#[derive(Default)]
struct Line {
    waiting: AtomicUsize,
    /// Pieces that were begun.
    begun: AtomicUsize,
}

impl Line {
    fn is_behind(&self) -> bool {
        // At first nobody knows.
        let first = self.begun.fetch_add(1, Ordering::Relaxed) < IN_FLIGHT;
        first || self.waiting.load(Ordering::Relaxed) >= BEHIND
    }

    fn wait(self: &Arc<Self>) -> WaitingPiece {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        WaitingPiece(Arc::clone(self))
    }
}

struct WaitingPiece(Arc<Line>);

impl Drop for WaitingPiece {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Pieces on their way. Dropped, they are given up.
#[derive(Default)]
pub(super) struct Puts {
    set: JoinSet<Result<u64>>,
    line: Arc<Line>,
}

impl Puts {
    pub(super) fn has_room(&self) -> bool {
        self.set.len() < IN_FLIGHT
    }

    pub(super) fn start(&mut self, putter: Putter, piece: (Piece, Hash), room: Room) {
        let line = Arc::clone(&self.line);
        let put = putter.put_piece(piece, room, line);
        self.set.spawn(put.in_current_span());
    }

    /// The length of the next piece that arrived; `None` where none is on its way.
    pub(super) async fn next(&mut self) -> Option<Result<u64>> {
        let done = self.set.join_next().await?;
        Some(done.unwrap_or_else(|e| Err(Error::gave_up(e.to_string()))))
    }

    /// Waits until all have arrived, and adds them up in `put`.
    pub(super) async fn finish(&mut self, put: &watch::Sender<u64>) -> Result<()> {
        while let Some(done) = self.next().await {
            let len = done?;
            put.send_modify(|put| *put = put.saturating_add(len));
        }
        Ok(())
    }

    /// They are not wanted any more: lets them come to their ends.
    pub(super) async fn settle(&mut self) {
        let all = async { while self.next().await.is_some() {} };
        tokio::time::timeout(SETTLE, all)
            .await
            .ok_logged("pieces that arrive later stay until the transport's sweep removes them");
    }
}
