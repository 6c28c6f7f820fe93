//! Tells whether a chain is whole, and what of it a repair can mend.
//!
//! Looking changes nothing. [`Finding::repair`] says what [`crate::placement`]
//! could do about it; what it cannot mend says what an operator can do.
//!
//! Must not know: libvirt, who wants to know.
//!
//! ```
//! use logchain_core::chain::{LogChain, NumberingChoice};
//! use logchain_core::verify::{Finding, verify};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("console.log");
//! std::fs::write(path.with_file_name("console.log.2"), "old")?;
//! std::fs::write(&path, "new")?;
//!
//! let chain = LogChain::open(&path, NumberingChoice::FromZero)?;
//! let verdict = verify(&chain, None)?;
//! assert_eq!(verdict.bytes, 6);
//! assert_eq!(verdict.findings, [Finding::Missing { first: 0, last: 1 }]);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::num::NonZeroU32;

use crate::OkLogged as _;
use crate::chain::{self, ChainFile, Listing, LogChain, Remark, Snapshot};
use crate::content;
use crate::folder;
use crate::offsets::Offsets;
use crate::placement;
use crate::record;
use crate::stream::{Fingerprint, Layout, Ledger, StreamOffset};

/// What is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Numbers are missing: bytes that were there once, perhaps, or a name that
    /// somebody moved. Readers that walk the numbers stop here.
    Missing {
        /// The first missing number.
        first: u32,
        /// The last missing number.
        last: u32,
    },
    /// Bytes that the VM printed and nobody has.
    Lost {
        /// The offset at which they are missing.
        at: StreamOffset,
        /// How many, where that is known.
        size: Option<u64>,
    },
    /// A rotated file that virtlogd will never move or drop any more.
    OutOfReach {
        /// Its name.
        name: String,
        /// How many rotated files virtlogd keeps.
        max_backups: u32,
    },
    /// A rotated file that virtlogd removes within a day, since its number is above
    /// `max_backups` and `max_age_days` is set.
    Cleaned {
        /// Its name.
        name: String,
        /// How many rotated files virtlogd keeps.
        max_backups: u32,
    },
    /// Something beside the log that is not read, or an order that its names and
    /// times do not agree on.
    Remark(Remark),
    /// A rotated file has fewer bytes than when it was last seen.
    Shortened {
        /// Its name.
        name: String,
        /// How many bytes it had, and has no more.
        missing: u64,
    },
    /// A file has no place in the VM's stream, by what is known of the others.
    OutOfPlace {
        /// Its name.
        name: String,
        /// How many bytes it has.
        bytes: u64,
    },
    /// A rotated file is a copy of what the base file begins with: its bytes come twice.
    Copy {
        /// Its name.
        name: String,
    },
    /// A rotated file was written after the base file was.
    Later {
        /// Its name.
        name: String,
    },
    /// A file that cannot be read, or is no file: a link, a FIFO.
    Unreadable {
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// There are rotated files, but no base.
    NoBase,
    /// A handoff was begun and neither finished nor undone, or is under way.
    Unfinished,
    /// The guest runs, and what it prints does not go to the file at the log's path.
    NotWrittenHere {
        /// Where it goes, and what to do.
        reason: String,
    },
    /// The record beside the chain is damaged: offsets and what was handed over
    /// are forgotten.
    Record {
        /// What is wrong with it.
        reason: String,
    },
}

/// What a repair does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Gives the rotated files numbers in a row.
    CloseGaps,
    /// Finishes or undoes what was begun.
    Recover,
    /// Renames the damaged record, so that a new one is begun.
    SetRecordAside,
}

