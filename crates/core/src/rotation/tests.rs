use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn id(ino: u64) -> FileId {
    FileId { ino, born: None }
}

/// A folder as virtlogd and we see it: names to files, nothing else.
#[derive(Clone, Debug, Default)]
struct Model {
    base: Option<FileId>,
    rotated: BTreeMap<u32, FileId>,
    /// Where virtlogd's rollover stands: it renames one file at a time.
    rollover: Option<u32>,
    max: u32,
    next_ino: u64,
    /// What virtlogd itself overwrote: dropped by rotation.
    dropped: Vec<FileId>,
    /// Older files that the staging holds.
    held: Vec<FileId>,
    taken: Vec<Taken>,
}

impl Model {
    fn roll_step(&mut self) {
        match self.rollover {
            None => self.rollover = Some(self.max.saturating_sub(1)),
            Some(0) => {
                if let Some(base) = self.base.take() {
                    self.dropped.extend(self.rotated.insert(0, base));
                } else {
                    self.next_ino += 1;
                    self.base = Some(id(self.next_ino));
                    self.rollover = None;
                }
            }
            Some(n) => {
                if let Some(file) = self.rotated.remove(&(n - 1)) {
                    self.dropped.extend(self.rotated.insert(n, file));
                }
                self.rollover = Some(n - 1);
            }
        }
    }

    fn finish_rollover(&mut self) {
        while self.rollover.is_some() {
            self.roll_step();
        }
    }

    fn listing(&self) -> Vec<(u32, FileId)> {
        self.rotated.iter().map(|(n, id)| (*n, *id)).collect()
    }

    /// Applies a step that was decided on an earlier listing.
    fn apply(&mut self, step: Step, goal: &Goal<'_>, seen: &[FileId]) {
        match step {
            Step::Wait | Step::Done { .. } => {}
            Step::Take { number, id } => {
                // What came away is looked at afterwards, as the executor does.
                let held = |file: FileId| goal.staged.contains(&file) || goal.stale.contains(&file);
                if let Some(file) = self.rotated.remove(&number) {
                    if file == id && !held(id) {
                        self.held.push(id);
                    } else if !held(file) && !self.held.contains(&file) {
                        let seen = seen.to_vec();
                        self.taken.push(Taken { id: file, seen });
                    }
                }
            }
            Step::Link { file, to } => {
                let id = match file {
                    Held::Taken(at) => goal.taken[at].id,
                    Held::Staged(at) => goal.staged[at],
                    Held::Older(at) => goal.older[at].id,
                };
                self.rotated.entry(to).or_insert(id);
            }
        }
    }
}

#[test]
fn history_goes_behind_what_was_rotated_here_since() {
    let staged = [id(10), id(11)];
    let mut model = Model {
        base: Some(id(1)),
        max: 9,
        ..Model::default()
    };
    model.rotated = [(0, id(2)), (1, id(20))].into();
    let mut steps = Vec::new();
    loop {
        let held = !model.held.is_empty();
        let goal = Goal {
            first: 0,
            max_backups: None,
            taken: &[],
            staged: &staged,
            older: &[Older { id: id(20), held }],
            stale: &[],
        };
        let step = next_step(true, &model.listing(), &goal, true);
        steps.push(step);
        if matches!(step, Step::Done { .. }) {
            break;
        }
        model.apply(step, &goal, &[]);
    }
    let link = |file, to| Step::Link { file, to };
    assert_eq!(
        steps,
        [
            Step::Take {
                number: 1,
                id: id(20)
            },
            link(Held::Staged(0), 1),
            link(Held::Staged(1), 2),
            link(Held::Older(0), 3),
            Step::Done { placed: 2 },
        ]
    );
}

#[test]
fn a_file_taken_by_mistake_goes_back_behind_what_is_newer() {
    let seen = vec![id(1), id(2), id(3), id(10)];
    let taken = [Taken { id: id(3), seen }];
    let goal = Goal {
        first: 0,
        max_backups: None,
        taken: &taken,
        staged: &[id(10)],
        older: &[],
        stale: &[],
    };
    // A rollover went on meanwhile: 1 was the base.
    let rotated = [(0, id(1)), (1, id(2)), (3, id(10))];
    let file = Held::Taken(0);
    assert_eq!(
        next_step(true, &rotated, &goal, false),
        Step::Link { file, to: 2 }
    );
    // It was the base itself, which nobody had seen under a number yet.
    let taken = [Taken {
        id: id(4),
        seen: vec![id(1), id(10)],
    }];
    let goal = Goal {
        taken: &taken,
        ..goal
    };
    assert_eq!(
        next_step(true, &[(1, id(1)), (2, id(10))], &goal, false),
        Step::Link { file, to: 0 }
    );
}

