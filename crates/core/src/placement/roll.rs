//! Rotates a log that is being written, now.
//!
//! Room is made behind the base, the oldest file first; the base is renamed into
//! it; its writer is asked to open it anew, by its path. The writer may roll it
//! over itself between any two of these steps. So every file that makes room is
//! held in the workspace until the end, as if it were retired: in the end all of
//! them get places behind what is newer, and whoever is killed has them put back
//! by the next start. Only between the rename and the asking, two calls, would a
//! kill leave a log without a base: rotating again asks then.
//!
//! Must not know: who the writer is.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::journal::{OlderFile, PendingRetirement, Retired};
use super::{ChainWorkspace, Error, Rules, apply, ending, pause};
use crate::BoxError;
use crate::chain::{Foreign, Listing, rotated_name};
use crate::folder::{self, FileId};
use crate::follow::{Writer, Writers};
use crate::ids::HandoffId;
use crate::sentence;

/// Between two looks for the new base.
const LOOK: Duration = Duration::from_millis(2);

/// Looks for the base that a rollover makes.
const LOOKS: u32 = 100;

/// How often a log is tried whose files move while we look.
const TRIES: u32 = 5;

/// Who writes a base file, and can be made to open it anew by its path.
pub trait Reopen {
    /// Asks for it. Does not wait until it is done.
    ///
    /// # Errors
    /// Why it cannot be asked: it is told in [`RollError::PutBack`].
    fn ask(&self) -> Result<(), BoxError>;

    /// Whether it has this file open for writing, and can be asked again.
    ///
    /// # Errors
    /// That it is gone: it is not waited for any longer.
    fn writes(&self, file: &File) -> Result<bool, BoxError>;
}

/// What a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rolled {
    /// The base of that size was renamed, and its writer has a new one.
    Asked(u64),
    /// The writer itself rolled it over at this very moment.
    ByItself,
    /// The base is empty: there is nothing to rotate.
    Empty,
}

/// Why a log was not rotated. It is as it was, unless said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RollError {
    /// As placing fails.
    #[error(transparent)]
    Placement(#[from] Error),
    /// A file of another log would be overwritten by this log's rotation.
    #[error("{0}; nothing was rotated")]
    Foreign(Foreign),
    /// The file is not written by whom it should be.
    #[error("{what} is not written by who was found to write it; try again")]
    NotWritten {
        /// The base file.
        what: String,
    },
    /// The writer could not be asked, or made no new base.
    #[error("{why}; the log has its name back")]
    PutBack {
        /// Why.
        #[source]
        why: BoxError,
    },
    /// As [`RollError::PutBack`], and that failed as well.
    #[error("{why}; and the log lies at {at}, where it could not be given its name back: {but}")]
    NoBase {
        /// Why.
        #[source]
        why: BoxError,
        /// Where the log lies.
        at: String,
        /// The system's answer.
        but: String,
    },
}

/// How it stands with the base once it was renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// There is none.
    NoBase,
    /// It is the old one still, or again.
    Old,
    /// It is another one; and whether the writer has it open.
    New(bool),
}

/// What to do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Done,
    Look,
    GiveUp,
}

/// Pure: what follows from a look. `alive`: the writer is there; `late`: it was
/// waited for long enough.
fn next(seen: Seen, alive: bool, late: bool) -> Next {
    match seen {
        Seen::New(true) => Next::Done,
        _ if late || !alive => Next::GiveUp,
        Seen::New(false) | Seen::NoBase | Seen::Old => Next::Look,
    }
}

/// Pure: the files that make room, oldest first: those without a gap behind the
/// base. What lies behind a gap, or where the rotation keeps nothing, stays there.
fn to_move(listing: &Listing, rules: Rules) -> Vec<usize> {
    let numbers = listing.rotated().iter().map(|r| r.number);
    let row = numbers
        .zip(rules.numbering.first()..)
        .take_while(|(number, at)| number == at && !rules.is_beyond(*number));
    (0..row.count()).rev().collect()
}

/// How one try went.
enum Tried {
    Rolled(Rolled),
    /// The files moved while we looked, and the base is the old one.
    Moved,
    /// Nobody who was found writes the base.
    NotWritten,
}

