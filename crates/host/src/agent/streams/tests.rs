use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::TryStreamExt as _;
use logchain_core::archive::{Archive, Part};
use logchain_core::transport::DirectoryTransport;

use super::*;
use crate::Event;

/// However busy the machine is.
const LONG: Duration = Duration::from_secs(60);

struct Bed {
    folder: tempfile::TempDir,
    streams: Streams,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Bed {
    fn new() -> Self {
        let warnings = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&warnings);
        let events = Events::to(move |event: &Event| {
            if let Event::Warning { reason } = event {
                heard.lock().unwrap().push(reason.clone());
            }
        });
        let metrics = Arc::new(Metrics::new(UNIX_EPOCH, false).unwrap());
        Self {
            folder: tempfile::tempdir().unwrap(),
            streams: Streams::new(metrics, events),
            warnings,
        }
    }

    fn section(&self, store: &str) -> config::Stream {
        config::Stream {
            to: Some(format!("file://{}/{store}", self.folder.path().display())),
            delay: Duration::from_millis(20),
            ..config::Stream::default()
        }
    }

    fn print(&self, log: &str, bytes: &str) {
        let path = self.folder.path().join(log);
        let mut log = fs::OpenOptions::new();
        let mut log = log.create(true).append(true).open(path).unwrap();
        log.write_all(bytes.as_bytes()).unwrap();
    }

    fn log(&self, console: &str, name: &str) -> ConsoleLog {
        ConsoleLog {
            console: console.parse().unwrap(),
            path: self.folder.path().join(name),
        }
    }

    fn here(&self, vm: &Vm, logs: &[(&str, &str)]) {
        let logs = logs.iter().map(|(console, name)| self.log(console, name));
        let numbering = NumberingChoice::FromZero;
        self.streams.here(vm.clone(), logs.collect(), numbering);
    }

    /// What the store has of a log.
    async fn stored(&self, store: &str, vm: &Vm, console: &str) -> String {
        let folder = self.folder.path().join(store);
        let Ok(store) = DirectoryTransport::open(Path::new(&folder)) else {
            return String::new();
        };
        let archive = Archive::new(Arc::new(store), vm.uuid, console.parse().unwrap());
        let Ok(parts) = archive.read(0, u64::MAX).await else {
            return String::new();
        };
        let parts: Vec<Part> = parts.try_collect().await.unwrap();
        let bytes = parts.into_iter().flat_map(|part| match part {
            Part::Bytes { bytes, .. } => bytes.to_vec(),
            Part::Missing { .. } => b"?".to_vec(),
        });
        String::from_utf8(bytes.collect()).unwrap()
    }

