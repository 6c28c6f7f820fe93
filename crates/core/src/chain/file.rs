//! One file of a chain, held open, and how its bytes are read: those that were
//! there when it was opened, and no others.
//!
//! Must not know: the other files of the chain.

use std::borrow::Borrow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::inflate::Inflated;
use super::merge::{Counted, LineSearch};
use super::{Compression, Date, Error, Result};
use crate::folder::{FileId, Stat};

/// What is read at once where the reader's own buffer does not say.
pub(super) const BLOCK: usize = 64 * 1024;

/// Which part of its chain a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The base file, the newest of all.
    Base,
    /// A rotated file: the greater its number, the older.
    Number(u32),
    /// A rotated file with a date.
    Date(Date),
}

/// A file of a chain, held open. Whatever becomes of its name, its bytes stay.
#[derive(Debug)]
pub struct ChainFile {
    file: File,
    path: PathBuf,
    name: OsString,
    part: Part,
    compression: Option<Compression>,
    stat: Stat,
    /// What a pass over a compressed file told.
    counted: OnceLock<Counted>,
}

impl ChainFile {
    /// `folder` is for messages.
    pub(crate) fn new(
        (file, stat): (File, Stat),
        folder: &Path,
        name: &OsStr,
        part: Part,
        compression: Option<Compression>,
    ) -> Self {
        Self {
            file,
            path: folder.join(name),
            name: name.to_owned(),
            part,
            compression,
            stat,
            counted: OnceLock::new(),
        }
    }

    /// Its name when it was opened.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Its path when it was opened, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which part of the chain it was when it was opened.
    #[must_use]
    pub fn part(&self) -> Part {
        self.part
    }

    /// Its number when it was opened; `None`: it was the base file, or has a date.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        match self.part {
            Part::Number(number) => Some(number),
            Part::Base | Part::Date(_) => None,
        }
    }

    /// Whether it was the base file when it was opened.
    #[must_use]
    pub fn is_base(&self) -> bool {
        self.part == Part::Base
    }

    /// Which file it is.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.stat.id
    }

    /// Its size on disk in bytes when it was opened. No byte beyond is read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.stat.size
    }

    /// When it was last written, as it was when it was opened.
    pub(super) fn modified(&self) -> (i64, u32) {
        self.stat.modified
    }

    /// Whether that says when its bytes were printed. A compressed file that was last
    /// written when it was made, or later, was not given the time of what it holds.
    pub(super) fn tells_time(&self) -> bool {
        let born = self.stat.id.born;
        self.compression.is_none() || born.is_none_or(|born| self.stat.modified < born)
    }

    /// How it is compressed, if it is.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// Another handle on it.
    ///
    /// # Errors
    /// [`Error::Read`] where there are no descriptors left.
    pub fn try_clone(&self) -> Result<Self> {
        let file = self.file.try_clone();
        let file = file.map_err(|source| Error::Read {
            path: self.path.clone(),
            source,
        })?;
        Ok(Self {
            file,
            path: self.path.clone(),
            name: self.name.clone(),
            part: self.part,
            compression: self.compression,
            stat: self.stat,
            counted: self.counted.clone(),
        })
    }

    /// The descriptor; where it stands means nothing.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The descriptor.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }

    /// Its length in the stream, where known without reading it.
    pub(super) fn known_length(&self) -> Option<u64> {
        match self.compression {
            None => Some(self.size()),
            Some(_) => self.counted.get().map(|c| c.length),
        }
    }

    /// Goes through a compressed file once, or says again what that gave.
    pub(super) fn count(&self) -> Result<Counted> {
        if let Some(counted) = self.counted.get() {
            return Ok(*counted);
        }
        let mut counted = Counted::default();
        self.each_block(|block| {
            counted.add(block);
            None::<()>
        })?;
        Ok(*self.counted.get_or_init(|| counted))
    }

    /// Where in this file the lines that are looked for begin, if they do.
    pub(super) fn find_lines(&self, search: &mut LineSearch) -> Result<Option<u64>> {
        if self.compression.is_none() {
            return self.find_lines_backwards(search);
        }
        match search.counted(self.count()?) {
            None => Ok(None),
            Some(newline) => self.after_newline(newline).map(Some),
        }
    }

    fn find_lines_backwards(&self, search: &mut LineSearch) -> Result<Option<u64>> {
        let mut block = vec![0; BLOCK];
        let mut end = self.size();
        while end > 0 {
            let start = end.saturating_sub(BLOCK as u64);
            block.resize(
                usize::try_from(end.saturating_sub(start)).unwrap_or(BLOCK),
                0,
            );
            Raw::new(self, start)
                .read_exact(&mut block)
                .map_err(|e| self.error(e))?;
            if let Some(at) = search.block(&block) {
                return Ok(Some(start.saturating_add(at as u64)));
            }
            end = start;
        }
        Ok(None)
    }

    /// The offset after the newline with this number, counted from 1.
    fn after_newline(&self, number: u64) -> Result<u64> {
        let (mut offset, mut left) = (0_u64, number);
        let found = self.each_block(|block| {
            for (at, _) in block.iter().enumerate().filter(|(_, b)| **b == b'\n') {
                left = left.saturating_sub(1);
                if left == 0 {
                    return Some(offset.saturating_add(at as u64).saturating_add(1));
                }
            }
            offset = offset.saturating_add(block.len() as u64);
            None
        })?;
        found.ok_or_else(|| Error::Shrunk {
            path: self.path.clone(),
        })
    }

    /// Gives the file's bytes, block by block, until an answer comes back.
    fn each_block<T>(&self, mut see: impl FnMut(&[u8]) -> Option<T>) -> Result<Option<T>> {
        let mut reader = FileReader::new(self, 0)?;
        let mut block = vec![0; BLOCK];
        loop {
            match reader.read(&mut block) {
                Ok(0) => return Ok(None),
                Ok(n) => {
                    let answer = see(block.get(..n).unwrap_or_default());
                    if answer.is_some() {
                        return Ok(answer);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error(e)),
            }
        }
    }

    /// The error that our own readers put into `error`.
    fn error(&self, error: io::Error) -> Error {
        error
            .downcast::<Error>()
            .unwrap_or_else(|source| Error::Read {
                path: self.path.clone(),
                source,
            })
    }
}

