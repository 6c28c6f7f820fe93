//! Logs that could not be carried and whose files went: `/var/lib/logchain/outbox`.
//!
//! An orchestrator removes the folder of a VM that left, whatever became of its log.
//! Then the only bytes left are those that a [`Keeper`] holds by descriptors, and
//! they are put down here, each log as a chain of its own that is offered like any
//! other:
//!
//! ```text
//! outbox/<domain uuid>/<console>/0/console.log, .0, .1 … and its record
//!                               /1/…            of a later departure
//!                               /.new/          being put down, or what a kill left
//! ```
//!
//! Nothing in it ever changes but the record, and it has one handoff's id for good, over
//! whatever transport it goes: whoever has it once does not take it in again. The name
//! of an entry is given once all of it is durable: that is the commit point. It goes
//! when the receipt is there.
//!
//! Files that are about to go may be there still. Then their record says that they were
//! handed over to the outbox, first without and then with the receipt: whoever is killed
//! in between leaves them as what was offered once, never as another log.
//!
//! Must not know: migrations, transports, why anybody offers what.
//!
//! ```
//! use logchain_core::chain::{LogChain, NumberingChoice};
//! use logchain_core::follow::{Follower, Writer, Writers};
//! use logchain_core::outbox::{Outbox, PutDown};
//! use logchain_core::record::Record;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (dir, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! let log = dir.path().join("vm/console.log");
//! # std::fs::create_dir(dir.path().join("vm"))?;
//! std::fs::write(&log, "all that it said")?;
//! let held = Follower::begin(&LogChain::open(&log, NumberingChoice::FromZero)?)?;
//! std::fs::remove_dir_all(dir.path().join("vm"))?;
//! assert!(!held.is_found(&log)?);
//!
//! let record = Record::new(uuid::Uuid::new_v4(), "serial0".parse()?);
//! let outbox = Outbox::of(state.path());
//! let log = PutDown { held: &held, record: &record, committed: None, there: None,
//!     ended: None };
//! let entry = outbox.put(&log)?;
//! assert_eq!(std::fs::read_to_string(&entry.path)?, "all that it said");
//! assert_eq!(outbox.all()?.entries, [entry.clone()]);
//! outbox.remove(&entry)?;
//! assert!(outbox.all()?.entries.is_empty());
//! # Ok(())
//! # }
//! ```

mod keeper;
mod source;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

pub(crate) use keeper::Kept;
pub use keeper::{KeepOutcome, Keeper};

use crate::OkLogged as _;
use crate::chain::{self, Listing, LogChain, NumberingChoice, rotated_name};
use crate::clock::millisecond;
use crate::folder::{self, FileId, Folder, fault, sparse, stat_open};
use crate::follow::{self, Follower, HeldFile, prints};
use crate::ids::{ConsoleId, ConsoleName, HandoffId};
use crate::record::{self, Offered, OnDisk, Record};
use crate::stream::{Ledger, StreamOffset};

/// Its folder in the host's state folder.
const FOLDER: &str = "outbox";

/// An entry that has no name yet.
const NEW: &str = ".new";

/// How long a change waits for another.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// What is copied at once.
const BLOCK: usize = 1 << 20;

/// Why a log could not be put down, found or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process puts something down there.
    #[error("another process works in {}", .path.display())]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// The thread that held a log failed, and nothing is held any more: report it.
    #[error("the thread that held {} failed: nothing is held of it any more", .path.display())]
    NotHeld {
        /// The base file.
        path: PathBuf,
    },
    /// The folder's answer.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// What is held could not be looked at.
    #[error(transparent)]
    Follow(#[from] follow::Error),
    /// What was put down could not be read.
    #[error(transparent)]
    Chain(#[from] chain::Error),
    /// The record could not be written.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// Copying failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A log that was put down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose log it is.
    pub domain: Uuid,
    /// Which console's.
    pub console: ConsoleName,
    /// Entries of one console count up: one of a higher number is newer.
    pub number: u32,
    /// Its base file.
    pub path: PathBuf,
    /// What its files hold on disk.
    pub bytes: u64,
}

/// What [`Outbox::all`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct All {
    /// The logs, those of a console the newest first: the order in which they are to
    /// be offered, since each is placed behind all that is there.
    pub entries: Vec<Entry>,
    /// Folders of logs that were being put down when the process was killed, or are
    /// just now. No log is read from there.
    pub unfinished: Vec<PathBuf>,
}

