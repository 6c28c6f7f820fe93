//! Any chain that a rotation can leave is whole; the same chain with any one defect
//! never is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::chain::{Compression, Listing, Numbering, Ownership, Part, rotated_name};
use crate::follow::NoWriters;
use crate::ids::HandoffId;
use crate::placement::{PendingAdoption, Rules, Staging};
use crate::record::Record;
use crate::rotation::Retention;
use crate::stream::History;

/// How the base file came to be a rotated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Renamed,
    Copied,
    Dated,
}

#[derive(Clone, Debug)]
struct Step {
    how: How,
    compression: Option<Compression>,
    /// What is written afterwards.
    content: String,
}

#[derive(Clone, Debug)]
struct Chain {
    /// A history that was put in place at the very beginning.
    placed: Vec<String>,
    begin: String,
    steps: Vec<Step>,
    /// Whether files were written seconds apart; else all of them just now.
    spread: bool,
    /// Whether somebody looked by offsets, so that a record lies beside it.
    remembered: bool,
}

fn content() -> impl Strategy<Value = String> {
    "[a-z\n]{1,20}"
}

fn step(how: impl Strategy<Value = How>) -> impl Strategy<Value = Step> {
    let compression = proptest::option::of(proptest::sample::select(&Compression::ALL));
    (how, compression, content()).prop_map(|(how, compression, content)| Step {
        how,
        compression,
        content,
    })
}

fn chain() -> impl Strategy<Value = Chain> {
    let numbered = prop_oneof![Just(How::Renamed), Just(How::Copied)];
    (
        vec(content(), 0..3),
        content(),
        vec(step(Just(How::Dated)), 0..3),
        vec(step(numbered), 2..5),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(placed, begin, dated, mut numbered, spread, remembered)| {
            // Files with dates are older than all with numbers.
            let placed = if dated.is_empty() { placed } else { Vec::new() };
            if !placed.is_empty() {
                // The record knows the base from then on. What became of its bytes where
                // it was emptied or compressed since, `stream` has to tell.
                for step in &mut numbered {
                    (step.how, step.compression) = (How::Renamed, None);
                }
            }
            Chain {
                placed,
                begin,
                steps: [dated, numbered].concat(),
                spread,
                remembered,
            }
        })
}

struct World {
    dir: tempfile::TempDir,
    spread: bool,
    /// Seconds before now, of what is written next.
    age: u64,
    bytes: String,
}

