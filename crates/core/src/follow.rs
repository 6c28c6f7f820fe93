//! Holds a growing chain by its descriptors: a rename, a rollover, an unlink,
//! even the removal of the whole folder takes nothing away from who holds them.
//!
//! The bytes of the held files, oldest first, are one stream; its offset 0 is
//! the first byte of the oldest file at [`Follower::begin`]. Rotated files that
//! are compressed are read as what they hold.
//!
//! Must not know: migrations, transports.
//!
//! ```
//! use logchain_core::chain::{LogChain, NumberingChoice};
//! use logchain_core::follow::{Follower, NoWriters};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let log = folder.path().join("console.log");
//! std::fs::write(&log, "one ")?;
//! let mut follower = Follower::begin(&LogChain::open(&log, NumberingChoice::FromZero)?)?;
//!
//! // A rollover, and a removal: both files are read to their ends.
//! std::fs::rename(&log, folder.path().join("console.log.0"))?;
//! std::fs::write(&log, "two")?;
//! // How writers are seen is the caller's matter.
//! follower.refresh(&NoWriters)?;
//! std::fs::remove_file(&log)?;
//! let mut all = Vec::new();
//! while let Some(piece) = follower.next(1024, true)? {
//!     all.extend(piece.bytes);
//! }
//! assert_eq!(all, b"one two");
//! assert_eq!((follower.offset(), follower.missed().len()), (7, 0));
//! # Ok(())
//! # }
//! ```

mod held;
mod nameless;
mod replaced;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;

use held::{Held, Read, Source};

use crate::OkLogged as _;
use crate::chain::{self, ChainFile, Compression, Listing, LogChain, Ownership, Remark};
use crate::content;
use crate::folder::{self, FileId, Folder, stat_open};
use crate::record::Offered;
use crate::stream::{Fingerprint, Ledger, Seen};

/// Files held at most. A reader that falls behind by more loses the oldest, as
/// it would lose them to the rotation itself.
const HELD: usize = 64;

/// Whether somebody has a file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Nobody.
    None,
    /// Somebody.
    Some,
    /// This file system does not tell.
    Unknown,
}

/// Tells whether a file has a writer. How that is seen depends on the system,
/// so it is given from outside.
pub trait Writers: Send + Sync {
    /// Whether somebody, in any process, has `file` open for writing now.
    fn writer(&self, file: &File) -> Writer;

    /// Whose the files beside the log `base` in `folder` are, as far as that is known
    /// without looking at them: whoever knows guests knows their logs.
    fn ownership(&self, folder: &Folder, base: &OsStr) -> Ownership {
        let _ = (folder, base);
        Ownership::default()
    }
}

/// For files that nobody writes any more: no file has a writer.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWriters;

impl Writers for NoWriters {
    fn writer(&self, _: &File) -> Writer {
        Writer::None
    }
}

/// Why a chain could not be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The chain could not be opened.
    #[error(transparent)]
    Chain(#[from] chain::Error),
    /// The folder's answer.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Reading failed.
    #[error("cannot read {name:?}: {source}")]
    Read {
        /// The file's name when it was opened.
        name: OsString,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Some bytes of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where in the stream they begin.
    pub offset: u64,
    /// Whether they begin a new file.
    pub starts_file: bool,
    /// The bytes, never none.
    pub bytes: Vec<u8>,
}

/// What was missed, and where in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The stream's offset at which bytes are missing.
    pub offset: u64,
    /// Why.
    pub why: &'static str,
}

/// A file that was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Which file.
    pub id: FileId,
    /// Its size on disk in bytes.
    pub size: u64,
    /// How many bytes of the stream it gave.
    pub given: u64,
    /// What it holds on disk, where that tells anything.
    pub print: Option<Fingerprint>,
    /// Whether it is compressed: then that is not what it gave.
    pub compressed: bool,
    /// When it was last written, in seconds and nanoseconds, where that is known.
    pub written: Option<(i64, u32)>,
}

/// What these files hold on disk.
pub(crate) fn prints(files: &[Followed]) -> Vec<(FileId, Fingerprint)> {
    let prints = files.iter().filter_map(|f| Some((f.id, f.print?)));
    prints.collect()
}

/// A chain held by descriptors while it grows.
pub struct Follower {
    chain: LogChain,
    /// What was told of the chain when it was opened.
    remarks: Vec<Remark>,
    /// Oldest first; the last one is the base file, or was when last looked.
    held: VecDeque<Held>,
    /// Every file that gave all its bytes: what a receipt covers.
    seen: Vec<Followed>,
    /// Files that were emptied from outside, and where the bytes are that they had.
    moved: Vec<(FileId, FileId)>,
    offset: u64,
    missed: Vec<Missed>,
    /// A file that was written though it was not the base when this began.
    nameless: Option<FileId>,
}

