//! What is remembered beside a chain: `.console.log.logchain`.
//!
//! It says where in the VM's stream each file begins ([`crate::stream`]), so
//! that an offset means the same byte for ever. The source writes down what it handed over, so that the same bytes are
//! recognised by identity, never by comparing text, when the VM comes back. The
//! destination writes down what it adopted, so that a handoff is placed once
//! however often it is offered. A chain without a record works as well; the
//! record goes where its folder goes.
//!
//! Must not know: transports, libvirt.
//!
//! ```
//! use std::ffi::OsStr;
//! use logchain_core::folder::Folder;
//! use logchain_core::record::{Adopted, Record};
//! use logchain_core::ids::HandoffId;
//! use uuid::Uuid;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let (folder, base) = Folder::of_file(&dir.path().join("console.log"))?;
//! let (domain, console) = (Uuid::new_v4(), "serial0".parse()?);
//! let handoff = HandoffId::random();
//!
//! let mut record = Record::new(domain, console);
//! record.adopt(Adopted {
//!     handoff,
//!     bytes: 7,
//!     digest: "…".to_owned(),
//!     at: jiff::Timestamp::constant(1_700_000_000, 0),
//!     from: "h1".to_owned(),
//!     dropped: 0,
//!     placed: vec![("console.log.0".to_owned(), 7)],
//! });
//! record.write(&folder, &base)?;
//!
//! assert_eq!(Record::name(&base), OsStr::new(".console.log.logchain"));
//! let console = "serial0".parse()?;
//! let read = Record::read(&folder, &base, domain, &console)?;
//! assert!(read.is_some_and(|r| r.find_adopted(handoff).is_some()));
//! // The path was another VM's once: its record says nothing about this one.
//! assert_eq!(Record::read(&folder, &base, Uuid::new_v4(), &console)?, None);
//! # Ok(())
//! # }
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::OkLogged as _;
use crate::chain::{self, Listing, LogChain, Ownership};
use crate::content;
use crate::folder::{FileId, Folder, Stat, stat_open};
use crate::ids::{ConsoleId, ConsoleName, HandoffId};
use crate::stream::{Arrival, Fingerprint, History, Ledger};
use crate::versioned;

pub use crate::versioned::Error;

/// The version this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// How long a change waits for others.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Handoffs older than the last few cannot be offered again.
const ADOPTED_KEPT: usize = 16;

/// Handoffs older than these can be in no transport any more.
const CONTAINS_KEPT: usize = 128;

/// The record beside a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Whose log this is: the same path may be another VM's one day. `None`
    /// until the first handoff: a path alone does not tell.
    pub owner: Option<ConsoleId>,
    /// Where in the VM's stream each file begins.
    pub ledger: Ledger,
    /// The handoff whose files the ledger knows, placed or about to be.
    pub arriving: Option<HandoffId>,
    /// The handoff away from here that was begun and not committed: where its
    /// pieces are still there, they need not be put again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<HandoffId>,
    /// The last handoff away from here.
    pub offered: Option<Offered>,
    /// The last handoffs to here, the newest last.
    pub adopted: Vec<Adopted>,
    /// Handoffs whose bytes this chain holds, wherever they were adopted: none of
    /// them is placed here again.
    pub contains: Vec<HandoffId>,
}

/// A history that was committed to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// The handoff.
    pub handoff: HandoffId,
    /// The transport's name, for people.
    pub to: String,
    /// Length of the history in bytes.
    pub bytes: u64,
    /// BLAKE3 of the history, in hex.
    pub digest: String,
    /// When it was committed.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub at: Timestamp,
    /// The files that hold it here, and their sizes.
    pub files: Vec<(FileId, u64)>,
    /// What they held on disk: a file of the same identity and size may hold something
    /// else by now. Not of files that tell nothing, nor from earlier releases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prints: Vec<(FileId, Fingerprint)>,
    /// Whether the destination's receipt was seen.
    pub received: bool,
}

/// A history that was placed here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The handoff.
    pub handoff: HandoffId,
    /// Length of the history in bytes.
    pub bytes: u64,
    /// BLAKE3 of the history, in hex.
    pub digest: String,
    /// When it was sealed here.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub at: Timestamp,
    /// The host it came from, as that host said.
    pub from: String,
    /// How many of its oldest bytes the rotation here does not keep.
    pub dropped: u64,
    /// The names given here and their sizes, the newest first.
    pub placed: Vec<(String, u64)>,
}

impl Record {
    /// An empty record.
    #[must_use]
    pub fn new(domain: Uuid, console: ConsoleName) -> Self {
        Self {
            owner: Some(ConsoleId::new(domain, console)),
            ..Self::unowned()
        }
    }