impl World {
    fn build(chain: &Chain) -> Self {
        let shm = Path::new("/dev/shm");
        let dir = match shm.is_dir() {
            true => tempfile::tempdir_in(shm).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let mut world = Self {
            dir,
            spread: chain.spread,
            age: 100_000,
            bytes: chain.placed.concat(),
        };
        world.append(&chain.begin);
        if !chain.placed.is_empty() {
            world.place(&chain.placed);
        }
        for (day, step) in (1..).zip(&chain.steps) {
            world.rotate(step, day);
            world.append(&step.content);
        }
        if chain.remembered {
            world.remember();
        }
        world
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    fn base(&self) -> PathBuf {
        self.path("l")
    }

    fn chain(&self) -> LogChain {
        LogChain::open(&self.base(), NumberingChoice::FromZero).unwrap()
    }

    fn listing(&self) -> Listing {
        self.chain().listing().unwrap()
    }

    fn remember(&self) {
        let chain = self.chain();
        Offsets::of(&chain).unwrap().remember(&chain).unwrap();
    }

    fn append(&mut self, content: &str) {
        let mut options = fs::OpenOptions::new();
        let base = options.append(true).create(true).open(self.base());
        base.unwrap().write_all(content.as_bytes()).unwrap();
        self.bytes += content;
        self.touch(&self.base());
        self.age -= 10;
    }

    fn touch(&self, path: &Path) {
        if self.spread {
            set_age(path, self.age);
        }
    }

    fn place(&mut self, history: &[String]) {
        let rules = Rules {
            numbering: Numbering::FromZero,
            retention: Retention::UNLIMITED,
        };
        let id = HandoffId::random();
        let mut staging = Staging::open(&self.base(), id, rules, Arc::new(NoWriters)).unwrap();
        for file in history {
            staging.append(true, file.as_bytes()).unwrap();
        }
        let bytes = history.concat().len() as u64;
        staging.owe(PendingAdoption {
            domain: Uuid::from_u128(1),
            console: "serial0".parse().unwrap(),
            bytes,
            digest: String::new(),
            from: "h1".to_owned(),
            host: "h2".to_owned(),
            at: Timestamp::constant(1, 0),
            history: History::of(bytes),
            contains: Vec::new(),
        });
        staging.seal(None).unwrap();
        staging.place().unwrap();
        staging.finish().unwrap();
        staging.clean().unwrap();
    }

    fn rotate(&mut self, step: &Step, day: u32) {
        let to = match step.how {
            How::Dated => self.path(format!("l-202611{day:02}")),
            How::Renamed | How::Copied => {
                for file in self.listing().rotated().iter().rev() {
                    let suffix = file.compression.map_or("", Compression::suffix);
                    let mut to = rotated_name(OsStr::new("l"), file.number + 1);
                    to.push(suffix);
                    rename(&self.path(&file.name), &self.path(to));
                }
                self.path("l.0")
            }
        };
        if step.how == How::Copied {
            fs::copy(self.base(), &to).unwrap();
            self.touch(&to);
            fs::write(self.base(), "").unwrap();
        } else {
            rename(&self.base(), &to);
        }
        if let Some(compression) = step.compression {
            compress(&to, compression);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "as a rotation does")]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

fn set_age(path: &Path, seconds: u64) {
    set_time(path, SystemTime::now() - Duration::from_secs(seconds));
}

fn set_time(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_modified(time).unwrap();
}

fn time_of(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn cut_by_one(path: &Path) {
    let time = time_of(path);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    set_time(path, time);
}

/// As compressors do: the file keeps its time.
fn compress(path: &Path, compression: Compression) {
    let content = fs::read(path).unwrap();
    let packed = match compression {
        Compression::Gzip => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(&content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(&content[..], 1).unwrap(),
        Compression::Xz => {
            let options = lzma_rust2::XzOptions::with_preset(1);
            let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            encoder.write_all(&content).unwrap();
            encoder.finish().unwrap()
        }
    };
    let to = with(path, compression.suffix());
    fs::write(&to, packed).unwrap();
    set_time(&to, time_of(path));
    fs::remove_file(path).unwrap();
}

/// What is wrong, where nothing else is.
#[derive(Clone, Copy, Debug)]
enum Defect {
    /// Two rotations on one log.
    OutOfOrder,
    /// Copied without times.
    TimesOfACopy,
    /// A name that is not read.
    Unread(&'static str),
    /// Two files of one number.
    Shadowed,
    /// Another log, by what lies beside it.
    OwnRecord,
    OwnRotated,
    /// Another log, by its times.
    OlderAndWritten,
    NewerAndWritten,
    /// Another log, as the caller knows.
    Named,
    Written,
    Gap,
    Damaged,
    Link,
    Folder,
    CutShort,
    NoBase,
}

const DEFECTS: &[Defect] = &[
    Defect::OutOfOrder,
    Defect::TimesOfACopy,
    Defect::Unread(".9.bz2"),
    Defect::Unread(".9.lz4"),
    Defect::Unread(".9.foo"),
    Defect::Unread(".09"),
    Defect::Unread(".9~"),
    Defect::Unread(".old"),
    Defect::Unread("~"),
    Defect::Unread(".gz"),
    Defect::Unread("-20261120.bz2"),
    Defect::Unread("-20261120.1"),
    Defect::Shadowed,
    Defect::OwnRecord,
    Defect::OwnRotated,
    Defect::OlderAndWritten,
    Defect::NewerAndWritten,
    Defect::Named,
    Defect::Written,
    Defect::Gap,
    Defect::Damaged,
    Defect::Link,
    Defect::Folder,
    Defect::CutShort,
    Defect::NoBase,
];

/// What the other log holds: no chain here has such letters.
const OTHER: &str = "ANOTHER";

/// Applies it; gives what the caller knows then. `at` picks one of several files.
fn apply(defect: Defect, world: &World, at: prop::sample::Index) -> Ownership {
    let mut known = Ownership::default();
    let listing = world.listing();
    let files = || listing.files().filter(|f| f.part != Part::Base);
    // Newest first.
    let rotated: Vec<PathBuf> = files().map(|f| world.path(f.name.unwrap())).collect();
    let packed: Vec<bool> = files().map(|f| f.compression.is_some()).collect();
    let index = at.index(rotated.len());
    let (one, is_packed) = (&rotated[index], packed[index]);
    // Behind all that are there.
    let number = listing.rotated().last().map_or(0, |r| r.number + 1);
    let other = rotated_name(OsStr::new("l"), number);
    let neighbour = world.path(&other);
    match defect {
        Defect::OutOfOrder => {
            for (path, age) in rotated.iter().zip((1..).map(|n| n * 1000)) {
                set_age(path, age);
            }
            let pair = at.index(rotated.len() - 1);
            set_age(&rotated[pair], 1000 * (pair as u64 + 2));
            set_age(&rotated[pair + 1], 1000 * (pair as u64 + 1));
            set_age(&world.base(), 1);
        }
        Defect::TimesOfACopy => {
            for (path, age) in rotated.iter().zip((1..).map(|n| 100_000 - n * 1000)) {
                set_age(path, age);
            }
            set_age(&world.base(), 100_000);
        }
        Defect::Unread(suffix) => fs::write(world.path(format!("l{suffix}")), "x").unwrap(),
        Defect::Shadowed if is_packed => {
            let plain = one.with_extension("");
            fs::write(&plain, "x").unwrap();
            set_time(&plain, time_of(one));
        }
        Defect::Shadowed => fs::write(with(one, ".gz"), "x").unwrap(),
        Defect::OwnRecord => {
            fs::write(&neighbour, OTHER).unwrap();
            let folder = folder::Folder::open(world.dir.path()).unwrap();
            let record = Record::new(Uuid::from_u128(2), "serial0".parse().unwrap());
            record.write(&folder, &other).unwrap();
        }
        Defect::OwnRotated => {
            fs::write(&neighbour, OTHER).unwrap();
            fs::write(with(&neighbour, ".0"), OTHER).unwrap();
        }
        Defect::OlderAndWritten => {
            fs::write(&neighbour, OTHER).unwrap();
            // The base is begun anew, later than the other one.
            let content = fs::read(world.base()).unwrap();
            rename(&world.base(), &world.path("moved"));
            crate::pause::pause(Duration::from_millis(12));
            fs::write(world.base(), content).unwrap();
            set_time(&neighbour, SystemTime::now() + Duration::from_secs(60));
        }
        Defect::NewerAndWritten => {
            fs::write(&neighbour, OTHER).unwrap();
            set_time(&neighbour, SystemTime::now() + Duration::from_secs(60));
        }
        Defect::Named => {
            fs::write(&neighbour, OTHER).unwrap();
            set_age(&neighbour, 200_000);
            known.named_by_another(other);
        }
        Defect::Written => {
            fs::write(&neighbour, OTHER).unwrap();
            set_age(&neighbour, 200_000);
            known.written_by_another(other);
        }
        Defect::Gap => {
            // What is missing behind the last one cannot be known.
            let numbered = &listing.rotated()[..listing.rotated().len() - 1];
            fs::remove_file(world.path(&at.get(numbered).name)).unwrap();
        }
        Defect::Damaged if is_packed => cut_by_one(one),
        Defect::Damaged => rename(one, &with(one, Compression::ALL[at.index(3)].suffix())),
        Defect::Link => {
            let real = world.path("real");
            rename(one, &real);
            std::os::unix::fs::symlink(real, one).unwrap();
        }
        Defect::Folder => {
            fs::remove_file(one).unwrap();
            fs::create_dir(one).unwrap();
        }
        Defect::CutShort => {
            // Known, so that it can be missed. Of a packed file one byte less shows anyway.
            world.remember();
            cut_by_one(one);
        }
        Defect::NoBase => fs::remove_file(world.base()).unwrap(),
    }
    known
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_chain_that_a_rotation_leaves_is_whole(chain in chain()) {
        let world = World::build(&chain);
        let verdict = verify(&world.chain(), None).unwrap();
        prop_assert!(verdict.is_whole(), "{:?}", verdict.findings);
        prop_assert_eq!(verdict.bytes, world.bytes.len() as u64);
        let snapshot = world.chain().snapshot().unwrap();
        let read = io::read_to_string(snapshot.read_all().unwrap()).unwrap();
        prop_assert_eq!(&read, &world.bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_chain_with_one_defect_is_never_whole(
        chain in chain(),
        defect in proptest::sample::select(DEFECTS),
        at in any::<prop::sample::Index>(),
    ) {
        let by_times = matches!(defect, Defect::OutOfOrder | Defect::TimesOfACopy);
        let chain = match by_times {
            // Where the record knows the order, times contradict nothing.
            true => Chain { placed: Vec::new(), remembered: false, ..chain },
            false => chain,
        };
        // Of two rotated files that are newer than the base times are known to say nothing.
        let few = chain.steps.len() < 3;
        prop_assume!(!(few && matches!(defect, Defect::TimesOfACopy)));
        let world = World::build(&chain);
        let known = apply(defect, &world, at);
        let chain = world.chain().owned(known).unwrap();
        let verdict = verify(&chain, None).unwrap();
        prop_assert!(!verdict.is_whole(), "{defect:?}: {:?}", world.listing());
        // A log that is no part of it is never read as one.
        if let Ok(snapshot) = chain.snapshot() {
            let mut read = Vec::new();
            // A damaged file ends the reading.
            let _ = snapshot.read_all().unwrap().read_to_end(&mut read);
            let other = read.windows(OTHER.len()).any(|bytes| bytes == OTHER.as_bytes());
            prop_assert!(!other, "{defect:?}: {}", read.escape_ascii());
        }
    }
}

/// Without what knows of them, each of these would be read in silence: the property
/// above can fail.
#[test]
fn a_neighbour_that_nobody_knows_of_would_be_read() {
    let chain = Chain {
        placed: Vec::new(),
        begin: "one".to_owned(),
        steps: vec![Step {
            how: How::Renamed,
            compression: None,
            content: "two".to_owned(),
        }],
        spread: true,
        remembered: false,
    };
    let world = World::build(&chain);
    let neighbour = world.path("l.1");
    fs::write(&neighbour, OTHER).unwrap();
    set_age(&neighbour, 200_000);
    let verdict = verify(&world.chain(), None).unwrap();
    assert!(verdict.is_whole());
    let other: OsString = "l.1".into();
    let mut known = Ownership::default();
    known.named_by_another(other);
    let verdict = verify(&world.chain().owned(known).unwrap(), None).unwrap();
    assert_eq!((verdict.is_whole(), verdict.bytes), (false, 6));
}