#[test]
fn what_is_older_falls_out_at_the_limit_and_stays_beyond_it() {
    let older = [id(20), id(21)].map(|id| Older { id, held: true });
    let goal = Goal {
        first: 0,
        max_backups: NonZeroU32::new(2),
        taken: &[],
        staged: &[id(10)],
        older: &older,
        stale: &[],
    };
    let take = |number, ino| Step::Take {
        number,
        id: id(ino),
    };
    let rotated = [(0, id(20)), (1, id(21))];
    // The oldest first.
    assert_eq!(next_step(true, &rotated, &goal, false), take(1, 21));
    assert_eq!(next_step(true, &rotated[..1], &goal, false), take(0, 20));
    let rotated = [(0, id(10)), (1, id(20))];
    let done = Step::Done { placed: 1 };
    assert_eq!(next_step(true, &rotated, &goal, false), done);
    let rotated = [(0, id(10)), (1, id(20)), (7, id(21))];
    assert_eq!(next_step(true, &rotated, &goal, false), done);
}

#[test]
fn what_the_rotation_would_have_dropped_is_not_placed() {
    let staged = [id(10), id(11), id(12)];
    let goal = Goal {
        first: 0,
        max_backups: NonZeroU32::new(3),
        taken: &[],
        staged: &staged,
        older: &[],
        stale: &[],
    };
    let rotated = [(0, id(2)), (1, id(10)), (2, id(11))];
    assert_eq!(
        next_step(true, &rotated, &goal, false),
        Step::Done { placed: 2 }
    );
}

#[test]
fn a_rollover_under_way_is_waited_for_unless_it_does_not_end() {
    let staged = [id(10)];
    let goal = Goal {
        first: 0,
        max_backups: None,
        taken: &[],
        staged: &staged,
        older: &[],
        stale: &[],
    };
    assert_eq!(next_step(true, &[(1, id(2))], &goal, false), Step::Wait);
    assert_eq!(next_step(false, &[(0, id(2))], &goal, false), Step::Wait);
    assert_eq!(
        next_step(false, &[(1, id(2))], &goal, true),
        Step::Link {
            file: Held::Staged(0),
            to: 2
        }
    );
}

#[test]
fn only_a_full_base_is_rolled_over_by_virtlogd() {
    let virtlogd = Retention::virtlogd(2000, 3);
    // It cuts at a newline in the last 80 bytes, the first of which is number 1920.
    assert!(!virtlogd.may_roll_over(1919));
    assert!(virtlogd.may_roll_over(1921));
    assert!(!Retention::virtlogd(2, 3).may_roll_over(0));
    assert!(Retention::virtlogd(2, 3).may_roll_over(1));
    assert!(!Retention::virtlogd(0, 3).may_roll_over(u64::MAX));
    assert!(Retention::UNLIMITED.may_roll_over(0));
}

#[test]
fn from_one_begins_at_one() {
    let staged = [id(10)];
    let goal = Goal {
        first: 1,
        max_backups: None,
        taken: &[],
        staged: &staged,
        older: &[],
        stale: &[],
    };
    assert_eq!(
        next_step(true, &[], &goal, false),
        Step::Link {
            file: Held::Staged(0),
            to: 1
        }
    );
}

