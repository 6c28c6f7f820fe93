//! Holes of a log stay holes in the file that it is shown into: a log that was truncated
//! while its writer kept its place can be gigabytes of NULs that take no room.
//!
//! Only what a reader of that file gets counts: the same bytes at the same offsets.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, seek};
use rustix::io::Errno;

/// A hole, and the data behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) hole: u64,
    pub(super) data: u64,
}

/// Whether holes can be left in `out`: in a regular file, behind all that it holds, and
/// where writing goes on from where we are. Nothing else has them, or old bytes would
/// be seen through them.
pub(super) fn fit(out: &mut File) -> bool {
    let regular =
        fstat(&*out).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
    let appends = fcntl_getfl(&*out).map_or(true, |flags| flags.contains(OFlags::APPEND));
    if !regular || appends {
        return false;
    }
    let end = out.metadata().map(|m| m.len());
    matches!((out.stream_position(), end), (Ok(at), Ok(end)) if at >= end)
}

/// What `file` has between `at` and `size`, as far as its first data; it is left
/// standing where that begins. A file system that does not tell has no holes.
pub(super) fn next(file: &mut File, at: u64, size: u64) -> io::Result<Run> {
    let rest = size.saturating_sub(at);
    let start = match seek(&*file, rustix::fs::SeekFrom::Data(at)) {
        Ok(start) => start.min(size),
        Err(Errno::NXIO) => size,
        Err(_) => at,
    };
    let hole = start.saturating_sub(at);
    let end = match seek(&*file, rustix::fs::SeekFrom::Hole(start)) {
        Ok(end) if start < size => end.min(size),
        _ => size,
    };
    file.seek(SeekFrom::Start(start))?;
    Ok(Run {
        hole,
        data: end.saturating_sub(start).min(rest.saturating_sub(hole)),
    })
}

/// Leaves a hole of `len` bytes at the end of `out`.
pub(super) fn leave(out: &mut File, len: u64) -> io::Result<()> {
    let at = out.stream_position()?;
    let end = at.saturating_add(len);
    if out.set_len(end).is_ok() {
        out.seek(SeekFrom::Start(end))?;
        return Ok(());
    }
    // A file system that does not lengthen files takes NULs; a limit says so.
    let nuls = [0; 4096];
    let mut left = len;
    while left > 0 {
        let now = nuls.get(..usize::try_from(left).unwrap_or(nuls.len()));
        let now = now.unwrap_or(&nuls);
        out.write_all(now)?;
        left = left.saturating_sub(now.len() as u64);
    }
    Ok(())
}
