//! The one thread of all held logs: it sleeps until names change or a look is due.
//!
//! Must not know: what a look decides.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::due::Due;
use super::log::{Log, Looked};
use super::table::Key;
use super::watcher::Watcher;
use crate::OkLogged as _;
use crate::follow::Writers;
use crate::pause::pause;

/// A poll that failed is tried again after this.
const FAILED: Duration = Duration::from_secs(1);

/// What the thread and the owners of logs share.
pub(super) struct Shared {
    pub(super) watcher: Watcher,
    pub(super) writers: Arc<dyn Writers>,
    logs: Mutex<Logs>,
    /// Wakes the thread.
    wake: OwnedFd,
}

#[derive(Default)]
struct Logs {
    next: Key,
    all: HashMap<Key, Arc<Log>>,
    due: Due,
    is_over: bool,
}

impl Shared {
    pub(super) fn new(writers: Arc<dyn Writers>) -> std::io::Result<Self> {
        Ok(Self {
            watcher: Watcher::new(),
            writers,
            logs: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// The key of a log that is to be held.
    pub(super) fn key(&self) -> Key {
        let mut logs = self.logs();
        logs.next = logs.next.saturating_add(1);
        logs.next
    }

    /// This log is looked at from now on whenever something happens to it.
    pub(super) fn add(&self, log: &Arc<Log>) {
        self.logs().all.insert(log.key, Arc::clone(log));
    }

    pub(super) fn remove(&self, key: Key) {
        self.watcher.forget(key);
        let mut logs = self.logs();
        logs.due.forget(key);
        let removed = logs.all.remove(&key);
        drop(logs);
        // Its files are closed while nobody waits.
        drop(removed);
    }

    /// Somebody looked at a log.
    pub(super) fn after(&self, key: Key, looked: Looked) {
        let now = Instant::now();
        let mut logs = self.logs();
        if !logs.all.contains_key(&key) {
            return; // removed meanwhile
        }
        let again = looked.again.and_then(|again| now.checked_add(again));
        if let Some(again) = again {
            let before = logs.due.rest(now);
            logs.due.at(key, again);
            let sooner = before != logs.due.rest(now);
            drop(logs);
            if sooner {
                self.wake();
            }
        }
    }

    /// The thread ends.
    pub(super) fn end(&self) {
        self.logs().is_over = true;
        self.wake();
    }

    fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        let written = rustix::io::write(&self.wake, &one).map_err(std::io::Error::from);
        written.ok_logged("the thread is awake, or wakes when its next look is due");
    }

    /// The thread.
    pub(super) fn run(&self) {
        while !self.logs().is_over {
            self.wait();
            let concerned = self.watcher.read();
            let now = Instant::now();
            let mut logs = self.logs();
            let keys: Vec<Key> = if concerned.all {
                logs.all.keys().copied().collect()
            } else {
                concerned.keys
            };
            for key in keys {
                if logs.all.contains_key(&key) {
                    logs.due.event(key, now);
                }
            }
            drop(logs);
            self.look();
        }
    }

    /// Looks at all logs that are due.
    fn look(&self) {
        loop {
            let now = Instant::now();
            let mut logs = self.logs();
            if logs.is_over {
                return;
            }
            let Some(key) = logs.due.next(now) else {
                return;
            };
            let log = logs.all.get(&key).map(Arc::clone);
            drop(logs);
            if let Some(log) = log {
                let looked = log.look(&mut log.state(), &self.watcher, &*self.writers, now);
                self.after(key, looked);
            }
        }
    }

    fn wait(&self) {
        let rest = self.logs().due.rest(Instant::now());
        let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(
            self.watcher
                .notices()
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => pause(FAILED),
        }
        // Woken once, however often that was asked for.
        let mut count = [0; 8];
        while rustix::io::read(&self.wake, &mut count).is_ok_and(|n| n > 0) {}
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        // What it holds is whole between any two of its changes.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
