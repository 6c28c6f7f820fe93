mod busy;
mod handed_over;
mod random;
mod stored;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;
use crate::chain::NumberingChoice;
use crate::follow::NoWriters;
use crate::outbox::{KeepOutcome, Outbox};
use crate::pause::pause;
use crate::record::Record;
use crate::testing::{FakeWriters, Logd, Switch, numbered, read};
use tokio::sync::mpsc::Receiver;

/// No file waits to be let go: what a test removes is gone at the next look.
const AT_ONCE: Limits = Limits {
    generations: 2,
    unlinked_bytes: 1 << 20,
    linger: Duration::ZERO,
};

/// A VM's folder in a host's, and a hold on its log.
struct Bed {
    dir: tempfile::TempDir,
    path: PathBuf,
    holds: Holds,
    log: HeldLog,
}

impl Bed {
    fn new(limits: Limits) -> Self {
        Self::with(Arc::new(NoWriters), limits)
    }

    fn with(writers: Arc<dyn Writers>, limits: Limits) -> Self {
        let dir = crate::testing::folder();
        let path = dir.path().join("vm/console.log");
        fs::create_dir(dir.path().join("vm")).unwrap();
        let holds = Holds::start(writers, limits).unwrap();
        let log = hold(&holds, &path);
        Self {
            dir,
            path,
            holds,
            log,
        }
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new();
        let file = file.append(true).create(true);
        let mut file = file.open(self.path.with_file_name(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        let path = |name: &str| self.path.with_file_name(name);
        rename(&path(from), &path(to));
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path.with_file_name(name)).unwrap();
    }

    fn taken(&self) -> String {
        taken(&self.log)
    }

    fn outbox(&self) -> Outbox {
        Outbox::of(&self.dir.path().join("state"))
    }

    /// What the earlier log of this number holds.
    fn earlier(&self, generation: u64) -> String {
        let outbox = self.outbox();
        let put = self
            .log
            .put_down_earlier(generation, None, &outbox)
            .unwrap();
        let KeepOutcome::PutDown(entry) = put else {
            return String::new();
        };
        let all = String::from_utf8(read(&entry.path)).unwrap();
        outbox.remove(&entry).unwrap();
        all
    }
}

fn hold(holds: &Holds, path: &Path) -> HeldLog {
    let chain = LogChain::open(path, NumberingChoice::FromZero).unwrap();
    let console = "serial0".parse().unwrap();
    holds.hold(chain, Uuid::from_u128(7), console).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "renames as others make them")]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

fn taken(log: &HeldLog) -> String {
    let (mut follower, _) = log.take().unwrap().into_parts();
    let mut all = Vec::new();
    while let Some(piece) = follower.next(100, true).unwrap() {
        all.extend(piece.bytes);
    }
    assert_eq!(follower.missed(), []);
    String::from_utf8(all).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        pause(Duration::from_millis(2));
    }
}

fn told(notices: &mut Receiver<Notice>) -> Vec<Notice> {
    let mut told = Vec::new();
    while let Ok(notice) = notices.try_recv() {
        told.push(notice);
    }
    told
}

fn names(log: &HeldLog) -> Vec<(String, bool)> {
    let files = log.files().into_iter();
    let name = |file: FileStatus| (file.name.into_string().unwrap(), file.is_named);
    files.map(name).collect()
}

#[test]
fn a_rollover_is_followed_without_being_asked() {
    let bed = Bed::new(AT_ONCE);
    let mut logd = Logd::new(&bed.path, 100, 2);
    logd.open().unwrap();
    logd.write(b"one\n").unwrap();
    until("the base is held", || bed.log.bytes() == 4);
    let mut notices = bed.log.notices();
    for n in 0..4 {
        logd.roll_over().unwrap();
        logd.write(format!("{n}\n").as_bytes()).unwrap();
        let files = (n + 2).min(3);
        until("the new base is held", || {
            let held = bed.log.files();
            held.len() == files && held.last().is_some_and(|file| file.size == 2)
        });
    }
    assert_eq!(bed.taken(), "1\n2\n3\n");
    assert_eq!(bed.log.unlinked_bytes(), 0);
    let told = told(&mut notices);
    assert!(
        !told.is_empty() && told.iter().all(|notice| *notice == Notice::Rotated),
        "{told:?}"
    );
}

