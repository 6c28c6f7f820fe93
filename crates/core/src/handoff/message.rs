//! What the objects of a handoff hold. All of it comes from another host:
//! checked before use, refused when newer than what this program knows.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::stream::History;
use crate::transport::{HandoffId, MAX_OBJECT};

/// The version written, and the newest read.
const VERSION: u32 = 1;

/// What any of them but a chunk may hold: they are small.
pub(super) const MAX_MESSAGE: u64 = 1 << 20;

/// Bytes before a chunk's payload: version, flags, two reserved, digest.
pub(super) const CHUNK_HEADER: usize = 4 + blake3::OUT_LEN;
const STARTS_FILE: u8 = 1;
const ZSTD: u8 = 2;
/// The payload is an offset: the bytes lie there in the VM's stream.
const STREAMED: u8 = 4;

/// Fast, and console text shrinks to a third.
const ZSTD_LEVEL: i32 = 1;

/// By so many bytes it is seen whether compressing pays.
const SAMPLE: usize = 32 << 10;

/// Compressed, where it is smaller by an eighth and more.
fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    let packed = zstd::bulk::compress(bytes, ZSTD_LEVEL).ok();
    packed.filter(|p| p.len() < bytes.len() - bytes.len() / 8)
}

/// An object that cannot be what its writer put there, or is too new.
#[derive(Debug, thiserror::Error)]
#[error("the handoff's {object} cannot be used: {what}")]
pub struct Damaged {
    object: &'static str,
    what: String,
}

impl Damaged {
    pub(super) fn new(object: &'static str, what: impl Into<String>) -> Self {
        Self {
            object,
            what: what.into(),
        }
    }
}

/// The source's first word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    version: u32,
    /// The domain's name at the source, for people.
    pub domain_name: String,
    /// The source's host name, for people.
    pub host: String,
    /// Seconds since 1970 at the source.
    pub at: u64,
    /// Where what is there now lies in the VM's stream, if that is known so early:
    /// what comes goes on behind it.
    #[serde(default)]
    pub history: Option<History>,
}

/// The source is over and its log drained: this is all there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    version: u32,
    /// Length of the history in bytes.
    pub bytes: u64,
    /// BLAKE3 of the history, in hex.
    pub digest: String,
    /// Why bytes were missed while it was followed, for people.
    pub missed: Vec<String>,
    /// Where it lies in the VM's stream.
    pub history: History,
    /// Other handoffs whose bytes it holds.
    pub contains: Vec<HandoffId>,
}

/// The one destination that takes it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    version: u32,
    /// Its host name, for people.
    pub host: String,
    /// Where it puts the history: the folder, so that hosts of one name differ,
    /// and a further run at the same place does not.
    pub place: String,
}

/// The migration failed: nothing more comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    version: u32,
    /// Why, for people.
    pub reason: String,
}

/// The destination's word that all is in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    version: u32,
    /// As in [`Commit`].
    pub bytes: u64,
    /// As in [`Commit`].
    pub digest: String,
    /// The destination's host name, for people.
    pub host: String,
    /// How many of the oldest bytes the rotation there does not keep.
    pub dropped: u64,
    /// The names given there and their sizes, newest first.
    pub placed: Vec<(String, u64)>,
}

impl Begin {
    pub(super) fn new(domain_name: String, host: String, history: Option<History>) -> Self {
        Self {
            version: VERSION,
            domain_name,
            host,
            at: super::now(),
            history,
        }
    }
}

impl Commit {
    pub(super) fn new(
        bytes: u64,
        digest: String,
        missed: Vec<String>,
        (history, contains): (History, Vec<HandoffId>),
    ) -> Self {
        Self {
            version: VERSION,
            bytes,
            digest,
            missed,
            history,
            contains,
        }
    }

    /// Where it lies in the VM's stream. A source whose runs make no sense lost
    /// count, not bytes: then all that is known is how many there are.
    pub(super) fn history(&self) -> History {
        if self.history.bytes() == Some(self.bytes) {
            self.history.clone()
        } else {
            History::of(self.bytes)
        }
    }
}

impl Claim {
    pub(super) fn new(host: String, place: String) -> Self {
        Self {
            version: VERSION,
            host,
            place,
        }
    }
}

impl Abort {
    pub(super) fn new(reason: String) -> Self {
        Self {
            version: VERSION,
            reason,
        }
    }
}

impl Receipt {
    pub(super) fn new(
        commit: (u64, String),
        host: String,
        dropped: u64,
        placed: Vec<(String, u64)>,
    ) -> Self {
        Self {
            version: VERSION,
            bytes: commit.0,
            digest: commit.1,
            host,
            dropped,
            placed,
        }
    }
}

/// Messages that are JSON with a version.
pub(super) trait Message: Serialize + DeserializeOwned {
    const OBJECT: &'static str;
    fn version(&self) -> u32;