/// A file that is held, of which nothing was read.
#[derive(Clone, Copy, Debug)]
pub struct HeldFile<'a> {
    /// Which file.
    pub id: FileId,
    /// The descriptor; where it stands means nothing.
    pub file: &'a File,
    /// How it is compressed, if it is.
    pub compression: Option<Compression>,
}

impl Follower {
    /// Opens every file of the chain. From now on nothing that happens to the
    /// names takes bytes away.
    pub fn begin(chain: &LogChain) -> Result<Self> {
        let snapshot = chain.snapshot()?;
        let remarks = snapshot.remarks().to_vec();
        Self::of_files(chain.try_clone()?, remarks, snapshot.into_files())
    }

    /// Goes on with files that somebody else opened, oldest first: all of the chain, or
    /// what is left of it where its names are gone.
    pub(crate) fn of_files(
        chain: LogChain,
        remarks: Vec<Remark>,
        files: Vec<ChainFile>,
    ) -> Result<Self> {
        let held: Result<_> = files.into_iter().map(Held::new).collect();
        Ok(Self {
            chain,
            remarks,
            held: held?,
            seen: Vec::new(),
            moved: Vec::new(),
            offset: 0,
            missed: Vec::new(),
            nameless: None,
        })
    }

    /// The name of the base file.
    #[must_use]
    pub fn base(&self) -> &OsStr {
        self.chain.base_name()
    }

    /// What of the chain was not read when it was opened, and where its order is not
    /// that of the names.
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// The offset after the last byte given.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What was missed so far.
    #[must_use]
    pub fn missed(&self) -> &[Missed] {
        &self.missed
    }

    /// The files that gave their bytes, oldest first.
    #[must_use]
    pub fn files(&self) -> Vec<Followed> {
        let held = self.held.iter().map(Held::followed);
        self.seen.iter().copied().chain(held).collect()
    }

