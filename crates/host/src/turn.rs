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
    sharing: Sharing,
    _locked: File,
}

/// Whether others may have the turn at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// Nobody.
    Alone,
    /// Those who share it too: each takes in another console's log.
    Shared,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // While it is locked: whoever opened it meanwhile sees that it has lost its name, and
        // opens another. A file that stays is locked again.
        if self.sharing == Sharing::Alone {
            let _ = fs::remove_file(&self.path);
        }
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
        Self::take_as(Sharing::Alone, state, domain, role).await
    }

    async fn take_as(
        sharing: Sharing,
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
                let locked = match sharing {
                    Sharing::Alone => file.try_lock(),
                    Sharing::Shared => file.try_lock_shared(),
                };
                match locked {
                    Ok(()) if is_named(&file, &path) => {
                        let _locked = file;
                        return Ok(Some(Self {
                            path,
                            sharing,
                            _locked,
                        }));
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
        Self::wait_as(Sharing::Alone, state, domain, role, limit).await
    }

    /// As [`Turn::wait`], beside others who share the turn.
    ///
    /// # Errors
    /// As [`Turn::take`].
    pub(crate) async fn wait_shared(
        state: &Path,
        domain: Uuid,
        role: HandoffRole,
        limit: Duration,
    ) -> Result<Option<Self>> {
        Self::wait_as(Sharing::Shared, state, domain, role, limit).await
    }

    async fn wait_as(
        sharing: Sharing,
        state: &Path,
        domain: Uuid,
        role: HandoffRole,
        limit: Duration,
    ) -> Result<Option<Self>> {
        let end = Instant::now() + limit;
        loop {
            let turn = Self::take_as(sharing, state, domain, role).await?;
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
        let again_held = again.unwrap();
        assert!(again_held.is_some());
        let folder = state.path().join(FOLDER);
        drop(again_held);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "nothing stays");
    }

    #[tokio::test]
    async fn several_share_a_turn_and_keep_others_out() {
        let state = tempfile::tempdir().unwrap();
        let (domain, role) = (Uuid::from_u128(1), HandoffRole::Destination);
        let share = || Turn::wait_shared(state.path(), domain, role, Duration::ZERO);
        let (one, two) = (share().await.unwrap(), share().await.unwrap());
        assert!(one.is_some() && two.is_some());
        let alone = || Turn::take(state.path(), domain, role);
        assert!(alone().await.unwrap().is_none());
        drop(one);
        assert!(alone().await.unwrap().is_none());
        drop(two);
        let alone = alone().await.unwrap();
        assert!(alone.is_some() && share().await.unwrap().is_none());
    }
}
