//! A console log and its rotated files, read as one stream, oldest byte first.
//!
//! A [`LogChain`] is a name in a folder; a [`Snapshot`] holds all its files open
//! as they were at one moment, however often they are renamed meanwhile. Places in
//! a snapshot are counted from its oldest byte, so the next rotation changes them;
//! [`crate::offsets`] has those that last. All of it blocks on files: async code
//! calls it on a thread for that.
//!
//! What else a [`LogChain`] answers (`from`, `follow`, `verify`, `record`) is written
//! where it is found out.
//!
//! Must not know: handoffs, who writes the log.
//!
//! ```
//! use std::io::Read;
//! use logchain_core::chain::{LogChain, Numbering, NumberingChoice};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("console.log");
//! std::fs::write(path.with_file_name("console.log.1"), "one\n")?;
//! std::fs::write(path.with_file_name("console.log.0"), "two\nth")?;
//! std::fs::write(&path, "ree\nfour\n")?;
//!
//! let chain = LogChain::open(&path, NumberingChoice::Auto)?;
//! assert_eq!(chain.numbering(), Numbering::FromZero);
//!
//! let snapshot = chain.snapshot()?;
//! let mut all = String::new();
//! snapshot.read_all()?.read_to_string(&mut all)?;
//! assert_eq!(all, "one\ntwo\nthree\nfour\n");
//!
//! let mut end = String::new();
//! snapshot.tail_lines(2)?.read_to_string(&mut end)?;
//! assert_eq!(end, "three\nfour\n");
//! # Ok(())
//! # }
//! ```

mod content;
mod copied;
mod dates;
mod error;
mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod glimpse;
mod inflate;
mod listing;
mod merge;
mod names;
mod numbering;
mod order;
mod ownership;
mod reader;
mod remark;
mod snapshot;
mod tail;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use dates::Date;
pub use error::{Error, Result};
pub use file::{ChainFile, Part, decompressed};
pub(crate) use glimpse::Glimpse;
pub use inflate::INFLATED_MAX;
pub use listing::{Dated, Entry, Gap, Listing, Rotated};
pub(crate) use names::part_of;
pub use numbering::{
    Compression, MAX_NUMBER, Numbering, NumberingChoice, RotatedName, UnknownNumbering,
    rotated_name,
};
pub use order::Contradiction;
pub use ownership::{Claim, Foreign, Ownership};
pub use reader::Reader;
pub use remark::Remark;
pub use snapshot::Snapshot;
pub use tail::{Amount, Tail};

use crate::folder::{FileId, Folder};

/// How often we look for a `.0` that a rollover may have moved on just now.
const LOOKS: usize = 10;

/// The pause between two such looks.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A base file and its rotated files, by name.
///
/// The numbering says where the numbers begin, so where one is missing and
/// where carried history goes. A file that is there is read in any case.
#[derive(Debug)]
pub struct LogChain {
    folder: Folder,
    base: OsString,
    choice: NumberingChoice,
    numbering: Numbering,
    ownership: Ownership,
}

impl LogChain {
    /// The chain whose base file is, or will be, at `path`. Whether there is any file is
    /// found out only when it is read.
    ///
    /// # Errors
    /// [`Error::Folder`] where the folder is not there or cannot be listed.
    pub fn open(path: &Path, choice: NumberingChoice) -> Result<Self> {
        let (folder, base) = Folder::of_file(path)?;
        Self::beneath(folder, base, choice)
    }

    /// As [`LogChain::open`], for the base file `base` in a folder that is open already.
    pub fn beneath(folder: Folder, base: OsString, choice: NumberingChoice) -> Result<Self> {
        let ownership = Ownership::default();
        let numbering = resolve(&folder, &base, choice, &ownership)?;
        Ok(Self {
            folder,
            base,
            choice,
            numbering,
            ownership,
        })
    }

    /// The same chain, where the caller knows which files in its folder belong to other
    /// logs: names alone do not tell.
    pub fn owned(self, ownership: Ownership) -> Result<Self> {
        if ownership == self.ownership {
            return Ok(self);
        }
        let numbering = resolve(&self.folder, &self.base, self.choice, &ownership)?;
        Ok(Self {
            numbering,
            ownership,
            ..self
        })
    }

    /// Another handle on it, of which these files are a part whatever their times say.
    pub(crate) fn with_ours(&self, files: impl IntoIterator<Item = FileId>) -> Result<Self> {
        let mut chain = self.try_clone()?;
        chain.ownership.ours(files);
        // The first rotated file may have come since, and says where numbers begin.
        chain.numbering = resolve(&chain.folder, &chain.base, chain.choice, &chain.ownership)?;
        Ok(chain)
    }

    /// What is known of whose the files in its folder are.
    pub(crate) fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Another handle on it.
    ///
    /// # Errors
    /// [`Error::Folder`] where there are no descriptors left.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            folder: self.folder.try_clone()?,
            base: self.base.clone(),
            choice: self.choice,
            numbering: self.numbering,
            ownership: self.ownership.clone(),
        })
    }

    /// The folder that the chain lies in.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The name of the base file.
    #[must_use]
    pub fn base_name(&self) -> &OsStr {
        &self.base
    }

    /// The path of the base file, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.base)
    }

    /// Where the numbers begin.
    #[must_use]
    pub fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// The files that one look at the folder finds, which may be in the middle of a
    /// rollover.
    pub fn listing(&self) -> Result<Listing> {
        Listing::read_owned(&self.folder, &self.base, &self.ownership)
    }

    /// Opens all files of the chain as they are at one moment. In the middle of a
    /// rollover it waits some milliseconds for its end.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: there is no file.
    /// - [`Error::Folder`]: one of them is not a regular file, or may not be opened.
    /// - [`Error::Unsettled`]: files were renamed all the time. Try again.
    /// - [`Error::SameFile`], [`Error::TooManyFiles`]: somebody has to remove names first.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let folder = snapshot::Owned {
            folder: &self.folder,
            ownership: &self.ownership,
        };
        Snapshot::take(&folder, &self.base, self.numbering)
    }
}

fn resolve(
    folder: &Folder,
    base: &OsStr,
    choice: NumberingChoice,
    ownership: &Ownership,
) -> Result<Numbering> {
    if choice != NumberingChoice::Auto {
        return Ok(choice.resolve([]));
    }
    let mut looks = LOOKS;
    loop {
        let listing = Listing::read_owned(folder, base, ownership)?;
        let numbering = choice.resolve(listing.rotated().iter().map(|r| r.number));
        looks = looks.saturating_sub(1);
        // In a rollover a chain from zero has no `.0` for a moment.
        if numbering == Numbering::FromZero || looks == 0 {
            return Ok(numbering);
        }
        crate::pause::pause(LOOK_AGAIN);
    }
}
