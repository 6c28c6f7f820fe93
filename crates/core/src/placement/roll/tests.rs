//! A virtlogd that does what it likes between any two of our calls, and a model of
//! what must be there then.

use std::fs;
use std::io::Read;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;

use super::*;
use crate::chain::{LogChain, Numbering, NumberingChoice};
use crate::folder::fault;
use crate::rotation::Retention;
use crate::testing::{Logd, folder, numbered};

/// Calls of ours between two rollovers, at least: milliseconds.
const CALM: u32 = 30;

const PATIENCE: Duration = Duration::from_millis(40);

/// What it does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Opens the base anew, a few calls later.
    Well,
    /// Nothing.
    Deaf,
    /// Ends.
    Dies,
    /// Makes the new base, and ends.
    MakesAndDies,
}

/// virtlogd, and what it does when it is asked to open its log anew.
struct Asked {
    log: PathBuf,
    logd: Logd,
    manner: Manner,
    /// Calls until it does what it was asked for.
    asked: Option<u32>,
    asked_count: u32,
}

impl Asked {
    fn write(&mut self) {
        self.logd.write_line();
    }

    /// Begins a rollover where none is under way.
    fn roll(&mut self) {
        if self.logd.is_rolling_over() || self.asked.is_some() {
            return;
        }
        // It rolls over a full file only; one of these is, once it has a byte.
        if self.logd.wrote().last().is_some_and(String::is_empty) {
            self.write();
        }
        self.logd.begin_rollover();
    }

    fn step(&mut self) {
        if self.logd.step() {
            return;
        }
        match &mut self.asked {
            Some(0) => {
                self.asked = None;
                self.do_as_asked();
            }
            Some(calls) => *calls -= 1,
            None => {}
        }
    }

    fn do_as_asked(&mut self) {
        match self.manner {
            Manner::Well => self.logd.open().unwrap(),
            Manner::Deaf => {}
            Manner::Dies => self.logd.end(),
            Manner::MakesAndDies => {
                fs::write(&self.log, "").unwrap();
                self.logd.end();
            }
        }
    }

    fn finish(&mut self) {
        while self.logd.is_rolling_over() || self.asked.is_some() {
            self.step();
        }
    }
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Asked>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writers for Shared {
    fn writer(&self, file: &fs::File) -> Writer {
        match self.lock().logd.holds(file) {
            true => Writer::Some,
            false => Writer::None,
        }
    }
}

impl Reopen for Shared {
    fn ask(&self) -> Result<(), crate::BoxError> {
        let mut logd = self.lock();
        logd.asked = Some(3);
        logd.asked_count += 1;
        Ok(())
    }

    fn writes(&self, file: &fs::File) -> Result<bool, crate::BoxError> {
        let asked = self.lock();
        match asked.logd.is_open() {
            true => Ok(asked.logd.holds(file)),
            false => Err("gone".into()),
        }
    }
}

struct World {
    dir: tempfile::TempDir,
    log: PathBuf,
    max: u32,
    logd: Shared,
}

impl World {
    /// A log with `rotated` files behind its base.
    fn new(max: u32, rotated: u32, manner: Manner) -> Self {
        let dir = folder();
        let log = dir.path().join("console.log");
        let mut files = Vec::new();
        for number in (0..rotated).rev() {
            let text = format!("old{number} ");
            fs::write(numbered(&log, number), &text).unwrap();
            files.push(text);
        }
        // Each file that virtlogd writes is full at once.
        let logd = Logd::new(&log, 0, max);
        let mut logd = logd
            .with_lines(|number| format!("{} ", number + 1))
            .with_wrote(files);
        logd.open().unwrap();
        logd.write_line();
        let logd = Asked {
            log: log.clone(),
            logd,
            manner,
            asked: None,
            asked_count: 0,
        };
        Self {
            dir,
            log,
            max,
            logd: Shared(Arc::new(Mutex::new(logd))),
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            numbering: Numbering::FromZero,
            retention: Retention {
                max_size: Some(2),
                max_backups: NonZeroU32::new(self.max),
                only_when_full: true,
            },
        }
    }

    fn roll(&self) -> Result<Rolled, RollError> {
        let writers = Arc::new(self.logd.clone());
        roll(&self.log, self.rules(), writers, &self.logd, PATIENCE)
    }

