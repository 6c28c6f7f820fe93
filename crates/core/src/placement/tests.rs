mod beside;
mod file_system;
mod matrix;
mod random;
mod retired;
mod shown;
mod world;

use std::fs;
use std::thread;

use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::journal::Journal;
use super::*;
use crate::chain::{LogChain, NumberingChoice};
use crate::follow::NoWriters;
use crate::ids::ConsoleName;
use crate::record::Offered;
use crate::testing::{FakeWriters, Host, Switch};

fn rules(max_size: u64, max_backups: u32) -> Rules {
    Rules {
        numbering: Numbering::FromZero,
        retention: Retention::virtlogd(max_size, max_backups),
    }
}

const FREE: Rules = Rules {
    numbering: Numbering::FromZero,
    retention: Retention::UNLIMITED,
};

fn open(bed: &Host, rules: Rules) -> Staging {
    Staging::open(&bed.log, HandoffId::random(), rules, Arc::new(NoWriters)).unwrap()
}

/// What is remembered where these files were handed over.
fn handed_over(bed: &Host, names: &[&str]) -> Record {
    let (folder, _) = Folder::of_file(&bed.log).unwrap();
    let stat = |n: &&str| folder.stat(OsStr::new(n)).unwrap().unwrap();
    let mut record = Record::new(Uuid::nil(), console());
    record.offered = Some(Offered {
        handoff: HandoffId::random(),
        to: "elsewhere".to_owned(),
        bytes: 0,
        digest: String::new(),
        at: Timestamp::constant(0, 0),
        files: names.iter().map(stat).map(|s| (s.id, s.size)).collect(),
        prints: Vec::new(),
        received: true,
    });
    record
}

fn console() -> ConsoleName {
    "serial0".parse().unwrap()
}

#[test]
fn history_is_placed_behind_the_base() {
    let bed = Host::new();
    bed.write("console.log", "new ");
    let mut staging = open(&bed, FREE);
    staging.append(true, b"old").unwrap();
    staging.append(false, b"est ").unwrap();
    staging.append(true, b"older ").unwrap();
    staging.seal(None).unwrap();
    let placed = staging.place().unwrap();
    assert_eq!(
        placed.files,
        [
            ("console.log.0".to_owned(), 6),
            ("console.log.1".to_owned(), 7)
        ]
    );
    staging.clean().unwrap();
    assert_eq!(
        bed.all_names(),
        ["console.log", "console.log.0", "console.log.1"]
    );
    assert_eq!(bed.merged(), "oldest older new ");
}

fn owed() -> PendingAdoption {
    PendingAdoption {
        domain: Uuid::nil(),
        console: console(),
        bytes: 0,
        digest: String::new(),
        from: "h1".to_owned(),
        host: "h2".to_owned(),
        at: Timestamp::constant(1, 0),
        history: History::default(),
        contains: Vec::new(),
    }
}

#[test]
fn discarding_leaves_nothing() {
    let bed = Host::new();
    bed.write("console.log", "mine");
    let mut staging = open(&bed, FREE);
    staging.append(true, b"theirs").unwrap();
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log"]);
    assert_eq!(bed.merged(), "mine");
}

#[test]
fn a_sealed_handoff_is_placed_by_the_next_start() {
    let bed = Host::new();
    bed.write("console.log", "c");
    let id = HandoffId::random();
    let mut staging = Staging::open(&bed.log, id, FREE, Arc::new(NoWriters)).unwrap();
    staging.append(true, b"a").unwrap();
    staging.append(true, b"b").unwrap();
    staging.seal(None).unwrap();
    drop(staging);
    let mut staging = Staging::open(&bed.log, id, FREE, Arc::new(NoWriters)).unwrap();
    assert!(staging.is_sealed());
    staging.place().unwrap();
    // Placing twice is placing once.
    staging.place().unwrap();
    staging.clean().unwrap();
    assert_eq!(bed.merged(), "abc");
}

#[test]
fn two_processes_exclude_each_other_and_a_dead_one_is_no_obstacle() {
    let bed = Host::new();
    bed.write("console.log", "a");
    let first = open(&bed, FREE);
    let log = bed.log.clone();
    let second = thread::spawn(move || {
        Staging::open(&log, HandoffId::random(), FREE, Arc::new(NoWriters)).map(|s| s.clean())
    });
    pause(Duration::from_millis(200));
    assert!(!second.is_finished());
    drop(first);
    second.join().unwrap().unwrap().unwrap();
}

