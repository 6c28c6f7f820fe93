//! Pure: what a look at a log's names means for the files that are held.
//!
//! A rotation takes names away from the oldest files while the newest one keeps a name of
//! the log: what it dropped may go. Where the newest file has lost its name and a new log
//! lies in its place, the log was wiped: everything stays. Where names are gone and
//! nothing came, everything stays as well, since it is not over.
//!
//! Must not know: files, clocks, what becomes of what is kept.

use crate::chain::Part;
use crate::folder::FileId;
use crate::follow::Writer;

/// A file, with the place that its name gives it in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: FileId,
    pub(super) part: Part,
    pub(super) is_compressed: bool,
}

/// What a look means. The files are those that are held, by their place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is the same log.
    SameLog {
        /// A rotation dropped or replaced these: nothing is lost with them.
        dropped: Vec<usize>,
        /// These lost their names, and no rotation explains it. Somebody removed them, or
        /// removes the whole log, one file after the other: what comes next tells.
        vanished: Vec<usize>,
    },
    /// The newest file, or all, have no name, and no new log is there.
    NamesGone {
        /// These were compressed: what they hold has a name.
        compressed: Vec<usize>,
    },
    /// What lies at the path is another's: the newest file is still written, without a name.
    WrittenWithoutName,
    /// The log was wiped, and a new one begins.
    NewLog {
        /// As in [`Meaning::NamesGone`].
        compressed: Vec<usize>,
    },
}

/// Decides. `held` and `named` are oldest first; `named` is empty where nothing is there.
/// Who writes the newest held file is only asked where that decides.
pub(super) fn decide(
    held: &[Entry],
    named: &[Entry],
    newest_writer: impl FnOnce() -> Writer,
) -> Meaning {
    let Some(newest) = held.last() else {
        return Meaning::SameLog {
            dropped: Vec::new(),
            vanished: Vec::new(),
        };
    };
    if place_of(named, newest.id).is_some() {
        return same_log(held, named);
    }
    let compressed = compressed(held, named);
    let has_base = named.iter().any(|entry| entry.part == Part::Base);
    if !has_base {
        return Meaning::NamesGone { compressed };
    }
    match newest_writer() {
        Writer::Some => Meaning::WrittenWithoutName,
        // Where nobody can tell, both logs are held: nothing is lost either way.
        Writer::None | Writer::Unknown => Meaning::NewLog { compressed },
    }
}

fn same_log(held: &[Entry], named: &[Entry]) -> Meaning {
    let now = |entry: &Entry| place_of(named, entry.id);
    let moved_up = held.iter().any(|entry| {
        let now = now(entry).and_then(|at| named.get(at));
        now.is_some_and(|now| is_older(now.part, entry.part))
    });
    let (mut dropped, mut vanished) = (Vec::new(), Vec::new());
    for (index, entry) in held.iter().enumerate() {
        if now(entry).is_some() {
            continue;
        }
        let replaced = new_in_place_of(index, held, named).next().is_some();
        let older = held.iter().take(index).rev().find_map(now);
        if replaced || (moved_up && older.is_none()) {
            dropped.push(index);
        } else {
            vanished.push(index);
        }
    }
    Meaning::SameLog { dropped, vanished }
}

/// Where somebody compresses rotated files while the newest has no name. The newest is
/// none of them: nobody compresses what is still written.
fn compressed(held: &[Entry], named: &[Entry]) -> Vec<usize> {
    let older = held.iter().enumerate().rev().skip(1).rev();
    let gone = older.filter(|(_, entry)| place_of(named, entry.id).is_none());
    let is_compressed = |entry: &Entry| {
        let mut new = named.iter().filter(|new| place_of(held, new.id).is_none());
        !entry.is_compressed && new.any(|new| new.is_compressed && new.part == entry.part)
    };
    let gone = gone.filter(|(_, entry)| is_compressed(entry));
    gone.map(|(index, _)| index).collect()
}

/// The files that came where this one was: between those that were beside it.
fn new_in_place_of<'a>(
    index: usize,
    held: &'a [Entry],
    named: &'a [Entry],
) -> impl Iterator<Item = &'a Entry> {
    let now = |entry: &Entry| place_of(named, entry.id);
    let (older, newer) = held.split_at(index);
    let older = older.iter().rev().find_map(now);
    let newer = newer.iter().find_map(now);
    let after = older.map_or(0, |at| at.saturating_add(1));
    let between = named.get(after..newer.unwrap_or(named.len()));
    let between = between.unwrap_or_default().iter();
    between.filter(|entry| place_of(held, entry.id).is_none())
}