    /// While `hook` runs before each of our calls.
    fn roll_while(
        &self,
        die_at: Option<u64>,
        mut hook: impl FnMut(u64, bool, &mut Asked) + 'static,
    ) -> (Result<Rolled, RollError>, (u64, u64)) {
        let logd = self.logd.clone();
        let other = move |calls, time_passes| {
            let mut logd = logd.lock();
            hook(calls, time_passes, &mut logd);
            if time_passes {
                logd.finish();
            } else {
                logd.step();
            }
        };
        fault::arm(die_at, Some(Box::new(other)));
        let rolled = self.roll();
        (rolled, fault::disarm())
    }

    /// Another process finds what is left.
    fn recover(&self) {
        let logd = self.logd.clone();
        let other = move |_: u64, time_passes: bool| {
            if time_passes {
                logd.lock().write();
            }
        };
        fault::arm(None, Some(Box::new(other)));
        let writers = Arc::new(self.logd.clone());
        let recovered = ChainWorkspace::recover_all(&self.log, self.rules(), writers);
        fault::disarm();
        recovered.unwrap();
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// All that the rotation keeps is there, once, in order, without a gap; and
    /// nothing of ours is.
    fn check(&self, what: &str) {
        self.logd.lock().finish();
        let files = self.logd.lock().logd.wrote().to_vec();
        let kept = files.len().min(self.max as usize + 1);
        let expected: String = files[files.len() - kept..].concat();
        let names = self.names();
        let mut all = String::new();
        let chain = LogChain::open(&self.log, NumberingChoice::FromZero).unwrap();
        match chain.snapshot() {
            Ok(snapshot) => {
                snapshot
                    .read_all()
                    .unwrap()
                    .read_to_string(&mut all)
                    .unwrap();
                assert_eq!(snapshot.gaps(), [], "{what}: {names:?}");
            }
            Err(e) => panic!("{what}: {e}: {names:?}"),
        }
        assert_eq!(all, expected, "{what}: {names:?}");
        assert!(
            !names.iter().any(|n| n.starts_with('.')),
            "{what}: {names:?}"
        );
    }
}

#[test]
fn it_rotates() {
    for (max, rotated) in [(1, 0), (3, 0), (3, 2), (3, 3), (1, 1), (4, 3)] {
        let world = World::new(max, rotated, Manner::Well);
        for round in 0..5 {
            world.logd.lock().write();
            let (rolled, _) = world.roll_while(None, |_, _, _| {});
            let what = format!("{max} {rotated} {round}");
            assert!(matches!(rolled, Ok(Rolled::Asked(_))), "{what}: {rolled:?}");
            world.logd.lock().write();
            world.check(&what);
        }
        assert_eq!(world.logd.lock().asked_count, 5);
    }
}

#[test]
fn an_empty_log_and_one_of_another_are_let_alone() {
    let world = World::new(3, 1, Manner::Well);
    fs::write(&world.log, "").unwrap();
    let (rolled, _) = world.roll_while(None, |_, _, _| {});
    assert_eq!(rolled.unwrap(), Rolled::Empty);
    world.logd.lock().logd.end();
    let before = world.names();
    let (rolled, _) = world.roll_while(None, |_, _, _| {});
    assert!(matches!(rolled, Err(RollError::NotWritten { .. })));
    assert_eq!((world.names(), world.logd.lock().asked_count), (before, 0));
}

#[test]
fn gaps_are_closed() {
    let world = World::new(5, 3, Manner::Well);
    #[expect(clippy::disallowed_methods, reason = "a number that is free")]
    fs::rename(numbered(&world.log, 2), numbered(&world.log, 4)).unwrap();
    let (rolled, _) = world.roll_while(None, |_, _, _| {});
    rolled.unwrap();
    world.check("a gap");
}

/// What an operator's greater limit left there is nobody's to move or to drop.
#[test]
fn what_lies_beyond_the_limit_stays_there() {
    let world = World::new(2, 4, Manner::Well);
    for text in ["1 ", "2 "] {
        let (rolled, _) = world.roll_while(None, |_, _, _| {});
        assert!(matches!(rolled, Ok(Rolled::Asked(_))), "{rolled:?}");
        assert_eq!(fs::read_to_string(numbered(&world.log, 0)).unwrap(), text);
        world.logd.lock().write();
    }
    let kept = |number| fs::read_to_string(numbered(&world.log, number)).unwrap();
    assert_eq!([1, 2, 3].map(kept), ["1 ", "old2 ", "old3 "]);
    assert_eq!(world.names().len(), 5);
}

/// Whoever does not come back leaves the log with its name, and all as it was.
#[test]
fn it_is_put_back_where_no_new_base_comes() {
    for (manner, why) in [
        (Manner::Deaf, "no new base"),
        (Manner::Dies, "gone;"),
        (Manner::MakesAndDies, "gone;"),
    ] {
        for rotated in 0..=3 {
            let world = World::new(3, rotated, manner);
            let before = world.names();
            let (rolled, _) = world.roll_while(None, |_, _, _| {});
            let error = rolled.unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("its name back"),
                "{error}"
            );
            assert_eq!(world.names(), before, "{manner:?} {rotated}");
            world.check(&format!("{manner:?} {rotated}"));
        }
    }
}

/// A rollover begins before any single call, and stands still after any number of
/// its own.
#[test]
fn a_rollover_at_any_moment_costs_nothing() {
    // All of them take a minute: where `LOGCHAIN_MATRIX=all` asks for it.
    let every = match std::env::var_os("LOGCHAIN_MATRIX") {
        Some(all) if all == "all" => 1,
        _ => 9,
    };
    let (mut tried, mut count) = (0, 0_u64);
    for (max, rotated) in [(1, 1), (3, 1), (3, 3), (4, 3)] {
        for steps in 0..=max + 1 {
            for rest in [1, 2, 5, 1000] {
                let mut calls = u64::MAX;
                for at in 0.. {
                    count += 1;
                    if at > calls {
                        break;
                    }
                    if calls != u64::MAX && !count.is_multiple_of(every) {
                        continue;
                    }
                    let world = World::new(max, rotated, Manner::Well);
                    let (rolled, (_, passed)) = world.roll_while(None, move |call, _, logd| {
                        if call == at {
                            logd.roll();
                            // One more is done with every call.
                            for _ in 1..steps {
                                logd.step();
                            }
                        } else if call < at + rest && call > at && logd.logd.is_rolling_over() {
                            // It stands still: what the call will do is undone.
                            logd.logd.hold_up();
                        }
                    });
                    let what = format!("{max} {rotated}: {steps} steps at {at}, rest {rest}");
                    calls = passed;
                    rolled.unwrap_or_else(|e| panic!("{what}: {e}"));
                    world.check(&what);
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

/// Killed before any single change; the next rotation finds it as it should be.
#[test]
fn a_kill_at_any_point_is_met_by_the_next_run() {
    for (max, rotated) in [(1, 1), (3, 1), (3, 2), (3, 3)] {
        for at in 0.. {
            let world = World::new(max, rotated, Manner::Well);
            let (rolled, _) = world.roll_while(Some(at), |_, _, _| {});
            if rolled.is_ok() {
                break;
            }
            world.logd.lock().finish();
            world.logd.lock().write();
            let what = format!("{max} {rotated}: killed at {at}");
            world.recover();
            let (rolled, _) = world.roll_while(None, |_, _, _| {});
            rolled.unwrap_or_else(|e| panic!("{what}: {e}"));
            world.check(&what);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Any number of rollovers, written lines and rests at any moments.
    #[test]
    fn whatever_virtlogd_does_nothing_is_lost(
        max in 1..5_u32,
        rotated in 0..5_u32,
        acts in prop::collection::vec(0..12_u8, 1..500),
        rounds in 1..3,
    ) {
        let world = World::new(max, rotated.min(max), Manner::Well);
        for _ in 0..rounds {
            let acts = acts.clone();
            let mut calm = 0;
            let (rolled, _) = world.roll_while(None, move |call, _, logd| {
                let at = usize::try_from(call).unwrap();
                calm = if logd.logd.is_rolling_over() { 0 } else { calm + 1 };
                match acts.get(at).copied().unwrap_or(9) {
                    // Between two rollovers a file has to be filled.
                    0 if calm > CALM => {
                        logd.write();
                        logd.roll();
                    }
                    1 | 2 => {
                        logd.step();
                        logd.step();
                    }
                    3 => {
                        logd.finish();
                    }
                    4 if !logd.logd.is_rolling_over() && logd.asked.is_none() => logd.write(),
                    _ => {}
                }
            });
            prop_assert!(
                matches!(rolled, Ok(_) | Err(RollError::Placement(Error::Unsettled { .. }))),
                "{rolled:?}"
            );
            world.check("random");
        }
    }
}

/// Its writer may put another file under the number at the same moment.
#[test]
fn where_a_rename_may_overwrite_nothing_is_moved() {
    let world = World::new(3, 2, Manner::Well);
    let names = world.names();
    fault::refuse_noreplace(true);
    let refused = world.roll();
    fault::refuse_noreplace(false);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("risk of overwriting"), "{refused}");
    assert_eq!((world.names(), world.logd.lock().asked_count), (names, 0));
    world.check("refused");
}
