//! How carried history comes to lie behind a base file that is being written:
//! pure functions from what is there to the next thing to do.
//!
//! virtlogd renames the same files at any moment, in another process. So there
//! is no fixed list of renames: [`next_step`] looks at a listing and names one
//! step towards the goal; whoever applies it looks again. Started anew after a
//! crash at any step, or after any rollover, it comes to the same end.
//!
//! The goal, from new to old:
//!
//! ```text
//! base | rotated here since the VM came | staged history | older leftovers
//! ```
//!
//! Must not know: folders, clocks, transports.
//!
//! How a carried history is cut, so that it looks as virtlogd would have left it:
//!
//! ```
//! use logchain_core::rotation::Retention;
//!
//! // 2 MiB a file, three rotated files.
//! let retention = Retention::virtlogd(2 << 20, 3);
//! // A source's small file is no part of its own …
//! assert!(!retention.cut_at_file(1000));
//! // … a full one is, even if virtlogd cut it at a newline a little earlier.
//! assert!(retention.cut_at_file((2 << 20) - 80));
//! // Where nothing is rolled over, every file stays what it was.
//! assert!(Retention::virtlogd(0, 3).cut_at_file(1000));
//! ```

use std::num::NonZeroU32;

use crate::folder::FileId;

/// virtlogd cuts a full file at a newline if one lies in its last bytes, so a
/// full file may be smaller than the limit by as much.
/// Source: libvirt 9.0.0, `src/util/virrotatingfile.c`.
const NEWLINE_SLACK: u64 = 80;

/// What the rotation at the destination keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Size in bytes at which a base file is rolled over; `None`: never.
    pub max_size: Option<u64>,
    /// How many rotated files are kept; `None`: any number.
    pub max_backups: Option<NonZeroU32>,
    /// Whether whoever rolls the log over does so only when the base file is full, as
    /// virtlogd does. `false`: it may come at any moment, as an operator's own
    /// rotation does.
    pub only_when_full: bool,
}

impl Retention {
    /// Nothing is ever dropped, no file is ever full; an operator's own rotation may
    /// rename files at any moment.
    pub const UNLIMITED: Self = Self {
        max_size: None,
        max_backups: None,
        only_when_full: false,
    };

    /// Carried history takes one number behind the base, however long it is: where it
    /// is not known how many numbers are kept, or higher ones are removed by somebody
    /// else, none of it is dropped for that. `only_when_full` as the field.
    #[must_use]
    pub const fn in_one_file(only_when_full: bool) -> Self {
        Self {
            // No file is ever as large.
            max_size: Some(u64::MAX / 4),
            max_backups: None,
            only_when_full,
        }
    }

    /// From virtlogd's settings, where a size of 0 means never. With 0 backups
    /// virtlogd keeps none, but carried history has to lie somewhere: one is used.
    #[must_use]
    pub fn virtlogd(max_size: u64, max_backups: u32) -> Self {
        let only_when_full = true;
        if max_size == 0 {
            return Self {
                only_when_full,
                ..Self::UNLIMITED
            };
        }
        Self {
            max_size: Some(max_size),
            max_backups: Some(NonZeroU32::new(max_backups).unwrap_or(NonZeroU32::MIN)),
            only_when_full,
        }
    }

    /// Whether a rollover may be under way while the base file has `size` bytes.
    /// `false` is certain as long as nobody truncates the file: virtlogd goes by the
    /// position that it remembers.
    #[must_use]
    pub fn may_roll_over(self, size: u64) -> bool {
        !self.only_when_full || self.full().is_some_and(|full| size >= full)
    }

    /// The least size of a file that counts as a full one.
    fn full(self) -> Option<u64> {
        self.max_size
            .map(|max| max.saturating_sub(NEWLINE_SLACK).max(1))
    }

    /// Whether history staged into a part of `size` bytes goes on in a new part,
    /// now that a new file of the source begins.
    ///
    /// Every part but the newest must be a full file: virtlogd drops by number,
    /// not by size, so a small file in a numbered place would have older ones
    /// dropped sooner than a rotation without a migration would drop them.
    #[must_use]
    pub fn cut_at_file(self, size: u64) -> bool {
        self.full().is_none_or(|full| size >= full)
    }