/// Rotates the log at `path`, which `reopen` writes. Blocks for `patience` at
/// the most until the new base is there, and a little for all else.
///
/// # Errors
/// [`RollError`]: nothing is lost.
pub fn roll(
    path: &Path,
    rules: Rules,
    writers: Arc<dyn Writers>,
    reopen: &dyn Reopen,
    patience: Duration,
) -> Result<Rolled, RollError> {
    let mut seen = None;
    let mut tries = 0;
    let rolled = loop {
        let id = HandoffId::random();
        let mut workspace = ChainWorkspace::open(path, id, rules, Arc::clone(&writers))?;
        let tried = workspace.try_roll(&mut seen, reopen, patience);
        // Whatever happened, what made room gets its place.
        workspace.discard()?;
        match tried {
            Ok(Tried::Rolled(rolled)) => break Ok(rolled),
            Ok(_) if tries < TRIES => tries += 1,
            Ok(Tried::Moved) => {
                let path = path.to_owned();
                break Err(Error::Unsettled { path }.into());
            }
            Ok(Tried::NotWritten) => {
                break Err(RollError::NotWritten {
                    what: path.display().to_string(),
                });
            }
            Err(e) => break Err(e),
        }
        pause(LOOK);
    };
    let (log, base) = folder::Folder::of_file(path).map_err(Error::from)?;
    let listing = Listing::read(&log, &base).map_err(Error::from)?;
    let acted = matches!(rolled, Ok(_) | Err(RollError::PutBack { .. }));
    if acted && !listing.gaps(rules.numbering).is_empty() {
        // A rollover between our steps left a number free, or one was free before.
        ChainWorkspace::close_gaps(path, rules, writers)?;
    }
    rolled
}

impl ChainWorkspace {
    /// `first_seen` is the base of the first try.
    fn try_roll(
        &mut self,
        first_seen: &mut Option<FileId>,
        reopen: &dyn Reopen,
        patience: Duration,
    ) -> Result<Tried, RollError> {
        let listing = apply::stable(self)?;
        let mut foreign = listing.foreign().iter();
        let in_the_way = |number| !self.rules.is_beyond(number);
        if let Some(foreign) = foreign.find(|f| f.number.is_some_and(in_the_way)) {
            return Err(RollError::Foreign(foreign.clone()));
        }
        let first = rotated_name(&self.base, self.rules.numbering.first());
        let is_written = |file: &File| match reopen.writes(file) {
            Ok(written) => written,
            Err(error) => {
                debug!(error = %sentence(&*error), "nobody counts as its writer");
                false
            }
        };
        let old = match self.open_base()? {
            Some((_, stat)) if first_seen.is_some_and(|seen| seen != stat.id) => {
                return Ok(Tried::Rolled(Rolled::ByItself));
            }
            Some((file, stat)) => {
                *first_seen = Some(stat.id);
                // A rollover may have taken it since it was opened.
                if !is_written(&file) {
                    return Ok(Tried::NotWritten);
                }
                if stat.size == 0 {
                    return Ok(Tried::Rolled(Rolled::Empty));
                }
                self.check_renames()?;
                let quicker = listing.base().map(|base| base.id) != Some(stat.id)
                    || !self.make_room(&listing, stat.id)?
                    || !self.move_base(&first)?;
                if quicker && self.is_another(stat.id)? {
                    self.hold_old(stat.id)?;
                    return Ok(Tried::Rolled(Rolled::ByItself));
                }
                if quicker {
                    return Ok(Tried::Moved);
                }
                stat
            }
            // Somebody was killed between the rename and the asking, or a rollover is
            // under way, which will not be there any more at the next look.
            None => match self.log.open_file(&first) {
                Ok((file, stat)) if is_written(&file) && self.has_no_base()? => stat,
                Ok(_) | Err(folder::Error::NotFound { .. }) => return Ok(Tried::NotWritten),
                Err(e) => return Err(Error::from(e).into()),
            },
        };
        match self.wait_for_base(old.id, reopen, patience) {
            Ok(()) => {
                // It may have grown until the new one was there.
                let size = self.hold_old(old.id)?.unwrap_or(old.size);
                Ok(Tried::Rolled(Rolled::Asked(size)))
            }
            Err(why) => Err(self.put_base_back(&first, old.id, why)),
        }
    }

    /// Makes sure, before anything is moved, that the base can be renamed without
    /// overwriting what its writer put under that name at the same moment.
    fn check_renames(&self) -> Result<(), Error> {
        let (probe, renamed) = (OsStr::new("probe"), OsStr::new("probe-renamed"));
        self.own.remove(probe)?;
        self.own.remove(renamed)?;
        drop(self.own.create_new(probe, 0o600)?);
        let done = self.own.rename_noreplace(probe, &self.own, renamed);
        self.own.remove(probe)?;
        self.own.remove(renamed)?;
        Ok(done?)
    }

    /// Whether there is none for longer than in a rollover.
    fn has_no_base(&self) -> Result<bool, Error> {
        for _ in 0..LOOKS {
            if apply::stable(self)?.base().is_some() {
                return Ok(false);
            }
            pause(LOOK);
        }
        Ok(true)
    }

