//! How our own small files are kept: one line of JSON with a version, one line
//! with the BLAKE3 of the first. A torn or altered file is recognised.
//!
//! Must not know: what the records mean.

use std::ffi::{OsStr, OsString};
use std::io::Read;

use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};
use serde::{Serialize, de::DeserializeOwned};

use crate::OkLogged as _;
use crate::folder::{self, Folder, fault};

/// A record is small; a file that is larger is not one of ours.
const MAX_BYTES: u64 = 1 << 20;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder's answer.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Reading or writing the file failed.
    #[error("cannot {action} the record {name:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file's name.
        name: OsString,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("the record {name:?} is damaged: {what}")]
    Damaged {
        /// The file's name.
        name: OsString,
        /// What does not fit.
        what: String,
    },
}

/// Writes `record` under `name`: a temporary, fsync, rename, fsync of the folder.
///
/// Who may read the file `like` may read the record.
pub(crate) fn write<T: Serialize>(
    folder: &Folder,
    name: &OsStr,
    record: &T,
    like: Option<&OsStr>,
) -> Result<(), Error> {
    write_as(folder, name, record, like, Lasts::Reboots)
}

/// As [`write`], without waiting for the disk: for what is worth nothing once the host was
/// started anew. What a crash of the host left half written is damaged for its reader.
pub(crate) fn write_until_reboot<T: Serialize>(
    folder: &Folder,
    name: &OsStr,
    record: &T,
) -> Result<(), Error> {
    write_as(folder, name, record, None, Lasts::UntilReboot)
}

/// How long a record has to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasts {
    Reboots,
    UntilReboot,
}

fn write_as<T: Serialize>(
    folder: &Folder,
    name: &OsStr,
    record: &T,
    like: Option<&OsStr>,
    lasts: Lasts,
) -> Result<(), Error> {
    let mut json = serde_json::to_vec(record).map_err(|e| Error::Damaged {
        name: name.to_owned(),
        what: e.to_string(),
    })?;
    let temporary = temporary(name);
    folder.remove(&temporary)?;
    let mut file = folder.create_new(&temporary, 0o600)?;
    // Where this fails, only its owner reads it: no worse than before.
    const OWNERS_ALONE: &str = "nobody but its owner can read the file";
    let like = like.and_then(|like| folder.stat(like).ok_logged(OWNERS_ALONE)?);
    if let Some(stat) = like {
        let (uid, gid) = stat.owner;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchown(&file, owner.0, owner.1).ok_logged(OWNERS_ALONE);
        fchmod(&file, Mode::from_raw_mode(stat.mode & 0o666)).ok_logged(OWNERS_ALONE);
    }
    let digest = blake3::hash(&json).to_hex();
    json.extend_from_slice(format!("\n{digest}\n").as_bytes());
    let written = fault::write_all(&mut file, &json).and_then(|()| match lasts {
        Lasts::Reboots => fault::sync(&file),
        Lasts::UntilReboot => Ok(()),
    });
    if let Err(source) = written {
        folder.remove(&temporary)?;
        return Err(Error::Io {
            action: "write",
            name: name.to_owned(),
            source,
        });
    }
    folder.rename_over(&temporary, name)?;
    if lasts == Lasts::Reboots {
        folder.sync()?;
    }
    Ok(())
}

/// Removes what a writer left that was killed before its record had its name. Nobody else
/// may be writing it meanwhile.
pub(crate) fn remove_unfinished(folder: &Folder, name: &OsStr) -> Result<(), Error> {
    Ok(folder.remove(&temporary(name))?)
}

fn temporary(name: &OsStr) -> OsString {
    let mut temporary = name.to_owned();
    temporary.push(".new");
    temporary
}

/// Reads the record under `name`; `None` where there is none.
pub(crate) fn read<T: DeserializeOwned>(folder: &Folder, name: &OsStr) -> Result<Option<T>, Error> {
    let (file, stat) = match folder.open_file(name) {
        Ok(opened) => opened,
        Err(folder::Error::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let damaged = |what: &str| Error::Damaged {
        name: name.to_owned(),
        what: what.to_owned(),
    };
    // Room for all of it, and for the read that finds the end: two reads instead of many.
    let room = stat.size.min(MAX_BYTES).saturating_add(1);
    let mut bytes = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Io {
            action: "read",
            name: name.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(damaged("it is too large"));
    }
    decode(&bytes, name).map(Some)
}

fn decode<T: DeserializeOwned>(bytes: &[u8], name: &OsStr) -> Result<T, Error> {
    let damaged = |what: &str| Error::Damaged {
        name: name.to_owned(),
        what: what.to_owned(),
    };
    let mut lines = bytes.split(|b| *b == b'\n');
    let (Some(json), Some(digest)) = (lines.next(), lines.next()) else {
        return Err(damaged("its second line is missing"));
    };
    if blake3::hash(json).to_hex().as_bytes() != digest {
        return Err(damaged("its digest does not fit"));
    }
    serde_json::from_slice(json).map_err(|e| damaged(&e.to_string()))
}

/// Takes `data` for a file, and for the first line of one whose digest fits.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz<T>(data: &[u8])
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let sealed = |json: &[u8]| [json, b"\n", blake3::hash(json).to_hex().as_bytes()].concat();
    let name = OsStr::new("fuzzed");
    for bytes in [data.to_vec(), sealed(data)] {
        let Ok(record) = decode::<T>(&bytes, name) else {
            continue;
        };
        let again = serde_json::to_vec(&record).map(|json| sealed(&json));
        let again = again.ok().and_then(|bytes| decode(&bytes, name).ok());
        assert_eq!(again, Some(record));
    }
}
