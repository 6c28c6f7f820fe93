//! Small files that are replaced while we run: read whole, and seen to have changed.
//!
//! Must not know: what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of a file at the most.
const MAX: u64 = 1 << 20;

/// By what a file is known not to have changed; nothing where there is none.
pub(crate) type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// Follows links, since what they lead to is what is read.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let there = fs::metadata(path).ok()?;
    Some((
        there.dev(),
        there.ino(),
        there.mtime(),
        there.mtime_nsec(),
        there.size(),
    ))
}

/// All of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    // Opening a pipe would wait for somebody who writes.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut data = Vec::new();
    file.take(MAX + 1).read_to_end(&mut data)?;
    if data.len() as u64 > MAX {
        return Err(io::Error::other("it is too large"));
    }
    Ok(data)
}
