//! Brings history that came from elsewhere into a chain: the one place that
//! applies what [`crate::rotation`] decides.
//!
//! ```text
//!  retire               append*             seal              place             clean
//! ────────► (retiring) ─────────► staging ───────► sealed ───────────► placed ─────────► over
//!               │                    │         a next start         done once,
//!               └──── discard ◄──────┘         finishes it           for ever
//!          (what was retired is back)
//! ```
//!
//! *staging*: bytes go into parts in a private folder beside the log, on the
//! log's own file system. Killed here, nothing has happened: the next start
//! drops the parts, and unless it goes on with the same handoff puts back what
//! was retired.
//!
//! *shown*, a part of staging: the parts have names already ([`Staging::show`]), and
//! are taken from them if it comes to nothing.
//!
//! *sealed*: all parts are durable and the journal names them. **This is the
//! commit point**: a next start places them.
//!
//! *placed*: every part that the rotation keeps has its name, by a hard link
//! beside the one in staging. That one stays until the receipt is given, so that
//! a rollover at the same moment costs nothing: whatever it overwrites is given
//! its name again.
//!
//! Every step leaves the folder in a state from which it, or its undoing, can be
//! begun anew. Names are given by links that never overwrite; a name is taken
//! only after the journal says so, and what came away with it is looked at
//! afterwards, since virtlogd may have been quicker.
//!
//! Must not know: transports, handoffs as a protocol.
//!
//! ```
//! use std::sync::Arc;
//! use logchain_core::chain::Numbering;
//! use logchain_core::follow::{Writer, Writers};
//! use logchain_core::placement::{Rules, Staging};
//! use logchain_core::rotation::Retention;
//! use logchain_core::transport::HandoffId;
//!
//! # struct Nobody;
//! # impl Writers for Nobody {
//! #     fn writer(&self, _: &std::fs::File) -> Writer { Writer::None }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let log = folder.path().join("console.log");
//! std::fs::write(&log, "printed here")?;
//! let rules = Rules { numbering: Numbering::FromZero, retention: Retention::virtlogd(2 << 20, 3) };
//! let mut staging = Staging::open(&log, HandoffId::random(), rules, Arc::new(Nobody))?;
//! staging.append(true, b"printed elsewhere")?;
//! staging.seal(None)?;
//! // From here on it is placed, though this process be killed at any moment.
//! let placed = staging.place()?;
//! assert_eq!(placed.files, [("console.log.0".to_owned(), 17)]);
//! staging.clean()?;
//! assert_eq!(std::fs::read(folder.path().join("console.log.0"))?, b"printed elsewhere");
//! # Ok(())
//! # }
//! ```

mod again;
mod apply;
mod attributes;
mod bookkeeping;

mod error;
mod journal;
mod lock;
mod retire;
mod returning;
pub mod roll;
mod shared;
mod show;
mod stage;
pub mod under_way;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use error::{Error, Result};

use crate::chain::{Compression, Listing, LogChain, Numbering, Ownership};
use crate::folder::{self, FileId, Folder, fault};
use crate::follow::Writers;
use crate::record::{Record, hidden};
use crate::rotation::Retention;
use crate::stream::History;
use crate::transport::{ConsoleName, HandoffId};
use journal::{Journal, Phase};
use lock::{LOCK, lock};
use stage::Parts;

/// What a staging folder says about itself, from any bytes.
#[cfg(feature = "fuzzing")]
pub fn fuzz_journal(data: &[u8]) {
    journal::fuzz(data);
}

/// Where SELinux keeps a file's label.
const LABELS: [&str; 1] = ["security.selinux"];

/// What the destination's rotation does with this log.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How rotated files are numbered.
    pub numbering: Numbering,
    /// What virtlogd keeps. A chain that is numbered from one is not virtlogd's:
    /// each file of the source keeps a file of its own there, and nothing is dropped.
    pub retention: Retention,
}

impl Rules {
    fn retention(self) -> Retention {
        match self.numbering {
            Numbering::FromZero => self.retention,
            Numbering::FromOne => Retention::UNLIMITED,
        }
    }

    /// Whether virtlogd never touches a rotated file with this number.
    fn is_beyond(self, number: u32) -> bool {
        let max = self.retention().max_backups;
        max.is_some_and(|max| number >= self.numbering.first().saturating_add(max.get()))
    }
}

/// The private folder in which one handoff's history waits, and the lock on the chain.
pub struct Staging {
    log: Folder,
    base: OsString,
    /// Holds the lock and one folder a handoff.
    root: Folder,
    own: Folder,
    handoff: HandoffId,
    rules: Rules,
    writers: Arc<dyn Writers>,
    parts: Parts,
    journal: Journal,
    /// Whether this process placed it, just now.
    just_placed: bool,
    _lock: File,
}

