//! What was begun on a chain and is not over: looked at, not touched.

use std::ffi::OsStr;

use rustix::fs::{FlockOperation, flock};

use super::journal::{Journal, Phase};
use super::lock::LOCK;
use super::{ChainWorkspace, Result};
use crate::folder::{self, Folder};
use crate::ids::HandoffId;

/// A staging beside a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedStaging {
    /// Which handoff.
    pub handoff: HandoffId,
    /// How far it is.
    pub phase: StagingPhase,
    /// Whether a process works on the chain now.
    pub busy: bool,
}

/// How far a staging is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagingPhase {
    /// Nothing is in place yet: what is begun anew undoes it.
    Begun,
    /// All of it is here: it will be placed, whatever happens.
    Sealed,
    /// It is in place; only the clean-up is left.
    Placed,
}

/// The stagings beside the log whose base file is `base`.
pub fn under_way(log: &Folder, base: &OsStr) -> Result<Vec<UnfinishedStaging>> {
    let root = match log.open_folder(&ChainWorkspace::root_name(base)) {
        Ok(root) => root,
        Err(folder::Error::NotFound { .. }) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let busy = is_locked(&root);
    let mut begun = Vec::new();
    for name in root.names()? {
        let Some(handoff) = name.to_str().and_then(|n| n.parse::<HandoffId>().ok()) else {
            continue;
        };
        let own = match root.open_folder(&name) {
            Ok(own) => own,
            // It was over just now.
            Err(folder::Error::NotFound { .. }) => continue,
            Err(e) => return Err(e.into()),
        };
        let phase = Journal::read(&own)?.map_or(Phase::Retiring, |journal| journal.phase);
        let phase = match phase {
            Phase::Retiring | Phase::Staging => StagingPhase::Begun,
            Phase::Sealed => StagingPhase::Sealed,
            Phase::Placed | Phase::Over => StagingPhase::Placed,
        };
        begun.push(UnfinishedStaging {
            handoff,
            phase,
            busy,
        });
    }
    begun.sort_by_key(|b| b.handoff);
    Ok(begun)
}

/// Whether somebody holds the lock. It is let go at once where nobody does: whoever
/// wants it tries again.
fn is_locked(root: &Folder) -> bool {
    let Ok((lock, _)) = root.open_file(OsStr::new(LOCK)) else {
        return false;
    };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::chain::Numbering;
    use crate::follow::NoWriters;
    use crate::placement::Rules;
    use crate::placement::Staging;
    use crate::rotation::Retention;

    #[test]
    fn what_is_begun_is_seen_as_far_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("console.log");
        fs::write(&log, "here").unwrap();
        let (folder, base) = Folder::of_file(&log).unwrap();
        assert_eq!(under_way(&folder, &base).unwrap(), []);
        let rules = Rules {
            numbering: Numbering::FromZero,
            retention: Retention::UNLIMITED,
        };
        let handoff = HandoffId::random();
        let see = |phase, busy| {
            let want = UnfinishedStaging {
                handoff,
                phase,
                busy,
            };
            assert_eq!(under_way(&folder, &base).unwrap(), [want]);
        };
        let open = || Staging::open(&log, handoff, rules, Arc::new(NoWriters)).unwrap();
        let mut staging = open();
        staging.append(true, b"there").unwrap();
        see(StagingPhase::Begun, true);
        drop(staging);
        see(StagingPhase::Begun, false);
        let mut staging = open();
        staging.append(true, b"there").unwrap();
        staging.seal(None).unwrap();
        drop(staging);
        see(StagingPhase::Sealed, false);
        let mut staging = open();
        staging.place().unwrap();
        see(StagingPhase::Placed, true);
        staging.clean().unwrap();
        assert_eq!(under_way(&folder, &base).unwrap(), []);
    }
}
