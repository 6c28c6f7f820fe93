//! One file of the chain, held by its descriptor, and how far it was read.
//!
//! Must not know: names, other files.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;

use super::{Error, Followed, Result};
use crate::OkLogged as _;
use crate::chain::{ChainFile, decompressed};
use crate::content::{self, Mark, Watched};
use crate::folder::{FileId, stat_open};
use crate::stream::Fingerprint;

/// How far a compressed file is gone through to see what it holds.
const UNPACKED: u64 = 64 << 20;

/// What was opened of it, and how far it is read.
pub(super) struct Held {
    pub(super) name: OsString,
    pub(super) id: FileId,
    pub(super) source: Source,
    /// Size on disk when opened.
    pub(super) size: u64,
    pub(super) given: u64,
    /// The first bytes given.
    head: Vec<u8>,
    /// Whether it still is what it was.
    watched: Watched,
    /// What a compressed file holds on disk.
    print: Option<Fingerprint>,
    /// Whether a compressed file gave its last byte.
    pub(super) ended: bool,
}

/// What [`Held::read`] found.
pub(super) enum Read {
    /// Bytes, or none yet.
    Bytes(Vec<u8>),
    /// The file was emptied from outside, and may hold other bytes by now. Here is the
    /// memory again.
    Replaced(Vec<u8>),
}

pub(super) enum Source {
    Plain(File),
    /// Its decoder takes memory: made when it is read first.
    Packed(Option<ChainFile>),
    Compressed(Box<dyn io::Read + Send>),
    /// What it held and was not given is gone: it was emptied from outside.
    Lost,
}

impl Held {
    pub(super) fn new(file: ChainFile) -> Result<Self> {
        let (name, id, size) = (file.name().to_owned(), file.id(), file.size());
        if file.compression().is_none() {
            return Self::plain(name, id, file.into_file());
        }
        let print = content::fingerprint(file.file(), 0, size);
        let print = print.map_err(|source| read_error(&name, source))?;
        let source = match size {
            // That it is none is told at once.
            0 => Source::Compressed(decompressed(file)?),
            _ => Source::Packed(Some(file)),
        };
        Ok(Self {
            size,
            print,
            ..Self::with(name, id, source)
        })
    }

    pub(super) fn plain(name: OsString, id: FileId, file: File) -> Result<Self> {
        let watched = Watched::of(&file).map_err(|source| read_error(&name, source))?;
        Ok(Self {
            size: watched.mark().at(),
            watched,
            ..Self::with(name, id, Source::Plain(file))
        })
    }

    fn with(name: OsString, id: FileId, source: Source) -> Self {
        Self {
            name,
            id,
            source,
            size: 0,
            given: 0,
            head: Vec::new(),
            watched: Watched::default(),
            print: None,
            ended: false,
        }
    }

    /// What it had, in the file `copy` that holds it now.
    pub(super) fn moved_to(&self, copy: ChainFile) -> Result<Self> {
        let copy = Self::new(copy)?;
        Ok(Self {
            given: self.given,
            head: self.head.clone(),
            ..copy
        })
    }

    /// What it had and nobody has. No file has the identity `lost`.
    pub(super) fn lost(&self, lost: FileId) -> Self {
        Self {
            size: self.given,
            given: self.given,
            ..Self::with(self.name.clone(), lost, Source::Lost)
        }
    }

    /// The file anew, from its first byte.
    pub(super) fn anew(&self) -> Result<Option<Self>> {
        let Source::Plain(file) = &self.source else {
            return Ok(None);
        };
        let file = file.try_clone().map_err(|e| self.error(e))?;
        Self::plain(self.name.clone(), self.id, file).map(Some)
    }

    fn error(&self, source: io::Error) -> Error {
        read_error(&self.name, source)
    }

    pub(super) fn try_clone(&self) -> Result<Self> {
        let source = match &self.source {
            Source::Plain(file) => Source::Plain(file.try_clone().map_err(|e| self.error(e))?),
            Source::Packed(file) => {
                Source::Packed(file.as_ref().map(ChainFile::try_clone).transpose()?)
            }
            // Begun, or empty: it gives nothing here.
            Source::Compressed(_) => Source::Packed(None),
            Source::Lost => Source::Lost,
        };
        Ok(Self {
            name: self.name.clone(),
            source,
            head: self.head.clone(),
            watched: self.watched.clone(),
            ..*self
        })
    }

    pub(super) fn followed(&self) -> Followed {
        let size = self.size();
        Followed {
            id: self.id,
            size,
            given: self.given,
            print: self.print_of(size),
            compressed: !matches!(self.source, Source::Plain(_) | Source::Lost),
            written: self.written(),
        }
    }

    fn written(&self) -> Option<(i64, u32)> {
        let Source::Plain(file) = &self.source else {
            return None;
        };
        let stat = stat_open(file).ok_logged("nobody knows when it was last written");
        stat.map(|stat| stat.modified)
    }

    /// The fingerprint of bytes of the stream in it.
    pub(super) fn fingerprint(&self, skip: u64, length: u64) -> Result<Option<Fingerprint>> {
        Ok(match &self.source {
            Source::Plain(file) => {
                content::fingerprint(file, skip, length).map_err(|e| self.error(e))?
            }
            Source::Packed(Some(file)) if skip.saturating_add(length) <= UNPACKED => file
                .fingerprint(skip, length)
                .ok_logged("the file is not recognised by what it holds")
                .flatten(),
            _ => None,
        })
    }

