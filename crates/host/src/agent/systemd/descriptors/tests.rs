use std::fs::{self, File};
use std::io::{IoSliceMut, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;
use crate::Event;

struct Bed {
    folder: tempfile::TempDir,
    manager: UnixDatagram,
    warned: Arc<Mutex<Vec<String>>>,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_nonblocking(true).unwrap();
        Self {
            folder,
            manager,
            warned: Arc::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    fn store(&self, room: Option<&str>, came: Came) -> (Descriptors, Came) {
        let warned = Arc::clone(&self.warned);
        let events = Events::to(move |event: &Event| {
            if let Event::Warning { reason } = event {
                warned.lock().unwrap().push(reason.clone());
            }
        });
        let path = self.path().into_os_string();
        let of = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(path.clone()),
            "FDSTORE" => room.map(Into::into),
            _ => None,
        };
        Descriptors::new(of, came, &events).unwrap().unwrap()
    }

    /// What the manager hears, and the descriptor that comes with it.
    fn heard(&self) -> Option<(String, Option<File>)> {
        let mut bytes = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.manager, &mut parts, &mut control, flags).ok()?;
        let descriptors = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => rights.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let mut files: Vec<File> = descriptors.map(File::from).collect();
        assert!(files.len() <= 1);
        let said = String::from_utf8(bytes[..got.bytes].to_vec()).unwrap();
        Some((said, files.pop()))
    }
}

#[test]
fn a_descriptor_goes_to_the_manager_with_its_name() {
    let bed = Bed::new();
    let (store, came) = bed.store(None, Vec::new());
    assert!(came.is_empty());
    let path = bed.folder.path().join("log");
    fs::write(&path, "all that it said").unwrap();
    let file = File::open(&path).unwrap();
    assert_eq!(store.put("log-7", file.as_fd()), Put::Kept);
    fs::remove_file(&path).unwrap();
    drop(file);
    let (said, file) = bed.heard().unwrap();
    assert_eq!(said, "FDSTORE=1\nFDNAME=log-7\nFDPOLL=0");
    let mut all = String::new();
    file.unwrap().read_to_string(&mut all).unwrap();
    assert_eq!(all, "all that it said");
    store.remove("log-7");
    let (said, file) = bed.heard().unwrap();
    assert_eq!(said, "FDSTOREREMOVE=1\nFDNAME=log-7");
    assert!(file.is_none() && bed.heard().is_none());
}

#[test]
fn room_is_counted_and_that_it_is_out_is_said_once() {
    let bed = Bed::new();
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let came = vec![
        ("log-3".to_owned(), null()),
        ("stored".to_owned(), null()),
        ("agent.socket".to_owned(), null()),
    ];
    let (store, came) = bed.store(Some("2"), came);
    assert_eq!(came.len(), 1, "the others are not ours");
    assert_eq!(store.put("log-4", null().as_fd()), Put::Kept);
    assert_eq!(store.put("log-5", null().as_fd()), Put::Full);
    assert_eq!(store.put("log-6", null().as_fd()), Put::Full);
    let warned = bed.warned.lock().unwrap().clone();
    assert!(
        warned[0].contains("no more than 2 descriptors"),
        "{warned:?}"
    );
    assert_eq!(warned.len(), 1);
    store.remove("log-3");
    assert_eq!(store.put("log-7", null().as_fd()), Put::Kept);
}

#[test]
fn a_manager_that_takes_nothing_holds_nobody_up() {
    let bed = Bed::new();
    let (store, _) = bed.store(None, Vec::new());
    let null = File::open("/dev/null").unwrap();
    let mut given = 0;
    let began = Instant::now();
    let refused = loop {
        match store.put(&format!("log-{given}"), null.as_fd()) {
            Put::Kept => given += 1,
            other => break other,
        }
    };
    assert_eq!(refused, Put::Later);
    // From now on nothing waits.
    let waited = Instant::now();
    assert_eq!(store.put("log-9999", null.as_fd()), Put::Later);
    store.remove("log-0");
    assert!(waited.elapsed() < WAIT, "{:?}", waited.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20));
    while bed.heard().is_some() {}
    // What could not be said is said as soon as the manager takes something again.
    store.kept().rests_until = None;
    assert_eq!(store.put("log-9999", null.as_fd()), Put::Kept);
    let said: Vec<_> = std::iter::from_fn(|| bed.heard())
        .map(|(said, _)| said)
        .collect();
    assert!(said[0].starts_with("FDSTOREREMOVE=1"), "{said:?}");
    assert!(said[1].contains("FDNAME=log-9999"), "{said:?}");
    // One that is gone harms nobody.
    drop(bed.manager);
    assert_eq!(store.put("log-10000", null.as_fd()), Put::Full);
    store.remove("log-10000");
}

#[test]
fn names_are_those_of_this_process() {
    let names = |pid: &str, count: &str, names: &str| {
        let of = |name: &str| {
            let value = match name {
                "LISTEN_PID" => pid,
                "LISTEN_FDS" => count,
                "LISTEN_FDNAMES" => names,
                _ => return None,
            };
            Some(value.into())
        };
        given_names(of, 7)
    };
    assert_eq!(names("7", "2", "log-1:log-2"), ["log-1", "log-2"]);
    assert_eq!(names("7", "2", "log-1"), ["log-1", ""]);
    assert_eq!(names("7", "1", "log-1:log-2"), ["log-1"]);
    assert_eq!(names("7", "nonsense", "log-1").len(), 0);
    assert_eq!(
        names("8", "1", "log-1").len(),
        0,
        "another process is meant"
    );
    assert_eq!(given_names(|_| None, 7).len(), 0);
    let most = names("7", "99999999999", "");
    assert_eq!(most.len(), MOST_TAKEN);
}

/// The names of all descriptors are in one variable of the next process.
#[test]
fn all_names_fit_into_one_variable() {
    let longest = format!("log-{}:", u32::MAX).len();
    assert!(MOST * longest + "LISTEN_FDNAMES=".len() < 128 << 10);
}

/// As systemd starts a process: descriptors from 3 on, which the shell opens here.
#[test]
fn a_process_takes_what_it_got_at_its_start() {
    const CHILD: &str = "LOGCHAIN_TEST_TAKES";
    if std::env::var_os(CHILD).is_some() {
        let (_, came) = Descriptors::from_env(&Events::ignored()).unwrap().unwrap();
        for (name, open) in came {
            let mut all = String::new();
            File::from(open).read_to_string(&mut all).unwrap();
            println!("got {name}: {all}");
        }
        // Once.
        let (_, again) = Descriptors::from_env(&Events::ignored()).unwrap().unwrap();
        println!("and {} again", again.len());
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.folder.path().join("one"), bed.folder.path().join("two"));
    fs::write(&one, "first").unwrap();
    File::create(&two).unwrap().write_all(b"second").unwrap();
    let script =
        "exec 3<\"$1\" 4<\"$2\"; rm \"$1\" \"$2\"; export LISTEN_PID=$$; shift 2; exec \"$@\"";
    let this = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&one, &two, &this])
        .args(["--exact", "--nocapture"])
        .arg("agent::systemd::descriptors::tests::a_process_takes_what_it_got_at_its_start")
        .env(CHILD, "1")
        .env("NOTIFY_SOCKET", bed.path())
        .env("LISTEN_FDS", "3")
        .env("LISTEN_FDNAMES", "log-1:log-2:log-3")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("got log-1: first\ngot log-2: second\nand 0 again"),
        "{said}"
    );
}
