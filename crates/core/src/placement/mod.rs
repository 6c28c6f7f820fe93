//! Brings history that came from elsewhere into a chain: the one place that
//! applies what [`crate::rotation`] decides.
//!
//! ```text
//!            append*            seal                place              finish
//!  (open) ───────────► staging ─────► sealed ──────────────► placed ─────────► (clean)
//!     │                   │        journal on disk:            │  record on disk:
//!     └─ retire           │        from here on it is          │  placed once,
//!                         │        finished, not undone        │  for ever
//!                         └─────────────► discard ──► (clean, what was retired is back)
//! ```
//!
//! *staging*: bytes go into parts in a private folder beside the log, on the
//! log's own file system. Killed here, nothing has happened: the next start
//! discards the parts and puts back what was retired.
//!
//! *sealed*: all parts are durable and the journal names them. **This is the
//! commit point**: a next start places them.
//!
//! *placed*: every part that the rotation keeps has its name, by a hard link
//! beside the one in staging, so that a rollover at the same moment costs nothing.
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

mod apply;
mod error;
mod journal;
mod stage;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

pub use error::{Error, Result};

use crate::chain::{Listing, Numbering};
use crate::folder::{FileId, Folder};
use crate::follow::Writers;
use crate::record::{Record, hidden};
use crate::rotation::Retention;
use crate::transport::HandoffId;
use journal::{Journal, Retired};
use stage::Parts;

/// What a staging folder says about itself, from any bytes.
#[cfg(feature = "fuzzing")]
pub fn fuzz_journal(data: &[u8]) {
    journal::fuzz(data);
}

/// How long another logchain process may hold the chain before we give up.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// What the destination's rotation does with this log.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How rotated files are numbered.
    pub numbering: Numbering,
    /// What is kept.
    pub retention: Retention,
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
    retired: Vec<Retired>,
    older: Vec<FileId>,
    sealed: Option<Journal>,
    _lock: File,
}

/// The files of a chain to which history comes, oldest first, and their sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The history.
    pub parts: Vec<(FileId, u64)>,
    /// What the VM wrote here since.
    pub newer: Vec<(FileId, u64)>,
    /// What else lies here: older than the history, and no part of it.
    pub foreign: Vec<FileId>,
}

