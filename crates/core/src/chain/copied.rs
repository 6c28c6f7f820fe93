//! Where the bytes went of a file that was emptied while somebody read it.
//!
//! `copytruncate` copies a log to a rotated file, then empties the log: whoever holds
//! the log by its descriptor has lost what he did not read yet, and it lies in the copy.
//! The log is emptied only once the copy is whole, so a copy that is found is read to
//! its end; it may have been compressed since, and other copies may have followed it.
//!
//! Must not know: who reads, how far.

use super::{ChainFile, Error, LogChain, Result};
use crate::content::Mark;
use crate::folder::FileId;
use crate::stream::Fingerprint;

impl LogChain {
    /// The files that hold what the file `id` held, which has no longer the bytes of
    /// `mark`, and what it held afterwards, oldest first. `None`: nobody has them.
    ///
    /// A copy is a rotated file that came since (it is not `known`), is older than the
    /// file itself, and has the same bytes at the same place. A compressed one may be a
    /// known file that was compressed since, so few bytes do not tell there. Of several the oldest: a later one is of what the log
    /// held later.
    ///
    /// # Errors
    /// The folder's; those of reading.
    pub(crate) fn copied(
        &self,
        id: FileId,
        mark: &Mark,
        known: impl Fn(FileId) -> bool,
    ) -> Result<Option<Vec<ChainFile>>> {
        let files = match self.snapshot() {
            Err(e) if e.is_not_found() => return Ok(None),
            snapshot => snapshot?.into_files(),
        };
        let older = files.into_iter().take_while(|file| file.id() != id);
        let mut came = older.filter(|file| !file.is_base() && !known(file.id()));
        let tells = |file: &ChainFile| file.compression().is_none() || mark.is_telling();
        let copy = loop {
            let Some(file) = came.next() else {
                return Ok(None);
            };
            match file.has_before(mark) {
                Ok(true) if tells(&file) => break file,
                Ok(_) | Err(Error::Damaged { .. }) => {}
                Err(e) => return Err(e),
            }
        };
        Ok(Some([copy].into_iter().chain(came).collect()))
    }

    /// The copies of what the file `id` held while nobody looked, oldest first: it was
    /// empty when it was seen last, so no byte tells whether it was emptied since.
    ///
    /// They are plain files that are not `known`, newer than all that are, and do not
    /// have the bytes of a file that was `given` already, as one has that was restored
    /// from a backup. A compressed one may be a known file that was compressed since.
    pub(crate) fn came_before(
        &self,
        id: FileId,
        known: impl Fn(FileId) -> bool,
        given: impl FnOnce() -> Vec<Fingerprint>,
    ) -> Result<Vec<ChainFile>> {
        let listing = self.listing()?;
        let older = listing.files().skip_while(|file| file.stat.id != id);
        // Most often there is none, and nothing is opened.
        let mut older = older.filter(|file| file.stat.id != id && file.compression.is_none());
        if !older.any(|file| !known(file.stat.id)) {
            return Ok(Vec::new());
        }
        let files = match self.snapshot() {
            Err(e) if e.is_not_found() => return Ok(Vec::new()),
            snapshot => snapshot?.into_files(),
        };
        let older = files.into_iter().take_while(|file| file.id() != id);
        let mut given = given();
        given.retain(Fingerprint::is_telling);
        let mut copies = Vec::new();
        for file in older.filter(|file| !file.is_base()) {
            let mut is_known = file.compression().is_some() || known(file.id());
            for print in &given {
                is_known = is_known || file.fingerprint(0, print.length())? == Some(*print);
            }
            if is_known {
                copies.clear();
            } else {
                copies.push(file);
            }
        }
        Ok(copies)
    }
}