/// The bytes of `file` as they belong into the stream: decompressed where it is
/// compressed.
///
/// # Errors
/// [`Error::Damaged`] where it is empty though compressed.
pub fn decompressed(file: ChainFile) -> Result<Box<dyn Read + Send>> {
    Ok(match file.compression {
        None => Box::new(Raw::new(file, 0)),
        Some(compression) => Box::new(Inflated::new(file, compression)?),
    })
}

/// The bytes as they lie on disk, up to the size at the snapshot.
pub(super) struct Raw<F> {
    file: F,
    at: u64,
}

impl<F: Borrow<ChainFile>> Raw<F> {
    pub(super) fn new(file: F, at: u64) -> Self {
        Self { file, at }
    }
}

impl<F: Borrow<ChainFile>> Read for Raw<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ChainFile {
            file, path, stat, ..
        } = self.file.borrow();
        let left = usize::try_from(stat.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match file.read_at(buffer, self.at) {
                // The size said that there is more.
                Ok(0) => return Err(Error::Shrunk { path: path.clone() }.into()),
                Ok(n) => {
                    self.at = self.at.saturating_add(n as u64);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Read {
                        path: path.clone(),
                        source,
                    }
                    .into());
                }
            }
        }
    }
}

/// A file that somebody else keeps open, or that its reader keeps open itself.
#[derive(Clone, Debug)]
pub(super) enum Source<'a> {
    Borrowed(&'a ChainFile),
    Owned(Arc<ChainFile>),
}

impl Borrow<ChainFile> for Source<'_> {
    fn borrow(&self) -> &ChainFile {
        match self {
            Self::Borrowed(file) => file,
            Self::Owned(file) => file,
        }
    }
}

impl<'a> From<&'a ChainFile> for Source<'a> {
    fn from(file: &'a ChainFile) -> Self {
        Self::Borrowed(file)
    }
}

impl From<ChainFile> for Source<'_> {
    fn from(file: ChainFile) -> Self {
        Self::Owned(Arc::new(file))
    }
}

/// One file's part of the stream.
pub(super) enum FileReader<'a> {
    Plain(Raw<Source<'a>>),
    Compressed(Box<Inflated<Source<'a>>>),
}

impl<'a> FileReader<'a> {
    /// Leaves out the first `skip` bytes; a compressed file is decompressed for
    /// that, a plain one is not touched.
    pub(super) fn new(source: impl Into<Source<'a>>, skip: u64) -> Result<Self> {
        let source = source.into();
        let file: &ChainFile = source.borrow();
        let Some(compression) = file.compression else {
            return Ok(Self::Plain(Raw::new(source, skip)));
        };
        let mut inflated = Inflated::new(source.clone(), compression)?;
        inflated.skip(skip).map_err(|e| file.error(e))?;
        Ok(Self::Compressed(Box::new(inflated)))
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(raw) => raw.read(buffer),
            Self::Compressed(inflated) => inflated.read(buffer),
        }
    }
}