    /// How many more bytes a part of `size` bytes takes before it is cut in the
    /// middle of a source file. Without this a VM that moves often and prints
    /// little would grow one part for ever.
    #[must_use]
    pub fn room(self, size: u64) -> u64 {
        self.max_size
            .map_or(u64::MAX, |max| max.saturating_mul(2).saturating_sub(size))
    }

    /// Whether the newest part, of `size` bytes, is too small for a place of its
    /// own and belongs at the end of the part before it.
    #[must_use]
    pub fn join_newest(self, size: u64) -> bool {
        self.full().is_some_and(|full| size < full)
    }

    /// How many parts can still matter: older ones would be dropped at once.
    #[must_use]
    pub fn parts(self) -> usize {
        // One more than is kept: the newest may yet be joined to the one before it.
        self.max_backups.map_or(usize::MAX, |n| {
            usize::try_from(n.get())
                .unwrap_or(usize::MAX)
                .saturating_add(1)
        })
    }
}

/// What is to lie behind the base file.
#[derive(Clone, Debug)]
pub struct Goal<'a> {
    /// The first number of a rotated file: 0 or 1.
    pub first: u32,
    /// How many numbers the rotation keeps; `None`: any.
    pub max_backups: Option<NonZeroU32>,
    /// Files rotated here that a step of ours met in another's place and took
    /// from their names. They go back first of all.
    pub taken: &'a [Taken],
    /// The staged history, newest first.
    pub staged: &'a [FileId],
    /// Rotated files that are older than the staged history, newest first.
    pub older: &'a [Older],
    /// Rotated files whose bytes the staged history holds too.
    pub stale: &'a [FileId],
}

/// A file rotated here that has no name for the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which file.
    pub id: FileId,
    /// The chain as it was seen just before, newest first.
    pub seen: Vec<FileId>,
}

/// A rotated file that is older than the staged history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    /// Which file.
    pub id: FileId,
    /// Whether the staging holds it: then it can be given a name again.
    pub held: bool,
}

/// A file that the staging holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its place in [`Goal::taken`].
    Taken(usize),
    /// Its place in [`Goal::staged`].
    Staged(usize),
    /// Its place in [`Goal::older`].
    Older(usize),
}

/// One step towards a [`Goal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A rollover seems to be under way: look again a moment later.
    Wait,
    /// Take the file with this number from its name: its bytes are held
    /// elsewhere, or its place is another one.
    Take {
        /// Its number.
        number: u32,
        /// Which file it must be.
        id: FileId,
    },
    /// Give a file that the staging holds its name.
    Link {
        /// Which one.
        file: Held,
        /// The number, free now.
        to: u32,
    },
    /// The goal is reached. The first `placed` of the staged files are in place;
    /// the others would lie where the rotation keeps nothing.
    Done {
        /// How many of [`Goal::staged`] are in place.
        placed: usize,
    },
}

