//! What a staging folder says about itself, so that the next process can finish
//! or undo it.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::{PendingAdoption, Placed};
use crate::folder::{FileId, Folder};
use crate::ids::HandoffId;
use crate::stream::Ledger;
use crate::versioned;

/// The version written, and the newest read. 2: history is seen before it is placed.
const VERSION: u32 = 2;

/// How far a handoff is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Files are taken aside. A next start puts them back.
    Retiring,
    /// All that is to be aside is aside, the migration may be under way. The same
    /// handoff goes on from here; a next start without it puts them back.
    Staging,
    /// **The commit point.** All parts are durable; a next start places them.
    Sealed,
    /// What the rotation keeps has its name: that is done once, for ever.
    Placed,
    /// Only this folder is left to be removed.
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    pub(super) phase: Phase,
    pub(super) retired: Vec<Retired>,
    /// Newest first.
    pub(super) parts: Vec<Part>,
    /// Newest first.
    pub(super) older: Vec<OlderFile>,
    pub(super) stale: Vec<FileId>,
    pub(super) taking: Vec<PendingRetirement>,
    /// Bytes of the history that came before the oldest part.
    pub(super) dropped: u64,
    /// What is to be put down once it is placed.
    pub(super) owed: Option<PendingAdoption>,
    pub(super) placed: Option<Placed>,
    /// Parts that have names before they are complete.
    #[serde(default)]
    pub(super) shown: Option<Shown>,
}

/// History that is seen before it is placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) files: Vec<FileId>,
    /// Whether there was a record, and what it said.
    pub(super) record: bool,
    pub(super) ledger: Ledger,
    pub(super) arriving: Option<HandoffId>,
}

/// A rotated file older than the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OlderFile {
    pub(super) id: FileId,
    /// What follows the number in its name: how it is compressed.
    pub(super) ending: String,
}

/// A file about to be taken from its name, written down before it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingRetirement {
    /// Its name in the staging from then on.
    pub(super) aside: String,
    /// Which file it should be; virtlogd may be quicker and put another one there.
    pub(super) id: FileId,
    /// What follows the number in its name.
    pub(super) ending: String,
    /// The chain as it was seen, newest first.
    pub(super) seen: Vec<FileId>,
}

/// A file of the chain taken aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retired {
    /// What follows the base's name: empty for the base itself.
    pub(super) suffix: String,
    pub(super) aside: String,
    pub(super) number: Option<u32>,
    pub(super) id: FileId,
    /// Whether it is a base that came after the retired one, taken aside when
    /// that one went back.
    pub(super) came_after: bool,
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

    pub(super) fn new() -> Self {
        Self {
            version: VERSION,
            phase: Phase::Retiring,
            retired: Vec::new(),
            parts: Vec::new(),
            older: Vec::new(),
            stale: Vec::new(),
            taking: Vec::new(),
            dropped: 0,
            owed: None,
            placed: None,
            shown: None,
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
        Ok(versioned::write(own, OsStr::new(Self::NAME), self, None)?)
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(data: &[u8]) {
    versioned::fuzz::<Journal>(data);
}