    /// An empty record of a chain of which only the path is known.
    #[must_use]
    pub fn unowned() -> Self {
        Self {
            version: VERSION,
            owner: None,
            ledger: Ledger::default(),
            arriving: None,
            begun: None,
            offered: None,
            adopted: Vec::new(),
            contains: Vec::new(),
        }
    }

    /// The record's file name for the base file `base`.
    #[must_use]
    pub fn name(base: &OsStr) -> OsString {
        hidden(base, ".logchain")
    }

    /// Reads the record of `base`. One of another domain or console, or of a
    /// newer version, counts as none: it says nothing about this chain.
    ///
    /// # Errors
    /// [`Error::Damaged`] and what reading gives.
    pub fn read(
        folder: &Folder,
        base: &OsStr,
        domain: Uuid,
        console: &ConsoleName,
    ) -> Result<Option<Self>, Error> {
        let mut record = Self::read_any(folder, base)?;
        if let Some(record) = &mut record {
            let owner = || ConsoleId::new(domain, console.clone());
            record.owner.get_or_insert_with(owner);
        }
        Ok(record.filter(|r| r.is_of(domain, console)))
    }

    /// Reads the record of `base`, whosever it is.
    ///
    /// # Errors
    /// As [`Record::read`].
    pub fn read_any(folder: &Folder, base: &OsStr) -> Result<Option<Self>, Error> {
        let record: Option<Self> = versioned::read(folder, &Self::name(base))?;
        Ok(record.filter(|r| r.version <= VERSION))
    }

    /// Whether it is this console's.
    #[must_use]
    pub fn is_of(&self, domain: Uuid, console: &ConsoleName) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|owner| owner.domain == domain && owner.console == *console)
    }

    /// Changes the record of a console, or a new one, while nobody else of us
    /// changes it. A damaged one is begun anew: what it said cannot be had.
    pub fn update<T>(
        folder: &Folder,
        base: &OsStr,
        domain: Uuid,
        console: &ConsoleName,
        change: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, Error> {
        // Whoever holds the lock for longer is none of us, and must not hold us up.
        let _lock = folder.lock(LOCK_WAIT)?;
        let old = match Self::read(folder, base, domain, console) {
            Err(Error::Damaged { .. }) => None,
            old => old?,
        };
        let mut record = old.unwrap_or_else(|| Self::new(domain, console.clone()));
        let result = change(&mut record);
        record.write(folder, base)?;
        Ok(result)
    }

    /// Removes what is left of a record whose writer was killed, unless one is at work.
    pub(crate) fn remove_unfinished(folder: &Folder, base: &OsStr) -> Result<(), Error> {
        if folder.lock(Duration::ZERO)?.is_some() {
            versioned::remove_unfinished(folder, &Self::name(base))?;
        }
        Ok(())
    }

    /// Writes the record, durably.
    pub fn write(&self, folder: &Folder, base: &OsStr) -> Result<(), Error> {
        versioned::write(folder, &Self::name(base), self, Some(base))
    }

    /// Removes a record that says no more than whose log it is.
    pub fn remove_blank(folder: &Folder, base: &OsStr) -> Result<(), Error> {
        let _lock = folder.lock(LOCK_WAIT)?;
        let is_blank = |record: Self| {
            let owner = record.owner.clone();
            let blank = Self::unowned();
            record == Self { owner, ..blank }
        };
        if Self::read_any(folder, base)?.is_some_and(is_blank) {
            folder.remove(&Self::name(base))?;
        }
        Ok(())
    }

    /// A history comes here: its files, and those that the VM wrote here since,
    /// get their places in the stream. `here` is this host's name and the time. Once for each handoff, however often it is called.
    pub fn arriving(
        &mut self,
        handoff: HandoffId,
        history: &History,
        arrival: Arrival,
        here: (&str, Timestamp),
    ) {
        if self.arriving.replace(handoff) == Some(handoff) {
            return;
        }
        self.ledger = self.ledger.arrived(history, &arrival, here);
    }

    /// Adds a handoff to here.
    pub fn adopt(&mut self, adopted: Adopted) {
        let handoff = adopted.handoff;
        self.adopted.retain(|a| a.handoff != adopted.handoff);
        self.adopted.push(adopted);
        let surplus = self.adopted.len().saturating_sub(ADOPTED_KEPT);
        self.adopted.drain(..surplus);
        self.contain(&[handoff]);
        // The VM is here now: what it handed over before is part of what came back.
        self.offered = None;
    }

    /// The handoff to here that held just these bytes, if there was one.
    #[must_use]
    pub fn find_adopted(&self, handoff: HandoffId) -> Option<&Adopted> {
        self.adopted.iter().find(|a| a.handoff == handoff)
    }

    /// The last handoff from here, where a history that comes here brings its bytes back.
    /// `contains`: the handoffs whose bytes that history holds, as its source says; `None`: it did
    /// not say yet.
    ///
    /// What the source says counts more than the receipt of that handoff: where a later host could
    /// not hand its log over, the VM comes back without those bytes. A source lists only its last
    /// handoffs, though: where the list is full, the receipt has to do.
    pub(crate) fn brought_back(&self, contains: Option<&[HandoffId]>) -> Option<&Offered> {
        let is_listed = |id| contains.is_some_and(|contains| contains.contains(&id));
        let may_be_more = contains.is_none_or(|contains| contains.len() >= CONTAINS_KEPT);
        let offered = self.offered.as_ref();
        offered.filter(|o| is_listed(o.handoff) || (o.received && may_be_more))
    }

    /// The bytes of these handoffs are part of this chain.
    pub fn contain(&mut self, handoffs: &[HandoffId]) {
        for id in handoffs {
            self.contains.retain(|c| c != id);
            self.contains.push(*id);
        }
        let surplus = self.contains.len().saturating_sub(CONTAINS_KEPT);
        self.contains.drain(..surplus);
    }

    /// Whether the last handoff from here held all of these files, as they are.
    #[must_use]
    pub fn offered_all<'a>(&self, files: impl IntoIterator<Item = &'a OnDisk>) -> bool {
        let Some(offered) = &self.offered else {
            return false;
        };
        let mut files = files.into_iter();
        files.all(|file| file.size == 0 || offered.holds(file))
    }

    /// Whether it held no other bytes than these files'.
    pub(crate) fn offered_no_other(&self, files: &[OnDisk]) -> bool {
        let mut offered = self.offered.iter().flat_map(|o| &o.files);
        let is_there = |(id, size)| files.iter().any(|f| f.id == id && f.size == size);
        offered.all(|file| file.1 == 0 || is_there(*file))
    }
}