/// What is to be put down.
#[derive(Clone, Copy)]
pub struct PutDown<'a> {
    /// The files, of which nothing was read.
    pub held: &'a Follower,
    /// The record as it was beside them.
    pub record: &'a Record,
    /// The handoff that was committed with just these bytes, if one was.
    pub committed: Option<&'a Offered>,
    /// The path of the base file, if its files are there still.
    pub there: Option<&'a Path>,
    /// It ended with a boot of its VM, which has begun a new log.
    pub ended: Option<EndedBoot>,
}

/// A log that ended with a boot of its VM: the VM was started anew, and its log was wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedBoot {
    /// When the VM began its new log.
    pub at: Timestamp,
    /// How many of the boots that have ended are kept, this one among them.
    pub keep: u32,
}

/// The outbox of a host.
#[derive(Clone, Debug)]
pub struct Outbox {
    path: PathBuf,
}

impl Outbox {
    /// In the state folder `state`; nothing is made until something is put down.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self {
            path: state.join(FOLDER),
        }
    }

    /// All logs here.
    pub fn all(&self) -> Result<All> {
        let mut all = All::default();
        let root = match Folder::open(&self.path) {
            Err(folder::Error::NotFound { .. }) => return Ok(all),
            opened => opened?,
        };
        for name in root.names()? {
            let Some(domain) = name.to_str().and_then(|n| n.parse::<Uuid>().ok()) else {
                continue;
            };
            let of_domain = root.open_folder(&name)?;
            for name in of_domain.names()? {
                let Some(console) = name.to_str().and_then(|n| n.parse().ok()) else {
                    continue;
                };
                let owner = ConsoleId::new(domain, console);
                find(&of_domain.open_folder(&name)?, &owner, &mut all)?;
            }
        }
        all.entries.sort_by(|a, b| {
            let which = (a.domain, &a.console).cmp(&(b.domain, &b.console));
            which.then(b.number.cmp(&a.number))
        });
        all.unfinished.sort();
        Ok(all)
    }

    /// Those of one domain.
    pub fn of_domain(&self, domain: Uuid) -> Result<Vec<Entry>> {
        let mut entries = self.all()?.entries;
        entries.retain(|entry| entry.domain == domain);
        Ok(entries)
    }

    /// Puts a log down, durably and whole, or not at all. Where just these files were put down
    /// already, gives that entry.
    ///
    /// # Errors
    /// [`folder::Error::NoRoom`], [`Error::Busy`], and what copying gives.
    pub fn put(&self, log: &PutDown<'_>) -> Result<Entry> {
        let Some(owner) = &log.record.owner else {
            let path = self.path.clone();
            let source = io::Error::other("nobody said whose log it is");
            return Err(Error::Io {
                action: "put down a log in",
                path,
                source,
            });
        };
        let of_console = self.make(owner)?;
        let lock = of_console.lock(LOCK_WAIT)?;
        if lock.is_none() {
            let path = of_console.path().to_owned();
            return Err(Error::Busy { path });
        }
        if let Some(entry) = source::find(&of_console, owner, log.held)? {
            return Ok(entry);
        }
        // Of one that was killed: what it held is gone with it, or put down now.
        remove_folder(&of_console, OsStr::new(NEW))?;
        let bytes = log.held.held().fold(0_u64, |all, file| {
            // Holes take no room. A block more for each: it is an estimate anyway.
            let takes = stat_open(file.file).map_or(0, |s| s.size.min(s.allocated));
            all.saturating_add(takes).saturating_add(4096)
        });
        of_console.check_room(bytes)?;
        let new = of_console.make_folder(OsStr::new(NEW))?;
        let mut offered = match self.fill(&new, log) {
            Ok(offered) => offered,
            Err(e) => {
                // A disk that filled up meanwhile gets its room back.
                remove_folder(&of_console, OsStr::new(NEW))
                    .ok_logged("what was copied so far stays until the outbox is cleared of it");
                return Err(e);
            }
        };
        self.mark(log, &offered)?;
        let taken = numbers(&of_console)?;
        let number = taken.max().map_or(0, |n| n.saturating_add(1));
        let name = OsString::from(number.to_string());
        of_console.take_aside(OsStr::new(NEW), &of_console, &name)?;
        of_console.sync()?;
        offered.received = true;
        self.mark(log, &offered)?;
        let entry = entry(&of_console, owner, number)?;
        entry.ok_or_else(|| Error::Io {
            action: "find again",
            path: of_console.path().join(name),
            source: io::Error::other("it is empty"),
        })
    }

    /// Whether a boot of its VM ended this log: the VM is started here again, and nobody else waits
    /// for the log.
    pub fn is_of_ended_boot(&self, entry: &Entry) -> Result<bool> {
        let (folder, base) = Folder::of_file(&entry.path)?;
        let record = Record::read(&folder, &base, entry.domain, &entry.console)?;
        Ok(record.is_some_and(|record| record.ledger.is_ended_boot()))
    }

    /// Removes a log: the destination has it.
    pub fn remove(&self, entry: &Entry) -> Result<()> {
        let root = match Folder::open(&self.path) {
            Err(folder::Error::NotFound { .. }) => return Ok(()),
            opened => opened?,
        };
        let (domain, console) = (name_of(entry.domain), OsStr::new(entry.console.as_str()));
        let of_domain = match root.open_folder(&domain) {
            Err(folder::Error::NotFound { .. }) => return Ok(()),
            opened => opened?,
        };
        let of_console = match of_domain.open_folder(console) {
            Err(folder::Error::NotFound { .. }) => return Ok(()),
            opened => opened?,
        };
        let name = OsString::from(entry.number.to_string());
        remove_folder(&of_console, &name)?;
        // Another one may lie beside it, or be on its way.
        if of_domain.remove_folder(console)? {
            root.remove_folder(&domain)?;
        }
        Ok(())
    }

    fn make(&self, owner: &ConsoleId) -> Result<Folder> {
        let root = Folder::create(&self.path)?;
        let of_domain = root.make_folder(&name_of(owner.domain))?;
        let of_console = of_domain.make_folder(OsStr::new(owner.console.as_str()))?;
        of_domain.sync()?;
        root.sync()?;
        Ok(of_console)
    }

    /// Says beside the files that are there still where their bytes went.
    fn mark(&self, log: &PutDown<'_>, offered: &Offered) -> Result<()> {
        let (Some(path), Some(owner)) = (log.there, &log.record.owner) else {
            return Ok(());
        };
        let files = log.held.files();
        let offered = Offered {
            to: self.path.display().to_string(),
            files: files.iter().map(|file| (file.id, file.size)).collect(),
            prints: prints(&files),
            ..offered.clone()
        };
        let marked = Folder::of_file(path).map_err(Error::from);
        let marked = marked.and_then(|(folder, base)| {
            Record::update(&folder, &base, owner.domain, &owner.console, |record| {
                if let Ok(layout) = record.ledger.lay(&log.held.lengths(), StreamOffset::START) {
                    let (handoff, end) = (offered.handoff, layout.end());
                    record
                        .ledger
                        .end_segment(handoff, end, last_written(log.held));
                }
                record.offered = Some(offered);
                record.begun = None;
            })
            .map_err(Error::from)
        });
        match marked {
            // They went just now: nothing is left that could be offered too.
            Err(Error::Folder(folder::Error::NotFound { .. })) => Ok(()),
            Err(Error::Record(record::Error::Folder(folder::Error::NotFound { .. }))) => Ok(()),
            marked => marked,
        }
    }

    /// Files, oldest first, and the record last: it says under which handoff they are
    /// offered.
    fn fill(&self, new: &Folder, log: &PutDown<'_>) -> Result<Offered> {
        let base = log.held.base().to_owned();
        let mut record = log.record.clone();
        (record.arriving, record.begun, record.offered) = (None, None, None);
        for (was, now) in log.held.moved() {
            record.ledger.moved_to(*was, *now);
        }
        let mut cuts = Vec::new();
        // Without the length of a compressed file nobody knows where its boots lie.
        if let Ok(layout) = record.ledger.lay(&log.held.lengths(), StreamOffset::START) {
            record.ledger.remember(&layout);
            if let Some(ended) = log.ended {
                record.ledger.end_boot(ended.at);
                cuts = cut(&mut record.ledger, ended.keep, log.held);
            }
        }
        // Each with how many of its bytes are not wanted.
        let held = log.held.held().filter_map(|file| {
            let cut = cuts.iter().find(|(id, _)| *id == file.id);
            let before = cut.map_or(Some(0), |(_, bytes)| *bytes)?;
            Some((file, before))
        });
        let held: Vec<_> = held.collect();
        let mut moved: Vec<(FileId, OnDisk)> = Vec::new();
        for (age, (file, before)) in (0..held.len()).rev().zip(&held) {
            let name = name_at(&base, age, file);
            moved.push((file.id, copy((file, *before), new, &name)?));
        }
        let now = |id| moved.iter().find(|m| m.0 == id).map(|m| m.1.id);
        let end = record.ledger.end();
        record.ledger = record.ledger.copied(now);
        let (bytes, digest) = digest(new, &base)?;
        let same = log
            .committed
            .filter(|c| c.bytes == bytes && c.digest == digest);
        let offered = Offered {
            handoff: same.map_or_else(HandoffId::random, |committed| committed.handoff),
            to: same.map_or_else(String::new, |committed| committed.to.clone()),
            bytes,
            digest,
            at: crate::clock::now(),
            files: moved.iter().map(|(_, copy)| (copy.id, copy.size)).collect(),
            prints: (moved
                .iter()
                .filter_map(|(_, copy)| Some((copy.id, copy.print?))))
            .collect(),
            received: false,
        };
        record
            .ledger
            .end_segment(offered.handoff, end, last_written(log.held));
        record.offered = Some(offered.clone());
        record.write(new, &base)?;
        source::write(new, log.held)?;
        new.sync()?;
        Ok(offered)
    }
}

