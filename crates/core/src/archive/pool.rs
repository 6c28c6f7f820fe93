//! What many streamers in one process share, so that a thousand logs cost one thread and a
//! bounded amount of memory.
//!
//! The one thread of the pool looks at each log once a second: at two inodes, and at nothing
//! else. Names that change in a log's folder wake it at once (one inotify descriptor serves all
//! folders), and it takes hold of the files that came. So a rollover takes nothing away, however
//! long the transport does not answer, and a guest that prints wakes nobody by that alone.
//!
//! A log that has news is read by its own task, on a thread of the runtime, when it has a turn
//! and memory.
//!
//! Must not know: transports, batches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use super::tap::BLOCK;
use crate::OkLogged as _;
use crate::live::{Live, News};
use crate::offsets::Result;
use crate::pause::pause;
use crate::stream::StreamOffset;

/// Time between two looks at a log.
const LOOK: Duration = Duration::from_secs(1);

/// In one of so many looks a log is read even if nothing seems to have changed.
const ANYWAY: u64 = 60;

/// A rollover is several changes of names: they are waited for.
const SETTLE: Duration = Duration::from_millis(5);

/// A poll that failed is tried again after this.
const FAILED: Duration = Duration::from_secs(1);

/// Events that are read at once.
const BUFFER: usize = 16 << 10;

/// Files that come. Not MODIFY: a guest that prints wakes nobody.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);

/// Memory is counted in these.
const UNIT: usize = 1 << 10;

/// What streamers with one [`StreamPool`] take together. Files are not counted: each log has one
/// open, and at most 64 while its transport does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Bytes that were read and are not put yet, each counted twice: its batch is packed beside
    /// it.
    pub memory: usize,
    /// Calls of the transport under way.
    pub calls: usize,
    /// Threads that read logs.
    pub reads: usize,
    /// Logs whose past is read at once, at the start of their streams.
    pub starts: usize,
}

impl Default for PoolLimits {
    /// 32 MiB, 32 calls, 4 threads that read what is new and 4 that read what was there before.
    fn default() -> Self {
        Self {
            memory: 32 << 20,
            calls: 32,
            reads: 4,
            starts: 4,
        }
    }
}

/// What streamers share. The thread ends with it.
#[derive(Debug)]
pub struct StreamPool {
    shared: Arc<Shared>,
    memory: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    starts: Arc<Semaphore>,
}

impl StreamPool {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread or no descriptor left.
    pub fn start(limits: PoolLimits) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new()?);
        let works = Arc::clone(&shared);
        let thread = thread::Builder::new().name("logchain-streams".to_owned());
        thread.spawn(move || works.run())?;
        let semaphore = |count: usize| Arc::new(Semaphore::new(count.clamp(1, 1 << 20)));
        // Less than a block or two would hold up everybody for ever.
        let memory = limits.memory.max(8 * BLOCK).div_ceil(UNIT);
        Ok(Self {
            shared,
            memory: semaphore(memory),
            calls: semaphore(limits.calls),
            reads: semaphore(limits.reads),
            starts: semaphore(limits.starts),
        })
    }

    /// Waits for memory for a block.
    pub(super) async fn memory(&self) -> Memory {
        let some = Arc::clone(&self.memory).acquire_many_owned(cost(BLOCK));
        // It is never closed.
        Memory(some.await.ok())
    }

    /// Waits until one call of the transport more may be made; it may for as long as what this
    /// gives lives.
    pub(super) async fn call(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.calls).acquire_owned().await.ok()
    }

    /// The same for reading the past of a log.
    pub(super) async fn start_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.starts).acquire_owned().await.ok()
    }

    /// Looks at a log from now on, for as long as what this gives lives.
    pub(super) fn add(&self, live: Live) -> PooledLog {
        let (key, slot) = self.shared.add(live);
        PooledLog {
            shared: Arc::clone(&self.shared),
            reads: Arc::clone(&self.reads),
            key,
            slot,
        }
    }
}

impl Drop for StreamPool {
    fn drop(&mut self) {
        self.shared.table().is_over = true;
        self.shared.wake();
    }
}

