//! The one inotify descriptor of all held logs: names only, never what is written.
//!
//! Must not know: what is done about an event.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tracing::debug;

use super::table::{Interest, Key, Table};
use crate::OkLogged as _;
use crate::folder::Folder;
use crate::record::Record;

/// No MODIFY: a guest that prints wakes nobody.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Read at once: some hundred events.
const BUFFER: usize = 16 << 10;

/// Watches the folders of held logs.
#[derive(Debug)]
pub(super) struct Watcher {
    /// `None` where the system gives no further one.
    notices: Option<OwnedFd>,
    table: Mutex<Table>,
}

/// Whether the system tells of all that happens to a log's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    All,
    /// Look again every now and then.
    NotAll,
}

/// What the events concern.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Concerned {
    /// These logs.
    pub(super) keys: Vec<Key>,
    /// All logs: some events were lost.
    pub(super) all: bool,
}

impl Watcher {
    pub(super) fn new() -> Self {
        let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        Self {
            notices: notices.ok_logged("held logs are looked at every few seconds instead"),
            table: Mutex::default(),
        }
    }

    /// What becomes readable when something happened.
    pub(super) fn notices(&self) -> Option<&OwnedFd> {
        self.notices.as_ref()
    }

    /// Begins to tell of the files of `base` in `folder`, and of its record.
    pub(super) fn watch_log(&self, key: Key, folder: &Folder, base: &OsStr) -> Told {
        let record = Interest::Name(Record::name(base));
        let interests = [Interest::Log(base.to_owned()), record];
        self.watch(key, folder, interests)
    }

    /// Begins to tell when a folder comes to lie at `path`.
    pub(super) fn watch_for_folder(&self, key: Key, path: &Path) -> Told {
        let Ok((parent, name)) = Folder::of_file(path) else {
            return Told::NotAll;
        };
        self.watch(key, &parent, [Interest::Name(name)])
    }

    fn watch(
        &self,
        key: Key,
        folder: &Folder,
        interests: impl IntoIterator<Item = Interest>,
    ) -> Told {
        let Some(notices) = &self.notices else {
            return Told::NotAll;
        };
        // Locked: a watch that the last one gives back at this moment is not ours.
        let mut table = self.table();
        let watched = folder.watch(notices, NAMES);
        let watched = watched.map_err(std::io::Error::from);
        let given_up = "this log is looked at every few seconds instead";
        let Some(watch) = watched.ok_logged(given_up) else {
            return Told::NotAll;
        };
        for interest in interests {
            table.add(watch, key, interest);
        }
        if folder.is_shared() {
            Told::NotAll
        } else {
            Told::All
        }
    }

    /// Tells nothing more of this log.
    pub(super) fn forget(&self, key: Key) {
        let mut table = self.table();
        for watch in table.remove(key) {
            if let Some(notices) = &self.notices
                && let Err(error) = inotify::remove_watch(notices, watch)
            {
                // It went with its folder.
                debug!(%error, "a watch is gone already");
            }
        }
    }

    /// Reads all events that there are now.
    pub(super) fn read(&self) -> Concerned {
        let mut concerned = Concerned::default();
        let Some(notices) = &self.notices else {
            return concerned;
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
                concerned.all = true;
                continue;
            }
            let name = event
                .file_name()
                .map(|name| OsStr::from_bytes(name.to_bytes()));
            concerned.keys.extend(match name {
                Some(name) => table.of_name(event.wd(), name),
                // The folder itself.
                None => table.of_folder(event.wd()),
            });
        }
        drop(table);
        concerned.keys.sort_unstable();
        concerned.keys.dedup();
        concerned
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // What it holds is whole between any two of its changes.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::chain::{LogChain, NumberingChoice};
    use crate::follow::NoWriters;
    use crate::holds::Limits;
    use crate::holds::log::{Log, SELDOM};
    use crate::ids::ConsoleId;

    struct Bed {
        dir: tempfile::TempDir,
        watcher: Watcher,
    }

    impl Bed {
        fn new() -> Self {
            let dir = crate::testing::folder();
            let watcher = Watcher::new();
            let folder = Folder::open(dir.path()).unwrap();
            for (key, base) in [(1, "one.log"), (2, "two.log")] {
                let told = watcher.watch_log(key, &folder, OsStr::new(base));
                assert_eq!(told, Told::All);
            }
            Self { dir, watcher }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn keys(&self) -> Vec<Key> {
            let concerned = self.watcher.read();
            assert!(!concerned.all);
            concerned.keys
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "renames as virtlogd makes them")]
    fn names_are_told_and_what_is_written_is_not() {
        let bed = Bed::new();
        let mut file = File::create(bed.path("one.log")).unwrap();
        assert_eq!(bed.keys(), [1]);
        file.write_all(b"text").unwrap();
        file.sync_all().unwrap();
        fs::read(bed.path("one.log")).unwrap();
        file.set_len(0).unwrap();
        drop(file);
        assert_eq!(bed.keys(), [] as [Key; 0]);
        fs::rename(bed.path("one.log"), bed.path("one.log.0")).unwrap();
        assert_eq!(bed.keys(), [1]);
        fs::write(bed.path(".two.log.logchain"), "").unwrap();
        fs::write(bed.path("other.log"), "").unwrap();
        assert_eq!(bed.keys(), [2]);
        bed.watcher.forget(1);
        fs::remove_file(bed.path("one.log.0")).unwrap();
        assert_eq!(bed.keys(), [] as [Key; 0]);
    }

    #[test]
    fn events_that_are_lost_concern_all() {
        let bed = Bed::new();
        let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
        let most: usize = most.unwrap().trim().parse().unwrap();
        if most > 1 << 20 {
            return; // it would take too long
        }
        for _ in 0..=most / 2 {
            fs::write(bed.path("one.log"), "").unwrap();
            fs::remove_file(bed.path("one.log")).unwrap();
        }
        assert!(bed.watcher.read().all);
        assert_eq!(bed.keys(), [] as [Key; 0]);
    }

    #[test]
    fn where_nothing_is_told_a_log_is_looked_at_every_few_seconds() {
        let dir = crate::testing::folder();
        let path = dir.path().join("console.log");
        fs::write(&path, "text").unwrap();
        for told in [true, false] {
            let watcher = Watcher {
                notices: Watcher::new().notices.filter(|_| told),
                table: Mutex::default(),
            };
            let chain = LogChain::open(&path, NumberingChoice::FromZero).unwrap();
            let owner = ConsoleId::new(uuid::Uuid::from_u128(7), "serial0".parse().unwrap());
            let log = Arc::new(Log::new((1, owner), chain, Limits::default(), None).unwrap());
            let looked = log.look(&mut log.state(), &watcher, &NoWriters, Instant::now());
            assert_eq!(looked.again, (!told).then_some(SELDOM));
            assert_eq!(SELDOM, Duration::from_secs(5));
        }
    }
}
