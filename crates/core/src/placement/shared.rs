//! A log whose folder both hosts have: nothing has to come from anywhere, it only must
//! not be lost. Without `append='on'` virtlogd at the destination unlinks base and
//! rotated files while the source still writes to the first.
//!
//! Every file is held by a link from before that on ([`ChainWorkspace::keep`]). Once the names
//! are gone, the files get names behind the new base ([`ChainWorkspace::reappear`]): they are
//! the history before it. If it comes to nothing, they are put back where they were, as
//! what was taken aside is: [`ChainWorkspace::discard`].
//!
//! Must not know: how it was found out that the folder is shared.

use std::ffi::{OsStr, OsString};

use super::apply::Member;
use super::journal::{Phase, Retired, Shown};
use super::{ChainWorkspace, Error, PendingAdoption, Placed, Result, apply, ending, entries};
use crate::chain::Listing;
use crate::folder::{self, FileId};
use crate::record::Adopted;
use crate::stream::Ledger;

impl ChainWorkspace {
    /// Holds every file of the chain that is not held yet, unless the names are gone
    /// already: what has them then is another's.
    pub fn keep(&mut self) -> Result<()> {
        let listing = apply::stable(self)?;
        if self.is_shown() || self.is_wiped(&listing) {
            return Ok(());
        }
        let mut changed = self.journal.phase != Phase::Staging;
        // The oldest first, so that what came since is behind it in the journal.
        for (name, number, stat) in entries(&listing, &self.base).into_iter().rev() {
            let Some(suffix) = self.suffix(&name) else {
                continue; // a name that the journal cannot hold
            };
            if let Some(held) = self.journal.retired.iter_mut().find(|r| r.id == stat.id) {
                // It rolled over since.
                changed |= held.number != number;
                (held.suffix, held.number) = (suffix, number);
                continue;
            }
            let aside = format!("retired-{}", self.journal.retired.len());
            match self.own.link_from(&self.log, &name, OsStr::new(&aside)) {
                Ok(()) => {}
                // It rolled over just now: the next look finds it.
                Err(folder::Error::NotFound { .. }) => continue,
                Err(e) => return Err(e.into()),
            }
            let held = self.own.stat(OsStr::new(&aside))?;
            let id = held.map_or(stat.id, |s| s.id);
            self.journal.retired.push(Retired {
                suffix,
                aside,
                number,
                id,
                came_after: false,
            });
            changed = true;
        }
        if changed {
            self.journal.phase = Phase::Staging;
            self.write_journal()?;
        }
        Ok(())
    }

    /// Whether what was held last has no name any more, and another file has its.
    fn is_wiped(&self, listing: &Listing) -> bool {
        let named = |id: FileId| {
            let rotated = listing.rotated().iter().any(|r| r.stat.id == id);
            rotated || listing.base().is_some_and(|b| b.id == id)
        };
        let newest = self.journal.retired.last();
        listing.base().is_some() && newest.is_some_and(|r| !named(r.id))
    }

    /// Gives what is held names behind a base that took theirs. Says whether they have
    /// such names.
    ///
    /// # Errors
    /// [`Error::Unsettled`] where the names keep changing.
    pub fn reappear(&mut self) -> Result<bool> {
        if self.is_shown() {
            return Ok(true);
        }
        let listing = apply::stable(self)?;
        if !self.is_wiped(&listing) {
            return Ok(false);
        }
        // Should it come to nothing, they are taken from these names first.
        self.journal.shown = Some(Shown {
            files: self.journal.retired.iter().map(|r| r.id).collect(),
            record: true,
            ledger: Ledger::default(),
            arriving: None,
        });
        self.write_journal()?;
        self.name_held()?;
        Ok(true)
    }

    fn name_held(&mut self) -> Result<()> {
        let members = self.members();
        apply::place_members(self, &members)
    }

    /// What is held, newest first.
    fn members(&self) -> Vec<Member> {
        let retired = self.journal.retired.iter().rev();
        retired
            .map(|r| Member {
                name: OsString::from(&r.aside),
                ending: ending(OsStr::new(&r.suffix)),
                id: r.id,
            })
            .collect()
    }

