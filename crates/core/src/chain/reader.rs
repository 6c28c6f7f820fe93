//! The stream: the files of a snapshot one after the other.

use std::fmt;
use std::io::{self, Read};
use std::slice::Iter;

use super::file::{ChainFile, FileReader};
use super::merge::Start;

/// Reads the stream from some place to the end of the snapshot.
///
/// It asks the system for no more than the caller's buffer takes, so give it a
/// buffer of some size. After an error it is at its end: what was read before
/// is good, what comes after is unknown. [`Error`](super::Error) says how to
/// get at the cause.
pub struct Reader<'a> {
    files: Iter<'a, ChainFile>,
    /// What to leave out of the next file.
    skip: u64,
    now: Option<FileReader<'a>>,
}

impl<'a> Reader<'a> {
    /// Reads `files`, oldest first, from `start`.
    pub(super) fn new(files: &'a [ChainFile], start: Start) -> Self {
        let files = files.get(start.file..).unwrap_or_default().iter();
        Self {
            files,
            skip: start.skip,
            now: None,
        }
    }

    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(now) = &mut self.now {
                let got = now.read(buffer)?;
                if got > 0 {
                    return Ok(got);
                }
                self.now = None;
            }
            let Some(file) = self.files.next() else {
                return Ok(0);
            };
            self.now = Some(FileReader::new(file, std::mem::take(&mut self.skip))?);
        }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let got = self.read_now(buffer);
        if got
            .as_ref()
            .is_err_and(|e| e.kind() != io::ErrorKind::Interrupted)
        {
            self.now = None;
            self.files = Iter::default();
        }
        got
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}
