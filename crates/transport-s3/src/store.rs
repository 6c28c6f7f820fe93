//! The four verbs on a store.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{join, join_all};
use futures_util::{StreamExt, stream};
use logchain_core::backoff::Backoff;
use logchain_core::ids::{ConsoleName, HandoffId};
use logchain_core::sentence;
use logchain_core::transport::{
    ByteStream, Entry, Error, Key, LIST_PAGE, LogTransport, MAX_OBJECT, ObjectName, Prefix, Result,
};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::ahead::{Opened, read_ahead};
use crate::buffers::Buffers;
use crate::failure::{Who, is_unclear};
use crate::url::Kind;

/// The metadata in which a put says which it is. Azure allows letters only.
const PUT_ID: &str = "logchainput";

/// How a put of unclear fate is tried again, beyond what the store's client does by itself.
const PUT_RETRY: Backoff =
    Backoff::doubling(Duration::from_millis(100), Duration::from_millis(400)).with_tries(3);

/// Creates of one key that a store is tried with at once, and their length in bytes.
const RACERS: u8 = 8;
const RACE_LEN: usize = 5000;

/// How long a call may take, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// Objects in a store, under a prefix. Works within a tokio runtime that has time.
pub struct StoreTransport {
    store: Arc<dyn ObjectStore>,
    who: Who,
    prefix: Path,
    patience: Duration,
    /// It lists in the order of names: a page is all that is asked for.
    ordered: bool,
    /// Objects carry no metadata there.
    plain: AtomicBool,
    buffers: Buffers,
}

impl StoreTransport {
    /// Objects under `prefix` in `store`; `name` is the store's for people, as
    /// `s3://bucket`.
    pub fn new(store: Arc<dyn ObjectStore>, name: &str, prefix: &str) -> Self {
        let prefix = Path::from(prefix);
        let name = if prefix.as_ref().is_empty() {
            name.to_owned()
        } else {
            format!("{}/{prefix}", name.trim_end_matches('/'))
        };
        Self {
            store,
            who: Who::new(name, Kind::Other),
            prefix,
            patience: PATIENCE,
            ordered: false,
            plain: AtomicBool::new(false),
            buffers: Buffers::default(),
        }
    }

