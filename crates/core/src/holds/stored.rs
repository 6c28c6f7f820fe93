//! Logs whose descriptors outlast the process that holds them.
//!
//! Somebody else keeps a second descriptor of each held file, under a name: a
//! [`DescriptorStore`]. What the descriptors are lies in the state folder, one file for each log:
//!
//! ```text
//! held/<domain uuid>-<console>.json    which descriptors, in which order, and their record
//! ```
//!
//! The process that starts next gets the descriptors back, and holds each log as if it had held
//! it all along. A descriptor is given before the state names it and taken back after the state
//! does not, so a kill in between leaves a descriptor too many, which the next start gives up.
//! Nothing of it outlasts a reboot, so nothing is synced.
//!
//! Must not know: who keeps the descriptors, and how.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::debug;
use uuid::Uuid;

use super::generation::{Generation, HeldFile};
use super::table::Key;
use crate::OkLogged as _;
use crate::chain::{ChainFile, part_of};
use crate::folder::{self, FileId, Folder, reopen, stat_open};
use crate::ids::{ConsoleId, ConsoleName};
use crate::record::{Offered, Record};
use crate::sentence;
use crate::versioned;

/// The version this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// The folder in the host's state folder.
const FOLDER: &str = "held";

/// What the names of our descriptors begin with. They are short, since systemd hands all of them
/// to the next process in one variable, and the kernel takes no more than 128 KiB of that.
const PREFIX: &str = "log-";

/// Keeps descriptors for the process that starts next.
pub trait DescriptorStore: Send + Sync {
    /// Keeps this descriptor under a name that nothing else has. Waits a moment at most.
    fn put(&self, name: &str, descriptor: BorrowedFd<'_>) -> Put;

    /// Gives up what it keeps under this name. Waits a moment at most.
    fn remove(&self, name: &str);
}

/// What came of [`DescriptorStore::put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is kept.
    Kept,
    /// There is no room: it is not kept.
    Full,
    /// It could not be given now; try again in a few seconds.
    Later,
}

/// Whether a descriptor of this name is one that [`Stored`] gave to a store.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    number(name).is_some()
}

fn number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(PREFIX)?;
    digits.parse().ok()
}

/// What is in a store, and the state that says what it is. A clone is the same.
#[derive(Clone)]
pub struct Stored(Arc<Inner>);

struct Inner {
    folder: Folder,
    store: Box<dyn DescriptorStore>,
    next: AtomicU32,
    /// Which hold writes the state of a log: the newest one does, and nobody removes what a
    /// newer one wrote.
    writers: Mutex<HashMap<ConsoleId, Key>>,
    /// What came back, and nobody holds yet.
    came: Mutex<Vec<StoredLog>>,
}

/// The state of one log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogState {
    version: u32,
    owner: ConsoleId,
    /// Its base file.
    path: PathBuf,
    /// Its folder, which may have been removed.
    folder: Option<Descriptor>,
    /// The log from its beginning to each of its wipes, and the present one last.
    generations: Vec<GenerationState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Descriptor {
    /// Its name in the store.
    name: String,
    id: FileId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GenerationState {
    number: u64,
    /// Oldest first.
    files: Vec<FileState>,
    record: Record,
    committed: Option<Offered>,
    is_received: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileState {
    descriptor: Descriptor,
    /// Its name in the folder, or the last one that it had there.
    name: String,
    is_named: bool,
}

impl LogState {
    /// Of a log whose descriptors have these names. What has none is left out: it is found by
    /// its name in the folder, or not at all.
    pub(super) fn of<'a>(
        (owner, path): (&ConsoleId, PathBuf),
        folder: Option<(FileId, String)>,
        generations: impl Iterator<Item = &'a Generation>,
        names: &HashMap<FileId, String>,
    ) -> Self {
        let file = |held: &HeldFile| {
            Some(FileState {
                descriptor: Descriptor {
                    name: names.get(&held.id())?.clone(),
                    id: held.id(),
                },
                name: held.file.name().to_str()?.to_owned(),
                is_named: held.is_named,
            })
        };
        let generation = |log: &Generation| GenerationState {
            number: log.number,
            files: log.files.iter().filter_map(file).collect(),
            record: log.record.clone(),
            committed: log.committed.get().cloned(),
            is_received: log.is_received,
        };
        Self {
            version: VERSION,
            owner: owner.clone(),
            path,
            folder: folder.map(|(id, name)| Descriptor { name, id }),
            generations: generations.map(generation).collect(),
        }
    }

    fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        let files = self.generations.iter().flat_map(|log| &log.files);
        self.folder.iter().chain(files.map(|file| &file.descriptor))
    }
}

