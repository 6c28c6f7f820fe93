use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use super::*;
use crate::chain::Numbering;
use crate::follow::NoWriters;
use crate::ids::HandoffId;

/// A log, and a state folder.
struct World {
    dir: tempfile::TempDir,
    log: PathBuf,
    outbox: Outbox,
    record: Record,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("vm")).unwrap();
        Self {
            log: dir.path().join("vm/console.log"),
            outbox: Outbox::of(&dir.path().join("state")),
            record: Record::new(Uuid::from_u128(7), "serial0".parse().unwrap()),
            dir,
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.log.with_file_name(name), bytes).unwrap();
    }

    fn hold(&self) -> Follower {
        Follower::begin(&LogChain::open(&self.log, NumberingChoice::FromZero).unwrap()).unwrap()
    }

    fn keep(&self) -> Keeper {
        let (record, committed) = (self.record.clone(), Arc::<OnceLock<Offered>>::default());
        Keeper::start(self.hold(), record, committed, Arc::new(NoWriters)).unwrap()
    }

    fn put(&self, held: &Follower, committed: Option<&Offered>) -> Result<Entry> {
        let record = &self.record;
        self.outbox.put(&PutDown {
            held,
            record,
            committed,
            there: None,
            ended: None,
        })
    }
}

fn merged(path: &Path) -> String {
    let chain = LogChain::open(path, NumberingChoice::FromZero).unwrap();
    let mut all = String::new();
    let snapshot = chain.snapshot().unwrap();
    snapshot
        .read_all()
        .unwrap()
        .read_to_string(&mut all)
        .unwrap();
    all
}

#[test]
fn what_is_held_is_put_down_as_it_was_with_its_places_in_the_stream() {
    let mut world = World::new();
    let mut packed = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
    encoder.write_all(b"one ").unwrap();
    encoder.finish().unwrap();
    world.write("console.log.1.gz", &packed);
    world.write("console.log.0", b"two ");
    world.write("console.log", b"three");
    let held = world.hold();
    // Carried here once: 100 bytes of the stream were before the second file.
    let lengths = [held.lengths()[1], held.lengths()[2]];
    world.record.ledger.go_on_at(StreamOffset::new(100));
    let layout = world
        .record
        .ledger
        .lay(&lengths, StreamOffset::START)
        .unwrap();
    world.record.ledger.remember(&layout);
    fs::remove_dir_all(world.dir.path().join("vm")).unwrap();

    let entry = world.put(&held, None).unwrap();
    assert_eq!(merged(&entry.path), "one two three");
    let names = |path: &Path| {
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&entry.path),
        [
            ".console.log.logchain",
            ".source",
            "console.log",
            "console.log.0",
            "console.log.1.gz"
        ]
    );
    let (folder, base) = Folder::of_file(&entry.path).unwrap();
    let record = Record::read_any(&folder, &base).unwrap().unwrap();
    assert!(record.is_of(entry.domain, &entry.console));
    let chain = LogChain::open(&entry.path, NumberingChoice::FromZero).unwrap();
    assert_eq!(chain.numbering(), Numbering::FromZero);
    let seen = Follower::begin(&chain).unwrap().lengths();
    let layout = record.ledger.lay(&seen[1..], StreamOffset::START).unwrap();
    assert_eq!(
        (layout.first(), layout.end()),
        (Some(StreamOffset::new(100)), StreamOffset::new(109))
    );
}

#[test]
fn two_of_one_console_are_told_apart_and_the_newer_one_comes_first() {
    let world = World::new();
    world.write("console.log", b"one");
    let one = world.put(&world.hold(), None).unwrap();
    world.write("console.log", b"two");
    let two = world.put(&world.hold(), None).unwrap();
    assert!(two.number > one.number);
    assert_eq!(
        world.outbox.all().unwrap().entries,
        [two.clone(), one.clone()]
    );
    assert_eq!(
        (merged(&one.path), merged(&two.path)),
        ("one".into(), "two".into())
    );
    world.outbox.remove(&two).unwrap();
    assert_eq!(
        world.outbox.of_domain(two.domain).unwrap(),
        std::slice::from_ref(&one)
    );
    // Gone twice is gone, and nothing is left of it.
    world.outbox.remove(&two).unwrap();
    world.outbox.remove(&one).unwrap();
    let root = world.dir.path().join("state/outbox");
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    // Once the newest is gone, its number is no secret: it only orders what is there.
    assert_eq!(world.outbox.all().unwrap(), All::default());
}

