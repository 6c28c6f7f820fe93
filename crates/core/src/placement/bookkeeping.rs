//! The record beside the chain: where the history's files lie in the stream, and that
//! they are in place.

use std::ffi::OsStr;

use super::{ChainWorkspace, Error, PendingAdoption, Result, apply, entries};
use crate::OkLogged as _;
use crate::chain::{Listing, LogChain};
use crate::clock::millisecond;
use crate::content;
use crate::folder::FileId;
use crate::ids::HandoffId;
use crate::offsets::Offsets;
use crate::record::{Adopted, LOCK_WAIT, Offered, Record};
use crate::stream::{Arrival, StreamOffset};
use jiff::Timestamp;

impl ChainWorkspace {
    /// What is to be put down beside the chain if another process than this one
    /// comes to place the history.
    pub fn owe(&mut self, owed: PendingAdoption) {
        self.journal.owed = Some(owed);
    }

    /// Puts down beside the chain that the history is in place, once.
    ///
    /// # Errors
    /// [`Error::NotSealed`] where it is not placed.
    pub fn finish(&self) -> Result<()> {
        let placed = self.journal.placed.as_ref().ok_or(Error::NotSealed)?;
        self.update_record(|record, id, owed| {
            if record.find_adopted(id).is_some() {
                return;
            }
            // What stayed here of an earlier handoff is part of this chain now.
            let kept = |id| self.journal.older.iter().any(|o| o.id == id);
            let stayed = record.offered.iter();
            let stayed = stayed.filter(|o| o.lies_in(|id| kept(id) && self.is_as_offered(o, id)));
            let stayed: Vec<HandoffId> = stayed.map(|o| o.handoff).collect();
            // The VM may have left again since.
            let before = record.offered.take();
            if before.as_ref().map(|o| o.handoff) == record.begun {
                record.begun = None;
            }
            let left = before.filter(|o| o.at > owed.at);
            record.adopt(Adopted {
                handoff: id,
                bytes: owed.bytes,
                digest: owed.digest.clone(),
                at: owed.at,
                from: owed.from.clone(),
                dropped: placed.dropped,
                placed: placed.files.clone(),
            });
            record.contain(&owed.contains);
            record.contain(&stayed);
            record.offered = left;
        })?;
        // So that they are known again, should one of them be emptied before anybody looks.
        self.remember();
        Ok(())
    }

    /// Puts down beside the chain where its files lie in the stream. It can be done at any later
    /// look as well.
    pub(super) fn remember(&self) {
        const LATER: &str = "what the files hold is remembered at a later look";
        let numbering = self.rules.numbering.into();
        let folder = self.log.try_clone().ok_logged(LATER);
        let chain = folder.and_then(|folder| {
            LogChain::beneath(folder, self.base.clone(), numbering).ok_logged(LATER)
        });
        if let Some(chain) = chain
            && let Some(offsets) = Offsets::of(&chain).ok_logged(LATER)
        {
            offsets.remember(&chain).ok_logged(LATER);
        }
    }

    /// Puts down beside the chain, if it has a record, where its files lie in the stream by now.
    /// Unlike [`Self::remember`] it does not wait for a base, or for the end of a rollover.
    ///
    /// `at`: the VM has left, and printed the last of it then. What no handoff took along is a
    /// segment of its own from now on, so that what the VM prints here later is told from it.
    pub(super) fn remember_at_once(&self, at: Option<Timestamp>) -> Result<()> {
        let _lock = self.log.lock(LOCK_WAIT)?;
        let Some(mut record) = Record::read_any(&self.log, &self.base)? else {
            return Ok(());
        };
        let listing = self.listing()?;
        let seen = listing.seen(self.rules.numbering);
        let mut names: Vec<&OsStr> = listing
            .files()
            .map(|file| file.name.unwrap_or(&self.base))
            .collect();
        names.reverse();
        let mut look = |file: usize, skip, length| {
            let (Some(name), Some(seen)) = (names.get(file), seen.get(file)) else {
                return Ok(None);
            };
            const NOT_KNOWN: &str = "the file is not known to hold what it held";
            let opened = self.log.open_file(name).ok_logged(NOT_KNOWN);
            let opened = opened.filter(|(_, stat)| !seen.compressed && stat.id == seen.id);
            let print = opened.and_then(|(file, _)| {
                content::fingerprint(&file, skip, length).ok_logged(NOT_KNOWN)
            });
            Ok::<_, Error>(print.flatten())
        };
        let recorded = record.ledger.clone();
        record.ledger = recorded.recognise(&seen, &mut look)?;
        // The length of a compressed file may be wanted: whoever looks into it puts it down.
        let Ok(layout) = record.ledger.lay(&seen, StreamOffset::START) else {
            return Ok(());
        };
        record.ledger.remember(&layout);
        if at.is_some() {
            record
                .ledger
                .end_segment(HandoffId::random(), layout.end(), at);
        }
        if record.ledger != recorded {
            record.write(&self.log, &self.base)?;
        }
        Ok(())
    }