/// A log that an earlier process held, and whose descriptors came back.
pub struct StoredLog {
    state: LogState,
    /// By their names in the store.
    descriptors: HashMap<String, OwnedFd>,
}

impl fmt::Debug for StoredLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredLog")
            .field("path", &self.state.path)
            .finish_non_exhaustive()
    }
}

impl StoredLog {
    /// Whose log it is.
    #[must_use]
    pub fn domain(&self) -> Uuid {
        self.state.owner.domain
    }

    /// Which console's.
    #[must_use]
    pub fn console(&self) -> &ConsoleName {
        &self.state.owner.console
    }

    /// Where its base was.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.state.path
    }

    /// Its folder as it was held, which may have been removed; where that did not come back,
    /// what lies at its path. And the name of its base.
    ///
    /// # Errors
    /// As [`Folder::of_file`].
    pub fn folder(&self) -> folder::Result<(Folder, OsString)> {
        let came = self.state.folder.as_ref();
        let came = came.and_then(|folder| self.descriptors.get(&folder.name));
        let came = came.and_then(|open| open.try_clone().ok_logged("its path is opened instead"));
        let (path, base) = (self.state.path.parent(), self.state.path.file_name());
        match (came, path, base) {
            (Some(open), Some(path), Some(base)) => {
                Ok((Folder::of_open(open, path), base.to_owned()))
            }
            _ => Folder::of_file(&self.state.path),
        }
    }

    /// What was held of it, oldest first, and the names of the descriptors. Each file is opened
    /// anew: a lease that this process takes must not last as long as what the store keeps.
    pub(super) fn into_generations(
        self,
        folder: &Path,
        base: &OsStr,
    ) -> (Vec<Generation>, HashMap<FileId, String>) {
        let mut names = HashMap::new();
        let descriptors = &self.descriptors;
        let mut file = |state: FileState| {
            let open = descriptors.get(&state.descriptor.name)?;
            let open = reopen(open).ok_logged("one file fewer is held of the log");
            let open = std::fs::File::from(open?);
            let stat = stat_open(&open).ok_logged("one file fewer is held of the log")?;
            let (part, compression) = part_of(base, OsStr::new(&state.name))?;
            let name = OsStr::new(&state.name);
            names.insert(stat.id, state.descriptor.name);
            Some(HeldFile {
                is_named: state.is_named,
                ..HeldFile::named(ChainFile::new(
                    (open, stat),
                    folder,
                    name,
                    part,
                    compression,
                ))
            })
        };
        let generation = |state: GenerationState| Generation {
            number: state.number,
            files: state.files.into_iter().filter_map(&mut file).collect(),
            record: state.record,
            committed: Arc::new(state.committed.map_or_else(Default::default, Into::into)),
            is_received: state.is_received,
        };
        let generations = self.state.generations.into_iter();
        (generations.map(generation).collect(), names)
    }

    /// The name of the folder's descriptor, where it came.
    pub(super) fn folder_name(&self) -> Option<(FileId, String)> {
        let folder = self.state.folder.as_ref()?;
        Some((folder.id, folder.name.clone()))
    }
}