    /// Holds every rotated file in the workspace, and gives whether they are the ones
    /// that were seen. They keep their names.
    fn hold(&mut self, listing: &Listing, base: FileId) -> Result<bool, Error> {
        for file in listing.rotated() {
            let id = file.stat.id;
            if self.rules.is_beyond(file.number) {
                // virtlogd never touches it, and neither do we.
                let ending = ending(&file.name);
                self.journal.older.push(OlderFile { id, ending });
                continue;
            }
            let aside = self.retire_by_link(&file.name, Some(file.number), id);
            let held = match aside {
                Some(aside) => self.link_aside(&file.name, &aside, id)?,
                // A name that the journal cannot hold cannot be put back.
                None => false,
            };
            if !held {
                self.journal.retired.clear();
                self.journal.older.clear();
                return Ok(false);
            }
        }
        // Of no file: it makes whoever puts them back do it step by step, since a file
        // may have a new name by then, and must not have two.
        self.journal.taking.push(PendingRetirement {
            aside: "none".to_owned(),
            id: base,
            ending: String::new(),
            seen: Vec::new(),
        });
        // Once all of them are held: one that is not would count as newer than those.
        self.write_journal()?;
        Ok(true)
    }

    /// Puts a file that keeps its name among those to be put back; gives the name
    /// that it is to have in the workspace.
    fn retire_by_link(
        &mut self,
        name: &OsStr,
        number: Option<u32>,
        id: FileId,
    ) -> Option<OsString> {
        let suffix = self.suffix(name)?;
        let aside = format!("retired-{}", self.journal.retired.len());
        self.journal.retired.push(Retired {
            suffix,
            aside: aside.clone(),
            number,
            id,
            came_after: false,
        });
        Some(OsString::from(aside))
    }

