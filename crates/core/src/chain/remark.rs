//! What a reader of a chain should know beside its bytes: what of the folder was
//! not read, and where the order is not the one that the names give.

use std::ffi::OsString;
use std::fmt;

use super::{Contradiction, Foreign};

/// Something that a reader of the chain should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remark {
    /// Names and times give two orders.
    OutOfOrder(Contradiction),
    /// A file that is another log's, or likely is.
    Foreign(Foreign),
    /// It looks like a rotated file, in a way that is not read.
    Unread {
        /// Its name.
        name: OsString,
    },
    /// It is not read, because another file has its number or date: left over from
    /// compressing, or numbered by somebody who did not see it.
    Shadowed {
        /// Its name.
        name: OsString,
    },
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder(Contradiction {
                older,
                newer,
                by_time,
            }) => {
                let (older, newer) = (older.display(), newer.display());
                write!(
                    f,
                    "by its name {older} is older than {newer}, but it was written after that: "
                )?;
                f.write_str(match by_time {
                    true => {
                        "the rotated files are read in the order of their times; find out whether \
                         two rotations (virtlogd's, and a logrotate rule) work on this log"
                    }
                    false => {
                        "the times look like those of a copy, so the rotated files are read in the \
                         order of their names, which may be wrong"
                    }
                })
            }
            Self::Foreign(foreign) => foreign.fmt(f),
            Self::Unread { name } => write!(
                f,
                "{} looks like a rotated file and is not read: remove it, or give it a name and a \
                 format that are (a number or a date; plain, .gz, .zst or .xz)",
                name.display()
            ),
            Self::Shadowed { name } => write!(
                f,
                "{} is not read, since another file has its number: remove it, or give it a \
                 number of its own",
                name.display()
            ),
        }
    }
}
