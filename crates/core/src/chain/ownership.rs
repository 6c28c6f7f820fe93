//! Whose a file is that is named like a rotated file of a log: pure.
//!
//! Names are not ownership: a guest whose log is `web` and one whose log is
//! `web.1` may share a folder. What the caller knows of guests decides; else what
//! lies beside the file, else its times. Where those leave a doubt the file is not
//! read: no guest's bytes are ever shown as another's.
//!
//! Must not know: folders, guests.

use std::ffi::{OsStr, OsString};
use std::fmt;

use crate::folder::{FileId, Stat};

/// How long making a copy may take, as `copytruncate` makes one, whatever the
/// copy's size; and how many bytes a second it copies at the least.
const COPY_SECONDS: u64 = 1;
const COPY_RATE: u64 = 10 << 20;

/// What the caller knows of whose the files in a log's folder are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    others: Vec<(OsString, Claim)>,
    ours: Vec<FileId>,
}

impl Ownership {
    /// The definition of another guest names the file `name` as its log.
    pub fn named_by_another(&mut self, name: OsString) {
        self.others.push((name, Claim::Named));
    }

    /// The file `name` has a writer of its own, while the base file has one too.
    pub fn written_by_another(&mut self, name: OsString) {
        self.others.push((name, Claim::Written));
    }

    /// These files are this log's, whatever their times say: somebody had them
    /// open as such.
    pub fn ours(&mut self, files: impl IntoIterator<Item = FileId>) {
        self.ours.extend(files);
    }

    /// Why `name` is known to be another log's.
    pub(super) fn claim(&self, name: &OsStr) -> Option<Claim> {
        let mut others = self.others.iter();
        others
            .find(|(other, _)| other == name)
            .map(|(_, claim)| *claim)
    }

    pub(crate) fn is_ours(&self, id: FileId) -> bool {
        self.ours.contains(&id)
    }
}

/// Why a file is not taken for part of a log, though its name looks like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// Another guest's definition names it as its log.
    Named,
    /// It has a writer of its own, beside that of the base file.
    Written,
    /// A record of its own lies beside it.
    Record,
    /// It has rotated files of its own.
    Rotated,
    /// It is older than the base file and was written after that was begun. A
    /// rotation renames a file and then begins a new one.
    Overlaps {
        /// When the base file was begun, in seconds since 1970.
        begun: i64,
    },
    /// It is newer than the base file, and was written for longer than copying takes.
    NoCopy {
        /// When it was begun, in seconds since 1970.
        begun: i64,
    },
}

impl Claim {
    /// Whether it is only likely, going by times.
    #[must_use]
    pub fn is_doubt(self) -> bool {
        matches!(self, Self::Overlaps { .. } | Self::NoCopy { .. })
    }
}

/// A file that is not part of a log, though its name looks like a rotated file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its name in the folder.
    pub name: OsString,
    /// The number in its name, which nobody else may have.
    pub number: Option<u32>,
    /// Which file it is.
    pub id: FileId,
    /// Why it is not part of the log.
    pub claim: Claim,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.display();
        write!(f, "{name} is not read as part of this log: ")?;
        match self.claim {
            Claim::Named => f.write_str("it is the log of another guest")?,
            Claim::Written => f.write_str("it is being written by itself")?,
            Claim::Record => write!(f, "it is a log with a record of its own (.{name}.logchain)")?,
            Claim::Rotated => f.write_str("it is a log with rotated files of its own")?,
            Claim::Overlaps { begun } => {
                return write!(
                    f,
                    "it was written after the base file was begun, as the log of another guest \
                     would be; if it is a part of this log, set its time back (touch -d @{begun} {name})"
                );
            }
            Claim::NoCopy { begun } => {
                return write!(
                    f,
                    "it is newer than the base file and was written for longer than copying takes, \
                     as the log of another guest would be; if it is a part of this log, set its \
                     time back (touch -d @{begun} {name})"
                );
            }
        }
        f.write_str(
            ". virtlogd would overwrite it when it rolls this log over: give one of the two logs \
             another path",
        )
    }
}

