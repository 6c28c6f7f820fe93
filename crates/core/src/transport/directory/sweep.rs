//! Takes away what nobody comes back for: temporaries and empty folders that
//! killed writers left, and handoffs that nobody took up.
//!
//! Ages are told by the spool's own clock alone: the time of a file written just
//! now, beside those of the others. What other hosts believe the time to be, years
//! off maybe, decides nothing.
//!
//! A live writer whose temporary is taken all the same (its disk stood still for
//! an hour) finds it gone and writes it again.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::TEMPORARY;
use super::list::{DEPTH, fits};
use crate::OkLogged as _;
use crate::folder::{self, Folder};
use crate::handoff::stage::{Stage, deletion_rank};
use crate::transport::ObjectName;

/// No writer takes so long over one object.
const STALE: Duration = Duration::from_secs(3600);

/// No migration takes so long. [`Policy`] says what is done then.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Names looked at in one go; the next one comes with the next process.
const MOST: usize = 20_000;

/// What is done with a handoff of these objects once nothing happened to it for
/// [`ABANDONED`], or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// Not begun: a handoff is begun before all else, and cleared of its pieces first,
    /// so it is over. This was on its way over a line that broke, and came after all was
    /// cleared. Taken once it is older than any line takes ([`STALE`]).
    Late,
    /// Nobody reads it any more: the source began it and never came to the end, or
    /// withdrew it; or it was received and only clearing was left. The source has
    /// all of it either way, or the destination does.
    Take,
    /// Committed, and no receipt: it may be all that there is of that log, should
    /// the source be gone. `logchain adopt` takes it in, or people delete it.
    Keep,
}

fn policy(objects: &[ObjectName]) -> Policy {
    match Stage::of(objects.iter().copied()) {
        Some(stage) if stage.awaits_receipt() => Policy::Keep,
        _ if !objects.contains(&ObjectName::Begin) => Policy::Late,
        _ => Policy::Take,
    }
}

pub(super) fn sweep(root: &Folder) -> folder::Result<u64> {
    let Some(now) = clock(root)? else {
        return Ok(0);
    };
    let mut sweep = Sweep {
        now,
        looks: MOST,
        taken: 0,
    };
    sweep.folder(root, 0)?;
    Ok(sweep.taken)
}

/// What time it is where the files are.
fn clock(root: &Folder) -> folder::Result<Option<SystemTime>> {
    let name = OsString::from(format!("{TEMPORARY}{}", Uuid::new_v4()));
    let file = root.create_new(&name, 0o600)?;
    let now = file.metadata().and_then(|m| m.modified());
    let now = now.ok_logged("nothing is swept: what time it is there is not known");
    root.remove(&name)?;
    Ok(now)
}

struct Sweep {
    now: SystemTime,
    looks: usize,
    taken: u64,
}

impl Sweep {
    fn folder(&mut self, folder: &Folder, depth: usize) -> folder::Result<()> {
        let mut objects = Vec::new();
        for name in folder.names()? {
            let Some(looks) = self.looks.checked_sub(1) else {
                return Ok(());
            };
            self.looks = looks;
            let Some(text) = name.to_str() else { continue };
            if depth == DEPTH {
                if text.starts_with(TEMPORARY) {
                    if self.is_older(folder, text, STALE) {
                        folder.remove(&name)?;
                        self.taken += 1;
                    }
                } else if let Ok(object) = text.parse::<ObjectName>()
                    // A stream is kept for as long as people want it.
                    && !matches!(object, ObjectName::Batch { .. })
                {
                    objects.push(object);
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
        self.handoff(folder, objects)
    }

    /// Deletes all of a handoff that nobody comes back for.
    fn handoff(&mut self, folder: &Folder, mut objects: Vec<ObjectName>) -> folder::Result<()> {
        let age = match policy(&objects) {
            Policy::Keep => return Ok(()),
            Policy::Late => STALE,
            Policy::Take => ABANDONED,
        };
        // A young one shows at its first object; an old one is looked at whole.
        let is_old = |o: &ObjectName| self.is_older(folder, &o.to_string(), age);
        if objects.is_empty() || !objects.iter().all(is_old) {
            return Ok(());
        }
        objects.sort_by_key(|o| deletion_rank(*o));
        for object in objects {
            folder.remove(object.to_string().as_ref())?;
            self.taken += 1;
        }
        Ok(())
    }

    fn is_older(&self, folder: &Folder, name: &str, than: Duration) -> bool {
        const YOUNG: &str = "its age is not known: it stays";
        let written = folder
            .open_file(name.as_ref())
            .ok_logged(YOUNG)
            .and_then(|(file, _)| {
                file.metadata()
                    .ok_logged(YOUNG)?
                    .modified()
                    .ok_logged(YOUNG)
            });
        // One from the future is nobody's that is known: it waits.
        written.is_some_and(|at| self.now.duration_since(at).is_ok_and(|age| age > than))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_the_only_copy_is_kept() {
        use ObjectName::{Abort, Begin, Commit, Receipt};
        let chunk = ObjectName::Chunk { offset: 0, len: 1 };
        for (objects, expected) in [
            (&[Begin, chunk][..], Policy::Take),
            (&[Begin][..], Policy::Take),
            (&[chunk][..], Policy::Late),
            (&[Abort, Begin, chunk][..], Policy::Take),
            (&[Begin, chunk, Commit][..], Policy::Keep),
            (&[chunk, Commit][..], Policy::Keep),
            (&[chunk, Commit, Receipt][..], Policy::Late),
            // Nobody takes it in, and the source knows.
            (&[Abort, Begin, chunk, Commit][..], Policy::Take),
            (&[Begin, Commit][..], Policy::Keep),
            (&[Commit][..], Policy::Late),
            (&[Begin, chunk, Commit, Receipt][..], Policy::Take),
            (&[Receipt][..], Policy::Late),
        ] {
            assert_eq!(policy(objects), expected, "{objects:?}");
        }
    }
}
