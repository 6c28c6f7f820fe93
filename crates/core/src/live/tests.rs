use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::chain::{Numbering, NumberingChoice};
use crate::folder::Folder;
use crate::ids::HandoffId;
use crate::offsets::Lookup;
use crate::placement::{PendingAdoption, Rules, Staging};
use crate::record::Record;
use crate::rotation::Retention;
use crate::stream::{Arrival, History};
use crate::testing::FakeWriters;

struct Bed {
    dir: tempfile::TempDir,
    log: File,
    backups: u32,
    written: Vec<u8>,
}

impl Bed {
    fn new(backups: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("l")).unwrap();
        Self {
            dir,
            log,
            backups,
            written: Vec::new(),
        }
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.path().join(format!("l{ending}"))
    }

    fn print(&mut self, count: usize) {
        let bytes: Vec<u8> = (0..count)
            .map(|n| u8::try_from((self.written.len() + n) % 251).unwrap())
            .collect();
        self.log.write_all(&bytes).unwrap();
        self.written.extend(bytes);
    }

    /// No two places look alike, not even a few bytes of them.
    fn print_random(&mut self, count: usize) {
        let mut bytes = vec![0; count];
        let mut all = blake3::Hasher::new().finalize_xof();
        all.set_position(self.written.len() as u64);
        all.fill(&mut bytes);
        self.log.write_all(&bytes).unwrap();
        self.written.extend(bytes);
    }

    fn make_room(&self) {
        for to in (0..self.backups).rev() {
            let from = to
                .checked_sub(1)
                .map_or_else(String::new, |n| format!(".{n}"));
            if self.path(&from).exists() {
                rename(&self.path(&from), &self.path(&format!(".{to}")));
            }
        }
    }

    fn roll_over(&mut self) {
        self.make_room();
        self.log = File::create(self.path("")).unwrap();
    }

    fn copy_and_truncate(&mut self, copy: bool) {
        let kept = self.path(".kept");
        rename(&self.path(""), &kept);
        self.make_room();
        rename(&kept, &self.path(""));
        if copy {
            fs::copy(self.path(""), self.path(".0")).unwrap();
        }
        self.log.set_len(0).unwrap();
        std::io::Seek::rewind(&mut self.log).unwrap();
    }

    fn chain(&self) -> LogChain {
        LogChain::open(&self.path(""), NumberingChoice::FromZero).unwrap()
    }

    fn live(&self) -> Live {
        Live::after(&Offsets::of(&self.chain()).unwrap(), self.chain()).unwrap()
    }
}

#[test]
fn what_follows_a_tail_begins_where_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("l");
    fs::write(&path, "one\ntwo\n").unwrap();
    let chain = LogChain::open(&path, NumberingChoice::FromZero).unwrap();
    let (mut tail, mut live) = chain.tail_and_follow(Amount::Lines(1)).unwrap();

    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut log| log.write_all(b"three"))
        .unwrap();
    let mut text = String::new();
    tail.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), live.offset().get()), ("two\n", 8));
    assert_eq!(read(&mut live), (b"three".to_vec(), Vec::new()));
}

#[expect(clippy::disallowed_methods, reason = "it plays virtlogd")]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

/// All that is new, and how much of it is missing.
fn read(live: &mut Live) -> (Vec<u8>, Vec<Option<u64>>) {
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    let mut buffer = [0; 7];
    loop {
        match live.read(&mut buffer).unwrap() {
            News::Bytes(n) => all.extend_from_slice(&buffer[..n]),
            News::Missing { size } => missing.push(size),
            News::None => return (all, missing),
        }
    }
}

#[test]
fn what_rollovers_dropped_is_said() {
    let mut bed = Bed::new(2);
    bed.print(10);
    let mut live = bed.live();
    assert_eq!(read(&mut live), (Vec::new(), Vec::new()));
    // It holds the file that it was at, but none of those it never saw.
    for _ in 0..4 {
        bed.print(10);
        bed.roll_over();
    }
    // 10 read, 10 more in the first file, 10 dropped, 20 in two files.
    bed.print(5);
    let (got, missing) = read(&mut live);
    assert_eq!(missing, [None]);
    // What it had open it gave to the end; what is there now it gave whole.
    assert_eq!(got, [&bed.written[10..20], &bed.written[30..]].concat());
}

