//! Takes away what killed writers leave: their temporaries, and folders that they
//! made and did not fill.
//!
//! A live writer whose temporary is taken all the same (its clock is an hour off,
//! or its disk stood still) finds it gone and writes it again.

use std::time::{Duration, SystemTime};

use super::TEMPORARY;
use super::list::{DEPTH, fits};
use crate::folder::{self, Folder};

/// No writer takes so long over one object.
const STALE: Duration = Duration::from_secs(3600);

/// Names looked at in one go; the next one comes with the next process.
const MOST: usize = 20_000;

pub(super) fn sweep(root: &Folder) -> folder::Result<u64> {
    let mut sweep = Sweep {
        now: SystemTime::now(),
        looks: MOST,
        taken: 0,
    };
    sweep.folder(root, 0)?;
    Ok(sweep.taken)
}

struct Sweep {
    now: SystemTime,
    looks: usize,
    taken: u64,
}

impl Sweep {
    fn folder(&mut self, folder: &Folder, depth: usize) -> folder::Result<()> {
        for name in folder.names()? {
            let Some(looks) = self.looks.checked_sub(1) else {
                return Ok(());
            };
            self.looks = looks;
            let Some(text) = name.to_str() else { continue };
            if depth == DEPTH {
                if text.starts_with(TEMPORARY) && self.is_stale(folder, text) {
                    folder.remove(&name)?;
                    self.taken += 1;
                }
                continue;
            }
            if !fits(depth, text) {
                continue;
            }
            let next = match folder.open_folder(&name) {
                Ok(next) => next,
                Err(folder::Error::NotFound { .. } | folder::Error::NotFolder { .. }) => continue,
                Err(e) => return Err(e),
            };
            self.folder(&next, depth + 1)?;
            // Tried only where it looks empty, so that a full one costs no call.
            if depth > 0 && next.names()?.is_empty() && folder.remove_folder(&name)? {
                self.taken += 1;
            }
        }
        Ok(())
    }

    fn is_stale(&self, folder: &Folder, name: &str) -> bool {
        let written = folder
            .open_file(name.as_ref())
            .ok()
            .and_then(|(file, _)| file.metadata().ok()?.modified().ok());
        // One from the future is nobody's that is known: it waits.
        written.is_some_and(|at| self.now.duration_since(at).is_ok_and(|age| age > STALE))
    }
}