impl Finding {
    /// What can be done about it here.
    #[must_use]
    pub fn repair(&self) -> Option<Repair> {
        match self {
            Self::Missing { .. } => Some(Repair::CloseGaps),
            Self::Unfinished => Some(Repair::Recover),
            Self::Record { .. } => Some(Repair::SetRecordAside),
            _ => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { first, last } if first == last => {
                write!(f, "number {first} is missing")
            }
            Self::Missing { first, last } => write!(f, "numbers {first} to {last} are missing"),
            Self::Lost { at, size: None } => write!(
                f,
                "bytes are lost at offset {at}: the log was rotated or begun anew while nobody looked"
            ),
            Self::Lost {
                at,
                size: Some(size),
            } => write!(f, "{size} bytes are lost at offset {at}"),
            Self::OutOfReach { name, max_backups } => write!(
                f,
                "{name} lies beyond the {max_backups} files that virtlogd rotates: it stays until \
                 somebody removes it"
            ),
            Self::Cleaned { name, max_backups } => write!(
                f,
                "{name} is removed by virtlogd within a day, since max_age_days is set and its \
                 number is above max_backups ({max_backups}): raise max_backups, or keep a copy"
            ),
            Self::Remark(remark) => remark.fmt(f),
            Self::Shortened { name, missing } => write!(
                f,
                "{name} was cut short: {missing} bytes that it had are gone"
            ),
            Self::OutOfPlace { name, bytes } => write!(
                f,
                "{name} has no place in the VM's stream: its {bytes} bytes are a copy, another \
                 log's, or replaced what was there; reading by offset leaves them out"
            ),
            Self::Copy { name } => write!(
                f,
                "{name} is a copy of what the base file begins with, as logrotate's `copy` leaves \
                 it: its bytes are read twice"
            ),
            Self::Later { name } => write!(
                f,
                "{name} was written after the base file, as the log of another guest would be; if \
                 it is a part of this log, set its time back (touch -r)"
            ),
            Self::Unreadable { reason } | Self::NotWrittenHere { reason } => f.write_str(reason),
            Self::NoBase => f.write_str("there are rotated files, but no base file"),
            Self::Unfinished => {
                f.write_str("history is being put in place, or was when somebody was killed")
            }
            Self::Record { reason } => write!(f, "{reason}; offsets begin anew without it"),
        }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CloseGaps => "give the rotated files numbers in a row",
            Self::Recover => "finish or undo it",
            Self::SetRecordAside => "rename it, and begin a new one",
        })
    }
}

/// What is there, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many files can be read.
    pub files: usize,
    /// How many bytes the stream has, decompressed.
    pub bytes: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }
}

impl LogChain {
    /// Whether the log is whole, and what of it could be mended. Every file is looked at,
    /// and compressed ones are decompressed; nothing is changed.
    ///
    /// [`verify`] takes how many files virtlogd keeps, and so finds those that it will
    /// never reach.
    ///
    /// # Errors
    /// [`chain::Error::NotFound`] where there is no such log. A file that cannot be read
    /// is a finding, and no error.
    ///
    /// ```
    /// use logchain_core::{Finding, LogChain, NumberingChoice};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("console.log");
    /// std::fs::write(path.with_file_name("console.log.1"), "old")?;
    /// std::fs::write(&path, "new")?;
    ///
    /// let chain = LogChain::open(&path, NumberingChoice::FromZero)?;
    /// let verdict = chain.verify()?;
    /// assert!(!verdict.is_whole());
    /// assert_eq!(verdict.findings, [Finding::Missing { first: 0, last: 0 }]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(&self) -> chain::Result<Verdict> {
        verify(self, None)
    }
}

/// As [`LogChain::verify`], where virtlogd writes the log and keeps `max_backups` rotated
/// files of it; `None` where it does not, or where that is not known.
///
/// # Errors
/// As [`LogChain::verify`].
pub fn verify(chain: &LogChain, max_backups: Option<NonZeroU32>) -> chain::Result<Verdict> {
    let mut findings = Vec::new();
    let listing = chain.listing()?;
    if listing.is_empty() {
        return Err(chain::Error::NotFound { path: chain.path() });
    }
    if placement::is_under_way(chain.folder(), chain.base_name()) {
        findings.push(Finding::Unfinished);
    }
    if let Some(max_backups) = max_backups.map(NonZeroU32::get) {
        let end = chain.numbering().first().saturating_add(max_backups);
        let beyond = listing.rotated().iter().filter(|r| r.number >= end);
        findings.extend(beyond.map(|r| Finding::OutOfReach {
            name: r.name.to_string_lossy().into_owned(),
            max_backups,
        }));
    }
    // Without the record, if that is damaged: the files count.
    let record = chain.record();
    if let Err(e @ record::Error::Damaged { .. }) = &record {
        let reason = e.to_string();
        findings.push(Finding::Record { reason });
    }
    let snapshot = match chain.snapshot() {
        Ok(snapshot) => snapshot,
        Err(e @ (chain::Error::SameFile { .. } | chain::Error::TooManyFiles { .. })) => {
            let reason = e.to_string();
            findings.extend(listing.remarks().into_iter().map(Finding::Remark));
            findings.push(Finding::Unreadable { reason });
            return Ok(Verdict {
                findings,
                ..Verdict::default()
            });
        }
        Err(chain::Error::Folder(e @ folder::Error::NotRegular { .. })) => {
            let reason = e.to_string();
            findings.extend(listing.remarks().into_iter().map(Finding::Remark));
            findings.push(Finding::Unreadable { reason });
            return Ok(Verdict {
                findings,
                ..Verdict::default()
            });
        }
        Err(e) => return Err(e),
    };
    findings.extend(snapshot.remarks().iter().cloned().map(Finding::Remark));
    if snapshot.base_is_missing() {
        findings.push(Finding::NoBase);
    }
    let gaps = snapshot.gaps().iter();
    findings.extend(gaps.map(|g| Finding::Missing {
        first: g.first,
        last: g.last,
    }));
    let record = record.ok_logged("files are not compared with what is remembered of them");
    let ledger = record.flatten().map(|r| r.ledger).unwrap_or_default();
    let mut verdict = Verdict::default();
    for file in 0..snapshot.files().len() {
        match snapshot.length_of(file) {
            Ok(length) => {
                let file = snapshot.files().get(file).filter(|f| !f.is_base());
                findings.extend(file.and_then(|f| shortened(f, length, &ledger)));
                verdict.files = verdict.files.saturating_add(1);
                verdict.bytes = verdict.bytes.saturating_add(length);
            }
            Err(e) => {
                let reason = e.to_string();
                findings.push(Finding::Unreadable { reason });
            }
        }
    }
    findings.extend(copies(&snapshot));
    findings.extend(later(&listing));
    let whole = !findings
        .iter()
        .any(|f| matches!(f, Finding::Unreadable { .. }));
    if let (true, Ok(offsets)) = (whole, Offsets::of(chain))
        && let Ok(layout) = offsets.layout(StreamOffset::START)
    {
        findings.extend(out_of_place(&offsets, &layout));
        let mut holes = offsets.ledger().holes().to_vec();
        // Missing numbers are said already.
        let new = layout.holes().iter();
        holes.extend(new.filter(|h| h.size.is_some() || snapshot.gaps().is_empty()));
        holes.sort_by_key(|h| h.at);
        findings.extend(holes.iter().map(|h| Finding::Lost {
            at: h.at,
            size: h.size,
        }));
    }
    verdict.findings = findings;
    Ok(verdict)
}