#[test]
fn a_log_begun_anew_goes_on() {
    let mut bed = Bed::new(2);
    bed.print(10);
    bed.roll_over();
    bed.print(10);
    let mut live = bed.live();
    // A reboot without `append`: all is wiped.
    fs::remove_file(bed.path("")).unwrap();
    fs::remove_file(bed.path(".0")).unwrap();
    bed.log = File::create(bed.path("")).unwrap();
    bed.print(3);
    assert_eq!(read(&mut live), (bed.written[20..].to_vec(), vec![None]));
    assert_eq!(live.offset().get(), 23);
}

#[test]
fn a_log_emptied_from_outside_goes_on() {
    let mut bed = Bed::new(2);
    bed.print(10);
    let mut live = bed.live();
    bed.log.set_len(0).unwrap();
    std::io::Seek::rewind(&mut bed.log).unwrap();
    bed.log.write_all(b"abc").unwrap();
    assert_eq!(read(&mut live), (b"abc".to_vec(), vec![None]));
    assert_eq!(live.offset().get(), 13);
}

#[test]
fn what_the_vm_printed_elsewhere_comes_before_what_it_prints_here() {
    let mut bed = Bed::new(4);
    bed.print(10);
    let offsets = Offsets::of(&bed.chain()).unwrap();
    assert!(offsets.remember(&bed.chain()).unwrap());
    let mut live = Live::after(&offsets, bed.chain()).unwrap();

    // The VM goes away and prints 20 bytes elsewhere. Its log here is taken
    // aside, it comes back and prints on, and only then its history is placed.
    let staging = bed.path(".staging");
    fs::create_dir(bed.dir.path().join(".l.logchain.d")).unwrap();
    fs::remove_file(bed.path("")).unwrap();
    bed.log = File::create(bed.path("")).unwrap();
    bed.log.write_all(b"here").unwrap();
    assert_eq!(read(&mut live), (Vec::new(), Vec::new()));

    let mut history = bed.written.clone();
    history.extend(b"printed elsewhere...");
    fs::write(&staging, &history).unwrap();
    let (folder, base) = Folder::of_file(&bed.path("")).unwrap();
    let id = |name: &str| {
        let name = std::ffi::OsStr::new(name);
        folder.stat(name).unwrap().unwrap().id
    };
    let arrival = Arrival {
        parts: vec![(id("l.staging"), 30)],
        newer: vec![(id("l"), 4)],
        older: Vec::new(),
        stayed: None,
    };
    let console = "serial0".parse().unwrap();
    Record::update(&folder, &base, Uuid::nil(), &console, |record| {
        let history = History {
            runs: vec![(StreamOffset::new(0), 30)],
            ..History::default()
        };
        record.arriving(
            HandoffId::random(),
            &history,
            arrival,
            ("h1", Timestamp::UNIX_EPOCH),
        );
    })
    .unwrap();
    rename(&staging, &bed.path(".0"));
    fs::remove_dir(bed.dir.path().join(".l.logchain.d")).unwrap();

    assert_eq!(
        read(&mut live),
        (b"printed elsewhere...here".to_vec(), Vec::new())
    );
    assert_eq!(live.offset().get(), 34);
}

