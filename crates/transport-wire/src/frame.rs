//! What goes over the wire after the greeting: frames.
//!
//! ```text
//! frame:    length (u32, big endian) | header length (u32) | header (JSON) | body
//! ```
//!
//! Every request has an id; answers come in any order. The bytes of a `get`
//! come in several answers, the last one marked.
//!
//! Must not know: who speaks, what keys mean.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use logchain_core::transport::{Error, MAX_OBJECT};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// An object and its header. A listing of a full page fits as well.
pub(crate) const MAX_FRAME: usize = MAX_OBJECT + 64 * 1024;

/// Room for a frame before any of its bytes came.
const GROW: usize = 256 * 1024;

/// Bytes of an object in one answer.
pub(crate) const PART: usize = 256 * 1024;

/// Requests under way at once, on either side of a connection.
pub const IN_FLIGHT: usize = 16;

/// Bytes of a message that is asked, and of its answer.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Bytes of a request's header: its longest parts are two keys.
pub(crate) const MAX_REQUEST_HEADER: usize = 16 * 1024;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    #[serde(rename = "verb")]
    pub(crate) operation: Operation,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    Put {
        key: String,
    },
    Get {
        key: String,
        range: Option<(u64, u64)>,
    },
    List {
        prefix: WirePrefix,
        after: Option<String>,
    },
    Delete {
        key: String,
    },
    /// The body is a message of at most [`MAX_MESSAGE`] bytes; so is that of the
    /// answer, which is one last part. Nobody says this over ssh.
    Message,
}

/// A prefix by its parts, as many as there are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct WirePrefix {
    pub(crate) domain: Option<String>,
    pub(crate) console: Option<String>,
    pub(crate) handoff: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) answer: Answer,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Done,
    /// The body is a part of the object.
    Part {
        last: bool,
    },
    Entries(Vec<(String, u64)>),
    Failed {
        outcome: Outcome,
        reason: String,
    },
}

/// A transport's [`Error`] by its outcome: with a sentence all of it that crosses the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// There is no such object.
    NotFound,
    /// The object is there already.
    AlreadyExists,
    /// The object does not have this range.
    BadRange,
    /// An object would be too large.
    TooLarge,
    /// What the other side needs does not answer.
    Unreachable,
    /// What the other side needs does not come to an end.
    Timeout,
    /// The other side refuses.
    Denied,
    /// There is no room.
    Full,
    /// What is there is not what can have been put.
    Corrupt,
    /// Anything else, also an outcome that a later release may add.
    #[serde(other)]
    Other,
}

impl Outcome {
    pub(crate) fn of(error: &Error) -> (Self, String) {
        match error {
            Error::NotFound { .. } => (Self::NotFound, String::new()),
            Error::AlreadyExists { .. } => (Self::AlreadyExists, String::new()),
            Error::BadRange { .. } => (Self::BadRange, String::new()),
            Error::TooLarge { .. } => (Self::TooLarge, String::new()),
            Error::Unreachable { reason, .. } => (Self::Unreachable, reason.clone()),
            Error::Timeout { reason, .. } => (Self::Timeout, reason.clone()),
            Error::Denied { reason, .. } => (Self::Denied, reason.clone()),
            Error::Full { reason, .. } => (Self::Full, reason.clone()),
            Error::Corrupt { reason, .. } => (Self::Corrupt, reason.clone()),
            other => (Self::Other, other.to_string()),
        }
    }

    /// The error, as a transport of this name tells it of an object.
    #[must_use]
    pub fn into_error(self, transport: String, key: &str, reason: String) -> Error {
        let key = key.to_owned();
        match self {
            Self::NotFound => Error::NotFound { transport, key },
            Self::AlreadyExists => Error::AlreadyExists { transport, key },
            Self::BadRange => Error::BadRange { transport, key },
            Self::TooLarge => Error::TooLarge { key },
            Self::Unreachable => Error::Unreachable { transport, reason },
            Self::Timeout => Error::Timeout { transport, reason },
            Self::Denied => Error::Denied { transport, reason },
            Self::Full => Error::Full { transport, reason },
            Self::Corrupt => Error::Corrupt { transport, reason },
            Self::Other => Error::Other { transport, reason },
        }
    }
}

pub(crate) async fn write_frame(
    output: &mut (impl AsyncWrite + Unpin),
    header: &impl Serialize,
    body: &[u8],
) -> io::Result<()> {
    let header = serde_json::to_vec(header)?;
    let length = header.len().saturating_add(body.len()).saturating_add(4);
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a frame would be too large",
        ));
    }
    let mut start = BytesMut::with_capacity(header.len().saturating_add(8));
    start.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    start.put_u32(u32::try_from(header.len()).unwrap_or(u32::MAX));
    start.put_slice(&header);
    output.write_all(&start).await?;
    output.write_all(body).await
}

/// `None` where the other side is done.
pub(crate) async fn read_frame<T: DeserializeOwned>(
    input: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(T, Bytes)>> {
    match read_length(input).await? {
        None => Ok(None),
        Some(length) => Ok(Some(read_rest(input, length, MAX_FRAME).await?)),
    }
}

/// How long the frame is that comes; `None` where the other side is done.
pub(crate) async fn read_length(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<usize>> {
    let mut start = BytesMut::with_capacity(4);
    while start.len() < 4 {
        let left = 4 - start.len() as u64;
        if (&mut *input).take(left).read_buf(&mut start).await? == 0 {
            if start.is_empty() {
                return Ok(None);
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let length = usize::try_from(start.get_u32()).unwrap_or(usize::MAX);
    if !(4..=MAX_FRAME).contains(&length) {
        return Err(invalid("a frame is of an impossible length"));
    }
    Ok(Some(length))
}

/// A frame after its length.
pub(crate) async fn read_rest<T: DeserializeOwned>(
    input: &mut (impl AsyncRead + Unpin),
    length: usize,
    max_header: usize,
) -> io::Result<(T, Bytes)> {
    // Grows as bytes come: a length alone takes little memory.
    let mut frame = BytesMut::with_capacity(length.min(GROW));
    let mut left = input.take(length as u64);
    loop {
        let missing = length.saturating_sub(frame.len());
        if frame.len() == frame.capacity() {
            frame.reserve(missing.min(frame.len()));
        }
        if left.read_buf(&mut frame).await? == 0 {
            break;
        }
    }
    if frame.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut frame = frame.freeze();
    let header = usize::try_from(frame.get_u32()).unwrap_or(usize::MAX);
    if header > frame.len() {
        return Err(invalid("a frame's header is longer than the frame"));
    }
    if header > max_header {
        return Err(invalid("a frame's header is too long"));
    }
    let header = frame.split_to(header);
    let header = serde_json::from_slice(&header)?;
    Ok((header, frame))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
