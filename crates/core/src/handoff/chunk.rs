//! A piece of a history as an object: what it says of itself, the check that it is
//! what was meant, and compression where it pays.
//!
//! Its digest is BLAKE3 of the history *up to its end*: one pass over the bytes at
//! either half checks each piece, its place, and in the end the whole.
//!
//! Must not know: how pieces are cut, put or staged.

use std::io::Cursor;

use blake3::{Hash, Hasher};
use bytes::Bytes;
use zstd::zstd_safe::{CParameter, ParamSwitch};

use super::memory::Spares;
use super::message::Damaged;
use crate::OkLogged as _;
use crate::transport::MAX_OBJECT;

/// Bytes before the payload: version, flags, two reserved, digest.
pub(super) const CHUNK_HEADER: usize = 4 + blake3::OUT_LEN;
/// 1 had a digest of the piece alone, and was never released.
const VERSION: u8 = 2;
const STARTS_FILE: u8 = 1;
const ZSTD: u8 = 2;
/// The payload is an offset: the bytes lie there in the VM's stream.
const STREAMED: u8 = 4;

/// Fast, and console text shrinks to a fourth: see [`packer`].
const ZSTD_LEVEL: i32 = -4;

/// By so many bytes it is seen whether compressing pays.
const SAMPLE: usize = 32 << 10;

/// BLAKE3 of a history from its first byte to the last one taken in.
#[derive(Clone, Debug, Default)]
pub struct Sum(Hasher);

impl Sum {
    /// Takes in the bytes that follow; gives the digest up to their end.
    pub fn add(&mut self, bytes: &[u8]) -> Hash {
        self.0.update(bytes).finalize()
    }

    /// The digest of all that was taken in.
    #[must_use]
    pub fn digest(&self) -> Hash {
        self.0.finalize()
    }
}

/// Some bytes of the history, and the digest of all up to their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<B = Bytes> {
    /// Whether they begin a new file at the source.
    pub starts_file: bool,
    /// The bytes.
    pub bytes: B,
    /// BLAKE3 of the history up to their end, as [`Sum::add`] gives it.
    pub up_to: Hash,
}

impl<B: AsRef<[u8]>> Chunk<B> {
    /// As it is put into a transport, compressed where a look at its first part
    /// says that it pays.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let bytes = self.bytes.as_ref();
        let first = bytes.get(..SAMPLE).unwrap_or(bytes);
        let pays = first.len() == bytes.len() || pack(&[], first).is_some();
        let packed = if pays {
            pack(&self.header(ZSTD), bytes)
        } else {
            None
        };
        packed.unwrap_or_else(|| self.encode_plain())
    }

    /// As it is put where sending takes less than compressing.
    #[must_use]
    pub fn encode_plain(&self) -> Bytes {
        self.with_header(0, self.bytes.as_ref())
    }

    /// As it is put where the bytes lie in the VM's stream already, from `offset` on.
    #[must_use]
    pub fn encode_streamed(&self, offset: u64) -> Bytes {
        self.with_header(STREAMED, &offset.to_le_bytes())
    }

    fn with_header(&self, kind: u8, payload: &[u8]) -> Bytes {
        [&self.header(kind), payload].concat().into()
    }

    fn header(&self, kind: u8) -> [u8; CHUNK_HEADER] {
        let flags = kind | if self.starts_file { STARTS_FILE } else { 0 };
        let mut header = [0; CHUNK_HEADER];
        let (start, digest) = header.split_at_mut(4);
        start.copy_from_slice(&[VERSION, flags, 0, 0]);
        digest.copy_from_slice(self.up_to.as_bytes());
        header
    }

    /// As [`Chunk::decode`], of an object whose bytes were read in the stream.
    ///
    /// # Errors
    /// [`Damaged`] where they are not those that were meant.
    pub fn decode_streamed(data: &[u8], bytes: B, before: &mut Sum) -> Result<Self, Damaged> {
        let header = Header::read(data)?;
        if header.kind != STREAMED {
            return Err(another_release());
        }
        header
            .check(bytes, before)
            .ok_or_else(|| damaged("the stream has other bytes where it says"))
    }

    /// Whether an object that begins with `header` holds this.
    pub(super) fn is_headed_by(&self, header: &[u8]) -> bool {
        Header::read(header)
            .is_ok_and(|h| (h.starts_file, h.up_to) == (self.starts_file, self.up_to))
    }
}

impl Chunk {
    /// Where in the VM's stream the bytes of this object lie, if they lie there.
    #[must_use]
    pub fn streamed_at(data: &[u8]) -> Option<u64> {
        let (header, payload) = data.split_at_checked(CHUNK_HEADER)?;
        let payload = <[u8; 8]>::try_from(payload).ok()?;
        let is_streamed = header.get(1).is_some_and(|flags| flags & STREAMED != 0);
        is_streamed.then(|| u64::from_le_bytes(payload))
    }

