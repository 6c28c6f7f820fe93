//! What this VM left here at an earlier stay: taken aside before it comes back,
//! and afterwards gone, or behind the history.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use super::journal::{Journal, OlderFile, Phase, Retired};

use super::{ChainWorkspace, Result, Rules, apply, ending, entries};
use crate::OkLogged as _;
use crate::chain::{MAX_NUMBER, Numbering};
use crate::clock::millisecond;
use crate::folder::{FileId, Stat};
use crate::follow::{Writer, Writers};
use crate::ids::HandoffId;
use crate::record::Record;
use crate::rotation::Retention;

/// A file that was taken aside.
pub(super) struct Aside {
    /// Its name in the workspace.
    pub(super) name: OsString,
    /// What follows the base's name in the name that it had.
    pub(super) suffix: String,
    pub(super) stat: Stat,
}

impl ChainWorkspace {
    /// Gives the rotated files of the log at `path` numbers in a row, where some
    /// are missing; gives how many files moved. Nothing is dropped: what would lie
    /// beyond virtlogd's limit stays where it is.
    ///
    /// # Errors
    /// [`Error::Busy`](super::Error::Busy) where another process works on this chain,
    /// [`Error::Unsettled`](super::Error::Unsettled) where the
    /// names keep changing: try again later.
    pub fn close_gaps(path: &Path, rules: Rules, writers: Arc<dyn Writers>) -> Result<usize> {
        let mut workspace = Self::open(path, HandoffId::random(), rules, writers)?;
        let listing = apply::stable(&workspace)?;
        let gaps = listing.gaps(rules.numbering);
        let gap = gaps.first().map_or(u32::MAX, |gap| gap.first);
        let (below, above): (Vec<_>, Vec<_>) =
            listing.rotated().iter().partition(|r| r.number < gap);
        let room = rules.retention().max_backups.map_or(usize::MAX, |max| {
            let first = rules.numbering.first();
            let taken = listing.taken_below(first, first.saturating_add(max.get()));
            let max = max.get().saturating_sub(taken);
            usize::try_from(max)
                .unwrap_or(usize::MAX)
                .saturating_sub(below.len())
        });
        for (index, file) in above.iter().enumerate() {
            if index < room {
                workspace.retire_one(&file.name, Some(file.number), file.stat.id)?;
            } else {
                let (id, ending) = (file.stat.id, ending(&file.name));
                workspace.journal.older.push(OlderFile { id, ending });
            }
        }
        let moved = workspace.journal.retired.len();
        if moved > 0 {
            workspace.journal.phase = Phase::Staging;
            workspace.write_journal()?;
            workspace.seal((Vec::new(), 0), Vec::new(), None)?;
            workspace.place()?;
        }
        workspace.clean()?;
        Ok(moved)
    }

    /// Gives the base file of the log at `path` the first rotated name, where it holds anything
    /// and nobody writes it; says whether it did. Called once the VM has left: where a log is opened
    /// to append, a VM that comes back would go on writing behind those bytes, and history that
    /// belongs between them and what it writes then could not be put there. Nothing is dropped.
    ///
    /// # Errors
    /// As [`ChainWorkspace::close_gaps`].
    pub fn rotate_away(
        path: &Path,
        numbering: Numbering,
        writers: Arc<dyn Writers>,
    ) -> Result<bool> {
        let rules = Rules {
            numbering,
            retention: Retention::UNLIMITED,
        };
        let mut workspace = Self::open(path, HandoffId::random(), rules, writers)?;
        let base = workspace.open_base()?;
        let goes = base.as_ref().is_some_and(|(file, stat)| {
            stat.size > 0 && workspace.writers.writer(file) == Writer::None
        });
        if goes {
            let at = base.and_then(|(_, stat)| millisecond(stat.modified));
            let told = workspace.remember_at_once(at);
            told.ok_logged("what comes later is not told from what lies here");
            let listing = apply::stable(&workspace)?;
            for (name, number, stat) in entries(&listing, &workspace.base) {
                workspace.retire_one(&name, number, stat.id)?;
            }
            workspace.journal.phase = Phase::Staging;
            workspace.write_journal()?;
            workspace.seal((Vec::new(), 0), Vec::new(), None)?;
            workspace.place()?;
        }
        workspace.clean()?;
        Ok(goes)
    }