#[test]
fn from_one_and_unlimited_chains_keep_a_file_for_each() {
    for numbering in [Numbering::FromOne, Numbering::FromZero] {
        let bed = Host::new();
        bed.write("console.log", "base");
        let mut rules = rules(1000, 1);
        rules.numbering = numbering;
        if numbering == Numbering::FromZero {
            rules.retention = Retention::UNLIMITED;
        }
        let mut staging = open(&bed, rules);
        for file in ["a", "b", "c", "d"] {
            staging.append(true, file.as_bytes()).unwrap();
        }
        staging.seal(None).unwrap();
        let placed = staging.place().unwrap();
        staging.clean().unwrap();
        assert_eq!((placed.files.len(), placed.dropped), (4, 0));
        let first = numbering.first();
        let expected: Vec<String> = (first..first + 4)
            .map(|n| format!("console.log.{n}"))
            .collect();
        assert_eq!(bed.all_names()[1..], expected);
    }
}

#[test]
fn compressed_leftovers_make_room_and_keep_their_ending() {
    let bed = Host::new();
    bed.write("console.log.0", "y");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, b"z").unwrap();
    fs::write(
        bed.dir.path().join("console.log.1.gz"),
        packed.finish().unwrap(),
    )
    .unwrap();
    let mut staging = open(&bed, rules(1, 3));
    staging.retire(None).unwrap();
    bed.write("console.log", "d");
    staging.append(true, b"c").unwrap();
    staging.seal(None).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    assert_eq!(
        bed.all_names(),
        [
            "console.log",
            "console.log.0",
            "console.log.1",
            "console.log.2.gz"
        ]
    );
    assert_eq!(bed.merged(), "zycd");
}

#[test]
fn a_stale_file_that_grew_is_not_taken() {
    let bed = Host::new();
    bed.write("console.log.0", "a");
    let record = handed_over(&bed, &["console.log.0"]);
    bed.write("console.log.0", "a and more");
    bed.write("console.log", "c");
    let mut staging = open(&bed, FREE);
    staging.append(true, b"ab").unwrap();
    let sealed = staging.seal(Some(&record));
    assert!(matches!(sealed, Err(Error::StaleBase { bytes: 1, .. })));
    staging.discard().unwrap();
    assert_eq!(bed.merged(), "a and morec");
}

/// Whoever takes a handoff up again after the guest came must not take for older
/// what was rotated since.
#[test]
fn what_was_rotated_since_a_kill_is_newer_than_the_history() {
    let bed = Host::new();
    let id = HandoffId::random();
    let open = || Staging::open(&bed.log, id, rules(1, 9), Arc::new(NoWriters)).unwrap();
    let mut staging = open();
    staging.retire(None).unwrap();
    staging.append(true, b"half").unwrap();
    drop(staging);
    bed.write("console.log.0", "c");
    bed.write("console.log", "d");
    let mut staging = open();
    staging.retire(None).unwrap();
    staging.append(true, b"ab").unwrap();
    staging.seal(None).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    assert_eq!(bed.merged(), "abcd");
}

#[test]
fn a_sealed_handoff_that_nobody_takes_up_leaves_a_record_and_nothing_else() {
    let bed = Host::new();
    bed.write("console.log", "b");
    let id = HandoffId::random();
    let mut staging = Staging::open(&bed.log, id, FREE, Arc::new(NoWriters)).unwrap();
    staging.append(true, b"a").unwrap();
    staging.owe(PendingAdoption {
        domain: Uuid::nil(),
        console: console(),
        bytes: 1,
        digest: "d".to_owned(),
        from: "there".to_owned(),
        host: "here".to_owned(),
        at: Timestamp::constant(7, 0),
        history: History::of(1),
        contains: Vec::new(),
    });
    staging.seal(None).unwrap();
    drop(staging);
    assert!(ChainWorkspace::recover_all(&bed.log, FREE, Arc::new(NoWriters)).unwrap());
    assert_eq!(bed.merged(), "ab");
    let (folder, base) = Folder::of_file(&bed.log).unwrap();
    let record = Record::read(&folder, &base, Uuid::nil(), &console());
    let adopted = record.unwrap().unwrap().find_adopted(id).cloned().unwrap();
    assert_eq!((adopted.bytes, adopted.at), (1, Timestamp::constant(7, 0)));
    assert_eq!(adopted.placed, [("console.log.0".to_owned(), 1)]);
    assert!(
        !bed.all_names()
            .contains(&".console.log.logchain.d".to_owned())
    );
}