#[test]
fn the_same_files_are_put_down_once() {
    let world = World::new();
    world.write("console.log", b"all that it said");
    let one = world.put(&world.hold(), None).unwrap();
    assert_eq!(world.put(&world.hold(), None).unwrap(), one);
    world.write("console.log", b"it said some more");
    let two = world.put(&world.hold(), None).unwrap();
    assert_eq!(world.outbox.all().unwrap().entries, [two, one.clone()]);
    // An entry of an earlier release says nothing of its files.
    fs::remove_file(one.path.with_file_name(".source")).unwrap();
    world.write("console.log", b"all that it said");
    assert_ne!(world.put(&world.hold(), None).unwrap(), one);
}

#[test]
fn what_a_kill_left_is_no_log_and_goes_with_the_next_one() {
    let world = World::new();
    world.write("console.log", b"whole");
    let held = world.hold();
    let mut died = 0;
    // A death at every change that is made.
    for at in 0.. {
        fault::arm(Some(at), None);
        let put = world.put(&held, None);
        fault::disarm();
        let all = world.outbox.all().unwrap();
        for entry in &all.entries {
            assert_eq!(merged(&entry.path), "whole", "killed at {at}");
        }
        assert!(all.unfinished.len() <= 1);
        died += u32::from(put.is_err());
        if put.is_ok() {
            break;
        }
        // Killed after its name was given it is there, though nobody was told.
        for entry in all.entries {
            world.outbox.remove(&entry).unwrap();
        }
    }
    assert!(died > 5, "{died}");
    let all = world.outbox.all().unwrap();
    assert_eq!((all.entries.len(), all.unfinished.len()), (1, 0));
}

#[test]
fn a_committed_handoff_is_remembered_only_for_just_these_bytes() {
    let world = World::new();
    world.write("console.log.0", b"one ");
    world.write("console.log", b"two");
    let offered = |text: &[u8]| Offered {
        handoff: HandoffId::random(),
        to: "ssh://h2".to_owned(),
        bytes: text.len() as u64,
        digest: blake3::hash(text).to_hex().to_string(),
        at: Timestamp::constant(1, 0),
        files: Vec::new(),
        prints: Vec::new(),
        received: false,
    };
    for (text, same) in [(&b"one two"[..], true), (b"one tw0", false)] {
        let offered = offered(text);
        let entry = world.put(&world.hold(), Some(&offered)).unwrap();
        let (folder, base) = Folder::of_file(&entry.path).unwrap();
        let record = Record::read_any(&folder, &base).unwrap().unwrap();
        let kept = record.offered.as_ref().map(|o| o.handoff);
        assert_eq!(kept == Some(offered.handoff), same);
        // Either way it has an id of its own from now on.
        let files =
            record::OnDisk::of_chain(&folder, &base, &crate::chain::Ownership::default()).unwrap();
        assert!(!files.is_empty() && record.offered_all(&files));
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "virtlogd and Nova rename as they do"
)]
fn a_keeper_puts_down_only_what_is_not_found_any_more() {
    let world = World::new();
    world.write("console.log", b"before ");
    let keeper = world.keep();
    assert_eq!(
        keeper.put_down(&world.log, false, &world.outbox).unwrap(),
        KeepOutcome::There
    );
    assert_eq!(world.outbox.all().unwrap(), All::default());

    // A rollover while it is held; then the folder is renamed, as Nova does it.
    let keeper = world.keep();
    fs::rename(&world.log, world.log.with_file_name("console.log.0")).unwrap();
    world.write("console.log", b"after");
    pause(Duration::from_millis(200));
    let away = world.dir.path().join("vm_del");
    fs::rename(world.dir.path().join("vm"), &away).unwrap();
    fs::remove_dir_all(away).unwrap();
    let kept = keeper.put_down(&world.log, false, &world.outbox).unwrap();
    let KeepOutcome::PutDown(entry) = kept else {
        panic!("{kept:?}");
    };
    assert_eq!(merged(&entry.path), "before after");
}

#[test]
fn what_is_written_after_the_guest_left_is_no_part_of_what_was_kept() {
    let world = World::new();
    world.write("console.log", b"of this stay");
    let keeper = world.keep();
    keeper.guest_left();
    // Far more than it waits where nothing tells of writers.
    pause(Duration::from_secs(2));
    // It is back, and its start has wiped the log.
    fs::remove_file(&world.log).unwrap();
    world.write("console.log", b"of the next stay");
    pause(Duration::from_millis(200));
    let kept = keeper.put_down(&world.log, false, &world.outbox).unwrap();
    let KeepOutcome::PutDown(entry) = kept else {
        panic!("{kept:?}");
    };
    assert_eq!(merged(&entry.path), "of this stay");
}

