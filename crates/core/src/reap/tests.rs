use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::departure::Destination;
use crate::folder::{Folder, fault};
use crate::follow::NoWriters;
use crate::ids::{ConsoleName, HandoffId};
use crate::record::Offered;
use crate::testing::FakeWriters;

fn console() -> ConsoleName {
    "serial0".parse().unwrap()
}

fn note(received: &[bool]) -> Departure {
    let to = Destination {
        uri: "qemu+tcp://h2/system".to_owned(),
        host: None,
    };
    let mut note = Departure::new(
        Uuid::from_u128(1),
        "vm",
        "qemu:///system",
        to,
        Timestamp::constant(7, 0),
    );
    note.definition = Some("same".to_owned());
    for (number, received) in received.iter().enumerate() {
        note.logs.push(LeftLog {
            console: format!("serial{number}").parse().unwrap(),
            path: format!("/log/{number}").into(),
            received: *received,
        });
    }
    note
}

fn any_here() -> impl Strategy<Value = Here> {
    prop_oneof![
        Just(Here::Gone),
        prop_oneof![Just("same"), Just("other")].prop_map(|d| Here::Over {
            definition: d.to_owned()
        }),
        Just(Here::Running),
        Just(Here::Active("paused")),
    ]
}

fn any_log() -> impl Strategy<Value = Log> {
    prop_oneof![
        any::<bool>().prop_map(|received| Log::Gone { received }),
        Just(Log::There(Known::Nothing)),
        Just(Log::There(Known::More)),
        any::<bool>().prop_map(|received| Log::There(Known::HandedOver { received })),
        Just(Log::UnderWay),
        Just(Log::Unreadable("why".to_owned())),
        Just(Log::PutDown("/put/down".into())),
    ]
}

fn any_placement() -> impl Strategy<Value = Placement> {
    prop_oneof![
        Just(Placement::NotAsked),
        Just(Placement::Confirmed("there".to_owned())),
        Just(Placement::NotConfirmed("why".to_owned())),
    ]
}

proptest! {
    /// The promise, said another way than the code says it.
    #[test]
    fn only_what_left_and_arrived_is_reaped(
        here in any_here(),
        received in prop::collection::vec(any::<bool>(), 0..3),
        logs in prop::collection::vec(any_log(), 0..4),
        placement in any_placement(),
        stays in any::<bool>(),
    ) {
        let mut note = note(&received);
        if !stays {
            note.definition = None;
        }
        let is_shut_off_as_it_was = match &here {
            Here::Gone => true,
            Here::Over { definition } => stays && definition == "same",
            Here::Running | Here::Active(_) => false,
        };
        let all_received = logs.len() >= received.len()
            && received.iter().zip(&logs).all(|(seen, log)| match log {
                // Of a folder that the destination has too nothing is handed over.
                Log::There(Known::Nothing) => *seen,
                Log::There(known) => *known == Known::HandedOver { received: true },
                Log::Gone { received } => *received || *seen,
                Log::PutDown(_) | Log::UnderWay | Log::Unreadable(_) => false,
            });
        let ready = is_shut_off_as_it_was && all_received;
        match decide(&note, &here, &logs, &placement) {
            Decision::Reap => {
                prop_assert!(ready && matches!(placement, Placement::Confirmed(_)));
            }
            Decision::Ask => prop_assert!(ready && placement == Placement::NotAsked),
            Decision::Forget(_) => prop_assert_eq!(here, Here::Running),
            Decision::Keep(why) => {
                prop_assert!(!why.is_empty() && here != Here::Running);
                prop_assert!(!ready || matches!(placement, Placement::NotConfirmed(_)));
            }
        }
    }
}

#[test]
fn a_file_that_grew_or_came_since_is_more_than_was_handed_over() {
    let file = |ino, size| {
        let id = crate::folder::FileId { ino, born: None };
        let print = None;
        OnDisk { id, size, print }
    };
    assert_eq!(known(None, &[file(1, 5)]), Known::Nothing);
    let mut record = Record::new(Uuid::from_u128(1), console());
    assert_eq!(known(Some(&record), &[file(1, 5)]), Known::Nothing);
    let files = [file(1, 5), file(2, 3)].map(|f| (f.id, f.size));
    record.offered = Some(offered(files.to_vec(), true));
    let handed = Known::HandedOver { received: true };
    assert_eq!(known(Some(&record), &[file(2, 3)]), handed);
    for more in [file(1, 6), file(3, 3)] {
        assert_eq!(known(Some(&record), &[file(2, 3), more]), Known::More);
    }
}

fn offered(files: Vec<(crate::folder::FileId, u64)>, received: bool) -> Offered {
    Offered {
        handoff: HandoffId::random(),
        to: "ssh://h2".to_owned(),
        bytes: files.iter().map(|(_, size)| size).sum(),
        digest: String::new(),
        at: Timestamp::constant(7, 0),
        files,
        prints: Vec::new(),
        received,
    }
}

/// A log of three files that was handed over, in a folder with others' files.
struct Bed {
    dir: tempfile::TempDir,
    log: PathBuf,
}

