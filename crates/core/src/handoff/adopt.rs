//! The destination's half.
//!
//! ```text
//!              prepared              all is here         durable            names given
//!  Preparing ──────────► Staging ───────────────► Sealing ──────► Placing ─────────────► Receipting
//!                           │ abort, or failed                                               │
//!                           ▼                                                                ▼
//!                       Discarding ──► Aborted, Failed                           Cleaning ──► Adopted
//! ```
//!
//! *Preparing*, before the migration where the path is known: what this VM left
//! here at an earlier stay and handed over since is taken aside. *Staging*:
//! chunks are fetched and checked while the guest still runs elsewhere.
//! *Sealing*: of two destinations one gets past the claim, and that is **the commit point**: from here on it is placed, whatever is
//! killed. *Receipting*: only now does the source hear of it.
//!
//! Until it is sealed, every failure leaves this host as it was found.

mod state;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{OnceCell, mpsc, watch};

use state::{Event, State};

use super::budget::Pace;
use super::message::{MAX_MESSAGE, Message};
use super::streamed::Reader;
use super::{Begin, Budget, Chunk, Claim, Commit, Handoff, Receipt, now};
use crate::folder::{self, Folder};
use crate::follow::Writers;
use crate::placement::{self, Owed, Placed, Rules, Staging};
use crate::record::{Adopted, Record};
use crate::transport::{
    self, Advice, Entry, Error, Key, LogTransport, LogTransportExt, MAX_OBJECT, ObjectName,
};

/// Pause before a first further try.
const RETRY: Duration = Duration::from_millis(25);

/// Time between two tries to show what is staged.
const SHOW: Duration = Duration::from_millis(50);

/// Chunks fetched side by side.
const AHEAD: usize = 4;

/// Chunks fetched between two looks for an end.
const MOST: usize = 64;

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
    /// A sentence for people, where it can never be known.
    async fn place(&self) -> Result<Option<Place>, String>;
}

/// What the driver tells on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The migration may begin: nothing here is in its way.
    Ready,
    /// So many bytes are staged.
    Staged(u64),
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

/// What the driver needs.
pub struct Adopt {
    /// Which handoff.
    pub handoff: Handoff,
    /// This host's name, for people.
    pub host: String,
    /// Where the pieces are.
    pub transport: Arc<dyn LogTransport>,
    /// How writers are seen here.
    pub writers: Arc<dyn Writers>,
    /// Where the log lies, as libvirt here says.
    pub destination: Arc<dyn Destination>,
    /// Where the log will lie, if that is known before the migration.
    pub expected: Option<Place>,
    /// Whether the source's half is still there.
    pub source_alive: watch::Receiver<bool>,
    /// How long to go on without news once the source's half is gone, and how
    /// long the domain may take to appear once the history is complete.
    pub patience: Duration,
    /// What happens, for whoever watches. A full queue drops news, never waits.
    pub progress: mpsc::Sender<Progress>,
    /// What it may take, with all others that share it.
    pub budget: Budget,
}

impl Adopt {
    /// Runs the destination's half to its end. If the future is dropped, or the
    /// process killed, the next start finishes or undoes what was begun.
    pub async fn run(mut self) -> Outcome {
        self.transport = self.budget.bound(&self.transport);
        let mut desk = Desk {
            adopt: self,
            staging: None,
            hasher: blake3::Hasher::new(),
            next: 0,
            more: false,
            show: Show::Later(None),
            reader: OnceCell::new(),
            damaged: false,
        };
        let mut state = State::Preparing;
        loop {
            let event = match &state {
                State::Preparing => desk.prepare().await,
                State::Staging => desk.stage().await,
                State::Sealing(commit) => desk.seal(commit.clone()).await,
                State::Placing => desk.place().await,
                State::Receipting(receipt) => desk.receipt(receipt.clone()).await,
                State::Cleaning(_) => desk.clean().await,
                State::Discarding { .. } => desk.discard().await,
                State::Done(outcome) => return outcome.clone(),
            };
            state = state.on(event);
        }
    }
}

/// What an earlier run left of a handoff.
enum Found {
    New,
    Sealed,
    /// It is in place, or part of what is; the receipt where it is known.
    Adopted(Option<Receipt>),
}