/// The files are there for a while: nobody takes them for another log.
#[test]
fn what_is_about_to_go_was_handed_over_to_the_outbox() {
    let world = World::new();
    world.write("console.log", b"here and there");
    for at in 0.. {
        let held = world.hold();
        fault::arm(Some(at), None);
        let log = PutDown {
            held: &held,
            record: &world.record,
            committed: None,
            there: Some(&world.log),
            ended: None,
        };
        let put = world.outbox.put(&log);
        fault::disarm();
        let entries = world.outbox.all().unwrap().entries;
        let offered = |path: &Path| {
            let (folder, base) = Folder::of_file(path).unwrap();
            let record = Record::read_any(&folder, &base).unwrap();
            record.and_then(|record| record.offered)
        };
        let beside = offered(&world.log);
        if let Some(entry) = entries.first() {
            let (beside, put_down) = (beside.unwrap(), offered(&entry.path).unwrap());
            assert_eq!(beside.handoff, put_down.handoff);
            assert!(!put_down.received);
            world.outbox.remove(entry).unwrap();
            if put.is_ok() {
                assert!(beside.received);
                return;
            }
        } else {
            // Nothing says that the files may go.
            assert!(beside.is_none_or(|o| !o.received), "killed at {at}");
        }
        let _ = fs::remove_file(world.log.with_file_name(".console.log.logchain"));
    }
}

#[test]
fn nothing_is_put_down_of_a_log_that_is_empty() {
    let world = World::new();
    world.write("console.log", b"");
    let keeper = world.keep();
    fs::remove_dir_all(world.dir.path().join("vm")).unwrap();
    assert_eq!(
        keeper.put_down(&world.log, false, &world.outbox).unwrap(),
        KeepOutcome::Empty
    );
}

use crate::pause::pause;

#[test]
fn the_base_is_found_where_its_record_has_a_cut_name() {
    let of = |names: &[&str]| base_among(&names.iter().map(OsString::from).collect::<Vec<_>>());
    let long = "x.".repeat(125);
    let record = Record::name(OsStr::new(&long)).into_string().unwrap();
    let rotated = format!("{long}.0");
    assert_eq!(of(&[&record, &long]), Some(long.clone().into()));
    assert_eq!(of(&[&rotated, &record]), Some(long.into()));
    for names in [
        &[".console.log.logchain"][..],
        &[".console.log.logchain", "console.log"],
        &["console.log.0", ".console.log.logchain", "console.log.1.gz"],
    ] {
        assert_eq!(of(names), Some("console.log".into()), "{names:?}");
    }
    assert_eq!(of(&["console.log"]), None);
}

#[test]
fn of_a_log_that_a_boot_ended_the_last_boots_are_kept_whole() {
    let world = World::new();
    let end = |record: &mut Record, second: i64| {
        let held = world.hold();
        let layout = record.ledger.lay(&held.lengths(), StreamOffset::START);
        record.ledger.remember(&layout.unwrap());
        record
            .ledger
            .end_boot(Timestamp::from_second(second).unwrap());
    };
    // Three boots, of which the second one begins within a file.
    world.write("console.log", b"first ");
    let mut record = world.record.clone();
    end(&mut record, 1);
    let log = OpenOptions::new().append(true).open(&world.log);
    log.unwrap().write_all(b"second ").unwrap();
    end(&mut record, 2);
    // As a hard link and a removal: it stays the same file.
    let rotated = world.log.with_file_name("console.log.0");
    fs::hard_link(&world.log, &rotated).unwrap();
    fs::remove_file(&world.log).unwrap();
    world.write("console.log", b"third");

    let put = |keep| {
        let held = world.hold();
        let at = Timestamp::from_second(3).unwrap();
        let entry = world.outbox.put(&PutDown {
            held: &held,
            record: &record,
            committed: None,
            there: None,
            ended: Some(EndedBoot { at, keep }),
        });
        let entry = entry.unwrap();
        let (folder, base) = Folder::of_file(&entry.path).unwrap();
        let record = Record::read_any(&folder, &base).unwrap().unwrap();
        let end = record.ledger.end();
        let boots = record.ledger.boots(end.saturating_sub(entry.bytes), end);
        let boots: Vec<_> = boots.iter().map(|boot| boot.start.get()).collect();
        let all = merged(&entry.path);
        assert!(world.outbox.is_of_ended_boot(&entry).unwrap());
        world.outbox.remove(&entry).unwrap();
        (all, boots)
    };
    assert_eq!(
        put(9),
        ("first second third".to_owned(), vec![0, 6, 13, 18])
    );
    assert_eq!(
        put(3),
        ("first second third".to_owned(), vec![0, 6, 13, 18])
    );
    assert_eq!(put(2), ("second third".to_owned(), vec![6, 13, 18]));
    assert_eq!(put(1), ("third".to_owned(), vec![13, 18]));
}