proptest! {
    /// Whatever virtlogd does between any two of our looks and steps, and
    /// wherever we are killed and start again, the history ends up behind what
    /// was rotated here and before what is older, whole but for what virtlogd
    /// dropped at its own limit.
    #[test]
    fn every_interleaving_comes_to_the_goal(
        max in 1u32..6,
        newer in 0u32..4,
        staged_count in 0usize..6,
        older_count in 0u64..3,
        stale_count in 0u64..2,
        // How many of virtlogd's steps fall before each look and before each step.
        races in proptest::collection::vec((0u8..4, 0u8..4), 0..40),
    ) {
        let mut model = Model { base: Some(id(1)), max, next_ino: 1000, ..Model::default() };
        let newer = newer.min(max);
        for n in 0..newer {
            model.rotated.insert(n, id(u64::from(n) + 2));
        }
        let older: Vec<FileId> = (0..older_count).map(|n| id(100 + n)).collect();
        let stale: Vec<FileId> = (0..stale_count).map(|n| id(200 + n)).collect();
        for (file, n) in stale.iter().chain(&older).zip(newer..) {
            model.rotated.insert(n, *file);
        }
        let staged: Vec<FileId> = (0..staged_count).map(|n| id(300 + n as u64)).collect();
        let mut races = races.into_iter();
        let (mut waits, mut looks) = (0, 0);
        let placed = loop {
            looks += 1;
            prop_assert!(looks < 2000, "never comes to an end");
            let race = races.next();
            for _ in 0..race.map_or(0, |r| r.0) {
                model.roll_step();
            }
            if race.is_none() {
                model.finish_rollover();
            }
            let seen = (model.base.is_some(), model.listing());
            let chain: Vec<FileId> = (model.base.iter().copied())
                .chain(seen.1.iter().map(|(_, id)| *id))
                .collect();
            let held: Vec<Older> = older
                .iter()
                .map(|id| Older { id: *id, held: model.held.contains(id) })
                .collect();
            // What the staging holds as an older file by now needs no other way back.
            model.taken.retain(|t| !model.held.contains(&t.id));
            let taken = model.taken.clone();
            let goal = Goal {
                first: 0,
                max_backups: NonZeroU32::new(max),
                taken: &taken,
                staged: &staged,
                older: &held,
                stale: &stale,
            };
            for _ in 0..race.map_or(0, |r| r.1) {
                model.roll_step();
            }
            let step = next_step(seen.0, &seen.1, &goal, waits > 2);
            waits = if step == Step::Wait { waits + 1 } else { 0 };
            if let Step::Done { placed } = step
                && race.is_none() {
                    break placed;
                }
            model.apply(step, &goal, &chain);
            prop_assert!(waits < 100, "waits for ever: {model:?}");
        };

        let names = model.listing();
        // Nothing stale is left, and nothing is there twice.
        for (at, (_, file)) in names.iter().enumerate() {
            prop_assert!(!stale.contains(file));
            prop_assert!(names.iter().skip(at + 1).all(|(_, other)| other != file));
        }
        // New to old: rotated here, staged in order, older in order.
        let rank = |file: &FileId| match file.ino {
            300.. if file.ino < 1000 => 1000 + file.ino,
            100..200 => 2000 + file.ino,
            _ => 0,
        };
        let ranks: Vec<u64> = names.iter().map(|(_, file)| rank(file)).collect();
        prop_assert!(ranks.is_sorted(), "out of order: {names:?}");
        // All the staged files that fit are there, side by side.
        let k = ranks.iter().filter(|r| **r == 0).count();
        let fits = staged.len().min((max as usize).saturating_sub(k));
        prop_assert_eq!(placed, fits, "{:?}", &names);
        for (at, file) in staged.iter().take(fits).enumerate() {
            prop_assert_eq!(model.rotated.get(&u32::try_from(k + at).unwrap()), Some(file));
        }
        // Files rotated here are lost to nobody but virtlogd.
        for ino in 2..2 + u64::from(newer) {
            let there = names.iter().any(|(_, f)| f.ino == ino);
            // While it had no name, rollovers went on until it would have fallen out.
            let fell_out = model.taken.iter().any(|t| t.id.ino == ino) && k >= max as usize;
            prop_assert!(there || fell_out || model.dropped.contains(&id(ino)), "{} lost: {:?}", ino, &names);
        }
    }

    /// Parts are full files, but never more than three, and the newest is joined.
    #[test]
    fn parts_are_bounded(max in 1u64..500, files in proptest::collection::vec(0u64..2000, 0..30)) {
        let retention = Retention::virtlogd(max, 3);
        let mut parts: Vec<u64> = Vec::new();
        for size in &files {
            let mut left = *size;
            if left > 0 && parts.last().is_none_or(|part| retention.cut_at_file(*part)) {
                parts.push(0);
            }
            while left > 0 {
                let part = parts.last_mut().unwrap();
                let take = left.min(retention.room(*part));
                if take == 0 {
                    parts.push(0);
                    continue;
                }
                *part += take;
                left -= take;
            }
        }
        if parts.len() > 1 && retention.join_newest(*parts.last().unwrap()) {
            let newest = parts.pop().unwrap();
            *parts.last_mut().unwrap() += newest;
        }
        prop_assert_eq!(parts.iter().sum::<u64>(), files.iter().sum::<u64>());
        for (at, part) in parts.iter().enumerate() {
            prop_assert!(*part < 3 * max.max(81));
            prop_assert!(parts.len() == 1 || *part >= max.saturating_sub(80).max(1), "{} {:?}", at, &parts);
        }
    }
}
