//! Owner, mode and labels of history: as the log's own, so that who may read the log may
//! read its history, and the writer of the log can rename and remove it in a rollover.
//!
//! A file server may refuse both (root_squash, SMB), and so may the kernel (no CAP_CHOWN).
//! Then history is placed for its owner's eyes only. But what the writer of the log could
//! not rename or remove is not placed at all: its next rollover would fail, and a VM whose
//! log cannot be rolled over does not start.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid, XattrFlags, fchmod, fchown, fgetxattr, fsetxattr};
use tracing::debug;

use super::error::{Error, Result};
use crate::OkLogged as _;
use crate::folder::{Folder, FolderStat, Stat, fault, stat_open};
use crate::record::hidden;

/// A label is a short text; what is longer is none.
const LABEL_BYTES: usize = 4096;

/// What only the owner may do with a file.
const OWNER_ONLY: u32 = 0o600;

/// The bit of a folder in which only a file's owner, and the folder's, renames and removes
/// the file.
const STICKY: u32 = 0o1000;

/// Gives `file` owner, mode and `labels` of the base; where that is refused, a mode that
/// nobody but its owner can use.
pub(super) fn match_base(
    (file, path): (&File, &Path),
    base: &Stat,
    labels: &[(&str, Vec<u8>)],
) -> Result<()> {
    let (uid, gid) = base.owner;
    let owned = fault::point()
        .and_then(|()| fault::owner())
        .and_then(|()| fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))));
    let is_owned = stat_open(file)
        .ok_logged("nobody but its owner can use the file")
        .is_some_and(|now| now.owner == base.owner);
    if let Err(e) = owned {
        if !is_refusal(e) {
            return Err(Error::io("change the owner of", path, e.into()));
        }
        debug!(error = %e, path = %path.display(), is_owned, "the owner stays");
    }
    let mode = if is_owned {
        base.mode
    } else {
        base.mode & OWNER_ONLY
    };
    let changed = fault::point().and_then(|()| fchmod(file, Mode::from_raw_mode(mode)));
    if let Err(e) = changed {
        // Some file systems give all files one mode.
        let now = stat_open(file).map_or(u32::MAX, |now| now.mode);
        if !is_refusal(e) || now & !base.mode != 0 {
            return Err(Error::io("change the mode of", path, e.into()));
        }
        debug!(error = %e, path = %path.display(), "the mode stays");
    }
    for (name, value) in labels {
        fault::point().map_err(|e| Error::io("label", path, e.into()))?;
        // As well as may be: a policy may forbid it, and the history
        // matters more than who can read it without help.
        fsetxattr(file, *name, value, XattrFlags::empty())
            .ok_logged("the file is placed without this label");
    }
    Ok(())
}

/// Whether we may not, or the file system knows nothing of it.
fn is_refusal(errno: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(
        errno,
        Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS
    )
}

/// The value of a label, where the file system has labels and this file one.
pub(super) fn label(file: &File, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; LABEL_BYTES];
    let length = fgetxattr(file, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

/// Pure: in what `placed` differs from the log's own file, in words for people.
pub(super) fn difference(base: &Stat, placed: &Stat, labels_differ: bool) -> Option<String> {
    let mut what = Vec::new();
    if placed.owner != base.owner {
        let ((uid, gid), (base_uid, base_gid)) = (placed.owner, base.owner);
        what.push(format!(
            "belongs to {uid}:{gid}, not to {base_uid}:{base_gid}"
        ));
    }
    if placed.mode != base.mode {
        what.push(format!(
            "has the mode {:04o}, not {:04o}",
            placed.mode, base.mode
        ));
    }
    if labels_differ {
        what.push("has another SELinux label".to_owned());
    }
    (!what.is_empty()).then(|| {
        format!(
            "{}: the log's own could not be set, so not everybody who reads the log can read it",
            what.join(" and ")
        )
    })
}

/// Pure: why the writer of a log that belongs to `base` could not rename or remove a file
/// of `placed` in `folder`; `None` where it can.
pub(super) fn is_stuck(folder: &FolderStat, base: u32, placed: u32) -> Option<&'static str> {
    if folder.is_fixed {
        return Some("the folder is append-only or immutable (see lsattr)");
    }
    let foreign = placed != base && folder.owner != base;
    (folder.mode & STICKY != 0 && foreign).then_some(
        "the folder is sticky, and the file's owner could not be made that of the log; \
         run logchain as root, or as the user that the log belongs to",
    )
}

/// A folder in which nothing can be renamed or removed: then nothing is begun there.
pub(super) fn check_folder(log: &Folder) -> Result<()> {
    stuck(log, is_stuck(&log.own_stat()?, 0, 0))
}

fn stuck(log: &Folder, why: Option<&str>) -> Result<()> {
    let Some(why) = why else { return Ok(()) };
    Err(Error::Stuck {
        path: log.path().to_owned(),
        why: why.to_owned(),
    })
}

/// Gives `part`, which has the attributes that it will have in place, a name beside the
/// log, then another, and takes it away: what a rollover does.
pub(super) fn try_placing(
    (log, base): (&Folder, &OsStr),
    (own, part): (&Folder, &OsStr),
    owners: (u32, u32),
) -> Result<()> {
    stuck(log, is_stuck(&log.own_stat()?, owners.0, owners.1))?;
    remove_tried(log, base)?;
    let [first, second] = tried(base);
    let moved = log
        .link_from(own, part, &first)
        .and_then(|()| log.rename_over(&first, &second))
        .and_then(|()| log.remove(&second));
    let Err(e) = moved else { return Ok(()) };
    remove_tried(log, base).ok_logged("the files of this try are removed by the next one");
    if is_death(&e) {
        return Err(e.into());
    }
    stuck(log, Some(&e.to_string()))
}

/// Whether it says nothing of the folder's rules.
fn is_death(e: &crate::folder::Error) -> bool {
    let crate::folder::Error::Io { source, .. } = e else {
        return true;
    };
    !matches!(
        source.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    )
}

/// What a process that was killed in [`try_placing`] left.
pub(super) fn remove_tried(log: &Folder, base: &OsStr) -> Result<()> {
    for name in tried(base) {
        if log.stat(&name)?.is_some() {
            log.remove(&name)?;
        }
    }
    Ok(())
}

/// No longer than the name of the staging.
fn tried(base: &OsStr) -> [OsString; 2] {
    [".logchain.t", ".logchain.u"].map(|suffix| hidden(base, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_move_a_file() {
        let folder = |mode, owner| FolderStat {
            mode,
            owner,
            is_fixed: false,
        };
        // (folder, owner of the log, of the file): can it be moved?
        let cases = [
            (folder(0o755, 0), 0, 0, true),
            (folder(0o755, 0), 0, 65534, true),
            (folder(0o1777, 0), 0, 65534, true), // the folder's owner may
            (folder(0o1777, 0), 107, 107, true),
            (folder(0o1777, 0), 107, 65534, false),
            (folder(0o1777, 107), 107, 0, true),
        ];
        for (folder, base, placed, can) in cases {
            let why = is_stuck(&folder, base, placed);
            assert_eq!(why.is_none(), can, "{folder:?} {base} {placed}");
        }
        let fixed = FolderStat {
            is_fixed: true,
            ..folder(0o755, 0)
        };
        assert!(is_stuck(&fixed, 0, 0).is_some());
    }
}