/// History is seen before it is complete: its end comes before what the VM
/// prints here, though that is there first.
#[test]
fn what_is_shown_is_followed_to_its_end_first() {
    let mut bed = Bed::new(4);
    let rules = Rules {
        numbering: Numbering::FromZero,
        retention: Retention::virtlogd(2 << 20, 4),
    };
    let id = HandoffId::random();
    let mut staging =
        Staging::open(&bed.path(""), id, rules, Arc::new(FakeWriters::SOMEBODY)).unwrap();
    let owed = |bytes| PendingAdoption {
        domain: Uuid::nil(),
        console: "serial0".parse().unwrap(),
        bytes,
        digest: String::new(),
        from: "h1".to_owned(),
        host: "h2".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        history: History {
            runs: vec![(StreamOffset::new(1000), bytes)],
            ..History::default()
        },
        contains: Vec::new(),
    };
    staging.append(true, b"from h1, ").unwrap();
    assert!(staging.show(owed(9)).unwrap());
    let mut live = bed.live();
    assert_eq!(live.offset().get(), 1009);
    staging.append(false, b"more, ").unwrap();
    assert_eq!(read(&mut live), (b"more, ".to_vec(), Vec::new()));
    bed.log.write_all(b"from h2, ").unwrap();
    assert_eq!(read(&mut live), (Vec::new(), Vec::new()));
    let poll = |from| {
        let offsets = Offsets::of(&bed.chain()).unwrap();
        match offsets.from(StreamOffset::new(from), 100).unwrap() {
            Lookup::Run(mut run) => std::io::read_to_string(&mut run).unwrap(),
            _ => String::new(),
        }
    };
    assert_eq!(
        (poll(1000), poll(1015)),
        ("from h1, more, ".into(), String::new())
    );
    staging.append(false, b"the end, ").unwrap();
    // Both a poller and a follower get the end where it belongs.
    assert_eq!(poll(1015), "the end, ");
    staging.owe(owed(24));
    staging.seal(None).unwrap();
    staging.place().unwrap();
    staging.finish().unwrap();
    staging.clean().unwrap();
    let (got, missing) = read(&mut live);
    assert_eq!((got, missing), (b"the end, from h2, ".to_vec(), Vec::new()));
    assert_eq!(
        (live.offset().get(), poll(1024)),
        (1033, "from h2, ".into())
    );
}

#[test]
fn waiting_ends_when_something_is_written() {
    let mut bed = Bed::new(2);
    let mut live = bed.live();
    live.wait(Duration::ZERO);
    bed.print(1);
    live.wait(Duration::from_secs(60));
    assert_eq!(read(&mut live).0.len(), 1);
}

#[test]
fn who_holds_and_does_not_read_loses_nothing() {
    let mut bed = Bed::new(1);
    bed.print(10);
    let mut live = bed.live();
    for _ in 0..9 {
        bed.print(10);
        bed.roll_over();
        bed.print(1);
        live.hold().unwrap();
    }
    let (got, missing) = read(&mut live);
    assert_eq!((got.as_slice(), missing), (&bed.written[10..], Vec::new()));
    assert_eq!(live.offset().get(), bed.written.len() as u64);
}

#[derive(Clone, Debug)]
enum Act {
    Print(usize),
    RollOver,
    /// With a copy, or without.
    CopyAndTruncate(bool),
    Read,
    Hold,
}

#[test]
fn what_copytruncate_took_away_comes_from_the_copy() {
    let mut bed = Bed::new(9);
    bed.print(10);
    let mut live = bed.live();
    bed.print(20);
    bed.copy_and_truncate(true);
    bed.print(100);
    assert_eq!(read(&mut live), (bed.written[10..].to_vec(), Vec::new()));
    assert_eq!(live.offset().get(), 130);
    let offsets = Offsets::of(&bed.chain()).unwrap();
    assert_eq!(
        offsets.layout(StreamOffset::START).unwrap().end().get(),
        130
    );

    // Without a copy, and again longer than it was.
    bed.copy_and_truncate(false);
    bed.print(500);
    assert_eq!(read(&mut live), (bed.written[130..].to_vec(), vec![None]));
    assert_eq!(live.offset().get(), 630);
    let offsets = Offsets::of(&bed.chain()).unwrap();
    assert_eq!(
        offsets.layout(StreamOffset::START).unwrap().end().get(),
        630
    );
}

