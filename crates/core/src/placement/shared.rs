//! A log whose folder both hosts have: nothing has to come from anywhere, it only must
//! not be lost. Without `append='on'` virtlogd at the destination unlinks base and
//! rotated files while the source still writes to the first.
//!
//! Every file is held by a link from before that on ([`Staging::keep`]). Once the names
//! are gone, the files get names behind the new base ([`Staging::reappear`]): they are
//! the history before it. If it comes to nothing, they are put back where they were, as
//! what was taken aside is: [`Staging::discard`].
//!
//! Must not know: how it was found out that the folder is shared.

use std::ffi::{OsStr, OsString};

use super::apply::Member;
use super::journal::{Phase, Retired, Shown};
use super::{Error, Owed, Placed, Result, Staging, apply, entries};
use crate::chain::Listing;
use crate::folder::{self, FileId};
use crate::record::Adopted;

impl Staging {
    /// Holds every file of the chain that is not held yet, unless the names are gone
    /// already: what has them then is another's.
    ///
    /// # Errors
    /// The folder's.
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
    /// The folder's; [`Error::Unsettled`] where the names keep changing.
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
            ledger: Default::default(),
            arriving: None,
        });
        self.write_journal()?;
        self.name_held()?;
        Ok(true)
    }

    fn name_held(&mut self) -> Result<()> {
        let members: Vec<Member> = self.members();
        apply::place_members(self, &members)
    }

    /// What is held, newest first.
    fn members(&self) -> Vec<Member> {
        let retired = self.journal.retired.iter().rev();
        retired
            .map(|r| {
                let plain = r.number.map_or(0, |n| format!(".{n}").len());
                Member {
                    name: OsString::from(&r.aside),
                    ending: r.suffix.get(plain..).unwrap_or_default().to_owned(),
                    id: r.id,
                }
            })
            .collect()
    }

    /// The migration is over: what is held keeps the names that it has, and the record
    /// says that the VM is here now. `owed` is what the source said of the history.
    ///
    /// # Errors
    /// As [`Staging::reappear`], and the record's.
    pub fn settle_shared(&mut self, owed: Owed) -> Result<Placed> {
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
        };
        let files = placed.files.clone();
        self.journal.owed = Some(owed);
        self.put_down(|record, id, owed| {
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
