//! The executor: looks, asks [`next_step`], does that one thing, looks again.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU32;
use std::time::Duration;

use super::journal::{PendingRetirement, Retired};
use super::{ChainWorkspace, Error, LABELS, Placed, Result, attributes, ending, pause};
use crate::OkLogged as _;
use crate::chain::{Listing, MAX_NUMBER, rotated_name};
use crate::folder::{self, FileId};
use crate::follow::Writer;
use crate::rotation::{Goal, Held, Older, Step, Taken, next_step};

/// A rollover takes microseconds; a listing that looks odd for longer is odd.
const WAITS: u32 = 10;
const WAIT: Duration = Duration::from_millis(2);

/// How long a rollover may take that we see nothing of: virtlogd renames from
/// the oldest on, and stopped before it comes to a file that is there it has
/// changed nothing yet, but will overwrite what we put before that file. Waited
/// out only where the base is full and has a writer that does not write.
const CALM: Duration = Duration::from_millis(250);

/// The first look after that; each one waits as long as all before it.
const CALM_LOOK: Duration = Duration::from_millis(4);

/// Every rollover can cost us a few looks; nobody rolls over this often for long.
const LOOKS: u32 = 10_000;

/// Tries to see the same files twice in a row.
const STABLE_LOOKS: u32 = 100;

/// Name of an older file held in the workspace, before its place in the journal.
const OLDER: &str = "older-";

/// A file of the staging that is to have a name in the log.
pub(super) struct Member {
    pub(super) name: OsString,
    pub(super) ending: String,
    pub(super) id: FileId,
}

/// A name in the workspace and what follows the number in the name to give.
type Name = (OsString, String);

/// Brings the sealed parts behind the base.
pub(super) fn place(workspace: &mut ChainWorkspace) -> Result<Placed> {
    let parts = workspace.journal.parts.clone();
    let members: Vec<Member> = parts
        .iter()
        .map(|part| Member {
            name: OsString::from(&part.name),
            ending: String::new(),
            id: part.id,
        })
        .collect();
    let (placed, listing) =
        Convergence::new(workspace, &members, workspace.rules.retention().max_backups).run()?;
    workspace.log.sync()?;
    let mut files = Vec::new();
    let mut dropped = workspace.journal.dropped;
    for (index, part) in parts.iter().enumerate() {
        let there = listing.rotated().iter().find(|r| r.stat.id == part.id);
        match there {
            Some(there) if index < placed => {
                files.push((there.name.to_string_lossy().into_owned(), part.size));
            }
            _ => dropped = dropped.saturating_add(part.size),
        }
    }
    let notes = notes(workspace, &listing, &files);
    Ok(Placed {
        files,
        dropped,
        notes,
    })
}

/// In what the placed files differ from the log's own: all do in the same.
fn notes(workspace: &ChainWorkspace, listing: &Listing, files: &[(String, u64)]) -> Vec<String> {
    let newest = files.first().and_then(|(name, _)| {
        let mut rotated = listing.rotated().iter();
        rotated.find(|r| r.name.to_str() == Some(name))
    });
    let (Some(base), Some(newest)) = (listing.base(), newest) else {
        return Vec::new();
    };
    let label = |name: &OsStr| {
        let (file, _) = workspace
            .log
            .open_file(name)
            .ok_logged("its labels are not compared")?;
        Some(LABELS.map(|label| attributes::label(&file, label)))
    };
    let labels_differ = label(&workspace.base) != label(&newest.name);
    let difference = attributes::difference(base, &newest.stat, labels_differ);
    let all = files.iter().map(|(name, _)| name.as_str());
    let all = all.collect::<Vec<_>>().join(", ");
    let note = difference.map(|difference| format!("{all}: {difference}"));
    note.into_iter().collect()
}

/// Brings files of the staging behind the base, as many as the rotation keeps.
pub(super) fn place_members(workspace: &mut ChainWorkspace, members: &[Member]) -> Result<()> {
    let limit = workspace.rules.retention().max_backups;
    Convergence::new(workspace, members, limit).run()?;
    Ok(workspace.log.sync()?)
}

