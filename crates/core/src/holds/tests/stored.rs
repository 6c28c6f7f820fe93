//! A process ends, however it ends, and the next one holds what it held.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use super::*;
use crate::holds::stored::{DescriptorStore, Put, Stored};
use crate::ids::ConsoleName;

/// What the service manager does, in this process.
#[derive(Clone, Default)]
struct Manager {
    kept: Arc<Mutex<HashMap<String, OwnedFd>>>,
    room: Arc<Mutex<Option<usize>>>,
}

impl Manager {
    fn kept(&self) -> MutexGuard<'_, HashMap<String, OwnedFd>> {
        self.kept.lock().unwrap()
    }

    /// What the next process gets.
    fn descriptors(&self) -> Vec<(String, OwnedFd)> {
        let kept = self.kept();
        let copy = |(name, open): (&String, &OwnedFd)| (name.clone(), open.try_clone().unwrap());
        kept.iter().map(copy).collect()
    }
}

impl DescriptorStore for Manager {
    fn put(&self, name: &str, descriptor: BorrowedFd<'_>) -> Put {
        let room = *self.room.lock().unwrap();
        if room.is_some_and(|room| self.kept().len() >= room) {
            return Put::Full;
        }
        let copy = descriptor.try_clone_to_owned().unwrap();
        let before = self.kept().insert(name.to_owned(), copy);
        assert!(before.is_none(), "{name} is there already");
        Put::Kept
    }

    fn remove(&self, name: &str) {
        self.kept().remove(name);
    }
}

/// A host whose agent starts again and again.
struct Host {
    dir: tempfile::TempDir,
    path: PathBuf,
    manager: Manager,
}

const DOMAIN: Uuid = Uuid::from_u128(7);

fn console() -> ConsoleName {
    "serial0".parse().unwrap()
}

impl Host {
    fn new() -> Self {
        let dir = crate::testing::folder();
        let path = dir.path().join("vm/console.log");
        fs::create_dir(dir.path().join("vm")).unwrap();
        Self {
            dir,
            path,
            manager: Manager::default(),
        }
    }

