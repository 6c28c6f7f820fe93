//! The note that a domain left this host by migration: `/var/lib/logchain/left/<uuid>`.
//!
//! libvirt remembers that a domain left only until it is restarted. The note
//! remembers it, with what has to be known to let the domain go in the end: where
//! it went, which logs it left, and which definition stayed.
//!
//! Must not know: why anybody wants to know.
//!
//! ```
//! use logchain_core::departure::{Departure, Destination, Notes};
//! use uuid::Uuid;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let state = tempfile::tempdir()?;
//! let to = Destination { uri: "qemu+tls://h2/system".to_owned(), host: None };
//! let note = Departure::new(Uuid::new_v4(), "vm1", "qemu:///system", to, jiff::Timestamp::UNIX_EPOCH);
//!
//! let notes = Notes::create(state.path())?;
//! notes.write(&note)?;
//! assert_eq!(notes.read(note.domain)?, Some(note.clone()));
//! assert!(notes.remove(&note)?);
//! assert!(notes.all()?.is_empty());
//! # Ok(())
//! # }
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::to_the_second;
use crate::folder::{self, Folder};
use crate::ids::ConsoleName;
use crate::versioned;

pub use crate::versioned::Error;

/// Where a host's state lies unless told otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/logchain";

/// The version this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// The folder of the notes in the host's state folder.
const FOLDER: &str = "left";

/// How long a change waits for another.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// A domain that left this host by migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    version: u32,
    /// The domain's UUID: what stays the same when it migrates.
    pub domain: Uuid,
    /// Its name here.
    pub name: String,
    /// The URI of the libvirt here that knew it.
    pub connect: String,
    /// Where it went.
    pub to: Destination,
    /// When it left, to the second.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub at: Timestamp,
    /// BLAKE3 of the definition that stayed, in hex; `None` where none did.
    pub definition: Option<String>,
    /// How its logs travelled.
    pub transport: String,
    /// What logchain is called there, where it is not its own name.
    pub remote: Option<String>,
    /// Its logs here.
    pub logs: Vec<LeftLog>,
}

/// Where a domain went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The URI of its libvirt.
    pub uri: String,
    /// The UUID of the host, where it was known.
    pub host: Option<Uuid>,
}

/// A log that the domain left here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftLog {
    /// Which console.
    pub console: ConsoleName,
    /// Its base file.
    pub path: PathBuf,
    /// Whether the receipt was seen by whoever wrote the note. One that came later
    /// is in the record beside the log.
    pub received: bool,
}

impl Departure {
    /// A note without logs, of a domain of which no definition stayed.
    #[must_use]
    pub fn new(domain: Uuid, name: &str, connect: &str, to: Destination, at: Timestamp) -> Self {
        Self {
            version: VERSION,
            domain,
            name: name.to_owned(),
            connect: connect.to_owned(),
            to,
            at: to_the_second(at),
            definition: None,
            transport: String::new(),
            remote: None,
            logs: Vec::new(),
        }
    }

    /// The destination has the log of this console.
    pub fn received(&mut self, console: &ConsoleName) {
        for log in self.logs.iter_mut().filter(|log| log.console == *console) {
            log.received = true;
        }
    }

    /// The logs that no destination is known to have.
    pub fn missing(&self) -> impl Iterator<Item = &LeftLog> {
        self.logs.iter().filter(|log| !log.received)
    }

    /// What a definition is told from others by.
    #[must_use]
    pub fn digest(definition: &str) -> String {
        blake3::hash(definition.as_bytes()).to_hex().to_string()
    }
}

/// The notes of this host.
#[derive(Debug)]
pub struct Notes(Folder);