/// Takes the stale files from their names, wherever a rollover put them.
pub(super) fn take_stale(workspace: &mut ChainWorkspace) -> Result<()> {
    Convergence::new(workspace, &[], None).run()?;
    Ok(workspace.log.sync()?)
}

/// Whether every part that was given a name has one.
pub(super) fn is_still_there(workspace: &ChainWorkspace) -> Result<bool> {
    let Some(placed) = &workspace.journal.placed else {
        return Ok(false);
    };
    let listing = stable(workspace)?;
    let named = workspace.journal.parts.iter().take(placed.files.len());
    Ok(named
        .map(|part| part.id)
        .all(|id| listing.rotated().iter().any(|r| r.stat.id == id)))
}

/// Gives retired files their names back, or, where a new log has begun
/// meanwhile, a place behind it: they are the history before it. They keep their
/// names in the workspace: whoever is killed here begins anew.
pub(super) fn put_back(workspace: &mut ChainWorkspace) -> Result<()> {
    workspace.unshow()?;
    if workspace.journal.retired.is_empty() && workspace.journal.taking.is_empty() {
        return Ok(());
    }
    remove_empty_base(workspace)?;
    let mut members = aside(workspace)?;
    let old_names = members.iter().all(|(retired, member)| {
        let mut name = workspace.base.clone();
        name.push(&retired.suffix);
        matches!(workspace.log.stat(&name), Ok(None)) || is_at(workspace, &name, member.id)
    });
    // The newest one that was the base is the base again, if there is none.
    let base = workspace.base.clone();
    if let Some((_, first)) = members.first().filter(|(r, _)| r.number.is_none()) {
        if base_is_gone(workspace)? {
            let linked = workspace.log.link_from(&workspace.own, &first.name, &base);
            taken_is_fine(linked)?;
        }
        if is_at(workspace, &base, first.id) {
            members.remove(0);
        }
    }
    // An empty base that another one has replaced would only take a number.
    let mut used = Vec::new();
    for (retired, member) in members {
        let is_base = retired.number.is_none();
        if !(is_base && is_unused(workspace, &member.name)?) {
            used.push((retired, member));
        }
    }
    let mut members = used;
    if old_names {
        for (retired, member) in &members {
            let mut name = base.clone();
            name.push(&retired.suffix);
            taken_is_fine(workspace.log.link_from(&workspace.own, &member.name, &name))?;
        }
    }
    // What has its date back has no number.
    members.retain(|(retired, member)| {
        let mut name = base.clone();
        name.push(&retired.suffix);
        let dated = retired.number.is_some_and(|n| n > MAX_NUMBER);
        !(dated && is_at(workspace, &name, member.id))
    });
    let members: Vec<Member> = members.into_iter().map(|(_, member)| member).collect();
    if !workspace.journal.taking.is_empty() || !stay_back(workspace, &members)? {
        // What lies beyond virtlogd's limit would leave a hole at the next rollover.
        let limit = workspace.rules.retention().max_backups;
        Convergence::new(workspace, &members, limit).run()?;
    }
    workspace.log.sync()?;
    Ok(())
}

