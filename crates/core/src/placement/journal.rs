//! What a staging folder says about itself, so that the next process can finish
//! or undo it.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};

use super::error::Result;
use crate::folder::{FileId, Folder};
use crate::versioned;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    /// Whether all parts are durable: then the handoff is finished, else undone.
    pub(super) sealed: bool,
    pub(super) retired: Vec<Retired>,
    /// Newest first.
    pub(super) parts: Vec<Part>,
    pub(super) older: Vec<FileId>,
    pub(super) stale: Vec<FileId>,
    /// Bytes of the history that came before the oldest part.
    pub(super) dropped: u64,
}

/// A file of the chain taken aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retired {
    /// What follows the base's name: empty for the base itself.
    pub(super) suffix: String,
    pub(super) aside: String,
    pub(super) number: Option<u32>,
    pub(super) id: FileId,
}

/// A file of staged history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) id: FileId,
    pub(super) size: u64,
}

impl Journal {
    pub(super) const NAME: &'static str = "journal";

    pub(super) fn new(
        retired: Vec<Retired>,
        (parts, dropped): (Vec<Part>, u64),
        older: Vec<FileId>,
        sealed: bool,
    ) -> Self {
        Self {
            version: VERSION,
            sealed,
            retired,
            parts,
            older,
            stale: Vec::new(),
            dropped,
        }
    }

    pub(super) fn read(own: &Folder) -> Result<Option<Self>> {
        let journal: Option<Self> = versioned::read(own, OsStr::new(Self::NAME))?;
        match journal {
            Some(journal) if journal.version > VERSION => Err(versioned::Error::Damaged {
                name: Self::NAME.into(),
                what: format!(
                    "it was written by a newer logchain (version {})",
                    journal.version
                ),
            }
            .into()),
            journal => Ok(journal),
        }
    }

    pub(super) fn write(&self, own: &Folder) -> Result<()> {
        Ok(versioned::write(own, OsStr::new(Self::NAME), self)?)
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(data: &[u8]) {
    versioned::fuzz::<Journal>(data);
}