impl Notes {
    /// In the state folder `state`; `None` where no note was ever written.
    pub fn open(state: &Path) -> Result<Option<Self>, Error> {
        match Folder::open(&state.join(FOLDER)) {
            Ok(folder) => Ok(Some(Self(folder))),
            Err(folder::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// In the state folder `state`, made with mode 0700 where it is not there.
    pub fn create(state: &Path) -> Result<Self, Error> {
        Ok(Self(Folder::create(&state.join(FOLDER))?))
    }

    /// Writes a note, durably; one of an earlier departure is over.
    pub fn write(&self, note: &Departure) -> Result<(), Error> {
        // Whoever holds it for longer is none of us, and must not hold us up.
        let _lock = self.0.lock(LOCK_WAIT)?;
        self.write_locked(note)
    }

    fn write_locked(&self, note: &Departure) -> Result<(), Error> {
        versioned::write(&self.0, &name(note.domain), note, None)
    }

    /// The note on a domain.
    ///
    /// # Errors
    /// [`Error::Damaged`], one of a newer version among them, and what reading gives.
    pub fn read(&self, domain: Uuid) -> Result<Option<Departure>, Error> {
        let name = name(domain);
        let note: Option<Departure> = versioned::read(&self.0, &name)?;
        let damaged = |what: String| Error::Damaged {
            name: name.clone(),
            what,
        };
        match note {
            Some(note) if note.version > VERSION => Err(damaged(format!(
                "a newer logchain wrote it (version {})",
                note.version
            ))),
            // A copy under another's name says nothing about that one.
            Some(note) if note.domain != domain => {
                Err(damaged(format!("it is about {}", note.domain)))
            }
            note => Ok(note),
        }
    }

    /// All notes, the oldest departure first, and those that cannot be read.
    pub fn all(&self) -> Result<All, Error> {
        let mut all = All::default();
        for name in self.0.names()? {
            // Temporaries and the like are nobody's.
            let Some(domain) = name.to_str().and_then(|n| n.parse::<Uuid>().ok()) else {
                continue;
            };
            match self.read(domain) {
                Ok(note) => all.notes.extend(note),
                Err(e) => all.damaged.push((domain, e.to_string())),
            }
        }
        all.notes.sort_by_key(|note| (note.at, note.domain));
        all.damaged.sort();
        Ok(all)
    }

    /// Removes a note, unless the domain left again meanwhile; gives whether it did.
    pub fn remove(&self, note: &Departure) -> Result<bool, Error> {
        let _lock = self.0.lock(LOCK_WAIT)?;
        if self.read(note.domain)?.as_ref() != Some(note) {
            return Ok(false);
        }
        self.0.remove(&name(note.domain))?;
        self.0.sync()?;
        Ok(true)
    }
}

/// What [`Notes::all`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct All {
    /// The notes.
    pub notes: Vec<Departure>,
    /// Notes that cannot be read: on which domain, and why.
    pub damaged: Vec<(Uuid, String)>,
}

impl All {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.damaged.is_empty()
    }
}

fn name(domain: Uuid) -> OsString {
    OsString::from(domain.hyphenated().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(domain: u128, at: i64) -> Departure {
        let at = Timestamp::constant(at, 0);
        let to = Destination {
            uri: "qemu+tcp://h2/system".to_owned(),
            host: Some(Uuid::from_u128(2)),
        };
        let mut note = Departure::new(Uuid::from_u128(domain), "vm", "qemu:///system", to, at);
        note.logs.push(LeftLog {
            console: "serial0".parse().unwrap(),
            path: "/var/log/vm/console.log".into(),
            received: true,
        });
        note
    }

    #[test]
    fn notes_are_listed_and_one_that_was_written_again_stays() {
        let state = tempfile::tempdir().unwrap();
        assert!(Notes::open(state.path()).unwrap().is_none());
        let notes = Notes::create(state.path()).unwrap();
        let (one, two) = (note(1, 20), note(2, 10));
        notes.write(&one).unwrap();
        notes.write(&two).unwrap();
        let all = Notes::open(state.path()).unwrap().unwrap().all().unwrap();
        assert_eq!(all.notes, [two.clone(), one.clone()]);

        let again = note(1, 30);
        notes.write(&again).unwrap();
        assert!(!notes.remove(&one).unwrap());
        assert!(notes.remove(&again).unwrap() && notes.remove(&two).unwrap());
        assert!(notes.all().unwrap().is_empty());
        assert!(!notes.remove(&two).unwrap());
    }

    #[test]
    fn a_note_that_is_not_what_was_written_is_told() {
        let state = tempfile::tempdir().unwrap();
        let notes = Notes::create(state.path()).unwrap();
        let one = note(1, 20);
        notes.write(&one).unwrap();
        let folder = state.path().join(FOLDER);
        let path = folder.join(one.domain.to_string());
        let text = std::fs::read_to_string(&path).unwrap();
        let other = Uuid::from_u128(7);
        std::fs::write(folder.join(other.to_string()), &text).unwrap();
        std::fs::write(&path, text.replacen("h2", "h3", 1)).unwrap();
        std::fs::write(folder.join("not-a-uuid"), "x").unwrap();
        let all = notes.all().unwrap();
        assert_eq!(all.notes, []);
        let said: Vec<_> = all.damaged.iter().map(|(_, why)| why.as_str()).collect();
        assert!(said[0].contains("digest") && said[1].contains("it is about"));
    }

    /// As version 1 wrote it: whatever changes, this is read.
    #[test]
    fn an_old_note_is_read() {
        let json = r#"{"version":1,"domain":"00000000-0000-0000-0000-000000000001","name":"vm","connect":"qemu:///system","to":{"uri":"qemu+tcp://h2/system","host":"00000000-0000-0000-0000-000000000002"},"at":20,"definition":null,"transport":"","remote":null,"logs":[{"console":"serial0","path":"/var/log/vm/console.log","received":true}]}"#;
        let state = tempfile::tempdir().unwrap();
        let notes = Notes::create(state.path()).unwrap();
        let text = format!("{json}\n{}\n", blake3::hash(json.as_bytes()).to_hex());
        let path = state.path().join(FOLDER);
        std::fs::write(path.join(Uuid::from_u128(1).to_string()), text).unwrap();
        assert_eq!(notes.all().unwrap().notes, [note(1, 20)]);
    }
}