fn receipt_again(adopted: &Adopted, host: String) -> Receipt {
    let sums = (adopted.bytes, adopted.digest.clone());
    Receipt::new(sums, host, adopted.dropped, adopted.placed.clone())
}

/// The work in hand.
struct Desk {
    adopt: Adopt,
    /// Absent while it is at work on another thread, or the folder is not there yet.
    staging: Option<Staging>,
    hasher: blake3::Hasher,
    /// The offset of the next byte to stage.
    next: u64,
    /// Whether the last look left something to fetch.
    more: bool,
    show: Show,
    /// Where pieces that are streamed are read.
    reader: OnceCell<Reader>,
    /// What is in the transport is of no use to anybody.
    damaged: bool,
}

/// Whether what is staged is seen before it is complete.
enum Show {
    /// Not yet; when it was tried last.
    Later(Option<Instant>),
    /// It is, or cannot be.
    Settled,
}

impl Desk {
    fn tell(&self, progress: Progress) {
        // Whoever does not listen misses it.
        let _ = self.adopt.progress.try_send(progress);
    }

    async fn prepare(&mut self) -> Event {
        if let Some(place) = self.adopt.expected.clone() {
            match self.open(place, true).await {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(reason) => return Event::Failed(reason),
            }
        }
        self.tell(Progress::Ready);
        Event::Prepared
    }

    /// Opens the staging at `place`. `Some`: an earlier run had gone further.
    /// A folder that is not there yet is left alone: an orchestrator that makes
    /// it may refuse one that exists.
    async fn open(&mut self, place: Place, before: bool) -> Result<Option<Event>, String> {
        let Handoff {
            domain,
            console,
            id,
        } = self.adopt.handoff.clone();
        let writers = Arc::clone(&self.adopt.writers);
        let host = self.adopt.host.clone();
        let work = move || -> Result<(Option<Staging>, Found), placement::Error> {
            let (log, base) = match Folder::of_file(&place.path) {
                Ok(found) => found,
                Err(folder::Error::NotFound { .. }) => return Ok((None, Found::New)),
                Err(e) => return Err(e.into()),
            };
            // Only a record that says so makes what lies here this VM's: the same
            // path may have been another's.
            let record = Record::read_any(&log, &base)?.filter(|r| r.is_of(domain, &console));
            let adopted = record.as_ref().and_then(|r| r.find_adopted(id));
            let contained = record.as_ref().is_some_and(|r| r.contains.contains(&id));
            if adopted.is_some() || contained {
                let receipt = adopted.map(|a| receipt_again(a, host));
                // Whatever staging is left of it goes now.
                let staging = Staging::open(&place.path, id, place.rules, writers)?;
                return Ok((Some(staging), Found::Adopted(receipt)));
            }
            let mut staging = Staging::open(&place.path, id, place.rules, writers)?;
            if staging.is_sealed() {
                return Ok((Some(staging), Found::Sealed));
            }
            if before {
                staging.retire(record.as_ref())?;
            }
            Ok((Some(staging), Found::New))
        };
        let (staging, found) = self
            .adopt
            .budget
            .work(work)
            .await
            .map_err(|e| e.to_string())?;
        self.staging = staging;
        self.hasher.reset();
        self.next = 0;
        Ok(match found {
            Found::New => None,
            Found::Sealed => Some(Event::WasSealed),
            Found::Adopted(Some(receipt)) => Some(Event::WasAdopted(receipt)),
            Found::Adopted(None) => {
                let commit = self.commit().await?.ok_or("its commit is gone")?;
                let (sums, host) = ((commit.bytes, commit.digest), self.adopt.host.clone());
                Some(Event::WasAdopted(Receipt::new(sums, host, 0, Vec::new())))
            }
        })
    }

