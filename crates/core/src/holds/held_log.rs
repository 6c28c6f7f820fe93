//! What the owner of a held log can ask for.
//!
//! Must not know: what is held when.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::generation::{EarlierLog, FileStatus};
use super::log::{Log, Looked};
use super::notice::Notice;
use super::{Error, Result, Thread};
use crate::OkLogged as _;
use crate::chain;
use crate::follow;
use crate::handoff::offer::Held;
use crate::ids::{ConsoleName, HandoffId};
use crate::outbox::{EndedBoot, KeepOutcome, Kept, Outbox};
use crate::pause::pause;
use crate::record::{self, Record};

/// How often a log is looked at whose names change, before what is held is taken for it.
const TRIES: u32 = 50;

/// The longest pause between two tries; all of them together take less than 100 ms.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// A log that is held. Dropped, it lets go.
///
/// What is asked of it blocks on files: async code asks on a thread for such work.
pub struct HeldLog {
    log: Arc<Log>,
    thread: Arc<Thread>,
}

impl HeldLog {
    pub(super) fn new(log: Arc<Log>, thread: Arc<Thread>) -> Self {
        Self { log, thread }
    }

    /// Whose log it is.
    #[must_use]
    pub fn domain(&self) -> Uuid {
        self.log.owner.domain
    }

    /// Which console's.
    #[must_use]
    pub fn console(&self) -> &ConsoleName {
        &self.log.owner.console
    }

