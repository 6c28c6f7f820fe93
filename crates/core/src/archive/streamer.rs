//! Puts a log into a transport as it grows.
//!
//! ```text
//!              the log goes on from there       a batch is full, or due
//!  Finding the ───────────────────────► Reading ──────────────────────► Putting ─┐
//!  stream's end                            ▲                                     │
//!                                          └── stored, or found to be there ─────┘
//! ```

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::pending::{Pending, Theirs, compare};
use super::tap::{Tap, Tapped};
use super::{About, Archive, Batch, End, Error, Result};
use crate::OkLogged as _;
use crate::backoff::Backoff;
use crate::chain::{self, LogChain};
use crate::clock;
use crate::offsets::{self, Lookup, Offsets};
use crate::record::{self, Record};
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
}

impl Default for Limits {
    /// Five seconds, a GiB, ten seconds.
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(5),
            keep: Some(1 << 30),
            patience: Duration::from_secs(10),
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
        let end = self.archive.end().await?;
        let from = self.whence(end.as_ref()).await?;
        self.standing.send_modify(|s| s.offset = from);
        let chain = self.chain.try_clone().map_err(log)?;
        let tap = Tap::start(chain, StreamOffset::new(from)).map_err(|e| {
            Error::Transport(transport::Error::Other {
                transport: self.archive.transport.to_string(),
                reason: format!("cannot start a thread: {e}"),
            })
        })?;
        let mut work = Work {
            streamer: self,
            ask,
            ended: None,
            told: false,
            pending: Pending::default(),
            next: from,
            is_first: end.is_none(),
            ahead: 0,
            swept: 0,
        };
        work.run(tap).await
    }

    /// Where to go on: behind what the transport has, if the log here is the same
    /// stream as far as can be seen.
    async fn whence(&self, end: Option<&End>) -> Result<u64> {
        let (chain, archive) = (self.chain.try_clone().map_err(log)?, self.archive.clone());
        let Some(end) = end.cloned() else {
            return blocking(move || own(&chain, &archive)).await.map(|()| 0);
        };
        let archived = end.offset;
        let leave_gap = self.leave_gap;
        let goes_on = blocking(move || -> Result<bool> {
            let goes_on = goes_on(&chain, &archive, &end)?;
            if goes_on {
                own(&chain, &archive)?;
            } else if leave_gap {
                follow_on(&chain, &archive, end.offset)?;
            }
            Ok(goes_on || leave_gap)
        });
        if goes_on.await? {
            return Ok(archived);
        }
        let transport = self.archive.transport.to_string();
        Err(Error::NotHere {
            archived,
            transport,
        })
    }
}

/// Whether the log is the stream that `end` is the end of. Bytes decide where
/// both have some; where the rotation dropped them here, the record's word does.
fn goes_on(chain: &LogChain, archive: &Archive, end: &End) -> Result<bool> {
    let offsets = Offsets::of(chain)?;
    let (from, to) = (
        StreamOffset::new(end.last.offset),
        StreamOffset::new(end.offset),
    );
    if offsets.is_arriving() || offsets.layout(from)?.end() < to {
        return Ok(false);
    }
    let (mut at, mut seen) = (from, false);
    while at < to {
        let most = to.saturating_bytes_since(at);
        let mut run = match offsets.from(at, most)? {
            Lookup::Run(run) => run,
            Lookup::Gone { next, .. } => {
                at = next.max(at.saturating_add(1));
                continue;
            }
            Lookup::Beyond { .. } => break,
        };
        let mut bytes = Vec::new();
        let read = run.read_to_end(&mut bytes);
        read.map_err(|e| log(chain::Error::of_io(e, chain.path())))?;
        let into = usize::try_from(at.saturating_bytes_since(from)).unwrap_or(usize::MAX);
        let theirs = end.last.bytes.get(into..).unwrap_or_default();
        if bytes.is_empty() || theirs.get(..bytes.len()) != Some(&bytes) {
            return Ok(false);
        }
        seen = true;
        at = at.saturating_add(bytes.len() as u64);
    }
    let is_ours = |r: Record| r.is_of(archive.domain, &archive.console);
    let record = || chain.record().map_err(offsets::Error::from);
    Ok(seen || record()?.is_some_and(is_ours))
}

