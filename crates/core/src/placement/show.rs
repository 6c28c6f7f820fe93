//! History that is seen before it is complete: while the guest is still paused
//! here, or not here yet, the parts staged so far get their names, and what comes
//! after goes to the end of the newest one.
//!
//! Nothing is decided by it. The parts are still the staging's, whoever is killed
//! finds in the journal which files they are, and takes their names away again.
//! So it is done only where nothing else has to move: where a rotated file is in
//! the way, the history is seen when it is placed.

use super::journal::Shown;
use super::{ChainWorkspace, PendingAdoption, Phase, Result, Staging, apply};
use crate::chain::rotated_name;
use crate::folder;
use crate::follow::Writer;
use crate::record::Record;
use crate::stream::Arrival;

impl Staging {
    /// Gives the parts staged so far their names behind the base, to be seen until
    /// they are placed, or discarded. `owed` says what is known of the history so
    /// far: its `bytes` are those staged. Says whether they are seen.
    ///
    /// Not done where nobody has the base open for writing (libvirt may be about
    /// to wipe what lies here), nor where rotated files are in the way.
    ///
    /// # Errors
    /// The folder's. The history can be staged on all the same.
    pub fn show(&mut self, owed: PendingAdoption) -> Result<bool> {
        if self.is_shown() {
            return Ok(true);
        }
        if !matches!(self.journal.phase, Phase::Retiring | Phase::Staging)
            || self.parts.total() == 0
        {
            return Ok(false);
        }
        let Some((base, stat)) = self.open_base()? else {
            return Ok(false);
        };
        let listing = apply::stable(self)?;
        let rules = self.rules;
        let in_the_way = |number| !rules.is_beyond(number);
        if self.writers.writer(&base) == Writer::None
            || listing.rotated().iter().any(|r| in_the_way(r.number))
        {
            return Ok(false);
        }
        self.parts.join_newest(&self.workspace.own)?;
        self.workspace.staged = self.parts.ids();
        self.match_base((&base, &stat))?;
        let (parts, _) = self.parts.described();
        let found = Record::read_any(&self.log, &self.base)?;
        let there = found.is_some();
        let record = found.unwrap_or_else(Record::unowned);
        let first = self.rules.numbering.first();
        let numbers = (first..)
            .map(|place| listing.number_at(first, place))
            .take_while(|n| in_the_way(*n));
        let names: Vec<_> = parts.iter().zip(numbers).collect();
        self.journal.shown = Some(Shown {
            files: names.iter().map(|(part, _)| part.id).collect(),
            record: there,
            ledger: record.ledger,
            arriving: record.arriving,
        });
        self.journal.owed = Some(owed);
        self.write_journal()?;
        self.parts.keep_newest();
        // Before the names are given, so that a reader who sees a part knows where
        // it lies in the stream. What the base holds comes behind all that is still
        // to come: it has no place yet.
        let arrival = Arrival {
            parts: parts.iter().rev().map(|p| (p.id, p.size)).collect(),
            newer: Vec::new(),
            older: (listing.dated().iter().rev().map(|d| d.stat.id))
                .chain(listing.rotated().iter().rev().map(|r| r.stat.id))
                .chain([stat.id])
                .collect(),
            stayed: None,
        };
        self.update_record(|record, id, owed| {
            record.arriving(id, &owed.history, arrival, (&owed.host, owed.at));
        })?;
        // Newest first: at no moment is a number missing before a part.
        for (part, number) in names {
            let name = rotated_name(&self.base, number);
            match self.log.link_from(&self.own, part.name.as_ref(), &name) {
                Ok(()) => {}
                // A rollover: the guest runs here already.
                Err(folder::Error::AlreadyExists { .. }) => {
                    self.unshow()?;
                    return Ok(false);
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

impl ChainWorkspace {
    /// Whether what is staged is seen before it is placed.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.journal.shown.is_some()
    }

    /// Takes the names away again.
    pub(super) fn unshow(&mut self) -> Result<()> {
        let Some(shown) = self.journal.shown.clone() else {
            return Ok(());
        };
        self.journal.stale = shown.files.clone();
        self.write_journal()?;
        apply::take_stale(self)?;
        self.as_before_shown()?;
        if !shown.record {
            Record::remove_blank(&self.log, &self.base)?;
        }
        self.journal.stale = Vec::new();
        self.journal.shown = None;
        self.write_journal()
    }

    /// What is put down beside the chain is as it was before it was shown.
    pub(super) fn as_before_shown(&self) -> Result<()> {
        let Some(shown) = &self.journal.shown else {
            return Ok(());
        };
        self.update_record(|record, id, _| {
            if record.arriving == Some(id) {
                record.ledger = shown.ledger.clone();
                record.arriving = shown.arriving;
            }
        })
    }
}
