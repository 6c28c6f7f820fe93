//! Which files a chain consists of at one look: data, and what can be said of it.
//!
//! Must not know: what is in the files.

use std::ffi::{OsStr, OsString};

use super::{Compression, Numbering, Result, RotatedName};
use crate::folder::{FileId, Folder, Stat};

/// A rotated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Its name in the folder.
    pub name: OsString,
    /// Its number: the greater, the older.
    pub number: u32,
    /// How it is compressed, if it is.
    pub compression: Option<Compression>,
    /// What lies under the name. Not always a regular file.
    pub stat: Stat,
}

/// Numbers that are missing in a chain: bytes that were there once, perhaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gap {
    /// The first missing number.
    pub first: u32,
    /// The last missing number.
    pub last: u32,
}

/// Base and rotated files of a chain, as one look at the folder found them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    base: Option<Stat>,
    rotated: Vec<Rotated>,
    shadowed: Vec<OsString>,
}

impl Listing {
    /// Puts the files of a chain in order. Of several with one number the plain
    /// one counts: whoever compresses a file removes it only afterwards. Where
    /// two are compressed, the `.gz` counts.
    #[must_use]
    pub fn new(base: Option<Stat>, rotated: impl IntoIterator<Item = Rotated>) -> Self {
        let mut rotated: Vec<_> = rotated.into_iter().collect();
        rotated.sort_by_key(|r| (r.number, r.compression));
        let mut shadowed = Vec::new();
        rotated.dedup_by(|later, first| {
            let same = later.number == first.number;
            shadowed.extend(same.then(|| later.name.clone()));
            same
        });
        Self {
            base,
            rotated,
            shadowed,
        }
    }

    /// Looks at the folder once. A name that goes while we look counts as not
    /// there; only [`LogChain::snapshot`](super::LogChain::snapshot) sees to it
    /// that all belongs to one moment.
    ///
    /// # Errors
    /// The folder's.
    pub fn read(folder: &Folder, base: &OsStr) -> Result<Self> {
        let mut rotated = Vec::new();
        for name in folder.names()? {
            let Some(RotatedName {
                number,
                compression,
            }) = RotatedName::parse(base, &name)
            else {
                continue;
            };
            if let Some(stat) = folder.stat(&name)? {
                rotated.push(Rotated {
                    name,
                    number,
                    compression,
                    stat,
                });
            }
        }
        Ok(Self::new(folder.stat(base)?, rotated))
    }

    /// The base file.
    #[must_use]
    pub fn base(&self) -> Option<&Stat> {
        self.base.as_ref()
    }

    /// The rotated files, by number: newest first.
    #[must_use]
    pub fn rotated(&self) -> &[Rotated] {
        &self.rotated
    }

    /// Names that do not count, because another one has their number.
    #[must_use]
    pub fn shadowed(&self) -> &[OsString] {
        &self.shadowed
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.rotated.is_empty()
    }

