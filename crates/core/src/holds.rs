//! Holds the logs of a whole host by their descriptors, all the time: an unlink, a wipe at
//! the next start, the removal of a VM's folder takes nothing.
//!
//! One thread and one inotify descriptor serve all logs, and only names are watched: a
//! guest that prints wakes nobody. `decide` says what a change of names means,
//! `log` is the one place that holds and lets go.
//!
//! Must not know: libvirt, migrations, why anybody wants the bytes.
//!
//! ```
//! use std::sync::Arc;
//! use logchain_core::chain::{LogChain, NumberingChoice};
//! use logchain_core::follow::NoWriters;
//! use logchain_core::holds::{Holds, Limits, Notice};
//! use logchain_core::outbox::{KeepOutcome, Outbox};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (folder, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! let path = folder.path().join("console.log");
//! std::fs::write(&path, "what the guest printed last")?;
//!
//! let holds = Holds::start(Arc::new(NoWriters), Limits::default())?;
//! let chain = LogChain::open(&path, NumberingChoice::Auto)?;
//! let log = holds.hold(chain, uuid::Uuid::new_v4(), "serial0".parse()?)?;
//!
//! // virtlogd wipes the log at the next start of the guest.
//! std::fs::remove_file(&path)?;
//! std::fs::write(&path, "booting")?;
//! log.look();
//! let earlier = log.earlier();
//! assert_eq!((earlier.len(), earlier[0].bytes), (1, 27));
//! assert_eq!(log.take()?.bytes(), 7);
//!
//! // What there was before goes where it can be offered, and is let go.
//! let outbox = Outbox::of(state.path());
//! let put = log.put_down_earlier(earlier[0].generation, None, &outbox)?;
//! assert!(matches!(put, KeepOutcome::PutDown(_)));
//! log.forget(earlier[0].generation);
//! assert!(log.earlier().is_empty());
//! # Ok(())
//! # }
//! ```

mod bounds;
mod decide;
mod due;
mod generation;
mod held_log;
mod log;
mod notice;
mod saved;
mod stored;
mod table;
#[cfg(test)]
mod tests;
mod watcher;
mod worker;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use uuid::Uuid;

pub use generation::{EarlierLog, FileStatus};
pub use held_log::HeldLog;
pub use notice::{Bound, Notice};
pub use stored::{DescriptorStore, Put, Stored, StoredLog, is_ours};

use crate::chain::LogChain;
use crate::follow::{self, Writers};
use crate::ids::{ConsoleId, ConsoleName};
use crate::outbox;
use log::Log;
use notice::Notices;
use saved::Saved;
use worker::Shared;

/// How much is held although nobody finds it by name any more. For each log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many earlier logs: each is what was wiped at one start or arrival of the guest.
    pub generations: usize,
    /// How many bytes of files without a name. The newest file of a log is not counted: its
    /// writer keeps it on the disk, whoever holds it.
    pub unlinked_bytes: u64,
    /// How long a file is held that lost its name without a rotation: whoever removes a log
    /// with all of its folder removes one file after the other.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            generations: 1,
            unlinked_bytes: 64 << 20,
            linger: Duration::from_secs(10),
        }
    }
}

/// Why a log could not be held, given or put down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The chain could not be opened: see to what it says, and hold it again.
    #[error(transparent)]
    Follow(#[from] follow::Error),
    /// The outbox did not take it; it is held still.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    /// The system gives no thread or descriptor: raise this process's limits.
    #[error("cannot start to hold logs: {0}")]
    Start(#[source] std::io::Error),
    /// Nothing of this number is held, or not any more.
    #[error("no log of generation {0} is held")]
    NoGeneration(u64),
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Holds many logs. A clone is the same; the last of them, and of the logs, ends the thread.
#[derive(Clone)]
pub struct Holds {
    thread: Arc<Thread>,
    limits: Limits,
    stored: Option<Stored>,
}

/// Ends the thread when nobody needs it any more.
struct Thread(Arc<Shared>);

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Holds {
    /// Starts the thread. `writers` is asked only where a log was replaced, whether the old
    /// one is written still.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn start(writers: Arc<dyn Writers>, limits: Limits) -> Result<Self> {
        let shared = Arc::new(Shared::new(writers).map_err(Error::Start)?);
        let runs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("holds".to_owned());
        // It ends by itself; nobody waits for it.
        thread.spawn(move || runs.run()).map_err(Error::Start)?;
        Ok(Self {
            thread: Arc::new(Thread(shared)),
            limits,
            stored: None,
        })
    }

    /// The descriptors of what is held from now on are kept for the process that starts next.
    #[must_use]
    pub fn storing(self, stored: Stored) -> Self {
        Self {
            stored: Some(stored),
            ..self
        }
    }

    /// Holds a log from now on, whether there is a file of it yet or not. The path that the
    /// chain's folder was opened by is looked at again whenever names change: another folder
    /// may come to lie there. Blocks on files.
    ///
    /// # Errors
    /// [`Error::Follow`], where its files cannot be opened.
    pub fn hold(&self, chain: LogChain, domain: Uuid, console: ConsoleName) -> Result<HeldLog> {
        self.hold_within(chain, domain, console, self.limits)
    }

    /// As [`Holds::hold`], with limits of its own.
    ///
    /// # Errors
    /// As [`Holds::hold`].
    pub fn hold_within(
        &self,
        chain: LogChain,
        domain: Uuid,
        console: ConsoleName,
        limits: Limits,
    ) -> Result<HeldLog> {
        let shared = &self.thread.0;
        let owner = ConsoleId::new(domain, console);
        let saved = self.stored.clone().map(Saved::new);
        let log = Arc::new(Log::new((shared.key(), owner), chain, limits, saved)?);
        let held = HeldLog::new(Arc::clone(&log), Arc::clone(&self.thread));
        // Before the first look: what happens during it is looked at.
        shared.add(&log);
        held.look_until_settled()?;
        Ok(held)
    }

    /// Holds a log that an earlier process held, as if this one had held it all along: what
    /// became of its names meanwhile is found now. Who asks for [`HeldLog::notices`] is told
    /// that, and of what was wiped before. `chain` is in [`StoredLog::folder`].
    ///
    /// # Errors
    /// [`Error::Follow`], where the chain's folder cannot be looked at.
    pub fn resume(&self, log: StoredLog, chain: LogChain, limits: Limits) -> Result<HeldLog> {
        let shared = &self.thread.0;
        let owner = ConsoleId::new(log.domain(), log.console().clone());
        let folder = log.folder_name();
        let (path, base) = (chain.folder().path(), chain.base_name());
        let (logs, names) = log.into_generations(path, base);
        let saved = self.stored.clone();
        let saved = saved.map(|stored| Saved::with(stored, names, folder));
        let log = Arc::new(Log::new((shared.key(), owner), chain, limits, saved)?);
        let mut state = log.state();
        state.notices = Notices::kept_for_first();
        state.resume(logs);
        drop(state);
        let held = HeldLog::new(Arc::clone(&log), Arc::clone(&self.thread));
        shared.add(&log);
        held.look_once();
        Ok(held)
    }
}