/// The order of the files to hold, by identity: those that have a name as the look found
/// them, and each of the others before the file that came after it, or before the one that
/// has that file's name now. What was let go has its place in it too.
pub(super) fn merge(held: &[Entry], named: &[Entry]) -> Vec<FileId> {
    let mut all: Vec<_> = named.iter().map(|entry| entry.id).collect();
    let mut next = None;
    for entry in held.iter().rev() {
        let is_new = |new: &&Entry| place_of(held, new.id).is_none() && new.part == entry.part;
        let successor = named.iter().find(is_new).map(|new| new.id);
        let anchor = if place_of(named, entry.id).is_some() {
            entry.id
        } else {
            let at = next.and_then(|next| all.iter().position(|other| *other == next));
            all.insert(at.unwrap_or(all.len()), entry.id);
            // Compressed, perhaps.
            successor.unwrap_or(entry.id)
        };
        next = Some(anchor);
    }
    all
}

/// How many of the first files have to go so that all together have no more than `most`
/// bytes.
pub(super) fn surplus(sizes: &[u64], most: u64) -> usize {
    let mut all = sizes.iter().copied().fold(0, u64::saturating_add);
    let mut count = 0;
    for size in sizes {
        if all <= most {
            break;
        }
        all = all.saturating_sub(*size);
        count += 1;
    }
    count
}

fn place_of(entries: &[Entry], id: FileId) -> Option<usize> {
    entries.iter().position(|entry| entry.id == id)
}