    fn encode(&self) -> Result<Bytes, Damaged> {
        let json = serde_json::to_vec(self);
        json.map(Bytes::from)
            .map_err(|e| Damaged::new(Self::OBJECT, e.to_string()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let message: Self =
            serde_json::from_slice(bytes).map_err(|e| Damaged::new(Self::OBJECT, e.to_string()))?;
        if message.version() > VERSION {
            let what = format!("a newer logchain wrote it (version {})", message.version());
            return Err(Damaged::new(Self::OBJECT, what));
        }
        Ok(message)
    }
}

macro_rules! message {
    ($($name:ident = $object:literal),*) => {$(
        impl Message for $name {
            const OBJECT: &'static str = $object;
            fn version(&self) -> u32 {
                self.version
            }
        }
    )*};
}
message!(
    Begin = "begin",
    Claim = "claim",
    Commit = "commit",
    Abort = "abort",
    Receipt = "receipt"
);

/// Some bytes of the history, with their digest, compressed where it pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whether they begin a new file at the source.
    pub starts_file: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Chunk {
    /// As it is put into a transport, compressed where a look at its first part
    /// says that it pays.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let first = self.bytes.get(..SAMPLE).unwrap_or(&self.bytes);
        let pays = first.len() == self.bytes.len() || pack(first).is_some();
        self.encode_as(if pays { pack(&self.bytes) } else { None })
    }

    /// As it is put where sending takes less than compressing.
    #[must_use]
    pub fn encode_plain(&self) -> Bytes {
        self.encode_as(None)
    }

    /// As it is put where the bytes lie in the VM's stream already, from `offset` on.
    #[must_use]
    pub fn encode_streamed(&self, offset: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(CHUNK_HEADER.saturating_add(8));
        let flags = if self.starts_file { STARTS_FILE } else { 0 };
        out.put_slice(&[1, flags | STREAMED, 0, 0]);
        out.put_slice(blake3::hash(&self.bytes).as_bytes());
        out.put_u64_le(offset);
        out.freeze()
    }

    /// Where in the VM's stream the bytes of this object lie, if they lie there.
    #[must_use]
    pub fn streamed_at(data: &[u8]) -> Option<u64> {
        let (header, payload) = data.split_at_checked(CHUNK_HEADER)?;
        let payload = <[u8; 8]>::try_from(payload).ok()?;
        let is_streamed = header.get(1).is_some_and(|flags| flags & STREAMED != 0);
        is_streamed.then(|| u64::from_le_bytes(payload))
    }

    /// As [`Chunk::decode`], of an object whose bytes were read in the stream.
    ///
    /// # Errors
    /// [`Damaged`] where they are not those that were meant.
    pub fn decode_streamed(data: &[u8], bytes: Vec<u8>) -> Result<Self, Damaged> {
        let damaged = |what: &str| Damaged::new("chunk", what);
        let header = data.get(..CHUNK_HEADER);
        let header = header.ok_or_else(|| damaged("it is too short"))?;
        let (&[version, flags, ..], Some(digest)) = (header, header.get(4..)) else {
            return Err(damaged("it is too short"));
        };
        if version != 1 || flags & !STARTS_FILE != STREAMED {
            return Err(damaged("a newer logchain wrote it"));
        }
        if blake3::hash(&bytes).as_bytes() != digest {
            return Err(damaged("the stream has other bytes where it says"));
        }
        Ok(Self {
            starts_file: flags & STARTS_FILE != 0,
            bytes,
        })
    }

    fn encode_as(&self, packed: Option<Vec<u8>>) -> Bytes {
        let mut flags = if self.starts_file { STARTS_FILE } else { 0 };
        if packed.is_some() {
            flags |= ZSTD;
        }
        let payload = packed.as_deref().unwrap_or(&self.bytes);
        let mut out = BytesMut::with_capacity(CHUNK_HEADER.saturating_add(payload.len()));
        out.put_slice(&[1, flags, 0, 0]);
        out.put_slice(blake3::hash(&self.bytes).as_bytes());
        out.put_slice(payload);
        out.freeze()
    }

    /// Whether an object that begins with `header` holds this.
    pub(super) fn is_headed_by(&self, header: &[u8]) -> bool {
        let (Some(flags), Some(digest)) = (header.get(1), header.get(4..CHUNK_HEADER)) else {
            return false;
        };
        (flags & STARTS_FILE != 0) == self.starts_file
            && digest == blake3::hash(&self.bytes).as_bytes()
    }

    /// Reads what [`Chunk::encode`] gave; `len` is the length its key promises.
    /// Never takes more memory than that.
    ///
    /// # Errors
    /// [`Damaged`] where anything does not fit.
    pub fn decode(data: &[u8], len: u32) -> Result<Self, Damaged> {
        let (starts_file, bytes) = Self::read(data, len)?;
        let bytes = bytes.into_owned();
        Ok(Self { starts_file, bytes })
    }

    /// As [`Chunk::decode`]; bytes that are not compressed stay where they are.
    pub(super) fn read(data: &[u8], len: u32) -> Result<(bool, Cow<'_, [u8]>), Damaged> {
        let damaged = |what: &str| Damaged::new("chunk", what);
        let len = usize::try_from(len).map_err(|e| damaged(&e.to_string()))?;
        // The key comes from outside too.
        if len > MAX_OBJECT {
            return Err(damaged("it is longer than any that is put"));
        }
        let (header, payload) = data
            .split_at_checked(CHUNK_HEADER)
            .ok_or_else(|| damaged("it is too short"))?;
        let (&[version, flags, ..], Some(digest)) = (header, header.get(4..)) else {
            return Err(damaged("it is too short"));
        };
        if version != 1 || flags & !(STARTS_FILE | ZSTD) != 0 {
            return Err(damaged("a newer logchain wrote it"));
        }
        let bytes = if flags & ZSTD == 0 {
            Cow::Borrowed(payload)
        } else {
            let bytes = zstd::bulk::decompress(payload, len);
            Cow::Owned(bytes.map_err(|e| damaged(&e.to_string()))?)
        };
        if bytes.len() != len {
            return Err(damaged("its length is not what its name says"));
        }
        if blake3::hash(&bytes).as_bytes() != digest {
            return Err(damaged("its digest does not fit"));
        }
        Ok((flags & STARTS_FILE != 0, bytes))
    }
}