/// Puts down whose log it is: it is recognised when the VM comes back. Where
/// nothing can be written, it is streamed all the same.
fn own(chain: &LogChain, archive: &Archive) -> Result<()> {
    change(chain, archive, |_| ()).or_else(|e| match e {
        record::Error::Folder(e) if e.is_refusal() => Ok(()),
        e => Err(offsets::Error::from(e).into()),
    })
}

/// What is here follows what the transport has, after a gap.
fn follow_on(chain: &LogChain, archive: &Archive, offset: u64) -> Result<()> {
    let changed = change(chain, archive, |record| {
        record.ledger.go_on_at(StreamOffset::new(offset));
    });
    Ok(changed.map_err(offsets::Error::from)?)
}

fn change(
    chain: &LogChain,
    archive: &Archive,
    change: impl FnOnce(&mut Record),
) -> Result<(), record::Error> {
    let (folder, base) = (chain.folder(), chain.base_name());
    Record::update(folder, base, archive.domain, &archive.console, change)
}

fn log(error: chain::Error) -> Error {
    offsets::Error::from(error).into()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

/// A streamer at work.
struct Work {
    streamer: Streamer,
    ask: watch::Receiver<Ask>,
    /// Since when it is asked to end.
    ended: Option<Instant>,
    /// Whether the log's reader was told so.
    told: bool,
    pending: Pending,
    /// The offset of the next batch.
    next: u64,
    /// Whether nothing was ever put.
    is_first: bool,
    /// So many bytes must be read until another streamer's batch can be told.
    ahead: usize,
    /// Up to which offset old batches were looked for.
    swept: u64,
}

impl Work {
    async fn run(&mut self, mut tap: Tap) -> Result<u64> {
        loop {
            self.heed(&tap);
            let due = self.pending.due(self.streamer.limits.delay);
            let due = due.filter(|_| self.pending.bytes().len() >= self.ahead);
            let tapped = tokio::select! {
                // What is due goes first: a log that never rests would wait for ever.
                biased;
                () = at(due) => {
                    self.put().await?;
                    continue;
                }
                _ = self.ask.changed(), if !self.told => continue,
                tapped = tap.out.recv() => tapped,
            };
            match tapped {
                Some(Tapped::Bytes { offset, bytes }) => self.take(offset.get(), &bytes).await?,
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
        // A caller that is gone cannot be asked again.
        let ask = match self.ask.has_changed() {
            Ok(_) => *self.ask.borrow_and_update(),
            Err(_) if *self.ask.borrow() == Ask::Go => Ask::End,
            Err(_) => *self.ask.borrow(),
        };
        if ask != Ask::Go && !self.told {
            self.told = true;
            self.ended.get_or_insert_with(Instant::now);
            tap.end(ask == Ask::Drain);
        }
    }

    async fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let expected = self.next.saturating_add(self.pending.bytes().len() as u64);
        if offset > expected {
            let size = offset.checked_sub(expected);
            self.gap(offset, size).await?;
        }
        let doubled = usize::try_from(expected.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.pending
            .push(bytes.get(doubled..).unwrap_or_default(), Instant::now());
        while self.pending.is_full() && self.pending.bytes().len() >= self.ahead {
            self.put().await?;
        }
        Ok(())
    }

    async fn gap(&mut self, next: u64, size: Option<u64>) -> Result<()> {
        self.put_all().await?;
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
        // Whatever another streamer has beyond it: it has all that is here.
        self.ahead = 0;
        while !self.pending.bytes().is_empty() {
            self.put().await?;
            if self.ahead > 0 {
                self.done(self.pending.bytes().len());
            }
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
            let stored = archive.transport.put(&key, data.clone()).await;
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
            if self
                .ended
                .is_some_and(|at| at.elapsed() > self.streamer.limits.patience)
            {
                return Err(self.not_put(error.to_string()));
            }
            tokio::select! {
                () = sleep(RETRY.after(failures)) => {}
                changed = self.ask.changed(), if self.ended.is_none() => {
                    if changed.is_err() || *self.ask.borrow() != Ask::Go {
                        self.ended = Some(Instant::now());
                    }
                }
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
                self.ahead = theirs.bytes.len();
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
        (self.ahead, self.is_first) = (0, false);
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

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