/// Whether a rotation took a file from the one name to the other.
fn is_older(now: Part, before: Part) -> bool {
    match (before, now) {
        (Part::Base, Part::Number(_) | Part::Date(_)) | (Part::Number(_), Part::Date(_)) => true,
        (Part::Number(before), Part::Number(now)) => now > before,
        (_, Part::Base) | (Part::Date(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ino: u64) -> FileId {
        FileId { ino, born: None }
    }

    /// `3@1 2@0 1@b`: the file 3 has the number 1, 2 the number 0, 1 is the base. `3@1z`
    /// is compressed.
    fn entries(text: &str) -> Vec<Entry> {
        let entry = |word: &str| {
            let (ino, part) = word.split_once('@').unwrap();
            let plain = part.trim_end_matches('z');
            let is_compressed = plain != part;
            let part = match plain {
                "b" => Part::Base,
                number => Part::Number(number.parse().unwrap()),
            };
            Entry {
                id: id(ino.parse().unwrap()),
                part,
                is_compressed,
            }
        };
        text.split_whitespace().map(entry).collect()
    }

    fn meaning(held: &str, named: &str) -> Meaning {
        decide(&entries(held), &entries(named), || Writer::None)
    }

    fn same(dropped: &[usize], vanished: &[usize]) -> Meaning {
        Meaning::SameLog {
            dropped: dropped.to_vec(),
            vanished: vanished.to_vec(),
        }
    }

    #[test]
    fn a_rollover_drops_the_oldest() {
        assert_eq!(meaning("1@b", "1@b"), same(&[], &[]));
        assert_eq!(meaning("1@b", "1@0 2@b"), same(&[], &[]));
        assert_eq!(meaning("3@1 2@0 1@b", "2@1 1@0 9@b"), same(&[0], &[]));
        // Several at once.
        assert_eq!(meaning("3@1 2@0 1@b", "1@1 8@0 9@b"), same(&[0, 1], &[]));
        // In the middle of one.
        assert_eq!(meaning("3@1 2@0 1@b", "2@1 1@b"), same(&[0], &[]));
        assert_eq!(meaning("3@1 2@0 1@b", "2@1 1@0"), same(&[0], &[]));
        // What begins as nothing.
        assert_eq!(meaning("", "1@b"), same(&[], &[]));
        assert_eq!(meaning("", ""), same(&[], &[]));
    }

    #[test]
    fn what_was_compressed_is_replaced() {
        assert_eq!(meaning("3@1 2@0 1@b", "9@1 2@0 1@b"), same(&[0], &[]));
        assert_eq!(meaning("3@1 2@0 1@b", "3@1 9@0 1@b"), same(&[1], &[]));
        // logrotate: moved up, and compressed.
        let now = "8@2 2@1 1@0 9@b";
        assert_eq!(meaning("3@1 2@0 1@b", now), same(&[0], &[]));
    }

    #[test]
    fn placed_history_drops_what_it_pushes_out() {
        assert_eq!(meaning("2@0 1@b", "7@3 8@2 2@0 1@b"), same(&[], &[]));
        assert_eq!(meaning("3@2 2@1 1@b", "8@2 2@1 1@b"), same(&[0], &[]));
    }

    #[test]
    fn what_somebody_removed_is_waited_for() {
        assert_eq!(meaning("3@1 2@0 1@b", "2@0 1@b"), same(&[], &[0]));
        assert_eq!(meaning("3@1 2@0 1@b", "1@b"), same(&[], &[0, 1]));
        assert_eq!(meaning("3@1 2@0 1@b", "3@1 1@b"), same(&[], &[1]));
        // A rollover does not explain a gap in the middle.
        assert_eq!(meaning("3@1 2@0 1@b", "3@2 1@0 9@b"), same(&[], &[1]));
    }

    #[test]
    fn a_log_without_its_newest_file_is_not_over() {
        let gone = |compressed: &[usize]| Meaning::NamesGone {
            compressed: compressed.to_vec(),
        };
        for named in ["", "3@1 2@0", "3@1", "8@1 2@0", "3@2 8@1 9@0"] {
            assert_eq!(meaning("3@1 2@0 1@b", named), gone(&[]), "{named}");
        }
        assert_eq!(meaning("3@1 2@0 1@b", "8@1z 2@0"), gone(&[0]));
        assert_eq!(meaning("3@1 2@0 1@b", "3@1 9@0z"), gone(&[1]));
        assert_eq!(meaning("3@1 2@0 1@b", "3@1 2@0 9@0z"), gone(&[]));
        assert_eq!(meaning("3@1 2@0 1@b", "9@0z"), gone(&[1]));
        assert_eq!(meaning("1@b", "9@0z"), gone(&[]));
    }

    #[test]
    fn another_base_is_a_new_log_unless_the_old_one_is_written() {
        let held = entries("3@1 2@0 1@b");
        for named in ["9@b", "3@1 9@b", "3@2 2@1 9@b"] {
            let named = entries(named);
            let with = |writer| decide(&held, &named, || writer);
            let compressed = Vec::new();
            assert_eq!(with(Writer::None), Meaning::NewLog { compressed });
            let compressed = Vec::new();
            assert_eq!(with(Writer::Unknown), Meaning::NewLog { compressed });
            assert_eq!(with(Writer::Some), Meaning::WrittenWithoutName);
        }
    }

    #[test]
    fn files_without_names_keep_their_place() {
        let merged = |held: &str, named: &str| {
            let merged = merge(&entries(held), &entries(named)).into_iter();
            merged.map(|id| id.ino).collect::<Vec<_>>()
        };
        let held = "3@1 2@0 1@b";
        assert_eq!(merged(held, "3@2 2@1 1@0 9@b"), [3, 2, 1, 9]);
        assert_eq!(merged(held, ""), [3, 2, 1]);
        // Older history came, and the base is gone.
        assert_eq!(merged(held, "8@2 3@1 2@0"), [8, 3, 2, 1]);
        assert_eq!(merged(held, "8@1 2@0"), [8, 3, 2, 1]);
        assert_eq!(merged(held, "3@2 1@0 9@b"), [3, 2, 1, 9]);
        assert_eq!(merged("4@2 3@1 2@0 1@b", "4@2 1@b"), [4, 3, 2, 1]);
        // Compressed while an older one has no name.
        assert_eq!(merged(held, "9@0z"), [3, 9, 2, 1]);
    }

    #[test]
    fn the_first_go_until_the_rest_fits() {
        assert_eq!(surplus(&[5, 5, 5], 15), 0);
        assert_eq!(surplus(&[5, 5, 5], 14), 1);
        assert_eq!(surplus(&[5, 5, 5], 4), 3);
        assert_eq!(surplus(&[], 0), 0);
        assert_eq!(surplus(&[0, 1], 0), 2);
    }
}