    /// The migration is over: what is held keeps the names that it has, and the record
    /// says that the VM is here now. `owed` is what the source said of the history.
    ///
    /// # Errors
    /// [`Error::Unsettled`] where the names keep changing.
    pub fn settle_shared(&mut self, owed: PendingAdoption) -> Result<Placed> {
        if self.journal.phase != Phase::Staging {
            return Err(Error::NotSealed);
        }
        self.keep()?;
        if self.reappear()? {
            // A rollover may have come between.
            self.name_held()?;
        }
        let listing = apply::stable(self)?;
        let held = |id: FileId| self.journal.retired.iter().any(|r| r.id == id);
        let named = entries(&listing, &self.base).into_iter();
        let named = named.filter(|(_, _, stat)| held(stat.id));
        let placed = Placed {
            files: named
                .map(|(name, _, stat)| (name.to_string_lossy().into_owned(), stat.size))
                .collect(),
            dropped: 0,
            notes: Vec::new(),
        };
        let files = placed.files.clone();
        self.journal.owed = Some(owed);
        self.update_record(|record, id, owed| {
            record.ledger.moved(&owed.history, (&owed.host, owed.at));
            record.begun = None;
            record.adopt(Adopted {
                handoff: id,
                bytes: owed.bytes,
                digest: owed.digest.clone(),
                at: owed.at,
                from: owed.from.clone(),
                dropped: 0,
                placed: files,
            });
            record.contain(&owed.contains);
        })?;
        // From here on nothing is put back any more.
        self.journal.shown = None;
        self.journal.retired.clear();
        self.journal.taking.clear();
        self.journal.phase = Phase::Over;
        self.write_journal()?;
        Ok(placed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Numbering;
    use crate::follow::NoWriters;
    use crate::ids::HandoffId;
    use crate::placement::Rules;
    use crate::placement::Staging;
    use crate::rotation::Retention;
    use crate::stream::History;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;
    use uuid::Uuid;

    const RULES: Rules = Rules {
        numbering: Numbering::FromZero,
        retention: Retention::UNLIMITED,
    };

    fn open(log: &Path) -> Staging {
        Staging::open(log, HandoffId::random(), RULES, Arc::new(NoWriters)).unwrap()
    }

    /// All files of the chain, and what they hold.
    fn files(folder: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap());
        let files = entries.filter(|e| e.file_name().to_string_lossy().starts_with("console"));
        let read = |e: fs::DirEntry| {
            let name = e.file_name().to_string_lossy().into_owned();
            (name, fs::read_to_string(e.path()).unwrap())
        };
        files.map(read).collect()
    }

    fn chain(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        files.iter().map(own).collect()
    }

    /// A log that rolled over once, and whose folder is held.
    fn held() -> (tempfile::TempDir, Staging) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        fs::write(folder.path().join("console.log.0"), "one ").unwrap();
        fs::write(&log, "two ").unwrap();
        let mut staging = open(&log);
        staging.keep().unwrap();
        (folder, staging)
    }

    /// As virtlogd does where a guest is awaited: base and rotated files go.
    fn wipe(folder: &Path) {
        for name in files(folder).keys() {
            fs::remove_file(folder.join(name)).unwrap();
        }
        fs::write(folder.join("console.log"), "").unwrap();
    }

    fn owed() -> PendingAdoption {
        PendingAdoption {
            domain: Uuid::from_u128(1),
            console: "serial0".parse().unwrap(),
            bytes: 8,
            history: History::of(8),
            digest: String::new(),
            from: "h1".to_owned(),
            host: "h2".to_owned(),
            at: jiff::Timestamp::UNIX_EPOCH,
            contains: Vec::new(),
        }
    }

    #[test]
    fn what_was_unlinked_comes_behind_the_new_base() {
        let (folder, mut staging) = held();
        assert!(!staging.reappear().unwrap(), "nothing was unlinked yet");
        wipe(folder.path());
        assert!(staging.reappear().unwrap());
        let seen = [("console.log.0", "two "), ("console.log.1", "one ")];
        let behind = |base| chain(&[&[("console.log", base)], &seen[..]].concat());
        assert_eq!(files(folder.path()), behind(""));
        // The source writes on, under a name that is the destination's now.
        fs::write(folder.path().join("console.log"), "three").unwrap();
        staging.keep().unwrap();
        let placed = staging.settle_shared(owed()).unwrap();
        assert_eq!(placed.files.len(), 2);
        staging.discard().unwrap();
        assert_eq!(files(folder.path()), behind("three"));
        assert!(!folder.path().join(".console.log.logchain.d").exists());
    }

    #[test]
    fn a_log_that_goes_on_is_left_alone() {
        let (folder, mut staging) = held();
        let log = folder.path().join("console.log");
        fs::write(&log, "two three").unwrap();
        staging.settle_shared(owed()).unwrap();
        staging.discard().unwrap();
        let whole = chain(&[("console.log", "two three"), ("console.log.0", "one ")]);
        assert_eq!(files(folder.path()), whole);
    }

    #[test]
    fn what_comes_to_nothing_is_put_back_where_it_was() {
        for killed in [false, true] {
            for seen in [false, true] {
                let (folder, mut staging) = held();
                let before = files(folder.path());
                wipe(folder.path());
                if seen {
                    assert!(staging.reappear().unwrap());
                }
                if killed {
                    drop(staging);
                    let log = folder.path().join("console.log");
                    ChainWorkspace::recover_all(&log, RULES, Arc::new(NoWriters)).unwrap();
                } else {
                    staging.discard().unwrap();
                }
                let whole = chain(&[("console.log", "two "), ("console.log.0", "one ")]);
                assert_eq!(before, whole);
                assert_eq!(files(folder.path()), whole, "killed {killed}, seen {seen}");
            }
        }
    }

    #[test]
    fn a_rollover_before_it_is_unlinked_is_held_too() {
        let (folder, mut staging) = held();
        let at = |name: &str| folder.path().join(name);
        for (from, to) in [
            ("console.log.0", "console.log.1"),
            ("console.log", "console.log.0"),
        ] {
            fs::hard_link(at(from), at(to)).unwrap();
            fs::remove_file(at(from)).unwrap();
        }
        fs::write(at("console.log"), "three ").unwrap();
        staging.keep().unwrap();
        let before = files(folder.path());
        wipe(folder.path());
        assert!(staging.reappear().unwrap());
        let behind = chain(&[
            ("console.log", ""),
            ("console.log.0", "three "),
            ("console.log.1", "two "),
            ("console.log.2", "one "),
        ]);
        assert_eq!(files(folder.path()), behind);
        staging.discard().unwrap();
        assert_eq!(files(folder.path()), before);
    }
}
