//! History that belongs between what lies here, or holds in part what lies here already.
//!
//! It takes hosts that could not hand over in time: the VM went on, and came here with a part of
//! its log, and the rest comes later, or lies here from an earlier stay. Then what came and what
//! lies here are put together anew, in the order of their segments, each segment once, and go in
//! the place of both. It costs a copy of what lies here, so it is done only where it has to be.
//!
//! The base file stays as it is: the VM writes it.
//!
//! Must not know: handoffs as a protocol.

use std::io::Read as _;

use jiff::SignedDuration;

use super::stage::Parts;
use super::{Error, PendingAdoption, Result, Staging, apply};
use crate::chain::Listing;
use crate::clock::millisecond;
use crate::folder::FileId;
use crate::ids::HandoffId;
use crate::offsets::Offsets;
use crate::record::Record;
use crate::stream::{
    History, Layout, Piece, PieceHere, Segment, Side, StreamOffset, order, usual_order,
};

/// Bytes copied at a time.
const BLOCK: usize = 256 << 10;

/// How far the clocks of hosts may be apart without anybody calling them wrong.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(2);

/// What had to be done about a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interleaved {
    /// Nothing: it goes behind what is older here.
    NotNeeded,
    /// All of it lies here already.
    LiesHere,
    /// It is put together with what lies here.
    Done,
}

impl Staging {
    /// Once all of the history is here: puts it together with what lies here, where that is
    /// needed. `record` is that of this VM.
    ///
    /// Killed in the middle, the next start finds the chain whole, and the history is staged again.
    pub(crate) fn interleave(&mut self, record: Option<&Record>) -> Result<Interleaved> {
        let (Some(record), Some(mut owed)) = (record, self.journal.owed.clone()) else {
            return Ok(Interleaved::NotNeeded);
        };
        let listing = apply::stable(self)?;
        let Some(base) = listing.base().map(|stat| stat.id) else {
            return Ok(Interleaved::NotNeeded);
        };
        if self.is_sealed() || self.journal.retired.iter().any(|r| r.id == base) {
            return Ok(Interleaved::NotNeeded);
        }
        let (_, dropped) = self.parts.described();
        let coming = owed.history.without_first(dropped);
        let now = owed.at.saturating_add(CLOCKS_DIFFER).unwrap_or(owed.at);
        let known = self.known_here(record, &listing)?;
        if order(&known, &coming.pieces(), now).is_none() {
            return Ok(Interleaved::NotNeeded);
        }

        let older: Vec<FileId> = (self.journal.retired.iter().map(|r| r.id))
            .chain(self.journal.older.iter().map(|o| o.id))
            .collect();
        // From here on all that lies here is in the chain.
        apply::put_back(self)?;
        let listing = apply::stable(self)?;
        let offsets = Offsets::of(&self.chain()?)?;
        let layout = offsets.layout(StreamOffset::START)?;
        let here = Here::of(&offsets, &layout, base, &owed.host);
        let pieces = here.pieces(&layout, &older, &listing);
        let mut came = coming.pieces();
        came.retain(|piece| !piece.segment.is_some_and(|s| here.fixed.contains(&s)));
        let order = order(&pieces, &came, now).unwrap_or_else(|| usual_order(&pieces, &came));
        if order.iter().all(|(side, _)| *side == Side::Here) {
            let (contains, handoff) = (owed.contains.clone(), self.handoff);
            self.update_record(|record, _, _| {
                record.contain(&contains);
                record.contain(&[handoff]);
            })?;
            return Ok(Interleaved::LiesHere);
        }

        let mut parts = Parts::after(&self.parts);
        let mut merged = History::default();
        for (side, index) in order {
            let slice = match side {
                Side::Here => {
                    let Some(PieceHere { piece, is_older }) = pieces.get(index) else {
                        continue;
                    };
                    let mut slice = here.history.slice(piece.start, piece.end);
                    if piece.segment.is_none() && *is_older {
                        // Nobody took it along: it is a segment from now on.
                        let (handoff, end) = (HandoffId::random(), piece.end);
                        slice.segments.push(Segment {
                            handoff,
                            end,
                            at: piece.at,
                        });
                    }
                    self.copy_here((&offsets, &layout), &slice, &mut parts)?;
                    slice
                }
                Side::Coming => {
                    let Some(piece) = came.get(index) else {
                        continue;
                    };
                    self.copy_staged(coming.bytes_before(piece.start), piece.bytes, &mut parts)?;
                    coming.slice(piece.start, piece.end)
                }
            };
            merged = merged.followed_by(slice);
        }
        self.parts.remove(&self.workspace.own)?;
        self.parts = parts;
        self.workspace.staged = self.parts.ids();
        let copied: Vec<FileId> = layout.spans().iter().map(|s| s.id).collect();
        contain_offered(record, &copied, &mut owed);
        self.copied = Some(copied.into_iter().filter(|id| *id != base).collect());
        owed.history = merged.ending_at(here.end);
        self.workspace.owe(owed);
        Ok(Interleaved::Done)
    }