#[test]
fn a_look_between_any_two_steps_of_a_rollover_changes_nothing() {
    let bed = Bed::new(AT_ONCE);
    let mut logd = Logd::new(&bed.path, 100, 2).with_lines(|n| format!("{n}\n"));
    logd.open().unwrap();
    logd.write_line();
    for _ in 0..5 {
        logd.begin_rollover();
        loop {
            bed.log.look();
            assert_eq!(bed.taken().into_bytes(), read(&bed.path));
            if !logd.step() {
                break;
            }
        }
    }
    assert_eq!(bed.taken(), "3\n4\n5\n");
    assert!(bed.log.earlier().is_empty());
}

#[test]
fn a_wiped_log_is_an_earlier_one() {
    let bed = Bed::new(AT_ONCE);
    let mut notices = bed.log.notices();
    let mut logd = Logd::new(&bed.path, 100, 2);
    for boot in ["first", "second", "third", "fourth"] {
        logd.wipe();
        logd.open().unwrap();
        logd.write(format!("{boot} ").as_bytes()).unwrap();
        logd.roll_over().unwrap();
        logd.write(boot.as_bytes()).unwrap();
        bed.log.look();
    }
    assert_eq!(bed.taken(), "fourth fourth");
    let earlier: Vec<_> = bed.log.earlier().iter().map(|log| log.generation).collect();
    assert_eq!(earlier, [1, 2]);
    assert_eq!(
        (bed.earlier(1), bed.earlier(2)),
        ("second second".into(), "third third".into())
    );
    assert!(matches!(
        bed.log.put_down_earlier(0, None, &bed.outbox()),
        Err(Error::NoGeneration(0))
    ));
    let told = told(&mut notices);
    for generation in 0..3 {
        assert!(told.contains(&Notice::Wiped { generation }), "{told:?}");
    }
    let (bytes, why) = (11, Bound::Generations);
    assert!(told.contains(&Notice::LetGo { bytes, why }), "{told:?}");
    assert!(bed.log.forget(1) && !bed.log.forget(1));
    assert_eq!(bed.log.unlinked_bytes(), 11);
    bed.log.forget(2);
    assert_eq!(bed.log.unlinked_bytes(), 0);
}

#[test]
fn a_wipe_is_seen_without_being_asked() {
    let bed = Bed::new(Limits::default());
    bed.append("console.log", "before");
    until("it is held", || bed.log.bytes() == 6);
    bed.remove("console.log");
    bed.append("console.log", "after");
    until("it is an earlier one", || bed.log.earlier().len() == 1);
    assert_eq!(
        (bed.taken(), bed.earlier(0)),
        ("after".into(), "before".into())
    );
}

#[test]
fn an_empty_log_that_is_wiped_is_none() {
    let bed = Bed::new(AT_ONCE);
    bed.append("console.log", "");
    bed.log.look();
    bed.remove("console.log");
    bed.append("console.log", "text");
    bed.log.look();
    assert!(bed.log.earlier().is_empty());
    assert_eq!(bed.taken(), "text");
}

#[test]
fn a_log_that_lost_its_name_goes_on() {
    let bed = Bed::new(AT_ONCE);
    bed.append("console.log.0", "zero ");
    bed.append("console.log", "one ");
    bed.log.look();
    let mut guest = OpenOptions::new().append(true).open(&bed.path).unwrap();
    bed.remove("console.log");
    bed.log.look();
    guest.write_all(b"two").unwrap();
    assert_eq!(bed.taken(), "zero one two");
    let names = names(&bed.log);
    assert_eq!(
        names,
        [
            ("console.log.0".into(), true),
            ("console.log".into(), false)
        ]
    );
    // All of it; then virtlogd begins the next file.
    bed.remove("console.log.0");
    bed.log.look();
    assert_eq!(bed.taken(), "zero one two");
    bed.append("console.log", "three");
    bed.log.look();
    assert_eq!(
        (bed.taken(), bed.earlier(0)),
        ("three".into(), "zero one two".into())
    );
}

#[test]
fn whoever_writes_the_log_has_it_whatever_lies_at_its_path() {
    let written = Switch::default();
    let bed = Bed::with(Arc::new(FakeWriters::While(written.clone())), AT_ONCE);
    bed.append("console.log", "one ");
    bed.log.look();
    written.set(true);
    let mut guest = OpenOptions::new().append(true).open(&bed.path).unwrap();
    bed.remove("console.log");
    // The other host's, in a folder that both have.
    bed.append("console.log", "not ours");
    bed.log.look();
    guest.write_all(b"two").unwrap();
    assert_eq!(bed.taken(), "one two");
    assert!(bed.log.earlier().is_empty());
    written.set(false);
    until("it is over", || bed.log.earlier().len() == 1);
    assert_eq!(
        (bed.taken(), bed.earlier(0)),
        ("not ours".into(), "one two".into())
    );
}

