//! The destination's half.
//!
//! ```text
//!              prepared              all is here         durable            names given
//!  Preparing ──────────► Staging ───────────────► Sealing ──────► Placing ─────────────► Receipting
//!    │ shared folder        │ abort, or failed                                             ▲ │
//!    │                      ▼                                                              │ ▼
//!    │                  Discarding ──► Aborted, Failed                           Adopted ◄─│─ Cleaning
//!    │                      ▲ abort, or failed                                             │
//!    └─────────────────► Sharing ──────────────────────────────────────────────────────────┘
//!                                                  the guest has left
//! ```
//!
//! *Preparing*, before the migration where the path is known: what this VM left
//! here at an earlier stay and handed over since is taken aside. *Staging*:
//! chunks are fetched and checked while the guest still runs elsewhere.
//! *Sharing*: the source has this very folder, so nothing is fetched; the files are held
//! until its guest has left. *Sealing*: only one destination can put the claim. Then the
//! parts are synced and the journal is written; the journal is **the commit point**: from
//! here on the history is placed, whatever is killed. Killed between claim and journal, the
//! same handoff stages again, and its claim is known as its own. *Receipting*: only now does
//! the source hear of it. Preparing and Staging go on to Placing or Receipting where an
//! earlier run had sealed or placed the history.
//!
//! Until it is sealed, a failure is undone. Where that fails too, the outcome says so.

mod opening;
mod shared;
mod staging;
mod state;
mod trace;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OnceCell, mpsc, watch};
use tracing::{Instrument as _, debug};

use state::{Event, State, Undo};

use super::message::{MAX_MESSAGE, Message};
use super::streamed::Reader;
use super::trace::Half;
use super::{Begin, Budget, Claim, Commit, Error, Handoff, PATIENCE, Receipt, Result, Sum, now};
use crate::BoxError;
use crate::OkLogged as _;
use crate::backoff::Backoff;
use crate::follow::Writers;
use crate::placement::{self, Interleaved, PendingAdoption, Placed, Rules, Staging};
use crate::record::Record;
use crate::sentence;
use crate::transport::{self, Advice, Key, LogTransport, LogTransportExt, ObjectName};

/// Between two tries of one put.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(25), Duration::from_millis(250));

/// Where the log of the console lies on this host.
#[derive(Clone, Debug)]
pub struct Place {
    /// The base file.
    pub path: PathBuf,
    /// What the rotation here does.
    pub rules: Rules,
}

/// What only the caller can know of this host.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Where the log lies, once the domain is here; `None` until then.
    ///
    /// # Errors
    /// Why it can never be known: this half fails with it.
    async fn place(&self) -> std::result::Result<Option<Place>, BoxError>;
}

/// A place that is known: the log lies there already.
#[async_trait]
impl Destination for Place {
    async fn place(&self) -> std::result::Result<Option<Place>, BoxError> {
        Ok(Some(self.clone()))
    }
}

/// Whether the source's half holds this one by a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceLink {
    /// It does not: this half waits for news as long as its patience lasts.
    NeverAttached,
    /// It does, and says when it put something.
    Attached {
        /// How often it said so. This half looks at the transport each time, and once it
        /// was told so, it looks less often by itself.
        puts: u64,
    },
    /// It did, and the connection broke: nothing more will be put.
    Gone,
}

impl SourceLink {
    /// Attached, and nothing is put yet.
    pub const NEW: Self = Self::Attached { puts: 0 };

    /// The source's half put something.
    pub fn has_put(&mut self) {
        if let Self::Attached { puts } = self {
            *puts = puts.wrapping_add(1);
        }
    }
}

/// What the destination's half reaches on its way, each once at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// The source has this very folder: nothing is sent, the files stay where they are.
    Shared,
    /// Pieces can be staged from now on: there is a place for them. Told before
    /// [`Milestone::Ready`], or not at all.
    CanStage,
    /// The migration may begin: nothing here is in its way.
    Ready,
    /// What is staged is seen already, as rotated files, and so is what comes.
    Shown(u64),
    /// The history is in place.
    Placed(Placed),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is in place and the receipt given.
    Adopted(Receipt),
    /// The source withdrew it; this host is as it was found.
    Aborted,
    /// It could not be adopted.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The destination's half of one handoff: [`Adopt::new`] with what it needs, then what is to