    /// What is known to lie here beside the base and does not go when the history comes, without
    /// a look into files.
    fn known_here(&self, record: &Record, listing: &Listing) -> Result<Vec<PieceHere>> {
        let ledger = self.ledger_before_shown(record);
        let goes = |file: &super::returning::Candidate<'_>| {
            self.comes_back(Some(record), file) == Some(file.stat.size)
        };
        let mut there: Vec<(FileId, bool)> = Vec::new();
        for rotated in listing.rotated() {
            let id = rotated.stat.id;
            let is_older = self.journal.older.iter().any(|o| o.id == id);
            if !self.is_part(id) && !goes(&self.in_log(&rotated.name, rotated.stat)) {
                there.push((id, is_older));
            }
        }
        for aside in self.aside()? {
            if !goes(&self.in_own(&aside)) {
                there.push((aside.stat.id, true));
            }
        }
        let history = ledger.history_of(|id| there.iter().any(|(there, _)| *there == id));
        let is_older = |piece: &Piece| {
            let file = ledger.file_at(piece.start);
            there
                .iter()
                .any(|(id, is_older)| *is_older && file == Some(*id))
        };
        let pieces = history.pieces().into_iter();
        Ok(pieces
            .map(|piece| PieceHere {
                is_older: is_older(&piece),
                piece,
            })
            .collect())
    }

    fn copy_here(
        &self,
        (offsets, layout): (&Offsets, &Layout),
        what: &History,
        to: &mut Parts,
    ) -> Result<()> {
        let mut block = vec![0; BLOCK];
        let mut starts = true;
        for (start, length) in &what.runs {
            let runs = layout.runs(*start, *length);
            let mut reader = offsets.snapshot().read_runs(runs);
            loop {
                let read = reader.read(&mut block);
                let read = read.map_err(|e| Error::io("copy", self.log.path(), e))?;
                let bytes = block.get(..read).unwrap_or_default();
                if bytes.is_empty() {
                    break;
                }
                to.append(&self.own, starts, bytes)?;
                starts = false;
            }
        }
        Ok(())
    }

    fn copy_staged(&self, mut from: u64, bytes: u64, to: &mut Parts) -> Result<()> {
        let mut block = vec![0; BLOCK];
        let end = from.saturating_add(bytes);
        let mut starts = true;
        while from < end {
            let most = usize::try_from(end.saturating_sub(from))
                .unwrap_or(BLOCK)
                .min(BLOCK);
            let block = block.get_mut(..most).unwrap_or_default();
            let read = self.parts.read_at(&self.own, from, block)?;
            to.append(&self.own, starts, block.get(..read).unwrap_or_default())?;
            from = from.saturating_add(read as u64);
            starts = false;
        }
        Ok(())
    }
}

/// What lies here before the base.
struct Here {
    history: History,
    /// Where the base begins.
    end: StreamOffset,
    /// Segments that reach into the base: they stay where they are.
    fixed: Vec<HandoffId>,
}

impl Here {
    fn of(offsets: &Offsets, layout: &Layout, base: FileId, host: &str) -> Self {
        let all = offsets.ledger().history(layout, host, &[]);
        let of_base = layout.spans().iter().find(|span| span.id == base);
        let end = of_base.map_or(layout.end(), |span| span.start);
        let fixed = all.segments.iter().filter(|s| s.end > end);
        Self {
            fixed: fixed.map(|s| s.handoff).collect(),
            history: all.slice(all.start(), end),
            end,
        }
    }

    fn pieces(&self, layout: &Layout, older: &[FileId], listing: &Listing) -> Vec<PieceHere> {
        let file_at = |offset: StreamOffset| {
            let mut spans = layout.spans().iter().rev();
            spans
                .find(|span| span.start <= offset && span.length > 0)
                .map(|span| span.id)
        };
        let written = |id: FileId| {
            let rotated = listing.rotated().iter().map(|r| r.stat);
            let mut stats = rotated.chain(listing.dated().iter().map(|d| d.stat));
            let stat = stats.find(|stat| stat.id == id)?;
            millisecond(stat.modified)
        };
        let pieces = self.history.pieces().into_iter().map(|mut piece| {
            let is_older = file_at(piece.start).is_some_and(|id| older.contains(&id));
            if piece.segment.is_none() && is_older {
                let last = piece.end.checked_sub(1).and_then(file_at);
                piece.at = last.and_then(written);
            }
            PieceHere { piece, is_older }
        });
        pieces.collect()
    }
}

/// Where all is copied that was handed over from here, the chain holds that handoff's bytes.
fn contain_offered(record: &Record, copied: &[FileId], owed: &mut PendingAdoption) {
    let is_copied = |id| copied.contains(&id);
    let offered = record.offered.iter().filter(|o| o.lies_in(is_copied));
    owed.contains.extend(offered.map(|offered| offered.handoff));
}
