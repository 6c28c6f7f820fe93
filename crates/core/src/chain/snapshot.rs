//! All files of a chain, opened so that they belong to one moment, though other
//! processes rename them at any moment.
//!
//! A rollover renames `.1` to `.2`, `.0` to `.1`, the base to `.0`, and creates
//! a new base. Files go one way only, from name to name. So if two looks at the
//! folder, one before all files were opened and one after, find the same files
//! under the same names, each of them had its name throughout. A name that was
//! missing both times proves less: its file may have come and gone in between,
//! with one rollover during the first look and another during the second. A
//! third look shows it under its next name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::file::{ChainFile, Part, Source};
use super::listing::is_after_gap;
use super::merge::{self, LineSearch, Plan, Start};
use super::order::{Age, is_contradicted, order};
use super::reader::Run;
use super::{Amount, Entry, Error, Gap, Listing, Numbering, Ownership, Reader, Remark, Result};
use crate::OkLogged as _;
use crate::folder::{self, Folder, Stat};
use crate::record::Record;
use crate::stream::{Ledger, Seen};

/// How often the files are looked at anew before we give up. A rollover takes
/// microseconds, unless the one who does it is stopped in the middle.
const TRIES: usize = 50;

/// By how much each pause between two tries is longer than the one before. All
/// of them together take 50 ms. Not one length for all: a rollover every
/// millisecond would be met again and again.
const PAUSE: Duration = Duration::from_micros(40);

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// How long we wait in all while names go on changing: between two of any real
/// log's rollovers there is more time than a look takes, but a loaded machine
/// may not give it to us at once.
const CHANGING: Duration = Duration::from_secs(2);

/// How often the names must prove the same after all files were opened.
const LOOKS_AFTER: usize = 2;

/// How many files are held open at most.
const FILES_MAX: usize = 4096;

/// All files of a chain, held open, with their sizes at that moment.
///
/// Bytes written later are not read; a rename, a rollover, an unlink takes
/// nothing away.
#[derive(Debug)]
pub struct Snapshot {
    /// Oldest first.
    files: Vec<ChainFile>,
    gaps: Vec<Gap>,
    remarks: Vec<Remark>,
}

impl Snapshot {
    pub(super) fn take(folder: &impl Names, base: &OsStr, numbering: Numbering) -> Result<Self> {
        let mut pause = Duration::ZERO;
        let mut waited = Duration::ZERO;
        let mut tries = TRIES;
        loop {
            let odd = match look(folder, base, numbering)? {
                Look::Whole(snapshot) => return Ok(snapshot),
                Look::Odd(odd) => odd,
            };
            tries = tries.saturating_sub(1);
            let changing = matches!(odd, Odd::Changed) && waited < CHANGING;
            if tries == 0 && !changing {
                return odd.accept(folder, base);
            }
            pause = pause.saturating_add(PAUSE).min(PAUSE_MAX);
            waited = waited.saturating_add(pause);
            folder.wait(pause);
        }
    }

    /// The files, oldest first; the last one is the base file, if it is there.
    #[must_use]
    pub fn files(&self) -> &[ChainFile] {
        &self.files
    }

    /// As [`Snapshot::files`], to keep them.
    #[must_use]
    pub fn into_files(self) -> Vec<ChainFile> {
        self.files
    }

    /// Numbers that are missing, newest first. The files before and after them
    /// are read as if nothing were missing.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What else a reader should know: what was not read, and where names and times
    /// give two orders.
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// Whether rotated files are there but, even after a while, no base file.
    #[must_use]
    pub fn base_is_missing(&self) -> bool {
        self.files.last().is_none_or(|file| !file.is_base())
    }

    /// The length of the stream in bytes. Compressed files are decompressed
    /// once to find it out.
    ///
    /// # Errors
    /// Those of reading: [`Error::Damaged`], [`Error::Shrunk`] and the like.
    pub fn len(&self) -> Result<u64> {
        let lengths = (0..self.files.len()).map(|file| self.length_of(file));
        lengths.sum()
    }

