//! The source's half.
//!
//! ```text
//!             begun              source over            drained
//!  Opening ─────────► Following ─────────────► Draining ─────────► Committing
//!     │                  │ migration failed       │                    │ committed
//!     │                  ▼                        │                    ▼
//!     │             Withdrawing ──► Aborted       │               Awaiting ──► Carried
//!     └──────── failed ──┴────────── failed ──────┴──── failed ────────┴──► NotCarried
//! ```
//!
//! *Following*: pieces are put while the guest runs here. *Draining*: the guest
//! is gone, what virtlogd still holds is read. *Committing*: **the commit
//! point**; it is written down beside the chain first, so that the same handoff
//! is taken up again, never begun twice. *Awaiting*: only the receipt lets the
//! source's copy go.
//!
//! Whatever fails, the migration is not told: the history is whole at the source.

mod held;
mod opening;
mod remaining;
mod shared;
mod state;
mod trace;

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tracing::{Instrument as _, debug};

pub use held::Held;
use held::{Chain, CommittedHistory, history, so_far};
pub use remaining::{Remaining, is_handed_over, remaining};
use state::{Event, State};

use super::budget::Pace;
use super::message::{MAX_MESSAGE, Message};
use super::pump::{Drained, Pump, Pumped};
use super::put::{AlreadyStored, Puts, Putter};
use super::stage::deletion_rank;
use super::streamed::Streamed;
use super::trace::Half;
use super::{Abort, Budget, Commit, Damaged, Error, Handoff, PATIENCE, Receipt, Result, now};
use crate::OkLogged as _;
use crate::folder::Folder;
use crate::follow::{Writers, prints};
use crate::record::{Offered, Record};
use crate::sentence;
use crate::stream::History;
use crate::transport::{self, Entry, LogTransport, LogTransportExt, ObjectName};

/// Deletions under way at once.
const DELETIONS: usize = 16;

/// How long the receipt is looked for once the connection to the other half
/// broke: it finishes what is committed.
const LOST: Duration = Duration::from_secs(5);

/// Within this time a receipt usually comes. One that does not is looked for less often.
const SOON: Duration = Duration::from_secs(2);

/// A transport that could not tell of the receipt is left alone for this long.
const AFTER_AN_ERROR: Duration = Duration::from_millis(250);

/// What the caller knows of the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The guest runs here, or may again.
    Running,
    /// The guest stands still here, about to go on there: what it printed last is
    /// wanted there at once. It may yet run here again.
    Stopped,
    /// The migration succeeded: the guest will never write here again.
    Over,
    /// The handoff is to be withdrawn: the migration failed and the guest stays here, or
    /// whoever offers was asked to stop.
    Stays,
}

/// What the caller knows of the other half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptStatus {
    /// Nothing against it.
    Working,
    /// It ended without success, and why.
    Failed(String),
    /// The connection to it broke: it may be at work still.
    Lost(String),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has all of it.
    Carried(Receipt),
    /// The handoff was withdrawn.
    Aborted,
    /// The history is whole here, but not at the destination.
    NotCarried {
        /// Why.
        reason: String,
    },
}

/// The source's half of one handoff: [`Offer::new`] with what it needs, then what is to be
/// other than usual, then [`Offer::run`].
#[must_use = "a half does nothing until it runs"]
pub struct Offer {
    pub(super) handoff: Handoff,
    domain_name: String,
    host: String,
    transport: Arc<dyn LogTransport>,
    writers: Arc<dyn Writers>,
    source: watch::Receiver<Source>,
    far: watch::Receiver<AdoptStatus>,
    patience: Duration,
    put: watch::Sender<u64>,
    budget: Budget,
}

impl Offer {
    /// Offers `handoff` through `transport`. `writers`: how it is found out here who writes
    /// the log; `source`: what the migration does.
    pub fn new(
        handoff: Handoff,
        transport: Arc<dyn LogTransport>,
        writers: Arc<dyn Writers>,
        source: watch::Receiver<Source>,
    ) -> Self {
        Self {
            handoff,
            domain_name: String::new(),
            host: String::new(),
            transport,
            writers,
            source,
            far: watch::Sender::new(AdoptStatus::Working).subscribe(),
            patience: PATIENCE,
            put: watch::Sender::new(0),
            budget: Budget::default(),
        }
    }

    /// The domain's name and this host's, which people read in the transport and in
    /// messages.
    pub fn with_names(mut self, domain: impl Into<String>, host: impl Into<String>) -> Self {
        self.domain_name = domain.into();
        self.host = host.into();
        self
    }

    /// What is known of the destination's half. Without it, that half is taken to be at
    /// work until the patience ends.
    pub fn with_adopt_status(mut self, far: watch::Receiver<AdoptStatus>) -> Self {
        self.far = far;
        self
    }

