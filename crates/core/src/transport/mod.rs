//! Where the pieces of a handoff lie between its two halves, and where a VM's
//! stream lies that is put as it grows.
//!
//! A transport has four verbs on objects that never change: [`LogTransport`].
//! Nothing is ever overwritten, so creating an object *is* the commit. What is
//! convenient beyond the four is in [`LogTransportExt`], for every transport.
//!
//! Must not know: networks, or what the objects hold.
//!
//! ```
//! use bytes::Bytes;
//! use logchain_core::ids::HandoffId;
//! use logchain_core::transport::{Error, Key, LogTransport, LogTransportExt, MemoryTransport, ObjectName, Prefix};
//! use uuid::Uuid;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let transport = MemoryTransport::new();
//! let key = Key {
//!     domain: Uuid::new_v4(),
//!     console: "serial0".parse()?,
//!     collection: HandoffId::random().into(),
//!     object: ObjectName::Chunk { offset: 0, len: 5 },
//! };
//! transport.put(&key, Bytes::from_static(b"hello")).await?;
//! // What is there stays as it is.
//! let again = transport.put(&key, Bytes::from_static(b"other")).await;
//! assert!(matches!(again, Err(Error::AlreadyExists { .. })));
//! assert_eq!(transport.get_bytes(&key, 1 << 20).await?, "hello");
//!
//! let prefix = Prefix::Domain(key.domain);
//! assert_eq!(transport.list_all(&prefix).await?.len(), 1);
//! transport.delete(&key).await?;
//! # Ok(())
//! # }
//! ```

pub mod check;
mod directory;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod key;
mod memory;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(test, feature = "conformance"))]
pub mod fault;

#[cfg(test)]
mod tests;

use std::fmt::{Debug, Display};
use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt};

pub use directory::DirectoryTransport;
pub use error::{Advice, Error, Result};
pub use key::{Collection, InvalidKey, Key, ObjectName, Prefix};
pub use memory::MemoryTransport;

/// Bytes that an object has at the most.
pub const MAX_OBJECT: usize = 8 << 20;

/// Entries that one listing has at the most.
pub const LIST_PAGE: usize = 1000;

/// Entries that [`LogTransportExt::list_all`] gives at the most: what is more is
/// no handoff of ours.
const LIST_ALL: usize = 1_000_000;

/// An object's bytes as they come.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
}

/// Where offered pieces lie until they are adopted. `Display` names it for people.
#[async_trait]
pub trait LogTransport: Display + Debug + Send + Sync + 'static {
    /// Creates an object, whole or not at all.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] where it exists; it is left as it is.
    async fn put(&self, key: &Key, data: Bytes) -> Result<()>;

    /// Reads an object, all of it or a range.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::BadRange`] where the range leads beyond its end.
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream>;

    /// The first objects with this prefix after `after`, in the order of their
    /// names, at most [`LIST_PAGE`]. It is no error if there are none.
    ///
    /// # Errors
    /// [`Error::Denied`] for [`Prefix::All`] where others' domains are none of our business.
    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>>;

    /// Deletes an object. It is no error if it is gone.
    async fn delete(&self, key: &Key) -> Result<()>;
}

/// What is convenient, for every transport.
#[async_trait]
pub trait LogTransportExt: LogTransport {
    /// All of an object of at most `max` bytes.
    ///
    /// # Errors
    /// As [`LogTransport::get`]; [`Error::Corrupt`] where it is larger.
    async fn get_bytes(&self, key: &Key, max: u64) -> Result<Bytes> {
        let mut parts = self.get(key, None).await?;
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(part) = parts.next().await {
            let part = part?;
            let had = first.len().max(all.len());
            if had.saturating_add(part.len()) as u64 > max {
                let reason = format!("{key} is larger than {max} bytes");
                return Err(Error::Corrupt {
                    transport: self.to_string(),
                    reason,
                });
            }
            // In one part it needs no copy.
            if had == 0 {
                first = part;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&part);
        }
        if all.is_empty() {
            return Ok(first);
        }
        Ok(all.freeze())
    }

    /// As [`LogTransportExt::get_bytes`]; `None` where there is no such object.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it is larger.
    async fn get_opt(&self, key: &Key, max: u64) -> Result<Option<Bytes>> {
        match self.get_bytes(key, max).await {
            Ok(data) => Ok(Some(data)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Creates an object, or finds that it is there with the same bytes: a put
    /// whose answer was lost is not taken for somebody else's.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] where it has other bytes.
    async fn put_same(&self, key: &Key, data: Bytes) -> Result<()> {
        match self.put(key, data.clone()).await {
            Err(taken @ Error::AlreadyExists { .. }) => {
                match self.get_opt(key, MAX_OBJECT as u64).await? {
                    Some(there) if there == data => Ok(()),
                    _ => Err(taken),
                }
            }
            other => other,
        }
    }

    /// As [`LogTransport::list`], and checked: in order, and all with this prefix.
    ///
    /// # Errors
    /// As [`LogTransport::list`]; [`Error::Corrupt`] where it is not as it must be.
    async fn list_page(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let page = self.list(prefix, after).await?;
        let mut last = after;
        for Entry { key, .. } in &page {
            let wrong = if last.is_some_and(|last| last >= key) {
                // One that stands still would never end.
                Some(format!("a listing of {prefix} out of order"))
            } else if !prefix.matches(key) {
                Some(format!("{key} in a listing of {prefix}"))
            } else {
                None
            };
            if let Some(reason) = wrong {
                let transport = self.to_string();
                return Err(Error::Corrupt { transport, reason });
            }
            last = Some(key);
        }
        Ok(page)
    }

    /// All objects with this prefix, page by page.
    ///
    /// # Errors
    /// As [`LogTransportExt::list_page`]; [`Error::Corrupt`] where there are too many to be ours.
    async fn list_all(&self, prefix: &Prefix) -> Result<Vec<Entry>> {
        list_all(self, prefix, |_| None).await
    }

    /// All objects of handoffs with this prefix. Streams, which may be long, are stepped over.
    ///
    /// # Errors
    /// As [`LogTransportExt::list_all`].
    async fn list_handoffs(&self, prefix: &Prefix) -> Result<Vec<Entry>> {
        list_all(self, prefix, |key| {
            // The last object that a stream can have.
            let object = ObjectName::Batch { offset: 0 };
            (key.collection == Collection::Stream).then(|| Key {
                object,
                ..key.clone()
            })
        })
        .await
    }
}

impl<T: LogTransport + ?Sized> LogTransportExt for T {}

/// All objects with this prefix; where `step` gives a key, this object and all up
/// to that key are left out.
async fn list_all<T: LogTransport + ?Sized>(
    transport: &T,
    prefix: &Prefix,
    step: impl Fn(&Key) -> Option<Key> + Send + Sync,
) -> Result<Vec<Entry>> {
    let mut all: Vec<Entry> = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = transport.list_page(prefix, after.as_ref()).await?;
        let Some(last) = page.last().map(|e| e.key.clone()) else {
            return Ok(all);
        };
        after = step(&last).or(Some(last));
        all.extend(page.into_iter().filter(|e| step(&e.key).is_none()));
        if all.len() > LIST_ALL {
            return Err(Error::Corrupt {
                transport: transport.to_string(),
                reason: format!("more than {LIST_ALL} objects under {prefix}"),
            });
        }
    }
}
