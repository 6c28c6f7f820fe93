//! Puts a log into a transport as it grows.
//!
//! ```text
//!              the log goes on from there       a batch is full, or due
//!  Finding the ───────────────────────► Reading ──────────────────────► Putting ─┐
//!  stream's end                            ▲                                     │
//!                                          └── stored, or found to be there ─────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, sleep_until};

use super::pending::{Pending, Theirs, compare};
use super::pool::{Memory, StreamPool};
use super::rest::{Differs, Rest};
use super::tap::{Tap, Tapped};
use super::whence::{blocking, log, whence};
use super::{About, Archive, Batch, Error, Result};
use crate::OkLogged as _;
use crate::backoff::Backoff;
use crate::chain::LogChain;
use crate::clock;
use crate::stream::StreamOffset;
use crate::transport::{self, Advice};

/// Between two tries of one put.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(10));

/// What the caller wants of a streamer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Go on.
    Go,
    /// The guest has left: put what still comes, and end once nothing does.
    Drain,
    /// Put what is there, and end.
    End,
}

/// What bounds a streamer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a byte waits at the most until its batch is put.
    pub delay: Duration,
    /// How many bytes of the stream are kept; `None`: all.
    pub keep: Option<u64>,
    /// Once asked to end: how long a put is tried again.
    pub patience: Duration,
    /// Once the guest has left, until asked to end: how long a put is tried again.
    pub linger: Duration,
}

impl Default for Limits {
    /// Five seconds, a GiB, ten seconds in either case.
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(5),
            keep: Some(1 << 30),
            patience: Duration::from_secs(10),
            linger: Duration::from_secs(10),
        }
    }
}

/// Where a streamer stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamStatus {
    /// All before this offset lies in the transport.
    pub offset: u64,
    /// Bytes that were missing in the log, as far as they could be counted.
    pub missing: u64,
    /// Why nothing can be put just now, and since when that is so.
    pub trouble: Option<(String, Instant)>,
}

/// Puts one log.
pub struct Streamer {
    archive: Archive,
    chain: LogChain,
    about: About,
    limits: Limits,
    leave_gap: bool,
    pool: Option<Arc<StreamPool>>,
    standing: watch::Sender<StreamStatus>,
}

impl Streamer {
    /// Puts `chain` into `archive`, with the usual limits.
    #[must_use]
    pub fn new(archive: Archive, chain: LogChain) -> Self {
        Self {
            archive,
            chain,
            about: About::default(),
            limits: Limits::default(),
            leave_gap: false,
            pool: None,
            standing: watch::Sender::new(StreamStatus::default()),
        }
    }

