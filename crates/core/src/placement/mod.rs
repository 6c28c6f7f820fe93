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
//! drops the parts. A start of another handoff also puts back what was retired.
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
//! use logchain_core::follow::NoWriters;
//! use logchain_core::placement::{Rules, Staging};
//! use logchain_core::rotation::Retention;
//! use logchain_core::ids::HandoffId;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let log = folder.path().join("console.log");
//! std::fs::write(&log, "printed here")?;
//! let rules = Rules { numbering: Numbering::FromZero, retention: Retention::virtlogd(2 << 20, 3) };
//! let mut staging = Staging::open(&log, HandoffId::random(), rules, Arc::new(NoWriters))?;
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
mod interleave;
mod journal;
mod lock;
mod retire;
mod returning;
pub mod roll;
mod shared;
mod show;
mod stage;
pub mod under_way;
mod workspace;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use error::{Error, Result};
pub(crate) use interleave::Interleaved;
pub use workspace::ChainWorkspace;

use crate::OkLogged as _;
use crate::chain::{Compression, Listing, Numbering};
use crate::folder::{self, FileId, Folder, fault};
use crate::follow::Writers;
use crate::ids::{ConsoleName, HandoffId};
use crate::record::Record;
use crate::rotation::Retention;
use crate::stream::History;
use journal::Phase;
use stage::Parts;

/// A fuzz target: any bytes, read as a journal.
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
    /// What virtlogd keeps. It counts only for a chain that is numbered from zero: one that
    /// is numbered from one is not virtlogd's, and nothing of it is dropped.
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

/// What [`ChainWorkspace::place`] did.
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
pub struct PendingAdoption {
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
    /// When all of it was here.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub at: Timestamp,
    /// Where the history lies in the VM's stream.
    pub history: History,
    /// Other handoffs whose bytes the history holds.
    pub contains: Vec<HandoffId>,
}

/// History that waits in a workspace: bytes go into parts, until all of it is here.
pub struct Staging {
    workspace: ChainWorkspace,
    parts: Parts,
    /// What lies here and was copied into the parts: see [`Staging::interleave`].
    copied: Option<Vec<FileId>>,
}

/// A staging can do all that its workspace can.
impl Deref for Staging {
    type Target = ChainWorkspace;

    fn deref(&self) -> &ChainWorkspace {
        &self.workspace
    }
}

impl DerefMut for Staging {
    fn deref_mut(&mut self) -> &mut ChainWorkspace {
        &mut self.workspace
    }
}

impl Staging {
    /// Opens the staging of `handoff` beside the log at `path`.
    ///
    /// # Errors
    /// [`Error::Busy`] where another process works on this chain.
    pub fn open(
        path: &Path,
        handoff: HandoffId,
        rules: Rules,
        writers: Arc<dyn Writers>,
    ) -> Result<Self> {
        Ok(Self {
            workspace: ChainWorkspace::open(path, handoff, rules, writers)?,
            parts: Parts::new(rules.retention()),
            copied: None,
        })
    }

    /// As [`ChainWorkspace::clean`].
    pub fn clean(self) -> Result<()> {
        self.workspace.clean()
    }

    /// As [`ChainWorkspace::discard`].
    ///
    /// # Errors
    /// [`Error::Sealed`] once it is sealed.
    pub fn discard(self) -> Result<()> {
        self.workspace.discard()
    }

    /// Adds `bytes` to the history, oldest first. `starts_file`: they begin a
    /// new file at the source.
    ///
    /// # Errors
    /// [`Error::Io`], a full disk among them: nothing is lost, the source has all of it.
    pub fn append(&mut self, starts_file: bool, bytes: &[u8]) -> Result<()> {
        let appended = self.parts.append(&self.workspace.own, starts_file, bytes);
        self.workspace.staged = self.parts.ids();
        appended
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
    /// [`Error::StaleBase`] where a file here holds bytes that the history holds too, and others
    /// behind them.
    pub fn seal(&mut self, record: Option<&Record>) -> Result<()> {
        if self.is_sealed() {
            return Ok(());
        }
        let listing = apply::stable(self)?;
        let stale = match self.copied.take() {
            Some(copied) => copied,
            None => self.stale(&listing, record)?,
        };
        self.parts.finish(&self.workspace.own)?;
        self.workspace.staged = self.parts.ids();
        if let Some(base) = self.open_base()? {
            self.match_base((&base.0, &base.1))?;
        }
        if let Some(time) = self.came_before(&listing, &stale) {
            self.parts.set_times(&self.workspace.own, time)?;
        }
        let described = self.parts.described();
        self.workspace.seal(described, stale, record)
    }

    /// Owner, mode and label of the parts, and whether a rollover could move them then.
    fn match_base(&self, base: (&File, &folder::Stat)) -> Result<()> {
        self.parts.match_base(&self.workspace.own, base, &LABELS)?;
        let Some((part, owner)) = self.parts.newest() else {
            return Ok(());
        };
        attributes::try_placing(
            (&self.log, &self.base),
            (&self.own, OsStr::new(part)),
            (base.1.owner.0, owner),
        )
    }

    /// A time that is no later than anything that the VM wrote here, for the files of the
    /// history, which is older: readers without the record order files by their times.
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
}

/// Whether something was begun on the chain of `base` and is not over yet.
#[must_use]
pub fn is_under_way(log: &Folder, base: &OsStr) -> bool {
    let root = log.stat(&ChainWorkspace::root_name(base));
    root.ok_logged("nothing counts as under way here")
        .is_some_and(|root| root.is_some())
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
