//! A log in frames: what the agent sends to a client that shows the log itself.
//!
//! Plain bytes cannot say where bytes are missing, nor that nothing more is there yet. Frames can,
//! and each piece of the log carries its offset, so that a client whose connection broke off asks
//! again from where it is.
//!
//! A frame is one byte for its kind, four for the length of what follows (the highest first), and
//! that. A client skips kinds that it does not know: a later release may add some.
//!
//! | kind | what follows |
//! | --- | --- |
//! | `H` | [`Head`] as JSON; always the first frame |
//! | `B` | eight bytes for an offset (the highest first), and the log's bytes from there on |
//! | `M` | `{"next": OFFSET, "size": BYTES or null}`: bytes are missing before this offset |
//! | `C` | nothing: all that the log has was sent. It comes again while a log that is followed is silent |
//! | `E` | `{"next": OFFSET, "more": BOOLEAN}`: the answer is complete |
//! | `F` | `{"error": SENTENCE}`: the log cannot be read any further |
//!
//! Pure. Must not know: connections, files.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use logchain_core::stream::Hop;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest payload that is read. A head names all files of a log, at most some thousand.
const LONGEST: usize = 4 << 20;

/// Kind and length.
const PREFIX: usize = 5;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Which log it is.
    Head(Box<Head>),
    /// Bytes of the log.
    Bytes {
        /// The offset of the first one in the VM's stream.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Bytes are missing here.
    Missing {
        /// The offset at which the log goes on.
        next: u64,
        /// How many, where that is known.
        size: Option<u64>,
    },
    /// Nothing more is there yet.
    CaughtUp,
    /// The answer is complete.
    End {
        /// The offset after its last byte.
        next: u64,
        /// Whether the log has more.
        more: bool,
    },
    /// The log cannot be read any further, and why.
    Failed(String),
}

/// Which log it is, and what a reader should know of it. Fields may be added; a client that does
/// not find one takes its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// Name of the domain.
    pub domain: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Which console, as libvirt names it.
    pub console: String,
    /// Path of the base file.
    pub path: String,
    /// How its rotated files are numbered.
    pub numbering: String,
    /// Its files, the oldest first.
    pub files: Vec<LogFile>,
    /// Numbers of rotated files that are missing.
    pub gaps: Vec<MissingFiles>,
    /// What of the log is not read or is in doubt, in sentences.
    pub remarks: Vec<String>,
    /// Why a running guest's output does not come to this log, in a sentence.
    pub not_written: Option<String>,
    /// The hosts that the VM was on.
    pub hops: Vec<Hop>,
    /// The boots whose logs are there, the oldest first; only where a boot or their list is asked
    /// for.
    pub boots: Vec<Boot>,
    /// Where the answer begins.
    pub start: Start,
    /// Where it ends, unless the log is followed.
    pub stop: u64,
    /// The offset after the log's last byte when it was opened.
    pub end: u64,
}

/// Where an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At this offset.
    At(u64),
    /// The offset that was asked for is not there any more; this is the first one that is.
    Expired(u64),
    /// As [`Start::Expired`], but history is being put in place that may have it.
    Arriving(u64),
    /// The log ends before the offset that was asked for.
    Beyond,
    /// The log of that boot is not there.
    NoSuchBoot,
}

impl Default for Start {
    fn default() -> Self {
        Self::At(0)
    }
}

/// What a boot of the VM printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Boot {
    /// Since when, in seconds since 1970 (UTC); `None`: the oldest that is known of.
    pub since: Option<i64>,
    /// The offset of its first byte that is there.
    pub start: u64,
    /// The offset after its last byte.
    pub end: u64,
}

/// A file of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes, as it lies on the disk.
    pub size: u64,
}

/// Numbers of rotated files that are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MissingFiles {
    /// The first one.
    pub first: u32,
    /// The last one.
    pub last: u32,
}

/// Why bytes are no frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadFrame {
    #[error("a frame of {0} bytes is longer than any that an agent sends")]
    TooLong(usize),
    #[error("a frame of the kind {0:?} cannot be read")]
    Unreadable(char),
}

impl Frame {
    /// As it is sent.
    pub(super) fn encoded(&self) -> Bytes {
        match self {
            Self::Head(head) => json(b'H', head),
            Self::Bytes { offset, bytes } => {
                let mut payload = BytesMut::with_capacity(bytes.len().saturating_add(8));
                payload.put_u64(*offset);
                payload.put_slice(bytes);
                frame(b'B', &payload)
            }
            Self::Missing { next, size } => {
                let (next, size) = (*next, *size);
                json(b'M', &Gap { next, size })
            }
            Self::CaughtUp => frame(b'C', b""),
            Self::End { next, more } => {
                let (next, more) = (*next, *more);
                json(b'E', &End { next, more })
            }
            Self::Failed(why) => json(b'F', &Failure { error: why.clone() }),
        }
    }

