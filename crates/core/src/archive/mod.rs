//! A VM's stream in a transport: put as it grows, and read from there when the
//! host, or the VM, is gone.
//!
//! ```text
//! log ──► Tap ──► Streamer ──► batches in a transport ──► Archive ──► reader
//!     (a thread)            v1/<domain>/<console>/stream/
//! ```
//!
//! Many streamers in one process share a [`StreamPool`]: one thread that looks at all their logs,
//! and bounds of memory, calls and threads.
//!
//! The stream lies in *batches*, an object each, which are named by the offset of
//! their first byte and never overwritten. Offsets mean the same byte on every
//! host, so any number of streamers put the same stream: at each offset the
//! first one wins, and the others go on behind what it put. That is all there is
//! between the source's streamer and the destination's, and between one that was
//! killed and the next. Bytes that differ are never taken for the same: a
//! streamer that finds others at an offset ends ([`Error::Diverged`]).
//!
//! A listing begins with the newest batch, so a tail costs one listing and the
//! batches that hold it, however long the stream is.
//!
//! Must not know: libvirt, migrations, any transport's name.
//!
//! ```
//! use std::sync::Arc;
//! use futures_util::TryStreamExt;
//! use logchain_core::archive::{Archive, Ask, Part, Streamer};
//! use logchain_core::chain::{LogChain, NumberingChoice};
//! use logchain_core::transport::MemoryTransport;
//! use tokio::sync::watch;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("console.log");
//! std::fs::write(&path, "all that the guest printed")?;
//! let archive = Archive::new(
//!     Arc::new(MemoryTransport::new()),
//!     uuid::Uuid::new_v4(),
//!     "serial0".parse()?,
//! );
//! let streamer = Streamer::new(archive.clone(), LogChain::open(&path, NumberingChoice::FromZero)?);
//! // Not to stay, but to put what is there.
//! let (_ask, asked) = watch::channel(Ask::End);
//! streamer.run(asked).await?;
//!
//! let end = archive.end().await?.ok_or("nothing was put")?;
//! let parts: Vec<Part> = archive.read(end.offset - 7, u64::MAX).await?.try_collect().await?;
//! assert!(matches!(&parts[..], [Part::Bytes { bytes, .. }] if bytes == "printed"));
//! # Ok(())
//! # }
//! ```

mod batch;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod heads;
mod pending;
mod pool;
mod read;
mod rest;
mod streamer;
mod sweep;
mod tap;
mod whence;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use uuid::Uuid;

pub use batch::{About, Batch, DamagedBatch};
pub use heads::{Head, heads};
pub use pool::{PoolLimits, StreamPool};
pub use read::{Map, Part};
pub use streamer::{Ask, Limits, StreamStatus, Streamer};

use crate::ids::ConsoleName;
use crate::offsets;
use crate::transport::{
    self, Collection, Key, LogTransport, LogTransportExt, MAX_OBJECT, ObjectName, Prefix,
};

/// Why a stream could not be put or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transport's answer.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The log's answer.
    #[error(transparent)]
    Log(#[from] offsets::Error),
    /// A batch is not what a streamer can have put.
    #[error("the batch at offset {offset} in {transport} cannot be used: {source}")]
    Damaged {
        /// The offset that its name says.
        offset: u64,
        /// The transport.
        transport: String,
        /// What is wrong.
        source: DamagedBatch,
    },
    /// The transport has other bytes at an offset than the log here.
    #[error(
        "{transport} has other bytes at offset {offset} than the log here: it is the stream of \
         another log, or this one lost count"
    )]
    Diverged {
        /// The first offset of the batch that differs.
        offset: u64,
        /// The transport.
        transport: String,
    },
    /// The transport has more of the stream than is known here: the VM came from
    /// elsewhere, and its history is not here yet.
    #[error(
        "{transport} has this VM's stream up to offset {archived}, and the log here is not known to \
         go on from there: its history was not brought here"
    )]
    NotHere {
        /// Where the stream ends in the transport.
        archived: u64,
        /// The transport.
        transport: String,
    },
    /// What was read could not be put in time.
    #[error(
        "{left} bytes could not be put: {reason}; they are in the log, and put at the next start"
    )]
    NotPut {
        /// How many.
        left: u64,
        /// Why.
        reason: String,
    },
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The stream of one console in a transport.
#[derive(Clone, Debug)]
pub struct Archive {
    transport: Arc<dyn LogTransport>,
    domain: Uuid,
    console: ConsoleName,
}

/// Where a stream ends.
#[derive(Clone, Debug)]
pub struct End {
    /// The offset after its last byte.
    pub offset: u64,
    /// Its last batch.
    pub last: Batch,
}

impl Archive {
    /// The stream of `console` of `domain`.
    #[must_use]
    pub fn new(transport: Arc<dyn LogTransport>, domain: Uuid, console: ConsoleName) -> Self {
        Self {
            transport,
            domain,
            console,
        }
    }

    /// UUID of the domain.
    #[must_use]
    pub fn domain(&self) -> Uuid {
        self.domain
    }

    /// The console.
    #[must_use]
    pub fn console(&self) -> &ConsoleName {
        &self.console
    }

    /// Where it lies.
    #[must_use]
    pub fn transport(&self) -> &Arc<dyn LogTransport> {
        &self.transport
    }

    fn key(&self, offset: u64) -> Key {
        Key {
            domain: self.domain,
            console: self.console.clone(),
            collection: Collection::Stream,
            object: ObjectName::Batch { offset },
        }
    }

    fn prefix(&self) -> Prefix {
        Prefix::Collection(self.domain, self.console.clone(), Collection::Stream)
    }

    /// A batch; `None` where there is none.
    async fn batch(&self, offset: u64) -> Result<Option<Batch>> {
        let key = self.key(offset);
        let Some(data) = self.transport.get_opt(&key, MAX_OBJECT as u64).await? else {
            return Ok(None);
        };
        let decoded = tokio::task::spawn_blocking(move || Batch::decode(offset, &data)).await;
        let decoded = decoded.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        decoded.map(Some).map_err(|source| Error::Damaged {
            offset,
            transport: self.transport.to_string(),
            source,
        })
    }

    /// Where the stream ends; `None` where nothing was put yet.
    ///
    /// # Errors
    /// The transport's; [`Error::Damaged`].
    pub async fn end(&self) -> Result<Option<End>> {
        loop {
            let page = self.transport.list_page(&self.prefix(), None).await?;
            let newest = page.first().and_then(|e| offset_of(&e.key));
            let Some(newest) = newest else {
                return Ok(None);
            };
            // Deleted since: then there are newer ones, or none.
            if let Some(last) = self.batch(newest).await? {
                return Ok(Some(End {
                    offset: last.end(),
                    last,
                }));
            }
        }
    }
}

fn offset_of(key: &Key) -> Option<u64> {
    match key.object {
        ObjectName::Batch { offset } => Some(offset),
        _ => None,
    }
}

#[cfg(test)]
impl Archive {
    /// A batch as some streamer put it.
    pub(crate) async fn put_for_test(&self, offset: u64, bytes: &'static [u8]) {
        let batch = Batch {
            offset,
            after_gap: false,
            about: About::default(),
            bytes: bytes::Bytes::from_static(bytes),
        };
        let data = batch.encode().unwrap();
        self.transport.put(&self.key(offset), data).await.unwrap();
    }
}