    /// How long to go on without any progress once the guest has left: [`PATIENCE`], if
    /// nothing is said.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Counts the bytes that were put. The channel also changes, to the same number, when
    /// the object that ends the handoff was put: whoever watches for the destination's half
    /// tells it at each change that there is something to fetch.
    pub fn with_progress(mut self, put: watch::Sender<u64>) -> Self {
        self.put = put;
        self
    }

    /// What it may take, together with all others that share the budget.
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// What [`Offer::with_progress`] says.
    pub(super) fn progress(&self) -> watch::Receiver<u64> {
        self.put.subscribe()
    }

    /// Runs the source's half to its end. Cancel it by dropping the future: the
    /// history stays whole here.
    pub async fn run(self, held: Held) -> Outcome {
        let span = self.handoff.span(Half::Offer);
        let half = async {
            let outcome = self.carry(held).await;
            trace::outcome(&outcome);
            outcome
        };
        half.instrument(span).await
    }

    async fn carry(mut self, held: Held) -> Outcome {
        let (follower, chain) = held.apart();
        trace::holds(follower.bytes());
        let so_far = so_far(&chain.record, &follower, &self.host);
        self.bound();
        let mut pump = match Pump::start(follower, Arc::clone(&self.writers), &self.budget) {
            Ok(pump) => Some(pump),
            Err(e) => return not_carried(sentence(&Error::Thread(e))),
        };
        let mut state = State::Opening;
        loop {
            let event = match &state {
                State::Opening => self.open(&chain, so_far.as_ref(), pump.as_mut()).await,
                State::Following(stored) => self.pump(pump.as_mut(), stored, false).await,
                State::Draining(stored) => self.pump(pump.as_mut(), stored, true).await,
                State::Committing(drained) => self.commit(drained, &chain).await,
                State::Awaiting(drained) => self.receipt(drained.bytes, &drained.digest).await,
                State::Withdrawing { .. } if chain.may_be_committed.load(Ordering::Relaxed) => {
                    Event::Withdrawn
                }
                State::Withdrawing { reason } => self.withdraw(reason.as_deref()).await,
                State::Done(Outcome::Carried(receipt)) => {
                    self.settle(&chain.folder, &chain.base).await;
                    return Outcome::Carried(receipt.clone());
                }
                State::Done(outcome) => return outcome.clone(),
            };
            // A put that gave up because the handoff is to be withdrawn is no failure of its own.
            let stays = *self.source.borrow() == Source::Stays;
            let event = if stays && matches!(event, Event::Failed(_)) && state.can_withdraw() {
                Event::Stays
            } else {
                event
            };
            trace::event(&event, *self.put.borrow());
            state = state.on(event);
            if !state.can_withdraw() {
                // Nothing is read from here on: its descriptors and its budget are given back.
                pump = None;
            }
        }
    }

    /// Begins it, or finds out how far an earlier run came.
    async fn open(
        &mut self,
        chain: &Chain,
        so_far: Option<&History>,
        pump: Option<&mut Pump>,
    ) -> Event {
        let there = match self.begin(chain, so_far.cloned()).await {
            Ok(there) => there,
            Err(error) => return Event::Failed(error),
        };
        if let Some(pump) = pump {
            pump.cut_as(there.clone());
        }
        // A handoff that was tried before does not refer to the stream, which may be why it
        // failed.
        let offered = chain.record.offered.as_ref();
        let again = chain.record.begun.is_some() || offered.is_some_and(|o| !o.received);
        let streamed = match so_far {
            Some(so_far) if !again => self.streamed(so_far).await,
            _ => Streamed::default(),
        };
        let may_be_committed = Arc::clone(&chain.may_be_committed);
        Event::Begun(Arc::new(AlreadyStored {
            there,
            streamed,
            may_be_committed,
        }))
    }

    /// From now on calls of the transport are made as the budget has it.
    fn bound(&mut self) {
        self.transport = self.budget.bound(&self.transport);
    }

