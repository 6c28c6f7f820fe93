//! Looks at the bytes by which a file is known again: the one place that reads them.
//!
//! Must not know: chains, records, what follows from it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::OkLogged as _;
use crate::folder::{FileId, Folder, stat_open};
use crate::stream::Fingerprint;

/// The fingerprint of `length` bytes of a file, from `skip` on, as they lie on disk;
/// `None` where it has fewer, or they tell nothing.
pub(crate) fn fingerprint(file: &File, skip: u64, length: u64) -> io::Result<Option<Fingerprint>> {
    let window = length.min(Fingerprint::WINDOW);
    let end = skip.saturating_add(length);
    let (Some(first), Some(last)) = (
        bytes_at(file, skip, window)?,
        bytes_at(file, end.saturating_sub(window), window)?,
    ) else {
        return Ok(None);
    };
    Ok(Fingerprint::of(length, &first, &last))
}

/// Whether the file `name` has the identity `id` and begins with the bytes of `print`.
pub(crate) fn is_still(folder: &Folder, name: &OsStr, id: FileId, print: Fingerprint) -> bool {
    let Ok((file, stat)) = folder.open_file(name) else {
        return false;
    };
    let there = fingerprint(&file, 0, print.length());
    let there = there.ok_logged("the file counts as another");
    stat.id == id && there.is_some_and(|there| there == Some(print))
}

/// Compared at a time.
const COMPARED: u64 = 64 << 10;

/// Whether two files have the same first `length` bytes.
pub(crate) fn begin_alike(one: &File, other: &File, length: u64) -> io::Result<bool> {
    let mut at = 0;
    while at < length {
        let count = length.saturating_sub(at).min(COMPARED);
        let (ours, theirs) = (bytes_at(one, at, count)?, bytes_at(other, at, count)?);
        if ours.is_none() || ours != theirs {
            return Ok(false);
        }
        at = at.saturating_add(count);
    }
    Ok(true)
}

/// `count` bytes of a file; `None` where it ends before.
fn bytes_at(file: &File, at: u64, count: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; usize::try_from(count).map_err(io::Error::other)?];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

/// The last bytes that are known of a file, and where they end. As long as the file
/// has them there, it is what it was, and may only have grown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    at: u64,
    bytes: Vec<u8>,
}

impl Mark {
    /// The end of what there is now.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let at = stat_open(file)?.size;
        let window = at.min(Fingerprint::WINDOW);
        // It ends before: emptied just now, it begins anew.
        Ok(match bytes_at(file, at.saturating_sub(window), window)? {
            Some(bytes) => Self { at, bytes },
            None => Self::default(),
        })
    }

    /// Where the bytes end.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Whether another file with the same bytes there has them hardly by accident.
    pub(crate) fn is_telling(&self) -> bool {
        let print = Fingerprint::of(self.bytes.len() as u64, &self.bytes, &self.bytes);
        print.is_some_and(|print| print.is_telling())
    }

    /// The bytes that end there.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `given` are the bytes before the place `at`, which were read.
    pub(crate) fn go_to(&mut self, at: u64, given: &[u8]) {
        let Some(new) = at.checked_sub(self.at) else {
            return;
        };
        let known = (given.len() as u64).saturating_sub(new);
        if new > given.len() as u64 {
            self.bytes.clear();
        }
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.bytes.extend(given.get(known..).unwrap_or_default());
        let window = usize::try_from(Fingerprint::WINDOW).unwrap_or(usize::MAX);
        let surplus = self.bytes.len().saturating_sub(window);
        self.bytes.drain(..surplus);
        self.at = at;
    }

    /// Whether the file still has these bytes there. A file that was emptied, and one
    /// that was emptied and has outgrown its old length, has not.
    pub(crate) fn is_in(&self, file: &File) -> io::Result<bool> {
        let count = self.bytes.len() as u64;
        let there = bytes_at(file, self.at.saturating_sub(count), count)?;
        Ok(there.is_some_and(|there| there == self.bytes))
    }
}

/// A file that is held while others write, rename and empty it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    mark: Mark,
    /// Size and time of writing when it was looked at last.
    looked: Option<(u64, (i64, u32))>,
}

impl Watched {
    /// The file as it is now.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let stat = stat_open(file)?;
        Ok(Self {
            mark: Mark::of(file)?,
            looked: Some((stat.size, stat.modified)),
        })
    }

    /// The last bytes known of it.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// `given` are the bytes before the place `at`, which were read.
    pub(crate) fn go_to(&mut self, at: u64, given: &[u8]) {
        self.mark.go_to(at, given);
    }

    /// Whether it was empty when it was looked at last: then no byte tells whether it was
    /// emptied since.
    pub(crate) fn was_empty(&self) -> bool {
        self.mark.at() == 0
    }

    /// Whether it was written since it was looked at last.
    pub(crate) fn is_written(&self, file: &File) -> bool {
        stat_open(file).map_or(true, |s| self.looked != Some((s.size, s.modified)))
    }

    /// Whether it still has the bytes that were seen of it, `given` of which were read.
    /// Called often, it sees what was not read yet as well.
    pub(crate) fn is_same(&mut self, file: &File, given: u64) -> io::Result<bool> {
        let stat = stat_open(file)?;
        let looked = (stat.size, stat.modified);
        if self.looked == Some(looked) {
            return Ok(true);
        }
        let new = Mark::of(file)?;
        // The old one last: had the file been emptied just now, the new one is of what
        // came after.
        if stat.size < given || !self.mark.is_in(file)? {
            return Ok(false);
        }
        if new.at() > self.mark.at() {
            self.mark = new;
        }
        self.looked = Some(looked);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_mark_tells_growth_from_replacement() {
        let mut file = tempfile::tempfile().unwrap();
        let empty = Mark::of(&file).unwrap();
        file.write_all(&[7; 300]).unwrap();
        file.write_all(b"end").unwrap();
        let mut mark = Mark::of(&file).unwrap();
        assert_eq!((mark.at(), mark.bytes().len()), (303, 256));
        file.write_all(b"more").unwrap();
        assert!(mark.is_in(&file).unwrap() && empty.is_in(&file).unwrap());
        // What was read before is older than the mark.
        mark.go_to(2, &[7, 7]);
        assert_eq!(mark.at(), 303);
        mark.go_to(307, b"more");
        assert!(mark.bytes().ends_with(b"endmore") && mark.is_in(&file).unwrap());

        file.set_len(0).unwrap();
        assert!(!mark.is_in(&file).unwrap() && empty.is_in(&file).unwrap());
        // A writer that keeps its place leaves a hole before it.
        file.write_all(b"and more").unwrap();
        assert!(!mark.is_in(&file).unwrap());
        file.set_len(0).unwrap();
        file.write_all_at(&[1; 1000], 0).unwrap();
        assert!(!mark.is_in(&file).unwrap());
    }

    #[test]
    fn a_fingerprint_stays_when_a_file_grows() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let one = fingerprint(&file, 2, 8).unwrap();
        assert!(one.is_some());
        assert_eq!(fingerprint(&file, 2, 9).unwrap(), None);
        file.write_all(b"more").unwrap();
        assert_eq!(fingerprint(&file, 2, 8).unwrap(), one);
        assert_ne!(fingerprint(&file, 1, 8).unwrap(), one);
    }
}
