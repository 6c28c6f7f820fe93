//! History that lies here already: what came is the same, byte for byte, as what an
//! earlier handoff placed here. A guest that prints nothing brings back such a history,
//! and so does a source whose receipt was lost.

use super::{ChainWorkspace, Placed, Result, apply};
use crate::offsets::Offsets;
use crate::record::Record;
use crate::stream::{History, Ledger};

impl ChainWorkspace {
    /// Whether this history lies here, or lay here, as far as boots tell: see
    /// `Ledger::has_end_of`. Where it is shown already, the record has its boots before it is
    /// placed; what counts is what the record said before.
    pub(crate) fn has_end_of(&self, record: &Record, history: &History) -> bool {
        self.ledger_before_shown(record).has_end_of(history)
    }

    /// What the record said of the stream before the history was shown.
    pub(super) fn ledger_before_shown<'a>(&'a self, record: &'a Record) -> &'a Ledger {
        let shown = self.journal.shown.as_ref();
        let shown = shown.filter(|_| record.arriving == Some(self.handoff));
        shown.map_or(&record.ledger, |shown| &shown.ledger)
    }

    /// Gives the files that were taken aside their names back, since the history lies in
    /// them, and says what of it lies here now. The receipt of the earlier handoff does
    /// not tell: rollovers may have moved or dropped its files, and a lower limit may
    /// leave no room for the oldest ones.
    pub fn place_again(&mut self, history: &History) -> Result<Placed> {
        apply::put_back(self)?;
        let offsets = Offsets::of(&self.chain()?)?;
        let runs = &history.runs;
        let layout = offsets.layout(history.start())?;
        let mut files: Vec<(String, u64)> = Vec::new();
        let here = runs
            .iter()
            .flat_map(|(start, length)| layout.runs(*start, *length));
        for (file, _, here) in here {
            let Some(file) = offsets.snapshot().files().get(file) else {
                continue;
            };
            let name = file.name().to_string_lossy().into_owned();
            match files.last_mut() {
                Some((last, size)) if *last == name => *size = size.saturating_add(here),
                _ => files.push((name, here)),
            }
        }
        files.reverse();
        let lies_here = files.iter().map(|(_, size)| size).sum();
        Ok(Placed {
            dropped: history.bytes().unwrap_or(0).saturating_sub(lies_here),
            files,
            notes: Vec::new(),
        })
    }
}
