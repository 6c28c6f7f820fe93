//! Files that were emptied from outside while they were followed (`copytruncate`): what
//! they held is read from the copy that was made of it, or is told as missed.
//!
//! Must not know: who emptied them.

use super::held::{Held, Source};
use super::{Follower, Missed, Result};
use crate::folder::FileId;
use crate::stream::Fingerprint;

impl Follower {
    /// A held file was emptied from outside. What it had is read from the copy that was
    /// made of it before, then what came in between, then the file anew.
    pub(super) fn replaced(&mut self, index: usize) -> Result<()> {
        let Some(held) = self.held.get(index) else {
            return Ok(());
        };
        let mut now = Vec::new();
        let was = held.id;
        if let Some(files) = self.chain.copied(was, held.mark(), |id| self.knows(id))? {
            for (index, file) in files.into_iter().enumerate() {
                now.push(match index {
                    0 => held.moved_to(file)?,
                    _ => Held::new(file)?,
                });
            }
        } else if held.mark().at() > 0 {
            // No file has inode 0.
            let nth = i64::try_from(self.moved.len()).unwrap_or(i64::MAX);
            now.push(held.lost(FileId {
                ino: 0,
                born: Some((nth, 0)),
            }));
            // What it held between then and now.
            let came = self
                .chain
                .came_before(was, |id| self.knows(id), || self.given());
            for copy in came? {
                now.push(Held::new(copy)?);
            }
        }
        let old = now.first().map(|first| first.id);
        now.extend(held.anew()?);
        self.moved.extend(old.map(|old| (was, old)));
        let newer = self.held.split_off(index);
        self.held.extend(now);
        self.held.extend(newer.into_iter().skip(1));
        Ok(())
    }

    /// A held file that was empty may have been filled and emptied while nobody looked:
    /// then the copies of what it held come before it. Says whether there are any.
    /// `last`: it is not looked at again.
    pub(super) fn came_before(&mut self, index: usize, last: bool) -> Result<bool> {
        let held = self.held.get(index);
        let Some(held) = held.filter(|held| held.was_empty() && (last || held.is_written())) else {
            return Ok(false);
        };
        let known = |id| self.knows(id);
        let copies = self.chain.came_before(held.id, known, || self.given())?;
        if copies.is_empty() {
            return Ok(false);
        }
        let newer = self.held.split_off(index);
        for copy in copies {
            self.held.push_back(Held::new(copy)?);
        }
        self.held.extend(newer);
        Ok(true)
    }

    /// What the files hold that are known.
    fn given(&self) -> Vec<Fingerprint> {
        let files = self.files().into_iter().filter(|file| !file.compressed);
        files.filter_map(|file| file.print).collect()
    }

    pub(super) fn knows(&self, id: FileId) -> bool {
        let given = self.seen.iter().map(|file| file.id);
        let held = self.held.iter().map(|held| held.id);
        given.chain(held).any(|known| known == id)
    }

    /// Lets go of the oldest file, which gave all that it had.
    pub(super) fn pass(&mut self) -> Result<()> {
        if self.came_before(0, true)? {
            return Ok(());
        }
        let Some(done) = self.held.pop_front() else {
            return Ok(());
        };
        if let Source::Lost = done.source {
            let why = "the log was emptied from outside before it was read to its end";
            self.missed.push(Missed {
                offset: self.offset,
                why,
            });
        }
        self.seen.push(done.followed());
        Ok(())
    }
}
