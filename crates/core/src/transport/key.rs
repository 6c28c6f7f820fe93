//! Names of the objects in a transport: typed and checked. A listing comes from
//! outside; whatever does not read as a key is not ours.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::ids::{ConsoleName, HandoffId, InvalidId, uuid_as_written};

/// The layout of keys.
pub(super) const LAYOUT: &str = "v1";

/// A text that is no key, or no part of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct InvalidKey {
    text: String,
    what: &'static str,
}

fn invalid(text: &str, what: &'static str) -> InvalidKey {
    InvalidKey {
        text: text.chars().take(200).collect(),
        what,
    }
}

impl From<InvalidId> for InvalidKey {
    fn from(InvalidId { text, what }: InvalidId) -> Self {
        Self { text, what }
    }
}

/// What an object belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Collection {
    /// To a handoff.
    Handoff(HandoffId),
    /// To the VM's stream ([`crate::archive`]). Last, as its name is in the order of texts.
    Stream,
}

/// How [`Collection::Stream`] is written: no UUID, and behind all of them.
const STREAM: &str = "stream";

impl From<HandoffId> for Collection {
    fn from(id: HandoffId) -> Self {
        Self::Handoff(id)
    }
}

impl FromStr for Collection {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        if text == STREAM {
            return Ok(Self::Stream);
        }
        Ok(Self::Handoff(text.parse()?))
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handoff(id) => id.fmt(f),
            Self::Stream => f.write_str(STREAM),
        }
    }
}

/// One object of a handoff, or of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectName {
    /// Says what is coming.
    Begin,
    /// Bytes of the history.
    Chunk {
        /// Where they begin, in bytes from the handoff's first.
        offset: u64,
        /// How many there are.
        len: u32,
    },
    /// Says which destination takes it in: only one does.
    Claim,
    /// Says that all was put.
    Commit,
    /// Says that nothing more comes.
    Abort,
    /// Says that all is in place.
    Receipt,
    /// Bytes of a stream: the only object that a stream has, and no handoff.
    Batch {
        /// Where they begin in the VM's stream.
        offset: u64,
    },
}

impl ObjectName {
    /// Whether a collection of this kind has such objects.
    fn fits(&self, collection: &Collection) -> bool {
        matches!(self, Self::Batch { .. }) == matches!(collection, Collection::Stream)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("begin"),
            // Padded, so that the order of names is the order of bytes.
            Self::Chunk { offset, len } => write!(f, "chunk-{offset:020}-{len:010}"),
            Self::Claim => f.write_str("claim"),
            Self::Commit => f.write_str("commit"),
            Self::Abort => f.write_str("abort"),
            Self::Receipt => f.write_str("receipt"),
            // Counted down, so that a listing begins with the newest.
            Self::Batch { offset } => write!(f, "batch-{:020}", u64::MAX - offset),
        }
    }
}

impl FromStr for ObjectName {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let chunk = || {
            let (offset, len) = text.strip_prefix("chunk-")?.split_once('-')?;
            let name = Self::Chunk {
                offset: offset.parse().ok()?,
                len: len.parse().ok()?,
            };
            let Self::Chunk { offset, len } = name else {
                return None;
            };
            // Only as it would be written, and only where it can be.
            let fits = offset.checked_add(u64::from(len)).is_some() && len > 0;
            (fits && name.to_string() == text).then_some(name)
        };
        let batch = || {
            let left: u64 = text.strip_prefix("batch-")?.parse().ok()?;
            let name = Self::Batch {
                offset: u64::MAX - left,
            };
            (name.to_string() == text).then_some(name)
        };
        match text {
            "begin" => Ok(Self::Begin),
            "claim" => Ok(Self::Claim),
            "commit" => Ok(Self::Commit),
            "abort" => Ok(Self::Abort),
            "receipt" => Ok(Self::Receipt),
            _ => chunk()
                .or_else(batch)
                .ok_or_else(|| invalid(text, "the name of an object")),
        }
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of the texts: pieces by where they begin, batches the newest first.
impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |name: &Self| match *name {
            Self::Abort => (0, 0, 0),
            Self::Batch { offset } => (1, u64::MAX - offset, 0),
            Self::Begin => (2, 0, 0),
            Self::Chunk { offset, len } => (3, offset, len),
            Self::Claim => (4, 0, 0),
            Self::Commit => (5, 0, 0),
            Self::Receipt => (6, 0, 0),
        };
        place(self).cmp(&place(other))
    }
}

/// The name of an object: `v1/<domain uuid>/<console>/<handoff id>/<object>`, or
/// `v1/<domain uuid>/<console>/stream/<object>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// UUID of the domain.
    pub domain: Uuid,
    /// The console.
    pub console: ConsoleName,
    /// The handoff, or the stream.
    pub collection: Collection,
    /// The object.
    pub object: ObjectName,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            console,
            collection,
            object,
        } = self;
        write!(
            f,
            "{LAYOUT}/{}/{console}/{collection}/{object}",
            domain.hyphenated()
        )
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let fail = || invalid(text, "the key of an object");
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or_else(fail);
        if part()? != LAYOUT {
            return Err(fail());
        }
        let key = Self {
            domain: uuid_as_written(part()?).ok_or_else(fail)?,
            console: part()?.parse().map_err(|_| fail())?,
            collection: part()?.parse().map_err(|_| fail())?,
            object: part()?.parse().map_err(|_| fail())?,
        };
        if parts.next().is_some() || !key.object.fits(&key.collection) {
            return Err(fail());
        }
        Ok(key)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of the texts, byte by byte, which is the order of a listing.
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        fn console(key: &Key) -> impl Iterator<Item = u8> {
            // The slash belongs to the order: `a-b/` comes before `a/`.
            key.console.as_str().bytes().chain([b'/'])
        }
        self.domain
            .cmp(&other.domain)
            .then_with(|| console(self).cmp(console(other)))
            .then_with(|| self.collection.cmp(&other.collection))
            .then_with(|| self.object.cmp(&other.object))
    }
}

/// Which objects a listing is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// All of them.
    All,
    /// One domain's.
    Domain(Uuid),
    /// One console's.
    Console(Uuid, ConsoleName),
    /// One handoff's, or the stream's.
    Collection(Uuid, ConsoleName, Collection),
}

impl Prefix {
    /// Whether the listing has this key.
    #[must_use]
    pub fn matches(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Domain(domain) => *domain == key.domain,
            Self::Console(domain, console) => *domain == key.domain && *console == key.console,
            Self::Collection(domain, console, collection) => {
                *domain == key.domain && *console == key.console && *collection == key.collection
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LAYOUT}/")?;
        match self {
            Self::All => Ok(()),
            Self::Domain(domain) => write!(f, "{}/", domain.hyphenated()),
            Self::Console(domain, console) => write!(f, "{}/{console}/", domain.hyphenated()),
            Self::Collection(domain, console, collection) => {
                write!(f, "{}/{console}/{collection}/", domain.hyphenated())
            }
        }
    }
}
