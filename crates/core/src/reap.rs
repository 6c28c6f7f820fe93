//! Whether a domain that left this host may be undefined here: pure, from what was
//! found. What may go of its files is in [`files`].
//!
//! Only a domain with a note ([`crate::departure`]) is ever looked at. Whatever
//! is not as the note says keeps it, with the reason.
//!
//! Must not know: libvirt, how a placement is confirmed, transports.
//!
//! ```
//! use logchain_core::departure::{Departure, Destination};
//! use logchain_core::reap::{Decision, Here, Placement, decide};
//! use uuid::Uuid;
//!
//! let to = Destination { uri: "qemu+tls://h2/system".to_owned(), host: None };
//! let mut note = Departure::new(Uuid::new_v4(), "vm1", "qemu:///system", to, jiff::Timestamp::constant(1_700_000_000, 0));
//! note.definition = Some(Departure::digest("<domain/>"));
//!
//! let here = Here::Over { definition: Departure::digest("<domain/>") };
//! assert_eq!(decide(&note, &here, &[], &Placement::NotAsked), Decision::Ask);
//! let running = Placement::Confirmed("it runs at h2".to_owned());
//! assert_eq!(decide(&note, &here, &[], &running), Decision::Reap);
//! ```

pub mod files;

use std::path::PathBuf;

use crate::departure::{Departure, LeftLog};
use crate::record::{OnDisk, Record};

/// What libvirt here says of the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Here {
    /// It does not know it.
    Gone,
    /// It is defined and shut off.
    Over {
        /// BLAKE3 of its definition, in hex.
        definition: String,
    },
    /// It runs.
    Running,
    /// A process stands behind it, though it does not run: in a word.
    Active(&'static str),
}

/// What was found of a log that the domain left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// No file of it is there. `received`: the record that is there still says that
    /// the destination has it.
    Gone {
        /// Whether it does.
        received: bool,
    },
    /// The destination does not have it: what was held of it lies in the outbox, there.
    PutDown(PathBuf),
    /// Files of it are there.
    There(Known),
    /// History is being put in place beside it, or was when somebody was killed.
    UnderWay,
    /// It could not be looked at, and why.
    Unreadable(String),
}

/// What the record beside a log says of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: no record is there, or one of another domain, or it never left.
    Nothing,
    /// They were handed over, all of them as they are.
    HandedOver {
        /// Whether the destination's receipt was seen.
        received: bool,
    },
    /// They hold what was not handed over.
    More,
}

/// What was found out about the domain's new place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Nobody was asked yet.
    NotAsked,
    /// It is there: in words.
    Confirmed(String),
    /// It is not there, or nobody can tell: why.
    NotConfirmed(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All else is well: ask about the new place, and decide again.
    Ask,
    /// Undefine it where it is defined, let its files go, and drop the note.
    Reap,
    /// Drop the note only: the departure is over, and why.
    Forget(String),
    /// Leave all as it is, and why.
    Keep(String),
}

/// Decides about a domain that left. `logs` are in the order of the note's.
#[must_use]
pub fn decide(note: &Departure, here: &Here, logs: &[Log], placement: &Placement) -> Decision {
    match here {
        Here::Running => return Decision::Forget("it came back: it runs here".to_owned()),
        Here::Active(word) => return Decision::Keep(format!("it is {word} here")),
        Here::Over { definition } if note.definition.as_ref() != Some(definition) => {
            let why = "it was defined anew here, or changed, since it left: undefine it by hand \
                       if it is not wanted";
            return Decision::Keep(why.to_owned());
        }
        Here::Over { .. } | Here::Gone => {}
    }
    for (index, left) in note.logs.iter().enumerate() {
        let found = logs.get(index);
        if let Err(why) = is_carried(left, found) {
            return Decision::Keep(format!("{}: {why}", left.console));
        }
    }
    match placement {
        Placement::NotAsked => Decision::Ask,
        Placement::Confirmed(_) => Decision::Reap,
        Placement::NotConfirmed(why) => {
            Decision::Keep(format!("its new place is not confirmed: {why}"))
        }
    }
}

/// Whether the destination has all of a log.
fn is_carried(left: &LeftLog, found: Option<&Log>) -> Result<(), String> {
    let path = left.path.display();
    match found {
        Some(Log::There(Known::HandedOver { received: true })) => Ok(()),
        Some(Log::Gone { received }) if *received || left.received => Ok(()),
        Some(Log::Gone { .. }) => Err(format!(
            "the destination gave no receipt, and the log is gone from {path}"
        )),
        Some(Log::PutDown(path)) => Err(format!(
            "the destination does not have it; it is put down at {}: offer it",
            path.display()
        )),
        Some(Log::There(Known::HandedOver { received: false })) => {
            Err("the destination gave no receipt yet".to_owned())
        }
        Some(Log::There(Known::More)) => Err(format!(
            "{path} holds what was not handed over: offer it again"
        )),
        // It has the same folder: the files are the log there still, and stay.
        Some(Log::There(Known::Nothing)) if left.received => Ok(()),
        Some(Log::There(Known::Nothing)) => Err(format!(
            "nothing beside {path} says that it was handed over: offer it"
        )),
        Some(Log::UnderWay) => Err(format!(
            "history is being put in place beside {path}, or was when somebody was killed"
        )),
        Some(Log::Unreadable(why)) => Err(why.clone()),
        None => Err("nobody looked at its log".to_owned()),
    }
}

/// What a record says of the files that are there.
#[must_use]
pub fn known(record: Option<&Record>, files: &[OnDisk]) -> Known {
    let Some((record, offered)) = record.and_then(|r| Some((r, r.offered.as_ref()?))) else {
        return Known::Nothing;
    };
    if record.offered_all(files) {
        Known::HandedOver {
            received: offered.received,
        }
    } else {
        Known::More
    }
}

#[cfg(test)]
mod tests;