/// The format is kept: a journal as this version writes it.
#[test]
fn a_journal_reads_back_and_a_newer_one_is_refused() {
    let bed = Host::new();
    let (folder, _) = Folder::of_file(&bed.log).unwrap();
    let write = |json: &str| {
        let digest = blake3::hash(json.as_bytes()).to_hex();
        bed.write("journal", &format!("{json}\n{digest}\n"));
    };
    write(
        r#"{"version":1,"phase":"sealed","retired":[],"parts":[{"name":"part-0","id":{"dev":[8,1],"ino":5,"born":[1,2]},"size":3}],"older":[],"stale":[],"taking":[],"dropped":0,"owed":null,"placed":null}"#,
    );
    let journal = Journal::read(&folder).unwrap().unwrap();
    assert_eq!(journal.phase, Phase::Sealed);
    journal.write(&folder).unwrap();
    assert_eq!(Journal::read(&folder).unwrap().unwrap(), journal);
    let newer = fs::read_to_string(bed.dir.path().join("journal")).unwrap();
    let newer = newer
        .lines()
        .next()
        .unwrap()
        .replace(r#""version":1"#, r#""version":3"#);
    write(&newer);
    let refused = Journal::read(&folder).unwrap_err().to_string();
    assert!(refused.contains("newer logchain"), "{refused}");
    bed.write("journal", "{}\nno digest\n");
    assert!(Journal::read(&folder).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is staged, the merged log is a suffix of history and new bytes,
    /// as long as the rotation promises.
    #[test]
    fn the_merged_log_is_the_end_of_the_stream(
        max in 100u64..400,
        backups in 1u32..5,
        files in proptest::collection::vec(0usize..900, 0..12),
        cut in 1usize..300,
        here in proptest::collection::vec(1usize..300, 0..4),
    ) {
        let bed = Host::new();
        let mut model = String::new();
        let mut next = 0u8;
        let mut bytes = |n: usize| -> String {
            (0..n).map(|_| { next = (next + 1) % 26; char::from(b'a' + next) }).collect()
        };
        let mut staging = open(&bed, rules(max, backups));
        let history: Vec<String> = files.iter().map(|n| bytes(*n)).collect();
        let here = &here[..here.len().min(backups as usize)];
        let new: Vec<String> = here.iter().map(|_| bytes(usize::try_from(max).unwrap())).collect();
        for (n, content) in new.iter().rev().enumerate() {
            bed.write(&format!("console.log.{n}"), content);
        }
        bed.write("console.log", "base");
        for file in &history {
            for (n, part) in file.as_bytes().chunks(cut).enumerate() {
                staging.append(n == 0, part).unwrap();
            }
            model.push_str(file);
        }
        let history_len = model.len() as u64;
        staging.seal(None).unwrap();
        let placed = staging.place().unwrap();
        staging.clean().unwrap();
        model.extend(new.iter().map(String::as_str));
        model.push_str("base");

        let merged = bed.merged();
        prop_assert!(model.ends_with(&merged));
        let kept = placed.files.iter().map(|(_, size)| size).sum::<u64>();
        prop_assert_eq!(kept + placed.dropped, history_len);
        prop_assert_eq!(merged.len() as u64, model.len() as u64 - placed.dropped);
        // What a rotation without a migration keeps at the least.
        let promised = u64::from(backups) * (max - 80);
        prop_assert!(merged.len() as u64 >= promised.min(model.len() as u64));
        // Nothing sticks out beyond the numbers that virtlogd moves.
        let outside = format!("console.log.{backups}");
        prop_assert!(!bed.all_names().contains(&outside));
    }
}

#[test]
fn gaps_are_closed_and_nothing_is_dropped() {
    let bed = Host::new();
    for (name, content) in [
        ("console.log", "e"),
        ("console.log.0", "d"),
        ("console.log.3", "c"),
        ("console.log.5.gz", "no gzip"),
        ("console.log.9", "a"),
    ] {
        bed.write(name, content);
    }
    let close = |rules| ChainWorkspace::close_gaps(&bed.log, rules, Arc::new(NoWriters)).unwrap();
    assert_eq!(close(rules(10, 3)), 2);
    // The one for which there is no room within the limit stays.
    let names = [
        "console.log",
        "console.log.0",
        "console.log.1",
        "console.log.2.gz",
    ];
    assert_eq!(bed.all_names(), [&names[..], &["console.log.9"]].concat());
    assert_eq!(close(rules(10, 3)), 0);
    assert_eq!(close(FREE), 1);
    assert_eq!(bed.all_names(), [&names[..], &["console.log.3"]].concat());
    assert_eq!(close(FREE), 0);
    assert_eq!(
        fs::read(bed.dir.path().join("console.log.3")).unwrap(),
        b"a"
    );
}