/// Whether all of them have names, and keep them: a rollover that was half done
/// when they got them would take them away again.
fn stay_back(workspace: &mut ChainWorkspace, members: &[Member]) -> Result<bool> {
    let mut watch = Convergence::new(workspace, members, None);
    for _ in 0..LOOKS {
        let listing = stable(watch.workspace)?;
        let back = |id: FileId| listing.rotated().iter().any(|r| r.stat.id == id);
        if !members.iter().all(|member| back(member.id)) {
            return Ok(false);
        }
        if watch.is_sure(&listing)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there is no base for longer than in a rollover: virtlogd would append
/// to one that we put there.
fn base_is_gone(workspace: &ChainWorkspace) -> Result<bool> {
    for _ in 0..WAITS {
        if workspace.log.stat(&workspace.base)?.is_some() {
            return Ok(false);
        }
        pause(WAIT);
    }
    Ok(true)
}

fn is_at(workspace: &ChainWorkspace, name: &OsStr, id: FileId) -> bool {
    matches!(workspace.log.stat(name), Ok(Some(stat)) if stat.id == id)
}

/// What is aside and must go back, newest first. What was taken is told by the
/// file itself: a process may have been killed before it looked.
fn aside(workspace: &ChainWorkspace) -> Result<Vec<(Retired, Member)>> {
    let mut members = Vec::new();
    for retired in &workspace.journal.retired {
        let name = OsString::from(&retired.aside);
        let Some(stat) = workspace.own.stat(&name)? else {
            continue;
        };
        if is_new_base(retired) && is_unused(workspace, &name)? {
            continue;
        }
        let member = Member {
            name,
            ending: ending(OsStr::new(&retired.suffix)),
            id: stat.id,
        };
        members.push((retired.clone(), member));
    }
    // A base that came later than the retired one is newer; rotated files follow.
    members.sort_by_key(|(r, _)| (r.number, !is_new_base(r)));
    Ok(members)
}

/// Whether the entry is that of a base found when what was retired went back.
fn is_new_base(retired: &Retired) -> bool {
    retired.number.is_none() && retired.came_after
}

/// Whether nobody ever wrote to the file, nor will.
fn is_unused(workspace: &ChainWorkspace, name: &OsStr) -> Result<bool> {
    let (file, stat) = workspace.own.open_file(name)?;
    let writer = workspace.writers.writer(&file);
    // The lease tells of now: what was written before it shows in the size.
    let size = folder::stat_open(&file).map_or(stat.size, |s| s.size);
    Ok(writer == Writer::None && size == 0)
}

/// A migration that failed may have left a new, empty base where a retired one
/// belongs. It is taken aside first: it may get a writer while we look.
fn remove_empty_base(workspace: &mut ChainWorkspace) -> Result<()> {
    let retired = |r: &Retired| r.number.is_none();
    if !workspace.journal.retired.iter().any(retired) {
        return Ok(());
    }
    let Some((file, stat)) = workspace.open_base()? else {
        return Ok(());
    };
    let ours = |r: &Retired| r.id == stat.id && !r.came_after;
    let ours = workspace.journal.retired.iter().any(ours);
    if ours || stat.size != 0 || workspace.writers.writer(&file) != Writer::None {
        return Ok(());
    }
    let base = workspace.base.clone();
    let taken = workspace.take_aside(&base, String::new(), None, stat.id, true);
    match taken {
        Ok(_) => Ok(()),
        Err(Error::Folder(folder::Error::NotFound { .. })) => Ok(()),
        Err(e) => Err(e),
    }
}

/// The same files under the same names, twice in a row: one look alone can miss
/// a file that moves on while we look.
pub(super) fn stable(workspace: &ChainWorkspace) -> Result<Listing> {
    let mut before = workspace.listing()?;
    for _ in 0..STABLE_LOOKS {
        let now = workspace.listing()?;
        if now.same_files(&before) {
            // The sizes of the first look: what grows after it grows after both.
            return Ok(before);
        }
        before = now;
    }
    Err(Error::Unsettled {
        path: workspace.log.path().join(&workspace.base),
    })
}

/// Steps until the goal is reached, and it is sure that it stays so.
struct Convergence<'a> {
    workspace: &'a mut ChainWorkspace,
    members: &'a [Member],
    limit: Option<NonZeroU32>,
    staged: Vec<FileId>,
    /// Identity and size of the base when the goal was first seen reached.
    reached: Option<(FileId, u64)>,
    calm: Duration,
}

impl<'a> Convergence<'a> {
    fn new(
        workspace: &'a mut ChainWorkspace,
        members: &'a [Member],
        limit: Option<NonZeroU32>,
    ) -> Self {
        Self {
            workspace,
            members,
            limit,
            staged: members.iter().map(|m| m.id).collect(),
            reached: None,
            calm: Duration::ZERO,
        }
    }

    fn run(mut self) -> Result<(usize, Listing)> {
        let mut waits = 0;
        let mut before: Option<Listing> = None;
        for _ in 0..LOOKS {
            let older = self.older()?;
            let (taken, names) = self.taken()?;
            let listing = stable(self.workspace)?;
            self.take_stale_dates(&listing)?;
            let first = self.workspace.rules.numbering.first();
            // Numbers that other logs' files have are left out: what is decided of are
            // places among the others.
            let place = |number: u32| number.saturating_sub(listing.taken_below(first, number));
            let rotated: Vec<(u32, FileId)> = listing
                .rotated()
                .iter()
                .map(|r| (place(r.number), r.stat.id))
                .collect();
            let limit = self.limit.map(|max| {
                let end = first.saturating_add(max.get());
                let left = max.get().saturating_sub(listing.taken_below(first, end));
                NonZeroU32::new(left).unwrap_or(NonZeroU32::MIN)
            });
            let goal = Goal {
                first,
                max_backups: limit,
                taken: &taken,
                staged: &self.staged,
                older: &older,
                stale: &self.workspace.journal.stale,
            };
            // What stays odd is odd; what changes is a rollover.
            if !before.is_some_and(|before| before.same_files(&listing)) {
                waits = 0;
            }
            let step = next_step(listing.base().is_some(), &rotated, &goal, waits > WAITS);
            before = Some(listing.clone());
            if matches!(step, Step::Link { .. } | Step::Take { .. }) {
                self.reached = None;
            }
            match step {
                Step::Wait => {
                    waits = waits.saturating_add(1);
                    pause(WAIT);
                }
                Step::Done { placed } => {
                    if self.is_sure(&listing)? {
                        return Ok((placed, listing));
                    }
                }
                Step::Link { file, to } => {
                    self.link(file, listing.number_at(first, to), &names)?;
                }
                Step::Take { number, id } => {
                    self.take(&listing, listing.number_at(first, number), id)?;
                }
            }
        }
        Err(Error::Unsettled {
            path: self.workspace.log.path().join(&self.workspace.base),
        })
    }

    /// Whether no rollover can be under way that began before our last step.
    fn is_sure(&mut self, listing: &Listing) -> Result<bool> {
        let Some(base) = listing.base() else {
            return Ok(true); // looked at for long enough: nobody writes
        };
        // As it was when the goal was seen reached: what begins later sees our files.
        if !self.workspace.rules.retention().may_roll_over(base.size) {
            return Ok(true);
        }
        if let Some((file, stat)) = self.workspace.open_base()?
            && stat.id == base.id
            && self.workspace.writers.writer(&file) == Writer::None
        {
            // In a rollover virtlogd still has it open.
            return Ok(true);
        }
        match self.reached {
            None => {
                self.reached = Some((base.id, base.size));
                self.calm = Duration::ZERO;
            }
            // Written, or rolled over to its end: virtlogd does one thing at a time.
            Some(before) if before != (base.id, base.size) => return Ok(true),
            Some(_) if self.calm >= CALM => return Ok(true),
            Some(_) => {}
        }
        let wait = self.calm.max(CALM_LOOK);
        pause(wait);
        self.calm = self.calm.saturating_add(wait);
        Ok(false)
    }

    /// Takes files with dates, whose bytes the history holds too, from their names.
    /// Nobody renames such a file, so there is no race to be lost.
    fn take_stale_dates(&self, listing: &Listing) -> Result<()> {
        let stale = &self.workspace.journal.stale;
        let dated = listing.dated().iter();
        for (index, file) in dated
            .filter(|file| stale.contains(&file.stat.id))
            .enumerate()
        {
            let aside = OsString::from(format!("stale-{index}"));
            self.workspace.own.remove(&aside)?; // of a process that was killed here
            let (log, own) = (&self.workspace.log, &self.workspace.own);
            match log.rename_noreplace(&file.name, own, &aside) {
                Err(folder::Error::NotFound { .. }) => {}
                taken => taken?,
            }
        }
        Ok(())
    }

    fn older(&self) -> Result<Vec<Older>> {
        let mut older = Vec::new();
        for (index, aged) in self.workspace.journal.older.iter().enumerate() {
            let held = self.workspace.own.stat(&older_name(index))?;
            older.push(Older {
                id: aged.id,
                held: held.is_some_and(|s| s.id == aged.id),
            });
        }
        Ok(older)
    }

    /// Files of others that came aside, and their names there. What was meant to
    /// come is removed for good, once its bytes are held elsewhere.
    fn taken(&self) -> Result<(Vec<Taken>, Vec<Name>)> {
        let (mut taken, mut names) = (Vec::new(), Vec::new());
        for taking in &self.workspace.journal.taking {
            let aside = OsString::from(&taking.aside);
            let Some(stat) = self.workspace.own.stat(&aside)? else {
                continue;
            };
            if self.is_held(stat.id)? {
                self.workspace.own.remove(&aside)?;
            } else {
                taken.push(Taken {
                    id: stat.id,
                    seen: taking.seen.clone(),
                });
                names.push((aside, taking.ending.clone()));
            }
        }
        Ok((taken, names))
    }

    /// Whether the bytes of this file are in the workspace, or in files that are.
    fn is_held(&self, id: FileId) -> Result<bool> {
        if self.workspace.journal.stale.contains(&id) {
            return Ok(true);
        }
        if let Some(member) = self.members.iter().find(|m| m.id == id) {
            let held = self.workspace.own.stat(&member.name)?;
            return Ok(held.is_some_and(|s| s.id == id));
        }
        Ok(self.older()?.contains(&Older { id, held: true }))
    }

    fn link(&self, file: Held, to: u32, taken: &[Name]) -> Result<()> {
        let (name, ending) = match file {
            Held::Taken(index) => match taken.get(index) {
                Some((name, ending)) => (name.clone(), ending.clone()),
                None => return Ok(()),
            },
            Held::Staged(index) => match self.members.get(index) {
                Some(member) => (member.name.clone(), member.ending.clone()),
                None => return Ok(()),
            },
            Held::Older(index) => match self.workspace.journal.older.get(index) {
                Some(aged) => (older_name(index), aged.ending.clone()),
                None => return Ok(()),
            },
        };
        let mut new = rotated_name(&self.workspace.base, to);
        new.push(ending);
        taken_is_fine(
            self.workspace
                .log
                .link_from(&self.workspace.own, &name, &new),
        )
    }

    /// Takes the file `id` from its name. virtlogd may put another one there
    /// between our look and this, which shows afterwards: see [`Self::taken`].
    fn take(&mut self, listing: &Listing, number: u32, id: FileId) -> Result<()> {
        let workspace = &mut *self.workspace;
        let Some(there) = listing.rotated().iter().find(|r| r.number == number) else {
            return Ok(());
        };
        let older = workspace.journal.older.iter().position(|o| o.id == id);
        if let Some(index) = older {
            let name = older_name(index);
            let held = workspace.log_to_own(&there.name, &name)?;
            if held != Some(id) {
                // Ours alone, and another's file has its name in the log still.
                return Ok(workspace.own.remove(&name)?);
            }
        }
        let taking = PendingRetirement {
            aside: format!("aside-{}", workspace.journal.taking.len()),
            id,
            ending: ending(&there.name),
            seen: (listing.base().iter().map(|s| s.id))
                .chain(listing.rotated().iter().map(|r| r.stat.id))
                .collect(),
        };
        let aside = OsString::from(&taking.aside);
        workspace.journal.taking.push(taking);
        workspace.write_journal()?;
        match workspace
            .log
            .take_aside(&there.name, &workspace.own, &aside)
        {
            Err(folder::Error::NotFound { .. }) => Ok(()),
            other => Ok(other?),
        }
    }
}

impl ChainWorkspace {
    /// Holds the file `name` of the log as `new` in the workspace; gives which one
    /// that is.
    fn log_to_own(&self, name: &OsStr, new: &OsStr) -> Result<Option<FileId>> {
        if self.own.stat(new)?.is_none() {
            match self.own.link_from(&self.log, name, new) {
                Ok(()) | Err(folder::Error::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(self.own.stat(new)?.map(|s| s.id))
    }
}

pub(super) fn older_name(index: usize) -> OsString {
    OsString::from(format!("{OLDER}{index}"))
}

/// A name that was taken between look and step: a rollover. Look again.
fn taken_is_fine(result: folder::Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(folder::Error::AlreadyExists { .. }) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
