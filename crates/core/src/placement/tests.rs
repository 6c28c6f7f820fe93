mod beside;
mod matrix;
mod random;
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
use crate::testing::{FakeWriters, Host};

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

fn owed() -> Owed {
    Owed {
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

fn open_written(bed: &Host, rules: Rules) -> Staging {
    Staging::open(
        &bed.log,
        HandoffId::random(),
        rules,
        Arc::new(FakeWriters::SOMEBODY),
    )
    .unwrap()
}

#[test]
fn what_is_shown_takes_what_comes() {
    let bed = Host::new();
    bed.write("console.log", "");
    let mut staging = open_written(&bed, rules(100, 3));
    assert!(!staging.show(owed()).unwrap(), "there is nothing yet");
    staging.append(true, &[b'a'; 100]).unwrap();
    staging.append(true, &[b'b'; 99]).unwrap();
    assert!(staging.show(owed()).unwrap());
    assert_eq!(bed.merged().len(), 199);
    // The end of the source's log, and more files of it.
    for piece in [1, 30, 60] {
        staging.append(true, &[b'c'; 1].repeat(piece)).unwrap();
    }
    assert_eq!(bed.merged().len(), 290);
    // What is more than a part takes is seen once it is placed.
    staging.append(true, &[b'd'; 50]).unwrap();
    staging.seal(None).unwrap();
    let placed = staging.place().unwrap();
    let names: Vec<_> = placed
        .files
        .iter()
        .map(|(name, size)| (name.as_str(), *size))
        .collect();
    let expected = [
        ("console.log.0", 40),
        ("console.log.1", 200),
        ("console.log.2", 100),
    ];
    assert_eq!(names, expected);
    staging.clean().unwrap();
    let letters = [
        "a".repeat(100),
        "b".repeat(99),
        "c".repeat(91),
        "d".repeat(50),
    ];
    assert_eq!(bed.merged(), letters.concat());
}

#[test]
fn what_is_shown_and_outgrown_is_dropped_as_the_rotation_does() {
    let bed = Host::new();
    bed.write("console.log", "");
    let mut staging = open_written(&bed, rules(100, 2));
    staging.append(true, &[b'a'; 100]).unwrap();
    staging.append(true, &[b'b'; 100]).unwrap();
    assert!(staging.show(owed()).unwrap());
    for letter in [b'c', b'd', b'e'] {
        staging.append(true, &[letter; 200]).unwrap();
    }
    staging.seal(None).unwrap();
    let placed = staging.place().unwrap();
    assert_eq!(placed.files.len(), 2);
    staging.clean().unwrap();
    let all = bed.merged();
    assert_eq!(placed.dropped + all.len() as u64, 800);
    assert!(all.ends_with(&"e".repeat(200)), "{all}");
    let names = bed.all_names();
    assert_eq!(
        names[1..],
        ["console.log", "console.log.0", "console.log.1"]
    );
}

#[test]
fn nothing_is_shown_where_it_could_be_wiped_or_is_in_the_way() {
    let bed = Host::new();
    let mut staging = open_written(&bed, rules(100, 3));
    staging.append(true, b"history ").unwrap();
    assert!(!staging.show(owed()).unwrap(), "no base");
    drop(staging);
    bed.write("console.log", "");
    let mut staging = open(&bed, rules(100, 3));
    staging.append(true, b"history ").unwrap();
    assert!(!staging.show(owed()).unwrap(), "no writer");
    drop(staging);
    bed.write("console.log.1", "older ");
    let mut staging = open_written(&bed, rules(100, 3));
    staging.append(true, b"history ").unwrap();
    assert!(!staging.show(owed()).unwrap(), "a file in the way");
    drop(staging);
    fs::remove_file(bed.dir.path().join("console.log.1")).unwrap();
    bed.write("console.log.3", "beyond the limit ");
    let mut staging = open_written(&bed, rules(100, 3));
    staging.append(true, b"history ").unwrap();
    assert!(staging.show(owed()).unwrap());
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log", "console.log.3"]);
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
fn what_was_handed_over_goes_when_it_comes_back() {
    let bed = Host::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let record = handed_over(&bed, &["console.log", "console.log.0"]);
    let mut staging = open(&bed, FREE);
    staging.retire(Some(&record)).unwrap();
    assert_eq!(bed.all_names(), [".console.log.logchain.d"]);
    bed.write("console.log", "d");
    staging.append(true, b"abc").unwrap();
    staging.seal(Some(&record)).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    assert_eq!(bed.merged(), "abcd");
}

/// Emptied and filled again since, to the very size: it is no part of what comes back.
#[test]
fn what_was_written_over_since_it_was_handed_over_stays() {
    for (rotated, all) in [("ef", "efabcdg"), ("ef and more", "ef and moreabcdg")] {
        let bed = Host::new();
        bed.write("console.log", "cd");
        bed.write("console.log.0", "ab");
        let mut record = handed_over(&bed, &["console.log", "console.log.0"]);
        let (folder, base) = Folder::of_file(&bed.log).unwrap();
        let files =
            crate::record::OnDisk::of_chain(&folder, &base, &crate::chain::Ownership::default())
                .unwrap();
        let prints = files.iter().filter_map(|f| Some((f.id, f.print?)));
        record.offered.as_mut().unwrap().prints = prints.collect();
        bed.write("console.log.0", rotated);
        let mut staging = open(&bed, FREE);
        staging.retire(Some(&record)).unwrap();
        bed.write("console.log", "g");
        staging.append(true, b"abcd").unwrap();
        staging.seal(Some(&record)).unwrap();
        staging.place().unwrap();
        staging.clean().unwrap();
        assert_eq!(bed.merged(), all);
    }
}

#[test]
fn what_was_retired_is_put_back_when_nothing_comes() {
    let bed = Host::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let record = handed_over(&bed, &["console.log", "console.log.0"]);
    let mut staging = open(&bed, FREE);
    staging.retire(Some(&record)).unwrap();
    // The migration that failed made a new base.
    bed.write("console.log", "");
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log", "console.log.0"]);
    assert_eq!(bed.merged(), "ab");
}

#[test]
fn what_was_retired_goes_behind_a_log_that_began_meanwhile() {
    let bed = Host::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let record = handed_over(&bed, &["console.log", "console.log.0"]);
    let mut staging = open(&bed, rules(10, 2));
    staging.retire(Some(&record)).unwrap();
    bed.write("console.log", "c");
    drop(staging);
    // Killed: the next start undoes it.
    assert!(ChainWorkspace::recover_all(&bed.log, rules(10, 2), Arc::new(NoWriters)).unwrap());
    assert_eq!(bed.merged(), "abc");
    assert_eq!(
        bed.all_names(),
        ["console.log", "console.log.0", "console.log.1"]
    );
}

#[test]
fn an_empty_base_that_was_retired_takes_no_number_of_the_new_log() {
    let bed = Host::new();
    bed.write("console.log", "");
    bed.write("console.log.0", "b");
    bed.write("console.log.1", "a");
    let record = handed_over(&bed, &["console.log", "console.log.0", "console.log.1"]);
    let mut staging = open(&bed, rules(10, 2));
    staging.retire(Some(&record)).unwrap();
    bed.write("console.log", "c");
    staging.discard().unwrap();
    assert_eq!(bed.merged(), "abc");
    assert_eq!(
        bed.all_names(),
        ["console.log", "console.log.0", "console.log.1"]
    );
}

#[test]
fn a_base_that_is_written_is_not_retired() {
    let bed = Host::new();
    bed.write("console.log", "b");
    let record = handed_over(&bed, &["console.log"]);
    let mut staging = Staging::open(
        &bed.log,
        HandoffId::random(),
        FREE,
        Arc::new(FakeWriters::SOMEBODY),
    )
    .unwrap();
    staging.retire(Some(&record)).unwrap();
    assert_eq!(bed.merged(), "b");
    staging.append(true, b"ab").unwrap();
    assert!(matches!(
        staging.seal(Some(&record)),
        Err(Error::StaleBase { bytes: 1, .. })
    ));
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log"]);
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
fn placed_files_take_mode_from_the_base() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Host::new();
    bed.write("console.log", "b");
    fs::set_permissions(&bed.log, fs::Permissions::from_mode(0o640)).unwrap();
    let mut staging = open(&bed, FREE);
    staging.append(true, b"a").unwrap();
    staging.seal(None).unwrap();
    staging.place().unwrap();
    let mode = fs::metadata(bed.dir.path().join("console.log.0"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn placed_files_take_labels_from_the_base() {
    // `security.selinux` needs a kernel with SELinux; `user.` goes the same way.
    const LABEL: &str = "user.logchain";
    let bed = Host::new();
    bed.write("console.log", "b");
    let base = File::open(&bed.log).unwrap();
    if rustix::fs::fsetxattr(&base, LABEL, b"value", rustix::fs::XattrFlags::empty()).is_err() {
        return; // a file system without labels
    }
    let mut staging = open(&bed, FREE);
    staging.append(true, b"a").unwrap();
    let (base, stat) = staging.open_base().unwrap().unwrap();
    let labels = &[LABEL, "user.not-there"];
    let own = staging.own.try_clone().unwrap();
    staging
        .parts
        .match_base(&own, (&base, &stat), labels)
        .unwrap();
    staging.seal(None).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    let placed = File::open(bed.dir.path().join("console.log.0")).unwrap();
    let mut value = [0; 16];
    let length = rustix::fs::fgetxattr(&placed, LABEL, &mut value).unwrap();
    assert_eq!(&value[..length], b"value");
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
    staging.owe(Owed {
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

/// A hole of the source is one here, and room is asked for what is not a hole.
#[test]
fn what_is_nothing_but_nuls_takes_no_room() {
    let bed = Host::new();
    bed.write("console.log", "base");
    let mut staging = open(&bed, FREE);
    let nuls = vec![0; 4 << 20];
    staging.append(true, b"first line\n").unwrap();
    for _ in 0..128 {
        staging.append(false, &nuls).unwrap();
    }
    staging.append(false, b"last line\n").unwrap();
    let total = staging.staged_bytes();
    staging.seal(None).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    let placed = fs::metadata(bed.dir.path().join("console.log.0")).unwrap();
    assert_eq!(placed.len(), total);
    let allocated = std::os::unix::fs::MetadataExt::blocks(&placed) * 512;
    assert!(allocated < 1 << 20, "{allocated} bytes allocated");
    let snapshot = LogChain::open(&bed.log, NumberingChoice::Auto)
        .unwrap()
        .snapshot()
        .unwrap();
    let mut end = Vec::new();
    let mut tail = snapshot.tail(15).unwrap();
    std::io::Read::read_to_end(&mut tail, &mut end).unwrap();
    assert_eq!(end, b"\0last line\nbase");
}

/// Ends what `chattr` did, whatever came of the test.
struct Attribute<'a>(&'a std::path::Path, &'static str);

impl<'a> Attribute<'a> {
    /// `None` where it cannot be set here.
    fn set(path: &'a std::path::Path, letter: &'static str) -> Option<Self> {
        let mut chattr = std::process::Command::new("chattr");
        let set = chattr.arg(format!("+{letter}")).arg(path).output();
        if set.is_ok_and(|set| set.status.success()) {
            return Some(Self(path, letter));
        }
        eprintln!("skipped: no attributes can be set here");
        None
    }
}

impl Drop for Attribute<'_> {
    fn drop(&mut self) {
        let mut chattr = std::process::Command::new("chattr");
        let _ = chattr.arg(format!("-{}", self.1)).arg(self.0).status();
    }
}

/// An append-only folder takes new names and gives none away: virtlogd's next rollover
/// would fail, and with it the start of the VM.
#[test]
fn where_no_file_can_be_removed_none_is_placed() {
    for letter in ["a", "i"] {
        let bed = Host::new();
        bed.write("console.log", "base");
        let Some(_set) = Attribute::set(bed.dir.path(), letter) else {
            return;
        };
        let opened = Staging::open(&bed.log, HandoffId::random(), FREE, Arc::new(NoWriters));
        let Err(refused) = opened else {
            panic!("opened in a folder with +{letter}");
        };
        assert!(matches!(refused, Error::Stuck { .. }), "{refused}");
        assert_eq!(bed.all_names(), ["console.log"], "+{letter}");
    }
}

/// The folder becomes append-only while the history comes: nothing is sealed, so the
/// source keeps all of it.
#[test]
fn a_folder_that_becomes_append_only_is_found_before_the_history_is_sealed() {
    let bed = Host::new();
    bed.write("console.log", "base");
    let mut staging = open(&bed, FREE);
    staging.append(true, b"history").unwrap();
    let Some(set) = Attribute::set(bed.dir.path(), "a") else {
        return;
    };
    let refused = staging.seal(None).unwrap_err();
    assert!(matches!(refused, Error::Stuck { .. }), "{refused}");
    assert!(!staging.is_sealed());
    drop(set);
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log"]);
}

/// Without CAP_CHOWN, or on a server that makes root nobody.
#[test]
fn where_the_owner_cannot_be_set_only_the_owner_may_read() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    let place = |folder_mode: u32| {
        let bed = Host::new();
        bed.write("console.log", "base");
        fs::set_permissions(&bed.log, fs::Permissions::from_mode(0o644)).unwrap();
        let theirs = chown(&bed.log, Some(12345), Some(12345)).is_ok()
            && chown(bed.dir.path(), Some(23456), None).is_ok();
        if !theirs {
            eprintln!("skipped: only root can give files away");
            return None;
        }
        fs::set_permissions(bed.dir.path(), fs::Permissions::from_mode(folder_mode)).unwrap();
        let mut staging = open(&bed, FREE);
        staging.append(true, b"history").unwrap();
        fault::refuse_owner(true);
        let sealed = staging.seal(None);
        fault::refuse_owner(false);
        Some((bed, staging, sealed))
    };
    let Some((bed, mut staging, sealed)) = place(0o777) else {
        return;
    };
    sealed.unwrap();
    let placed = staging.place().unwrap();
    staging.clean().unwrap();
    let file = fs::metadata(bed.dir.path().join("console.log.0")).unwrap();
    assert_ne!(file.uid(), 12345);
    assert_eq!(file.mode() & 0o7777, 0o600);
    let [note] = placed.notes.as_slice() else {
        panic!("{:?}", placed.notes);
    };
    assert!(note.starts_with("console.log.0: belongs to "), "{note}");
    assert!(note.contains("has the mode 0600, not 0644"), "{note}");

    // A sticky folder of somebody else's: the log's user could not take it away.
    let Some((bed, staging, sealed)) = place(0o1777) else {
        return;
    };
    let refused = sealed.unwrap_err();
    assert!(matches!(refused, Error::Stuck { .. }), "{refused}");
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log"]);
}

/// Unmounts when dropped, whatever came of the test.
struct SmallDisk(tempfile::TempDir);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("-l").arg(self.0.path()).status();
    }
}

/// A disk of 16 MiB has room for 512 MiB of which all but two lines are a hole.
#[test]
fn a_hole_is_not_refused_for_room() {
    let disk = tempfile::tempdir().unwrap();
    let mut mount = std::process::Command::new("mount");
    let mount = mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]);
    if !mount.arg(disk.path()).status().is_ok_and(|s| s.success()) {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let disk = SmallDisk(disk);
    let log = disk.0.path().join("console.log");
    fs::write(&log, "base").unwrap();
    let mut staging = Staging::open(&log, HandoffId::random(), FREE, Arc::new(NoWriters)).unwrap();
    staging.append(true, b"first\n").unwrap();
    let nuls = vec![0; 4 << 20];
    for _ in 0..128 {
        staging.append(false, &nuls).unwrap();
    }
    staging.append(false, b"last\n").unwrap();
    // Data that does not fit is refused as before.
    let refused = staging.append(false, &vec![b'x'; 16 << 20]).unwrap_err();
    assert!(
        matches!(refused, Error::Folder(folder::Error::NoRoom { .. })),
        "{refused}"
    );
    staging.seal(None).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    let placed = fs::metadata(disk.0.path().join("console.log.0")).unwrap();
    assert_eq!(placed.len(), 11 + (512 << 20));
}