/// be other than usual, then [`Adopt::run`].
#[must_use = "a half does nothing until it runs"]
pub struct Adopt {
    handoff: Handoff,
    host: String,
    transport: Arc<dyn LogTransport>,
    writers: Arc<dyn Writers>,
    destination: Arc<dyn Destination>,
    expected: Option<Place>,
    source: watch::Receiver<SourceLink>,
    patience: Duration,
    staged: watch::Sender<u64>,
    milestones: mpsc::Sender<Milestone>,
    budget: Budget,
}

impl Adopt {
    /// Adopts `handoff` from `transport`. `writers`: how it is found out here who writes the
    /// log; `destination`: where the log lies once the domain is here.
    pub fn new(
        handoff: Handoff,
        transport: Arc<dyn LogTransport>,
        writers: Arc<dyn Writers>,
        destination: Arc<dyn Destination>,
    ) -> Self {
        Self {
            handoff,
            host: String::new(),
            transport,
            writers,
            destination,
            expected: None,
            source: watch::Sender::new(SourceLink::NeverAttached).subscribe(),
            patience: PATIENCE,
            staged: watch::Sender::new(0),
            milestones: mpsc::channel(1).0,
            budget: Budget::default(),
        }
    }

    /// This host's name, which people read in the receipt and in messages.
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Where the log will lie, if that is known before the migration: what an earlier stay
    /// left there is taken aside at once, and pieces are staged before the domain is here.
    pub fn with_expected(mut self, place: impl Into<Option<Place>>) -> Self {
        self.expected = place.into();
        self
    }

    /// What is known of the source's half. Without it, that half counts as never attached.
    pub fn with_source(mut self, source: watch::Receiver<SourceLink>) -> Self {
        self.source = source;
        self
    }

    /// How long to go on without news from a source's half that was never attached, and how
    /// long the domain may take to appear once the history is complete: [`PATIENCE`], if
    /// nothing is said.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Counts the bytes that were staged, as [`Offer::with_progress`] counts those that were
    /// put.
    ///
    /// [`Offer::with_progress`]: super::offer::Offer::with_progress
    pub fn with_progress(mut self, staged: watch::Sender<u64>) -> Self {
        self.staged = staged;
        self
    }

    /// Where to tell what is reached. This half never waits for the queue: if it has no room
    /// for all variants of [`Milestone`], some may be dropped.
    pub fn with_milestones(mut self, milestones: mpsc::Sender<Milestone>) -> Self {
        self.milestones = milestones;
        self
    }

    /// What it may take, together with all others that share the budget.
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Runs the destination's half to its end. If the future is dropped, or the
    /// process killed, the next start finishes or undoes what was begun.
    pub async fn run(self) -> Outcome {
        let span = self.handoff.span(Half::Adopt);
        let half = async {
            let outcome = self.take_in().await;
            trace::outcome(&outcome);
            outcome
        };
        half.instrument(span).await
    }

    async fn take_in(mut self) -> Outcome {
        self.transport = self.budget.bound(&self.transport);
        let mut adoption = Adoption {
            adopt: self,
            staging: None,
            sum: Sum::default(),
            next: 0,
            visibility: Visibility::NotYet(None),
            reader: OnceCell::new(),
        };
        let mut state = State::Preparing;
        loop {
            let event = match &state {
                State::Preparing => adoption.prepare().await,
                State::Staging => adoption.stage().await,
                State::Sharing => adoption.share().await,
                State::Sealing(commit) => adoption.seal(commit.clone()).await,
                State::Placing => adoption.place().await,
                State::Receipting(receipt) => adoption.receipt(receipt.clone()).await,
                State::Cleaning(_) => adoption.clean().await,
                State::Discarding(undo) => adoption.discard(undo).await,
                State::Done(outcome) => return outcome.clone(),
            };
            trace::event(&event, adoption.next);
            state = state.on(event);
        }
    }
}

/// The work in hand.
struct Adoption {
    adopt: Adopt,
    /// Absent while it is at work on another thread, or the folder is not there yet.
    staging: Option<Staging>,
    sum: Sum,
    /// The offset of the next byte to stage.
    next: u64,
    visibility: Visibility,
    /// Where pieces that are streamed are read.
    reader: OnceCell<Reader>,
}

/// Whether what is staged is seen before it is complete.
enum Visibility {
    /// Not yet; when it was tried last.
    NotYet(Option<Instant>),
    /// It is, or cannot be.
    Settled,
}

impl Adoption {
    fn tell(&self, milestone: Milestone) {
        // Whoever does not listen misses it.
        let _ = self.adopt.milestones.try_send(milestone);
    }