impl Bed {
    fn new(received: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("console.log");
        for (name, text) in [
            ("console.log", "three"),
            ("console.log.0", "two"),
            ("console.log.1", "one"),
            ("other.log", "another's"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let (folder, base) = Folder::of_file(&log).unwrap();
        let mut record = Record::new(Uuid::from_u128(1), console());
        let files = files::files_of(&folder, &base);
        let prints = files.iter().filter_map(|f| Some((f.id, f.print?)));
        let prints = prints.collect();
        let files = files.iter().map(|f| (f.id, f.size)).collect();
        record.offered = Some(Offered {
            prints,
            ..offered(files, received)
        });
        record.write(&folder, &base).unwrap();
        Self { dir, log }
    }

    fn look(&self) -> Log {
        files::look(&self.log, Uuid::from_u128(1), &console())
    }

    fn remove(&self) -> Result<files::Removed, files::Error> {
        files::remove(&self.log, Uuid::from_u128(1), &console(), &NoWriters)
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn what_was_handed_over_goes_and_nothing_else() {
    let bed = Bed::new(true);
    let handed = Log::There(Known::HandedOver { received: true });
    assert_eq!(bed.look(), handed);
    let removed = bed.remove().unwrap();
    assert_eq!((removed.files, removed.bytes), (3, 11));
    assert_eq!(bed.names(), ["other.log"]);
    assert_eq!(bed.remove().unwrap(), files::Removed::default());
    assert_eq!(bed.look(), Log::Gone { received: false });
}

#[test]
fn what_grew_came_since_or_was_not_received_stays() {
    let bed = Bed::new(true);
    fs::write(&bed.log, "three and more").unwrap();
    fs::write(bed.dir.path().join("console.log.2"), "foreign").unwrap();
    assert_eq!(bed.look(), Log::There(Known::More));
    let removed = bed.remove().unwrap();
    assert_eq!(removed.kept, ["console.log.2", "console.log"]);
    let names = [
        ".console.log.logchain",
        "console.log",
        "console.log.2",
        "other.log",
    ];
    assert_eq!(bed.names(), names);
    assert_eq!(fs::read(&bed.log).unwrap(), b"three and more");

    let bed = Bed::new(false);
    let before = bed.names();
    let waiting = Log::There(Known::HandedOver { received: false });
    assert_eq!(bed.look(), waiting);
    assert_eq!(bed.remove().unwrap(), files::Removed::default());
    assert_eq!(bed.names(), before);
}

/// Emptied and filled again to the very size that was handed over.
#[test]
fn a_file_of_the_same_size_that_holds_something_else_stays() {
    let bed = Bed::new(true);
    fs::write(&bed.log, "other").unwrap();
    assert_eq!(bed.look(), Log::There(Known::More));
    let removed = bed.remove().unwrap();
    assert_eq!(
        (removed.files, removed.kept),
        (2, vec!["console.log".to_owned()])
    );
    assert_eq!(fs::read(&bed.log).unwrap(), b"other");
}

#[test]
fn a_log_with_a_writer_stays() {
    let bed = Bed::new(true);
    let before = bed.names();
    let removed = files::remove(
        &bed.log,
        Uuid::from_u128(1),
        &console(),
        &FakeWriters::SOMEBODY,
    )
    .unwrap();
    assert_eq!((removed.files, removed.kept.len()), (0, 3));
    assert_eq!(bed.names(), before);
}

#[test]
fn another_domains_files_stay() {
    let bed = Bed::new(true);
    let before = bed.names();
    let other = Uuid::from_u128(2);
    let found = files::look(&bed.log, other, &console());
    assert_eq!(found, Log::There(Known::Nothing));
    files::remove(&bed.log, other, &console(), &NoWriters).unwrap();
    assert_eq!(bed.names(), before);
}

/// Killed before any single change, and taken up by the next run.
#[test]
fn a_kill_at_any_point_is_met_by_the_next_run() {
    let mut points = 0;
    loop {
        let bed = Bed::new(true);
        fault::arm(Some(points), None);
        let killed = bed.remove();
        fault::disarm();
        if killed.is_ok() {
            break;
        }
        let found = bed.look();
        assert!(
            matches!(
                found,
                Log::Gone { .. } | Log::There(Known::HandedOver { received: true })
            ),
            "killed at {points}: {found:?}"
        );
        bed.remove().unwrap();
        assert_eq!(bed.names(), ["other.log"], "killed at {points}");
        points += 1;
    }
    assert!(points > 8, "{points}");
}

/// Another process puts a file of its own under the name, at any moment.
#[test]
fn a_file_that_comes_under_a_name_keeps_it() {
    for at in 0.. {
        let bed = Bed::new(true);
        let path = bed.dir.path().join("console.log.1");
        let other = move |calls: u64, _| {
            if calls == at {
                let _ = fs::remove_file(&path);
                fs::write(&path, "new").unwrap();
            }
        };
        fault::arm(None, Some(Box::new(other)));
        let removed = bed.remove();
        let (_, calls) = fault::disarm();
        removed.unwrap();
        if at >= calls {
            break;
        }
        let there = fs::read(bed.dir.path().join("console.log.1")).unwrap();
        assert_eq!(there, b"new", "at {at}");
    }
}
