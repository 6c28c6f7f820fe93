//! In which order the rotated files of a chain are read: pure.
//!
//! Names say it: the greater the number, the older; a file with a date is older
//! than all with numbers. Two rotations on one log (virtlogd's, and a logrotate
//! rule with `copytruncate`) give numbers that contradict it. Then the record beside
//! the log, which knows at which offset a file begins, or else the time at which each
//! file was last written tells the order, and the contradiction is said.
//!
//! Must not know: folders, what is in a file.

use std::ffi::{OsStr, OsString};

use crate::stream::StreamOffset;

/// Times that differ by no more than this, in nanoseconds, are equal: the kernel takes
/// them from its tick, which comes every 1 to 10 ms.
const TICK: i128 = 10_000_000;

/// What is known of a rotated file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age<'a> {
    pub(super) name: &'a OsStr,
    /// When it was last written.
    pub(super) modified: (i64, u32),
    /// Whether that says when its bytes were printed: gzip, zstd and xz give a file the
    /// time of what they compressed, but a shell's `gzip <a >a.gz` does not.
    pub(super) tells_time: bool,
    /// A file without a byte is in no order.
    pub(super) is_empty: bool,
    /// The offset at which it begins, where the record knows it.
    pub(super) start: Option<StreamOffset>,
}

/// Two files whose names say that one is older, while their times say it of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The older one by name.
    pub older: OsString,
    /// The newer one by name.
    pub newer: OsString,
    /// Whether times decide. `false`: all of them run the other way round than the
    /// names, or as the names are sorted, as after a copy without times; they say
    /// nothing then, the names decide, and the order is in doubt.
    pub by_time: bool,
}

/// The order to read in, by index, oldest first; and what contradicts the names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) files: Vec<usize>,
    pub(super) contradiction: Option<Contradiction>,
}

