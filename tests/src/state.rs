//! A lab's state folder on a real disk: made, held, and swept by the next lab if
//! nobody was left to remove it.
//!
//! Whose owner lives is known by a lock on the folder itself, which the kernel
//! lifts with the owner, not by process numbers, which come again.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::error::{Result, io_error};
use crate::wait::{try_lock, until};

const PREFIX: &str = "logchain-lab-";
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The folder, held by a lock for as long as this lives.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    _lock: File,
}

impl StateFolder {
    /// Removes what dead labs left and makes a folder for a new one.
    pub(crate) fn create() -> Result<StateFolder> {
        let parent = std::env::var_os("LOGCHAIN_LAB_DIR")
            .map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        fs::create_dir_all(&parent).map_err(io_error("create", &parent))?;
        // Between its making and its locking a folder looks abandoned: nobody
        // may sweep then.
        let gate = File::open(&parent).map_err(io_error("open", &parent))?;
        until(
            "the lock on the labs' folder",
            Duration::from_secs(60),
            || try_lock(&gate, &parent),
        )?;
        sweep(&parent);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(io_error("create", &path))?;
        let lock = File::open(&path).map_err(io_error("open", &path))?;
        until(
            "the lock on a folder just made",
            Duration::from_secs(5),
            || try_lock(&lock, &path),
        )?;
        Ok(StateFolder { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What could not be removed stays for the next sweep: a new lab does not need it gone.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = sweep_one(&path);
        }
    }
}

fn sweep_one(path: &Path) -> io::Result<()> {
    let folder = File::open(path)?;
    match folder.try_lock() {
        Ok(()) if !path.join("keep").exists() => fs::remove_dir_all(path),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// What is left on this machine of the lab with the state folder `state`: the
/// folder, processes that name it, mounts of anything in it. Empty once all is gone.
///
/// # Errors
/// [`crate::LabError::Io`] where `/proc` cannot be read.
pub fn leftovers(state: &Path) -> Result<Vec<String>> {
    let mut left = Vec::new();
    if state.exists() {
        left.push(format!("the folder {}", state.display()));
    }
    let mark = state.to_string_lossy().into_owned();
    let procs = fs::read_dir("/proc").map_err(io_error("list", "/proc"))?;
    for entry in procs.flatten() {
        let name = entry.file_name();
        let pid = name.to_string_lossy();
        // This process names the folder in its own arguments at times.
        if pid.parse() == Ok(std::process::id()) || !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // A process that ends while it is looked at is not left.
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if mentions(&command, &mark) {
            left.push(format!("process {pid}: {command}"));
        }
        let mounts = fs::read(entry.path().join("mountinfo")).unwrap_or_default();
        let mounts = String::from_utf8_lossy(&mounts);
        if let Some(line) = mounts.lines().find(|line| mentions(line, &mark)) {
            left.push(format!("a mount that process {pid} sees: {line}"));
        }
    }
    Ok(left)
}

/// Whether `text` names `mark`, and not only a longer name that begins with it.
fn mentions(text: &str, mark: &str) -> bool {
    text.match_indices(mark).any(|(at, _)| {
        let after = text.get(at + mark.len()..).unwrap_or_default();
        !after.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn a_longer_number_is_another_lab() {
        assert!(mentions(
            "sh /var/tmp/logchain-lab-7-1/host.sh",
            "/var/tmp/logchain-lab-7-1"
        ));
        assert!(!mentions(
            "sh /var/tmp/logchain-lab-7-12/host.sh",
            "/var/tmp/logchain-lab-7-1"
        ));
    }
}
