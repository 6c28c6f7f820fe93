//! Where the files of a chain lie in the VM's stream: pure.
//!
//! The stream is every byte that the console ever printed, whichever host it
//! printed on. A [`StreamOffset`] counts from its first byte and never falls. The
//! [`Ledger`] remembers, by identity, at which offset each file begins; a
//! [`Layout`] says it of the files that are there now. What nobody saw (a
//! rollover that dropped bytes, a restart that wiped the log) is a [`Hole`].
//!
//! An identity alone does not tell what a file holds: `copytruncate` copies a log
//! and empties it, and it is soon longer than it was. So the ledger remembers a
//! [`Fingerprint`] of each run as well, and [`Ledger::recognise`] says which files
//! still hold what they held, and which others hold it now.
//!
//! Must not know: files, I/O, clocks, who remembers the ledger.
//!
//! ```
//! use logchain_core::folder::FileId;
//! use logchain_core::stream::{Ledger, Seen, StreamOffset};
//!
//! let file = |ino| FileId { ino, born: None };
//! let seen = |ino, length| Seen::plain(file(ino), length);
//!
//! let mut ledger = Ledger::default();
//! let before = [seen(1, 100), seen(2, 40)];
//! let layout = ledger.lay(&before, StreamOffset::START)?;
//! assert_eq!(layout.end(), StreamOffset::new(140));
//! ledger.remember(&layout);
//!
//! // A rollover dropped file 1, file 2 grew before it was rolled over, 3 is new.
//! let layout = ledger.lay(&[seen(2, 60), seen(3, 5)], StreamOffset::START)?;
//! assert_eq!(layout.first(), Some(StreamOffset::new(100)));
//! assert_eq!(layout.end(), StreamOffset::new(165));
//! # Ok::<(), logchain_core::stream::Measure>(())
//! ```

mod boots;
mod fingerprint;
mod history;
mod layout;
mod ledger;
mod offset;
mod recognise;
mod segments;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use fingerprint::Fingerprint;
pub use history::{Arrival, History};
pub use layout::{Layout, Place, Span};
pub use ledger::Ledger;
pub use offset::StreamOffset;
pub use recognise::Look;
pub(crate) use segments::{Piece, PieceHere, Side, order, usual_order};

use crate::folder::FileId;
use crate::ids::HandoffId;

/// Bytes that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The offset at which they are missing.
    pub at: StreamOffset,
    /// How many, where that is known: then offsets count them. `None`: they
    /// are not counted.
    pub size: Option<u64>,
}

/// A host that the VM was on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Its name, as it calls itself.
    pub host: String,
    /// When the VM's log came there; `None`: it began there.
    #[serde(default, with = "jiff::fmt::serde::timestamp::second::optional")]
    pub since: Option<Timestamp>,
    /// The offset of the first byte printed there. The hop ends where the next
    /// one begins.
    pub start: StreamOffset,
}

/// A start of the VM that began a new log.
///
/// libvirt wipes the log at such a start, where the log has no `append='on'`. A boundary is known
/// only of a boot whose earlier log was kept and put behind the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The offset of the first byte that was printed after it.
    pub start: StreamOffset,
    /// When the log began anew, to the millisecond. It tells boots apart, of which one printed
    /// nothing.
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub since: Timestamp,
}

/// What the VM printed between two handoffs.
///
/// It begins where the segment before it ends, and has one name on every host: that of the handoff
/// that first took it along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The handoff.
    pub handoff: HandoffId,
    /// The offset after its last byte.
    pub end: StreamOffset,
    /// When the VM printed the last of it, to the millisecond, by the clock of the host that it
    /// was on; `None`: nobody knows.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "jiff::fmt::serde::timestamp::millisecond::optional"
    )]
    pub at: Option<Timestamp>,
}

/// What one boot of the VM printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootRun {
    /// When the log began; `None`: it is the oldest one that is known of.
    pub since: Option<Timestamp>,
    /// The offset of its first byte that is there.
    pub start: StreamOffset,
    /// The offset after its last byte.
    pub end: StreamOffset,
}

/// A file of the chain as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which file.
    pub id: FileId,
    /// Its length in the stream; `None`: it is compressed and was not gone through.
    pub length: Option<u64>,
    /// Whether numbers are missing between this file and the next older one.
    pub after_gap: bool,
    /// Whether it is compressed: its bytes cannot be had without going through it.
    pub compressed: bool,
}

impl Seen {
    /// A file whose bytes lie on disk as they are in the stream.
    #[must_use]
    pub fn plain(id: FileId, length: u64) -> Self {
        Self {
            id,
            length: Some(length),
            after_gap: false,
            compressed: false,
        }
    }
}

/// The length of this file, by its place in the list, must be found out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the length of file {0} is needed")]
pub struct Measure(pub usize);
