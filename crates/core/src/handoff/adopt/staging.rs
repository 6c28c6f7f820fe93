//! What happens while a history comes: looks at the transport, pieces fetched and
//! staged, and shown as soon as they can be.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::sync::OnceCell;
use tracing::debug;

use super::state::Event;
use super::{Adoption, Milestone, Place, SourceLink, Visibility, now};
use crate::backoff::Backoff;
use crate::handoff::budget::Pace;
use crate::handoff::chunk::CHUNK_HEADER;
use crate::handoff::streamed::Reader;
use crate::handoff::{Chunk, Commit, Error, Handoff, Result};
use crate::placement::PendingAdoption;
use crate::sentence;
use crate::transport::{Advice, Entry, Key, LogTransport, LogTransportExt, MAX_OBJECT, ObjectName};

/// Between two tries to get one piece: one and a half seconds together.
const RETRY: Backoff =
    Backoff::doubling(Duration::from_millis(50), Duration::from_millis(800)).with_tries(5);

/// Time between two tries to show what is staged.
const SHOW: Duration = Duration::from_millis(50);

/// Chunks fetched side by side: as many as are put.
const AHEAD: usize = 12;

/// Chunks fetched between two looks for an end.
const MOST: usize = 64;

/// What a look at the transport came to.
enum Look {
    /// Staging is over.
    Over(Box<Event>),
    /// There is more to fetch.
    More,
    /// All that is there is staged.
    AllStaged,
}

/// Why staging cannot go on.
enum Failure {
    Failed(Error),
    /// What is in the transport is of no use to anybody.
    Damaged(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Failure> for Event {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Failed(error) => Self::Failed(error),
            Failure::Damaged(error) => Self::Damaged(error),
        }
    }
}

impl Adoption {
    /// Fetches until all is here, or the source gives up.
    pub(super) async fn stage(&mut self) -> Event {
        let mut last: Option<Key> = None;
        let mut news = Instant::now();
        let mut commit: Option<Commit> = None;
        let attached = self.was_attached();
        let mut told = false;
        loop {
            self.adopt.source.mark_unchanged();
            let gone = attached && !self.is_source_alive();
            let pace = Pace::begin();
            let look = match self.look(&mut last, &mut commit, &mut news).await {
                Ok(Look::Over(event)) => return *event,
                Ok(look) => look,
                Err(failure) => return failure.into(),
            };
            if gone && commit.is_none() {
                // What it has put, we have seen: no more will come. Another offer
                // finds nobody in its way.
                let why = "the source is gone before all was sent";
                return Event::Failed(Error::gave_up(why));
            }
            if !attached && news.elapsed() > self.adopt.patience {
                let waited = self.adopt.patience.as_secs();
                let why = format!("the source has been silent for {waited} s");
                return Event::Failed(Error::gave_up(why));
            }
            if commit.is_some() && news.elapsed() > self.adopt.patience {
                let reason = "all was sent, but the domain is not here";
                return Event::Failed(Error::gave_up(reason));
            }
            if matches!(look, Look::More) {
                continue;
            }
            let alive = self.is_source_alive();
            tokio::select! {
                () = pace.rest(&self.adopt.budget, told && alive) => {}
                Ok(()) = self.adopt.source.changed(), if alive => {
                    told = true;
                }
            }
        }
    }

    /// Whether the source's half holds this one by a connection. A caller that is gone cannot
    /// tell that it ended.
    pub(super) fn is_source_alive(&self) -> bool {
        let source = &self.adopt.source;
        matches!(*source.borrow(), SourceLink::Attached { .. }) && source.has_changed().is_ok()
    }

    /// Whether it does, or did: only then can it be gone.
    pub(super) fn was_attached(&self) -> bool {
        *self.adopt.source.borrow() != SourceLink::NeverAttached
    }

