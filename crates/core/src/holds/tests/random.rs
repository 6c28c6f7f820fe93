//! A held log against a model of names and bytes, whatever is done to it and in which
//! order. The thread looks whenever it likes, also in the middle of what is done.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use std::fs::File;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Print(usize),
    RollOver,
    /// The guest starts, and its log has `append='off'`.
    Wipe,
    /// It starts, and its log goes on.
    Start,
    RemoveBase,
    RemoveRotated(usize),
    /// The folder goes with all that is in it, and comes again.
    RemoveFolder,
    /// logrotate renames, and has virtlogd open its log anew.
    Rotate,
    /// The oldest plain rotated file.
    Compress,
    CopyAndTruncate,
    /// logchain puts history behind the oldest file.
    Place(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (1..300_usize).prop_map(Act::Print),
        4 => Just(Act::RollOver),
        1 => Just(Act::Wipe),
        1 => Just(Act::Start),
        1 => Just(Act::RemoveBase),
        1 => (0..4_usize).prop_map(Act::RemoveRotated),
        1 => Just(Act::RemoveFolder),
        1 => Just(Act::Rotate),
        2 => Just(Act::Compress),
        2 => Just(Act::CopyAndTruncate),
        1 => (1..300_usize).prop_map(Act::Place),
    ];
    proptest::collection::vec(act, 1..40)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Base,
    Number(u32),
}

#[derive(Clone, Debug)]
struct ModelFile {
    id: usize,
    name: Option<Name>,
    packed: bool,
    bytes: Vec<u8>,
}

/// What ought to be held.
#[derive(Default)]
struct Model {
    /// Oldest first.
    log: Vec<ModelFile>,
    /// Oldest first, each by its number.
    earlier: Vec<(u64, Vec<u8>)>,
    generation: u64,
    written: Option<usize>,
    files: usize,
}

impl Model {
    fn new_file(&mut self, name: Name, bytes: Vec<u8>) -> ModelFile {
        self.files += 1;
        ModelFile {
            id: self.files,
            name: Some(name),
            packed: false,
            bytes,
        }
    }

    fn find(&mut self, name: Name) -> Option<&mut ModelFile> {
        self.log.iter_mut().find(|file| file.name == Some(name))
    }

    fn rename(&mut self, from: Name, to: Name) {
        let Some(packed) = self.find(from).map(|file| file.packed) else {
            return;
        };
        assert!(self.find(to).is_none_or(|there| there.packed == packed));
        if let Some(there) = self.find(to) {
            there.name = None;
        }
        self.find(from).unwrap().name = Some(to);
    }

    /// virtlogd opens its log: the base, or a new one.
    fn open(&mut self) {
        if self.find(Name::Base).is_none() {
            let base = self.new_file(Name::Base, Vec::new());
            self.settle(Some(base));
        }
        self.written = self.find(Name::Base).map(|base| base.id);
    }

    /// What is held of what lost its name, by then.
    fn settle(&mut self, base: Option<ModelFile>) {
        if self.log.last().is_none_or(|newest| newest.name.is_some()) {
            self.log.retain(|file| file.name.is_some());
        } else if base.is_some() {
            let (named, gone): (Vec<_>, Vec<_>) =
                self.log.drain(..).partition(|file| file.name.is_some());
            self.log = named;
            // A compressed file has bytes though there are none in it.
            let has_bytes = |file: &ModelFile| file.packed || !file.bytes.is_empty();
            let is_kept = gone.iter().any(has_bytes);
            let bytes: Vec<u8> = gone.into_iter().flat_map(|file| file.bytes).collect();
            if is_kept {
                self.earlier.push((self.generation, bytes));
            }
            self.generation += 1;
        }
        self.log.extend(base);
    }

    fn shift(&mut self, most: u32) {
        for n in (1..most).rev() {
            self.rename(Name::Number(n - 1), Name::Number(n));
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.log
            .iter()
            .flat_map(|file| file.bytes.clone())
            .collect()
    }
}

struct World {
    bed: Bed,
    logd: Logd,
    model: Model,
    backups: u32,
    printed: usize,
}

impl World {
    fn new(backups: u32, limits: Limits) -> Self {
        let bed = Bed::new(limits);
        let mut world = Self {
            logd: Logd::new(&bed.path, 1 << 20, backups),
            bed,
            model: Model::default(),
            backups,
            printed: 0,
        };
        world.logd.open().unwrap();
        world.model.open();
        world.bed.log.look();
        world
    }