    /// With a domain's and a host's name, for people.
    #[must_use]
    pub fn with_names(mut self, name: String, host: String) -> Self {
        (self.about.name, self.about.host) = (name, host);
        self
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where the transport has more of the stream than is known here, does not
    /// wait for it: what is here follows it, after a gap.
    #[must_use]
    pub fn leaving_a_gap(mut self) -> Self {
        self.leave_gap = true;
        self
    }

    /// Shares what the pool has instead of reading on a thread of its own. What is new is then
    /// noticed within a second.
    #[must_use]
    pub fn in_pool(mut self, pool: Arc<StreamPool>) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Where it stands, from now on.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<StreamStatus> {
        self.standing.subscribe()
    }

    /// Puts what the transport does not have yet, and what comes, until asked to
    /// end. Killed at any moment, the next run goes on where this one was. Gives
    /// the offset up to which all was put.
    ///
    /// # Errors
    /// [`Error::NotHere`] at the start: try again when the VM's history has come.
    /// [`Error::Diverged`], [`Error::Damaged`]; the log's. A transport that does
    /// not answer, or refuses, is tried again; only once asked to end that ends
    /// in [`Error::NotPut`]. At the start its error is given.
    pub async fn run(self, ask: watch::Receiver<Ask>) -> Result<u64> {
        let (from, is_first) = {
            let _call = call(self.pool.as_ref()).await;
            let end = self.archive.end().await?;
            let chain = self.chain.try_clone().map_err(log)?;
            let from = whence(chain, &self.archive, end.as_ref(), self.leave_gap).await?;
            (from, end.is_none())
        };
        self.standing.send_modify(|s| s.offset = from);
        let chain = self.chain.try_clone().map_err(log)?;
        let at = StreamOffset::new(from);
        let tap = match &self.pool {
            Some(pool) => Tap::start_in(Arc::clone(pool), chain, at),
            None => Tap::start(chain, at).map_err(|e| {
                Error::Transport(transport::Error::Other {
                    transport: self.archive.transport.to_string(),
                    reason: format!("cannot start a thread: {e}"),
                })
            })?,
        };
        let mut work = Work {
            streamer: self,
            ask,
            is_open: true,
            asked: None,
            told: Ask::Go,
            pending: Pending::default(),
            next: from,
            is_first,
            rest: None,
            swept: 0,
        };
        work.run(tap).await
    }
}

/// A streamer at work.
struct Work {
    streamer: Streamer,
    ask: watch::Receiver<Ask>,
    /// Whether somebody is there who may ask for something else.
    is_open: bool,
    /// What it was asked for last, other than to go on, and when.
    asked: Option<(Ask, Instant)>,
    /// What the log's reader was told of that.
    told: Ask,
    pending: Pending,
    /// The offset of the next batch.
    next: u64,
    /// Whether nothing was ever put.
    is_first: bool,
    /// What another streamer put beyond what was read here.
    rest: Option<Rest>,
    /// Up to which offset old batches were looked for.
    swept: u64,
}

impl Work {
    async fn run(&mut self, mut tap: Tap) -> Result<u64> {
        loop {
            self.heed(&tap);
            let due = self.pending.due(self.streamer.limits.delay);
            let tapped = tokio::select! {
                // What is due goes first: a log that never rests would wait for ever.
                biased;
                () = at(due) => {
                    self.put().await?;
                    continue;
                }
                _ = self.ask.changed(), if self.is_open && self.told != Ask::End => continue,
                tapped = tap.out.recv() => tapped,
            };
            match tapped {
                Some(Tapped::Bytes {
                    offset,
                    bytes,
                    memory,
                }) => self.take(offset.get(), &bytes, memory).await?,
                Some(Tapped::Missing { next, size }) => self.gap(next.get(), size).await?,
                Some(Tapped::End) => {
                    self.put_all().await?;
                    return Ok(self.next);
                }
                Some(Tapped::Failed(e)) => {
                    self.put_all().await?;
                    return Err(e.into());
                }
                None => {
                    let reason = "the log's reader ended".to_owned();
                    return Err(self.not_put(reason));
                }
            }
        }
    }

    fn heed(&mut self, tap: &Tap) {
        self.note_ask();
        if let Some((ask, _)) = self.asked
            && ask != self.told
        {
            self.told = ask;
            tap.end(ask == Ask::Drain);
        }
    }

    /// Notes what the caller wants now.
    fn note_ask(&mut self) {
        let is_open = self.ask.has_changed().is_ok();
        let ask = match *self.ask.borrow_and_update() {
            // A caller that is gone cannot be asked again.
            Ask::Go if !is_open => Ask::End,
            ask => ask,
        };
        self.is_open = is_open;
        if ask != Ask::Go && self.asked.is_none_or(|(before, _)| before != ask) {
            self.asked = Some((ask, Instant::now()));
        }
    }

    /// Whether a put is not tried again.
    fn is_out_of_time(&self) -> bool {
        let limits = &self.streamer.limits;
        self.asked.is_some_and(|(ask, at)| {
            let limit = match ask {
                Ask::Go => return false,
                Ask::Drain => limits.linger,
                Ask::End => limits.patience,
            };
            at.elapsed() > limit
        })
    }

