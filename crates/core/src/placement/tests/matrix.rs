//! Every single call that changes something is a point to be killed at; between
//! any two calls virtlogd may do any number of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use super::world::{Case, Kind::*, Progress, World};
use crate::folder::fault::{self, Other};

const PLAIN: Case = Case {
    name: "plain",
    max_backups: 4,
    found: &[],
    before: true,
    append: false,
    rolled: 0,
    history: &["aa ", "bb "],
    abort: false,
    live: true,
    max_size: 2,
    show: None,
};

/// Seen while it comes.
const SHOWN: Case = Case {
    name: "shown",
    max_backups: 8,
    history: &["first file ", "second file ", "third file "],
    max_size: 86,
    show: Some(2),
    ..PLAIN
};

/// What was handed over from here comes back.
const RETURNS: Case = Case {
    name: "returns",
    found: &[("", "bb ", Handed), (".0", "aa ", Handed)],
    history: &["aa ", "bb ", "cc "],
    ..PLAIN
};

const CASES: &[Case] = &[
    PLAIN,
    Case {
        name: "rolled over",
        max_backups: 5,
        rolled: 2,
        ..PLAIN
    },
    Case {
        name: "older leftovers",
        max_backups: 6,
        found: &[(".0", "zz ", Older), (".1", "yy ", Older)],
        append: true,
        ..PLAIN
    },
    Case {
        name: "older leftovers beyond the limit",
        max_backups: 3,
        found: &[(".0", "zz ", Older), (".1", "yy ", Older)],
        append: true,
        rolled: 1,
        ..PLAIN
    },
    RETURNS,
    Case {
        name: "returns, append on",
        append: true,
        ..RETURNS
    },
    Case {
        name: "returns, aborted",
        abort: true,
        live: false,
        ..RETURNS
    },
    Case {
        name: "returns, aborted, guest still here",
        max_backups: 6,
        abort: true,
        ..RETURNS
    },
    Case {
        name: "returns, append on, aborted",
        append: true,
        abort: true,
        live: false,
        ..RETURNS
    },
    Case {
        name: "returns to older leftovers, aborted",
        found: &[
            ("", "bb ", Handed),
            (".0", "aa ", Handed),
            (".1", "zz ", Older),
        ],
        max_backups: 6,
        append: true,
        abort: true,
        rolled: 1,
        ..RETURNS
    },
    Case {
        name: "stale",
        max_backups: 6,
        found: &[(".0", "bb ", Handed), (".1", "aa ", Handed)],
        before: false,
        append: true,
        history: &["aa ", "bb ", "cc "],
        ..PLAIN
    },
    Case {
        name: "overflow",
        max_backups: 2,
        rolled: 1,
        history: &["aa ", "bb ", "cc ", "dd ", "ee "],
        ..PLAIN
    },
    Case {
        name: "small newest file",
        max_size: 86,
        history: &["aa is a full file ", "bb is another ", "cc "],
        ..PLAIN
    },
    SHOWN,
    Case {
        name: "shown, all of it but the end of a file",
        history: &["first file ", "end"],
        show: Some(1),
        ..SHOWN
    },
    Case {
        name: "shown, returns",
        found: &[("", "second file ", Handed), (".0", "first file ", Handed)],
        ..SHOWN
    },
    Case {
        name: "shown, older leftovers go behind it",
        found: &[(".0", "zz ", Older), (".1", "yy ", Older)],
        append: true,
        ..SHOWN
    },
    Case {
        name: "shown, aborted",
        abort: true,
        live: false,
        ..SHOWN
    },
    Case {
        name: "shown, aborted, guest still here",
        abort: true,
        ..SHOWN
    },
    Case {
        name: "shown, returns, aborted",
        found: &[("", "second file ", Handed), (".0", "first file ", Handed)],
        abort: true,
        live: false,
        ..SHOWN
    },
    Case {
        name: "no backups",
        max_backups: 0,
        history: &["aa ", "bb "],
        ..PLAIN
    },
];

/// Combinations that are too many for every day: each one of `of` is tried, all
/// of them where `LOGCHAIN_MATRIX=all` asks for it. Every single point is, always.
fn chosen(n: u64, of: u64) -> bool {
    n.is_multiple_of(of) || std::env::var_os("LOGCHAIN_MATRIX").is_some_and(|v| v == "all")
}

/// Runs `work` with the seam armed; gives how many changes and calls there were.
pub(super) fn armed<T>(
    die_at: Option<u64>,
    other: Option<Other>,
    work: impl FnOnce() -> T,
) -> (T, (u64, u64)) {
    fault::arm(die_at, other);
    let result = work();
    (result, fault::disarm())
}

