//! Batches from any bytes.

use bytes::Bytes;

use super::batch::frame;
use super::{About, Batch};

/// As it comes; as one that is put; and as what is told and packed bytes under a
/// digest that fits, the first two bytes saying where one ends.
pub fn batch(data: &[u8]) {
    let offset = data.len() as u64;
    if let Ok(batch) = Batch::decode(offset, data) {
        round_trip(&batch);
    }
    if !data.is_empty() {
        round_trip(&Batch {
            offset,
            after_gap: data.len().is_multiple_of(2),
            about: About {
                name: String::from_utf8_lossy(data).chars().take(99).collect(),
                ..About::default()
            },
            bytes: Bytes::copy_from_slice(data),
        });
    }
    let Some((at, rest)) = data.split_first_chunk() else {
        return;
    };
    let at = usize::from(u16::from_le_bytes(*at)).min(rest.len());
    let (about, packed) = rest.split_at(at);
    if let Ok(bytes) = zstd::bulk::decompress(packed, 1 << 20)
        && let Ok(framed) = frame(3, offset, about, &bytes, packed)
        && let Ok(batch) = Batch::decode(offset, &framed)
    {
        assert_eq!(batch.bytes, bytes);
        round_trip(&batch);
    }
}

fn round_trip(batch: &Batch) {
    let Ok(encoded) = batch.encode() else { return };
    let read = Batch::decode(batch.offset, &encoded);
    assert_eq!(read.as_ref(), Ok(batch));
    assert!(Batch::decode(batch.offset.wrapping_add(1), &encoded).is_err());
}