    /// The fingerprint of what it holds on disk: of what was given, where that was all.
    fn print_of(&self, size: u64) -> Option<Fingerprint> {
        let Source::Plain(file) = &self.source else {
            return self.print;
        };
        let window = usize::try_from(size.min(Fingerprint::WINDOW)).ok()?;
        let mark = self.watched.mark();
        if self.given == size && mark.at() == size {
            let (head, tail) = (self.head.get(..window)?, mark.bytes());
            return Fingerprint::of(size, head, tail).filter(|_| tail.len() == window);
        }
        content::fingerprint(file, 0, size)
            .ok_logged("the file is remembered without its fingerprint")
            .flatten()
    }

    /// Whether it was empty when it was looked at last.
    pub(super) fn was_empty(&self) -> bool {
        matches!(self.source, Source::Plain(_)) && self.watched.was_empty()
    }

    /// Whether it was written since it was looked at last.
    pub(super) fn is_written(&self) -> bool {
        matches!(&self.source, Source::Plain(file) if self.watched.is_written(file))
    }

    /// The last bytes known of it.
    pub(super) fn mark(&self) -> &Mark {
        self.watched.mark()
    }

    /// Whether it still has the bytes that were seen of it. Called often, it sees what
    /// was not read yet as well.
    pub(super) fn is_same(&mut self) -> Result<bool> {
        let Source::Plain(file) = &self.source else {
            return Ok(true);
        };
        let same = self.watched.is_same(file, self.given);
        same.map_err(|source| read_error(&self.name, source))
    }

    /// Size on disk: a plain file may have grown since it was opened.
    pub(super) fn size(&self) -> u64 {
        match &self.source {
            Source::Plain(file) => stat_open(file).map_or(self.size, |s| s.size),
            Source::Packed(_) | Source::Compressed(_) | Source::Lost => self.size,
        }
    }

    /// How many bytes can be read of it now, at most `most`.
    pub(super) fn left(&self, most: usize) -> Result<usize> {
        let file = match &self.source {
            Source::Plain(file) => file,
            Source::Packed(_) | Source::Compressed(_) => {
                return Ok(if self.ended { 0 } else { most });
            }
            Source::Lost => return Ok(0),
        };
        let size = stat_open(file).map_err(|e| self.error(e))?.size;
        let left = size.saturating_sub(self.given);
        Ok(usize::try_from(left).unwrap_or(usize::MAX).min(most))
    }

    pub(super) fn read(&mut self, mut bytes: Vec<u8>, most: usize, whole: bool) -> Result<Read> {
        if let Source::Packed(file) = &mut self.source
            && let Some(file) = file.take()
        {
            let mut reader = decompressed(file)?;
            let skip = &mut (&mut reader).take(self.given);
            io::copy(skip, &mut io::sink()).map_err(|e| read_error(&self.name, e))?;
            self.source = Source::Compressed(reader);
        }
        let fail = |source| read_error(&self.name, source);
        match &mut self.source {
            Source::Plain(file) => {
                let size = stat_open(file).map_err(fail)?.size;
                let Some(left) = size.checked_sub(self.given) else {
                    return Ok(Read::Replaced(bytes));
                };
                let most_now = usize::try_from(left).unwrap_or(usize::MAX).min(most);
                if whole && most_now < most {
                    bytes.clear();
                    return Ok(Read::Bytes(bytes));
                }
                bytes.resize(most_now, 0);
                let mut filled = 0;
                while let Some(rest) = bytes.get_mut(filled..).filter(|r| !r.is_empty()) {
                    let at = self.given.saturating_add(filled as u64);
                    match file.read_at(rest, at) {
                        Ok(0) => break,
                        Ok(n) => filled += n,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(fail(e)),
                    }
                }
                bytes.truncate(filled);
                // After they were read: what was read before the file was emptied is
                // good, and what was read later is not what follows.
                if !self.watched.mark().is_in(file).map_err(fail)? {
                    return Ok(Read::Replaced(bytes));
                }
                self.give(&bytes);
                Ok(Read::Bytes(bytes))
            }
            Source::Compressed(reader) => {
                bytes.clear();
                reader
                    .take(most as u64)
                    .read_to_end(&mut bytes)
                    .map_err(fail)?;
                self.ended = bytes.len() < most;
                self.given = self.given.saturating_add(bytes.len() as u64);
                Ok(Read::Bytes(bytes))
            }
            // Its decoder could not be made, and whoever read it was told; or it is lost.
            Source::Packed(_) | Source::Lost => {
                bytes.clear();
                Ok(Read::Bytes(bytes))
            }
        }
    }

    fn give(&mut self, bytes: &[u8]) {
        let window = usize::try_from(Fingerprint::WINDOW).unwrap_or(usize::MAX);
        if self.given == self.head.len() as u64 {
            let more = window.saturating_sub(self.head.len()).min(bytes.len());
            self.head.extend(bytes.get(..more).unwrap_or_default());
        }
        self.given = self.given.saturating_add(bytes.len() as u64);
        self.watched.go_to(self.given, bytes);
    }
}

fn read_error(name: &OsStr, source: io::Error) -> Error {
    Error::Read {
        name: name.to_owned(),
        source,
    }
}