/// The agent was not there when it lost its name.
#[test]
fn a_file_that_lost_its_name_before_is_held_as_the_newest() {
    let written = Switch::default();
    let bed = Bed::with(Arc::new(FakeWriters::While(written.clone())), AT_ONCE);
    bed.append("console.log.0", "zero ");
    bed.append("console.log", "one ");
    let newest = fs::File::open(&bed.path).unwrap();
    let mut guest = OpenOptions::new().append(true).open(&bed.path).unwrap();
    bed.remove("console.log");
    bed.append("console.log", "touched");
    let log = hold(&bed.holds, &bed.path);
    assert_eq!(taken(&log), "zero touched");
    written.set(true);
    log.hold_nameless(newest.try_clone().unwrap()).unwrap();
    log.hold_nameless(newest).unwrap();
    guest.write_all(b"two").unwrap();
    assert_eq!(taken(&log), "zero one two");
    assert!(log.earlier().is_empty());
    // virtlogd rolls over: what was touched is renamed with the rest.
    written.set(false);
    until("it is over", || log.earlier().len() == 1);
    assert_eq!(
        (taken(&log).as_str(), log.earlier()[0].bytes),
        ("zero touched", 7)
    );
}

#[test]
fn a_folder_that_goes_takes_nothing_and_one_that_comes_is_found() {
    let bed = Bed::new(AT_ONCE);
    let domain = bed.log.domain();
    bed.append("console.log.0", "zero ");
    bed.append("console.log", "one");
    bed.log.look();
    // What is remembered beside it goes along.
    let folder = crate::folder::Folder::open(bed.path.parent().unwrap()).unwrap();
    let base = std::ffi::OsStr::new("console.log");
    let id = crate::ids::HandoffId::random();
    let contain = |record: &mut Record| record.contain(&[id]);
    Record::update(&folder, base, domain, bed.log.console(), contain).unwrap();
    bed.log.look();
    let mut notices = bed.log.notices();
    fs::remove_dir_all(bed.path.parent().unwrap()).unwrap();
    until("it is gone", || bed.log.is_gone());
    let (mut follower, record) = bed.log.take().unwrap().into_parts();
    assert_eq!(record.contains, [id]);
    assert_eq!(follower.next(100, true).unwrap().unwrap().bytes, b"zero ");
    let put = bed.log.put_down(false, &bed.outbox()).unwrap();
    let KeepOutcome::PutDown(entry) = put else {
        panic!("{put:?}");
    };
    assert_eq!(read(&entry.path), b"zero one");

    fs::create_dir(bed.path.parent().unwrap()).unwrap();
    until("it is back", || !bed.log.is_gone());
    assert_eq!(bed.taken(), "zero one");
    bed.append("console.log", "two");
    until("the new log is held", || !bed.log.earlier().is_empty());
    assert_eq!(
        (bed.taken(), bed.earlier(0)),
        ("two".into(), "zero one".into())
    );
    let told = told(&mut notices);
    assert_eq!(
        told,
        [Notice::Gone, Notice::Back, Notice::Wiped { generation: 0 }]
    );
    // And it is followed there.
    rename(&bed.path, &numbered(&bed.path, 0));
    bed.append("console.log", " three");
    until("its rollover is seen", || bed.log.files().len() == 2);
    assert_eq!(bed.taken(), "two three");
}

#[test]
fn a_folder_that_is_renamed_and_renamed_back_is_the_same() {
    let bed = Bed::new(AT_ONCE);
    bed.append("console.log", "one");
    bed.log.look();
    let away = bed.dir.path().join("vm_resize");
    rename(bed.path.parent().unwrap(), &away);
    until("it is gone", || bed.log.is_gone());
    assert_eq!(bed.taken(), "one");
    rename(&away, bed.path.parent().unwrap());
    until("it is back", || !bed.log.is_gone());
    bed.append("console.log", " two");
    assert_eq!(bed.taken(), "one two");
    assert!(bed.log.earlier().is_empty());
}

