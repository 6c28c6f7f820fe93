//! Which files an entry was copied from. Whoever is killed after an entry has its name, and before
//! it lets go of these files, would put them down once more.
//!
//! Must not know: why anybody puts a log down.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};

use super::{Entry, Result, entry, numbers};
use crate::OkLogged as _;
use crate::folder::{self, FileId, Folder};
use crate::follow::{Follower, prints};
use crate::ids::ConsoleId;
use crate::stream::Fingerprint;
use crate::{record, versioned};

/// It lies beside the files of an entry.
const NAME: &str = ".source";

/// The version this program writes. What another version wrote is not looked into.
const VERSION: u32 = 1;

/// The files that hold something.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    version: u32,
    /// Which, and how long they were.
    files: Vec<(FileId, u64)>,
    /// What they held: somebody may have emptied one of them, and it may have grown again.
    prints: Vec<(FileId, Fingerprint)>,
}

impl Source {
    fn of(held: &Follower) -> Self {
        let all = held.files();
        let files = all.iter().filter(|file| file.size > 0);
        Self {
            version: VERSION,
            files: files.map(|file| (file.id, file.size)).collect(),
            prints: prints(&all),
        }
    }

    /// Whether it tells these files from all others. What holds nothing but one byte again and
    /// again has no print.
    fn is_certain(&self) -> bool {
        let has_print = |id: FileId| self.prints.iter().any(|(of, _)| *of == id);
        !self.files.is_empty() && self.files.iter().all(|(id, _)| has_print(*id))
    }
}

/// Writes it into a new entry.
pub(super) fn write(new: &Folder, held: &Follower) -> Result<(), record::Error> {
    versioned::write(new, OsStr::new(NAME), &Source::of(held), None)
}

/// The entry that was copied from just these files.
pub(super) fn find(
    of_console: &Folder,
    owner: &ConsoleId,
    held: &Follower,
) -> Result<Option<Entry>> {
    let wanted = Source::of(held);
    if !wanted.is_certain() {
        return Ok(None);
    }
    for number in numbers(of_console)? {
        let folder = match of_console.open_folder(OsStr::new(&number.to_string())) {
            Err(folder::Error::NotFound { .. }) => continue,
            opened => opened?,
        };
        let source = versioned::read(&folder, OsStr::new(NAME));
        let source = source.ok_logged("it counts as an entry of other files");
        if source.flatten().as_ref() == Some(&wanted)
            && let Some(entry) = entry(of_console, owner, number)?
        {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