    /// Where its base is, or will be again.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.log.state().chain.path()
    }

    /// Looks at the names now, and holds what came: for whoever knows that something
    /// happened, or cannot wait some milliseconds.
    pub fn look(&self) {
        self.look_until_settled()
            .ok_logged("what is held stays held; the log is looked at again");
    }

    /// Holds the file that the guest's output really goes to, where that lost its name
    /// before this hold began. Whoever found it gives it open for reading. As long as the
    /// [`Writers`](crate::follow::Writers) say that it is written, it is the newest of the
    /// log, whatever lies at the path.
    ///
    /// # Errors
    /// [`Error::Follow`], where the file cannot be looked at.
    pub fn hold_nameless(&self, newest: File) -> Result<()> {
        let mut state = self.log.state();
        let held = state.hold_nameless(newest);
        let name = state.chain.base_name().to_owned();
        drop(state);
        held.map_err(|source| follow::Error::Read { name, source })?;
        self.look();
        Ok(())
    }

    /// The number of the log that is at the path now, or was last. It grows with each wipe.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.log.state().current.number
    }

    /// The files of that log that are held, oldest first.
    #[must_use]
    pub fn files(&self) -> Vec<FileStatus> {
        self.log.state().current.status()
    }

    /// How many bytes they have on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log.state().current.bytes()
    }

    /// How many bytes are held in files without a name; the newest file is not counted.
    #[must_use]
    pub fn unlinked_bytes(&self) -> u64 {
        self.log.state().unlinked()
    }

    /// Whether the path leads to no folder.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.log.state().is_gone()
    }

    /// Notices from now on; whoever asked before gets no more. Some wait for the owner, and
    /// nobody waits for him.
    #[must_use]
    pub fn notices(&self) -> mpsc::Receiver<Notice> {
        self.log.state().notices.subscribe()
    }

    /// The log as it is now, for a handoff: with what has lost its name, and without what
    /// was there before the last wipe. The hold goes on.
    ///
    /// # Errors
    /// [`Error::Follow`]: there is nothing, or descriptors are wanting.
    pub fn take(&self) -> Result<Held> {
        let shared = &self.thread.0;
        let mut tries = 0;
        loop {
            let mut state = self.log.state();
            let now = Instant::now();
            let looked = self
                .log
                .try_look(&mut state, &shared.watcher, &*shared.writers, now);
            let looked = looked.ok_logged("what is held is taken for the log");
            let is_settled = looked.is_none_or(|looked| looked.is_settled);
            tries += 1;
            if !is_settled && tries < TRIES {
                drop(state);
                wait(tries);
                continue;
            }
            let (chain, current) = (&state.chain, &state.current);
            let taken = if current.files.is_empty() {
                let path = chain.path();
                Err(follow::Error::from(chain::Error::NotFound { path }))
            } else {
                let follower = current.follower(chain, state.remarks.clone());
                follower.and_then(|follower| {
                    let record = Some(current.record.clone());
                    Held::of_follower(chain, follower, record, self.domain(), self.console())
                })
            };
            if let Ok(taken) = &taken {
                state.current.committed = taken.committed();
                state.current.is_received = false;
            }
            state.keep_newest();
            self.log.save(&mut state);
            drop(state);
            if let Some(looked) = looked {
                shared.after(self.log.key, looked);
            }
            return Ok(taken?);
        }
    }

    /// The destination has confirmed that it has what was committed as this handoff: what holds
    /// nothing else is [handed over](EarlierLog::is_handed_over), also where the record of it is
    /// gone.
    pub fn received(&self, handoff: HandoffId) {
        let mut state = self.log.state();
        let state = &mut *state;
        for log in state.earlier.iter_mut().chain([&mut state.current]) {
            let committed = log.committed.get();
            if committed.is_some_and(|committed| committed.handoff == handoff) {
                log.is_received = true;
            }
        }
        self.log.save(state);
    }

    /// Reads the record beside the log again: another process may have handed over what is held,
    /// and no name of the log changes then.
    ///
    /// # Errors
    /// The record's; what was known of it stays known.
    pub fn read_record(&self) -> Result<(), record::Error> {
        let mut state = self.log.state();
        let (folder, base) = (state.chain.folder(), state.chain.base_name());
        let there = Record::read(folder, base, self.domain(), self.console())?;
        let Some(offered) = there.and_then(|record| record.offered) else {
            return Ok(());
        };
        let state = &mut *state;
        for log in state.earlier.iter_mut().chain([&mut state.current]) {
            // Whether it is about the files of this log, they tell.
            log.record.offered = Some(offered.clone());
        }
        self.log.save(state);
        Ok(())
    }

    /// The logs that were wiped and are held still, the oldest first.
    #[must_use]
    pub fn earlier(&self) -> Vec<EarlierLog> {
        let state = self.log.state();
        state.earlier.iter().map(|log| log.earlier()).collect()
    }

    /// Puts an earlier log down, durably and whole, or as much of it as is kept where a boot of
    /// its VM `ended` it. It is held until [`HeldLog::forget`].
    ///
    /// # Errors
    /// [`Error::NoGeneration`], [`Error::Outbox`].
    pub fn put_down_earlier(
        &self,
        generation: u64,
        ended: Option<EndedBoot>,
        outbox: &Outbox,
    ) -> Result<KeepOutcome> {
        let state = self.log.state();
        let log = state.earlier.iter().find(|log| log.number == generation);
        let log = log.ok_or(Error::NoGeneration(generation))?;
        let (held, record) = (log.follower(&state.chain, Vec::new())?, log.record.clone());
        let offered = log.offered().cloned();
        drop(state);
        let kept = Kept {
            held,
            // The same bytes were handed over, perhaps: they keep that handoff's id.
            committed: offered.as_ref(),
            record: &record,
        };
        Ok(kept.put_as_it_is((None, ended), outbox)?)
    }

    /// Puts the present log down as [`Keeper::put_down`](crate::outbox::Keeper::put_down)
    /// does: where its files are not found any more, or are `about_to_go`. Waits half a
    /// minute at most until nobody writes it. The hold goes on.
    ///
    /// # Errors
    /// [`Error::Outbox`].
    pub fn put_down(&self, about_to_go: bool, outbox: &Outbox) -> Result<KeepOutcome> {
        let state = self.log.state();
        let (path, record) = (state.chain.path(), state.current.record.clone());
        let held = state.current.follower(&state.chain, Vec::new())?;
        let offered = state.current.offered().cloned();
        drop(state);
        let kept = Kept {
            held,
            committed: offered.as_ref(),
            record: &record,
        };
        Ok(kept.put_down(&path, about_to_go, Some(&*self.thread.0.writers), outbox)?)
    }

    /// Lets go of an earlier log: it is elsewhere, or nobody wants it. Says whether it was
    /// held.
    pub fn forget(&self, generation: u64) -> bool {
        let mut state = self.log.state();
        let count = state.earlier.len();
        state.earlier.retain(|log| log.number != generation);
        let was_held = state.earlier.len() < count;
        self.log.save(&mut state);
        was_held
    }

    /// Nobody wants this log any more: what is [stored](super::Stored) of it goes too. A log
    /// that is only dropped is held again by the process that starts next.
    pub fn let_go(&self) {
        self.log.state().unsave(self.log.key, &self.log.owner);
    }

    /// Looks, whether that succeeds or not: what was held before is held in any case.
    pub(super) fn look_once(&self) {
        let shared = &self.thread.0;
        let mut state = self.log.state();
        let now = Instant::now();
        let looked = self
            .log
            .look(&mut state, &shared.watcher, &*shared.writers, now);
        drop(state);
        shared.after(self.log.key, looked);
    }

    /// Whether all of the present log was handed over, and the destination has confirmed that
    /// it has it.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.log.state().current.is_handed_over()
    }

    /// Looks until names are at rest, or for a while.
    pub(super) fn look_until_settled(&self) -> Result<Looked> {
        let shared = &self.thread.0;
        let mut tries = 0;
        loop {
            let now = Instant::now();
            let mut state = self.log.state();
            let looked = self
                .log
                .try_look(&mut state, &shared.watcher, &*shared.writers, now);
            state.keep_newest();
            let mut looked = looked?;
            let again = self.log.save(&mut state);
            looked.again = looked.again.into_iter().chain(again).min();
            drop(state);
            tries += 1;
            if looked.is_settled || tries >= TRIES {
                shared.after(self.log.key, looked);
                return Ok(looked);
            }
            wait(tries);
        }
    }
}

/// Not one length for all: what happens every millisecond would be met again and again.
fn wait(tries: u32) {
    let time = Duration::from_micros(40).saturating_mul(tries);
    pause(time.min(PAUSE_MAX));
}

impl Drop for HeldLog {
    fn drop(&mut self) {
        self.thread.0.remove(self.log.key);
    }
}

impl fmt::Debug for HeldLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldLog")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}