impl Stored {
    /// In the state folder `state`, where an earlier process may have left something. `came`:
    /// what the store gave back of it, by name. What does not fit together is given up.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(
        state: &Path,
        store: Box<dyn DescriptorStore>,
        came: Vec<(String, OwnedFd)>,
    ) -> Result<Self, versioned::Error> {
        let folder = Folder::create(&state.join(FOLDER))?;
        let last = came.iter().filter_map(|(name, _)| number(name)).max();
        let mut came: HashMap<String, OwnedFd> = came.into_iter().collect();
        let mut logs = Vec::new();
        for name in folder.names()? {
            match read(&folder, &name, &mut came) {
                Some(log) => logs.push(log),
                None => folder
                    .remove(&name)
                    .ok_logged("it is removed at the next start")
                    .unwrap_or_default(),
            }
        }
        for name in came.into_keys() {
            debug!(
                name,
                "a stored descriptor belongs to no log, and is given up"
            );
            store.remove(&name);
        }
        Ok(Self(Arc::new(Inner {
            folder,
            store,
            next: AtomicU32::new(last.map_or(0, |last| last.saturating_add(1))),
            writers: Mutex::default(),
            came: Mutex::new(logs),
        })))
    }

    /// Which logs came back that nobody holds yet, and where they were.
    #[must_use]
    pub fn waiting(&self) -> Vec<(ConsoleId, PathBuf)> {
        let came = self.came();
        let logs = came.iter().map(|log| &log.state);
        logs.map(|log| (log.owner.clone(), log.path.clone()))
            .collect()
    }

    /// One of them.
    #[must_use]
    pub fn take(&self, domain: Uuid, console: &ConsoleName) -> Option<StoredLog> {
        let mut came = self.came();
        let index = came.iter().position(|log| {
            let owner = &log.state.owner;
            owner.domain == domain && owner.console == *console
        })?;
        Some(came.swap_remove(index))
    }

    /// Nobody wants this log.
    pub fn discard(&self, log: StoredLog) {
        let owner = &log.state.owner;
        // A hold that has begun since has written its own state there.
        if !self.writers().contains_key(owner) {
            self.0
                .folder
                .remove(&name_of(owner))
                .ok_logged("it is removed at the next start");
        }
        for name in log.descriptors.into_keys() {
            self.0.store.remove(&name);
        }
    }

    /// Gives a second descriptor to the store; the name under which it is kept.
    pub(super) fn put(&self, open: impl FnOnce() -> io::Result<OwnedFd>) -> Result<String, Put> {
        let next = |last: u32| last.checked_add(1);
        let number = self
            .0
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let (Ok(number), Some(open)) = (number, open().ok_logged("it is not kept for long")) else {
            return Err(Put::Full);
        };
        let name = format!("{PREFIX}{number}");
        match self.0.store.put(&name, std::os::fd::AsFd::as_fd(&open)) {
            Put::Kept => Ok(name),
            other => Err(other),
        }
    }

    pub(super) fn remove(&self, name: &str) {
        self.0.store.remove(name);
    }

    /// Writes the state of a log that `key` holds.
    pub(super) fn write(&self, key: Key, state: &LogState) -> Result<(), versioned::Error> {
        let mut writers = self.writers();
        let writer = writers.entry(state.owner.clone()).or_insert(key);
        if *writer > key {
            return Ok(()); // it is held anew
        }
        *writer = key;
        versioned::write_until_reboot(&self.0.folder, &name_of(&state.owner), state)
    }

    /// The log that `key` held is held no more.
    pub(super) fn remove_state(&self, key: Key, owner: &ConsoleId) {
        let mut writers = self.writers();
        if writers.get(owner) == Some(&key) {
            self.0
                .folder
                .remove(&name_of(owner))
                .ok_logged("it is removed at the next start");
            writers.remove(owner);
        }
    }

    fn came(&self) -> MutexGuard<'_, Vec<StoredLog>> {
        // Each change is one step, so a panic leaves no half of one.
        self.0.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writers(&self) -> MutexGuard<'_, HashMap<ConsoleId, Key>> {
        let writers = self.0.writers.lock();
        writers.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").finish_non_exhaustive()
    }
}

fn name_of(owner: &ConsoleId) -> OsString {
    OsString::from(format!("{}-{}.json", owner.domain, owner.console))
}

/// What came back of the log with this state; `None`: nothing, or nobody can tell.
fn read(folder: &Folder, name: &OsStr, came: &mut HashMap<String, OwnedFd>) -> Option<StoredLog> {
    let state = match versioned::read::<LogState>(folder, name) {
        Ok(Some(state)) if state.version <= VERSION && name_of(&state.owner) == name => state,
        Ok(_) => return None,
        Err(error) => {
            debug!(error = %sentence(&error), "what was held of a log is not known");
            return None;
        }
    };
    let mut log = StoredLog {
        descriptors: HashMap::new(),
        state,
    };
    for descriptor in log.state.descriptors() {
        let Some(open) = came.remove(&descriptor.name) else {
            debug!(
                name = descriptor.name, log = %log.state.path.display(),
                "a held descriptor did not come back"
            );
            continue;
        };
        if id_of(&open) == Some(descriptor.id) {
            log.descriptors.insert(descriptor.name.clone(), open);
        } else {
            debug!(
                name = descriptor.name, log = %log.state.path.display(),
                "a descriptor came back that is not the one that was held"
            );
            // Given up with the others that belong to no log.
            came.insert(descriptor.name.clone(), open);
        }
    }
    let descriptors = &log.descriptors;
    let came = |name: &str| descriptors.contains_key(name);
    for generation in &mut log.state.generations {
        generation.files.retain(|file| came(&file.descriptor.name));
    }
    log.state.folder = log.state.folder.take().filter(|folder| came(&folder.name));
    let mut generations = log.state.generations.iter();
    generations.any(|log| !log.files.is_empty()).then_some(log)
}

fn id_of(open: &OwnedFd) -> Option<FileId> {
    let open = open.try_clone().ok_logged("it counts as another file")?;
    let stat = stat_open(&std::fs::File::from(open));
    stat.ok_logged("it counts as another file")
        .map(|stat| stat.id)
}
