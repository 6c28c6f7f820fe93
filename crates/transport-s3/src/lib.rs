//! A [`LogTransport`] on any store that [`object_store`] reaches: S3 and what is
//! compatible with it, Google Cloud Storage, Azure, a local folder, memory.
//!
//! An embedder makes the store with the options it needs and gives it here:
//!
//! ```
//! use std::sync::Arc;
//! use logchain_transport_s3::StoreTransport;
//! use object_store::memory::InMemory;
//!
//! let transport = StoreTransport::new(Arc::new(InMemory::new()), "memory", "logs/console");
//! assert_eq!(transport.to_string(), "memory/logs/console");
//! ```
//!
//! All rests on one conditional write, `PutMode::Create`. Some stores accept it
//! and overwrite all the same: [`StoreTransport::probe`] finds that out.
//!
//! Must not know: what keys mean, what objects hold.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use logchain_core::transport::{
    ByteStream, ConsoleName, Entry, Error, HandoffId, Key, LIST_PAGE, LogTransport, MAX_OBJECT,
    ObjectName, Prefix, Result,
};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

/// Objects in a store, under a prefix.
pub struct StoreTransport {
    store: Arc<dyn ObjectStore>,
    name: String,
    prefix: Path,
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
            name,
            prefix,
        }
    }

    /// Whether the store keeps its word that a create never overwrites.
    ///
    /// # Errors
    /// [`Error::Denied`] where the second create of a key succeeds; what the
    /// store gives otherwise.
    pub async fn probe(&self) -> Result<()> {
        let console: ConsoleName = "probe".parse()?;
        let domain = "00000000-0000-0000-0000-000000000000";
        let handoff = HandoffId::random();
        let key: Key = format!("v1/{domain}/{console}/{handoff}/{}", ObjectName::Begin).parse()?;
        self.put(&key, Bytes::from_static(b"first")).await?;
        let second = self.put(&key, Bytes::from_static(b"second")).await;
        self.delete(&key).await?;
        match second {
            Err(Error::AlreadyExists { .. }) => Ok(()),
            Ok(()) => Err(Error::Denied {
                transport: self.name.clone(),
                reason: "this store overwrites objects that exist already although it was told to \
                         create only; no handoff would be safe in it"
                    .to_owned(),
            }),
            Err(e) => Err(e),
        }
    }

    fn path(&self, name: &str) -> Path {
        self.prefix
            .parts()
            .chain(Path::from(name).parts())
            .collect()
    }

    fn error(&self, key: &str, error: object_store::Error) -> Error {
        let (transport, key) = (self.name.clone(), key.to_owned());
        match error {
            object_store::Error::NotFound { .. } => Error::NotFound { transport, key },
            object_store::Error::AlreadyExists { .. }
            | object_store::Error::Precondition { .. } => Error::AlreadyExists { transport, key },
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. }
            | object_store::Error::UnknownConfigurationKey { .. }
            | object_store::Error::NotSupported { .. }
            | object_store::Error::NotImplemented { .. } => Error::Denied {
                transport,
                reason: error.to_string(),
            },
            // The store has tried again by itself; later may be better.
            object_store::Error::Generic { .. } => Error::Unreachable {
                transport,
                reason: error.to_string(),
            },
            _ => Error::Other {
                transport,
                reason: error.to_string(),
            },
        }
    }
}

impl fmt::Display for StoreTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for StoreTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreTransport({})", self.name)
    }
}

#[async_trait]
impl LogTransport for StoreTransport {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let name = key.to_string();
        if data.len() > MAX_OBJECT {
            return Err(Error::TooLarge { key: name });
        }
        let options = PutOptions::from(PutMode::Create);
        let put = self
            .store
            .put_opts(&self.path(&name), data.into(), options)
            .await;
        put.map(|_| ()).map_err(|e| self.error(&name, e))
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let name = key.to_string();
        let path = self.path(&name);
        if let Some(range) = &range {
            // Stores shorten a range that leads beyond the end, and refuse an empty one.
            let head = self
                .store
                .head(&path)
                .await
                .map_err(|e| self.error(&name, e))?;
            if range.start > range.end || range.end > head.size {
                return Err(Error::BadRange {
                    transport: self.name.clone(),
                    key: name,
                });
            }
            if range.is_empty() {
                return Ok(futures_util::stream::empty().boxed());
            }
        }
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let got = self
            .store
            .get_opts(&path, options)
            .await
            .map_err(|e| self.error(&name, e))?;
        let transport = self.name.clone();
        let parts = got.into_stream().map(move |part| {
            let transport = transport.clone();
            part.map_err(|e| Error::Unreachable {
                transport,
                reason: e.to_string(),
            })
        });
        Ok(parts.boxed())
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
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
            let meta = meta.map_err(|e| self.error(&wanted, e))?;
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
            // Not every store lists in order: keep the first ones, in bounded memory.
            if found.len() >= 4 * LIST_PAGE {
                first_page(&mut found);
            }
        }
        first_page(&mut found);
        Ok(found)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let name = key.to_string();
        match self.store.delete(&self.path(&name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.error(&name, e)),
        }
    }
}

fn first_page(found: &mut Vec<Entry>) {
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found.truncate(LIST_PAGE);
}