/// A share of the pool's memory, given back when it is dropped. None where there is no pool.
#[derive(Debug, Default)]
pub(super) struct Memory(Option<OwnedSemaphorePermit>);

impl Memory {
    pub(super) fn add(&mut self, more: Self) {
        match (&mut self.0, more.0) {
            (Some(own), Some(more)) => own.merge(more),
            (own, more) => *own = own.take().or(more),
        }
    }

    /// Gives back what so many bytes do not need.
    pub(super) fn keep(&mut self, bytes: usize) {
        if let Some(own) = &mut self.0 {
            let most = usize::try_from(cost(bytes)).unwrap_or(usize::MAX);
            let surplus = own.num_permits().saturating_sub(most);
            drop(own.split(surplus));
        }
    }
}

/// What so many bytes take: they are packed beside themselves.
fn cost(bytes: usize) -> u32 {
    u32::try_from(bytes.saturating_mul(2).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// What a read found.
pub(super) enum Found {
    Bytes {
        offset: StreamOffset,
        bytes: Vec<u8>,
    },
    Missing {
        next: StreamOffset,
        size: Option<u64>,
    },
    Nothing,
}

/// A log that is looked at.
#[derive(Debug)]
pub(super) struct PooledLog {
    shared: Arc<Shared>,
    reads: Arc<Semaphore>,
    key: u64,
    slot: Arc<Slot>,
}

impl PooledLog {
    /// The next bytes, a block at the most.
    pub(super) async fn read(&self) -> Result<Found> {
        let turn = Arc::clone(&self.reads).acquire_owned().await;
        let slot = Arc::clone(&self.slot);
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut live = slot.live();
            let mut block = vec![0; BLOCK];
            Ok(match live.read(&mut block)? {
                News::Bytes(count) => {
                    block.truncate(count);
                    block.shrink_to_fit();
                    Found::Bytes {
                        offset: live.offset().saturating_sub(count as u64),
                        bytes: block,
                    }
                }
                News::Missing { size } => Found::Missing {
                    next: live.offset(),
                    size,
                },
                News::None => Found::Nothing,
            })
        });
        let read = read.await;
        read.unwrap_or_else(|e| match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => Ok(Found::Nothing),
        })
    }

    /// Waits until there may be something to read.
    pub(super) async fn news(&self) {
        self.slot.news.notified().await;
    }
}

impl Drop for PooledLog {
    fn drop(&mut self) {
        self.shared.remove(self.key);
    }
}

#[derive(Debug)]
struct Slot {
    base: OsString,
    live: Mutex<Live>,
    news: Notify,
}

impl Slot {
    fn live(&self) -> MutexGuard<'_, Live> {
        // A read that panicked took its stream with it.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes hold of files that came. `false`: it is being read just now.
    fn hold(&self) -> bool {
        match self.live.try_lock() {
            Ok(mut live) => {
                // Who reads it next meets the same error.
                let _ = live.hold().ok_logged("the log is read instead");
                self.news.notify_one();
                true
            }
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Poisoned(_)) => true,
        }
    }

    fn look(&self, anyway: bool) {
        if anyway || self.live.try_lock().is_ok_and(|live| live.may_have_news()) {
            self.news.notify_one();
        }
    }
}

/// What the thread and the logs share.
#[derive(Debug)]
struct Shared {
    /// `None` where the system gives no further one: then files are taken hold of at each look.
    notices: Option<OwnedFd>,
    wake: OwnedFd,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    logs: BTreeMap<u64, Arc<Slot>>,
    /// The logs in each folder that is watched.
    folders: HashMap<i32, Vec<u64>>,
    is_over: bool,
}

impl Table {
    /// The logs that a name in a folder may belong to.
    fn of_name(&self, folder: i32, name: &OsStr) -> impl Iterator<Item = u64> {
        let keys = self.folders.get(&folder).into_iter().flatten().copied();
        let is_its = |key: &u64| {
            let slot = self.logs.get(key);
            slot.is_some_and(|slot| name.as_bytes().starts_with(slot.base.as_bytes()))
        };
        keys.filter(is_its).collect::<Vec<_>>().into_iter()
    }
}