    /// Fetches until all is here, or the source gives up.
    async fn stage(&mut self) -> Event {
        let mut last: Option<Key> = None;
        let mut news = Instant::now();
        let mut commit: Option<Commit> = None;
        // Only who was there can go.
        let attached = self.is_source_alive();
        loop {
            let gone = attached && !self.is_source_alive();
            let pace = Pace::begin();
            match self.look(&mut last, &mut commit, &mut news).await {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(reason) => return Event::Failed(reason),
            }
            if gone && commit.is_none() {
                // What it has put, we have seen: no more will come. Another offer
                // finds nobody in its way.
                return Event::Failed("the source is gone before all was sent".to_owned());
            }
            if !attached && news.elapsed() > self.adopt.patience {
                let waited = self.adopt.patience.as_secs();
                return Event::Failed(format!("the source has been silent for {waited} s"));
            }
            if commit.is_some() && news.elapsed() > self.adopt.patience {
                let reason = "all was sent, but the domain is not here";
                return Event::Failed(reason.to_owned());
            }
            if !self.more {
                pace.rest(&self.adopt.budget).await;
            }
        }
    }

    fn is_source_alive(&self) -> bool {
        let alive = &self.adopt.source_alive;
        *alive.borrow() && alive.has_changed().is_ok()
    }