#[test]
fn whoever_removes_a_folder_file_by_file_takes_nothing() {
    let linger = Duration::from_millis(400);
    let bed = Bed::new(Limits { linger, ..AT_ONCE });
    for (name, text) in [
        ("console.log.1", "one "),
        ("console.log.0", "two "),
        ("console.log", "three"),
    ] {
        bed.append(name, text);
    }
    bed.log.look();
    bed.remove("console.log.1");
    bed.log.look();
    // As anybody reads it now.
    assert_eq!(bed.taken(), "two three");
    bed.remove("console.log.0");
    bed.log.look();
    bed.remove("console.log");
    bed.log.look();
    assert_eq!(bed.taken(), "one two three");

    // Removed by hand and nothing more: that is retention.
    bed.append("console.log", "four ");
    bed.append("console.log.0", "zero ");
    bed.log.look();
    assert!(bed.log.forget(0));
    bed.remove("console.log.0");
    bed.log.look();
    assert_eq!(bed.log.unlinked_bytes(), 5);
    until("it is let go", || bed.log.unlinked_bytes() == 0);
    assert_eq!(bed.taken(), "four ");
}

#[test]
fn what_is_compressed_is_held_as_what_it_is_now() {
    let bed = Bed::new(Limits {
        linger: Duration::from_secs(60),
        ..AT_ONCE
    });
    bed.append("console.log.0", "zero ");
    bed.append("console.log", "one");
    bed.log.look();
    let packed = zstd::bulk::compress(b"zero ", 1).unwrap();
    fs::write(bed.path.with_file_name("console.log.0.zst"), packed).unwrap();
    bed.log.look();
    bed.remove("console.log.0");
    bed.log.look();
    assert_eq!(bed.log.unlinked_bytes(), 0);
    assert_eq!(bed.taken(), "zero one");
    bed.rename("console.log", "console.log-20261127");
    bed.append("console.log", " two");
    assert_eq!(bed.taken().len(), 12);
}

#[test]
fn unlinked_bytes_are_bounded_and_the_oldest_go_first() {
    let bed = Bed::new(Limits {
        generations: 9,
        unlinked_bytes: 25,
        ..AT_ONCE
    });
    let mut notices = bed.log.notices();
    for boot in 0..4 {
        bed.append("console.log.0", &format!("old {boot}     "));
        bed.append("console.log", &format!("new {boot}     "));
        bed.log.look();
        bed.remove("console.log");
        bed.remove("console.log.0");
        bed.append("console.log", "next");
        bed.log.look();
        assert!(bed.log.unlinked_bytes() <= 25);
        bed.remove("console.log");
    }
    let last = bed.log.earlier();
    assert_eq!(last.iter().map(|log| log.bytes).sum::<u64>(), 20 + 4);
    let told = told(&mut notices);
    let let_go = |notice: &Notice| {
        matches!(
            notice,
            Notice::LetGo {
                why: Bound::Bytes,
                ..
            }
        )
    };
    assert!(told.iter().any(let_go), "{told:?}");
}

#[test]
fn descriptors_of_a_log_are_bounded_and_a_handoff_has_all() {
    let bed = Bed::new(AT_ONCE);
    for n in (0..100).rev() {
        bed.append(&format!("console.log.{n}"), &format!("{n} "));
    }
    bed.append("console.log", "end");
    bed.log.look();
    assert_eq!(bed.log.files().len(), 64);
    let mut notices = bed.log.notices();
    let all = bed.taken();
    assert_eq!(told(&mut notices), []);
    assert!(all.starts_with("99 98 ") && all.ends_with("0 end"), "{all}");
    assert_eq!(bed.log.files().len(), 64);
}

#[test]
fn logs_of_one_folder_are_told_apart_and_let_go_one_by_one() {
    let bed = Bed::new(AT_ONCE);
    bed.append("console.log", "one");
    let other = bed.path.with_file_name("other.log");
    fs::write(&other, "other").unwrap();
    let log = hold(&bed.holds, &other);
    assert_eq!(taken(&log), "other");
    drop(log);
    rename(&bed.path, &numbered(&bed.path, 0));
    bed.append("console.log", " two");
    until("it is followed", || bed.log.files().len() == 2);
    assert_eq!(bed.taken(), "one two");
}

/// The thread ends with the last log, not with the one who began to hold.
#[test]
fn a_log_is_held_as_long_as_it_is_wanted() {
    let dir = crate::testing::folder();
    let path = dir.path().join("console.log");
    let log = hold(&Holds::start(Arc::new(NoWriters), AT_ONCE).unwrap(), &path);
    fs::write(&path, "text").unwrap();
    until("it is held", || log.bytes() == 4);
}

#[test]
fn nothing_to_hold_is_nothing_to_take() {
    let bed = Bed::new(AT_ONCE);
    let error = bed.log.take().err().unwrap().to_string();
    assert!(error.starts_with("there is no console log"), "{error}");
    let put = bed.log.put_down(false, &bed.outbox());
    assert!(
        matches!(put, Ok(KeepOutcome::There | KeepOutcome::Empty)),
        "{put:?}"
    );
}