impl Shared {
    fn new() -> std::io::Result<Self> {
        let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        Ok(Self {
            notices: notices.ok_logged("streamed logs are looked at every second instead"),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            table: Mutex::default(),
        })
    }

    fn add(&self, live: Live) -> (u64, Arc<Slot>) {
        // Locked: a watch that the last log of a folder gives back at this moment is not ours.
        let mut table = self.table();
        let watch = self.notices.as_ref().and_then(|notices| {
            let watch = live.chain().folder().watch(notices, NAMES);
            let watch = watch.map_err(std::io::Error::from);
            watch.ok_logged("this log is looked at every second instead")
        });
        table.next = table.next.saturating_add(1);
        let key = table.next;
        let slot = Arc::new(Slot {
            base: live.chain().base_name().to_owned(),
            live: Mutex::new(live),
            news: Notify::new(),
        });
        if let Some(watch) = watch {
            table.folders.entry(watch).or_default().push(key);
        }
        table.logs.insert(key, Arc::clone(&slot));
        drop(table);
        // It may sleep without an end.
        self.wake();
        (key, slot)
    }

    fn remove(&self, key: u64) {
        let mut table = self.table();
        let removed = table.logs.remove(&key);
        let mut unused = Vec::new();
        table.folders.retain(|watch, keys| {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                unused.push(*watch);
            }
            !keys.is_empty()
        });
        for watch in unused {
            if let Some(notices) = &self.notices
                && let Err(error) = inotify::remove_watch(notices, watch)
            {
                // It went with its folder.
                debug!(%error, "a watch is gone already");
            }
        }
        drop(table);
        // Its files are closed while nobody waits.
        drop(removed);
    }

    fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        let written = rustix::io::write(&self.wake, &one).map_err(std::io::Error::from);
        written.ok_logged("the thread is awake, or wakes at its next look");
    }

    /// The thread.
    fn run(&self) {
        let mut next = Instant::now();
        let mut looks: u64 = 0;
        // Logs that were being read when files came.
        let mut again = BTreeSet::new();
        loop {
            let rest = {
                let table = self.table();
                if table.is_over {
                    return;
                }
                let rest = next.saturating_duration_since(Instant::now());
                let rest = (!table.logs.is_empty()).then_some(rest);
                let soon = (!again.is_empty()).then_some(SETTLE);
                soon.or(rest)
            };
            if self.wait(rest) {
                pause(SETTLE);
                self.came(&mut again);
            }
            again.retain(|key| {
                let slot = self.table().logs.get(key).map(Arc::clone);
                slot.is_some_and(|slot| !slot.hold())
            });
            if Instant::now() >= next {
                next = Instant::now() + LOOK;
                looks = looks.wrapping_add(1);
                self.look(looks);
            }
        }
    }

    /// Looks at all logs.
    fn look(&self, looks: u64) {
        let logs: Vec<_> = {
            let table = self.table();
            let logs = table.logs.iter();
            logs.map(|(key, slot)| (*key, Arc::clone(slot))).collect()
        };
        for (key, slot) in logs {
            if self.notices.is_none() {
                slot.hold();
            }
            slot.look(key.wrapping_add(looks).is_multiple_of(ANYWAY));
        }
    }

    /// Adds the logs of which files came.
    fn came(&self, logs: &mut BTreeSet<u64>) {
        let Some(notices) = &self.notices else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut events = Reader::new(notices, &mut buffer);
        let table = self.table();
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => break,
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                logs.extend(table.logs.keys());
            }
            if let Some(name) = event.file_name() {
                let name = OsStr::from_bytes(name.to_bytes());
                logs.extend(table.of_name(event.wd(), name));
            }
        }
    }

    /// Waits for events, and says whether there are any.
    fn wait(&self, rest: Option<Duration>) -> bool {
        let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(
            self.notices
                .as_ref()
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => pause(FAILED),
        }
        let has_events = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        // Woken once, however often that was asked for.
        let mut count = [0; 8];
        while rustix::io::read(&self.wake, &mut count).is_ok_and(|n| n > 0) {}
        has_events
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // What it holds is whole between any two of its changes.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