    fn write(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new();
        let file = file.append(true).create(true);
        let mut file = file.open(self.path.with_file_name(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn states(&self) -> usize {
        fs::read_dir(self.state().join("held")).unwrap().count()
    }

    fn stored(&self) -> Stored {
        let store = Box::new(self.manager.clone());
        Stored::open(&self.state(), store, self.manager.descriptors()).unwrap()
    }

    /// A process that starts and holds the log as the agent does.
    fn start(&self) -> (HeldLog, Receiver<Notice>) {
        let stored = self.stored();
        let holds = Holds::start(Arc::new(NoWriters), AT_ONCE).unwrap();
        let holds = holds.storing(stored.clone());
        let log = match stored.take(DOMAIN, &console()) {
            Some(log) => {
                assert_eq!(log.path(), self.path);
                let (folder, base) = log.folder().unwrap();
                let chain = LogChain::beneath(folder, base, NumberingChoice::FromZero);
                holds.resume(log, chain.unwrap(), AT_ONCE).unwrap()
            }
            None => hold(&holds, &self.path),
        };
        assert_eq!(stored.waiting(), []);
        let notices = log.notices();
        (log, notices)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.manager.kept().keys().cloned().collect();
        names.sort();
        names
    }
}

#[test]
fn a_folder_that_is_removed_while_nobody_holds_it_takes_nothing() {
    let host = Host::new();
    host.write("console.log.0", "one ");
    host.write("console.log", "two ");
    let (log, _) = host.start();
    assert_eq!(host.names(), ["log-0", "log-1", "log-2"]);
    drop(log);
    fs::remove_dir_all(host.path.parent().unwrap()).unwrap();

    let (log, mut notices) = host.start();
    assert_eq!(told(&mut notices), [Notice::Gone]);
    assert_eq!(taken(&log), "one two ");
    assert!(log.is_gone());
    assert_eq!(host.names(), ["log-0", "log-1", "log-2"]);
    drop(log);

    // Again, and then a new log lies there.
    let (log, mut notices) = host.start();
    assert_eq!(told(&mut notices), [Notice::Gone]);
    drop(log);
    fs::create_dir(host.path.parent().unwrap()).unwrap();
    host.write("console.log", "three");
    let (log, mut notices) = host.start();
    let wiped = Notice::Wiped { generation: 0 };
    assert_eq!(told(&mut notices), [wiped]);
    assert_eq!(taken(&log), "three");
    let outbox = Outbox::of(&host.state());
    let put = || log.put_down_earlier(0, None, &outbox).unwrap();
    let KeepOutcome::PutDown(entry) = put() else {
        panic!("it is put down");
    };
    assert_eq!(read(&entry.path), b"one two ");
    // Whoever is killed before it lets go does not put it down twice.
    assert_eq!(put(), KeepOutcome::PutDown(entry));
    assert!(log.forget(0));
    assert_eq!(host.names(), ["log-3", "log-4"]);
}

#[test]
fn what_was_wiped_while_nobody_held_it_is_an_earlier_log() {
    let host = Host::new();
    host.write("console.log", "first");
    drop(host.start());
    fs::remove_file(&host.path).unwrap();
    host.write("console.log", "second");

    let (log, mut notices) = host.start();
    assert_eq!(told(&mut notices), [Notice::Wiped { generation: 0 }]);
    assert_eq!((log.generation(), log.earlier().len()), (1, 1));
    // Killed before anybody saw to it: the next one sees to it.
    drop(log);
    let (log, mut notices) = host.start();
    assert_eq!(told(&mut notices), [Notice::Wiped { generation: 0 }]);
    assert_eq!(log.earlier()[0].bytes, 5);
    assert!(log.forget(0));
    drop(log);
    let (log, mut notices) = host.start();
    assert_eq!(told(&mut notices), []);
    assert_eq!((log.generation(), taken(&log).as_str()), (1, "second"));
}

#[test]
fn rollovers_change_what_is_stored_and_leave_nothing_behind() {
    let host = Host::new();
    let mut logd = Logd::new(&host.path, 100, 2);
    logd.open().unwrap();
    let (log, _) = host.start();
    for n in 0..60 {
        logd.write(format!("line {n:04}\n").as_bytes()).unwrap();
        log.look();
    }
    // Three files and their folder.
    assert_eq!((log.files().len(), host.names().len()), (3, 4));
    let before = taken(&log);
    drop(log);
    logd.write(b"and rolled over while nobody looked").unwrap();
    let (log, _) = host.start();
    let all = taken(&log);
    assert!(
        all.ends_with("line 0059\nand rolled over while nobody looked"),
        "{all}"
    );
    assert!(before.ends_with("line 0059\n"), "{before}");
    log.look();
    assert_eq!((log.files().len(), host.names().len()), (3, 4));
    log.let_go();
    log.look();
    assert_eq!((host.names().len(), host.states()), (0, 0));
}

#[test]
fn what_does_not_fit_together_is_given_up() {
    let host = Host::new();
    host.write("console.log.0", "one ");
    host.write("console.log", "two ");
    drop(host.start());
    // Another's file under the name of one of them; one that nobody knows.
    let other = fs::File::create(host.dir.path().join("other")).unwrap();
    for name in ["log-1", "log-9"] {
        let copy = OwnedFd::from(other.try_clone().unwrap());
        host.manager.kept().insert(name.to_owned(), copy);
    }
    let (log, _) = host.start();
    assert_eq!(taken(&log), "one two ");
    assert_eq!(host.names(), ["log-0", "log-10", "log-2"]);
    drop(log);
    // The store was emptied, as by a reboot.
    host.manager.kept().clear();
    assert_eq!(host.stored().waiting(), []);
    assert_eq!(host.states(), 0);
    // And a state that is damaged.
    drop(host.start());
    let file = fs::read_dir(host.state().join("held")).unwrap();
    let file = file.into_iter().next().unwrap().unwrap().path();
    fs::write(&file, "{}").unwrap();
    assert_eq!(host.stored().waiting(), []);
    assert_eq!((host.names().len(), host.states()), (0, 0));
}

#[test]
fn a_store_that_is_full_keeps_what_it_has() {
    let host = Host::new();
    *host.manager.room.lock().unwrap() = Some(2);
    host.write("console.log.0", "one ");
    host.write("console.log", "two ");
    let (log, _) = host.start();
    assert_eq!((host.names().len(), taken(&log).as_str()), (2, "one two "));
    drop(log);
    let (log, _) = host.start();
    assert_eq!(taken(&log), "one two ");
    *host.manager.room.lock().unwrap() = None;
    log.look();
    assert_eq!(host.names().len(), 3);
}

#[test]
fn a_log_that_nobody_wants_is_discarded() {
    let host = Host::new();
    host.write("console.log", "text");
    drop(host.start());
    let stored = host.stored();
    assert_eq!(stored.waiting().len(), 1);
    let log = stored.take(DOMAIN, &console()).unwrap();
    stored.discard(log);
    assert_eq!((host.names().len(), host.states()), (0, 0));
}

/// As version 1 wrote it: whatever changes, this is read.
#[test]
fn an_old_state_is_read() {
    let host = Host::new();
    host.write("console.log", "text");
    drop(host.start());
    let file = fs::read_dir(host.state().join("held")).unwrap();
    let file = file.into_iter().next().unwrap().unwrap().path();
    let id = |path: &Path| {
        let open = fs::File::open(path).unwrap();
        serde_json::to_string(&crate::folder::stat_open(&open).unwrap().id).unwrap()
    };
    let (folder, base) = (id(host.path.parent().unwrap()), id(&host.path));
    let path = host.path.display();
    let owner = r#"["00000000-0000-0000-0000-000000000007","serial0"]"#;
    let record = fs::read_to_string(&file).unwrap();
    let record = record.split_once(r#""record":"#).unwrap().1;
    let record = record.split_once(r#","committed""#).unwrap().0;
    let json = format!(
        r#"{{"version":1,"owner":{owner},"path":"{path}","folder":{{"name":"log-0","id":{folder}}},"generations":[{{"number":3,"files":[{{"descriptor":{{"name":"log-1","id":{base}}},"name":"console.log","is_named":true}}],"record":{record},"committed":null,"is_received":false}}]}}"#
    );
    let digest = blake3::hash(json.as_bytes()).to_hex();
    fs::write(&file, format!("{json}\n{digest}\n")).unwrap();
    let (log, _) = host.start();
    assert_eq!((log.generation(), taken(&log).as_str()), (3, "text"));
}