    async fn aborted(&self) -> Result<bool> {
        let key = self.adopt.handoff.key(ObjectName::Abort);
        match self.adopt.transport.get_opt(&key, MAX_MESSAGE).await {
            Ok(found) => Ok(found.is_some()),
            Err(e) if e.advice() == Advice::Retry => {
                debug!(error = %sentence(&e), "whether it is withdrawn is asked again");
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn commit(&self) -> Result<Option<Commit>> {
        let key = self.adopt.handoff.key(ObjectName::Commit);
        let data = self.adopt.transport.get_opt(&key, MAX_MESSAGE).await?;
        Ok(data.map(|d| Commit::decode(&d)).transpose()?)
    }

    async fn seal(&mut self, commit: Commit) -> Event {
        let digest = self.sum.digest().to_hex();
        if digest.as_str() != commit.digest {
            let reason = "what arrived is not what was sent: the digests differ";
            return Event::Damaged(Error::gave_up(reason));
        }
        if let Err(error) = self.claim().await {
            return Event::Failed(error);
        }
        let (domain, console) = (
            self.adopt.handoff.domain,
            self.adopt.handoff.console.clone(),
        );
        let owed = self.owed(commit).await;
        let sealed = self.with_staging(move |staging| {
            let record = Record::read(staging.folder(), staging.base(), domain, &console)?;
            // The same bytes came here in another handoff, whose receipt got lost. Not where
            // this host handed them over since: then they come back, and are placed anew. Nor where
            // a boot has wiped them here.
            let never_left = record.iter().filter(|r| {
                r.brought_back(Some(&owed.contains)).is_none()
                    && staging.has_end_of(r, &owed.history)
            });
            let again = never_left.flat_map(|r| &r.adopted).find(|a| {
                let same = (a.bytes, &a.digest) == (owed.bytes, &owed.digest);
                same && owed.contains.contains(&a.handoff)
            });
            if again.is_some() {
                let placed = staging.place_again(&owed.history)?;
                let sums = (owed.bytes, owed.digest);
                let receipt = Receipt::new(sums, owed.host, placed.dropped, placed.files);
                return Ok(Some(receipt));
            }
            let sums = (owed.bytes, owed.digest.clone());
            let host = owed.host.clone();
            staging.owe(owed);
            if staging.interleave(record.as_ref())? == Interleaved::LiesHere {
                return Ok(Some(Receipt::new(sums, host, 0, Vec::new())));
            }
            staging.seal(record.as_ref())?;
            Ok(None)
        });
        match sealed.await {
            Ok(None) => Event::Sealed,
            Ok(Some(receipt)) => Event::WasAdopted(receipt),
            Err(error) => Event::Failed(error),
        }
    }

    /// Of all destinations that have it staged one goes on: this one, if it is the
    /// first, or was in an earlier run.
    async fn claim(&self) -> Result<()> {
        let Some(staging) = &self.staging else {
            return Err(Error::gave_up("nothing is staged for this handoff"));
        };
        let folder = staging.folder();
        let id = folder.id()?;
        // It has to be the same after a reboot, and another for another folder of this name.
        let born = id
            .born
            .map_or(String::new(), |(s, ns)| format!(" of {s}.{ns:09}"));
        let place = format!("{} (inode {}{born})", folder.path().display(), id.ino);
        let claim = Claim::new(self.adopt.host.clone(), place);
        let data = claim.encode()?;
        let key = self.adopt.handoff.key(ObjectName::Claim);
        match self.put(&key, data).await {
            Err(transport::Error::AlreadyExists { .. }) => {}
            Ok(()) if self.commit().await?.is_some() => return Ok(()),
            // There was room for our claim but the commit is gone: another destination took
            // the history in, and it was cleared.
            Ok(()) => {
                let deleted = self.adopt.transport.delete(&key).await;
                deleted.ok_logged("this claim stays until the transport's sweep removes it");
                return Err(Error::gave_up("another destination has taken this log in"));
            }
            Err(e) => return Err(e.into()),
        }
        let first = self.adopt.transport.get_opt(&key, MAX_MESSAGE).await?;
        let first = first.map(|data| Claim::decode(&data)).transpose()?;
        Err(Error::gave_up(match first {
            Some(first) => format!(
                "{} takes this log in already, to {}; if it stopped there, let it go on there",
                first.host, first.place
            ),
            None => "another destination has taken this log in".to_owned(),
        }))
    }

    async fn place(&mut self) -> Event {
        let placed = self.with_staging(|staging| {
            let placed = staging.place()?;
            staging.finish()?;
            let sums = staging.owed().map(|o| (o.bytes, o.digest.clone()));
            Ok((placed, sums))
        });
        match placed.await {
            Ok((placed, Some(sums))) => {
                self.tell(Milestone::Placed(placed.clone()));
                let host = self.adopt.host.clone();
                let receipt = Receipt::new(sums, host, placed.dropped, placed.files);
                Event::Placed(receipt.noting(placed.notes))
            }
            Ok((_, None)) => Event::Failed(Error::gave_up(
                "the journal does not say which history was placed",
            )),
            Err(error) => Event::Failed(error),
        }
    }

    /// What a commit has this host take in.
    async fn owed(&self, commit: Commit) -> PendingAdoption {
        PendingAdoption {
            domain: self.adopt.handoff.domain,
            console: self.adopt.handoff.console.clone(),
            bytes: commit.bytes,
            history: commit.history().in_segments_of(self.adopt.handoff.id),
            digest: commit.digest,
            from: self.begin().await.map_or_else(String::new, |b| b.host),
            host: self.adopt.host.clone(),
            at: now(),
            contains: commit.contains,
        }
    }

    async fn begin(&self) -> Option<Begin> {
        super::begin_of(&*self.adopt.transport, &self.adopt.handoff).await
    }

    async fn receipt(&mut self, receipt: Receipt) -> Event {
        let data = match receipt.encode() {
            Ok(data) => data,
            Err(e) => return Event::Failed(e.into()),
        };
        let key = self.adopt.handoff.key(ObjectName::Receipt);
        match self.put(&key, data).await {
            Ok(()) => Event::Receipted,
            Err(e) => Event::Failed(e.into()),
        }
    }

    /// Puts an object, trying again while that may help.
    async fn put(&self, key: &Key, data: Bytes) -> transport::Result<()> {
        let started = Instant::now();
        let mut waits = RETRY.within(self.adopt.patience).start();
        loop {
            let put = self.adopt.transport.put_same(key, data.clone()).await;
            let may_help = matches!(&put, Err(e) if e.advice() == Advice::Retry);
            match waits.next(started.elapsed()) {
                Some(wait) if may_help => {
                    put.ok_logged("it is put again");
                    tokio::time::sleep(wait).await;
                }
                _ => return put,
            }
        }
    }

    async fn clean(&mut self) -> Event {
        let Some(staging) = self.staging.take() else {
            return Event::Cleaned;
        };
        let work = move || {
            if staging.is_sealed() {
                staging.clean()
            } else {
                // It was in place already: what this run took aside goes back.
                staging.discard()
            }
        };
        let cleaned = self.adopt.budget.work(work).await;
        cleaned.map_or_else(|e| Event::Failed(e.into()), |()| Event::Cleaned)
    }

    /// Puts this host back as it was and leaves nothing in the transport.
    async fn discard(&mut self, undo: &Undo) -> Event {
        if let Some(staging) = self.staging.take()
            && let Err(e) = self.adopt.budget.work(move || staging.discard()).await
        {
            return Event::Failed(e.into());
        }
        // Withdrawn: its objects are cleared. Failed here: they stay, since the source may go
        // on. Damaged: the commit is deleted first, then the rest, so that the source, which
        // has all of it, finds no commit and sends all of it again.
        let is_over = match undo {
            Undo::Damaged(_) => {
                let commit = self.adopt.handoff.key(ObjectName::Commit);
                let deleted = self.adopt.transport.delete(&commit).await;
                deleted.ok_logged("the commit is deleted with the rest");
                Ok(true)
            }
            Undo::Withdrawn | Undo::Failed(_) => self.aborted().await,
        };
        let cleared = match is_over {
            Ok(true) => super::offer::clear(&*self.adopt.transport, &self.adopt.handoff).await,
            Ok(false) => Ok(()),
            Err(error) => {
                debug!(
                    error = %sentence(&error),
                    "the pieces stay until the transport's sweep removes them"
                );
                Ok(())
            }
        };
        cleared.map_or_else(|e| Event::Failed(e.into()), |()| Event::Discarded)
    }

    async fn with_staging<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Staging) -> placement::Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(mut staging) = self.staging.take() else {
            return Err(Error::gave_up("nothing is staged for this handoff"));
        };
        let (staging, result) = self
            .adopt
            .budget
            .work(move || {
                let result = work(&mut staging);
                Ok::<_, Error>((staging, result))
            })
            .await?;
        self.staging = Some(staging);
        Ok(result?)
    }
}