/// Forgets the boots before the last `keep` that have ended. Gives how many bytes are not wanted
/// of which files. Where these begin in a compressed file, that one is kept whole.
fn cut(ledger: &mut Ledger, keep: u32, held: &Follower) -> Vec<(FileId, Option<u64>)> {
    let Some(mut first) = ledger.start_of_ended_boots(keep) else {
        return Vec::new();
    };
    for file in held.held().filter(|file| file.compression.is_some()) {
        let (start, length) = (ledger.start_of(file.id), ledger.length_of(file.id));
        if let (Some(start), Some(length)) = (start, length)
            && start < first
            && start.saturating_add(length) > first
        {
            first = start;
        }
    }
    ledger.cut(first)
}

/// When the last of these bytes was written.
fn last_written(held: &Follower) -> Option<Timestamp> {
    let files = held.files();
    let last = files.iter().rfind(|file| file.size > 0)?;
    millisecond(last.written?)
}

/// The newest is the base.
fn name_at(base: &OsStr, age: usize, file: &HeldFile<'_>) -> OsString {
    let number = age
        .checked_sub(1)
        .map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let mut name = number.map_or_else(|| base.to_owned(), |number| rotated_name(base, number));
    if let (Some(compression), Some(_)) = (file.compression, number) {
        name.push(compression.suffix());
    }
    name
}