    /// Whether the stream has no byte.
    ///
    /// # Errors
    /// As [`Snapshot::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The whole stream, oldest byte first.
    pub fn read_all(&self) -> Result<Reader<'_>> {
        Ok(self.read(Start::FIRST))
    }

    /// The last `budget` bytes of the stream, or all of it where it has fewer.
    ///
    /// Plain files are read from the right place on. A compressed file is
    /// touched only if the budget reaches into it; it is then decompressed
    /// twice, since its length must be known and it may be larger than memory.
    ///
    /// # Errors
    /// As [`Snapshot::len`].
    pub fn tail(&self, budget: u64) -> Result<Reader<'_>> {
        Ok(self.read(self.start_of_tail(budget)?))
    }

    /// The stream without its first `bytes` bytes; nothing where it has fewer.
    ///
    /// They are counted from the oldest file that lies here now, so this is no offset in
    /// the VM's stream: [`LogChain::from`](super::LogChain::from) reads from one of those.
    ///
    /// # Errors
    /// As [`Snapshot::len`].
    pub fn skip(&self, bytes: u64) -> Result<Reader<'_>> {
        Ok(self.read(self.planned(|lengths| merge::skip(lengths, bytes))?))
    }

    /// The last `lines` lines, or all of the stream where it has fewer. A last
    /// line without a newline counts.
    ///
    /// Plain files are searched backwards, so what is given is read twice.
    ///
    /// # Errors
    /// As [`Snapshot::len`].
    pub fn tail_lines(&self, lines: u64) -> Result<Reader<'_>> {
        Ok(self.read(self.start_of_lines(lines)?))
    }

    /// So much of the end of the stream, by a reader that keeps open what it has yet to read.
    ///
    /// # Errors
    /// As [`Snapshot::len`].
    pub(super) fn into_tail(self, amount: Amount) -> Result<Reader<'static>> {
        let start = match amount {
            Amount::All => Start::FIRST,
            Amount::Bytes(budget) => self.start_of_tail(budget)?,
            Amount::Lines(lines) => self.start_of_lines(lines)?,
        };
        Ok(Reader::owning(self.files, start))
    }

    fn start_of_tail(&self, budget: u64) -> Result<Start> {
        self.planned(|lengths| merge::tail(lengths, budget))
    }

    fn start_of_lines(&self, lines: u64) -> Result<Start> {
        let Some(lines) = NonZeroU64::new(lines) else {
            return Ok(Start {
                file: self.files.len(),
                skip: 0,
            });
        };
        let mut search = LineSearch::new(lines);
        for (file, opened) in self.files.iter().enumerate().rev() {
            if let Some(skip) = opened.find_lines(&mut search)? {
                return Ok(Start { file, skip });
            }
        }
        Ok(Start::FIRST)
    }

    /// The files as [`crate::stream`] wants to know them.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let mut older = None;
        let seen = self.files.iter().map(|file| Seen {
            id: file.id(),
            length: file.known_length(),
            after_gap: is_after_gap(&self.gaps, older.replace(file.part()), file.part()),
            compressed: file.compression().is_some(),
        });
        seen.collect()
    }

    /// Finds out the length of a file.
    pub(crate) fn measure(&self, file: usize) -> Result<()> {
        self.length_of(file).map(drop)
    }

    /// The length of a file in the stream; 0 where there is no such file.
    pub(crate) fn length_of(&self, file: usize) -> Result<u64> {
        let Some(file) = self.files.get(file) else {
            return Ok(0);
        };
        match file.known_length() {
            Some(length) => Ok(length),
            None => Ok(file.count()?.length),
        }
    }

    /// Bytes of files, each by the file's place in the list, the bytes to leave out and how
    /// many follow.
    pub(crate) fn read_runs(
        &self,
        runs: impl IntoIterator<Item = (usize, u64, u64)>,
    ) -> Reader<'_> {
        let runs = runs.into_iter().filter_map(|(file, skip, length)| {
            let file = self.files.get(file)?.into();
            Some(Run { file, skip, length })
        });
        Reader::of(runs.collect())
    }

    /// As [`Snapshot::read_runs`], by a reader that keeps open what it has yet to read.
    pub(crate) fn into_runs(
        self,
        runs: impl IntoIterator<Item = (usize, u64, u64)>,
    ) -> Reader<'static> {
        let files = self.files.into_iter().map(Arc::new);
        let files: Vec<_> = files.map(Source::Owned).collect();
        let runs = runs.into_iter().filter_map(|(file, skip, length)| {
            let file = files.get(file)?.clone();
            Some(Run { file, skip, length })
        });
        Reader::of(runs.collect())
    }

    fn planned(&self, plan: impl Fn(&[Option<u64>]) -> Plan) -> Result<Start> {
        loop {
            let lengths: Vec<_> = self.files.iter().map(ChainFile::known_length).collect();
            match plan(&lengths) {
                Plan::From(start) => return Ok(start),
                Plan::Measure(index) => match self.files.get(index) {
                    Some(file) => _ = file.count()?,
                    None => return Ok(Start::FIRST),
                },
            }
        }
    }

    fn read(&self, start: Start) -> Reader<'_> {
        Reader::new(&self.files, start)
    }
}

/// What is asked of a folder: a test can answer it in the middle of a rollover.
pub(super) trait Names {
    fn path(&self) -> &Path;
    fn listing(&self, base: &OsStr) -> Result<Listing>;
    fn open(&self, name: &OsStr) -> folder::Result<(File, Stat)>;
    /// What the record beside the base knows of where its files begin.
    fn ledger(&self, base: &OsStr) -> Ledger;
    fn wait(&self, time: Duration);
}

/// A folder, and whose the files in it are.
pub(super) struct Owned<'a> {
    pub(super) folder: &'a Folder,
    pub(super) ownership: &'a Ownership,
}