/// The next step from `rotated` (number and identity, in rising order of
/// number) towards `goal`. `settled` says that the listing was looked at long
/// enough: what looks like a rollover under way is then taken as it is.
///
/// No file ever moves from one number to another: between our look and the move
/// virtlogd could put another one under the first. A name is taken, which is
/// checked afterwards, or given, which fails where it is taken already.
#[must_use]
pub fn next_step(
    base_there: bool,
    rotated: &[(u32, FileId)],
    goal: &Goal<'_>,
    settled: bool,
) -> Step {
    if !settled && !base_there {
        return Step::Wait;
    }
    let end = goal
        .max_backups
        .map(|max| goal.first.saturating_add(max.get()));
    let beyond = |number: u32| end.is_some_and(|end| number >= end);
    let there = |id: FileId| rotated.iter().any(|(_, there)| *there == id);
    let is_newer = |id: FileId| {
        !goal.staged.contains(&id)
            && !goal.stale.contains(&id)
            && !goal.older.iter().any(|o| o.id == id)
    };
    let newer = || rotated.iter().filter(|(_, id)| is_newer(*id));

    for (index, taken) in goal.taken.iter().enumerate() {
        let to = slot_of(taken, newer, goal.first);
        if !there(taken.id) && !beyond(to) {
            // What is not newer has its place elsewhere, and would leave a hole here.
            if let Some(&(number, id)) = rotated.iter().find(|(number, _)| *number == to) {
                return Step::Take { number, id };
            }
            let file = Held::Taken(index);
            return Step::Link { file, to };
        }
    }
    let next = newer()
        .map(|(number, _)| number.saturating_add(1))
        .max()
        .unwrap_or(goal.first);
    let hole = usize::try_from(next.saturating_sub(goal.first)) != Ok(newer().count());
    if hole && !settled {
        return Step::Wait;
    }
    if let Some(&(number, id)) = rotated.iter().rev().find(|(_, id)| goal.stale.contains(id)) {
        return Step::Take { number, id };
    }

    let kept = end.map_or(usize::MAX, |end| {
        usize::try_from(end.saturating_sub(next)).unwrap_or(usize::MAX)
    });
    let placed = goal.staged.len().min(kept);
    let number_of =
        |index: usize| u32::try_from(index).map_or(u32::MAX, |i| next.saturating_add(i));

    // A staged file in another's place: a rollover hit between two of our steps.
    for &(number, id) in rotated.iter().rev() {
        let at = goal.staged.iter().position(|s| *s == id);
        if at.is_some_and(|at| at >= placed || number_of(at) != number) {
            return if settled {
                Step::Take { number, id }
            } else {
                Step::Wait
            };
        }
    }
    if let Some(step) = older_out_of_the_way(rotated, goal.older, number_of(placed), end) {
        return step;
    }
    for (index, id) in goal.staged.iter().enumerate().take(placed) {
        if !there(*id) {
            return Step::Link {
                file: Held::Staged(index),
                to: number_of(index),
            };
        }
    }
    let mut free = number_of(placed);
    for (index, older) in goal.older.iter().enumerate() {
        let number = rotated.iter().find(|(_, id)| *id == older.id);
        if let Some((number, _)) = number {
            free = free.max(number.saturating_add(1));
        } else if older.held && !beyond(free) {
            let file = Held::Older(index);
            return Step::Link { file, to: free };
        }
    }
    Step::Done { placed }
}

/// Where a file rotated here belongs: behind all that is newer than it.
fn slot_of<'a, I>(taken: &Taken, newer: impl Fn() -> I, first: u32) -> u32
where
    I: Iterator<Item = &'a (u32, FileId)>,
{
    // Not seen before: newer than all that was, so it left the first hole there is.
    let known = taken.seen.iter().position(|id| *id == taken.id);
    let older = known.map_or(&[][..], |at| taken.seen.get(at..).unwrap_or_default());
    let behind = newer()
        .filter(|(_, id)| known.is_some() && !older.contains(id))
        .map(|(number, _)| number.saturating_add(1));
    let lowest = behind.max().unwrap_or(first);
    (lowest..u32::MAX)
        .find(|to| !newer().any(|(number, _)| number == to))
        .unwrap_or(u32::MAX)
}

/// Takes older files from where the staged ones belong, the oldest first. What
/// lay beyond the limit when we came stays there: it is not ours to drop.
fn older_out_of_the_way(
    rotated: &[(u32, FileId)],
    older: &[Older],
    mut free: u32,
    end: Option<u32>,
) -> Option<Step> {
    let mut step = None;
    for older in older {
        let Some(&(number, id)) = rotated.iter().find(|(_, id)| *id == older.id) else {
            free = free.saturating_add(u32::from(older.held));
            continue;
        };
        let inside = end.is_none_or(|end| number < end);
        if number < free && inside {
            step = Some(Step::Take { number, id });
        }
        free = free.max(number).saturating_add(1);
    }
    step
}

#[cfg(test)]
mod tests;
