//! Rollovers between any two questions to the folder, far more often than a real
//! one could place them.

use std::cell::RefCell;
use std::fs::File;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::chain::snapshot::Names;
use crate::folder::{self, FileId, Stat};
use crate::stream::Ledger;

const BACKUPS: usize = 3;

/// The names of a chain; files are known by the order of their creation.
#[derive(Debug)]
struct Rolling {
    base: Option<u64>,
    rotated: [Option<u64>; BACKUPS],
    created: u64,
    /// What the rollover does next.
    step: usize,
    /// How many steps are done before each question.
    pace: Vec<u8>,
    asked: usize,
    waits: usize,
}

impl Rolling {
    fn new(rolled: usize, pace: Vec<u8>) -> Self {
        let mut rolling = Self {
            base: Some(0),
            rotated: [None; BACKUPS],
            created: 0,
            step: 0,
            pace,
            asked: 0,
            waits: 0,
        };
        (0..rolled).for_each(|_| rolling.go_on());
        rolling
    }

    /// `.1` to `.2`, `.0` to `.1`, the base to `.0`, a new base.
    fn go_on(&mut self) {
        match BACKUPS.checked_sub(self.step + 1) {
            None => {
                self.created += 1;
                self.base = Some(self.created);
            }
            Some(0) => self.rotated[0] = self.base.take(),
            // A name that is not there is passed over.
            Some(to) if self.rotated[to - 1].is_none() => {}
            Some(to) => self.rotated[to] = self.rotated[to - 1].take(),
        }
        self.step = (self.step + 1) % (BACKUPS + 1);
    }

    fn asked(&mut self) {
        let steps = self.pace[self.asked % self.pace.len()];
        self.asked += 1;
        (0..steps).for_each(|_| self.go_on());
    }

    /// Base and rotated files.
    fn slot(&mut self, slot: usize) -> Option<Stat> {
        self.asked();
        let file = if slot == 0 {
            self.base
        } else {
            self.rotated[slot - 1]
        };
        file.map(|ino| Stat {
            id: FileId { ino, born: None },
            size: 0,
            allocated: 0,
            modified: (0, 0),
            mode: 0o600,
            owner: (0, 0),
            regular: true,
        })
    }
}

impl Names for RefCell<Rolling> {
    fn path(&self) -> &Path {
        Path::new("/")
    }

    fn listing(&self, base: &OsStr) -> Result<Listing> {
        let mut rolling = self.borrow_mut();
        // Each name is looked at for itself, in an order that differs.
        let (mut at, mut rotated) = (None, Vec::new());
        let turn = rolling.asked;
        for slot in (0..=BACKUPS).map(|slot| (slot + turn) % (BACKUPS + 1)) {
            let stat = rolling.slot(slot);
            let Some(number) = slot.checked_sub(1) else {
                at = stat;
                continue;
            };
            let number = u32::try_from(number).unwrap();
            let name = rotated_name(base, number);
            rotated.extend(stat.map(|stat| Rotated {
                name,
                number,
                compression: None,
                stat,
            }));
        }
        Ok(Listing::new(at, rotated, []))
    }

    fn open(&self, name: &OsStr) -> folder::Result<(File, Stat)> {
        let slot = RotatedName::parse(OsStr::new("log"), name)
            .map_or(0, |n| usize::try_from(n.number).unwrap() + 1);
        let missing = || folder::Error::NotFound { path: name.into() };
        let stat = self.borrow_mut().slot(slot).ok_or_else(missing)?;
        Ok((File::open("/dev/null").unwrap(), stat))
    }

    fn ledger(&self, _: &OsStr) -> Ledger {
        Ledger::default()
    }

    fn wait(&self, _: Duration) {
        let mut rolling = self.borrow_mut();
        rolling.waits += 1;
        rolling.asked();
        // The rollover becomes slower: it must end some time.
        if rolling.waits.is_multiple_of(8) {
            rolling.pace.extend([0; 40]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn a_snapshot_misses_and_doubles_no_file(
        rolled in 0..30_usize,
        pace in proptest::collection::vec(
            prop_oneof![12 => Just(0), 3 => 1..4_u8, 1 => Just(4), 1 => 5..9_u8], 1..40,
        ),
    ) {
        let rolling = RefCell::new(Rolling::new(rolled, pace));
        let before = rolling.borrow().created;
        let taken = Snapshot::take(&rolling, OsStr::new("log"), Numbering::FromZero);
        let end = rolling.borrow();
        // It may refuse to say anything, but only after all tries.
        let snapshot = match taken {
            Ok(snapshot) => snapshot,
            Err(Error::Unsettled { .. } | Error::SameFile { .. }) if end.waits >= 49 => return Ok(()),
            Err(e) => return Err(TestCaseError::fail(e.to_string())),
        };
        let files: Vec<_> = snapshot.files().iter().map(|f| f.id().ino).collect();
        for pair in files.windows(2) {
            prop_assert_eq!(pair[0] + 1, pair[1], "{:?}", &files);
        }
        let (oldest, newest) = (files[0], files[files.len() - 1]);
        prop_assert!(newest >= before, "{newest}, though {before} was there");
        // Rolled over for so often, or about to be: it may be dropped.
        let kept = (end.created + 1).saturating_sub(BACKUPS as u64);
        prop_assert!(oldest <= kept, "{files:?}, though {kept} is kept");
        if snapshot.base_is_missing() {
            prop_assert!(end.waits >= 49);
        }
    }
}
