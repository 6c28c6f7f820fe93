//! A log that `copytruncate` empties: its bytes lie in a copy, and the file of the same
//! identity is soon longer than it was. Whatever is read by offsets is the byte that the
//! guest printed there, or it is said that bytes are missing.

#![expect(clippy::unwrap_used, reason = "a panic in a test is a failing test")]

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use logchain_core::chain::{LogChain, NumberingChoice};
use logchain_core::offsets::{Lookup, Offsets};
use logchain_core::stream::StreamOffset;

struct Bed {
    dir: tempfile::TempDir,
    log: File,
    printed: Vec<u8>,
    /// Held, so that no file made within the same tick of the clock gets both inode
    /// number and time of birth of one that is gone: no real log is as fast.
    removed: RefCell<Vec<File>>,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut log = OpenOptions::new();
        let log = log.append(true).create(true).open(dir.path().join("c.log"));
        Self {
            dir,
            log: log.unwrap(),
            printed: Vec::new(),
            removed: RefCell::default(),
        }
    }

    /// Says whether there was such a file.
    fn remove(&self, path: &Path) -> bool {
        let Ok(file) = File::open(path) else {
            return false;
        };
        self.removed.borrow_mut().push(file);
        fs::remove_file(path).is_ok()
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.path().join(format!("c.log{ending}"))
    }

    fn print(&mut self, lines: usize) {
        for _ in 0..lines {
            let line = format!("line at {}\n", self.printed.len());
            self.log.write_all(line.as_bytes()).unwrap();
            self.printed.extend(line.into_bytes());
        }
    }

    /// As logrotate does it: numbers from one.
    fn copy_and_truncate(&self, copy: bool) {
        self.make_room();
        if copy {
            fs::copy(self.path(""), self.path(".1")).unwrap();
        }
        self.log.set_len(0).unwrap();
    }

    /// What is the ninth goes: the names of two must never have one number.
    fn make_room(&self) {
        for packed in ["", ".gz", ".zst"] {
            self.remove(&self.path(&format!(".9{packed}")));
        }
        for number in (1..9).rev() {
            for packed in ["", ".gz", ".zst"] {
                let from = self.path(&format!(".{number}{packed}"));
                if from.exists() {
                    rename(&from, &self.path(&format!(".{}{packed}", number + 1)));
                }
            }
        }
    }

    fn roll_over(&mut self) {
        self.make_room();
        rename(&self.path(""), &self.path(".1"));
        let mut log = OpenOptions::new();
        self.log = log.append(true).create(true).open(self.path("")).unwrap();
    }

    fn compress(&self, ending: &str) {
        let path = self.path(ending);
        let packed = zstd::bulk::compress(&fs::read(&path).unwrap(), 1).unwrap();
        fs::write(self.path(&format!("{ending}.zst")), packed).unwrap();
        assert!(self.remove(&path));
    }

    fn chain(&self) -> LogChain {
        LogChain::open(&self.path(""), NumberingChoice::FromOne).unwrap()
    }

    /// What `show --from` does: the bytes of each run with their offsets, and where
    /// bytes are missing.
    fn from(&self, offset: u64) -> (Vec<(u64, Vec<u8>)>, Vec<u64>) {
        let chain = self.chain();
        let offsets = Offsets::of(&chain).unwrap();
        offsets.remember(&chain).unwrap();
        let mut at = StreamOffset::new(offset);
        let (mut runs, mut missing) = (Vec::new(), Vec::new());
        loop {
            match offsets.from(at, u64::MAX).unwrap() {
                Lookup::Run(mut run) => {
                    if run.follows_gap() {
                        missing.push(at.get());
                    }
                    let mut bytes = Vec::new();
                    run.read_to_end(&mut bytes).unwrap();
                    runs.push((at.get(), bytes));
                    at = run.next();
                }
                Lookup::Gone { next, .. } => {
                    missing.push(at.get());
                    at = next;
                }
                Lookup::Beyond { .. } => return (runs, missing),
            }
        }
    }

    fn is_whole(&self) {
        let (runs, missing) = self.from(0);
        assert_eq!(missing, [0_u64; 0]);
        let all: Vec<u8> = runs.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(
            String::from_utf8_lossy(&all),
            String::from_utf8_lossy(&self.printed)
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "as logrotate does")]
fn rename(from: &std::path::Path, to: &std::path::Path) {
    fs::rename(from, to).unwrap();
}

#[test]
fn a_log_that_outgrew_its_old_length_is_whole_from_the_first_byte() {
    let mut bed = Bed::new();
    bed.print(100);
    bed.is_whole();
    bed.copy_and_truncate(true);
    bed.print(300);
    bed.is_whole();
    // Again, and nobody looked in between.
    for _ in 0..3 {
        bed.print(50);
        bed.copy_and_truncate(true);
        bed.print(400);
    }
    bed.is_whole();
}