    /// The missing numbers, newest first: before the first rotated file and
    /// between two. What is missing behind the last one cannot be known.
    #[must_use]
    pub fn gaps(&self, numbering: Numbering) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut next = numbering.first();
        for Rotated { number, .. } in &self.rotated {
            if let Some(last) = number.checked_sub(1).filter(|last| *last >= next) {
                gaps.push(Gap { first: next, last });
            }
            next = number.saturating_add(1).max(next);
        }
        gaps
    }

    /// Whether the same names lead to the same files. Sizes may differ: the
    /// base grows all the time.
    #[must_use]
    pub fn same_files(&self, other: &Self) -> bool {
        let ids = |l: &Self| l.base.map(|s| s.id);
        ids(self) == ids(other)
            && self.rotated.len() == other.rotated.len()
            && self
                .rotated
                .iter()
                .zip(&other.rotated)
                .all(|(a, b)| a.name == b.name && a.stat.id == b.stat.id)
    }

    /// Two names that lead to one file, the newer first; `None` is the base. In
    /// a rollover this is a sign of two looks at different moments.
    pub(super) fn same_file_twice(&self) -> Option<(Option<&OsStr>, Option<&OsStr>)> {
        let base = self.base.iter().map(|s| (s.id, None));
        let rotated = self
            .rotated
            .iter()
            .map(|r| (r.stat.id, Some(r.name.as_os_str())));
        let mut ids: Vec<(FileId, Option<&OsStr>)> = base.chain(rotated).collect();
        // Stable: of one file's names the newer stays first.
        ids.sort_by_key(|(id, _)| *id);
        ids.windows(2).find_map(|pair| match pair {
            [(a, newer), (b, older)] if a == b => Some((*newer, *older)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(ino: u64) -> Stat {
        let id = FileId { ino, born: None };
        Stat {
            id,
            size: 1,
            allocated: 512,
            modified: (0, 0),
            mode: 0o600,
            owner: (0, 0),
            regular: true,
        }
    }

    fn rotated(number: u32, compression: Option<Compression>, ino: u64) -> Rotated {
        let mut name = super::super::rotated_name(OsStr::new("l"), number);
        name.push(compression.map_or("", Compression::suffix));
        Rotated {
            name,
            number,
            compression,
            stat: stat(ino),
        }
    }

    fn of(numbers: &[u32]) -> Listing {
        let files = numbers
            .iter()
            .map(|n| rotated(*n, None, u64::from(*n) + 10));
        Listing::new(Some(stat(1)), files)
    }

    #[test]
    fn gaps_by_numbering() {
        let gaps = |numbers: &[u32], numbering| {
            of(numbers)
                .gaps(numbering)
                .iter()
                .map(|g| (g.first, g.last))
                .collect::<Vec<_>>()
        };
        let (zero, one) = (Numbering::FromZero, Numbering::FromOne);
        assert_eq!(gaps(&[], zero), []);
        assert_eq!(gaps(&[2, 0, 1], zero), []);
        assert_eq!(gaps(&[1], zero), [(0, 0)]);
        assert_eq!(gaps(&[1, 2], one), []);
        assert_eq!(gaps(&[0, 1], one), []);
        assert_eq!(gaps(&[0, 2], one), [(1, 1)]);
        assert_eq!(gaps(&[3, 7], zero), [(0, 2), (4, 6)]);
        assert_eq!(gaps(&[3, 7], one), [(1, 2), (4, 6)]);
    }

    #[test]
    fn of_one_number_the_plain_file_counts() {
        let (gz, zst) = (Some(Compression::Gzip), Some(Compression::Zstd));
        let files = [
            rotated(1, zst, 3),
            rotated(1, gz, 2),
            rotated(1, None, 1),
            rotated(2, zst, 5),
            rotated(2, gz, 4),
        ];
        let listing = Listing::new(None, files);
        let names: Vec<_> = listing.rotated().iter().map(|r| r.name.clone()).collect();
        assert_eq!(names, ["l.1", "l.2.gz"]);
    }

    #[test]
    fn identities_are_compared_and_sizes_are_not() {
        let mut grown = stat(1);
        grown.size = 99;
        let a = of(&[0, 1]);
        let mut b = of(&[0, 1]);
        b.base = Some(grown);
        assert!(a.same_files(&b));
        assert!(!a.same_files(&of(&[0])));
        assert!(!a.same_files(&of(&[0, 2])));
        b.base = None;
        assert!(!a.same_files(&b));
        let swapped = [rotated(0, None, 11), rotated(1, None, 10)];
        assert!(!a.same_files(&Listing::new(Some(stat(1)), swapped)));
    }

    #[test]
    fn one_file_under_two_names() {
        assert_eq!(of(&[0, 1]).same_file_twice(), None);
        let files = [rotated(0, None, 5), rotated(1, None, 1)];
        let listing = Listing::new(Some(stat(1)), files);
        assert_eq!(
            listing.same_file_twice(),
            Some((None, Some(OsStr::new("l.1"))))
        );
    }
}
