//! Random lives of a destination: virtlogd's events, handoffs, kills and starts
//! in any order, against a stream of files as the only model.

use std::rc::Rc;

use proptest::prelude::*;

use super::matrix::armed;
use super::world::{Case, Kind, Progress, World};
use crate::folder::fault::Other;

/// What happens in one process's life.
#[derive(Clone, Debug)]
struct Life {
    /// The change at which it is killed.
    dies: Option<u64>,
    /// Calls at which virtlogd does so many of its events, beginning a rollover
    /// where none is under way.
    events: Vec<(u64, usize)>,
    /// Rollovers before the next start.
    after: u8,
    /// Whether the same handoff goes on.
    same: bool,
}

fn life() -> impl Strategy<Value = Life> {
    (
        proptest::option::weighted(0.7, 0u64..70),
        proptest::collection::vec((0u64..250, 1usize..6), 0..5),
        0u8..3,
        any::<bool>(),
    )
        .prop_map(|(dies, events, after, same)| Life {
            dies,
            events,
            after,
            same,
        })
}

const FOUND: &[&[(&str, &str, Kind)]] = &[
    &[],
    &[("", "bb ", Kind::Handed), (".0", "aa ", Kind::Handed)],
    &[(".0", "zz ", Kind::Older), (".1", "yy ", Kind::Older)],
    &[
        ("", "bb ", Kind::Handed),
        (".0", "aa ", Kind::Handed),
        (".1", "zz ", Kind::Older),
    ],
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn no_life_loses_or_doubles_a_byte(
        found in 0..FOUND.len(),
        append in any::<bool>(),
        abort in any::<bool>(),
        live in any::<bool>(),
        // Tight ones drop by what rotation says; the others drop nothing.
        max_backups in prop_oneof![Just(2u32), Just(3), Just(40)],
        show in proptest::option::of(1..3_usize),
        lives in proptest::collection::vec(life(), 1..4),
    ) {
        let case = Case {
            name: "random",
            // What is put back beyond a tight limit is a case of its own.
            max_backups,
            found: FOUND[found],
            before: true,
            append,
            rolled: 0,
            history: if show.is_some() {
                &["aa aa aa ", "bb bb bb ", "cc cc cc "]
            } else {
                &["aa ", "bb ", "cc "]
            },
            abort,
            live,
            max_size: if show.is_some() { 86 } else { 2 },
            // A part that is seen takes more files than one: they are not counted as before.
            show: show.filter(|_| max_backups == 40),
        };
        let world = World::new(&case);
        let mut progress = Progress::default();
        let mut over = false;
        for life in &lives {
            // What another process undid while the guest is here is not begun anew.
            over |= !life.same;
            let logd = Rc::clone(&world.logd);
            let events = life.events.clone();
            let other: Other = Box::new(move |call, time_passes| {
                let mut logd = logd.borrow_mut();
                for (_, count) in events.iter().filter(|(at, _)| *at == call) {
                    if !logd.is_rolling_over() {
                        logd.fill_and_begin_rollover();
                    }
                    logd.steps(*count);
                }
                if time_passes {
                    logd.finish();
                }
            });
            let (_, _) = armed(life.dies, Some(other), || {
                if !over {
                    world.drive(&mut progress)
                } else {
                    world.recover()
                }
            });
            for _ in 0..life.after {
                let mut logd = world.logd.borrow_mut();
                logd.finish();
                logd.fill_and_begin_rollover();
            }
            world.logd.borrow_mut().finish();
        }
        let (last, _) = armed(None, None, || world.recover());
        prop_assert!(last.is_ok(), "{last:?}");
        world.check(progress.placed(), &format!("{lives:?}"));
    }
}
