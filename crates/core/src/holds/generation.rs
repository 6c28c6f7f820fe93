//! The files of one log from its beginning to its wipe, held by their descriptors.
//!
//! Must not know: why a file stays or goes.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::decide::Entry;
use crate::OkLogged as _;
use crate::chain::{ChainFile, LogChain, Remark};
use crate::folder::{FileId, stat_open};
use crate::follow::{self, Follower};
use crate::record::{Offered, Record};

/// A file that is held.
#[derive(Debug)]
pub(super) struct HeldFile {
    pub(super) file: ChainFile,
    /// Whether the last look found it by name.
    pub(super) is_named: bool,
    /// Since when it has lost its name, without a rotation that explains it.
    pub(super) vanished: Option<Instant>,
}

impl HeldFile {
    pub(super) fn named(file: ChainFile) -> Self {
        Self {
            file,
            is_named: true,
            vanished: None,
        }
    }

    pub(super) fn id(&self) -> FileId {
        self.file.id()
    }

    /// What it has on disk by now.
    pub(super) fn size(&self) -> u64 {
        stat_open(self.file.file()).map_or(self.file.size(), |stat| stat.size)
    }

    /// What it takes on a disk on which nobody finds it. As long as it has any name it
    /// takes nothing that is ours to give back.
    pub(super) fn unlinked(&self) -> u64 {
        let metadata = self.file.file().metadata();
        let metadata = metadata.ok_logged("the file counts as one that has a name");
        metadata.filter(|m| m.nlink() == 0).map_or(0, |m| m.len())
    }
}

/// A log from its beginning to its wipe.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    /// Oldest first.
    pub(super) files: Vec<HeldFile>,
    /// What was remembered beside them when that could last be read.
    pub(super) record: Record,
    /// What was committed of the handoff that it was taken for last, once it was. Where the
    /// folder went before that, the record does not say so.
    pub(super) committed: Arc<OnceLock<Offered>>,
    /// Whether the destination has confirmed that it has what was committed.
    pub(super) is_received: bool,
}

/// A held file, as people and programs are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Its name in the folder, or the last one that it had there.
    pub name: OsString,
    /// Its size on disk in bytes.
    pub size: u64,
    /// Whether it has that name still, as far as the last look found.
    pub is_named: bool,
}

/// A log that was wiped, and is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierLog {
    /// Its number. A later one's is greater.
    pub generation: u64,
    /// Its files, oldest first.
    pub files: Vec<FileStatus>,
    /// How many bytes they have on disk.
    pub bytes: u64,
    /// Whether all of it was handed over, and the destination has confirmed that it has it.
    pub is_handed_over: bool,
}

impl Generation {
    /// The files as they were when names were looked at last.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let entry = |held: &HeldFile| Entry {
            id: held.id(),
            part: held.file.part(),
            is_compressed: held.file.compression().is_some(),
        };
        self.files.iter().map(entry).collect()
    }

    pub(super) fn ids(&self) -> Vec<FileId> {
        self.files.iter().map(HeldFile::id).collect()
    }

    pub(super) fn status(&self) -> Vec<FileStatus> {
        let status = |held: &HeldFile| FileStatus {
            name: held.file.name().to_owned(),
            size: held.size(),
            is_named: held.is_named,
        };
        self.files.iter().map(status).collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        let sizes = self.files.iter().map(HeldFile::size);
        sizes.fold(0, u64::saturating_add)
    }

    pub(super) fn earlier(&self) -> EarlierLog {
        EarlierLog {
            generation: self.number,
            files: self.status(),
            bytes: self.bytes(),
            is_handed_over: self.is_handed_over(),
        }
    }

    /// The last handoff of it that was committed.
    pub(super) fn offered(&self) -> Option<&Offered> {
        self.committed.get().or(self.record.offered.as_ref())
    }

    pub(super) fn is_handed_over(&self) -> bool {
        let committed = self.committed.get().filter(|_| self.is_received);
        let recorded = self.record.offered.as_ref().filter(|o| o.received);
        let Some(offered) = committed.or(recorded) else {
            return false;
        };
        let mut files = self.files.iter();
        files.all(|held| {
            let there = crate::record::OnDisk::of(held.file.file());
            let there = there.ok_logged("the file counts as one that was not handed over");
            there.is_some_and(|file| file.size == 0 || offered.holds(&file))
        })
    }

    /// A second hold on the files, to read them. Those whose names vanished just now are
    /// no part of the log any more.
    pub(super) fn follower(
        &self,
        chain: &LogChain,
        remarks: Vec<Remark>,
    ) -> follow::Result<Follower> {
        let files = self.files.iter().filter(|held| held.vanished.is_none());
        let files: Result<_, _> = files.map(|held| held.file.try_clone()).collect();
        let follower = Follower::of_files(chain.try_clone()?, remarks, files?)?;
        let newest = self.files.iter().rfind(|held| held.vanished.is_none());
        Ok(match newest {
            Some(newest) if !newest.is_named => follower.with_nameless_newest(),
            _ => follower,
        })
    }
}
