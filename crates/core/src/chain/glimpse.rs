//! One look at a chain that never waits: for whoever looks again soon, and must not be
//! held up by one log while others want to be looked at.
//!
//! Must not know: when the next look comes.

use super::snapshot::{Look, Odd, Owned, Snapshot, look};
use super::{LogChain, Result};
use crate::folder::{FileId, Folder};

/// What one look found.
#[derive(Debug)]
pub(crate) enum Glimpse {
    /// Files that belong to one moment. The base may be missing.
    Files(Box<Snapshot>),
    /// No file has a name of this log.
    Nothing,
    /// Somebody changes names just now: look again.
    Moving,
}

impl LogChain {
    /// Looks once, as [`LogChain::snapshot`] does again and again. `ours`: files that are
    /// part of this log whatever their times say.
    ///
    /// # Errors
    /// As [`LogChain::snapshot`], but for what is no error here.
    pub(crate) fn glimpse(&self, ours: impl IntoIterator<Item = FileId>) -> Result<Glimpse> {
        let mut ownership = self.ownership().clone();
        ownership.ours(ours);
        let folder = Owned {
            folder: self.folder(),
            ownership: &ownership,
        };
        Ok(match look(&folder, self.base_name(), self.numbering())? {
            Look::Whole(files) | Look::Odd(Odd::NoBase(files)) => Glimpse::Files(Box::new(files)),
            Look::Odd(Odd::Nothing) => Glimpse::Nothing,
            Look::Odd(Odd::Changed | Odd::SameFile(..)) => Glimpse::Moving,
        })
    }

    /// The same log in another folder: its path leads there now.
    pub(crate) fn moved_to(&self, folder: Folder) -> Self {
        Self {
            folder,
            base: self.base.clone(),
            choice: self.choice,
            numbering: self.numbering,
            ownership: self.ownership.clone(),
        }
    }
}