    fn text(&mut self, length: usize) -> Vec<u8> {
        let mut text = String::new();
        while text.len() < length {
            self.printed += 1;
            text.push_str(&format!("{}\n", self.printed));
        }
        text.into_bytes()
    }

    fn path_of(&self, file: &ModelFile) -> PathBuf {
        let mut path = match file.name.unwrap() {
            Name::Base => self.bed.path.clone(),
            Name::Number(number) => numbered(&self.bed.path, number),
        };
        if file.packed {
            path.as_mut_os_string().push(".zst");
        }
        path
    }

    fn rotated(&self) -> Vec<ModelFile> {
        let files = self.model.log.iter();
        let is_rotated = |file: &&ModelFile| matches!(file.name, Some(Name::Number(_)));
        files.filter(is_rotated).cloned().collect()
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Print(length) => {
                let text = self.text(length);
                self.logd.write(&text).unwrap();
                let written = self.model.written;
                for file in &mut self.model.log {
                    if Some(file.id) == written {
                        file.bytes.extend_from_slice(&text);
                    }
                }
            }
            Act::RollOver => {
                self.shift_clashes();
                // The guest's last bytes may be in a file without a name.
                self.logd.roll_over().unwrap();
                self.model.shift(self.backups);
                self.model.rename(Name::Base, Name::Number(0));
                self.model.open();
            }
            Act::Wipe => {
                self.logd.end();
                self.logd.wipe();
                let backups = self.backups;
                for file in &mut self.model.log {
                    if !file.packed
                        && match file.name {
                            Some(Name::Number(number)) => number < backups,
                            Some(Name::Base) | None => true,
                        }
                    {
                        file.name = None;
                    }
                }
                self.logd.open().unwrap();
                self.model.open();
            }
            Act::Start => {
                self.logd.end();
                self.logd.open().unwrap();
                self.model.open();
            }
            Act::RemoveBase => {
                let _ = fs::remove_file(&self.bed.path);
                if let Some(base) = self.model.find(Name::Base) {
                    base.name = None;
                }
                self.model.settle(None);
            }
            Act::RemoveRotated(which) => {
                let rotated = self.rotated();
                if let Some(file) = rotated.get(which) {
                    fs::remove_file(self.path_of(file)).unwrap();
                    let Some(name) = file.name else { return };
                    self.model.find(name).unwrap().name = None;
                    self.model.settle(None);
                }
            }
            Act::RemoveFolder => {
                self.logd.end();
                let _ = fs::remove_file(&self.bed.path);
                let folder = self.bed.path.parent().unwrap().to_owned();
                fs::remove_dir_all(&folder).unwrap();
                for file in &mut self.model.log {
                    file.name = None;
                }
                if self.printed.is_multiple_of(2) {
                    self.check();
                }
                fs::create_dir(folder).unwrap();
                if self.printed.is_multiple_of(3) {
                    self.check();
                }
                self.logd.open().unwrap();
                self.model.open();
            }
            Act::Rotate => {
                if self.model.find(Name::Base).is_none() {
                    return;
                }
                self.shift_clashes();
                self.logd.begin_rollover();
                // All but the opening of a new one.
                self.logd.steps(self.backups as usize);
                self.model.shift(self.backups);
                self.model.rename(Name::Base, Name::Number(0));
                self.model.settle(None);
                self.check();
                self.logd.finish();
                self.model.open();
            }
            Act::Compress => {
                let rotated = self.rotated();
                let Some(file) = rotated.iter().find(|file| !file.packed) else {
                    return;
                };
                let path = self.path_of(file);
                let packed = zstd::bulk::compress(&fs::read(&path).unwrap(), 1).unwrap();
                let mut name = path.clone();
                name.as_mut_os_string().push(".zst");
                fs::write(name, packed).unwrap();
                self.check();
                fs::remove_file(path).unwrap();
                let Some(name) = file.name else { return };
                self.model.find(name).unwrap().packed = true;
            }
            Act::CopyAndTruncate => {
                self.shift_clashes();
                let written = self.model.written;
                let base = self.model.find(Name::Base).map(|base| base.id);
                if base.is_none() || base != written || self.backups == 1 {
                    return;
                }
                self.logd.copy_and_truncate().unwrap();
                self.model.shift(self.backups);
                let bytes = std::mem::take(&mut self.model.find(Name::Base).unwrap().bytes);
                let copy = self.model.new_file(Name::Number(0), bytes);
                let at = self.model.log.len() - 1;
                self.model.log.insert(at, copy);
                self.model.settle(None);
            }
            Act::Place(length) => {
                // As placing leaves a log alone that has no base.
                if self.model.find(Name::Base).is_none() {
                    return;
                }
                let number = self
                    .rotated()
                    .first()
                    .map_or(0, |oldest| match oldest.name {
                        Some(Name::Number(number)) => number + 1,
                        _ => 0,
                    });
                let text = self.text(length);
                let path = numbered(&self.bed.path, number);
                let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
                let new = path.with_extension("part");
                fs::write(&new, &text).unwrap();
                File::options()
                    .append(true)
                    .open(&new)
                    .unwrap()
                    .set_modified(old)
                    .unwrap();
                rename(&new, &path);
                let placed = self.model.new_file(Name::Number(number), text);
                self.model.log.insert(0, placed);
            }
        }
    }

