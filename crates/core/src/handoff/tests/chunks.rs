//! Pieces of a history as they are written and read.

use super::*;

/// One that begins a history.
pub(super) fn first_chunk(starts_file: bool, bytes: &[u8]) -> Chunk {
    Chunk {
        starts_file,
        bytes: Bytes::copy_from_slice(bytes),
        up_to: blake3::hash(bytes),
    }
}

/// As one that begins a history.
fn decode(data: &[u8], len: u32) -> Result<Chunk, Damaged> {
    Chunk::decode(data, len, &mut Sum::default())
}

#[test]
fn a_chunk_of_an_older_build_is_still_read() {
    let mut bytes = vec![2, 1, 0, 0];
    bytes.extend_from_slice(blake3::hash(b"hello").as_bytes());
    bytes.extend_from_slice(b"hello");
    assert_eq!(decode(&bytes, 5).unwrap(), first_chunk(true, b"hello"));
    // What came before is a part of what is checked.
    let mut sum = Sum::default();
    sum.add(b"oh, ");
    let moved = Chunk::decode(&bytes, 5, &mut sum).unwrap_err();
    assert!(moved.to_string().contains("digest does not fit"), "{moved}");
}

/// A spool may hold pieces of a build whose digests meant something else.
#[test]
fn a_chunk_of_another_release_is_said_to_be() {
    for (version, flags) in [(1, 1), (3, 1), (2, 9)] {
        let mut bytes = vec![version, flags, 0, 0];
        bytes.extend_from_slice(blake3::hash(b"hello").as_bytes());
        bytes.extend_from_slice(b"hello");
        let refused = decode(&bytes, 5).unwrap_err().to_string();
        assert!(refused.contains("another release"), "{refused}");
    }
}

proptest! {
    #[test]
    fn chunks_come_back_and_damage_is_seen(
        starts_file: bool,
        bytes in proptest::collection::vec(0u8..4, 0..3000),
        at: proptest::sample::Index,
        flip in 1u8..,
    ) {
        let chunk = first_chunk(starts_file, &bytes);
        let len = u32::try_from(chunk.bytes.len()).unwrap();
        let data = chunk.encode();
        prop_assert_eq!(&decode(&data, len).unwrap(), &chunk);
        prop_assert!(decode(&data, len + 1).is_err());
        let mut torn = data.to_vec();
        let at = at.index(torn.len());
        torn[at] ^= flip;
        // The reserved bytes and the flag of a new file say nothing about the bytes.
        match decode(&torn, len) {
            Err(_) => {}
            Ok(read) => prop_assert_eq!(read.bytes, chunk.bytes),
        }
    }

    #[test]
    fn any_bytes_as_a_chunk_give_an_error_or_just_that_length(
        data in proptest::collection::vec(any::<u8>(), 0..200),
        len in 0u32..5000,
    ) {
        if let Ok(chunk) = decode(&data, len) {
            prop_assert_eq!(chunk.bytes.len(), len as usize);
        }
    }
}

/// A key may promise 4 GiB, and some KiB of zstd keep the promise.
#[test]
fn a_chunk_longer_than_any_is_refused_before_it_is_unpacked() {
    let bytes = vec![0; crate::transport::MAX_OBJECT + 1];
    let len = u32::try_from(bytes.len()).unwrap();
    let data = first_chunk(true, &bytes).encode();
    let refused = decode(&data, len).unwrap_err().to_string();
    assert!(refused.contains("longer than any that is put"), "{refused}");
}