    /// One look at the transport. `Some`: staging is over.
    async fn look(
        &mut self,
        last: &mut Option<Key>,
        commit: &mut Option<Commit>,
        news: &mut Instant,
    ) -> Result<Option<Event>, String> {
        if self.staging.is_none() {
            let place = match self.adopt.expected.clone() {
                Some(place) => Some(place),
                None => self.adopt.destination.place().await?,
            };
            if let Some(place) = place
                && let Some(event) = self.open(place, false).await?
            {
                return Ok(Some(event));
            }
        }
        let entries = match self
            .adopt
            .transport
            .list(&self.adopt.handoff.prefix(), last.as_ref())
            .await
        {
            Ok(entries) => entries,
            Err(e) if e.advice() == Advice::Retry => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let was_committed = commit.is_some();
        let mut chunks = Vec::new();
        let mut expected = self.next;
        self.more = false;
        for entry in entries {
            match entry.key.object {
                ObjectName::Abort if commit.is_none() => return Ok(Some(Event::AbortSeen)),
                ObjectName::Commit if commit.is_none() => {
                    *commit = self.commit().await?;
                    *news = Instant::now();
                }
                // What is not the next one is not there yet, or not ours.
                ObjectName::Chunk { offset, len } if offset == expected => {
                    if chunks.len() >= MOST {
                        self.more = true;
                        continue;
                    }
                    expected = expected.saturating_add(u64::from(len));
                    chunks.push(entry);
                }
                _ => {}
            }
        }
        // `abort` sorts before every chunk, so a listing after a chunk misses it.
        if commit.is_none() && last.is_some() && self.aborted().await? {
            return Ok(Some(Event::AbortSeen));
        }
        // All pieces were put before the commit was: what did not come is gone.
        let bytes = commit.as_ref().map_or(self.next, |c| c.bytes);
        if was_committed && chunks.is_empty() && bytes != self.next && self.staging.is_some() {
            self.damaged = true;
            return Err(format!(
                "of the {bytes} bytes that were sent, those from byte {} on are missing",
                self.next
            ));
        }
        if self.staging.is_some() && !chunks.is_empty() {
            *last = chunks.last().map(|e| e.key.clone());
            self.fetch(chunks).await?;
            *news = Instant::now();
            self.tell(Progress::Staged(self.next));
        }
        if commit.is_none() && !self.more {
            self.show(last).await?;
        }
        let complete = commit.as_ref().is_some_and(|c| c.bytes == self.next);
        if complete && self.here(last).await? {
            return Ok(commit.take().map(Event::Complete));
        }
        Ok(None)
    }

    /// What is staged is seen as soon as it can be: where the domain is here, still
    /// paused, and libvirt has wiped what it wipes. If it cannot be, it is seen once
    /// it is placed.
    async fn show(&mut self, last: &mut Option<Key>) -> Result<(), String> {
        let due = match self.show {
            Show::Later(tried) => tried.is_none_or(|at| at.elapsed() > SHOW),
            Show::Settled => false,
        };
        if !due || self.next == 0 || self.staging.is_none() {
            return Ok(());
        }
        self.show = Show::Later(Some(Instant::now()));
        if !self.here(last).await? || self.staging.is_none() {
            return Ok(());
        }
        let Some(begin) = self.begin().await else {
            return Ok(());
        };
        let Some(so_far) = begin.history else {
            self.show = Show::Settled;
            return Ok(());
        };
        let owed = Owed {
            domain: self.adopt.handoff.domain,
            console: self.adopt.handoff.console.clone(),
            bytes: self.next,
            history: so_far.up_to(self.next),
            digest: String::new(),
            from: begin.host,
            host: self.adopt.host.clone(),
            at: now(),
            contains: Vec::new(),
        };
        let bytes = self.next;
        // It may be seen later as well: no failure of this is one of the handoff.
        match self.with_staging(move |staging| staging.show(owed)).await {
            Ok(false) => {}
            Ok(true) => {
                self.show = Show::Settled;
                self.tell(Progress::Shown(bytes));
            }
            Err(_) => self.show = Show::Settled,
        }
        Ok(())
    }

    /// Whether the domain is here, and its log where pieces are staged.
    async fn here(&mut self, last: &mut Option<Key>) -> Result<bool, String> {
        let Some(place) = self.adopt.destination.place().await? else {
            return Ok(false);
        };
        let staged_at = self
            .staging
            .as_ref()
            .map(|s| s.folder().path().join(s.base()));
        if staged_at.as_deref() == Some(absolute(&place.path).as_path()) {
            return Ok(true);
        }
        // The destination's XML moved it: the next look stages anew beside the log.
        if let Some(staging) = self.staging.take() {
            let discard = move || staging.discard();
            self.adopt
                .budget
                .work(discard)
                .await
                .map_err(|e| e.to_string())?;
        }
        self.adopt.expected = Some(place);
        self.next = 0;
        *last = None;
        Ok(false)
    }

    async fn fetch(&mut self, chunks: Vec<Entry>) -> Result<(), String> {
        let transport = Arc::clone(&self.adopt.transport);
        let mut fetched = stream::iter(chunks)
            .map(|entry| {
                let (transport, budget) = (Arc::clone(&transport), self.adopt.budget.clone());
                let (handoff, reader) = (&self.adopt.handoff, &self.reader);
                async move {
                    let Entry { key, size } = entry;
                    let ObjectName::Chunk { len, .. } = key.object else {
                        return (key.object, Ok((Bytes::new(), None)), None);
                    };
                    // In line one after the other: what is next here has room first.
                    let most = |n: u64| usize::try_from(n).unwrap_or(MAX_OBJECT).min(MAX_OBJECT);
                    let room = most(size).saturating_add(most(u64::from(len)));
                    let room = budget.room(room).await;
                    let fetched = async {
                        let data = get(&*transport, &key).await?;
                        let Some(offset) = Chunk::streamed_at(&data) else {
                            return Ok((data, None));
                        };
                        let at = (offset, u64::from(len));
                        let bytes = read_stream(&transport, handoff, reader, at).await?;
                        Ok::<_, String>((data, Some(bytes)))
                    };
                    (key.object, fetched.await, Some(room))
                }
            })
            .buffered(AHEAD);
        while let Some((object, data, room)) = fetched.next().await {
            let (data, streamed) = data?;
            let ObjectName::Chunk { len, .. } = object else {
                continue;
            };
            let Some(mut staging) = self.staging.take() else {
                return Ok(());
            };
            let mut hasher = std::mem::take(&mut self.hasher);
            let work = move || {
                let _room = room;
                let chunk = match streamed {
                    None => Chunk::decode(&data, len),
                    Some(bytes) => Chunk::decode_streamed(&data, bytes),
                };
                let damaged = chunk.is_err();
                let added = chunk.map_err(|e| e.to_string()).and_then(|chunk| {
                    hasher.update(&chunk.bytes);
                    staging
                        .append(chunk.starts_file, &chunk.bytes)
                        .map_err(|e| e.to_string())
                });
                Ok::<_, String>((staging, hasher, damaged, added))
            };
            let (staging, hasher, damaged, added) = self.adopt.budget.work(work).await?;
            self.staging = Some(staging);
            self.hasher = hasher;
            self.damaged |= damaged;
            added?;
            self.next = self.next.saturating_add(u64::from(len));
        }
        Ok(())
    }

    async fn aborted(&self) -> Result<bool, String> {
        let key = self.adopt.handoff.key(ObjectName::Abort);
        match self.adopt.transport.get_opt(&key, MAX_MESSAGE).await {
            Ok(found) => Ok(found.is_some()),
            Err(e) if e.advice() == Advice::Retry => Ok(false),
            Err(e) => Err(e.to_string()),
        }
    }

    async fn commit(&self) -> Result<Option<Commit>, String> {
        let key = self.adopt.handoff.key(ObjectName::Commit);
        let data = self
            .adopt
            .transport
            .get_opt(&key, MAX_MESSAGE)
            .await
            .map_err(|e| e.to_string())?;
        data.map(|d| Commit::decode(&d))
            .transpose()
            .map_err(|e| e.to_string())
    }

    async fn seal(&mut self, commit: Commit) -> Event {
        let digest = self.hasher.finalize().to_hex();
        if digest.as_str() != commit.digest {
            self.damaged = true;
            let reason = "what arrived is not what was sent: the digests differ";
            return Event::Failed(reason.to_owned());
        }
        if let Err(reason) = self.claim().await {
            return Event::Failed(reason);
        }
        let (domain, console) = (
            self.adopt.handoff.domain,
            self.adopt.handoff.console.clone(),
        );
        let owed = Owed {
            domain,
            console: console.clone(),
            bytes: commit.bytes,
            history: commit.history(),
            digest: commit.digest,
            from: self.begin().await.map_or_else(String::new, |b| b.host),
            host: self.adopt.host.clone(),
            at: now(),
            contains: commit.contains,
        };
        let sealed = self.with_staging(move |staging| {
            let record = Record::read(staging.folder(), staging.base(), domain, &console)?;
            // The same bytes in another handoff, whose receipt got lost.
            let again = record.iter().flat_map(|r| &r.adopted).find(|a| {
                let same = (a.bytes, &a.digest) == (owed.bytes, &owed.digest);
                same && owed.contains.contains(&a.handoff)
            });
            if let Some(adopted) = again {
                return Ok(Some(receipt_again(adopted, owed.host)));
            }
            staging.owe(owed);
            staging.seal(record.as_ref())?;
            Ok(None)
        });
        match sealed.await {
            Ok(None) => Event::Sealed,
            Ok(Some(receipt)) => Event::WasAdopted(receipt),
            Err(reason) => Event::Failed(reason),
        }
    }

    /// Of all destinations that have it staged one goes on: this one, if it is the
    /// first, or was in an earlier run.
    async fn claim(&self) -> Result<(), String> {
        let Some(staging) = &self.staging else {
            return Err("the staging folder is gone".to_owned());
        };
        let folder = staging.folder().path();
        let id = std::fs::metadata(folder).map_err(|e| e.to_string())?;
        let place = format!("{} ({}:{})", folder.display(), id.dev(), id.ino());
        let claim = Claim::new(self.adopt.host.clone(), place);
        let data = claim.encode().map_err(|e| e.to_string())?;
        let key = self.adopt.handoff.key(ObjectName::Claim);
        match self.put(&key, data).await {
            Err(Error::AlreadyExists { .. }) => {}
            Ok(()) if self.commit().await?.is_some() => return Ok(()),
            // It is over, and all of it cleared: elsewhere.
            Ok(()) => {
                let _ = self.adopt.transport.delete(&key).await;
                return Err("another destination has taken this log in".to_owned());
            }
            Err(e) => return Err(e.to_string()),
        }
        let first = self.adopt.transport.get_opt(&key, MAX_MESSAGE).await;
        let first = first.map_err(|e| e.to_string())?;
        let first = first.map(|data| Claim::decode(&data)).transpose();
        let first = first.map_err(|e| e.to_string())?;
        Err(match first {
            Some(first) => format!(
                "{} takes this log in already, to {}; if it stopped there, let it go on there",
                first.host, first.place
            ),
            None => "another destination has taken this log in".to_owned(),
        })
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
                self.tell(Progress::Placed(placed.clone()));
                let host = self.adopt.host.clone();
                Event::Placed(Receipt::new(sums, host, placed.dropped, placed.files))
            }
            Ok((_, None)) => Event::Failed("it was placed by another program".to_owned()),
            Err(reason) => Event::Failed(reason),
        }
    }

    async fn begin(&self) -> Option<Begin> {
        let key = self.adopt.handoff.key(ObjectName::Begin);
        let data = self
            .adopt
            .transport
            .get_opt(&key, MAX_MESSAGE)
            .await
            .ok()??;
        Begin::decode(&data).ok()
    }

    async fn receipt(&mut self, receipt: Receipt) -> Event {
        let data = match receipt.encode() {
            Ok(data) => data,
            Err(e) => return Event::Failed(e.to_string()),
        };
        let key = self.adopt.handoff.key(ObjectName::Receipt);
        match self.put(&key, data).await {
            Ok(()) => Event::Receipted,
            Err(e) => Event::Failed(e.to_string()),
        }
    }

    /// Puts an object, trying again while that may help.
    async fn put(&self, key: &Key, data: Bytes) -> transport::Result<()> {
        let started = Instant::now();
        loop {
            match self.adopt.transport.put_same(key, data.clone()).await {
                Err(e)
                    if e.advice() == Advice::Retry && started.elapsed() < self.adopt.patience =>
                {
                    tokio::time::sleep(RETRY).await;
                }
                put => return put,
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
        cleaned.map_or_else(|e| Event::Failed(e.to_string()), |()| Event::Cleaned)
    }

    /// Puts this host back as it was and leaves nothing in the transport.
    async fn discard(&mut self) -> Event {
        if let Some(staging) = self.staging.take()
            && let Err(e) = self.adopt.budget.work(move || staging.discard()).await
        {
            return Event::Failed(e.to_string());
        }
        // A source that withdrew has nothing to look for here any more. One that
        // did not may still offer: then its pieces stay, unless they are damaged.
        // The source has all of it, and finding no commit sends all of it again.
        if self.damaged {
            let commit = self.adopt.handoff.key(ObjectName::Commit);
            let _ = self.adopt.transport.delete(&commit).await;
        }
        let is_over = match self.damaged {
            true => Ok(true),
            false => self.aborted().await,
        };
        let cleared = match is_over {
            Ok(true) => super::offer::clear(&*self.adopt.transport, &self.adopt.handoff).await,
            Ok(false) | Err(_) => Ok(()),
        };
        cleared.map_or_else(|e| Event::Failed(e.to_string()), |()| Event::Discarded)
    }

    async fn with_staging<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Staging) -> placement::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let Some(mut staging) = self.staging.take() else {
            return Err("the staging folder is gone".to_owned());
        };
        let (staging, result) = self
            .adopt
            .budget
            .work(move || {
                let result = work(&mut staging);
                Ok::<_, String>((staging, result))
            })
            .await?;
        self.staging = Some(staging);
        result.map_err(|e| e.to_string())
    }
}