    /// Puts pieces, some of them side by side, until the migration takes a turn or
    /// the log is drained. What is on its way arrives before it says so.
    async fn pump(
        &mut self,
        pump: Option<&mut Pump>,
        stored: &Arc<AlreadyStored>,
        draining: bool,
    ) -> Event {
        let Some(pump) = pump else {
            return Event::Failed(Error::gave_up("the log's reader ended"));
        };
        if draining {
            pump.drain();
        }
        let mut puts = Puts::default();
        let mut left_alone = false;
        loop {
            let source = *self.source.borrow_and_update();
            match source {
                Source::Stays => {
                    puts.settle().await;
                    return Event::Stays;
                }
                Source::Over if !draining => {
                    let over = puts.finish(&self.put).await;
                    return over.map_or_else(Event::Failed, |()| Event::Over);
                }
                Source::Stopped => pump.hurry(true),
                Source::Running => pump.hurry(false),
                Source::Over => {}
            }
            let pumped = tokio::select! {
                // Before new pieces: one that failed ends it.
                biased;
                changed = self.source.changed(), if !left_alone => match changed {
                    Ok(()) => continue,
                    // The caller is gone and will never say how the migration ended.
                    Err(_) if !draining => {
                        return Event::Failed(Error::gave_up("the migration was left alone"));
                    }
                    Err(_) => {
                        left_alone = true;
                        continue;
                    }
                },
                Some(done) = puts.next() => match done {
                    Ok(len) => {
                        self.put.send_modify(|put| *put = put.saturating_add(len));
                        continue;
                    }
                    Err(error) => {
                        puts.settle().await;
                        return Event::Failed(error);
                    }
                },
                pumped = pump.next(), if puts.has_room() => pumped,
            };
            match pumped {
                Some(Pumped::Piece(piece, up_to, room)) => {
                    puts.start(self.putter(Arc::clone(stored)), (piece, up_to), room);
                }
                Some(Pumped::Drained(drained)) => {
                    return match puts.finish(&self.put).await {
                        Ok(()) => Event::Drained(drained),
                        Err(error) => {
                            // What is on its way would come after all was cleared.
                            puts.settle().await;
                            Event::Failed(error)
                        }
                    };
                }
                Some(Pumped::Failed(error)) => {
                    puts.settle().await;
                    return Event::Failed(error);
                }
                None => return Event::Failed(Error::gave_up("the log's reader ended")),
            }
        }
    }

    async fn commit(&mut self, drained: &Drained, chain: &Chain) -> Event {
        let offered = Offered {
            handoff: self.handoff.id,
            to: self.transport.to_string(),
            bytes: drained.bytes,
            digest: drained.digest.clone(),
            at: now(),
            files: drained.files.iter().map(|f| (f.id, f.size)).collect(),
            prints: prints(&drained.files),
            received: false,
        };
        let _ = chain.committed.set(offered.clone());
        let told = match self.write_record(chain, drained, offered).await {
            Ok(told) => told,
            // A folder that is gone (Nova removes it) has no record to keep.
            Err(e) if folder_is_gone(&e) => history(
                &mut chain.record.clone(),
                &chain.known,
                drained,
                &self.host,
                self.handoff.id,
            ),
            Err(e) => return Event::Failed(e.into()),
        };
        let missed = drained.missed.iter().map(|m| m.why.to_owned()).collect();
        let commit = Commit::new(drained.bytes, drained.digest.clone(), missed, told);
        let put = self.put(ObjectName::Commit, commit.encode()).await;
        put.map_or_else(Event::Failed, |()| Event::Committed)
    }

    async fn write_record(
        &self,
        chain: &Chain,
        drained: &Drained,
        offered: Offered,
    ) -> std::result::Result<CommittedHistory, crate::record::Error> {
        let (folder, base) = (chain.folder.try_clone()?, chain.base.clone());
        let (handoff, host, drained) = (self.handoff.clone(), self.host.clone(), drained.clone());
        let known = Arc::clone(&chain.known);
        let work = move || {
            Record::update(&folder, &base, handoff.domain, &handoff.console, |record| {
                let told = history(record, &known, &drained, &host, handoff.id);
                record.offered = Some(offered);
                record.begun = None;
                told
            })
        };
        self.budget.work(work).await
    }

    async fn receipt(&mut self, bytes: u64, digest: &str) -> Event {
        let started = Instant::now();
        let mut lost = started;
        loop {
            // Before the look: what it did last, it did before it ended.
            let far = self.far.borrow().clone();
            let pace = Pace::begin();
            match await_receipt(&*self.transport, &self.handoff).await {
                Ok(Some(receipt)) if receipt.digest == digest && receipt.bytes == bytes => {
                    return Event::Received(receipt);
                }
                Ok(Some(_)) => {
                    let why = "the destination's receipt is for other bytes";
                    return Event::Failed(Error::gave_up(why));
                }
                Ok(None) => {}
                Err(error) if started.elapsed() > self.patience => return Event::Failed(error),
                Err(error) => {
                    debug!(error = %sentence(&error), "the receipt is looked for again");
                    tokio::time::sleep(AFTER_AN_ERROR).await;
                }
            }
            match far {
                AdoptStatus::Failed(reason) => return Event::Failed(Error::gave_up(reason)),
                AdoptStatus::Lost(reason) if lost.elapsed() > LOST => {
                    return Event::Failed(Error::gave_up(reason));
                }
                AdoptStatus::Lost(_) => {}
                AdoptStatus::Working => lost = Instant::now(),
            }
            if started.elapsed() > self.patience {
                let waited = self.patience.as_secs();
                let why = format!("the destination gave no receipt within {waited} s");
                return Event::Failed(Error::gave_up(why));
            }
            pace.rest(&self.budget, started.elapsed() > SOON).await;
        }
    }