impl LogChain {
    /// What is remembered beside the log, whosever it is; `None` where nothing was ever
    /// remembered, or only by a newer release.
    ///
    /// # Errors
    /// [`Error::Damaged`]: the log can be read all the same, but its offsets are lost.
    ///
    /// ```
    /// use logchain_core::{LogChain, NumberingChoice};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("console.log");
    /// std::fs::write(&path, "not migrated yet")?;
    /// let chain = LogChain::open(&path, NumberingChoice::Auto)?;
    /// assert!(chain.record()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn record(&self) -> Result<Option<Record>, Error> {
        Record::read_any(self.folder(), self.base_name())
    }
}

impl Offered {
    /// Whether it held anything, and all the files that it was in are such files.
    pub(crate) fn lies_in(&self, is_such: impl Fn(FileId) -> bool) -> bool {
        let mut files = self.files.iter().filter(|(_, size)| *size > 0);
        self.bytes > 0 && files.all(|(id, _)| is_such(*id))
    }

    /// Whether it held all that this file holds.
    #[must_use]
    pub fn holds(&self, file: &OnDisk) -> bool {
        let print = self.print_of(file.id);
        self.files.contains(&(file.id, file.size))
            && print.is_none_or(|print| file.print == Some(print))
    }

    /// What that file held.
    pub(crate) fn print_of(&self, id: FileId) -> Option<Fingerprint> {
        let print = self.prints.iter().find(|(file, _)| *file == id);
        print.map(|(_, print)| *print)
    }
}

/// A file as it lies on disk now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// Which file.
    pub id: FileId,
    /// Its size in bytes.
    pub size: u64,
    /// What it holds; `None`: it cannot be read, or what it holds tells nothing.
    pub print: Option<Fingerprint>,
}

impl OnDisk {
    /// That of an open file.
    pub(crate) fn of(file: &File) -> std::io::Result<Self> {
        let Stat { id, size, .. } = stat_open(file)?;
        let print = content::fingerprint(file, 0, size)?;
        Ok(Self { id, size, print })
    }

    /// That of a name under which `stat` was found.
    pub(crate) fn named(folder: &Folder, name: &OsStr, stat: &Stat) -> Self {
        const NOT_KNOWN: &str = "the file is not known to hold what was handed over";
        let opened = folder.open_file(name).ok_logged(NOT_KNOWN);
        let there = opened.and_then(|(file, _)| Self::of(&file).ok_logged(NOT_KNOWN));
        // Another file by now, or one that may not be opened.
        let print = there.filter(|f| f.id == stat.id && f.size == stat.size);
        Self {
            id: stat.id,
            size: stat.size,
            print: print.and_then(|f| f.print),
        }
    }

    /// Those of a chain.
    pub(crate) fn of_chain(
        folder: &Folder,
        base: &OsStr,
        ownership: &Ownership,
    ) -> chain::Result<Vec<Self>> {
        let listing = Listing::read_owned(folder, base, ownership)?;
        let named = |name: Option<_>, stat| Self::named(folder, name.unwrap_or(base), stat);
        let files = listing.files();
        Ok(files.map(|file| named(file.name, file.stat)).collect())
    }
}