impl Names for Owned<'_> {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn listing(&self, base: &OsStr) -> Result<Listing> {
        Listing::read_owned(self.folder, base, self.ownership)
    }

    fn open(&self, name: &OsStr) -> folder::Result<(File, Stat)> {
        self.folder.open_file(name)
    }

    fn ledger(&self, base: &OsStr) -> Ledger {
        let record = Record::read_any(self.folder, base);
        let record = record.ok_logged("files are ordered without what is remembered of them");
        record.flatten().map(|r| r.ledger).unwrap_or_default()
    }

    fn wait(&self, time: Duration) {
        crate::pause::pause(time);
    }
}

/// What came of one try.
pub(super) enum Look {
    Whole(Snapshot),
    Odd(Odd),
}

/// A sign of a rollover under way, or of a chain that is odd for good.
pub(super) enum Odd {
    /// Names moved while the files were opened.
    Changed,
    /// Nothing is there.
    Nothing,
    /// Two names of one file.
    SameFile(OsString, OsString),
    /// Rotated files without a base file.
    NoBase(Snapshot),
}

impl Odd {
    /// It stayed like this.
    fn accept(self, folder: &impl Names, base: &OsStr) -> Result<Snapshot> {
        let path = |name: &OsStr| folder.path().join(name);
        match self {
            Self::NoBase(snapshot) => Ok(snapshot),
            Self::Changed => Err(Error::Unsettled { path: path(base) }),
            Self::Nothing => Err(Error::NotFound { path: path(base) }),
            Self::SameFile(newer, older) => Err(Error::SameFile {
                path: path(&newer),
                other: path(&older),
            }),
        }
    }
}

pub(super) fn look(folder: &impl Names, base: &OsStr, numbering: Numbering) -> Result<Look> {
    let listing = folder.listing(base)?;
    if listing.is_empty() {
        return Ok(Look::Odd(Odd::Nothing));
    }
    let name = |name: Option<&OsStr>| name.unwrap_or(base).to_owned();
    if let Some((newer, older)) = listing.same_file_twice() {
        return Ok(Look::Odd(Odd::SameFile(name(newer), name(older))));
    }
    let count = listing.files().filter(|f| f.part != Part::Base).count();
    if count >= FILES_MAX {
        let path = folder.path().join(base);
        return Err(Error::TooManyFiles {
            path,
            count,
            most: FILES_MAX.saturating_sub(1),
        });
    }
    let Some(mut files) = open_all(folder, base, &listing)? else {
        return Ok(Look::Odd(Odd::Changed));
    };
    let gaps = listing.gaps(numbering);
    for _ in 0..LOOKS_AFTER {
        if !folder.listing(base)?.same_files(&listing) {
            return Ok(Look::Odd(Odd::Changed));
        }
    }
    let mut remarks = listing.remarks();
    remarks.extend(put_in_order(folder, base, &mut files));
    let snapshot = Snapshot {
        files,
        gaps,
        remarks,
    };
    Ok(match listing.base() {
        Some(_) => Look::Whole(snapshot),
        None => Look::Odd(Odd::NoBase(snapshot)),
    })
}

/// Oldest first; `None` where a name leads elsewhere by now.
fn open_all(
    folder: &impl Names,
    base: &OsStr,
    listing: &Listing,
) -> Result<Option<Vec<ChainFile>>> {
    let mut files = Vec::new();
    // Newest first, so that sizes are taken in this order: carried history still
    // being appended to an older file is complete before the base gets its first
    // byte, and must not look shorter than it was at that moment.
    for Entry {
        name,
        part,
        compression,
        stat: Stat { id, .. },
    } in listing.files()
    {
        let name = name.unwrap_or(base);
        match folder.open(name) {
            Ok((file, stat)) if stat.id == *id => {
                let open = (file, stat);
                files.push(ChainFile::new(open, folder.path(), name, part, compression));
            }
            Ok(_) | Err(folder::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    files.reverse();
    Ok(Some(files))
}

/// Puts `files`, oldest first by name, in the order in which they were written, and
/// says where names and times give two. The base stays the last.
fn put_in_order(folder: &impl Names, base: &OsStr, files: &mut Vec<ChainFile>) -> Option<Remark> {
    let base_file = files.pop_if(|file| file.is_base());
    let mut contradiction = None;
    if is_contradicted(&ages(files, &Ledger::default())) {
        let written = base_file.as_ref().filter(|file| file.size() > 0);
        let written = written.map(ChainFile::modified);
        let order = order(&ages(files, &folder.ledger(base)), written);
        let mut by_name: Vec<_> = std::mem::take(files).into_iter().map(Some).collect();
        let moved = order.files.into_iter();
        *files = moved
            .filter_map(|index| by_name.get_mut(index)?.take())
            .collect();
        contradiction = order.contradiction;
    }
    files.extend(base_file);
    contradiction.map(Remark::OutOfOrder)
}

fn ages<'a>(files: &'a [ChainFile], ledger: &Ledger) -> Vec<Age<'a>> {
    let age = |file: &'a ChainFile| Age {
        name: file.name(),
        modified: file.modified(),
        tells_time: file.tells_time(),
        is_empty: file.size() == 0,
        start: ledger.start_of(file.id()),
    };
    files.iter().map(age).collect()
}
