//! The stream: the files of a snapshot one after the other.

use std::fmt;
use std::io::{self, Read};
use std::vec::IntoIter;

use super::file::{ChainFile, FileReader, Source};
use super::merge::Start;

/// Reads the stream from some place to the end of the snapshot.
///
/// It asks the system for no more than the caller's buffer takes, so give it a
/// buffer of some size. After an error it is at its end: what was read before
/// is good, what comes after is unknown. [`Error`](super::Error) says how to
/// get at the cause.
pub struct Reader<'a> {
    next: IntoIter<Run<'a>>,
    now: Option<(FileReader<'a>, u64)>,
}

/// Bytes of a file.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) file: Source<'a>,
    /// What to leave out.
    pub(super) skip: u64,
    /// How many bytes at the most.
    pub(super) length: u64,
}

impl<'a> Reader<'a> {
    /// Reads `files`, oldest first, from `start`.
    pub(super) fn new(files: &'a [ChainFile], start: Start) -> Self {
        let files = files.get(start.file..).unwrap_or_default().iter();
        Self::from_first(files.map(Source::from), start.skip)
    }

    /// As [`Reader::new`], and keeps the files open that it has yet to read.
    pub(super) fn owning(files: Vec<ChainFile>, start: Start) -> Reader<'static> {
        let files = files.into_iter().skip(start.file);
        Reader::from_first(files.map(Source::from), start.skip)
    }

    /// Reads whole files, but for the first `skip` bytes of the first one.
    fn from_first(files: impl Iterator<Item = Source<'a>>, skip: u64) -> Self {
        let run = |(index, file)| Run {
            file,
            skip: if index == 0 { skip } else { 0 },
            length: u64::MAX,
        };
        Self::of(files.enumerate().map(run).collect())
    }

    /// Reads these runs one after the other.
    pub(super) fn of(runs: Vec<Run<'a>>) -> Self {
        Self {
            next: runs.into_iter(),
            now: None,
        }
    }

    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((now, left)) = &mut self.now {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let most = most.min(buffer.len());
                let got = now.read(buffer.get_mut(..most).unwrap_or_default())?;
                if got > 0 {
                    *left = left.saturating_sub(got as u64);
                    return Ok(got);
                }
                self.now = None;
            }
            let Some(run) = self.next.next() else {
                return Ok(0);
            };
            self.now = Some((FileReader::new(run.file, run.skip)?, run.length));
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
            self.next = IntoIter::default();
        }
        got
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