/// What the times of a rotated file that is not compressed tell against its being
/// part of the log whose base file is `base`. A file that was compressed or copied
/// with its times says nothing: those are the times of what was copied.
pub(super) fn claim_by_times(file: &Stat, base: &Stat) -> Option<Claim> {
    let (born, base_born) = (file.id.born?, base.id.born?);
    if born < base_born {
        let begun = base_born.0;
        return (file.modified > base_born).then_some(Claim::Overlaps { begun });
    }
    let took = nanoseconds(file.modified).saturating_sub(nanoseconds(born));
    let most = COPY_SECONDS.saturating_add(file.size / COPY_RATE);
    let most = i128::from(most).saturating_mul(1_000_000_000);
    (took > most).then_some(Claim::NoCopy { begun: born.0 })
}

/// How long a rollover takes at the most, from the last byte of the old file to the birth
/// of the new one, in nanoseconds. No guest that was started for another one to write to
/// its log is as quick.
const ROLLOVER: i128 = 20_000_000;

/// Whether `newer` was begun at the very moment at which `older` was last written, as a
/// rollover does it: then they are parts of one log.
pub(super) fn follows_at_once(older: &Stat, newer: &Stat) -> bool {
    newer.id.born.is_some_and(|born| {
        let between = nanoseconds(born).saturating_sub(nanoseconds(older.modified));
        (0..=ROLLOVER).contains(&between)
    })
}

fn nanoseconds((seconds, rest): (i64, u32)) -> i128 {
    i128::from(seconds)
        .saturating_mul(1_000_000_000)
        .saturating_add(i128::from(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(born: Option<i64>, modified: (i64, u32), size: u64) -> Stat {
        Stat {
            id: FileId {
                ino: 1,
                born: born.map(|b| (b, 0)),
            },
            size,
            allocated: size,
            modified,
            mode: 0o600,
            owner: (0, 0),
            regular: true,
        }
    }

    #[test]
    fn what_times_tell() {
        let base = stat(Some(100), (500, 0), 9);
        let claim = |born, modified, size| claim_by_times(&stat(born, modified, size), &base);
        // Renamed, then a new base was begun.
        assert_eq!(claim(Some(50), (90, 0), 9), None);
        assert_eq!(claim(Some(50), (100, 0), 9), None);
        // Both were written for a while.
        let overlaps = Some(Claim::Overlaps { begun: 100 });
        assert_eq!(claim(Some(50), (100, 1), 9), overlaps);
        assert_eq!(claim(Some(50), (400, 0), 0), overlaps);
        // Copied, as copytruncate does; a large one takes longer.
        assert_eq!(claim(Some(200), (201, 0), 9), None);
        assert_eq!(claim(Some(200), (220, 0), 1 << 30), None);
        // Another guest's, begun later.
        let no_copy = Some(Claim::NoCopy { begun: 200 });
        assert_eq!(claim(Some(200), (203, 0), 9), no_copy);
        assert_eq!(claim(Some(200), (400, 0), 1 << 30), no_copy);
        // Copied here with its times.
        assert_eq!(claim(Some(200), (60, 0), 9), None);
        // A file system that does not tell.
        assert_eq!(claim(None, (400, 0), 9), None);
    }

    #[test]
    fn a_rollover_leaves_no_time_between_two_files() {
        let newer = stat(Some(100), (500, 0), 9);
        let follows = |modified| follows_at_once(&stat(Some(50), modified, 9), &newer);
        assert!(follows((100, 0)) && follows((99, 990_000_000)));
        assert!(!follows((100, 1)) && !follows((99, 900_000_000)) && !follows((60, 0)));
        let unknown = stat(None, (500, 0), 9);
        assert!(!follows_at_once(&newer, &unknown));
    }

    #[test]
    fn the_advice_makes_it_part_of_the_log() {
        let base = stat(Some(100), (500, 0), 9);
        for mut file in [
            stat(Some(50), (400, 0), 9),
            stat(Some(200), (400, 0), 9),
            stat(Some(100), (400, 0), 9),
        ] {
            let claim = claim_by_times(&file, &base);
            let Some(Claim::Overlaps { begun } | Claim::NoCopy { begun }) = claim else {
                panic!("{claim:?}");
            };
            file.modified = (begun, 0);
            assert_eq!(claim_by_times(&file, &base), None);
        }
    }
}