    async fn until_stored(&self, store: &str, vm: &Vm, console: &str, want: &str) {
        let wait = async {
            while self.stored(store, vm, console).await != want {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(LONG, wait).await;
        let found = self.stored(store, vm, console).await;
        assert!(waited.is_ok(), "{found:?}, {:?}", self.warnings());
    }

    async fn until_status(&self, is_it: impl Fn(&StreamsStatus) -> bool) {
        let wait = async {
            while !self.streams.status().is_some_and(|status| is_it(&status)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(LONG, wait).await;
        assert!(waited.is_ok(), "{:?}", self.streams.status());
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap().clone()
    }
}

fn vm(name: &str, uuid: u128) -> Vm {
    Vm {
        uuid: Uuid::from_u128(uuid),
        name: name.to_owned(),
    }
}

#[tokio::test]
async fn the_logs_that_are_wanted_are_streamed_while_their_domain_is_here() {
    let bed = Bed::new();
    let (web, db) = (vm("web", 1), vm("db", 2));
    for log in ["web.log", "web2.log", "db.log"] {
        bed.print(log, "one ");
    }
    // It was here before anything was to be streamed.
    bed.here(&web, &[("serial0", "web.log")]);
    assert_eq!(bed.streams.status(), None);
    let section = config::Stream {
        domains: vec!["w*".to_owned()],
        ..bed.section("store")
    };
    bed.streams.configure(&section);
    bed.here(&db, &[("serial0", "db.log")]);
    bed.until_stored("store", &web, "serial0", "one ").await;
    // A console that is plugged in.
    let both = [("serial0", "web.log"), ("console1", "web2.log")];
    bed.here(&web, &both);
    bed.until_stored("store", &web, "console1", "one ").await;
    bed.print("web.log", "two ");
    bed.until_stored("store", &web, "serial0", "one two ").await;
    let status = bed.streams.status().unwrap();
    assert_eq!((status.running, status.waiting), (2, 0));
    assert!(status.to.ends_with("/store"), "{status:?}");
    // Its last bytes are put after it has left.
    bed.print("web.log", "last");
    bed.streams.left(web.uuid);
    bed.until_status(|status| status.running == 0).await;
    assert_eq!(bed.stored("store", &web, "serial0").await, "one two last");
    assert_eq!(bed.streams.status().unwrap().bytes, 16);
    assert_eq!(bed.stored("store", &db, "serial0").await, "");
    assert_eq!(bed.warnings(), [""; 0]);
}

#[tokio::test]
async fn a_reload_starts_stops_and_moves_streams() {
    let bed = Bed::new();
    let vm = vm("vm", 1);
    bed.print("vm.log", "one ");
    bed.here(&vm, &[("serial0", "vm.log")]);
    let file = bed.folder.path().join("agent.toml");
    let write = |store: &str| {
        let to = bed.section(store).to.unwrap();
        fs::write(&file, format!("[stream]\nto = {to:?}\ndelay = 1\n")).unwrap();
    };
    fs::write(&file, "").unwrap();
    let config = Arc::new(Reloadable::open(&file).await.unwrap());
    let (streams, followed) = (bed.streams.clone(), Arc::clone(&config));
    let following = tokio::spawn(async move { streams.follow(&followed).await });
    assert_eq!(bed.streams.status(), None);
    write("a");
    assert!(config.reload().await.unwrap().needs_restart.is_empty());
    bed.until_stored("a", &vm, "serial0", "one ").await;
    write("b");
    config.reload().await.unwrap();
    bed.until_stored("b", &vm, "serial0", "one ").await;
    bed.until_status(|status| status.running == 1).await;
    bed.print("vm.log", "two");
    bed.until_stored("b", &vm, "serial0", "one two").await;
    assert_eq!(bed.stored("a", &vm, "serial0").await, "one ");
    fs::write(&file, "").unwrap();
    config.reload().await.unwrap();
    let ended = async {
        while bed.streams.status().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, ended).await.unwrap();
    following.abort();
    tokio::time::timeout(LONG, bed.streams.end()).await.unwrap();
    // Nothing begins after the end.
    bed.streams.configure(&bed.section("c"));
    bed.here(&vm, &[("serial0", "vm.log")]);
    assert_eq!(bed.streams.status(), None);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "it takes the store away")]
async fn a_store_that_is_away_is_waited_for_and_told_once() {
    let bed = Bed::new();
    let vms: Vec<_> = (0..4).map(|n| vm(&format!("vm{n}"), n)).collect();
    // A file where the folder should be.
    bed.print("store", "");
    bed.streams.configure(&bed.section("store"));
    for vm in &vms {
        let log = format!("{}.log", vm.name);
        bed.print(&log, "text");
        bed.here(vm, &[("serial0", &log)]);
    }
    bed.until_status(|status| status.waiting == 4).await;
    bed.until_status(|status| status.trouble.is_some()).await;
    fs::remove_file(bed.folder.path().join("store")).unwrap();
    for vm in &vms {
        bed.until_stored("store", vm, "serial0", "text").await;
    }
    bed.until_status(|status| status.waiting == 0 && status.trouble.is_none())
        .await;
    let warnings = bed.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    // An end is bounded though the store is away again.
    for vm in &vms {
        bed.print(&format!("{}.log", vm.name), "more");
    }
    fs::rename(bed.folder.path().join("store"), bed.folder.path().join("s")).unwrap();
    bed.print("store", "");
    tokio::time::timeout(LONG, bed.streams.end()).await.unwrap();
}

#[tokio::test]
async fn a_stream_begins_once_the_history_of_its_domain_is_here() {
    let bed = Bed::new();
    let vm = vm("vm", 1);
    bed.print("vm.log", "here ");
    bed.streams.configure(&bed.section("store"));
    let arriving = bed.streams.arriving(vm.uuid);
    bed.here(&vm, &[("serial0", "vm.log")]);
    let again = bed.streams.arriving(vm.uuid);
    drop(arriving);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(bed.streams.status().unwrap().running, 0);
    drop(again);
    bed.until_stored("store", &vm, "serial0", "here ").await;
}

#[tokio::test]
async fn a_log_that_the_store_has_otherwise_is_told_and_left_alone() {
    let bed = Bed::new();
    let vm = vm("vm", 1);
    bed.print("vm.log", "one ");
    bed.streams.configure(&bed.section("store"));
    bed.here(&vm, &[("serial0", "vm.log")]);
    bed.until_stored("store", &vm, "serial0", "one ").await;
    // Another streamer, of another log of the same name.
    let store = DirectoryTransport::open(&bed.folder.path().join("store")).unwrap();
    let other = Archive::new(Arc::new(store), vm.uuid, "serial0".parse().unwrap());
    bed.print("other.log", "one another");
    let path = bed.folder.path().join("other.log");
    let chain = logchain_core::LogChain::open(&path, NumberingChoice::FromZero).unwrap();
    let (_ask, asked) = watch::channel(Ask::End);
    let streamer = logchain_core::archive::Streamer::new(other, chain);
    streamer.run(asked).await.unwrap();
    bed.print("vm.log", "two and more");
    bed.until_status(|status| status.running == 0).await;
    let warnings = bed.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("vm: serial0: "), "{warnings:?}");
    assert!(warnings[0].ends_with("it is streamed no further"));
    let stored = bed.stored("store", &vm, "serial0").await;
    assert_eq!(stored, "one another");
}
