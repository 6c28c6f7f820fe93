//! The private folder beside a log in which whoever changes the chain works: a handoff
//! that stages history, a rotation, a folder that both hosts have.
//!
//! Opening it takes the chain's lock, and finishes or undoes what earlier processes left,
//! as their journals say. From then on the folder holds files by links, whatever happens to
//! their names, and its journal says what the next process is to do with them.
//!
//! Must not know: where the bytes of a handoff come from.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::journal::{Journal, Part, Phase};
use super::lock::{LOCK, lock};
use super::{Error, Placed, Result, Rules, apply, attributes, stage};
use crate::chain::{Listing, LogChain, Ownership};
use crate::folder::{self, FileId, Folder};
use crate::follow::Writers;
use crate::ids::HandoffId;
use crate::record::{Record, hidden};

/// The private folder of one handoff, or of one rotation, beside a log, and the lock on the
/// chain.
pub struct ChainWorkspace {
    pub(super) log: Folder,
    pub(super) base: OsString,
    /// Holds the lock, and one folder for each handoff.
    root: Folder,
    pub(super) own: Folder,
    pub(super) handoff: HandoffId,
    pub(super) rules: Rules,
    pub(super) writers: Arc<dyn Writers>,
    pub(super) journal: Journal,
    /// Parts that are not in the journal yet.
    pub(super) staged: Vec<FileId>,
    /// Whether this process placed it, just now.
    just_placed: bool,
    _lock: File,
}

impl ChainWorkspace {
    /// Opens the workspace of `handoff` beside the log at `path`, whose folder
    /// must exist. What an earlier process left unfinished on this chain is
    /// finished or undone first.
    ///
    /// # Errors
    /// [`Error::Busy`] where another process works on this chain.
    pub fn open(
        path: &Path,
        handoff: HandoffId,
        rules: Rules,
        writers: Arc<dyn Writers>,
    ) -> Result<Self> {
        let (log, base) = Folder::of_file(path)?;
        attributes::check_folder(&log)?;
        let root_name = Self::root_name(&base);
        let (root, lock) = lock(&log, &root_name)?;
        let mut others = Vec::new();
        for name in root.names()? {
            let id = name.to_str().and_then(|n| n.parse::<HandoffId>().ok());
            others.extend(id.filter(|id| *id != handoff));
        }
        let own_name = OsString::from(handoff.to_string());
        let mut workspace = Self {
            own: root.try_clone()?,
            log,
            base,
            root,
            handoff,
            rules,
            writers,
            journal: Journal::new(),
            staged: Vec::new(),
            just_placed: false,
            _lock: lock,
        };
        for id in others {
            workspace.take_up(id, workspace.root.open_folder(OsStr::new(&id.to_string()))?)?;
            workspace.recover()?;
        }
        let own = workspace.root.make_folder(&own_name)?;
        workspace.root.sync()?;
        workspace.take_up(handoff, own)?;
        match workspace.journal.phase {
            Phase::Retiring => workspace.undo()?,
            Phase::Staging => {
                workspace.unshow()?;
                workspace.remove_parts()?;
            }
            Phase::Sealed | Phase::Placed => {}
            Phase::Over => workspace.empty()?,
        }
        Ok(workspace)
    }

    fn take_up(&mut self, handoff: HandoffId, own: Folder) -> Result<()> {
        self.journal = Journal::read(&own)?.unwrap_or_else(Journal::new);
        self.staged.clear();
        self.own = own;
        self.handoff = handoff;
        Ok(())
    }

    /// Finishes or undoes what earlier processes left beside the log at `path`.
    /// Nothing is created where nothing is left.
    ///
    /// # Errors
    /// As [`ChainWorkspace::open`].
    pub fn recover_all(path: &Path, rules: Rules, writers: Arc<dyn Writers>) -> Result<bool> {
        let (log, base) = Folder::of_file(path)?;
        if log.stat(&Self::root_name(&base))?.is_none() {
            return Ok(false);
        }
        // Opening a workspace recovers every other one. That of a random id has nothing of its
        // own.
        Self::open(path, HandoffId::random(), rules, writers)?.clean()?;
        Ok(true)
    }

    pub(super) fn root_name(base: &OsStr) -> OsString {
        hidden(base, ".logchain.d")
    }

