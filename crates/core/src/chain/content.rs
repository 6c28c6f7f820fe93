//! The bytes by which a file of a chain is known again, as they are in the stream:
//! of a compressed file those that it holds.
//!
//! Must not know: what follows from it.

use std::io::{self, Read};

use super::file::FileReader;
use super::{ChainFile, Error, Result};
use crate::content::{self, Mark};
use crate::stream::Fingerprint;

impl ChainFile {
    /// The fingerprint of `length` bytes from `skip` on; `None` where there are fewer,
    /// or they tell nothing. A compressed file is gone through up to their end.
    pub(crate) fn fingerprint(&self, skip: u64, length: u64) -> Result<Option<Fingerprint>> {
        if self.compression().is_none() {
            let print = content::fingerprint(self.file(), skip, length);
            return print.map_err(|source| Error::Read {
                path: self.path().to_owned(),
                source,
            });
        }
        let window = length.min(Fingerprint::WINDOW);
        let between = length.saturating_sub(window.saturating_mul(2));
        // Where the two windows overlap, the last one is got from what was read.
        let rest = length.saturating_sub(window).saturating_sub(between);
        let mut bytes = Vec::new();
        let is_there = self.unpacked(|reader| {
            let there = skipped(reader, skip)?
                && taken(reader, window, &mut bytes)?
                && skipped(reader, between)?
                && taken(reader, rest, &mut bytes)?;
            Ok(there)
        })?;
        let end = bytes.len();
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        let first = bytes.get(..window.min(end)).unwrap_or_default();
        let last = bytes.get(end.saturating_sub(window)..).unwrap_or_default();
        Ok(Fingerprint::of(length, first, last).filter(|_| is_there))
    }

    /// Whether it holds the bytes of `print` and no others. A compressed file is gone
    /// through.
    pub(crate) fn holds_just(&self, print: Fingerprint) -> Result<bool> {
        let length = print.length();
        Ok(self.count()?.length == length && self.fingerprint(0, length)? == Some(print))
    }

    /// Whether it has the bytes of `mark` where that has them. A compressed file is
    /// gone through up to there.
    pub(crate) fn has_before(&self, mark: &Mark) -> Result<bool> {
        if self.compression().is_none() {
            let same = mark.is_in(self.file());
            return same.map_err(|source| Error::Read {
                path: self.path().to_owned(),
                source,
            });
        }
        let count = mark.bytes().len() as u64;
        let mut bytes = Vec::new();
        let is_there = self.unpacked(|reader| {
            let before = mark.at().saturating_sub(count);
            Ok(skipped(reader, before)? && taken(reader, count, &mut bytes)?)
        })?;
        Ok(is_there && bytes == mark.bytes())
    }

    fn unpacked<T>(&self, read: impl FnOnce(&mut FileReader<'_>) -> io::Result<T>) -> Result<T> {
        let mut reader = FileReader::new(self, 0)?;
        read(&mut reader).map_err(|e| Error::of_io(e, self.path().to_owned()))
    }
}

/// Reads so many bytes; `false`: there are fewer.
fn taken(reader: &mut FileReader<'_>, count: u64, to: &mut Vec<u8>) -> io::Result<bool> {
    Ok(reader.take(count).read_to_end(to)? as u64 == count)
}

/// Leaves out bytes; `false`: there are fewer.
fn skipped(reader: &mut FileReader<'_>, count: u64) -> io::Result<bool> {
    Ok(io::copy(&mut reader.take(count), &mut io::sink())? == count)
}