/// What [`Staging::place`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The names given and their sizes in bytes, newest first.
    pub files: Vec<(String, u64)>,
    /// How many of the oldest bytes the rotation here does not keep.
    pub dropped: u64,
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
        let root_name = Self::root_name(&base);
        let (root, lock) = lock(&log, &root_name)?;
        for name in root.names()? {
            let Some(id) = name.to_str().and_then(|n| n.parse::<HandoffId>().ok()) else {
                continue;
            };
            if id != handoff {
                let own = root.open_folder(&name)?;
                Self::with(
                    log.try_clone()?,
                    base.clone(),
                    root.try_clone()?,
                    own,
                    id,
                    rules,
                    Arc::clone(&writers),
                    lock.try_clone()
                        .map_err(|e| Error::io("hold the lock of", path, e))?,
                )?
                .recover()?;
            }
        }
        let own = root.make_folder(OsStr::new(&handoff.to_string()))?;
        root.sync()?;
        let mut staging = Self::with(log, base, root, own, handoff, rules, writers, lock)?;
        if staging.sealed.is_none() {
            staging.undo()?;
        }
        Ok(staging)
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

    #[expect(
        clippy::too_many_arguments,
        reason = "the one constructor, private; all of it is state"
    )]
    fn with(
        log: Folder,
        base: OsString,
        root: Folder,
        own: Folder,
        handoff: HandoffId,
        rules: Rules,
        writers: Arc<dyn Writers>,
        lock: File,
    ) -> Result<Self> {
        let journal = Journal::read(&own)?;
        let (retired, sealed) = match journal {
            Some(journal) if journal.sealed => (journal.retired.clone(), Some(journal)),
            Some(journal) => (journal.retired, None),
            None => (Vec::new(), None),
        };
        let older = sealed.as_ref().map(|j| j.older.clone()).unwrap_or_default();
        let parts = Parts::new(rules.retention);
        Ok(Self {
            log,
            base,
            root,
            own,
            handoff,
            rules,
            writers,
            parts,
            retired,
            older,
            sealed,
            _lock: lock,
        })
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
        self.sealed.is_some()
    }

    /// Before the migration: takes aside what `record` says was handed over from
    /// here, since it comes back now; libvirt would wipe it, or go on writing
    /// behind it. What else lies here is remembered as older than what comes.
    ///
    /// # Errors
    /// The folder's.
    pub fn retire(&mut self, record: Option<&Record>) -> Result<()> {
        let listing = self.listing()?;
        for (name, number, stat) in entries(&listing, &self.base) {
            let handed_over = record.is_some_and(|r| r.is_handed_over(stat.id, stat.size));
            if handed_over {
                self.retire_one(&name, number, stat.id)?;
            } else if number.is_some() {
                self.older.push(stat.id);
            }
        }
        Ok(())
    }

    fn retire_one(&mut self, name: &OsStr, number: Option<u32>, id: FileId) -> Result<()> {
        let Some(shown) = name
            .to_str()
            .and_then(|n| n.strip_prefix(self.base.to_str()?))
        else {
            return Ok(()); // a name that the journal cannot hold stays where it is
        };
        let aside = format!("retired-{}", self.retired.len());
        self.retired.push(Retired {
            suffix: shown.to_owned(),
            aside: aside.clone(),
            number,
            id,
        });
        self.write_journal(false)?;
        self.log
            .rename_noreplace(name, &self.own, OsStr::new(&aside))?;
        // Whoever opened the base before the rename still writes to it and is seen
        // by its descriptor; whoever opens it after gets a new file.
        let (file, stat) = self.own.open_file(OsStr::new(&aside))?;
        if stat.id != id || self.writers.writer(&file) == crate::follow::Writer::Some {
            self.own
                .rename_noreplace(OsStr::new(&aside), &self.log, name)?;
            self.retired.pop();
            self.write_journal(false)?;
        }
        Ok(())
    }

    fn listing(&self) -> Result<Listing> {
        Ok(Listing::read(&self.log, &self.base)?)
    }

    fn write_journal(&self, sealed: bool) -> Result<()> {
        let parts = self.parts.described();
        Journal::new(self.retired.clone(), parts, self.older.clone(), sealed).write(&self.own)
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
    /// [`Error::Io`]; [`Error::StaleBase`] where the base file begins with bytes
    /// that the history holds too.
    pub fn seal(&mut self, record: Option<&Record>) -> Result<()> {
        if self.is_sealed() {
            return Ok(());
        }
        let listing = self.listing()?;
        let mut stale = Vec::new();
        for (name, number, stat) in entries(&listing, &self.base) {
            let offered = record
                .and_then(|r| r.offered.as_ref())
                .filter(|o| o.received);
            let known = offered.and_then(|o| o.files.iter().find(|(id, _)| *id == stat.id));
            match (known, number) {
                (Some((_, 0)), _) | (None, _) => {}
                (Some((_, size)), None) => {
                    return Err(Error::StaleBase {
                        path: self.log.path().join(&name),
                        bytes: *size,
                    });
                }
                (Some(_), Some(_)) => stale.push(stat.id),
            }
        }
        self.parts.finish(&self.own)?;
        self.match_owner(&listing)?;
        self.own.sync()?;
        let mut journal = Journal::new(
            self.retired.clone(),
            self.parts.described(),
            self.older.clone(),
            true,
        );
        journal.stale = stale;
        journal.write(&self.own)?;
        self.sealed = Some(journal);
        Ok(())
    }

    /// Gives every part that the rotation keeps its name behind the base file.
    /// Can be repeated after a kill at any point.
    ///
    /// # Errors
    /// [`Error::NotSealed`]; [`Error::Unsettled`] where the names keep changing;
    /// the folder's.
    pub fn place(&mut self) -> Result<Placed> {
        let journal = self.sealed.as_ref().ok_or(Error::NotSealed)?;
        apply::place(self, journal)
    }

    /// What is to lie where, once it is sealed.
    ///
    /// # Errors
    /// [`Error::NotSealed`]; the folder's.
    pub fn arrival(&self) -> Result<Arrival> {
        let journal = self.sealed.as_ref().ok_or(Error::NotSealed)?;
        let parts: Vec<_> = journal.parts.iter().rev().map(|p| (p.id, p.size)).collect();
        let ours = |id: FileId| parts.iter().any(|(part, _)| *part == id);
        let listing = self.listing()?;
        let rotated = listing.rotated().iter().rev().map(|r| r.stat);
        let newer = rotated.chain(listing.base().copied());
        let newer = newer.map(|s| (s.id, s.size)).filter(|(id, _)| {
            !ours(*id) && !journal.older.contains(id) && !journal.stale.contains(id)
        });
        Ok(Arrival {
            newer: newer.collect(),
            parts,
            foreign: journal.older.clone(),
        })
    }

    /// Removes the staging. What was retired goes with it.
    ///
    /// # Errors
    /// The folder's.
    pub fn clean(self) -> Result<()> {
        self.clean_own()?;
        let others = self.root.names()?.iter().any(|n| n != LOCK);
        if !others {
            self.root.remove(OsStr::new(LOCK))?;
            self.log.remove_folder(&Self::root_name(&self.base))?;
        }
        self.log.sync()?;
        Ok(())
    }

    fn clean_own(&self) -> Result<()> {
        // The journal goes last: a kill in between must find it sealed.
        for name in self.own.names()? {
            if name != Journal::NAME {
                self.own.remove(&name)?;
            }
        }
        self.own.remove(OsStr::new(Journal::NAME))?;
        self.root
            .remove_folder(OsStr::new(&self.handoff.to_string()))?;
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
        self.parts = Parts::new(self.rules.retention);
        apply::put_back(self)?;
        for name in self.own.names()? {
            self.own.remove(&name)?;
        }
        self.retired.clear();
        self.older.clear();
        Ok(())
    }

    fn recover(mut self) -> Result<()> {
        if self.is_sealed() {
            self.place()?;
            // Its receipt is still owed: whoever adopts it again finds it sealed.
            return Ok(());
        }
        self.undo()?;
        self.clean_own()
    }

    fn match_owner(&self, listing: &Listing) -> Result<()> {
        let Some(base) = listing.base() else {
            return Ok(());
        };
        self.parts.match_owner(&self.own, base)
    }
}