    /// The folder of the log.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.log
    }

    /// The name of the base file.
    #[must_use]
    pub fn base(&self) -> &OsStr {
        &self.base
    }

    /// Whether an earlier process sealed this handoff: only placing is left.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self.journal.phase, Phase::Sealed | Phase::Placed)
    }

    /// What follows the base's name in `name`.
    pub(super) fn suffix(&self, name: &OsStr) -> Option<String> {
        let suffix = name.to_str()?.strip_prefix(self.base.to_str()?)?;
        Some(suffix.to_owned())
    }

    /// The chain as it is now. What this workspace has put there, or has taken from
    /// there, is part of it whatever its times say.
    pub(super) fn listing(&self) -> Result<Listing> {
        let ownership = self.ownership();
        Ok(Listing::read_owned(&self.log, &self.base, &ownership)?)
    }

    pub(super) fn chain(&self) -> Result<LogChain> {
        let numbering = self.rules.numbering.into();
        let chain = LogChain::beneath(self.log.try_clone()?, self.base.clone(), numbering)?;
        Ok(chain.owned(self.ownership())?)
    }

    pub(super) fn ownership(&self) -> Ownership {
        let journal = &self.journal;
        let mut ownership = self.writers.ownership(&self.log, &self.base);
        ownership.ours(journal.parts.iter().map(|p| p.id));
        ownership.ours(self.staged.iter().copied());
        ownership.ours(journal.retired.iter().map(|r| r.id));
        ownership.ours(journal.taking.iter().map(|t| t.id));
        ownership.ours(journal.stale.iter().copied());
        ownership.ours(journal.shown.iter().flat_map(|s| s.files.iter().copied()));
        ownership
    }

    pub(super) fn write_journal(&self) -> Result<()> {
        self.journal.write(&self.own)
    }

    pub(super) fn open_base(&self) -> Result<Option<(File, folder::Stat)>> {
        match self.log.open_file(&self.base) {
            Ok(opened) => Ok(Some(opened)),
            Err(folder::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives every part that the rotation keeps its name behind the base file.
    /// Can be repeated after a kill at any point; once it is done, it is done for
    /// ever, and says again what it did.
    ///
    /// Links only: it takes as long for a gigabyte as for a byte.
    ///
    /// # Errors
    /// [`Error::NotSealed`]; [`Error::Unsettled`] where the names keep changing.
    pub fn place(&mut self) -> Result<Placed> {
        match (&self.journal.placed, self.journal.phase) {
            (Some(placed), _) => return Ok(placed.clone()),
            (None, Phase::Sealed) => {}
            (None, _) => return Err(Error::NotSealed),
        }
        // Before the names are given, so that a reader who sees a part knows where
        // it lies in the stream.
        let arrival = self.arrival()?;
        self.as_before_shown()?;
        self.update_record(|record, id, owed| {
            record.arriving(id, &owed.history, arrival, (&owed.host, owed.at));
        })?;
        let placed = apply::place(self)?;
        self.journal.phase = Phase::Placed;
        self.journal.placed = Some(placed.clone());
        self.write_journal()?;
        self.just_placed = true;
        Ok(placed)
    }

    /// Removes the workspace. What was retired goes with it. What is sealed is
    /// placed first.
    pub fn clean(mut self) -> Result<()> {
        if self.journal.phase == Phase::Sealed {
            self.place()?;
        }
        if self.just_placed && !apply::is_still_there(&self)? {
            // Once more, while all of it is still held here: a virtlogd that stood
            // still in the middle of a rollover may have gone on since. Not after
            // this: if somebody empties the log later, nothing may come back.
            apply::place(&mut self)?;
        }
        self.clean_own()?;
        let others = self.root.names()?.iter().any(|n| n != LOCK);
        if !others {
            self.root.remove(OsStr::new(LOCK))?;
            self.log.remove_folder(&Self::root_name(&self.base))?;
        }
        self.log.sync()?;
        Ok(())
    }

    fn clean_own(&mut self) -> Result<()> {
        self.empty()?;
        self.root
            .remove_folder(OsStr::new(&self.handoff.to_string()))?;
        Ok(())
    }

    /// Leaves nothing in the folder of this handoff, whose files all have their
    /// names elsewhere or are not wanted any more.
    fn empty(&mut self) -> Result<()> {
        attributes::remove_tried(&self.log, &self.base)?;
        let journal = OsStr::new(Journal::NAME);
        if self.own.stat(journal)?.is_some() {
            // A kill in between must not find a journal whose files are gone.
            self.journal.phase = Phase::Over;
            self.write_journal()?;
        }
        for name in self.own.names()? {
            if name != journal {
                self.own.remove(&name)?;
            }
        }
        self.own.remove(journal)?;
        self.journal = Journal::new();
        self.staged.clear();
        Ok(())
    }

    fn remove_parts(&mut self) -> Result<()> {
        attributes::remove_tried(&self.log, &self.base)?;
        for name in self.own.names()? {
            if name.to_str().is_some_and(|n| n.starts_with(stage::PART)) {
                self.own.remove(&name)?;
            }
        }
        self.staged.clear();
        Ok(())
    }

    /// The handoff came to nothing: the chain is put back as it was found.
    ///
    /// # Errors
    /// [`Error::Sealed`] once it is sealed.
    pub fn discard(mut self) -> Result<()> {
        if self.is_sealed() {
            return Err(Error::Sealed);
        }
        self.undo()?;
        self.clean()
    }

    /// Removes staged parts and puts back what was retired.
    fn undo(&mut self) -> Result<()> {
        apply::put_back(self)?;
        self.empty()
    }

    /// Finishes or undoes what a process that is gone left.
    fn recover(&mut self) -> Result<()> {
        match self.journal.phase {
            Phase::Retiring | Phase::Staging => apply::put_back(self)?,
            Phase::Over => {}
            Phase::Sealed | Phase::Placed => {
                self.place()?;
                if self.journal.owed.is_none() {
                    // What the record has to say is not known: the folder stays, so that the same
                    // handoff finds that it was placed.
                    return Ok(());
                }
                self.finish()?;
            }
        }
        self.clean_own()
    }

    /// Syncs the parts and writes the journal: the commit point at this side. From now on the
    /// history is placed, whatever happens. `parts`: newest
    /// first; `dropped`: the bytes before the oldest; `stale`: files here that hold nothing
    /// else than the history.
    pub(super) fn seal(
        &mut self,
        (parts, dropped): (Vec<Part>, u64),
        mut stale: Vec<FileId>,
        record: Option<&Record>,
    ) -> Result<()> {
        self.own.sync()?;
        let mut journal = self.journal.clone();
        (journal.parts, journal.dropped) = (parts, dropped);
        // Seen before, and more than the rotation keeps by now.
        let shown = journal.shown.iter().flat_map(|s| &s.files);
        stale.extend(shown.filter(|id| !journal.parts.iter().any(|p| p.id == **id)));
        journal.older.retain(|o| !stale.contains(&o.id));
        journal.stale = stale;
        self.keep_retired(record, &mut journal)?;
        journal.phase = Phase::Sealed;
        journal.write(&self.own)?;
        self.journal = journal;
        Ok(())
    }
}