    async fn take(&mut self, offset: u64, bytes: &[u8], memory: Memory) -> Result<()> {
        let expected = self.next.saturating_add(self.pending.bytes().len() as u64);
        if offset > expected {
            let size = offset.checked_sub(expected);
            self.gap(offset, size).await?;
        }
        let doubled = usize::try_from(expected.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = bytes.get(doubled..).unwrap_or_default();
        if let Some(rest) = &mut self.rest {
            // Nothing is pending: all that was read before lies in the transport.
            let count = rest
                .read(bytes)
                .map_err(|Differs { batch }| Error::Diverged {
                    offset: batch,
                    transport: self.streamer.archive.transport.to_string(),
                })?;
            if rest.is_over() {
                self.rest = None;
            }
            self.done(count);
            bytes = bytes.get(count..).unwrap_or_default();
        }
        self.pending.push(bytes, memory, Instant::now());
        while self.pending.is_full() {
            self.put().await?;
        }
        Ok(())
    }

    async fn gap(&mut self, next: u64, size: Option<u64>) -> Result<()> {
        self.put_all().await?;
        self.rest = None;
        self.next = self.next.max(next);
        // What lies before a stream's first batch is no gap in it.
        if !self.is_first {
            self.pending.after_gap = size.is_none();
            let missing = size.unwrap_or_default();
            self.streamer.standing.send_modify(|s| {
                s.missing = s.missing.saturating_add(missing);
            });
        }
        Ok(())
    }

    async fn put_all(&mut self) -> Result<()> {
        while !self.pending.bytes().is_empty() {
            self.put().await?;
        }
        Ok(())
    }

    /// Puts one batch, or finds that it is there.
    async fn put(&mut self) -> Result<()> {
        let archive = self.streamer.archive.clone();
        let mut about = self.streamer.about.clone();
        about.at = clock::now();
        let batch = Batch {
            offset: self.next,
            after_gap: self.pending.after_gap,
            about,
            bytes: Bytes::copy_from_slice(self.pending.next()),
        };
        let (offset, count) = (self.next, batch.bytes.len());
        let key = archive.key(offset);
        let transport = archive.transport.to_string();
        let data = blocking(move || {
            let encoded = batch.encode();
            encoded.map_err(|source| Error::Damaged {
                offset,
                transport,
                source,
            })
        });
        let data = data.await?;
        let mut failures: u32 = 0;
        loop {
            let one = call(self.streamer.pool.as_ref()).await;
            let stored = archive.transport.put(&key, data.clone()).await;
            drop(one);
            let error = match stored {
                Ok(()) => {
                    self.done(count);
                    return self.sweep().await;
                }
                Err(transport::Error::AlreadyExists { .. }) => match self.look(&archive).await {
                    Ok(true) => return Ok(()),
                    // Gone again: deleted as too old, by a streamer with another limit.
                    Ok(false) => continue,
                    Err(Error::Transport(e)) => e,
                    Err(e) => return Err(e),
                },
                Err(e) => e,
            };
            if error.advice() == Advice::Report {
                return Err(error.into());
            }
            self.trouble(Some(error.to_string()));
            failures = failures.saturating_add(1);
            self.note_ask();
            if self.is_out_of_time() {
                return Err(self.not_put(error.to_string()));
            }
            let may_change = self.is_open && self.asked.is_none_or(|(ask, _)| ask != Ask::End);
            tokio::select! {
                () = sleep(RETRY.after(failures)) => {}
                // What was asked for is noted after the next try.
                _ = self.ask.changed(), if may_change => {}
            }
        }
    }

    /// Whether a batch lies at our offset; then we go on behind it.
    async fn look(&mut self, archive: &Archive) -> Result<bool> {
        let Some(theirs) = archive.batch(self.next).await? else {
            return Ok(false);
        };
        match compare(self.pending.bytes(), &theirs.bytes) {
            Theirs::Ours(count) => {
                self.done(count);
                Ok(true)
            }
            Theirs::Ahead => {
                let count = self.pending.bytes().len();
                let rest = theirs.bytes.get(count..).unwrap_or_default();
                self.rest = Some(Rest::of(self.next, rest));
                self.done(count);
                Ok(true)
            }
            Theirs::Other => Err(Error::Diverged {
                offset: self.next,
                transport: archive.transport.to_string(),
            }),
        }
    }

    /// So many bytes of ours lie there.
    fn done(&mut self, count: usize) {
        self.pending.done(count);
        self.next = self.next.saturating_add(count as u64);
        self.is_first = false;
        let next = self.next;
        self.streamer.standing.send_modify(|s| s.offset = next);
        self.trouble(None);
    }

    async fn sweep(&mut self) -> Result<()> {
        let Some(keep) = self.streamer.limits.keep else {
            return Ok(());
        };
        let Some(first) = self.next.checked_sub(keep) else {
            return Ok(());
        };
        // Seldom: each look is a listing.
        if first.saturating_sub(self.swept) > keep / 16 {
            self.swept = first;
            self.streamer
                .archive
                .forget_before(first)
                .await
                .ok_logged("what is older than is kept goes the next time");
        }
        Ok(())
    }

    fn trouble(&self, reason: Option<String>) {
        self.streamer.standing.send_if_modified(|s| {
            let was = s.trouble.take();
            let changed = was.is_some() != reason.is_some();
            s.trouble = reason.map(|reason| match was {
                Some((_, since)) => (reason, since),
                None => (reason, Instant::now()),
            });
            changed
        });
    }

    fn not_put(&self, reason: String) -> Error {
        let left = self.pending.bytes().len() as u64;
        Error::NotPut { left, reason }
    }
}

/// A turn for a call of the transport, where the pool counts these.
async fn call(pool: Option<&Arc<StreamPool>>) -> Option<OwnedSemaphorePermit> {
    match pool {
        Some(pool) => pool.call().await,
        None => None,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
