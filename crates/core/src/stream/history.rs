//! What goes from one host to the next.

use serde::{Deserialize, Serialize};

use super::ledger::Known;
use super::{Hole, Hop, Layout, Ledger};
use crate::folder::FileId;

/// What one host tells the next of the history that it hands over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Offset and length of each run of its bytes, oldest first.
    pub runs: Vec<(u64, u64)>,
    /// What is missing in it.
    pub holes: Vec<Hole>,
    /// The hosts that the VM was on so far.
    pub hops: Vec<Hop>,
}

impl History {
    /// That of `bytes` bytes of which nothing else is known.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self {
            runs: vec![(0, bytes)],
            ..Self::default()
        }
    }

    /// How many bytes it has, where its runs make sense: it comes from another host.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let (mut at, mut bytes) = (0, 0_u64);
        for (start, length) in &self.runs {
            if *start < at {
                return None;
            }
            at = start.checked_add(*length)?;
            bytes = bytes.checked_add(*length)?;
        }
        Some(bytes)
    }
}

impl Ledger {
    /// What is told to the next host. `layout` is all of the chain; `missed` the
    /// places, in bytes from its first one, where bytes were missed.
    #[must_use]
    pub fn history(&self, layout: &Layout, host: &str, missed: &[u64]) -> History {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for span in layout.spans.iter().filter(|s| s.length > 0) {
            match runs.last_mut() {
                Some((start, length)) if start.saturating_add(*length) == span.start => {
                    *length = length.saturating_add(span.length);
                }
                _ => runs.push((span.start, span.length)),
            }
        }
        if runs.is_empty() {
            // It says where the stream is, also where nothing of it is left.
            runs.push((layout.end, 0));
        }
        let mut all = self.clone();
        all.holes.extend(&layout.holes);
        for at in missed {
            let at = offset_of(&runs, *at).unwrap_or(layout.end);
            if !all.holes.iter().any(|h| h.at == at) {
                all.holes.push(Hole { at, size: None });
            }
        }
        if all.hops.is_empty() {
            let host = host.to_owned();
            all.hops.push(Hop {
                host,
                since: None,
                start: 0,
            });
        }
        all.keep(layout.first().unwrap_or(layout.end));
        History {
            runs,
            holes: all.holes,
            hops: all.hops,
        }
    }

    /// The history of the host before came here at the time `now`. `parts` hold
    /// its last bytes, `newer` is what the VM wrote here since, `foreign` what
    /// else lies under the chain's names; oldest first each.
    #[must_use]
    pub fn arrived(
        &self,
        history: &History,
        parts: &[(FileId, u64)],
        newer: &[(FileId, u64)],
        foreign: Vec<FileId>,
        here: (&str, u64),
    ) -> Self {
        // A source that had forgotten what this host knows: offsets never fall.
        let ends = history
            .runs
            .last()
            .map_or(0, |(start, length)| start.saturating_add(*length));
        let shift = self.end.saturating_sub(ends);
        let mut known = Vec::new();
        let mut runs = history.runs.iter().rev().copied();
        let mut run = runs.next();
        for (id, length) in parts.iter().rev() {
            let mut left = *length;
            while let Some((start, has)) = run.filter(|_| left > 0) {
                let takes = left.min(has);
                left = left.saturating_sub(takes);
                let has = has.saturating_sub(takes);
                let start_here = start.saturating_add(has).saturating_add(shift);
                known.push(Known {
                    id: *id,
                    skip: left,
                    start: start_here,
                    length: takes,
                });
                run = if has > 0 {
                    Some((start, has))
                } else {
                    runs.next()
                };
            }
        }
        known.reverse();
        let start = ends.saturating_add(shift);
        let mut end = start;
        for (id, length) in newer {
            known.push(Known {
                id: *id,
                skip: 0,
                start: end,
                length: *length,
            });
            end = end.saturating_add(*length);
        }
        let mut hops = history.hops.clone();
        hops.iter_mut()
            .for_each(|h| h.start = h.start.saturating_add(shift));
        let (host, since) = (here.0.to_owned(), Some(here.1));
        hops.push(Hop { host, since, start });
        let mut holes = history.holes.clone();
        holes
            .iter_mut()
            .for_each(|h| h.at = h.at.saturating_add(shift));
        let first = known.first().map_or(end, |k| k.start);
        let mut arrived = Self {
            known,
            foreign,
            holes,
            hops,
            end,
        };
        arrived.keep(first);
        arrived
    }
}

/// The offset of the byte with this number, counted from the first one of `runs`.
fn offset_of(runs: &[(u64, u64)], mut number: u64) -> Option<u64> {
    for (start, length) in runs {
        if number < *length {
            return Some(start.saturating_add(number));
        }
        number = number.saturating_sub(*length);
    }
    None
}
