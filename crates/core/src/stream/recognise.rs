//! Which file holds what is known: by identity and by what the bytes are.
//!
//! A file that is known by identity and does not have the bytes that it had was
//! *replaced*: emptied from outside, and perhaps longer by now than it was. Its old
//! bytes may lie in another file: `copytruncate` leaves a copy, a restored backup has
//! new identities. Such a file is taken for the run if
//! - it has the run's fingerprint, which is one that hardly comes by accident, and no
//!   other file that might be it has it too;
//! - it is at least as long as the run was;
//! - it lies where the run belongs: between the files of the next older and the next
//!   newer known run, and before the file that was replaced;
//! - it is not known as anything else.
//!
//! Guests print the same text at each boot, so one fingerprint in two files is taken
//! for neither: then the run is gone, and that is said.

use super::ledger::Known;
use super::{Fingerprint, Ledger, Seen};
use crate::folder::FileId;

/// Gives the fingerprint of a run in a file that was seen: by its place in the list,
/// bytes to leave out, and length.
pub type Look<'a, E> = dyn FnMut(usize, u64, u64) -> Result<Option<Fingerprint>, E> + 'a;

impl Ledger {
    /// As it is, with the files that hold its runs now. `seen` is oldest first.
    ///
    /// Of compressed files only those are looked into that came since and may hold the
    /// end of what is known; the others' places follow from their neighbours'.
    pub fn recognise<E>(&self, seen: &[Seen], look: &mut Look<'_, E>) -> Result<Self, E> {
        let mut ledger = self.clone();
        let mut orphans: Vec<FileId> = Vec::new();
        for known in &self.known {
            let there = seen.iter().enumerate().find(|(_, s)| s.id == known.id);
            let holds = match there {
                Some((file, seen)) => holds(known, file, seen, look)?,
                None => false,
            };
            if !holds && !orphans.contains(&known.id) {
                orphans.push(known.id);
            }
        }
        for known in &mut ledger.known {
            known.gone = orphans.contains(&known.id);
        }
        for orphan in orphans {
            let Some(now) = ledger.find(orphan, seen, look)? else {
                continue;
            };
            for known in ledger.known.iter_mut().filter(|k| k.id == orphan) {
                (known.id, known.gone) = (now, false);
            }
        }
        Ok(ledger)
    }

    /// The file that holds the runs of `orphan` now, if just one does.
    fn find<E>(
        &self,
        orphan: FileId,
        seen: &[Seen],
        look: &mut Look<'_, E>,
    ) -> Result<Option<FileId>, E> {
        let runs: Vec<&Known> = self.known.iter().filter(|k| k.id == orphan).collect();
        let tells = |run: &&Known| run.print.is_some_and(|p| p.is_telling());
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Ok(None);
        };
        if !runs.iter().any(tells) {
            return Ok(None);
        }
        let file_of = |id| seen.iter().position(|s| s.id == id);
        let there = || self.known.iter().filter(|k| !k.gone);
        let older = there().filter(|k| k.start < first.start);
        let newer = there().filter(|k| k.start > last.start);
        let is_last = newer.clone().all(|k| k.length == 0);
        let from = older.filter_map(|k| file_of(k.id)).max();
        let from = from.map_or(0, |file| file.saturating_add(1));
        let to = newer.map(|k| k.id).chain([orphan]).filter_map(file_of);
        let to = to.min().unwrap_or(seen.len());

        let mut found = None;
        for (file, seen) in seen.iter().enumerate().take(to).skip(from) {
            let taken = self.known.iter().any(|k| k.id == seen.id) || self.is_foreign(seen.id);
            if taken || (seen.compressed && !is_last) {
                continue;
            }
            let mut same = true;
            for run in &runs {
                same = same && has(run, file, seen, look)?;
            }
            if same && found.replace(seen.id).is_some() {
                return Ok(None);
            }
        }
        Ok(found)
    }

    /// Takes fingerprints, so that files are known again: with `all` of every run that grew,
    /// else of those whose fingerprint tells too little or that are twice as long since. Says whether that is worth writing down.
    pub fn note<E>(&mut self, seen: &[Seen], all: bool, look: &mut Look<'_, E>) -> Result<bool, E> {
        let mut news = false;
        for known in self.known.iter_mut().filter(|k| !k.gone && k.length > 0) {
            let there = seen.iter().enumerate().find(|(_, s)| s.id == known.id);
            let Some((file, _)) = there.filter(|(_, s)| !s.compressed) else {
                continue;
            };
            let is_much = known.print.is_none_or(|old| {
                let tells_now = Fingerprint::tells(known.length) && !old.is_telling();
                tells_now || old.length().saturating_mul(2) <= known.length
            });
            let grew = known.print.is_some_and(|p| p.length() < known.length);
            if !(is_much || (all && grew)) {
                continue;
            }
            let new = look(file, known.skip, known.length)?;
            if let Some(old) = known.print {
                // After the new one was taken: if the file was replaced just now, that one
                // is of other bytes.
                if look(file, known.skip, old.length())? != Some(old) {
                    continue;
                }
            }
            if new.is_some() {
                known.print = new;
                news |= is_much;
            }
        }
        Ok(news)
    }

    /// The file `id` is known to have held these bytes, from its first one on.
    pub(crate) fn held(&mut self, id: FileId, print: Fingerprint) {
        let of_file = |k: &&mut Known| k.id == id && k.skip == 0 && k.length == print.length();
        if let Some(known) = self.known.iter_mut().find(of_file) {
            known.print = Some(print);
        }
    }

    /// What `was` held lies in `now`, and `was` holds other bytes.
    pub(crate) fn moved_to(&mut self, was: FileId, now: FileId) {
        for known in self.known.iter_mut().filter(|k| k.id == was) {
            (known.id, known.gone) = (now, false);
        }
    }

    /// Whether a file that is known holds no longer what it held.
    pub(crate) fn is_gone(&self, id: FileId) -> bool {
        self.known.iter().any(|k| k.id == id && k.gone)
    }

    /// Whether both have the runs of a file at the same places.
    pub(crate) fn agrees_on(&self, other: &Self, id: FileId) -> bool {
        let places = |ledger: &Self| {
            let runs = ledger.known.iter().filter(|k| k.id == id);
            runs.map(|k| (k.skip, k.start)).collect::<Vec<_>>()
        };
        places(self) == places(other)
    }
}

/// Whether a file that is known by identity still is what it was.
fn holds<E>(known: &Known, file: usize, seen: &Seen, look: &mut Look<'_, E>) -> Result<bool, E> {
    // Nobody writes into a compressed file, and its bytes cost a pass.
    Ok(seen.compressed || has(known, file, seen, look)?)
}

fn has<E>(known: &Known, file: usize, seen: &Seen, look: &mut Look<'_, E>) -> Result<bool, E> {
    let end = known.skip.saturating_add(known.length);
    if seen.length.is_some_and(|length| length < end) {
        return Ok(false);
    }
    Ok(match known.print {
        Some(print) => look(file, known.skip, print.length())? == Some(print),
        None => true,
    })
}