    async fn look(
        &mut self,
        last: &mut Option<Key>,
        commit: &mut Option<Commit>,
        news: &mut Instant,
    ) -> std::result::Result<Look, Failure> {
        if self.staging.is_none() {
            let place = match self.adopt.expected.clone() {
                Some(place) => Some(place),
                None => self.ask_place().await?,
            };
            if let Some(place) = place
                && let Some(event) = self.open(place, false).await?
            {
                return Ok(Look::Over(event.into()));
            }
        }
        let entries = match self
            .adopt
            .transport
            .list(&self.adopt.handoff.prefix(), last.as_ref())
            .await
        {
            Ok(entries) => entries,
            Err(e) if e.advice() == Advice::Retry => {
                debug!(error = %sentence(&e), "the transport is looked at again");
                return Ok(Look::AllStaged);
            }
            Err(e) => return Err(e.into()),
        };
        let was_committed = commit.is_some();
        let mut chunks = Vec::new();
        let mut expected = self.next;
        let mut more = false;
        for entry in entries {
            match entry.key.object {
                ObjectName::Abort if commit.is_none() => {
                    return Ok(Look::Over(Event::AbortSeen.into()));
                }
                ObjectName::Commit if commit.is_none() => {
                    *commit = self.commit().await?;
                    *news = Instant::now();
                }
                // What is not the next one is not there yet, or not ours.
                ObjectName::Chunk { offset, len } if offset == expected => {
                    if chunks.len() >= MOST {
                        more = true;
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
            return Ok(Look::Over(Event::AbortSeen.into()));
        }
        // All pieces were put before the commit was: what did not come is gone.
        let bytes = commit.as_ref().map_or(self.next, |c| c.bytes);
        if was_committed && chunks.is_empty() && bytes != self.next && self.staging.is_some() {
            let missing = format!(
                "of the {bytes} bytes that were sent, those from byte {} on are missing",
                self.next
            );
            return Err(Failure::Damaged(Error::gave_up(missing)));
        }
        if self.staging.is_some() && !chunks.is_empty() {
            *last = chunks.last().map(|e| e.key.clone());
            self.fetch(chunks).await?;
            *news = Instant::now();
            self.adopt.staged.send_replace(self.next);
        }
        if commit.is_none() && !more {
            self.show(last).await?;
        }
        let complete = commit.as_ref().is_some_and(|c| c.bytes == self.next);
        if complete
            && self.here(last).await?
            && let Some(commit) = commit.take()
        {
            return Ok(Look::Over(Event::Complete(commit).into()));
        }
        Ok(if more { Look::More } else { Look::AllStaged })
    }

    /// What is staged is seen as soon as it can be: where the domain is here, still
    /// paused, and libvirt has wiped what it wipes. If it cannot be, it is seen once
    /// it is placed.
    async fn show(&mut self, last: &mut Option<Key>) -> Result<()> {
        let due = match self.visibility {
            Visibility::NotYet(tried) => tried.is_none_or(|at| at.elapsed() > SHOW),
            Visibility::Settled => false,
        };
        if !due || self.next == 0 || self.staging.is_none() {
            return Ok(());
        }
        self.visibility = Visibility::NotYet(Some(Instant::now()));
        if !self.here(last).await? || self.staging.is_none() {
            return Ok(());
        }
        let Some(begin) = self.begin().await else {
            return Ok(());
        };
        let Some(so_far) = begin.history else {
            self.visibility = Visibility::Settled;
            return Ok(());
        };
        let owed = PendingAdoption {
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
                self.visibility = Visibility::Settled;
                self.tell(Milestone::Shown(bytes));
            }
            Err(error) => {
                debug!(error = %sentence(&error), "the history is seen once it is placed");
                self.visibility = Visibility::Settled;
            }
        }
        Ok(())
    }

    async fn ask_place(&self) -> Result<Option<Place>> {
        let place = self.adopt.destination.place().await;
        place.map_err(Error::Destination)
    }

    /// Whether the domain is here, and its log where pieces are staged.
    async fn here(&mut self, last: &mut Option<Key>) -> Result<bool> {
        let Some(place) = self.ask_place().await? else {
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
            self.adopt.budget.work(discard).await?;
        }
        self.adopt.expected = Some(place);
        self.next = 0;
        *last = None;
        Ok(false)
    }

    async fn fetch(&mut self, chunks: Vec<Entry>) -> std::result::Result<(), Failure> {
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
                    let room = budget.room(room_for(size, len)).await;
                    let fetched = async {
                        let data = get(&*transport, &key).await?;
                        let Some(offset) = Chunk::streamed_at(&data) else {
                            return Ok((data, None));
                        };
                        let at = (offset, u64::from(len));
                        let bytes = read_stream(&transport, handoff, reader, at).await?;
                        Ok::<_, Error>((data, Some(bytes)))
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
            let mut sum = std::mem::take(&mut self.sum);
            let memory = self.adopt.budget.memory();
            let work = move || {
                let _room = room;
                let mut buffer = memory.take(usize::try_from(len).unwrap_or(0));
                let chunk = match &streamed {
                    None => Chunk::read(&data, len, &mut sum, &mut buffer),
                    Some(bytes) => Chunk::decode_streamed(&data, bytes.as_slice(), &mut sum),
                };
                let added = match chunk {
                    Ok(chunk) => staging
                        .append(chunk.starts_file, chunk.bytes)
                        .map_err(Failure::from),
                    Err(e) => Err(Failure::Damaged(e.into())),
                };
                memory.give(buffer);
                Ok::<_, Error>((staging, sum, added))
            };
            let (staging, sum, added) = self.adopt.budget.work(work).await?;
            self.staging = Some(staging);
            self.sum = sum;
            added?;
            self.next = self.next.saturating_add(u64::from(len));
        }
        Ok(())
    }
}

/// Memory for a chunk: for its object, and for its bytes where they are not in it
/// as they are.
fn room_for(size: u64, len: u32) -> usize {
    let most = |n: u64| usize::try_from(n).unwrap_or(MAX_OBJECT).min(MAX_OBJECT);
    let bytes = if size == u64::from(len).saturating_add(CHUNK_HEADER as u64) {
        0
    } else {
        most(u64::from(len))
    };
    most(size).saturating_add(bytes)
}

/// Bytes of the stream that a piece says it is made of: fewer where they are not
/// there. The map of the stream is made once; again where it is too old.
async fn read_stream(
    transport: &Arc<dyn LogTransport>,
    handoff: &Handoff,
    reader: &OnceCell<Reader>,
    (offset, len): (u64, u64),
) -> Result<Vec<u8>> {
    if len > MAX_OBJECT as u64 {
        return Err(Error::gave_up("a piece is longer than any that is put"));
    }
    let open = || Reader::open(transport, handoff, offset);
    let known = reader.get_or_try_init(open).await?;
    let bytes = known.read(offset, len).await?;
    if bytes.len() as u64 == len {
        return Ok(bytes);
    }
    let again = open().await?;
    Ok(again.read(offset, len).await?)
}

/// One chunk, tried again while that may help.
async fn get(transport: &dyn LogTransport, key: &Key) -> Result<Bytes> {
    let started = Instant::now();
    let mut waits = RETRY.start();
    loop {
        let error = match transport.get_bytes(key, MAX_OBJECT as u64).await {
            Ok(data) => return Ok(data),
            Err(e) => e,
        };
        match waits.next(started.elapsed()) {
            Some(wait) if error.advice() == Advice::Retry => {
                debug!(error = %sentence(&error), %key, ?wait, "fetched again");
                tokio::time::sleep(wait).await;
            }
            _ => return Err(error.into()),
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
