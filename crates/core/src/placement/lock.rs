//! The lock of a chain, which is also where the stagings lie.

use std::ffi::OsStr;
use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::{Error, Result, pause};
use crate::OkLogged as _;
use crate::folder::{self, Folder};

/// How long another logchain process may hold the chain before we give up.
const LOCK_WAIT: Duration = Duration::from_secs(10);

pub(super) const LOCK: &str = "lock";

/// Takes the lock of a chain. The folder may be removed by its last holder
/// between our opening and our locking: then try anew.
pub(super) fn lock(log: &Folder, root_name: &OsStr) -> Result<(Folder, File)> {
    let name = OsStr::new(LOCK);
    let end = Instant::now() + LOCK_WAIT;
    loop {
        let root = match log.make_folder(root_name) {
            Ok(root) => root,
            // Removed between making and opening it.
            Err(folder::Error::NotFound { .. }) if Instant::now() < end => continue,
            Err(e) => return Err(e.into()),
        };
        let file = match root.create_new(name, 0o600) {
            Err(folder::Error::AlreadyExists { .. }) => root.open_append(name).map(|(f, _)| f),
            other => other,
        };
        match file {
            Ok(file) => {
                let held = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
                let there = root.stat(name)?.map(|s| s.id);
                let ours = folder::stat_open(&file).ok_logged("the lock is tried again");
                let ours = ours.map(|s| s.id);
                if held && there.is_some() && there == ours {
                    return Ok((root, file));
                }
            }
            Err(folder::Error::NotFound { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        if Instant::now() > end {
            return Err(Error::Busy {
                path: log.path().join(root_name),
            });
        }
        pause(Duration::from_millis(20));
    }
}