/// Copies what there is behind so many bytes; gives the copy.
fn copy((from, before): (&HeldFile<'_>, u64), folder: &Folder, name: &OsStr) -> Result<OnDisk> {
    let path = folder.path().join(name);
    let fail = |action| {
        let path = path.clone();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    };
    let to = folder.create_new(name, 0o600)?;
    let mut block = vec![0; BLOCK];
    let mut at = 0_u64;
    loop {
        let read = match from.file.read_at(&mut block, before.saturating_add(at)) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(fail("read what is held for")(e)),
        };
        let bytes = block.get(..read).unwrap_or_default();
        sparse::write_at_end(&to, at, bytes).map_err(fail("write"))?;
        at = at.saturating_add(read as u64);
    }
    fault::sync(&to).map_err(fail("sync"))?;
    OnDisk::of(&to).map_err(fail("look at"))
}

/// Length and digest of the stream that lies there.
fn digest(folder: &Folder, base: &OsStr) -> Result<(u64, String)> {
    let chain = LogChain::beneath(
        folder.try_clone()?,
        base.to_owned(),
        NumberingChoice::FromZero,
    )?;
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader(chain.snapshot()?.read_all()?)
        .map_err(|source| Error::Io {
            action: "read",
            path: folder.path().join(base),
            source,
        })?;
    Ok((hasher.count(), hasher.finalize().to_hex().to_string()))
}