    /// `None`: a kind that this release does not know.
    fn decoded(kind: u8, mut payload: Bytes) -> Result<Option<Self>, BadFrame> {
        Ok(Some(match kind {
            b'H' => Self::Head(Box::new(read(kind, &payload)?)),
            b'B' => {
                let offset = payload.try_get_u64();
                Self::Bytes {
                    offset: offset.map_err(|_| BadFrame::Unreadable(char::from(kind)))?,
                    bytes: payload,
                }
            }
            b'M' => {
                let Gap { next, size } = read(kind, &payload)?;
                Self::Missing { next, size }
            }
            b'C' => Self::CaughtUp,
            b'E' => {
                let End { next, more } = read(kind, &payload)?;
                Self::End { next, more }
            }
            b'F' => Self::Failed(read::<Failure>(kind, &payload)?.error),
            _ => return Ok(None),
        }))
    }
}

/// What follows in a frame of the kind `M`.
#[derive(Serialize, Deserialize)]
struct Gap {
    next: u64,
    size: Option<u64>,
}

/// The same of the kind `E`.
#[derive(Serialize, Deserialize)]
struct End {
    next: u64,
    #[serde(default)]
    more: bool,
}

/// The same of the kind `F`.
#[derive(Serialize, Deserialize)]
struct Failure {
    error: String,
}

fn read<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, BadFrame> {
    serde_json::from_slice(payload).map_err(|_| BadFrame::Unreadable(char::from(kind)))
}

fn json(kind: u8, what: &impl Serialize) -> Bytes {
    // Its keys are names and its numbers finite: writing to memory cannot fail.
    frame(kind, &serde_json::to_vec(what).unwrap_or_default())
}

fn frame(kind: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len().saturating_add(PREFIX));
    frame.put_u8(kind);
    // No payload comes near the bound.
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    frame.put_slice(payload);
    frame.freeze()
}

/// Makes frames of bytes that come in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Decoder(BytesMut);

impl Decoder {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next frame, once all of it has come.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, BadFrame> {
        loop {
            let mut prefix = self.0.as_ref();
            let (Ok(kind), Ok(length)) = (prefix.try_get_u8(), prefix.try_get_u32()) else {
                return Ok(None);
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > LONGEST {
                return Err(BadFrame::TooLong(length));
            }
            if prefix.remaining() < length {
                return Ok(None);
            }
            self.0.advance(PREFIX);
            let payload = self.0.split_to(length).freeze();
            if let Some(frame) = Frame::decoded(kind, payload)? {
                return Ok(Some(frame));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let head = Head {
            domain: "vm1".to_owned(),
            files: vec![LogFile {
                name: "vm1.log".to_owned(),
                size: 7,
            }],
            start: Start::Expired(9),
            end: u64::MAX,
            ..Head::default()
        };
        let (next, size) = (u64::MAX, Some(3));
        vec![
            Frame::Head(Box::new(head)),
            Frame::Bytes {
                offset: u64::MAX - 2,
                bytes: Bytes::from_static(b"\0\xff\n"),
            },
            Frame::Missing { next, size },
            Frame::Missing { next, size: None },
            Frame::CaughtUp,
            Frame::End { next, more: true },
            Frame::Failed("it is damaged".to_owned()),
        ]
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let all: Vec<u8> = frames().iter().flat_map(Frame::encoded).collect();
        for size in [1, 2, 7, all.len()] {
            let (mut decoder, mut found) = (Decoder::default(), Vec::new());
            for piece in all.chunks(size) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames(), "in pieces of {size}");
        }
    }

    #[test]
    fn an_unknown_kind_is_skipped_and_nonsense_is_refused() {
        let read = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next()
        };
        let later = [&frame(b'Z', b"of a later release"), &frame(b'C', b"")[..]].concat();
        assert_eq!(read(&later), Ok(Some(Frame::CaughtUp)));
        assert_eq!(read(&frame(b'C', b"")[..4]), Ok(None));
        for (kind, payload) in [(b'B', "short"), (b'H', "{"), (b'M', "{}"), (b'E', "1")] {
            let kind_name = char::from(kind);
            let found = read(&frame(kind, payload.as_bytes()));
            assert_eq!(found, Err(BadFrame::Unreadable(kind_name)));
        }
        let long = [b'B', 0xff, 0, 0, 0];
        assert!(matches!(read(&long), Err(BadFrame::TooLong(_))));
    }

    #[test]
    fn a_head_of_another_release_is_read() {
        let head: Head = serde_json::from_str("{\"domain\":\"vm1\",\"moon\":1}").unwrap();
        assert_eq!((head.domain.as_str(), head.start), ("vm1", Start::At(0)));
    }
}
