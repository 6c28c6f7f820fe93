mod matrix;
mod world;

use std::fs;
use std::path::PathBuf;
use std::thread;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::chain::{LogChain, NumberingChoice};
use crate::follow::Writer;
use crate::record::Offered;
use crate::transport::ConsoleName;

struct Nobody;
impl Writers for Nobody {
    fn writer(&self, _: &File) -> Writer {
        Writer::None
    }
}

struct Somebody;
impl Writers for Somebody {
    fn writer(&self, _: &File) -> Writer {
        Writer::Some
    }
}

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

struct Bed {
    dir: tempfile::TempDir,
    log: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("console.log");
        Self { dir, log }
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.dir.path().join(name), content).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn merged(&self) -> String {
        let chain = LogChain::open(&self.log, NumberingChoice::FromZero).unwrap();
        let mut all = String::new();
        let snapshot = chain.snapshot().unwrap();
        std::io::Read::read_to_string(&mut snapshot.read_all().unwrap(), &mut all).unwrap();
        all
    }

    fn open(&self, rules: Rules) -> Staging {
        Staging::open(&self.log, HandoffId::random(), rules, Arc::new(Nobody)).unwrap()
    }

    fn handed_over(&self, names: &[&str]) -> Record {
        let (folder, _) = Folder::of_file(&self.log).unwrap();
        let stat = |n: &&str| folder.stat(OsStr::new(n)).unwrap().unwrap();
        let mut record = Record::new(Uuid::nil(), console());
        record.offered = Some(Offered {
            handoff: HandoffId::random(),
            to: "elsewhere".to_owned(),
            bytes: 0,
            digest: String::new(),
            at: 0,
            files: names.iter().map(stat).map(|s| (s.id, s.size)).collect(),
            received: true,
        });
        record
    }
}

fn console() -> ConsoleName {
    "serial0".parse().unwrap()
}

#[test]
fn history_is_placed_behind_the_base() {
    let bed = Bed::new();
    bed.write("console.log", "new ");
    let mut staging = bed.open(FREE);
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
        bed.names(),
        ["console.log", "console.log.0", "console.log.1"]
    );
    assert_eq!(bed.merged(), "oldest older new ");
}

#[test]
fn discarding_leaves_nothing() {
    let bed = Bed::new();
    bed.write("console.log", "mine");
    let mut staging = bed.open(FREE);
    staging.append(true, b"theirs").unwrap();
    staging.discard().unwrap();
    assert_eq!(bed.names(), ["console.log"]);
    assert_eq!(bed.merged(), "mine");
}

#[test]
fn what_was_handed_over_goes_when_it_comes_back() {
    let bed = Bed::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let record = bed.handed_over(&["console.log", "console.log.0"]);
    let mut staging = bed.open(FREE);
    staging.retire(Some(&record)).unwrap();
    assert_eq!(bed.names(), [".console.log.logchain.d"]);
    bed.write("console.log", "d");
    staging.append(true, b"abc").unwrap();
    staging.seal(Some(&record)).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    assert_eq!(bed.merged(), "abcd");
}

#[test]
fn what_was_retired_is_put_back_when_nothing_comes() {
    let bed = Bed::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let record = bed.handed_over(&["console.log", "console.log.0"]);
    let mut staging = bed.open(FREE);
    staging.retire(Some(&record)).unwrap();
    // The migration that failed made a new base.
    bed.write("console.log", "");
    staging.discard().unwrap();
    assert_eq!(bed.names(), ["console.log", "console.log.0"]);
    assert_eq!(bed.merged(), "ab");
}

#[test]
fn what_was_retired_goes_behind_a_log_that_began_meanwhile() {
    let bed = Bed::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let record = bed.handed_over(&["console.log", "console.log.0"]);
    let mut staging = bed.open(rules(10, 1));
    staging.retire(Some(&record)).unwrap();
    bed.write("console.log", "c");
    drop(staging);
    // Killed: the next start undoes it.
    assert!(Staging::recover_all(&bed.log, rules(10, 1), Arc::new(Nobody)).unwrap());
    assert_eq!(bed.merged(), "abc");
    assert_eq!(
        bed.names(),
        ["console.log", "console.log.0", "console.log.1"]
    );
}

#[test]
fn a_base_that_is_written_is_not_retired() {
    let bed = Bed::new();
    bed.write("console.log", "b");
    let record = bed.handed_over(&["console.log"]);
    let mut staging =
        Staging::open(&bed.log, HandoffId::random(), FREE, Arc::new(Somebody)).unwrap();
    staging.retire(Some(&record)).unwrap();
    assert_eq!(bed.merged(), "b");
    staging.append(true, b"ab").unwrap();
    assert!(matches!(
        staging.seal(Some(&record)),
        Err(Error::StaleBase { bytes: 1, .. })
    ));
    staging.discard().unwrap();
    assert_eq!(bed.names(), ["console.log"]);
}

#[test]
fn a_sealed_handoff_is_placed_by_the_next_start() {
    let bed = Bed::new();
    bed.write("console.log", "c");
    let id = HandoffId::random();
    let mut staging = Staging::open(&bed.log, id, FREE, Arc::new(Nobody)).unwrap();
    staging.append(true, b"a").unwrap();
    staging.append(true, b"b").unwrap();
    staging.seal(None).unwrap();
    drop(staging);
    let mut staging = Staging::open(&bed.log, id, FREE, Arc::new(Nobody)).unwrap();
    assert!(staging.is_sealed());
    staging.place().unwrap();
    // Placing twice is placing once.
    staging.place().unwrap();
    staging.clean().unwrap();
    assert_eq!(bed.merged(), "abc");
}

#[test]
fn two_processes_exclude_each_other_and_a_dead_one_is_no_obstacle() {
    let bed = Bed::new();
    bed.write("console.log", "a");
    let first = bed.open(FREE);
    let log = bed.log.clone();
    let second = thread::spawn(move || {
        Staging::open(&log, HandoffId::random(), FREE, Arc::new(Nobody)).map(|s| s.clean())
    });
    pause(Duration::from_millis(200));
    assert!(!second.is_finished());
    drop(first);
    second.join().unwrap().unwrap().unwrap();
}

#[test]
fn placed_files_take_mode_from_the_base() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::new();
    bed.write("console.log", "b");
    fs::set_permissions(&bed.log, fs::Permissions::from_mode(0o640)).unwrap();
    let mut staging = bed.open(FREE);
    staging.append(true, b"a").unwrap();
    staging.seal(None).unwrap();
    staging.place().unwrap();
    let mode = fs::metadata(bed.dir.path().join("console.log.0"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
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
        let bed = Bed::new();
        let mut model = String::new();
        let mut next = 0u8;
        let mut bytes = |n: usize| -> String {
            (0..n).map(|_| { next = (next + 1) % 26; char::from(b'a' + next) }).collect()
        };
        let mut staging = bed.open(rules(max, backups));
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
        prop_assert!(!bed.names().contains(&outside));
    }
}
