//! Who hands over, or takes in, the logs of a domain on this host: one process at a time.
//!
//! `logchain migrate` and the agent may both see a domain leave. A lock on a file in the state
//! folder decides; it goes with the process that holds it.
//!
//! Must not know: what is done in a turn.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::blocking::blocking;
use crate::event::HandoffRole;
use crate::{Error, Result};

/// Where the files lie, below the state folder.
const FOLDER: &str = "turns";

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);

/// A process's turn. Dropped, the next one has it, and its file is gone.
#[derive(Debug)]
pub(crate) struct Turn {
    path: PathBuf,
    _locked: File,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // While it is locked: whoever opened it meanwhile sees that it has lost its name, and
        // opens another. A file that stays is locked again.
        let _ = fs::remove_file(&self.path);
    }
}

impl Turn {
    /// Takes the turn; `None` where another process has it.
    ///
    /// # Errors
    /// [`Error::Io`] where the state folder cannot be written.
    pub(crate) async fn take(
        state: &Path,
        domain: Uuid,
        role: HandoffRole,
    ) -> Result<Option<Self>> {
        let folder = state.join(FOLDER);
        blocking(move || {
            let half = match role {
                HandoffRole::Source => "source",
                HandoffRole::Destination => "destination",
            };
            let path = folder.join(format!("{domain}.{half}"));
            loop {
                let file = open(&folder, &path)?;
                match file.try_lock() {
                    Ok(()) if is_named(&file, &path) => {
                        let _locked = file;
                        return Ok(Some(Self { path, _locked }));
                    }
                    // Whoever had the turn has just removed it.
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Ok(None),
                    Err(TryLockError::Error(source)) => {
                        return Err(failed("lock", &path, source));
                    }
                }
            }
        })
        .await
    }

    /// As [`Turn::take`]; waits for another process's turn to end, for at most `limit`.
    ///
    /// # Errors
    /// As [`Turn::take`].
    pub(crate) async fn wait(
        state: &Path,
        domain: Uuid,
        role: HandoffRole,
        limit: Duration,
    ) -> Result<Option<Self>> {
        let end = Instant::now() + limit;
        loop {
            let turn = Self::take(state, domain, role).await?;
            if turn.is_some() || Instant::now() >= end {
                return Ok(turn);
            }
            sleep(AGAIN).await;
        }
    }
}

/// Whether the file is found by this name.
fn is_named(file: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (there, ours) = (fs::metadata(path).map(id), file.metadata().map(id));
    there.is_ok_and(|there| ours.is_ok_and(|ours| ours == there))
}

fn open(folder: &Path, path: &PathBuf) -> Result<File> {
    fs::create_dir_all(folder).map_err(|source| failed("create", folder, source))?;
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    // Nobody else can keep it from being locked.
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .map_err(|source| failed("open", path, source))
}

fn failed(action: &str, path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        action: format!("cannot {action} {}", path.display()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_has_the_turn_and_the_next_one_after_it() {
        let state = tempfile::tempdir().unwrap();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let take = |domain, role| Turn::take(state.path(), domain, role);
        let first = take(one, HandoffRole::Source).await.unwrap().unwrap();
        assert!(take(one, HandoffRole::Source).await.unwrap().is_none());
        assert!(take(one, HandoffRole::Destination).await.unwrap().is_some());
        assert!(take(two, HandoffRole::Source).await.unwrap().is_some());
        drop(first);
        let limit = Duration::from_secs(5);
        let again = Turn::wait(state.path(), one, HandoffRole::Source, limit).await;
        assert!(again.unwrap().is_some());
        let folder = state.path().join(FOLDER);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "nothing stays");
    }
}