    /// Bounds every call: what takes longer fails with [`Error::Timeout`]. 60 s
    /// unless set.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn of_kind(mut self, who: Who, ordered: bool) -> Self {
        self.who = who;
        self.ordered = ordered;
        self
    }

    /// Whether the store keeps its word that a create never overwrites: of some
    /// that come at once, too.
    ///
    /// # Errors
    /// [`Error::Denied`] where more than one create of a key succeeds: no handoff is safe there.
    pub async fn probe(&self) -> Result<()> {
        let console: ConsoleName = "probe".parse()?;
        let domain = "00000000-0000-0000-0000-000000000000";
        let handoff = HandoffId::random();
        let key = |object| format!("v1/{domain}/{console}/{handoff}/{object}").parse::<Key>();
        let there = key(ObjectName::Begin)?;
        let free = [key(ObjectName::Commit)?, key(ObjectName::Abort)?];
        // By itself, so that what is wrong with every put is said once.
        self.put(&there, Bytes::from_static(b"first")).await?;
        let (second, races) = join(
            self.count_winners(&there, 1),
            join_all(free.iter().map(|key| self.count_winners(key, RACERS))),
        )
        .await;
        let keys = free.iter().chain([&there]);
        let deleted = join_all(keys.map(|key| self.delete(key))).await;
        let mut careless = second? > 0;
        for winners in races {
            careless |= winners? > 1;
        }
        if careless {
            return Err(self.who.denied(
                "this store overwrites objects that exist already although it was told to create \
                 only; no handoff would be safe in it"
                    .to_owned(),
            ));
        }
        deleted.into_iter().collect()
    }

    /// How many of some creates of a key that come at once succeed.
    async fn count_winners(&self, key: &Key, racers: u8) -> Result<usize> {
        let puts = (0..racers).map(|n| self.put(key, Bytes::from(vec![n; RACE_LEN])));
        let mut winners = 0;
        for put in join_all(puts).await {
            match put {
                Ok(()) => winners += 1,
                Err(Error::AlreadyExists { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(winners)
    }

    fn path(&self, name: &str) -> Path {
        self.prefix
            .parts()
            .chain(Path::from(name).parts())
            .collect()
    }

    async fn within<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        match timeout(self.patience, work).await {
            Ok(done) => done,
            Err(_) => Err(self.who.late(what, self.patience)),
        }
    }

    /// Puts once; the object says which put it was, where the store keeps that.
    async fn put_once(&self, path: &Path, data: Bytes, id: &str) -> object_store::Result<()> {
        if !self.plain.load(Ordering::Relaxed) {
            let mut attributes = Attributes::new();
            attributes.insert(
                Attribute::Metadata(Cow::Borrowed(PUT_ID)),
                id.to_owned().into(),
            );
            let options = PutOptions {
                mode: PutMode::Create,
                attributes,
                ..PutOptions::default()
            };
            let put = self.store.put_opts(path, data.clone().into(), options);
            match put.await {
                // Nothing was done.
                Err(object_store::Error::NotImplemented { .. }) => {
                    debug!(
                        store = self.who.name(),
                        "put again without metadata, which it does not take"
                    );
                }
                put => return put.map(|_| ()),
            }
        }
        let options = PutOptions::from(PutMode::Create);
        self.store.put_opts(path, data.into(), options).await?;
        self.plain.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whose put an object is: `None` where there is no object, an empty id where
    /// it does not say.
    async fn whose(&self, path: &Path) -> object_store::Result<Option<String>> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match self.store.get_opts(path, options).await {
            Ok(there) => {
                let id = there
                    .attributes
                    .get(&Attribute::Metadata(Cow::Borrowed(PUT_ID)));
                Ok(Some(
                    id.map(|id| id.as_ref().to_owned()).unwrap_or_default(),
                ))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn put_surely(&self, name: &str, data: Bytes) -> Result<()> {
        let path = self.path(name);
        let id = HandoffId::random().to_string();
        let started = Instant::now();
        let mut waits = PUT_RETRY.start();
        loop {
            let error = match self.put_once(&path, data.clone(), &id).await {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            let failure = self.who.explain(name, &error);
            let may_help = if matches!(failure, Error::AlreadyExists { .. }) {
                match self.whose(&path).await {
                    // An earlier try of ours, whose answer was lost.
                    Ok(Some(theirs)) if theirs == id => {
                        debug!(name, "an earlier try put it, whose answer was lost");
                        return Ok(());
                    }
                    Ok(Some(_)) => return Err(failure),
                    // It crossed somebody's deletion.
                    Ok(None) => true,
                    Err(e) => return Err(self.who.explain(name, &e)),
                }
            } else {
                is_unclear(&error)
            };
            match waits.next(started.elapsed()) {
                Some(wait) if may_help => {
                    debug!(name, error = %sentence(&failure), ?wait, "put again: its fate is not clear");
                    sleep(wait).await;
                }
                _ => return Err(failure),
            }
        }
    }

    async fn get_parts(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let name = key.to_string();
        let path = self.path(&name);
        if let Some(range) = &range {
            // Stores shorten a range that leads beyond the end, and refuse an empty one.
            let head = self.store.head(&path).await;
            let head = head.map_err(|e| self.who.explain(&name, &e))?;
            if range.start > range.end || range.end > head.size {
                return Err(Error::BadRange {
                    transport: self.who.name().to_owned(),
                    key: name,
                });
            }
            if range.is_empty() {
                return Ok(stream::empty().boxed());
            }
        }
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let (store, who, patience) = (Arc::clone(&self.store), self.who.clone(), self.patience);
        let open = async move {
            let got = store.get_opts(&path, options).await;
            let got = got.map_err(|e| who.explain(&name, &e))?;
            let len = got.range.end.saturating_sub(got.range.start);
            let body = stream::unfold(Some(got.into_stream()), move |parts| {
                let (who, name) = (who.clone(), name.clone());
                async move {
                    let mut parts = parts?;
                    match timeout(patience, parts.next()).await {
                        Ok(Some(Ok(part))) => Some((Ok(part), Some(parts))),
                        Ok(Some(Err(e))) => Some((Err(broken(&who, &name, &e)), None)),
                        Ok(None) => None,
                        Err(_) => Some((Err(who.late("a part", patience)), None)),
                    }
                }
            });
            let body = body.boxed();
            Ok(Opened { len, body })
        };
        read_ahead(self.who.clone(), self.buffers.shelf(), open).await
    }

    async fn list_page(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let wanted = prefix.to_string();
        let path = self.path(&wanted);
        let mut listing = match after {
            None => self.store.list(Some(&path)),
            Some(after) => self
                .store
                .list_with_offset(Some(&path), &self.path(&after.to_string())),
        };
        let skip = self.prefix.as_ref().len();
        let mut found = Vec::new();
        while let Some(meta) = listing.next().await {
            let meta = meta.map_err(|e| match self.who.explain(&wanted, &e) {
                // A prefix without objects is none; what else is not there is the store.
                Error::NotFound { .. } => self
                    .who
                    .denied("there is no such bucket; make it, or name another".to_owned()),
                other => other,
            })?;
            let name = meta.location.as_ref().get(skip..).unwrap_or_default();
            // What does not read as a key is not ours.
            let Ok(key) = name.trim_start_matches('/').parse::<Key>() else {
                continue;
            };
            if prefix.matches(&key) && after.is_none_or(|after| key > *after) {
                found.push(Entry {
                    key,
                    size: meta.size,
                });
            }
            if self.ordered && found.len() >= LIST_PAGE {
                break;
            }
            // Not every store lists in order: keep the first ones, in bounded memory.
            if found.len() >= 4 * LIST_PAGE {
                first_page(&mut found);
            }
        }
        first_page(&mut found);
        Ok(found)
    }
}

/// A body that broke: whatever it says, another try may give it whole.
fn broken(who: &Who, name: &str, error: &object_store::Error) -> Error {
    match who.explain(name, error) {
        Error::Other { transport, reason } => Error::Unreachable { transport, reason },
        other => other,
    }
}

impl fmt::Display for StoreTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.who.name())
    }
}

impl fmt::Debug for StoreTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreTransport({})", self.who.name())
    }
}

#[async_trait]
impl LogTransport for StoreTransport {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let name = key.to_string();
        if data.len() > MAX_OBJECT {
            return Err(Error::TooLarge { key: name });
        }
        self.within("a put", self.put_surely(&name, data)).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        self.within("a get", self.get_parts(key, range)).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        self.within("a listing", self.list_page(prefix, after))
            .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let name = key.to_string();
        let path = self.path(&name);
        let work = async {
            let deleted = self.store.delete(&path).await;
            match deleted.map_err(|e| self.who.explain(&name, &e)) {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(e) => Err(e),
            }
        };
        self.within("a deletion", work).await
    }
}

fn first_page(found: &mut Vec<Entry>) {
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found.truncate(LIST_PAGE);
}