proptest! {
    /// Each byte once and in order, with its offset; where some are missing, it is said.
    #[test]
    fn no_loss_is_silent(
        acts in proptest::collection::vec(
            prop_oneof![
                3 => (9..300_usize).prop_map(Act::Print),
                1 => Just(Act::RollOver),
                2 => proptest::bool::weighted(0.8).prop_map(Act::CopyAndTruncate),
                2 => Just(Act::Read),
                2 => Just(Act::Hold),
            ],
            0..40,
        ),
    ) {
        let mut bed = Bed::new(64);
        let mut live = bed.live();
        let (mut at, mut lossless, mut all) = (0, true, 0);
        let mut reads = |bed: &Bed, live: &mut Live, lossless: bool| {
            let mut block = [0; 100];
            loop {
                match live.read(&mut block).unwrap() {
                    News::None => return,
                    News::Missing { .. } => {
                        assert!(!lossless);
                        all = usize::MAX;
                    }
                    News::Bytes(n) => {
                        let rest = &bed.written[at..];
                        // Behind what is missing it goes on wherever these bytes are.
                        let skip = match all {
                            usize::MAX => rest.windows(n).position(|w| w == &block[..n]),
                            _ => rest.starts_with(&block[..n]).then_some(0),
                        };
                        at += skip.expect("bytes that were not printed here") + n;
                        all = at;
                        if lossless {
                            assert_eq!(live.offset().get(), at as u64);
                        }
                    }
                }
            }
        };
        for act in acts {
            match act {
                Act::Print(n) => bed.print_random(n),
                Act::RollOver => bed.roll_over(),
                Act::CopyAndTruncate(copy) => {
                    if !copy {
                        live.hold().unwrap();
                        lossless = false;
                    }
                    bed.copy_and_truncate(copy);
                }
                Act::Hold => live.hold().unwrap(),
                Act::Read => reads(&bed, &mut live, lossless),
            }
        }
        bed.print_random(9);
        reads(&bed, &mut live, lossless);
        prop_assert_eq!(at, bed.written.len());
    }

    #[test]
    fn nothing_is_missed_or_doubled_over_rollovers(
        acts in proptest::collection::vec(
            prop_oneof![
                3 => (1..30_usize).prop_map(Act::Print),
                2 => Just(Act::RollOver),
                1 => Just(Act::Read),
                1 => Just(Act::Hold),
            ],
            0..60,
        ),
    ) {
        // As many backups as there can be rollovers: nothing is dropped.
        let mut bed = Bed::new(64);
        let mut live = bed.live();
        let mut got = Vec::new();
        for act in acts {
            match act {
                Act::Print(n) => bed.print(n),
                Act::RollOver => bed.roll_over(),
                Act::CopyAndTruncate(copy) => bed.copy_and_truncate(copy),
                Act::Hold => live.hold().unwrap(),
                Act::Read => {
                    let (bytes, missing) = read(&mut live);
                    prop_assert!(missing.is_empty());
                    got.extend(bytes);
                    prop_assert_eq!(live.offset().get(), got.len() as u64);
                }
            }
        }
        // The last file is given once it has a byte.
        bed.print(1);
        got.extend(read(&mut live).0);
        prop_assert_eq!(got, bed.written);
    }
}

/// As where a rotation begins a new base before the writer is told: the old file is
/// older than the new one, and written after it, as another log would be.
#[test]
fn a_writer_that_is_late_to_the_new_base_is_followed() {
    let mut bed = Bed::new(2);
    bed.print(20);
    let mut live = bed.live();
    rename(&bed.path(""), &bed.path(".0"));
    let base = File::create(bed.path("")).unwrap();
    crate::pause::pause(Duration::from_millis(30));
    bed.print(10);
    bed.log = base;
    bed.print(5);
    let (got, missing) = read(&mut live);
    assert_eq!((&got[..], missing), (&bed.written[20..], Vec::new()));
    // And whoever comes later goes by the record that it left.
    let snapshot = bed.chain().snapshot().unwrap();
    let mut all = Vec::new();
    snapshot.read_all().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all, bed.written);
    assert_eq!(snapshot.remarks(), []);
}