/// Whether times contradict the names of `files`, oldest first by name. Then the
/// record is needed to tell their order.
pub(super) fn is_contradicted(files: &[Age<'_>]) -> bool {
    contradict(files, &told_times(files))
}

/// Whether a file was last written later than one that is newer by its name.
fn contradict(files: &[Age<'_>], times: &[(i64, u32)]) -> bool {
    let nanoseconds = |time: &(i64, u32)| {
        i128::from(time.0)
            .saturating_mul(1_000_000_000)
            .saturating_add(i128::from(time.1))
    };
    let mut latest = i128::MIN;
    let written = files.iter().zip(times).filter(|(file, _)| !file.is_empty);
    written.into_iter().any(|(_, time)| {
        let time = nanoseconds(time);
        let contradicts = latest > time.saturating_add(TICK);
        latest = latest.max(time);
        contradicts
    })
}

/// Whether the record knows an order that is not that of the names.
fn record_contradicts(files: &[Age<'_>]) -> bool {
    let known = files.iter().filter(|f| !f.is_empty).filter_map(|f| f.start);
    !known.is_sorted()
}

/// The order of `files`, which are given oldest first by name. `base` is when the
/// base file was last written, if it has a byte.
pub(super) fn order(files: &[Age<'_>], base: Option<(i64, u32)>) -> Order {
    let by_name: Vec<usize> = (0..files.len()).collect();
    let times = times(files);
    if !contradict(files, &times) && !record_contradicts(files) {
        return Order {
            files: by_name,
            contradiction: None,
        };
    }
    let key = |index: &usize| {
        let start = files.get(*index).and_then(|f| f.start);
        (times.get(*index).copied(), start)
    };
    let written = |index: &&usize| files.get(**index).is_some_and(|f| !f.is_empty);
    let of_written: Vec<usize> = by_name.iter().filter(written).copied().collect();
    let mut sorted = of_written.clone();
    // Stable: where times are equal, the names decide.
    sorted.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(match (a.1, b.1) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => std::cmp::Ordering::Equal,
        })
    });
    let differs = of_written
        .iter()
        .zip(&sorted)
        .find(|(name, time)| name != time);
    let Some((named, timed)) = differs else {
        return Order {
            files: by_name,
            contradiction: None,
        };
    };
    let name = |index: &usize| {
        files
            .get(*index)
            .map_or_else(OsString::new, |f| f.name.to_owned())
    };
    let by_time = match worth(files, base) {
        Worth::Times => true,
        Worth::Doubt => false,
        Worth::Nothing => {
            return Order {
                files: by_name,
                contradiction: None,
            };
        }
    };
    let contradiction = Some(Contradiction {
        older: name(named),
        newer: name(timed),
        by_time,
    });
    let files = match by_time {
        // Those without a byte go first: it makes no difference.
        true => (by_name.iter().filter(|i| !written(i)).copied())
            .chain(sorted)
            .collect(),
        false => by_name,
    };
    Order {
        files,
        contradiction,
    }
}

/// When each file was last written. Files whose places the record knows are in that
/// order whatever their times are: parts that logchain has put in place were written
/// when they came. An older one counts as no later than the newer ones then.
fn times(files: &[Age<'_>]) -> Vec<(i64, u32)> {
    let mut times = told_times(files);
    let known = files.iter().enumerate().filter(|(_, f)| !f.is_empty);
    let mut known: Vec<(StreamOffset, usize)> = known
        .filter_map(|(index, f)| Some((f.start?, index)))
        .collect();
    known.sort_unstable();
    let mut latest: Option<(i64, u32)> = None;
    for (_, index) in known.into_iter().rev() {
        let Some(time) = times.get_mut(index) else {
            continue;
        };
        *time = latest.map_or(*time, |latest| latest.min(*time));
        latest = Some(*time);
    }
    times
}

/// The times of the files; one that does not tell counts as no later than those that are
/// newer by their names.
fn told_times(files: &[Age<'_>]) -> Vec<(i64, u32)> {
    let mut earliest: Option<(i64, u32)> = None;
    let mut times: Vec<_> = files
        .iter()
        .rev()
        .map(|file| {
            let time = match earliest {
                Some(newer) if !file.tells_time => newer.min(file.modified),
                _ => file.modified,
            };
            if !file.is_empty {
                earliest = Some(earliest.map_or(time, |newer| newer.min(time)));
            }
            time
        })
        .collect();
    times.reverse();
    times
}

/// What times are worth that contradict the names.
enum Worth {
    /// They tell the order.
    Times,
    /// They look like those of a copy: who knows.
    Doubt,
    /// They are those of a copy.
    Nothing,
}

/// Files are copied as their names are sorted, the base file first, while a rotation
/// leaves the greatest number oldest, and the base newest.
fn worth(files: &[Age<'_>], base: Option<(i64, u32)>) -> Worth {
    let mut written: Vec<&Age<'_>> = files.iter().collect();
    written.retain(|f| !f.is_empty && f.start.is_none() && f.tells_time);
    written.sort_by_key(|f| f.name);
    let rises = written.windows(2).all(|pair| match pair {
        [before, after] => before.modified <= after.modified,
        _ => true,
    });
    let base_first = base.is_some_and(|base| written.iter().all(|f| base <= f.modified));
    match written.len() {
        // So many are no accident, but the base may have been written since.
        3.. if rises => Worth::Doubt,
        1..=2 if rises && base_first => Worth::Nothing,
        _ => Worth::Times,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Files by name and time, oldest first by name; a start where the record knows it.
    fn ages<'a>(files: &[(&'a str, i64, Option<u64>)]) -> Vec<Age<'a>> {
        let age = |(name, modified, start): &(&'a str, i64, Option<u64>)| Age {
            name: OsStr::new(*name),
            modified: (*modified, 0),
            tells_time: true,
            is_empty: false,
            start: start.map(StreamOffset::new),
        };
        files.iter().map(age).collect()
    }

    /// The names in order; and whether times or names decide against the other.
    fn names(files: &[Age<'_>], base: i64) -> (String, Option<bool>) {
        let order = order(files, Some((base, 0)));
        let names = order.files.iter().map(|i| files[*i].name.to_str().unwrap());
        let by_time = order.contradiction.map(|c| c.by_time);
        (names.collect::<Vec<_>>().join(" "), by_time)
    }

    #[test]
    fn the_order_of_rotated_files() {
        let unknown = |files: &[(&'static str, i64)]| {
            let files: Vec<_> = files.iter().map(|(n, t)| (*n, *t, None)).collect();
            ages(&files)
        };
        // As a rotation leaves them.
        let plain = unknown(&[(".2", 1), (".1", 2), (".0", 3)]);
        assert_eq!(names(&plain, 4), (".2 .1 .0".to_owned(), None));
        // Two rotations on one log: A is .2, B is .0, D is .1.
        let two = unknown(&[(".2.gz", 1), (".1", 3), (".0", 2)]);
        assert_eq!(names(&two, 4), (".2.gz .0 .1".to_owned(), Some(true)));
        // Equal times contradict nothing: the names decide.
        let equal = unknown(&[(".2", 5), (".1", 5), (".0", 5)]);
        assert_eq!(names(&equal, 5), (".2 .1 .0".to_owned(), None));
        // Copied without times, base first: the names decide, in doubt.
        let copied = unknown(&[(".2", 3), (".1", 2), (".0", 1)]);
        assert_eq!(names(&copied, 0), (".2 .1 .0".to_owned(), Some(false)));
        assert_eq!(names(&copied, 9), (".2 .1 .0".to_owned(), Some(false)));
        let few = unknown(&[(".1", 2), (".0", 1)]);
        assert_eq!(names(&few, 0), (".1 .0".to_owned(), None));
        // Two files of which the base is newer are in order of time.
        assert_eq!(names(&few, 9), (".0 .1".to_owned(), Some(true)));
        // Eleven of them are copied as names are sorted: .10 before .2.
        let many = unknown(&[(".10", 2), (".2", 3), (".1", 1), (".0", 0)]);
        assert_eq!(names(&many, 9), (".10 .2 .1 .0".to_owned(), Some(false)));
        // A file with a date that is newer than one with a number.
        let dated = unknown(&[("-20261120", 5), (".1", 2)]);
        assert_eq!(names(&dated, 9), (".1 -20261120".to_owned(), Some(true)));
    }

    #[test]
    fn what_the_record_knows_needs_no_times() {
        // Parts put in place by logchain, whose newest was complete first.
        let parts = ages(&[
            (".2", 9, Some(0)),
            (".1", 8, Some(100)),
            (".0", 7, Some(200)),
        ]);
        assert!(is_contradicted(&parts));
        assert_eq!(names(&parts, 10), (".2 .1 .0".to_owned(), None));
        // And one that the VM rotated since.
        let since = ages(&[(".2", 9, Some(0)), (".1", 7, Some(100)), (".0", 8, None)]);
        assert_eq!(names(&since, 10), (".2 .1 .0".to_owned(), None));
        // The record knows better than the names.
        let moved = ages(&[
            (".2", 1, Some(0)),
            (".1", 3, Some(200)),
            (".0", 3, Some(100)),
        ]);
        assert_eq!(names(&moved, 10), (".2 .0 .1".to_owned(), Some(true)));
    }

    #[test]
    fn a_compressed_file_that_has_no_time_of_its_own_stays_where_its_name_puts_it() {
        let mut files = ages(&[(".2.gz", 9, None), (".1", 3, None), (".0", 2, None)]);
        files[0].tells_time = false;
        assert_eq!(names(&files, 10), (".2.gz .0 .1".to_owned(), Some(true)));
        let mut files = ages(&[(".1.gz", 9, None), (".0", 2, None)]);
        files[0].tells_time = false;
        assert!(!is_contradicted(&files));
    }

    #[test]
    fn a_file_without_a_byte_is_in_no_order() {
        let mut files = ages(&[(".1", 9, None), (".0", 1, None)]);
        files[0].is_empty = true;
        assert!(!is_contradicted(&files));
        assert_eq!(names(&files, 9).1, None);
    }

    proptest! {
        /// All files are read once. Either the names are followed, or the times are,
        /// and where these differ it is said.
        #[test]
        fn every_file_is_read_once_and_a_contradiction_is_said(
            files in proptest::collection::vec((0..6_i64, any::<bool>(), any::<bool>()), 0..7),
            base in proptest::option::of(0..6_i64),
        ) {
            let count = files.len();
            let names: Vec<String> = (0..count).map(|n| format!(".{}", count - n)).collect();
            let mut start = 0;
            let ages: Vec<Age<'_>> = files.iter().zip(&names).map(|((time, empty, known), name)| {
                start += 1;
                Age {
                    name: OsStr::new(name),
                    modified: (*time, 0),
                    tells_time: true,
                    is_empty: *empty,
                    start: known.then_some(StreamOffset::new(start)),
                }
            }).collect();
            let order = order(&ages, base.map(|b| (b, 0)));
            let mut all = order.files.clone();
            all.sort_unstable();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
            let in_order = order.files.windows(2).all(|pair| pair[0] < pair[1]);
            let by_time = order.contradiction.as_ref().is_some_and(|c| c.by_time);
            prop_assert!(in_order || by_time);
            // Without a record only times that do not fall are silent.
            let unknown = ages.iter().all(|a| a.start.is_none());
            if unknown {
                let few = ages.iter().filter(|a| !a.is_empty).count() <= 2;
                let said = order.contradiction.is_some();
                prop_assert!(said == is_contradicted(&ages) || few && in_order && !said);
            }
            if !is_contradicted(&ages) {
                prop_assert_eq!(order.contradiction, None);
            } else if by_time {
                let written = order.files.iter().map(|i| &ages[*i]).filter(|a| !a.is_empty);
                let unknown: Vec<_> = written.filter(|a| a.start.is_none()).map(|a| a.modified).collect();
                prop_assert!(unknown.is_sorted());
            }
        }
    }
}
