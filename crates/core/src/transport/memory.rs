//! The reference: objects in memory, for tests and for one process.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::{ByteStream, Entry, Error, Key, LIST_PAGE, LogTransport, MAX_OBJECT, Prefix, Result};

/// Objects in memory.
#[derive(Default)]
pub struct MemoryTransport {
    objects: Mutex<BTreeMap<Key, Bytes>>,
}

impl MemoryTransport {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A panic elsewhere leaves the map whole: every change is one call.
    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryTransport({} objects)", self.objects().len())
    }
}

#[async_trait]
impl LogTransport for MemoryTransport {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        if data.len() > MAX_OBJECT {
            return Err(Error::TooLarge {
                key: key.to_string(),
            });
        }
        let mut objects = self.objects();
        if objects.contains_key(key) {
            let (transport, key) = (self.to_string(), key.to_string());
            return Err(Error::AlreadyExists { transport, key });
        }
        objects.insert(key.clone(), data);
        Ok(())
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let (transport, name) = (self.to_string(), key.to_string());
        let Some(data) = self.objects().get(key).cloned() else {
            return Err(Error::NotFound {
                transport,
                key: name,
            });
        };
        let data = match range {
            None => data,
            Some(range) => {
                let fits = range.start <= range.end && range.end <= data.len() as u64;
                let start = usize::try_from(range.start).ok().filter(|_| fits);
                let (Some(start), Ok(end)) = (start, usize::try_from(range.end)) else {
                    return Err(Error::BadRange {
                        transport,
                        key: name,
                    });
                };
                data.slice(start..end)
            }
        };
        Ok(stream::iter([Ok(data)]).boxed())
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let objects = self.objects();
        let later = objects
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| *key > after));
        let ours = later.filter(|(key, _)| prefix.matches(key)).take(LIST_PAGE);
        Ok(ours
            .map(|(key, data)| Entry {
                key: key.clone(),
                size: data.len() as u64,
            })
            .collect())
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.objects().remove(key);
        Ok(())
    }
}