#[test]
fn what_grew_since_it_was_seen_lies_in_the_copy_too() {
    let mut bed = Bed::new();
    bed.print(3);
    bed.is_whole();
    bed.print(200);
    bed.copy_and_truncate(true);
    bed.print(7);
    bed.is_whole();
}

#[test]
fn a_copy_that_was_compressed_since_is_known_again() {
    let mut bed = Bed::new();
    bed.print(100);
    bed.is_whole();
    bed.copy_and_truncate(true);
    bed.compress(".1");
    bed.print(300);
    bed.is_whole();
    bed.copy_and_truncate(true);
    bed.compress(".1");
    bed.copy_and_truncate(true);
    bed.compress(".1");
    bed.print(300);
    bed.is_whole();
}

#[test]
fn without_a_copy_it_is_said_that_bytes_are_missing() {
    let mut bed = Bed::new();
    bed.print(100);
    bed.is_whole();
    let end = bed.printed.len() as u64;
    bed.copy_and_truncate(false);
    bed.print(300);
    for _ in 0..2 {
        let (runs, missing) = bed.from(0);
        // Those that were seen, and as many as came since: nobody knows how many.
        assert_eq!(missing, [0, end]);
        let all = bed.printed.get(usize::try_from(end).unwrap()..).unwrap();
        assert_eq!(runs, [(end, all.to_vec())]);
    }
}

#[test]
fn a_restored_backup_keeps_its_offsets() {
    let mut bed = Bed::new();
    bed.print(100);
    bed.copy_and_truncate(true);
    bed.print(100);
    bed.is_whole();
    // Other identities, the same bytes.
    for ending in [".1", ""] {
        let bytes = fs::read(bed.path(ending)).unwrap();
        fs::remove_file(bed.path(ending)).unwrap();
        fs::write(bed.path(ending), bytes).unwrap();
    }
    bed.is_whole();
}

#[test]
fn the_same_text_in_two_files_is_taken_for_neither() {
    let mut bed = Bed::new();
    bed.print(100);
    bed.is_whole();
    bed.copy_and_truncate(true);
    // What somebody put beside it.
    fs::copy(bed.path(".1"), bed.path(".2")).unwrap();
    bed.print(300);
    let (_, missing) = bed.from(0);
    assert!(!missing.is_empty());
}

#[test]
fn a_copy_before_the_log_is_emptied_is_not_placed() {
    let mut bed = Bed::new();
    bed.print(10);
    bed.copy_and_truncate(true);
    bed.print(10);
    bed.is_whole();
    // In the middle of it: copied, and not emptied yet.
    rename(&bed.path(".1"), &bed.path(".2"));
    fs::copy(bed.path(""), bed.path(".1")).unwrap();
    bed.is_whole();
    bed.log.set_len(0).unwrap();
    bed.print(40);
    bed.is_whole();
}

/// Between two looks a log grows, is rotated and compressed: all of it is there.
#[test]
fn what_grew_before_it_was_rotated_and_compressed_is_not_cut() {
    for lines in [0, 1, 100] {
        'copies: for copies in [false, true] {
            let mut bed = Bed::new();
            bed.print(lines);
            bed.is_whole();
            for round in 0..3 {
                bed.print(100);
                if copies {
                    bed.copy_and_truncate(true);
                } else {
                    bed.roll_over();
                }
                bed.compress(".1");
                bed.print(if round == 1 { 0 } else { 10 });
                if lines == 1 {
                    // Of so few bytes nobody can tell where they are now.
                    let (_, missing) = bed.from(0);
                    assert!(!missing.is_empty());
                    continue 'copies;
                }
                bed.is_whole();
            }
        }
    }
}

/// An empty file that is filled, copied and emptied while nobody looks.
#[test]
fn what_was_copied_from_an_empty_log_is_in_its_place() {
    for before in [0, 100] {
        let mut bed = Bed::new();
        bed.print(before);
        bed.is_whole();
        for _ in 0..3 {
            bed.copy_and_truncate(true);
            bed.is_whole();
            bed.print(100);
        }
        bed.is_whole();
        bed.print(10);
        bed.is_whole();
    }
}

/// A file that is no part of the stream and lies between two that are.
#[test]
fn what_lies_between_and_has_no_place_is_not_read() {
    let mut bed = Bed::new();
    for _ in 0..3 {
        bed.print(100);
        bed.roll_over();
    }
    bed.print(10);
    bed.is_whole();
    rename(&bed.path(".3"), &bed.path(".4"));
    fs::write(bed.path(".3"), "another log's line\n".repeat(50)).unwrap();
    let time = fs::metadata(bed.path(".4")).unwrap().modified().unwrap();
    let other = OpenOptions::new()
        .append(true)
        .open(bed.path(".3"))
        .unwrap();
    other.set_modified(time).unwrap();
    bed.is_whole();
}

