//! What a batch holds. It comes from another host: checked before use, refused
//! where it is newer than what this program knows.

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version written, and the newest read.
const VERSION: u8 = 1;

/// Bytes of the stream in a batch at most. Other programs may put more, but
/// never more than an object has.
pub(super) const MOST: usize = 1 << 20;

/// Before all else: version, flags, length of what is told, length of the bytes.
const HEAD: usize = 8;
const ZSTD: u8 = 1;
const AFTER_GAP: u8 = 2;

/// Fast, and console text shrinks to a third.
const ZSTD_LEVEL: i32 = 1;

/// A batch that cannot be what a streamer put.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DamagedBatch(String);

/// What is told with a batch, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The domain's name when it was put.
    pub name: String,
    /// The host that put it.
    pub host: String,
    /// When it was put, by that host's clock.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub at: Timestamp,
}

/// Some bytes of a VM's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The offset of the first one.
    pub offset: u64,
    /// Whether bytes are missing before it, nobody knows how many.
    pub after_gap: bool,
    /// Who put it, and when.
    pub about: About,
    /// The bytes, never none.
    pub bytes: Bytes,
}

impl Batch {
    /// The offset after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }

    /// As it is put into a transport: head, digest, what is told, bytes. The digest
    /// covers the offset too, so a batch under another's name is noticed.
    ///
    /// # Errors
    /// [`DamagedBatch`] where it is too large to be one.
    pub fn encode(&self) -> Result<Bytes, DamagedBatch> {
        let about = serde_json::to_vec(&self.about);
        let about = about.map_err(|e| DamagedBatch(e.to_string()))?;
        let packed = zstd::bulk::compress(&self.bytes, ZSTD_LEVEL).ok();
        let packed = packed.filter(|p| p.len() < self.bytes.len() - self.bytes.len() / 8);
        let mut flags = if packed.is_some() { ZSTD } else { 0 };
        if self.after_gap {
            flags |= AFTER_GAP;
        }
        let payload = packed.as_deref().unwrap_or(&self.bytes);
        frame(flags, self.offset, &about, &self.bytes, payload)
    }

    /// Reads what [`Batch::encode`] gave, under the offset that its name says.
    ///
    /// # Errors
    /// [`DamagedBatch`] where anything does not fit.
    pub fn decode(offset: u64, data: &[u8]) -> Result<Self, DamagedBatch> {
        let damaged = |what: &str| DamagedBatch(what.to_owned());
        let short = || damaged("it is too short");
        let (head, rest) = data.split_at_checked(HEAD).ok_or_else(short)?;
        let &[version, flags, a0, a1, l0, l1, l2, l3] = head else {
            return Err(short());
        };
        if version != VERSION || flags & !(ZSTD | AFTER_GAP) != 0 {
            return Err(damaged("a newer logchain wrote it"));
        }
        let (sum, rest) = rest.split_at_checked(blake3::OUT_LEN).ok_or_else(short)?;
        let about = usize::from(u16::from_le_bytes([a0, a1]));
        let (about, payload) = rest.split_at_checked(about).ok_or_else(short)?;
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3]));
        let len = len.map_err(|e| DamagedBatch(e.to_string()))?;
        if len == 0 || len > crate::transport::MAX_OBJECT {
            return Err(damaged("its length is none that is put"));
        }
        let bytes = if flags & ZSTD == 0 {
            payload.to_vec()
        } else {
            let bytes = zstd::bulk::decompress(payload, len);
            bytes.map_err(|e| DamagedBatch(e.to_string()))?
        };
        if bytes.len() != len || offset.checked_add(len as u64).is_none() {
            return Err(damaged("its length is not what it says"));
        }
        if digest(head, offset, about, &bytes) != *sum {
            return Err(damaged("its digest does not fit"));
        }
        let about = serde_json::from_slice(about).map_err(|e| DamagedBatch(e.to_string()))?;
        Ok(Self {
            offset,
            after_gap: flags & AFTER_GAP != 0,
            about,
            bytes: bytes.into(),
        })
    }
}

pub(super) fn frame(
    flags: u8,
    offset: u64,
    about: &[u8],
    bytes: &[u8],
    payload: &[u8],
) -> Result<Bytes, DamagedBatch> {
    let wrong = |e: std::num::TryFromIntError| DamagedBatch(e.to_string());
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u8(flags);
    out.put_u16_le(u16::try_from(about.len()).map_err(wrong)?);
    out.put_u32_le(u32::try_from(bytes.len()).map_err(wrong)?);
    let digest = digest(&out, offset, about, bytes);
    out.put_slice(&digest);
    out.put_slice(about);
    out.put_slice(payload);
    Ok(out.freeze())
}

fn digest(head: &[u8], offset: u64, about: &[u8], bytes: &[u8]) -> [u8; blake3::OUT_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(&offset.to_le_bytes());
    hasher.update(about).update(bytes);
    *hasher.finalize().as_bytes()
}