    async fn withdraw(&mut self, reason: Option<&str>) -> Event {
        let abort = Abort::new(reason.unwrap_or("the source withdrew it").to_owned());
        let patience = std::mem::replace(&mut self.patience, Duration::ZERO);
        let put = self.put(ObjectName::Abort, abort.encode()).await;
        self.patience = patience;
        if let Err(error) = put {
            // A spool that has no room for it has some once the pieces are gone:
            // they are not wanted any more. The other half misses them.
            clear(&*self.transport, &self.handoff)
                .await
                .ok_logged("the pieces stay until the transport's sweep removes them");
            return Event::Failed(error);
        }
        Event::Withdrawn
    }

    async fn put(
        &self,
        object: ObjectName,
        data: std::result::Result<bytes::Bytes, Damaged>,
    ) -> Result<()> {
        self.putter(Arc::default()).put(object, data?).await?;
        self.put.send_modify(|_| ());
        Ok(())
    }

    fn putter(&self, stored: Arc<AlreadyStored>) -> Putter {
        Putter {
            handoff: self.handoff.clone(),
            transport: Arc::clone(&self.transport),
            source: self.source.clone(),
            far: self.far.clone(),
            patience: self.patience,
            budget: self.budget.clone(),
            stored,
        }
    }

    /// The receipt is here: put that down, and clear the transport. Neither can
    /// undo that the history arrived, so neither failure is one.
    async fn settle(&self, folder: &Folder, base: &OsStr) {
        const GIVEN_UP: &str = "the next offer asks for the receipt again";
        if let Some(folder) = folder.try_clone().ok_logged(GIVEN_UP) {
            let (handoff, base) = (self.handoff.clone(), base.to_owned());
            let work = move || {
                Record::update(&folder, &base, handoff.domain, &handoff.console, |record| {
                    let offered = record.offered.as_mut().filter(|o| o.handoff == handoff.id);
                    if let Some(offered) = offered {
                        offered.received = true;
                    }
                })
            };
            self.budget.work(work).await.ok_logged(GIVEN_UP);
        }
        clear(&*self.transport, &self.handoff)
            .await
            .ok_logged("what is received stays until the transport's sweep removes it");
    }
}

/// Takes up a handoff that was committed before: only its receipt is missing.
pub async fn resume(offer: Offer, folder: &Folder, base: &OsStr, offered: &Offered) -> Outcome {
    let span = offer.handoff.span(Half::Offer);
    let half = async {
        let mut offer = offer;
        offer.bound();
        debug!(bytes = offered.bytes, "committed by an earlier run");
        let outcome = match offer.receipt(offered.bytes, &offered.digest).await {
            Event::Received(receipt) => {
                offer.settle(folder, base).await;
                Outcome::Carried(receipt)
            }
            Event::Failed(error) => not_carried(sentence(&error)),
            _ => not_carried("the receipt did not come".to_owned()),
        };
        trace::outcome(&outcome);
        outcome
    };
    half.instrument(span).await
}

async fn await_receipt(transport: &dyn LogTransport, handoff: &Handoff) -> Result<Option<Receipt>> {
    let key = handoff.key(ObjectName::Receipt);
    let data = transport.get_opt(&key, MAX_MESSAGE).await?;
    Ok(data.map(|data| Receipt::decode(&data)).transpose()?)
}

/// Deletes a handoff's objects, its pieces side by side. If it is cut short, what is left
/// does not look like a handoff that waits for somebody.
pub async fn clear(transport: &dyn LogTransport, handoff: &Handoff) -> transport::Result<()> {
    let entries = transport.list_all(&handoff.prefix()).await?;
    let is_piece = |e: &Entry| matches!(e.key.object, ObjectName::Chunk { .. });
    let (pieces, mut rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_piece);
    let mut deletions = FuturesUnordered::new();
    for entry in &pieces {
        if deletions.len() >= DELETIONS {
            deletions.next().await.transpose()?;
        }
        deletions.push(transport.delete(&entry.key));
    }
    while let Some(deleted) = deletions.next().await {
        deleted?;
    }
    rest.sort_by_key(|e| deletion_rank(e.key.object));
    for entry in rest {
        transport.delete(&entry.key).await?;
    }
    Ok(())
}

fn folder_is_gone(error: &crate::record::Error) -> bool {
    use crate::folder::Error as Folder;
    matches!(error, crate::record::Error::Folder(Folder::NotFound { .. }))
}

fn not_carried(reason: String) -> Outcome {
    Outcome::NotCarried { reason }
}
