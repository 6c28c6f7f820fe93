//! Names of the objects in a transport: typed and checked. A listing comes from
//! outside; whatever does not read as a key is not ours.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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

/// A domain's console, as `serial0`: 1 to 64 of `A-Z a-z 0-9 . _ -`, no dot first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConsoleName(String);

impl ConsoleName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One of our own, known to be good.
    pub(super) fn ours(name: &'static str) -> Self {
        Self(name.to_owned())
    }
}

impl FromStr for ConsoleName {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > 64 || text.starts_with('.') || !text.bytes().all(fits) {
            return Err(invalid(text, "the name of a console"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ConsoleName {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<ConsoleName> for String {
    fn from(name: ConsoleName) -> Self {
        name.0
    }
}

impl fmt::Display for ConsoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HandoffId(Uuid);

impl HandoffId {
    /// One that nobody has.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl FromStr for HandoffId {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        uuid(text)
            .map(Self)
            .ok_or_else(|| invalid(text, "the id of a handoff"))
    }
}

impl fmt::Display for HandoffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// One object of a handoff.
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
    /// Says that all was put.
    Commit,
    /// Says that nothing more comes.
    Abort,
    /// Says that all is in place.
    Receipt,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("begin"),
            // Padded, so that the order of names is the order of bytes.
            Self::Chunk { offset, len } => write!(f, "chunk-{offset:020}-{len:010}"),
            Self::Commit => f.write_str("commit"),
            Self::Abort => f.write_str("abort"),
            Self::Receipt => f.write_str("receipt"),
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
        match text {
            "begin" => Ok(Self::Begin),
            "commit" => Ok(Self::Commit),
            "abort" => Ok(Self::Abort),
            "receipt" => Ok(Self::Receipt),
            _ => chunk().ok_or_else(|| invalid(text, "the name of an object")),
        }
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of the texts: pieces by where they begin.
impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |name: &Self| match *name {
            Self::Abort => (0, 0, 0),
            Self::Begin => (1, 0, 0),
            Self::Chunk { offset, len } => (2, offset, len),
            Self::Commit => (3, 0, 0),
            Self::Receipt => (4, 0, 0),
        };
        place(self).cmp(&place(other))
    }
}

/// The name of an object: `v1/<domain uuid>/<console>/<handoff id>/<object>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// UUID of the domain.
    pub domain: Uuid,
    /// The console.
    pub console: ConsoleName,
    /// The handoff.
    pub handoff: HandoffId,
    /// The object.
    pub object: ObjectName,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            console,
            handoff,
            object,
        } = self;
        write!(
            f,
            "{LAYOUT}/{}/{console}/{handoff}/{object}",
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
            domain: uuid(part()?).ok_or_else(fail)?,
            console: part()?.parse().map_err(|_| fail())?,
            handoff: part()?.parse().map_err(|_| fail())?,
            object: part()?.parse().map_err(|_| fail())?,
        };
        if parts.next().is_some() {
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
            key.console.0.bytes().chain([b'/'])
        }
        self.domain
            .cmp(&other.domain)
            .then_with(|| console(self).cmp(console(other)))
            .then_with(|| self.handoff.cmp(&other.handoff))
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
    /// One handoff's.
    Handoff(Uuid, ConsoleName, HandoffId),
}

impl Prefix {
    /// Whether the listing has this key.
    #[must_use]
    pub fn matches(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Domain(domain) => *domain == key.domain,
            Self::Console(domain, console) => *domain == key.domain && *console == key.console,
            Self::Handoff(domain, console, handoff) => {
                *domain == key.domain && *console == key.console && *handoff == key.handoff
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
            Self::Handoff(domain, console, id) => {
                write!(f, "{}/{console}/{id}/", domain.hyphenated())
            }
        }
    }
}

/// Only in the form in which it is written.
pub(super) fn uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.hyphenated().to_string() == text).then_some(uuid)
}