    /// The oldest file that virtlogd keeps does not give way to one that is compressed
    /// where it is plain, or the other way round. Whoever compresses sees to it that it is
    /// removed before.
    fn shift_clashes(&mut self) {
        let last = self.backups - 1;
        let newer = last.checked_sub(1).map_or(Name::Base, Name::Number);
        let Some(newer) = self.model.find(newer).map(|file| file.packed) else {
            return;
        };
        let Some(oldest) = self.model.find(Name::Number(last)).cloned() else {
            return;
        };
        if oldest.packed != newer {
            fs::remove_file(self.path_of(&oldest)).unwrap();
            self.model.find(Name::Number(last)).unwrap().name = None;
            self.model.settle(None);
            self.bed.log.look();
        }
    }

    fn check(&mut self) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.bed.log.look();
        assert_eq!(self.bed.taken(), text(&self.model.bytes()));
        let earlier = self.bed.log.earlier();
        let earlier: Vec<_> = earlier.iter().map(|log| log.generation).collect();
        let kept = self.model.earlier.len().saturating_sub(AT_ONCE.generations);
        self.model.earlier.drain(..kept);
        let expected = self.model.earlier.iter().map(|log| log.0);
        assert_eq!(earlier, expected.collect::<Vec<_>>());
        for (number, bytes) in &self.model.earlier {
            assert_eq!(self.bed.earlier(*number), text(bytes));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("LOGCHAIN_LIVES").map_or(24, |n| n.parse().unwrap()),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_held_is_the_log_and_what_was_before_it(acts in acts(), backups in 1..5_u32) {
        let mut world = World::new(backups, AT_ONCE);
        for act in acts {
            world.act(act);
            world.check();
        }
    }

    /// Never more than is allowed, and never without what is written now.
    #[test]
    fn unlinked_bytes_stay_within_their_bound(
        acts in acts(),
        backups in 1..5_u32,
        most in 0..2000_u64,
    ) {
        let limits = Limits { unlinked_bytes: most, generations: 5, ..AT_ONCE };
        let mut world = World::new(backups, limits);
        for act in acts {
            if matches!(act, Act::RemoveFolder | Act::Compress | Act::Rotate) {
                continue;
            }
            world.act(act);
            world.bed.log.look();
            assert!(world.bed.log.unlinked_bytes() <= most);
            let newest = world.model.log.last().map(|file| file.bytes.clone());
            assert!(world.bed.taken().into_bytes().ends_with(&newest.unwrap_or_default()));
        }
    }
}