    /// Links the file `id` of the log into the workspace, and gives whether it was
    /// that one. Another one never gets the name: what is held is told by the file.
    fn link_aside(&self, name: &OsStr, aside: &OsStr, id: FileId) -> Result<bool, Error> {
        let linked = OsStr::new("linked");
        self.own.remove(linked)?;
        match self.own.link_from(&self.log, name, linked) {
            Ok(()) | Err(folder::Error::NotFound { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        let came = self.own.stat(linked)?.map(|stat| stat.id);
        if came != Some(id) {
            self.own.remove(linked)?;
            return Ok(false);
        }
        self.own.take_aside(linked, &self.own, aside)?;
        Ok(true)
    }

    /// Moves the rotated files up by one, the oldest first, and gives whether nobody
    /// else moved any.
    fn make_room(&mut self, listing: &Listing, base: FileId) -> Result<bool, Error> {
        if !self.hold(listing, base)? {
            return Ok(false);
        }
        for index in to_move(listing, self.rules) {
            let Some(file) = listing.rotated().get(index) else {
                continue;
            };
            let (number, id) = (file.number.saturating_add(1), file.stat.id);
            let held = self.journal.retired.iter().find(|r| r.id == id);
            let Some(held) = held.map(|r| OsString::from(&r.aside)) else {
                return Ok(false);
            };
            if !self.take(&file.name, id, base)? {
                return Ok(false);
            }
            if self.rules.is_beyond(number) {
                continue;
            }
            let mut to = rotated_name(&self.base, number);
            to.push(ending(&file.name));
            match self.log.link_from(&self.own, &held, &to) {
                Err(folder::Error::AlreadyExists { .. }) => return Ok(false),
                other => other?,
            }
        }
        Ok(true)
    }

    /// Takes the file `id`, which is held, from its name; gives whether it was that one.
    fn take(&mut self, name: &OsStr, id: FileId, base: FileId) -> Result<bool, Error> {
        let taken = OsString::from("taken");
        self.own.remove(&taken)?;
        match self.log.take_aside(name, &self.own, &taken) {
            Err(folder::Error::NotFound { .. }) => return Ok(false),
            other => other?,
        }
        let came = self.own.stat(&taken)?.map(|stat| stat.id);
        if came == Some(id) {
            return Ok(true);
        }
        let back = self.own.put_back(&taken, &self.log, name);
        match (back, came) {
            (Err(folder::Error::AlreadyExists { .. }), Some(came)) => {
                self.hold_another(came, base, &taken)?;
            }
            (other, _) => other?,
        }
        Ok(false)
    }

    /// A file came away that was not meant to, and its name is taken again.
    fn hold_another(&mut self, came: FileId, base: FileId, taken: &OsStr) -> Result<(), Error> {
        if self.journal.retired.iter().any(|r| r.id == came) {
            return Ok(()); // it is put back with the others
        }
        let kept = if came == base {
            self.retire_by_link(&self.base.clone(), None, came)
        } else {
            // Newer than all that was seen.
            let aside = format!("newer-{}", self.journal.taking.len());
            self.journal.taking.push(PendingRetirement {
                aside: aside.clone(),
                id: came,
                ending: String::new(),
                seen: Vec::new(),
            });
            Some(OsString::from(aside))
        };
        self.write_journal()?;
        if let Some(kept) = kept {
            self.own.link_from(&self.own, taken, &kept)?;
        }
        Ok(())
    }

    /// The old base has a new one before it: it is put in its place with the others.
    /// Gives its size, where it still has a name.
    fn hold_old(&mut self, old: FileId) -> Result<Option<u64>, Error> {
        let listing = apply::stable(self)?;
        let Some(there) = listing.rotated().iter().find(|r| r.stat.id == old) else {
            return Ok(None);
        };
        let size = Some(there.stat.size);
        let held = self.journal.retired.iter().any(|r| r.id == old);
        // Where nothing made room, there is nothing to be put in order.
        if held || self.journal.taking.is_empty() {
            return Ok(size);
        }
        let Some(aside) = self.retire_by_link(&self.base.clone(), None, old) else {
            return Ok(size);
        };
        self.write_journal()?;
        // Rolled over at this very moment, it has a place of its own.
        self.link_aside(&there.name, &aside, old)?;
        Ok(size)
    }

    /// Renames the base, and gives whether nobody was quicker.
    fn move_base(&self, first: &OsString) -> Result<bool, Error> {
        match self.log.rename_noreplace(&self.base, &self.log, first) {
            Ok(()) => Ok(true),
            Err(folder::Error::AlreadyExists { .. } | folder::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the base is another one than `old`. In a rollover there is none for
    /// a moment.
    fn is_another(&self, old: FileId) -> Result<bool, Error> {
        for _ in 0..LOOKS {
            if let Some(base) = apply::stable(self)?.base() {
                return Ok(base.id != old);
            }
            pause(LOOK);
        }
        Ok(false)
    }

    /// How it stands with the base, and that its writer is gone where it is.
    fn look(&self, old: FileId, reopen: &dyn Reopen) -> Result<(Seen, Option<BoxError>), Error> {
        let Some((file, stat)) = self.open_base()? else {
            let old = self.first_file();
            let gone = old.and_then(|old| reopen.writes(&old).err());
            return Ok((Seen::NoBase, gone));
        };
        if stat.id == old {
            return Ok((Seen::Old, None));
        }
        Ok(match reopen.writes(&file) {
            Ok(written) => (Seen::New(written), None),
            Err(gone) => (Seen::New(false), Some(gone)),
        })
    }

    fn wait_for_base(
        &self,
        old: FileId,
        reopen: &dyn Reopen,
        patience: Duration,
    ) -> Result<(), BoxError> {
        reopen.ask()?;
        let end = Instant::now() + patience;
        loop {
            let late = Instant::now() > end;
            let (seen, gone) = self.look(old, reopen)?;
            match (next(seen, gone.is_none(), late), gone) {
                (Next::Done, _) => return Ok(()),
                (Next::Look, _) => pause(LOOK),
                (Next::GiveUp, Some(gone)) => return Err(gone),
                (Next::GiveUp, None) => {
                    let waited = patience.as_secs_f64();
                    return Err(format!("no new base was opened within {waited} s").into());
                }
            }
        }
    }

    fn first_file(&self) -> Option<File> {
        let first = rotated_name(&self.base, self.rules.numbering.first());
        self.log.open_file(&first).ok().map(|(file, _)| file)
    }

    /// Gives the old base its name back, where no other has it that anybody wrote.
    fn put_base_back(&self, first: &OsString, old: FileId, why: BoxError) -> RollError {
        match self.try_put_back(first, old) {
            Ok(()) => RollError::PutBack { why },
            Err(e) => RollError::NoBase {
                why,
                at: self.log.path().join(first).display().to_string(),
                but: e.to_string(),
            },
        }
    }

    fn try_put_back(&self, first: &OsString, old: FileId) -> Result<(), Error> {
        if let Some((file, stat)) = self.open_base()?
            && stat.size == 0
            && self.writers.writer(&file) == Writer::None
        {
            // Made by a writer that went at once. Taken first, looked at then.
            let unused = OsString::from("unused");
            self.own.remove(&unused)?;
            self.log.take_aside(&self.base, &self.own, &unused)?;
            let (file, stat) = self.own.open_file(&unused)?;
            if stat.size != 0 || self.writers.writer(&file) != Writer::None {
                self.own.put_back(&unused, &self.log, &self.base)?;
            }
        }
        if self.log.stat(first)?.map(|stat| stat.id) != Some(old) {
            return Ok(());
        }
        match self.log.rename_noreplace(first, &self.log, &self.base) {
            // A late one came: the log goes on there.
            Err(folder::Error::AlreadyExists { .. }) => Ok(()),
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests;