    /// Before the migration: takes aside what this VM left here at an earlier
    /// stay. libvirt would wipe it, or go on writing behind it. What of it comes
    /// back with the history goes in the end; what does not is older than the
    /// history, and is put behind it. `record` is that of this VM; without one
    /// nothing here is known to be its own, and stays where it is.
    ///
    /// Done once: whoever takes this handoff up again finds it done, since what
    /// has been rotated since is newer than what comes.
    pub fn retire(&mut self, record: Option<&Record>) -> Result<()> {
        if self.journal.phase != Phase::Retiring {
            return Ok(());
        }
        let listing = self.listing()?;
        // With a writer the VM is here already: what was rotated may be newer than
        // the history, and is left where it is.
        let base = self.open_base()?;
        let here = base.is_some_and(|(file, _)| self.writers.writer(&file) == Writer::Some);
        let found = entries(&listing, &self.base);
        if record.is_some() && !here && !found.is_empty() {
            // What of it does not come back is a part of the stream all the same.
            let told = self.remember_at_once(None);
            told.ok_logged("its place in the stream is found at a later look");
        }
        for (name, number, stat) in found.into_iter().filter(|_| !here) {
            // Beyond virtlogd's limit nothing is wiped and nothing is moved.
            let safe = number.is_some_and(|n| self.rules.is_beyond(n));
            let comes_back = self.comes_back(record, &self.in_log(&name, stat)) == Some(stat.size);
            if record.is_some() && (!safe || comes_back) {
                self.retire_one(&name, number, stat.id)?;
            } else if number.is_some() {
                let ending = ending(&name);
                let id = stat.id;
                self.journal.older.push(OlderFile { id, ending });
            }
        }
        // virtlogd never touches a file with a date: what does not come back stays there.
        for (age, file) in (1..).zip(listing.dated().iter().filter(|_| !here)) {
            let id = file.stat.id;
            let there = self.in_log(&file.name, file.stat);
            if self.comes_back(record, &there) == Some(file.stat.size) {
                // Older than all with numbers, and no number is as great.
                let number = MAX_NUMBER.saturating_add(age);
                self.retire_one(&file.name, Some(number), id)?;
            }
        }
        self.journal.phase = Phase::Staging;
        self.write_journal()
    }

    pub(super) fn retire_one(
        &mut self,
        name: &OsStr,
        number: Option<u32>,
        id: FileId,
    ) -> Result<()> {
        let Some(suffix) = self.suffix(name) else {
            return Ok(()); // a name that the journal cannot hold stays where it is
        };
        let aside = self.take_aside(name, suffix, number, id, false)?;
        // Whoever opened the base before the rename still writes to it and is seen
        // by its descriptor; whoever opens it after gets a new file.
        let (file, stat) = self.own.open_file(&aside)?;
        if stat.id != id || self.writers.writer(&file) == Writer::Some {
            self.own.put_back(&aside, &self.log, name)?;
            self.journal.retired.pop();
        }
        Ok(())
    }

    /// Takes a file from its name once the journal knows.
    pub(super) fn take_aside(
        &mut self,
        name: &OsStr,
        suffix: String,
        number: Option<u32>,
        id: FileId,
        came_after: bool,
    ) -> Result<OsString> {
        let aside = format!("retired-{}", self.journal.retired.len());
        self.journal.retired.push(Retired {
            suffix,
            aside: aside.clone(),
            number,
            id,
            came_after,
        });
        self.write_journal()?;
        let aside = OsString::from(aside);
        self.log.take_aside(name, &self.own, &aside)?;
        Ok(aside)
    }

    /// What is aside, newest first.
    pub(super) fn aside(&self) -> Result<Vec<Aside>> {
        let mut retired: Vec<&Retired> = self.journal.retired.iter().collect();
        retired.sort_by_key(|r| r.number);
        let mut aside = Vec::new();
        for retired in retired {
            let name = OsString::from(&retired.aside);
            if let Some(stat) = self.own.stat(&name)? {
                let suffix = retired.suffix.clone();
                aside.push(Aside { name, suffix, stat });
            }
        }
        Ok(aside)
    }

    /// What was retired and does not come back with the history is older than it.
    pub(super) fn keep_retired(
        &self,
        record: Option<&Record>,
        journal: &mut Journal,
    ) -> Result<()> {
        let mut kept = Vec::new();
        for aside in self.aside()? {
            let stat = aside.stat;
            let comes_back = self.comes_back(record, &self.in_own(&aside)) == Some(stat.size);
            if comes_back || stat.size == 0 || journal.stale.contains(&stat.id) {
                continue;
            }
            let name = apply::older_name(kept.len());
            self.own.remove(&name)?; // of a process that was killed here
            self.own.link_from(&self.own, &aside.name, &name)?;
            kept.push(OlderFile {
                id: stat.id,
                ending: ending(OsStr::new(&aside.suffix)),
            });
        }
        kept.append(&mut journal.older);
        journal.older = kept;
        Ok(())
    }
}