/// Files whose bytes lie nowhere in the stream. One that is known to be no part of it is
/// none of them.
fn out_of_place(offsets: &Offsets, layout: &Layout) -> Vec<Finding> {
    let files = offsets.snapshot().files().iter();
    let without = files.enumerate().filter(|(index, file)| {
        let is_placed = layout.spans().iter().any(|span| span.file == *index);
        !is_placed && !offsets.ledger().is_foreign(file.id())
    });
    let finding = |(index, file): (usize, &ChainFile)| {
        // It was gone through.
        let bytes = offsets.snapshot().length_of(index).unwrap_or(0);
        (bytes > 0).then(|| Finding::OutOfPlace {
            name: file.name().to_string_lossy().into_owned(),
            bytes,
        })
    };
    without.filter_map(finding).collect()
}

/// Plain rotated files that are equal, to their last byte, to what the base file begins with.
fn copies(snapshot: &Snapshot) -> Vec<Finding> {
    let Some(base) = snapshot.files().iter().find(|file| file.is_base()) else {
        return Vec::new();
    };
    let same = |file: &&ChainFile| {
        let length = file.size();
        const NO_COPY: &str = "the file counts as no copy of the base";
        let print = |of: &ChainFile| of.fingerprint(0, length).ok_logged(NO_COPY).flatten();
        // Few bytes are equal by accident; and the ends of both, before all is compared.
        let print_of_it = print(file).filter(Fingerprint::is_telling);
        print_of_it.is_some()
            && base.size() >= length
            && print_of_it == print(base)
            && content::begin_alike(file.file(), base.file(), length)
                .ok_logged(NO_COPY)
                .unwrap_or(false)
    };
    let rotated = snapshot.files().iter().filter(|file| !file.is_base());
    let plain = rotated.filter(|file| file.compression().is_none());
    let copy = |file: &ChainFile| Finding::Copy {
        name: file.name().to_string_lossy().into_owned(),
    };
    plain.filter(same).map(copy).collect()
}

/// Files that are copied together, without their times, differ by less.
const TOGETHER: i64 = 2;

/// Rotated files that were written after a base file that has bytes: a rotation renames a
/// file and then begins a new one.
fn later(listing: &Listing) -> Vec<Finding> {
    let Some(base) = listing.base().filter(|base| base.size > 0) else {
        return Vec::new();
    };
    let newest = base.modified.0.saturating_add(TOGETHER);
    let rotated = listing.rotated().iter();
    let rotated = rotated.filter(|r| r.stat.size > 0 && r.stat.modified.0 > newest);
    let found = rotated.map(|r| Finding::Later {
        name: r.name.to_string_lossy().into_owned(),
    });
    found.collect()
}

/// Nobody empties a rotated file; a base file is emptied by `copytruncate`.
fn shortened(file: &ChainFile, length: u64, ledger: &Ledger) -> Option<Finding> {
    let missing = ledger.length_of(file.id())?.checked_sub(length)?;
    (missing > 0).then(|| Finding::Shortened {
        name: file.name().to_string_lossy().into_owned(),
        missing,
    })
}

#[cfg(test)]
mod tests;