/// Bytes of the stream that a piece says it is made of: fewer where they are not
/// there. The map of the stream is made once; again where it is too old.
async fn read_stream(
    transport: &Arc<dyn LogTransport>,
    handoff: &Handoff,
    reader: &OnceCell<Reader>,
    (offset, len): (u64, u64),
) -> Result<Vec<u8>, String> {
    if len > MAX_OBJECT as u64 {
        return Err("a piece is longer than any that is put".to_owned());
    }
    let open = || Reader::open(transport, handoff, offset);
    let text = |e: crate::archive::Error| e.to_string();
    let known = reader.get_or_try_init(open).await.map_err(text)?;
    let bytes = known.read(offset, len).await.map_err(text)?;
    if bytes.len() as u64 == len {
        return Ok(bytes);
    }
    let again = open().await.map_err(text)?;
    again.read(offset, len).await.map_err(text)
}

/// One chunk, tried again while that may help.
async fn get(transport: &dyn LogTransport, key: &Key) -> Result<Bytes, String> {
    let mut tries = 0;
    loop {
        match transport.get_bytes(key, MAX_OBJECT as u64).await {
            Ok(data) => return Ok(data),
            Err(e) if e.advice() == Advice::Retry && tries < 5 => {
                tries += 1;
                tokio::time::sleep(RETRY * (1 << tries)).await;
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