    /// How many bytes those files have, as they lie on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let held = self.held.iter().map(Held::size);
        let sizes = self.seen.iter().map(|file| file.size).chain(held);
        sizes.fold(0, u64::saturating_add)
    }

    /// Files that were emptied from outside since they were opened, and the ones that
    /// hold now what they held. Where nobody has it, the second is one that no file has.
    #[must_use]
    pub(crate) fn moved(&self) -> &[(FileId, FileId)] {
        &self.moved
    }

    /// The files held, oldest first, with the length of each in the stream where
    /// that is known without reading it.
    #[must_use]
    pub fn lengths(&self) -> Vec<Seen> {
        let held = self.held.iter().map(|file| Seen {
            id: file.id,
            length: match file.source {
                Source::Plain(_) | Source::Lost => Some(file.size()),
                Source::Packed(_) | Source::Compressed(_) => None,
            },
            after_gap: false,
            compressed: !matches!(file.source, Source::Plain(_) | Source::Lost),
        });
        held.collect()
    }

    /// What is known of the stream, by the files held that have it now. Bytes in
    /// compressed files that lie far behind their first one are not looked for: a
    /// migration waits for this.
    pub(crate) fn recognise(&self, ledger: &Ledger) -> Result<Ledger> {
        ledger.recognise(&self.lengths(), &mut |file, skip, length| {
            let held = self.held.get(file);
            held.map_or(Ok(None), |held| held.fingerprint(skip, length))
        })
    }

    /// Whether the files held are those that were handed over, each with all that it
    /// held then, and perhaps more.
    pub(crate) fn has_offered(&self, offered: &Offered) -> bool {
        let mut files = offered.files.iter().filter(|(_, size)| *size > 0);
        files.all(|(id, _)| {
            let held = self.held().find(|held| held.id == *id);
            let is_it = |held: HeldFile<'_>| match offered.print_of(*id) {
                Some(print) => content::fingerprint(held.file, 0, print.length())
                    .ok_logged("the file counts as another than was handed over")
                    .is_some_and(|there| there == Some(print)),
                None => true,
            };
            held.is_some_and(is_it)
        })
    }

    /// Looks for a rollover and opens the files that came.
    pub fn refresh(&mut self, writers: &dyn Writers) -> Result<()> {
        // A rollover between two looks shows as an odd listing: look again then.
        for _ in 0..3 {
            if self.refresh_once(writers)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `false`: names changed while we looked.
    fn refresh_once(&mut self, writers: &dyn Writers) -> Result<bool> {
        self.came_before(self.held.len().saturating_sub(1), false)?;
        if let Some(newest) = self.held.back_mut()
            && !newest.is_same()?
        {
            self.replaced(self.held.len().saturating_sub(1))?;
        }
        let newest = self.held.back();
        let (folder, base_name) = (self.chain.folder(), self.chain.base_name());
        let base = folder.stat(base_name)?;
        let Some(base) = base.filter(|s| s.regular) else {
            return Ok(true);
        };
        if newest.is_some_and(|n| n.id == base.id) {
            return Ok(true);
        }
        if self.writes_nameless(writers) {
            return Ok(true);
        }
        let listing = self.listing()?;
        let rotated = listing.rotated();
        let ours = newest.and_then(|n| rotated.iter().position(|r| r.stat.id == n.id));
        let newer = match (ours, newest) {
            (Some(at), _) => rotated.get(..at).unwrap_or_default(),
            (
                None,
                Some(Held {
                    source: Source::Plain(file),
                    ..
                }),
            ) if writers.writer(file) != Writer::None => {
                // Still written, though it has no name here any more: the log was
                // wiped for another writer, and what has its name is not ours.
                return Ok(true);
            }
            (None, Some(newest)) if self.nameless == Some(newest.id) => rotated,
            (None, Some(_)) => {
                let why = "rollovers came faster than they could be followed";
                self.missed.push(Missed {
                    offset: self.offset,
                    why,
                });
                rotated
            }
            (None, None) => rotated,
        };
        let mut opened = Vec::new();
        for (name, id) in newer
            .iter()
            .rev()
            .map(|r| (r.name.as_os_str(), r.stat.id))
            .filter(|(_, id)| !self.knows(*id))
            .chain([(base_name, base.id)])
        {
            match folder.open_file(name) {
                Ok((file, stat)) if stat.id == id => {
                    opened.push(Held::plain(name.to_owned(), id, file)?);
                }
                Ok(_) | Err(folder::Error::NotFound { .. }) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        self.held.extend(opened);
        while self.held.len() > HELD {
            let why = "more files were rolled over than are held";
            self.held.pop_front();
            self.missed.push(Missed {
                offset: self.offset,
                why,
            });
        }
        Ok(true)
    }

    fn listing(&self) -> Result<Listing> {
        let (folder, base) = (self.chain.folder(), self.chain.base_name());
        Ok(Listing::read_owned(folder, base, &self.known())?)
    }

    /// Whose the files in the folder are: what was held is this log's, whatever its
    /// times say.
    fn known(&self) -> Ownership {
        let mut known = self.chain.ownership().clone();
        known.ours(self.files().into_iter().map(|file| file.id));
        known
    }

    /// How many bytes [`Follower::next`] gives now, at the most; of a compressed
    /// file nobody knows before it is read.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn waiting(&self, most: usize, flush: bool) -> Result<usize> {
        let last = self.held.len().saturating_sub(1);
        for (n, file) in self.held.iter().enumerate() {
            let bytes = file.left(most)?;
            if bytes > 0 {
                let whole = n == last && !flush;
                return Ok(if whole && bytes < most { 0 } else { bytes });
            }
        }
        Ok(0)
    }

    /// Whether the next bytes come out of a compressed file.
    #[must_use]
    pub fn unpacks(&self) -> bool {
        let first = self.held.front();
        first.is_some_and(|f| !matches!(f.source, Source::Plain(_)))
    }

    /// The next bytes, at most `most`; `None` where there are none yet. Of the
    /// file that still grows only whole pieces are given, unless `flush`.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn next(&mut self, most: usize, flush: bool) -> Result<Option<Piece>> {
        self.next_in(Vec::new(), most, flush)
    }

    /// As [`Follower::next`]; the bytes come in `memory`, whatever that held before.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn next_in(
        &mut self,
        mut memory: Vec<u8>,
        most: usize,
        flush: bool,
    ) -> Result<Option<Piece>> {
        loop {
            self.came_before(0, false)?;
            let growing = self.held.len() <= 1;
            let Some(file) = self.held.front_mut() else {
                return Ok(None);
            };
            let starts_file = file.given == 0;
            let bytes = match file.read(memory, most, growing && !flush)? {
                Read::Bytes(bytes) => bytes,
                Read::Replaced(again) => {
                    memory = again;
                    self.replaced(0)?;
                    continue;
                }
            };
            if !bytes.is_empty() {
                let offset = self.offset;
                self.offset = offset.saturating_add(bytes.len() as u64);
                return Ok(Some(Piece {
                    offset,
                    starts_file,
                    bytes,
                }));
            }
            memory = bytes;
            if growing {
                return Ok(None);
            }
            self.pass()?;
        }
    }

    /// Whether nothing can come any more: all bytes were given, nobody has the
    /// newest file open for writing, and it is still the base, or its name is
    /// gone. A rolled-over file without a writer says nothing.
    pub fn drained(&mut self, writers: &dyn Writers) -> Result<Writer> {
        // Emptied just now, and as long as it was: nothing shows in its length.
        for index in 0..self.held.len() {
            if self.came_before(index, true)? {
                return Ok(Writer::Some);
            }
            if let Some(held) = self.held.get_mut(index)
                && !held.is_same()?
            {
                self.replaced(index)?;
                return Ok(Writer::Some);
            }
        }
        // Behind a file that was given to its end an empty one may have come, in which
        // there is nothing to be read: its guest left before it printed again.
        while self.held.len() > 1
            && let Some(first) = self.held.front()
            && first.left(usize::MAX)? == 0
            && match &first.source {
                Source::Plain(file) => writers.writer(file) != Writer::Some,
                Source::Lost => true,
                Source::Packed(_) | Source::Compressed(_) => false,
            }
        {
            self.pass()?;
        }
        let writer = self.written(writers)?;
        let Some(Held {
            given,
            source: Source::Plain(file),
            ..
        }) = self.held.back()
        else {
            return Ok(writer);
        };
        let read = |source| Error::Read {
            name: self.chain.base_name().to_owned(),
            source,
        };
        let grown = self.held.len() > 1 || stat_open(file).map_err(read)?.size > *given;
        Ok(if grown { Writer::Some } else { writer })
    }

    /// Whether the log is written still, as far as [`Follower::refresh`] has seen
    /// it, whatever was read of it.
    pub fn written(&self, writers: &dyn Writers) -> Result<Writer> {
        let Some(Held {
            id,
            source: Source::Plain(file),
            ..
        }) = self.held.back()
        else {
            return Ok(Writer::None);
        };
        let writer = writers.writer(file);
        if writer == Writer::Some {
            return Ok(Writer::Some);
        }
        let base = self.chain.folder().stat(self.chain.base_name())?;
        let rolls = base.is_some_and(|b| b.id != *id && self.is_named(*id).unwrap_or(true));
        Ok(if rolls { Writer::Some } else { writer })
    }

    /// A second hold on the same files, for one of which nothing was read yet.
    ///
    /// # Errors
    /// [`Error::Read`] where there are no descriptors left.
    pub fn try_clone(&self) -> Result<Self> {
        let held = self.held.iter().map(Held::try_clone);
        Ok(Self {
            chain: self.chain.try_clone()?,
            remarks: self.remarks.clone(),
            held: held.collect::<Result<_>>()?,
            seen: self.seen.clone(),
            moved: self.moved.clone(),
            offset: self.offset,
            missed: self.missed.clone(),
            nameless: self.nameless,
        })
    }

    /// The files that are held, oldest first: of those that were read to their
    /// ends none.
    pub fn held(&self) -> impl DoubleEndedIterator<Item = HeldFile<'_>> {
        self.held.iter().filter_map(|held| {
            let (file, compression) = match &held.source {
                Source::Plain(file) => (file, None),
                Source::Packed(file) => {
                    let file = file.as_ref()?;
                    (file.file(), file.compression())
                }
                Source::Compressed(_) | Source::Lost => return None,
            };
            let id = held.id;
            Some(HeldFile {
                id,
                file,
                compression,
            })
        })
    }

    /// Whether the newest file that holds anything is found beneath `path`, the
    /// path of the base file, by whoever opens it now.
    ///
    /// # Errors
    /// The folder's; one that is gone is none.
    pub fn is_found(&self, path: &Path) -> Result<bool> {
        let (folder, base) = match Folder::of_file(path) {
            Err(folder::Error::NotFound { .. }) => return Ok(false),
            opened => opened?,
        };
        let listing = Listing::read_owned(&folder, &base, &self.known())?;
        let found = |id| listing.files().any(|file| file.stat.id == id);
        let mut newest = self.held.iter().rev();
        let newest = newest.find(|held| held.size() > 0).or(self.held.back());
        Ok(newest.is_none_or(|held| found(held.id)))
    }

    /// Who writes the newest file.
    #[must_use]
    pub fn newest_writer(&self, writers: &dyn Writers) -> Writer {
        match self.held.back().map(|held| &held.source) {
            Some(Source::Plain(file)) => writers.writer(file),
            _ => Writer::None,
        }
    }

    fn is_named(&self, id: FileId) -> Result<bool> {
        let listing = self.listing()?;
        Ok(listing.rotated().iter().any(|r| r.stat.id == id))
    }
}

#[cfg(test)]
mod tests;