/// Whether something was begun on the chain of `base` and is not over yet.
#[must_use]
pub fn is_under_way(log: &Folder, base: &OsStr) -> bool {
    let root = log.stat(&Staging::root_name(base));
    root.is_ok_and(|root| root.is_some())
}

const LOCK: &str = "lock";

/// Takes the lock of a chain. The folder may be removed by its last holder
/// between our opening and our locking: then try anew.
fn lock(log: &Folder, root_name: &OsStr) -> Result<(Folder, File)> {
    let name = OsStr::new(LOCK);
    let end = Instant::now() + LOCK_WAIT;
    loop {
        let root = log.make_folder(root_name)?;
        let file = match root.create_new(name, 0o600) {
            Ok(file) => Ok(file),
            Err(crate::folder::Error::AlreadyExists { .. }) => {
                root.open_append(name).map(|(f, _)| f)
            }
            Err(e) => Err(e),
        };
        if let Ok(file) = file {
            let held = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            let there = root.stat(name)?.map(|s| s.id);
            let ours = crate::folder::stat_open(&file).map(|s| s.id).ok();
            if held && there.is_some() && there == ours {
                return Ok((root, file));
            }
        }
        if Instant::now() > end {
            return Err(Error::Busy {
                path: log.path().join(root_name),
            });
        }
        pause(Duration::from_millis(20));
    }
}

/// Base and rotated files with their names; the base has no number.
fn entries(listing: &Listing, base: &OsStr) -> Vec<(OsString, Option<u32>, crate::folder::Stat)> {
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

#[expect(
    clippy::disallowed_methods,
    reason = "file work is synchronous and runs on a thread that may block"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