    /// Reads what [`Chunk::encode`] gave; `len` is the length its key promises, and
    /// `before` has taken in all that comes before it. Never takes more memory than
    /// that.
    ///
    /// # Errors
    /// [`Damaged`] where anything does not fit; `before` is of no use then.
    pub fn decode(data: &[u8], len: u32, before: &mut Sum) -> Result<Self, Damaged> {
        let mut buffer = Vec::new();
        let chunk = Chunk::read(data, len, before, &mut buffer)?;
        Ok(Self {
            starts_file: chunk.starts_file,
            bytes: Bytes::copy_from_slice(chunk.bytes),
            up_to: chunk.up_to,
        })
    }
}

impl<'a> Chunk<&'a [u8]> {
    /// As [`Chunk::decode`]; what is compressed is unpacked into `buffer`, the rest
    /// stays where it is.
    pub(super) fn read(
        data: &'a [u8],
        len: u32,
        before: &mut Sum,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Self, Damaged> {
        let len = usize::try_from(len).map_err(|e| damaged(&e.to_string()))?;
        // The key comes from outside too.
        if len > MAX_OBJECT {
            return Err(damaged("it is longer than any that is put"));
        }
        let header = Header::read(data)?;
        let payload = data.get(CHUNK_HEADER..).unwrap_or_default();
        let bytes = match header.kind {
            0 => payload,
            ZSTD => {
                unpack(payload, len, buffer).map_err(|e| damaged(&e.to_string()))?;
                buffer
            }
            _ => return Err(another_release()),
        };
        if bytes.len() != len {
            return Err(damaged("its length is not what its name says"));
        }
        header
            .check(bytes, before)
            .ok_or_else(|| damaged("its digest does not fit"))
    }
}

/// What a chunk says of itself.
struct Header {
    starts_file: bool,
    kind: u8,
    up_to: Hash,
}

impl Header {
    fn read(data: &[u8]) -> Result<Self, Damaged> {
        let Some((&[version, flags, _, _], rest)) = data.split_first_chunk() else {
            return Err(damaged("it is too short"));
        };
        let Some((digest, _)) = rest.split_first_chunk() else {
            return Err(damaged("it is too short"));
        };
        if version != VERSION {
            return Err(another_release());
        }
        Ok(Self {
            starts_file: flags & STARTS_FILE != 0,
            kind: flags & !STARTS_FILE,
            up_to: Hash::from_bytes(*digest),
        })
    }

    fn check<B: AsRef<[u8]>>(self, bytes: B, before: &mut Sum) -> Option<Chunk<B>> {
        let Self {
            starts_file, up_to, ..
        } = self;
        (before.add(bytes.as_ref()) == up_to).then_some(Chunk {
            starts_file,
            bytes,
            up_to,
        })
    }
}

fn damaged(what: &str) -> Damaged {
    Damaged::new("chunk", what)
}

fn another_release() -> Damaged {
    damaged("another release of logchain wrote it")
}

/// What (de)compressing takes, some hundred KiB each.
static PACKERS: Spares<zstd::bulk::Compressor<'static>> = Spares::new();
static UNPACKERS: Spares<zstd::bulk::Decompressor<'static>> = Spares::new();

/// Levels below zero look for matches in fewer places, and leave the rest as it is.
/// With the rest coded too, console text shrinks as at level 1, in four fifths of the
/// time (measured: 590 against 490 MB/s, a factor of 4.1 against 4.2).
fn packer() -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut packer = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    let literals = CParameter::LiteralCompressionMode(ParamSwitch::Enable);
    packer.set_parameter(literals)?;
    Ok(packer)
}

/// The compressed bytes behind `header`, where they are fewer by an eighth and more.
fn pack(header: &[u8], bytes: &[u8]) -> Option<Bytes> {
    let packer = PACKERS.take().map_or_else(packer, Ok);
    let mut packer = packer.ok_logged("the piece is put uncompressed")?;
    // It fails where this room does not suffice.
    let most = bytes.len() - bytes.len() / 8;
    let mut out = Vec::with_capacity(header.len().saturating_add(most));
    out.extend_from_slice(header);
    let mut behind = Cursor::new(out);
    behind.set_position(header.len() as u64);
    let packed = packer.compress_to_buffer(bytes, &mut behind);
    PACKERS.give(packer);
    packed.ok()?;
    let mut out = behind.into_inner();
    out.shrink_to_fit();
    Some(out.into())
}

fn unpack(payload: &[u8], len: usize, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    let make = zstd::bulk::Decompressor::new;
    let mut unpacker = UNPACKERS.take().map_or_else(make, Ok)?;
    buffer.clear();
    buffer.reserve_exact(len);
    let unpacked = unpacker.decompress_to_buffer(payload, buffer);
    UNPACKERS.give(unpacker);
    unpacked.map(|_| ())
}