/// One that an earlier release wrote: with device numbers, and nothing of what files held.
#[test]
fn a_record_of_an_earlier_release_is_read_on_and_completed() {
    let mut bed = Bed::new();
    bed.print(100);
    bed.is_whole();
    let path = bed.dir.path().join(".c.log.logchain");
    let read = || -> serde_json::Value {
        let text = fs::read_to_string(&path).unwrap();
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    };
    let mut record = read();
    let known = record.pointer_mut("/ledger/known/0").unwrap();
    assert!(known.as_object_mut().unwrap().remove("print").is_some());
    let id = known.pointer_mut("/id").unwrap().as_object_mut().unwrap();
    id.insert("dev".to_owned(), serde_json::json!([254, 0]));
    let json = record.to_string();
    let digest = blake3::hash(json.as_bytes()).to_hex();
    fs::write(&path, format!("{json}\n{digest}\n")).unwrap();

    bed.print(1);
    bed.is_whole();
    assert!(read().pointer("/ledger/known/0/print").is_some());
    bed.copy_and_truncate(true);
    bed.print(300);
    bed.is_whole();
}

/// Polling readers, whenever they come: what they are given at an offset is what the guest
/// printed there, or they are told that it is gone. `copytruncate`, compression, backups
/// and the rotation come in between.
mod life {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Print(usize),
        RollOver,
        CopyAndTruncate(bool),
        Compress(u32),
        Restore(u32),
        DropOldest,
        Look,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            // A log of a few bytes is not known again in a copy: then the gap is told.
            4 => (4..60_usize).prop_map(Act::Print),
            1 => Just(Act::RollOver),
            2 => proptest::bool::weighted(0.8).prop_map(Act::CopyAndTruncate),
            1 => (1..4_u32).prop_map(Act::Compress),
            1 => (0..4_u32).prop_map(Act::Restore),
            1 => Just(Act::DropOldest),
            3 => Just(Act::Look),
        ];
        proptest::collection::vec(act, 0..40)
    }

    impl Bed {
        fn restore(&mut self, number: u32) {
            let path = match number {
                0 => self.path(""),
                n => self.path(&format!(".{n}")),
            };
            let Ok(bytes) = fs::read(&path) else {
                return;
            };
            // With its time, as a backup is restored.
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            assert!(self.remove(&path));
            fs::write(&path, bytes).unwrap();
            let file = OpenOptions::new().append(true).open(&path).unwrap();
            file.set_modified(time).unwrap();
            if number == 0 {
                self.log = OpenOptions::new().append(true).open(&path).unwrap();
            }
        }

        fn drop_oldest(&self) {
            for number in (1..10).rev() {
                for packed in ["", ".zst"] {
                    if self.remove(&self.path(&format!(".{number}{packed}"))) {
                        return;
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn an_offset_is_a_byte_or_gone(acts in acts()) {
            let mut bed = Bed::new();
            // How much was lost that grew since it was written down nobody knows: offsets
            // do not count it.
            let mut counted = true;
            for act in acts {
                match act {
                    Act::Print(lines) => bed.print(lines),
                    Act::RollOver => {
                        bed.from(0);
                        bed.roll_over();
                    }
                    Act::CopyAndTruncate(copy) => {
                        bed.from(0);
                        counted &= copy;
                        bed.copy_and_truncate(copy);
                    }
                    Act::Compress(number) => {
                        bed.from(0);
                        if bed.path(&format!(".{number}")).exists() {
                            bed.compress(&format!(".{number}"));
                        }
                    }
                    Act::Restore(number) => {
                        bed.from(0);
                        bed.restore(number);
                    }
                    Act::DropOldest => {
                        bed.from(0);
                        bed.drop_oldest();
                    }
                    Act::Look => {}
                }
                let (runs, missing) = bed.from(0);
                let there: usize = runs.iter().map(|(_, bytes)| bytes.len()).sum();
                if missing.is_empty() {
                    prop_assert_eq!(there, bed.printed.len(), "silence about a loss");
                }
                for (at, bytes) in runs.into_iter().filter(|_| counted) {
                    let at = usize::try_from(at).unwrap();
                    let model = bed.printed.get(at..at + bytes.len());
                    prop_assert_eq!(
                        Some(String::from_utf8_lossy(&bytes)),
                        model.map(String::from_utf8_lossy),
                        "at {}", at
                    );
                }
            }
        }
    }
}