/// How many changes and calls the case has when nothing happens.
fn length(case: &Case) -> (u64, u64) {
    let world = World::new(case);
    let mut progress = Progress::default();
    let (result, counts) = armed(None, None, || world.drive(&mut progress));
    result.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    world.check(Some(!case.abort), "undisturbed");
    counts
}

/// The two ways on: another handoff finds what is left, or the same goes on.
fn go_on(world: &World, progress: &mut Progress, same: bool, what: &str) {
    let result = if same {
        let result = world.drive(progress);
        if !world.case.abort {
            progress.sealed = true;
        }
        result
    } else {
        world.recover()
    };
    result.unwrap_or_else(|e| panic!("{}: {what}: {e}\n{:#?}", world.case.name, world.names()));
}

fn rollover(world: &World) {
    world.logd.borrow_mut().fill_and_begin_rollover();
}

/// Whoever reads at any moment has at least what was there at the one before.
#[test]
fn what_is_shown_never_shrinks() {
    for case in CASES.iter().filter(|c| c.show.is_some() && !c.abort) {
        let world = Rc::new(World::new(case));
        let seen = Rc::new(RefCell::new(String::new()));
        let (reader, longest) = (Rc::clone(&world), Rc::clone(&seen));
        let other: Other = Box::new(move |_, _| {
            if reader.shown.get() {
                let now = reader.merged().replace("new0 ", "");
                let mut longest = longest.borrow_mut();
                // What is older may come behind it.
                assert!(now.contains(&*longest), "{now} after {longest}");
                *longest = now;
            }
        });
        let mut progress = Progress::default();
        let (done, _) = armed(None, Some(other), || world.drive(&mut progress));
        done.unwrap();
        assert!(world.shown.get(), "{}", case.name);
        assert!(
            seen.borrow().ends_with(&case.history.concat()),
            "{}",
            case.name
        );
    }
}

/// virtlogd begins no rollover before its base is full.
#[test]
fn only_a_full_base_is_waited_for() {
    for (case, waits) in [(PLAIN, true), (SHOWN, false)] {
        let waited = Rc::new(RefCell::new(false));
        let seen = Rc::clone(&waited);
        let other: Other = Box::new(move |_, time_passes| *seen.borrow_mut() |= time_passes);
        let world = World::new(&case);
        let mut progress = Progress::default();
        let (done, _) = armed(None, Some(other), || world.drive(&mut progress));
        done.unwrap();
        assert_eq!(*waited.borrow(), waits, "{}", case.name);
    }
}

#[test]
fn killed_at_every_point() {
    let (began, mut points) = (Instant::now(), 0);
    for case in CASES {
        let (changes, _) = length(case);
        for at in 0..changes {
            for same in [false, true] {
                let world = World::new(case);
                let mut progress = Progress::default();
                let (died, _) = armed(Some(at), None, || world.drive(&mut progress));
                assert!(died.is_err(), "{}: {at} was not noticed", case.name);
                let what = format!("killed at {at}, same {same}, {progress:?}");
                armed(None, None, || {
                    go_on(&world, &mut progress, same, &what);
                });
                world.check(progress.placed(), &what);
                points += 1;
            }
        }
    }
    println!("{points} points in {:?}", began.elapsed());
}

#[test]
fn killed_at_every_point_and_rolled_over_before_the_next_start() {
    let (began, mut points) = (Instant::now(), 0);
    for case in CASES {
        let (changes, _) = length(case);
        for at in 0..changes {
            // Whole, or begun and ended only after we looked.
            for events in 0..=case.max_backups as usize + 1 {
                if !chosen(at + events as u64, 5) {
                    continue;
                }
                let world = World::new(case);
                let mut progress = Progress::default();
                let (_, _) = armed(Some(at), None, || world.drive(&mut progress));
                let what = format!("killed at {at}, {events} events, {progress:?}");
                rollover(&world);
                world.logd.borrow_mut().steps(events);
                let logd = Rc::clone(&world.logd);
                let other: Other = Box::new(move |_, time_passes| {
                    if time_passes {
                        logd.borrow_mut().finish();
                    }
                });
                armed(None, Some(other), || {
                    go_on(&world, &mut progress, events % 2 == 0, &what);
                });
                world.logd.borrow_mut().finish();
                world.check(progress.placed(), &what);
                points += 1;
            }
        }
    }
    println!("{points} points in {:?}", began.elapsed());
}

