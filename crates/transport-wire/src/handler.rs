//! Who does what requests ask, and who may ask it.
//!
//! Must not know: how requests come.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::transport::{Error, Key, LogTransport, Prefix, Result};
use uuid::Uuid;

/// What is asked of the transport, without the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access<'a> {
    /// An object of so many bytes is to be created.
    Put {
        /// Its key.
        key: &'a Key,
        /// Its size in bytes.
        size: usize,
    },
    /// An object is to be read.
    Get {
        /// Its key.
        key: &'a Key,
    },
    /// A page of names is to be read.
    List {
        /// What they begin with.
        prefix: &'a Prefix,
    },
    /// An object is to be deleted.
    Delete {
        /// Its key.
        key: &'a Key,
    },
}

/// One of the four, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Create an object.
    Put,
    /// Read one.
    Get,
    /// Read names.
    List,
    /// Delete one.
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

impl Access<'_> {
    /// Which of the four it is.
    #[must_use]
    pub fn verb(&self) -> Verb {
        match self {
            Self::Put { .. } => Verb::Put,
            Self::Get { .. } => Verb::Get,
            Self::List { .. } => Verb::List,
            Self::Delete { .. } => Verb::Delete,
        }
    }

    /// The domain that it is about; `None` for a listing of everything.
    #[must_use]
    pub fn domain(&self) -> Option<Uuid> {
        match self {
            Self::Put { key, .. } | Self::Get { key } | Self::Delete { key } => Some(key.domain),
            Self::List { prefix } => match prefix {
                Prefix::All => None,
                Prefix::Domain(domain)
                | Prefix::Console(domain, _)
                | Prefix::Collection(domain, _, _) => Some(*domain),
            },
        }
    }
}

/// What a server does for one connection.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// What the four verbs are done on.
    fn transport(&self) -> &dyn LogTransport;

    /// Whether this may be done. Called before each request, on the runtime's thread: it must not
    /// block.
    ///
    /// # Errors
    /// Why not; it is what the other side is told.
    fn authorise(&self, access: &Access<'_>) -> Result<()> {
        let _ = access;
        Ok(())
    }

    /// An object was created. Called before the other side learns it.
    fn stored(&self, key: &Key) {
        let _ = key;
    }

    /// Answers a message of at most [`MAX_MESSAGE`](crate::MAX_MESSAGE) bytes with another one.
    ///
    /// # Errors
    /// Why not; it is what the other side is told.
    async fn message(&self, message: Bytes) -> Result<Bytes> {
        drop(message);
        Err(Error::Denied {
            transport: self.transport().to_string(),
            reason: "it answers no messages".to_owned(),
        })
    }
}

/// Lets the other side do everything on a transport, and answers no messages.
#[derive(Debug)]
pub struct Unrestricted(pub Arc<dyn LogTransport>);

impl Handler for Unrestricted {
    fn transport(&self) -> &dyn LogTransport {
        &*self.0
    }
}