/// What [`Staging::place`] did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The names given and their sizes in bytes, newest first.
    pub files: Vec<(String, u64)>,
    /// How many of the oldest bytes the rotation here does not keep.
    pub dropped: u64,
    /// What the reader of these files should know, in words: their owner, mode or label
    /// is not the log's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What is put down beside the chain once a handoff is placed, whoever places it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// UUID of the domain.
    pub domain: Uuid,
    /// The console.
    pub console: ConsoleName,
    /// Length of the history in bytes.
    pub bytes: u64,
    /// BLAKE3 of the history, in hex.
    pub digest: String,
    /// The host it came from, as that host said.
    pub from: String,
    /// This host's name, for people.
    pub host: String,
    /// Seconds since 1970.
    pub at: u64,
    /// Where the history lies in the VM's stream.
    pub history: History,
    /// Other handoffs whose bytes the history holds.
    pub contains: Vec<HandoffId>,
}

impl Staging {
    /// Opens the staging of `handoff` beside the log at `path`, whose folder
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
        let mut staging = Self {
            own: root.try_clone()?,
            log,
            base,
            root,
            handoff,
            rules,
            writers,
            parts: Parts::new(rules.retention()),
            journal: Journal::new(),
            just_placed: false,
            _lock: lock,
        };
        for id in others {
            staging.take_up(id, staging.root.open_folder(OsStr::new(&id.to_string()))?)?;
            staging.recover()?;
        }
        let own = staging.root.make_folder(&own_name)?;
        staging.root.sync()?;
        staging.take_up(handoff, own)?;
        match staging.journal.phase {
            Phase::Retiring => staging.undo()?,
            Phase::Staging => {
                staging.unshow()?;
                staging.remove_parts()?;
            }
            Phase::Sealed | Phase::Placed => {}
            Phase::Over => staging.empty()?,
        }
        Ok(staging)
    }

    fn take_up(&mut self, handoff: HandoffId, own: Folder) -> Result<()> {
        self.journal = Journal::read(&own)?.unwrap_or_else(Journal::new);
        self.parts = Parts::new(self.rules.retention());
        self.own = own;
        self.handoff = handoff;
        Ok(())
    }

    /// Finishes or undoes what earlier processes left beside the log at `path`.
    /// Nothing is created where nothing is left.
    ///
    /// # Errors
    /// As [`Staging::open`].
    pub fn recover_all(path: &Path, rules: Rules, writers: Arc<dyn Writers>) -> Result<bool> {
        let (log, base) = Folder::of_file(path)?;
        if log.stat(&Self::root_name(&base))?.is_none() {
            return Ok(false);
        }
        // Opening the staging of a handoff that nobody has recovers all others.
        Self::open(path, HandoffId::random(), rules, writers)?.clean()?;
        Ok(true)
    }

    fn root_name(base: &OsStr) -> OsString {
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
    fn suffix(&self, name: &OsStr) -> Option<String> {
        let suffix = name.to_str()?.strip_prefix(self.base.to_str()?)?;
        Some(suffix.to_owned())
    }

    /// The chain as it is now. What this staging has put there, or has taken from
    /// there, is part of it whatever its times say.
    fn listing(&self) -> Result<Listing> {
        let ownership = self.ownership();
        Ok(Listing::read_owned(&self.log, &self.base, &ownership)?)
    }

    fn chain(&self) -> Result<LogChain> {
        let numbering = self.rules.numbering.into();
        let chain = LogChain::beneath(self.log.try_clone()?, self.base.clone(), numbering)?;
        Ok(chain.owned(self.ownership())?)
    }

    fn ownership(&self) -> Ownership {
        let journal = &self.journal;
        let mut ownership = self.writers.ownership(&self.log, &self.base);
        ownership.ours(journal.parts.iter().map(|p| p.id));
        ownership.ours(self.parts.described().0.iter().map(|p| p.id));
        ownership.ours(journal.retired.iter().map(|r| r.id));
        ownership.ours(journal.taking.iter().map(|t| t.id));
        ownership.ours(journal.stale.iter().copied());
        ownership.ours(journal.shown.iter().flat_map(|s| s.files.iter().copied()));
        ownership
    }

    fn write_journal(&self) -> Result<()> {
        self.journal.write(&self.own)
    }

    /// Adds `bytes` to the history, oldest first. `starts_file`: they begin a
    /// new file at the source.
    ///
    /// # Errors
    /// [`Error::Io`], a full disk among them: nothing is lost, the source has all of it.
    pub fn append(&mut self, starts_file: bool, bytes: &[u8]) -> Result<()> {
        self.parts.append(&self.own, starts_file, bytes)
    }

    /// How many bytes were appended.
    #[must_use]
    pub fn staged_bytes(&self) -> u64 {
        self.parts.total()
    }

    /// All of the history is here and checked: makes it durable, so that from
    /// now on it is placed whatever happens. The commit point at this side.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::StaleBase`] where a file here holds bytes that the
    /// history holds too, and others behind them.
    pub fn seal(&mut self, record: Option<&Record>) -> Result<()> {
        if self.is_sealed() {
            return Ok(());
        }
        let listing = apply::stable(self)?;
        let stale = self.stale(&listing, record)?;
        self.parts.finish(&self.own)?;
        if let Some(base) = self.open_base()? {
            self.match_base((&base.0, &base.1))?;
        }
        if let Some(time) = self.came_before(&listing, &stale) {
            self.parts.set_times(&self.own, time)?;
        }
        self.own.sync()?;
        let mut journal = self.journal.clone();
        (journal.parts, journal.dropped) = self.parts.described();
        // Seen before, and more than the rotation keeps by now.
        let mut stale = stale;
        let shown = journal.shown.iter().flat_map(|s| &s.files);
        stale.extend(shown.filter(|id| !journal.parts.iter().any(|p| p.id == **id)));
        journal.older.retain(|o| !stale.contains(&o.id));
        self.keep_retired(record, &mut journal)?;
        journal.stale = stale;
        journal.phase = Phase::Sealed;
        journal.write(&self.own)?;
        self.journal = journal;
        Ok(())
    }

    /// Owner, mode and label of the parts, and whether a rollover could move them then.
    fn match_base(&self, base: (&File, &folder::Stat)) -> Result<()> {
        self.parts.match_base(&self.own, base, &LABELS)?;
        let Some((part, owner)) = self.parts.newest() else {
            return Ok(());
        };
        attributes::try_placing(
            (&self.log, &self.base),
            (&self.own, OsStr::new(part)),
            (base.1.owner.0, owner),
        )
    }

    /// A time that is no later than anything that the VM wrote here, which is what the
    /// history is: who reads the log without its record goes by such times.
    fn came_before(&self, listing: &Listing, stale: &[FileId]) -> Option<(i64, u32)> {
        let older = |id: &FileId| {
            let older = self.journal.older.iter().any(|o| o.id == *id);
            let shown = self.journal.shown.iter().any(|s| s.files.contains(id));
            older || shown || stale.contains(id)
        };
        let rotated = listing.rotated().iter().map(|r| &r.stat);
        let here = listing.base().into_iter().chain(rotated);
        let here = here.filter(|stat| !older(&stat.id));
        here.map(|stat| stat.id.born.unwrap_or(stat.modified).min(stat.modified))
            .min()
    }

    fn open_base(&self) -> Result<Option<(File, folder::Stat)>> {
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
    /// [`Error::NotSealed`]; [`Error::Unsettled`] where the names keep changing;
    /// the folder's.
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

    /// Removes the staging. What was retired goes with it. What is sealed is
    /// placed first.
    ///
    /// # Errors
    /// The folder's.
    pub fn clean(mut self) -> Result<()> {
        if self.journal.phase == Phase::Sealed {
            self.place()?;
        }
        if self.just_placed && !apply::is_still_there(&self)? {
            // Once more, while all of it is still held here: a virtlogd that stood
            // still in the middle of a rollover may have gone on since. Never later:
            // a log that was begun anew stays so.
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
        self.parts = Parts::new(self.rules.retention());
        Ok(())
    }

    fn remove_parts(&mut self) -> Result<()> {
        attributes::remove_tried(&self.log, &self.base)?;
        for name in self.own.names()? {
            if name.to_str().is_some_and(|n| n.starts_with(stage::PART)) {
                self.own.remove(&name)?;
            }
        }
        self.parts = Parts::new(self.rules.retention());
        Ok(())
    }

    /// The handoff came to nothing: the chain is put back as it was found.
    ///
    /// # Errors
    /// The folder's; [`Error::Sealed`] once it is sealed.
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
                    // Whoever adopts it again finds it here.
                    return Ok(());
                }
                self.finish()?;
            }
        }
        self.clean_own()
    }
}

/// Whether something was begun on the chain of `base` and is not over yet.
#[must_use]
pub fn is_under_way(log: &Folder, base: &OsStr) -> bool {
    let root = log.stat(&Staging::root_name(base));
    root.is_ok_and(|root| root.is_some())
}

/// What follows the number or date in `name`: how the file is compressed.
fn ending(name: &OsStr) -> String {
    compression(name).map_or("", Compression::suffix).to_owned()
}

fn compression(name: &OsStr) -> Option<Compression> {
    Compression::strip(name.as_bytes()).1
}

/// Base and numbered files with their names; the base has no number.
fn entries(listing: &Listing, base: &OsStr) -> Vec<(OsString, Option<u32>, folder::Stat)> {
    let rotated = listing
        .rotated()
        .iter()
        .map(|r| (r.name.clone(), Some(r.number), r.stat));
    listing
        .base()
        .map(|stat| (base.to_owned(), None, *stat))
        .into_iter()
        .chain(rotated)
        .collect()
}

fn pause(time: Duration) {
    if !fault::pause(time) {
        crate::pause::pause(time);
    }
}
