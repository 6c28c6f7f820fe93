//! The files of a log that left: looked at, and removed. The one place that acts.
//!
//! A file goes only if the record lists it by identity as handed over, with the
//! receipt, at the very size that it has and with the same bytes at both ends, and
//! nobody writes it. It is taken from
//! its name first and looked at then, so that what somebody put there meanwhile
//! gets its name back.
//!
//! Must not know: libvirt, domains that are defined.

use std::ffi::OsStr;
use std::path::Path;

use uuid::Uuid;

use super::{Log, known};
use crate::chain::{Listing, Ownership};
use crate::folder::{self, Folder};
use crate::follow::{Writer, Writers};
use crate::ids::ConsoleName;
use crate::placement;
use crate::record::{LOCK_WAIT, OnDisk, Record, hidden};

/// Why files could not be looked at or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder's answer.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The chain could not be listed.
    #[error(transparent)]
    Chain(#[from] crate::chain::Error),
    /// The record could not be read.
    #[error(transparent)]
    Record(#[from] crate::record::Error),
}

/// What [`remove`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many files went.
    pub files: u64,
    /// How many bytes were in them.
    pub bytes: u64,
    /// Files that stay: they are not what was handed over.
    pub kept: Vec<String>,
}

/// Looks at the log at `path`; changes nothing.
#[must_use]
pub fn look(path: &Path, domain: Uuid, console: &ConsoleName) -> Log {
    match try_look(path, domain, console) {
        Ok(log) => log,
        Err(Error::Folder(folder::Error::NotFound { .. })) => Log::Gone { received: false },
        Err(e) => Log::Unreadable(e.to_string()),
    }
}

fn try_look(path: &Path, domain: Uuid, console: &ConsoleName) -> Result<Log, Error> {
    let (folder, base) = Folder::of_file(path)?;
    if placement::is_under_way(&folder, &base) {
        return Ok(Log::UnderWay);
    }
    let record = Record::read(&folder, &base, domain, console)?;
    let files = files(&folder, &base)?;
    let known = known(record.as_ref(), &files);
    if files.is_empty() {
        let received = record.and_then(|r| r.offered).is_some_and(|o| o.received);
        return Ok(Log::Gone { received });
    }
    Ok(Log::There(known))
}

/// Removes the files of the log at `path` that were handed over, and with the last
/// of them the record. What is gone already is no error: a next call goes on
/// where one was killed.
///
/// # Errors
/// The folder's, the record's.
pub fn remove(
    path: &Path,
    domain: Uuid,
    console: &ConsoleName,
    writers: &dyn Writers,
) -> Result<Removed, Error> {
    let mut removed = Removed::default();
    let (folder, base) = match Folder::of_file(path) {
        Err(folder::Error::NotFound { .. }) => return Ok(removed),
        opened => opened?,
    };
    let _lock = folder.lock(LOCK_WAIT)?;
    let Some(record) = Record::read(&folder, &base, domain, console)? else {
        return Ok(removed);
    };
    let Some(offered) = record.offered.filter(|o| o.received) else {
        return Ok(removed);
    };
    let aside = hidden(&base, ".logchain.gone");
    let went = |file: &OnDisk| offered.holds(file);
    // Of a process that was killed: it went by the same rule.
    if let Some(stat) = folder.stat(&aside)? {
        if !went(&OnDisk::named(&folder, &aside, &stat)) {
            removed.kept.push(aside.to_string_lossy().into_owned());
            return Ok(removed);
        }
        folder.remove(&aside)?;
        removed.files = removed.files.saturating_add(1);
        removed.bytes = removed.bytes.saturating_add(stat.size);
    }
    let listing = Listing::read(&folder, &base)?;
    // The oldest first: what is left if we are killed reads as one stream.
    let mut names: Vec<_> = listing
        .files()
        .map(|file| (file.name.unwrap_or(&base), *file.stat))
        .collect();
    names.reverse();
    for (name, stat) in names {
        let file = OnDisk::named(&folder, name, &stat);
        if went(&file) && take(&folder, name, &aside, &went, writers)? {
            removed.files = removed.files.saturating_add(1);
            removed.bytes = removed.bytes.saturating_add(stat.size);
        } else {
            removed.kept.push(name.to_string_lossy().into_owned());
        }
    }
    if removed.kept.is_empty() {
        folder.sync()?;
        folder.remove(&Record::name(&base))?;
    }
    folder.sync()?;
    Ok(removed)
}

/// Takes the file from its name, and removes it if it is one that may go.
fn take(
    folder: &Folder,
    name: &OsStr,
    aside: &OsStr,
    went: &impl Fn(&OnDisk) -> bool,
    writers: &dyn Writers,
) -> Result<bool, Error> {
    folder.take_aside(name, folder, aside)?;
    let (file, _) = folder.open_file(aside)?;
    let idle = writers.writer(&file) != Writer::Some;
    // The writer is asked first: what one wrote before it went shows in the file.
    let now = OnDisk::of(&file).map_err(|source| folder::Error::Io {
        action: "look at",
        path: folder.path().join(name),
        source,
    })?;
    if idle && went(&now) {
        folder.remove(aside)?;
        return Ok(true);
    }
    folder.put_back(aside, folder, name)?;
    Ok(false)
}

/// Every file of the chain, and those that are not read: they were not handed over.
fn files(folder: &Folder, base: &OsStr) -> Result<Vec<OnDisk>, Error> {
    let mut files = OnDisk::of_chain(folder, base, &Ownership::default())?;
    let listing = Listing::read(folder, base)?;
    for name in listing.shadowed().iter().chain(listing.unread()) {
        let stat = folder.stat(name)?;
        files.extend(stat.map(|stat| OnDisk::named(folder, name, &stat)));
    }
    Ok(files)
}

#[cfg(test)]
pub(super) fn files_of(folder: &Folder, base: &OsStr) -> Vec<OnDisk> {
    files(folder, base).unwrap()
}