/// What a file system takes of a name.
const LONGEST_NAME: usize = 255;

/// `.` + `base` + `suffix`: hidden, so that no reader takes it for a rotated file. Where that
/// is more than a file system takes, the base is cut, and a digest of it tells it from others.
pub(crate) fn hidden(base: &OsStr, suffix: &str) -> OsString {
    // What is written first has another four bytes behind.
    let room = LONGEST_NAME.saturating_sub(".".len() + suffix.len() + ".new".len());
    let bytes = base.as_bytes();
    let mut name = b".".to_vec();
    if bytes.len() <= room {
        name.extend_from_slice(bytes);
    } else {
        let digest = blake3::hash(bytes).to_hex();
        let digest = digest.get(..DIGEST_DIGITS).unwrap_or_default();
        // And `verify --repair` sets one aside with as many again.
        let mut end = room.saturating_sub(4 + digest.len() + 1);
        // Some file systems take no half of a character.
        while end > 0 && bytes.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
            end -= 1;
        }
        name.extend_from_slice(bytes.get(..end).unwrap_or_default());
        name.push(b'~');
        name.extend_from_slice(digest.as_bytes());
    }
    name.extend_from_slice(suffix.as_bytes());
    OsString::from_vec(name)
}

/// 64 bits: two logs of one folder whose names begin alike do not meet by chance.
const DIGEST_DIGITS: usize = 16;

#[cfg(test)]
mod long_names {
    use super::*;

    #[test]
    fn a_hidden_name_always_fits() {
        let of = |base: &str| Record::name(OsStr::new(base)).into_string().unwrap();
        // As it always was, where that fits.
        for length in [1, 200, 241] {
            let base = "x".repeat(length);
            assert_eq!(of(&base), format!(".{base}.logchain"));
        }
        for base in [
            "x".repeat(242),
            "x".repeat(255),
            "\u{e9}".repeat(127),
            "a".to_owned() + &"\u{e9}".repeat(127),
        ] {
            for suffix in [".logchain", ".logchain.d", ".logchain.gone"] {
                let name = hidden(OsStr::new(&base), suffix).into_string().unwrap();
                assert!(name.len() + ".damaged".len() <= LONGEST_NAME, "{name}");
                assert!(name.starts_with('.') && name.ends_with(suffix) && name.contains('~'));
            }
        }
        let one = "x".repeat(250) + "1";
        let other = "x".repeat(250) + "2";
        assert_ne!(of(&one), of(&other));
    }
}

#[cfg(test)]
mod stored {
    use super::*;

    /// As the first release writes it. Every later one reads and writes the same.
    const RECORD: &str = concat!(
        r#"{"version":1,"owner":["00000000-0000-0000-0000-000000000007","serial0"],"#,
        r#""ledger":{"known":[{"id":{"ino":1,"born":[5,6]},"skip":0,"start":19,"length":7}],"#,
        r#""foreign":[],"holes":[{"at":10,"size":5},{"at":17,"size":null}],"#,
        r#""hops":[{"host":"h1","since":null,"start":0},"#,
        r#"{"host":"h2","since":1700000000,"start":19}],"end":26},"#,
        r#""arriving":null,"#,
        r#""offered":{"handoff":"00000000-0000-0000-0000-000000000008","to":"ssh://h2","#,
        r#""bytes":26,"digest":"aa","at":1700000060,"files":[[{"ino":1,"born":[5,6]},7]],"#,
        r#""received":false},"#,
        r#""adopted":[{"handoff":"00000000-0000-0000-0000-000000000009","bytes":19,"#,
        r#""digest":"bb","at":1700000000,"from":"h1","dropped":2,"placed":[["l.0",17]]}],"#,
        r#""contains":["00000000-0000-0000-0000-000000000009"]}"#,
    );

    #[test]
    fn a_record_is_read_and_written_as_by_the_first_release() {
        let record: Record = serde_json::from_str(RECORD).unwrap();
        let owner = ConsoleId::new(Uuid::from_u128(7), "serial0".parse().unwrap());
        assert_eq!(record.owner, Some(owner));
        let since: Vec<_> = record.ledger.hops().iter().map(|hop| hop.since).collect();
        assert_eq!(since, [None, Some(Timestamp::constant(1_700_000_000, 0))]);
        assert_eq!(serde_json::to_string(&record).unwrap(), RECORD);
        // A message may leave out what is not known.
        let without = RECORD.replace(r#""since":null,"#, "");
        assert_eq!(serde_json::from_str::<Record>(&without).unwrap(), record);
    }
}