fn find(of_console: &Folder, owner: &ConsoleId, all: &mut All) -> Result<()> {
    for number in numbers(of_console)? {
        all.entries.extend(entry(of_console, owner, number)?);
    }
    if of_console.stat(OsStr::new(NEW))?.is_some() {
        all.unfinished.push(of_console.path().join(NEW));
    }
    Ok(())
}

fn numbers(of_console: &Folder) -> Result<impl Iterator<Item = u32> + use<>> {
    let names = of_console.names()?.into_iter();
    Ok(names.filter_map(|name| name.to_str()?.parse().ok()))
}

/// `None`: it is being removed.
fn entry(of_console: &Folder, owner: &ConsoleId, number: u32) -> Result<Option<Entry>> {
    let folder = match of_console.open_folder(OsStr::new(&number.to_string())) {
        Err(folder::Error::NotFound { .. }) => return Ok(None),
        opened => opened?,
    };
    let Some(base) = base_among(&folder.names()?) else {
        return Ok(None);
    };
    let listing = Listing::read(&folder, &base)?;
    let sizes = listing.files().map(|file| file.stat.size);
    Ok(Some(Entry {
        domain: owner.domain,
        console: owner.console.clone(),
        number,
        path: folder.path().join(&base),
        bytes: sizes.fold(0, u64::saturating_add),
    }))
}

/// Its record says which file is the base: `.console.log.logchain`. The base itself may not be
/// there; where its name was cut in the record's, a file of the log has to be.
fn base_among(names: &[OsString]) -> Option<OsString> {
    let visible = names.iter().filter_map(|name| name.to_str());
    let visible = visible.filter(|name| !name.starts_with('.'));
    let mut bases = visible.flat_map(|name| {
        let shorter = name.match_indices('.').filter_map(|(at, _)| name.get(..at));
        std::iter::once(name).chain(shorter).map(OsString::from)
    });
    let found = bases.find(|base| names.contains(&Record::name(base)));
    found.or_else(|| {
        names.iter().find_map(|name| {
            let record = name.to_str()?.strip_prefix('.')?;
            record.strip_suffix(".logchain").map(OsString::from)
        })
    })
}

/// With all files in it; the record goes first: what is half removed is no log.
fn remove_folder(parent: &Folder, name: &OsStr) -> Result<()> {
    let folder = match parent.open_folder(name) {
        Err(folder::Error::NotFound { .. }) => return Ok(()),
        opened => opened?,
    };
    let mut names = folder.names()?;
    names.sort_by_key(|name| !name.to_string_lossy().starts_with('.'));
    for name in names {
        folder.remove(&name)?;
    }
    parent.remove_folder(name)?;
    parent.sync()?;
    Ok(())
}

fn name_of(domain: Uuid) -> OsString {
    OsString::from(domain.hyphenated().to_string())
}
