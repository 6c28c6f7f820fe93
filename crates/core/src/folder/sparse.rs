//! Files with holes: runs of zeros that take no room on the disk.
//!
//! A log gets holes where its writer goes on at an old place after somebody emptied the
//! file. Copied byte by byte, a hole of some GiB takes minutes and as many GiB of disk.
//!
//! Must not know: logs.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use rustix::fs::{OFlags, SeekFrom as Place, fcntl_getfl, fstat, seek};
use rustix::io::Errno;

/// Zeros become a hole in blocks of this size: a multiple of what file systems allocate,
/// and small enough for a write that does not press the page cache for large pages.
const BLOCK: usize = 64 << 10;

/// Whether a block of `bytes` is all zero, so that writing it sparsely saves room.
#[must_use]
pub fn has_holes(bytes: &[u8]) -> bool {
    bytes.chunks_exact(BLOCK).any(is_zero)
}

/// How many of `bytes` need room where they are written sparsely.
#[must_use]
pub fn allocated(bytes: &[u8]) -> u64 {
    let holes = bytes.chunks_exact(BLOCK).filter(|block| is_zero(block));
    let holes = holes.count().saturating_mul(BLOCK);
    bytes.len().saturating_sub(holes) as u64
}

/// Writes `bytes` where `file` stands, which has to be its end. A whole block of zeros
/// is left out; the file has its full length afterwards.
///
/// # Errors
/// The system's: then the file may hold part of it.
pub fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let mut ends_in_hole = false;
    for block in bytes.chunks(BLOCK) {
        ends_in_hole = block.len() == BLOCK && is_zero(block);
        if ends_in_hole {
            let length = i64::try_from(block.len()).map_err(io::Error::other)?;
            file.seek(SeekFrom::Current(length))?;
        } else {
            file.write_all(block)?;
        }
    }
    if ends_in_hole {
        let end = file.stream_position()?;
        file.set_len(end)?;
    }
    Ok(())
}

/// Whether [`write`] may be used on `file`, of which it is not known how it was opened:
/// it is a regular file, not opened for appending, and nothing lies behind the place
/// where it stands, which would show through a hole.
#[must_use]
pub fn may_write(mut file: &File) -> bool {
    let regular = fstat(file).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
    });
    let appends = fcntl_getfl(file).map(|flags| flags.contains(OFlags::APPEND));
    if !regular || appends != Ok(false) {
        return false;
    }
    let length = file.metadata().map(|metadata| metadata.len());
    matches!((file.stream_position(), length), (Ok(at), Ok(length)) if length <= at)
}

/// The next run of bytes of `file` at or behind `at` that is no hole, up to `end`; an
/// empty one at `end` where only a hole follows. Where the file system does not tell, all
/// of it. Where `file` stands changes.
///
/// # Errors
/// The system's.
pub fn next_data(file: &File, at: u64, end: u64) -> io::Result<Range<u64>> {
    if at >= end {
        return Ok(end..end);
    }
    let start = match seek(file, Place::Data(at)) {
        Ok(start) => start.min(end),
        // Nothing but a hole is left.
        Err(Errno::NXIO) => return Ok(end..end),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY | Errno::SPIPE) => return Ok(at..end),
        Err(e) => return Err(e.into()),
    };
    let hole = match seek(file, Place::Hole(start)) {
        Ok(hole) => hole.min(end),
        Err(Errno::NXIO) => end,
        Err(e) => return Err(e.into()),
    };
    Ok(start..hole)
}

/// The first bytes of most blocks tell already.
fn is_zero(block: &[u8]) -> bool {
    let (head, rest) = block.split_at(block.len().min(64));
    head.iter().all(|b| *b == 0) && rest.iter().fold(0, |all, b| all | b) == 0
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn holes_take_no_room_and_read_as_zeros() {
        let mut file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 8 << 20];
        bytes[0] = b'a';
        *bytes.last_mut().unwrap() = b'z';
        write(&mut file, &bytes).unwrap();
        write(&mut file, &vec![0; 4 << 20]).unwrap();
        let stat = file.metadata().unwrap();
        assert_eq!(stat.len(), 12 * MIB);
        assert!(stat.blocks() * 512 < MIB, "{} blocks", stat.blocks());
        assert_eq!(allocated(&bytes), 2 * BLOCK as u64);
        let mut read = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut read).unwrap();
        bytes.resize(12 << 20, 0);
        assert!(read == bytes);

        let first = next_data(&file, 0, 12 * MIB).unwrap();
        assert!(first.start == 0 && first.end < MIB, "{first:?}");
        let last = next_data(&file, first.end, 12 * MIB).unwrap();
        assert!(last.contains(&(8 * MIB - 1)), "{last:?}");
        assert_eq!(
            next_data(&file, 9 * MIB, 12 * MIB).unwrap(),
            12 * MIB..12 * MIB
        );
    }

    #[test]
    fn only_at_the_end_of_a_file_that_is_not_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let mut file = File::create(&path).unwrap();
        assert!(may_write(&file));
        file.write_all(b"abc").unwrap();
        assert!(may_write(&file));
        file.rewind().unwrap();
        assert!(!may_write(&file), "old bytes would show");
        let append = File::options().append(true).open(&path).unwrap();
        assert!(!may_write(&append));
        assert!(!may_write(
            &File::options().write(true).open("/dev/null").unwrap()
        ));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            runs in proptest::collection::vec((any::<bool>(), 0..3 * BLOCK), 0..6),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            let mut all = Vec::new();
            for (zeros, length) in runs {
                let bytes = vec![if zeros { 0 } else { b'x' }; length];
                write(&mut file, &bytes).unwrap();
                all.extend(bytes);
            }
            let mut read = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut read).unwrap();
            prop_assert!(read == all);
        }
    }
}
