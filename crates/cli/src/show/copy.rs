//! Copies files and streams to standard output, past its buffer. Into a regular file
//! holes stay holes, and the system copies what it can, as for `cat`.
//!
//! Must not know: which files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use anyhow::Context;
use logchain_core::folder::sparse;
use rustix::fs::copy_file_range;

use super::each_block;

/// The standard output.
pub(super) struct Output {
    file: File,
    /// Whether zeros may be left out, as holes.
    sparse: bool,
}

impl Output {
    pub(super) fn new() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let sparse = sparse::may_write(&file);
        Ok(Self { file, sparse })
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = if self.sparse && sparse::has_holes(bytes) {
            sparse::write(&mut self.file, bytes)
        } else {
            self.file.write_all(bytes)
        };
        written.context("cannot write to standard output")
    }

    pub(super) fn copy(&mut self, reader: impl Read) -> anyhow::Result<()> {
        each_block(reader, |bytes| self.write_all(bytes))
    }

    /// Copies the first `size` bytes of `file`; gives how many it did not have.
    pub(super) fn copy_file(&mut self, mut file: File, size: u64) -> anyhow::Result<u64> {
        let mut at = 0;
        while self.sparse && at < size {
            let data = sparse::next_data(&file, at, size).context("cannot read the log")?;
            if data.is_empty() {
                break;
            }
            self.skip(data.start.saturating_sub(at))?;
            let length = data.end.saturating_sub(data.start);
            file.seek(SeekFrom::Start(data.start))
                .context("cannot read the log")?;
            let left = self.copy_run(&mut (&file).take(length))?;
            if left > 0 {
                return Ok(size.saturating_sub(data.end).saturating_add(left));
            }
            at = data.end;
        }
        if self.sparse {
            // What is left is a hole, as long as the file still has it.
            let there = file.metadata().context("cannot read the log")?.len();
            let end = size.min(there).max(at);
            self.skip(end.saturating_sub(at))?;
            let place = self.file.stream_position();
            let placed = place.and_then(|place| self.file.set_len(place));
            placed.context("cannot write to standard output")?;
            return Ok(size.saturating_sub(end));
        }
        self.copy_run(&mut (&file).take(size))
    }

    fn skip(&mut self, bytes: u64) -> anyhow::Result<()> {
        let bytes = i64::try_from(bytes)?;
        let skipped = self.file.seek(SeekFrom::Current(bytes));
        skipped.context("cannot write to standard output")?;
        Ok(())
    }

    fn copy_run(&mut self, rest: &mut io::Take<&File>) -> anyhow::Result<u64> {
        while let Ok(copied @ 1..) = copy_file_range(
            rest.get_ref(),
            None,
            &self.file,
            None,
            usize::try_from(rest.limit()).unwrap_or(usize::MAX),
        ) {
            rest.set_limit(rest.limit().saturating_sub(copied as u64));
        }
        // What it will not do is written by hand, and says what is wrong if anything is.
        each_block(&mut *rest, |bytes| self.write_all(bytes))?;
        Ok(rest.limit())
    }
}