    /// Whether a file that is in place holds what it held when it was handed over.
    fn is_as_offered(&self, offered: &Offered, id: FileId) -> bool {
        let Some(print) = offered.print_of(id) else {
            return true;
        };
        let entries = self.listing().map(|listing| entries(&listing, &self.base));
        let mut entries = entries.into_iter().flatten();
        let name = entries.find(|(_, _, stat)| stat.id == id);
        name.is_some_and(|(name, ..)| content::is_still(&self.log, &name, id, print))
    }

    /// Changes the record beside the chain, if this handoff has to be recorded at all.
    pub(super) fn update_record(
        &self,
        change: impl FnOnce(&mut Record, HandoffId, &PendingAdoption),
    ) -> Result<()> {
        let Some(owed) = &self.journal.owed else {
            return Ok(());
        };
        let (folder, base) = (&self.log, &self.base);
        Ok(Record::update(
            folder,
            base,
            owed.domain,
            &owed.console,
            |record| {
                change(record, self.handoff, owed);
            },
        )?)
    }

    /// What is put down once it is placed, if it was told.
    #[must_use]
    pub fn owed(&self) -> Option<&PendingAdoption> {
        self.journal.owed.as_ref()
    }

    /// The segment that becomes of what stayed here and was never handed over.
    fn stayed(&self, listing: &Listing, older: &[FileId]) -> (HandoffId, Option<Timestamp>) {
        let dated = listing.dated().iter().map(|d| d.stat);
        let there = listing.rotated().iter().map(|r| r.stat).chain(dated);
        let aside = (0..self.journal.older.len()).filter_map(|index| {
            let stat = self.own.stat(&apply::older_name(index));
            stat.ok_logged("nobody knows when it was last written")?
        });
        let stayed = there.chain(aside).filter(|stat| older.contains(&stat.id));
        let last = stayed.map(|stat| stat.modified).max();
        (HandoffId::random(), last.and_then(millisecond))
    }

    /// What is to lie where.
    pub(super) fn arrival(&self) -> Result<Arrival> {
        let journal = &self.journal;
        let parts: Vec<_> = journal.parts.iter().rev().map(|p| (p.id, p.size)).collect();
        let listing = self.listing()?;
        let stale = |id: &FileId| journal.stale.contains(id);
        let dated = listing.dated().iter().rev().map(|d| d.stat.id);
        let older: Vec<FileId> = (dated.filter(|id| !stale(id)))
            .chain(journal.older.iter().rev().map(|o| o.id))
            .collect();
        let rotated = listing.rotated().iter().rev().map(|r| r.stat);
        let newer = rotated.chain(listing.base().copied());
        let newer = newer.map(|s| (s.id, s.size)).filter(|(id, _)| {
            let ours = parts.iter().any(|(part, _)| part == id);
            !ours && !older.contains(id) && !journal.stale.contains(id)
        });
        let stayed = self.stayed(&listing, &older);
        Ok(Arrival {
            newer: newer.collect(),
            parts,
            older,
            stayed: Some(stayed),
        })
    }
}
