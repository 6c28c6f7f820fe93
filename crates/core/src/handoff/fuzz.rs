//! Messages and chunks from any bytes.

use std::fmt::Debug;

use bytes::Bytes;

use jiff::Timestamp;

use super::message::{Abort, Begin, Commit, Damaged, Message, Receipt};
use super::{Chunk, Sum};
use crate::folder::FileId;
use crate::ids::HandoffId;
use crate::stream::{Arrival, Ledger, Seen, StreamOffset};

/// Bounds what one try takes.
const MOST: usize = 1 << 20;

/// Every message that is JSON, and what the destination makes of a commit's history.
pub fn message(data: &[u8]) {
    fn check<M: Message + PartialEq + Debug>(data: &[u8]) {
        let Ok(message) = M::decode(data) else { return };
        let again = message.encode().and_then(|bytes| M::decode(&bytes));
        assert_eq!(again.ok(), Some(message));
    }
    if let Ok(commit) = Commit::decode(data) {
        arrive(&commit);
    }
    check::<Begin>(data);
    check::<Commit>(data);
    check::<Abort>(data);
    check::<Receipt>(data);
}

fn arrive(commit: &Commit) {
    let id = |ino| FileId { ino, born: None };
    let history = commit.history();
    let named = history.clone().in_segments_of(HandoffId::random());
    let bytes = named
        .pieces()
        .iter()
        .fold(0_u64, |sum, piece| sum.saturating_add(piece.bytes));
    assert_eq!(bytes, commit.bytes);
    assert_eq!(history.bytes(), Some(commit.bytes));
    let (old, new) = (
        commit.bytes / 3,
        commit.bytes.saturating_sub(commit.bytes / 3),
    );
    let arrival = Arrival {
        parts: vec![(id(1), old), (id(2), new)],
        newer: vec![(id(3), 5)],
        older: Vec::new(),
        stayed: None,
    };
    let ledger = Ledger::default().arrived(&history, &arrival, ("h2", Timestamp::UNIX_EPOCH));
    let seen = [(id(1), old), (id(2), new), (id(3), 7)].map(|(id, length)| Seen {
        id,
        length: Some(length),
        after_gap: false,
        compressed: false,
    });
    let Ok(layout) = ledger.lay(&seen, StreamOffset::START) else {
        return;
    };
    let _ = (
        layout.find(StreamOffset::new(layout.end().get() / 2)),
        layout.run_after(StreamOffset::START),
    );
    let _ = ledger.history(&layout, "h2", &[0, new]);
}

/// A chunk: as it comes, with the length that its key promises in the first four
/// bytes; as one that is put; and as compressed bytes under a digest that fits.
pub fn chunk(data: &[u8]) {
    if let Some((len, rest)) = data.split_first_chunk() {
        let len = u32::from_le_bytes(*len);
        if let Ok(chunk) = decode(rest, len) {
            assert_eq!(u32::try_from(chunk.bytes.len()), Ok(len));
            round_trip(&chunk);
        }
    }
    // One whose bytes lie in the stream says where, and has them or none.
    if Chunk::streamed_at(data).is_some()
        && let Ok(chunk) = Chunk::decode_streamed(data, Bytes::new(), &mut Sum::default())
    {
        assert!(chunk.bytes.is_empty());
    }
    let chunk = first(!data.len().is_multiple_of(2), data.to_vec());
    let streamed = chunk.encode_streamed(7);
    assert_eq!(Chunk::streamed_at(&streamed), Some(7));
    assert!(decode(&streamed, 8).is_err());
    let read = Chunk::decode_streamed(&streamed, chunk.bytes.clone(), &mut Sum::default());
    assert_eq!(read.ok().as_ref(), Some(&chunk));
    round_trip(&chunk);
    let Ok(bytes) = zstd::bulk::decompress(data, MOST) else {
        return;
    };
    let header = [2, 3, 0, 0];
    let framed = [&header[..], blake3::hash(&bytes).as_bytes(), data].concat();
    let chunk = u32::try_from(bytes.len())
        .ok()
        .and_then(|len| decode(&framed, len).ok());
    assert_eq!(chunk, Some(first(true, bytes)));
}

/// One that begins a history.
fn first(starts_file: bool, bytes: Vec<u8>) -> Chunk {
    Chunk {
        starts_file,
        up_to: blake3::hash(&bytes),
        bytes: bytes.into(),
    }
}

fn decode(data: &[u8], len: u32) -> Result<Chunk, Damaged> {
    Chunk::decode(data, len, &mut Sum::default())
}

fn round_trip(chunk: &Chunk) {
    let Ok(len) = u32::try_from(chunk.bytes.len()) else {
        return;
    };
    let encoded = chunk.encode();
    assert_eq!(decode(&encoded, len).ok().as_ref(), Some(chunk));
    assert!(decode(&encoded, len.saturating_add(1)).is_err());
}