/// One rollover, split in two at any event, the halves any few calls apart.
#[test]
fn rolled_over_between_any_two_calls() {
    let (began, mut points) = (Instant::now(), 0);
    for case in CASES {
        let (_, calls) = length(case);
        let events = World::new(case).logd.borrow().rollover_len();
        for at in 0..calls {
            for first in 1..=events {
                for gap in [1, 4] {
                    let n = at * 5 + first as u64 + gap;
                    if first == events && gap > 1 || !chosen(n, 7) {
                        continue;
                    }
                    let world = World::new(case);
                    let mut progress = Progress::default();
                    let other = split(&world, at, first, at + gap);
                    let what = format!("rollover at {at}, {first} events, the rest {gap} later");
                    let (result, _) = armed(None, Some(other), || world.drive(&mut progress));
                    result.unwrap_or_else(|e| {
                        panic!("{}: {what}: {e}\n{:#?}", case.name, world.names())
                    });
                    world.logd.borrow_mut().finish();
                    world.check(Some(!case.abort), &what);
                    points += 1;
                }
            }
        }
    }
    println!("{points} points in {:?}", began.elapsed());
}

/// A rollover whose first events come at one call, the rest at another or as
/// soon as time passes: it takes microseconds.
fn split(world: &World, at: u64, first: usize, then: u64) -> Other {
    let logd = Rc::clone(&world.logd);
    Box::new(move |call, time_passes| {
        let mut logd = logd.borrow_mut();
        if call == at {
            logd.fill_and_begin_rollover();
            logd.steps(first);
        }
        if call == then || time_passes {
            logd.finish();
        }
    })
}

#[test]
fn rolled_over_and_killed() {
    let (began, mut points) = (Instant::now(), 0);
    for case in CASES {
        let (changes, calls) = length(case);
        let events = World::new(case).logd.borrow().rollover_len();
        for at in 0..changes {
            // Near the point of death, where it can matter, and at a step coprime
            // to everything else.
            let near = at * calls / changes;
            if !chosen(at, 3) {
                continue;
            }
            for (n, call) in (near.saturating_sub(6)..near + 4).step_by(3).enumerate() {
                let first = 1 + (n + usize::try_from(at).unwrap()) % events;
                let world = World::new(case);
                let mut progress = Progress::default();
                let other = split(&world, call, first, call + 3);
                let what = format!("rollover at {call}, {first} events, killed at {at}");
                let _ = armed(Some(at), Some(other), || world.drive(&mut progress));
                world.logd.borrow_mut().finish();
                armed(None, None, || {
                    go_on(&world, &mut progress, n % 2 == 0, &what);
                });
                world.check(progress.placed(), &what);
                points += 1;
            }
        }
    }
    println!("{points} points in {:?}", began.elapsed());
}

#[test]
fn killed_while_recovering() {
    let (began, mut points) = (Instant::now(), 0);
    for case in CASES {
        let (changes, _) = length(case);
        for at in 0..changes {
            for same in [false, true] {
                for again in 0.. {
                    if !chosen(at * 7 + again, 23) {
                        if again > changes * 2 {
                            break;
                        }
                        continue;
                    }
                    let world = World::new(case);
                    let mut progress = Progress::default();
                    let _ = armed(Some(at), None, || world.drive(&mut progress));
                    let what = format!("killed at {at}, then at {again}, same {same}");
                    let (result, _) = armed(Some(again), None, || {
                        if same {
                            world.drive(&mut progress)
                        } else {
                            world.recover()
                        }
                    });
                    if result.is_ok() {
                        break;
                    }
                    // The third start is always another handoff's.
                    armed(None, None, || go_on(&world, &mut progress, false, &what));
                    world.check(progress.placed(), &what);
                    points += 1;
                }
            }
        }
    }
    println!("{points} points in {:?}", began.elapsed());
}

/// The same on a file system that renames only with the risk of overwriting.
fn without_noreplace(test: fn()) {
    fault::refuse_noreplace(true);
    test();
    fault::refuse_noreplace(false);
}

#[test]
fn killed_at_every_point_without_noreplace() {
    without_noreplace(killed_at_every_point);
}

#[test]
fn rolled_over_between_any_two_calls_without_noreplace() {
    without_noreplace(rolled_over_between_any_two_calls);
}

#[test]
fn rolled_over_and_killed_without_noreplace() {
    without_noreplace(rolled_over_and_killed);
}

#[test]
fn killed_while_recovering_without_noreplace() {
    without_noreplace(killed_while_recovering);
}
