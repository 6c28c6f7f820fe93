//! One file of the chain, held by its descriptor, and how far it was read.
//!
//! Must not know: names, other files.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::{Error, Followed, Result};
use crate::chain::{ChainFile, decompressed};
use crate::folder::{FileId, stat_open};

/// What was opened of it, and how far it is read.
pub(super) struct Held {
    pub(super) name: OsString,
    pub(super) id: FileId,
    pub(super) source: Source,
    /// Size on disk when opened.
    pub(super) size: u64,
    pub(super) given: u64,
    /// Bytes given before it was emptied from outside.
    pub(super) before: u64,
    /// Whether a compressed file gave its last byte.
    pub(super) ended: bool,
}

pub(super) enum Source {
    Plain(File),
    /// Its decoder takes memory: made when it is read first.
    Packed(Option<ChainFile>),
    Compressed(Box<dyn Read + Send>),
}

impl Held {
    pub(super) fn new(file: ChainFile) -> Result<Self> {
        let (name, id, size) = (file.name().to_owned(), file.id(), file.size());
        let source = match file.compression() {
            None => Source::Plain(file.into_file()),
            // That it is none is told at once.
            Some(_) if size == 0 => Source::Compressed(decompressed(file)?),
            Some(_) => Source::Packed(Some(file)),
        };
        Ok(Self {
            name,
            id,
            source,
            size,
            given: 0,
            before: 0,
            ended: false,
        })
    }

    pub(super) fn try_clone(&self) -> Result<Self> {
        let fail = |source| Error::Read {
            name: self.name.clone(),
            source,
        };
        let source = match &self.source {
            Source::Plain(file) => Source::Plain(file.try_clone().map_err(fail)?),
            Source::Packed(file) => {
                Source::Packed(file.as_ref().map(ChainFile::try_clone).transpose()?)
            }
            // Begun, or empty: it gives nothing here.
            Source::Compressed(_) => Source::Packed(None),
        };
        Ok(Self {
            name: self.name.clone(),
            id: self.id,
            source,
            size: self.size,
            given: self.given,
            before: self.before,
            ended: self.ended,
        })
    }

    pub(super) fn followed(&self) -> Followed {
        Followed {
            id: self.id,
            size: self.size(),
            given: self.before.saturating_add(self.given),
        }
    }

    /// Size on disk: a plain file may have grown since it was opened.
    pub(super) fn size(&self) -> u64 {
        match &self.source {
            Source::Plain(file) => stat_open(file).map_or(self.size, |s| s.size),
            Source::Packed(_) | Source::Compressed(_) => self.size,
        }
    }

    /// How many bytes can be read of it now, at most `most`.
    pub(super) fn left(&self, most: usize) -> Result<usize> {
        let Source::Plain(file) = &self.source else {
            return Ok(if self.ended { 0 } else { most });
        };
        let size = stat_open(file).map_err(|source| Error::Read {
            name: self.name.clone(),
            source,
        })?;
        let left = size.size.checked_sub(self.given).unwrap_or(size.size);
        Ok(usize::try_from(left).unwrap_or(usize::MAX).min(most))
    }

    pub(super) fn read(&mut self, mut bytes: Vec<u8>, most: usize, whole: bool) -> Result<Vec<u8>> {
        if let Source::Packed(file) = &mut self.source
            && let Some(file) = file.take()
        {
            self.source = Source::Compressed(decompressed(file)?);
        }
        let fail = |source| Error::Read {
            name: self.name.clone(),
            source,
        };
        match &mut self.source {
            Source::Plain(file) => {
                let size = stat_open(file).map_err(fail)?.size;
                // Smaller than what was read: emptied from outside, it begins anew.
                let left = size.checked_sub(self.given).unwrap_or(size);
                if size < self.given {
                    self.before = self.before.saturating_add(self.given);
                    self.given = 0;
                }
                let most_now = usize::try_from(left).unwrap_or(usize::MAX).min(most);
                if whole && most_now < most {
                    bytes.clear();
                    return Ok(bytes);
                }
                bytes.resize(most_now, 0);
                let mut filled = 0;
                while let Some(rest) = bytes.get_mut(filled..).filter(|r| !r.is_empty()) {
                    let at = self.given.saturating_add(filled as u64);
                    match file.read_at(rest, at) {
                        Ok(0) => break,
                        Ok(n) => filled += n,
                        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(fail(e)),
                    }
                }
                bytes.truncate(filled);
                Ok(bytes)
            }
            Source::Compressed(reader) => {
                bytes.clear();
                reader
                    .take(most as u64)
                    .read_to_end(&mut bytes)
                    .map_err(fail)?;
                self.ended = bytes.len() < most;
                Ok(bytes)
            }
            // Its decoder could not be made, and whoever read it was told.
            Source::Packed(_) => Ok(Vec::new()),
        }
    }
}
