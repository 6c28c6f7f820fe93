//! The executor: looks, asks [`next_step`], does that one thing, looks again.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::journal::Journal;
use super::{Error, Placed, Result, Staging, pause};
use crate::chain::rotated_name;
use crate::folder::{self, FileId};
use crate::follow::Writer;
use crate::rotation::{Goal, Step, next_step};

/// A rollover takes microseconds; a listing that looks odd for longer is odd.
const WAITS: u32 = 10;
const WAIT: Duration = Duration::from_millis(2);

/// Name of a file moved aside to be looked at, before its number.
const ASIDE: &str = "aside-";

/// Every rollover can cost us a few looks; nobody rolls over this often for long.
const LOOKS: u32 = 10_000;

/// Brings the sealed parts behind the base.
pub(super) fn place(staging: &Staging, journal: &Journal) -> Result<Placed> {
    let staged: Vec<FileId> = journal.parts.iter().map(|p| p.id).collect();
    let goal = goal(staging, &staged, &journal.older, &journal.stale);
    let names: Vec<&str> = journal.parts.iter().map(|p| p.name.as_str()).collect();
    let placed = converge(staging, &goal, &names)?;
    staging.log.sync()?;
    let listing = staging.listing()?;
    let mut files = Vec::new();
    let mut dropped = journal.dropped;
    for (index, part) in journal.parts.iter().enumerate() {
        let name = listing
            .rotated()
            .iter()
            .find(|r| r.stat.id == part.id)
            .map(|r| r.name.clone());
        match name {
            Some(name) if index < placed => {
                files.push((name.to_string_lossy().into_owned(), part.size));
            }
            _ => dropped = dropped.saturating_add(part.size),
        }
    }
    Ok(Placed { files, dropped })
}

/// Puts retired files back under their names, or, where a new log has begun
/// meanwhile, behind it: they are the history before it.
pub(super) fn put_back(staging: &Staging) -> Result<()> {
    let mut left: Vec<_> = Vec::new();
    for retired in &staging.retired {
        let aside = OsStr::new(&retired.aside);
        if staging.own.stat(aside)?.is_none() {
            continue;
        }
        let mut name = staging.base.clone();
        name.push(&retired.suffix);
        if retired.number.is_none() {
            remove_empty_base(staging, &name)?;
        }
        match staging.own.rename_noreplace(aside, &staging.log, &name) {
            Ok(()) => {}
            Err(folder::Error::AlreadyExists { .. }) => left.push(retired),
            Err(e) => return Err(e.into()),
        }
    }
    if !left.is_empty() {
        // The base is the newest; rotated files follow by number.
        left.sort_by_key(|r| r.number);
        let staged: Vec<FileId> = left.iter().map(|r| r.id).collect();
        let names: Vec<&str> = left.iter().map(|r| r.aside.as_str()).collect();
        // Rotated files that found their old names again are older than the base was.
        let back = staging
            .retired
            .iter()
            .filter(|r| r.number.is_some())
            .map(|r| r.id);
        let older: Vec<FileId> = back.filter(|id| !staged.contains(id)).collect();
        let mut goal = goal(staging, &staged, &older, &[]);
        // Nothing may be dropped here: this is the only copy on this host.
        goal.max_backups = None;
        converge(staging, &goal, &names)?;
    }
    staging.log.sync()?;
    Ok(())
}

/// A migration that failed may have left a new, empty base.
fn remove_empty_base(staging: &Staging, name: &OsStr) -> Result<()> {
    match staging.log.open_file(name) {
        Ok((file, stat)) if stat.size == 0 && staging.writers.writer(&file) == Writer::None => {
            Ok(staging.log.remove(name)?)
        }
        Ok(_) | Err(folder::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn goal<'a>(
    staging: &Staging,
    staged: &'a [FileId],
    older: &'a [FileId],
    stale: &'a [FileId],
) -> Goal<'a> {
    Goal {
        first: staging.rules.numbering.first(),
        max_backups: staging.rules.retention.max_backups,
        staged,
        older,
        stale,
    }
}

/// Applies steps until the goal is reached; `names` are the staged files' names.
fn converge(staging: &Staging, goal: &Goal<'_>, names: &[&str]) -> Result<usize> {
    settle_asides(staging, goal)?;
    let mut waits = 0;
    for _ in 0..LOOKS {
        let listing = staging.listing()?;
        let rotated: Vec<(u32, FileId)> = listing
            .rotated()
            .iter()
            .map(|r| (r.number, r.stat.id))
            .collect();
        let step = next_step(listing.base().is_some(), &rotated, goal, waits > WAITS);
        waits = if step == Step::Wait { waits + 1 } else { 0 };
        let name_of = |number| {
            let there = listing.rotated().iter().find(|r| r.number == number);
            there.map_or_else(|| rotated_name(&staging.base, number), |r| r.name.clone())
        };
        match step {
            Step::Wait => pause(WAIT),
            Step::Done { placed } => return Ok(placed),
            Step::Link { staged, to } => {
                let Some(part) = names.get(staged) else {
                    return Err(Error::NotSealed);
                };
                if staging.own.stat(OsStr::new(part))?.is_none() {
                    // Placed and cleaned before; since then the log was wiped.
                    return Ok(staged);
                }
                let new = rotated_name(&staging.base, to);
                taken_is_fine(staging.log.link_from(&staging.own, OsStr::new(part), &new))?;
            }
            Step::Shift { from, to, id } => {
                // The compression stays in the name.
                let name = name_of(from);
                let mut new = rotated_name(&staging.base, to);
                let plain = rotated_name(&staging.base, from);
                if let Some(ending) = ending(&name, &plain) {
                    new.push(ending);
                }
                if staging.log.stat(&name)?.map(|s| s.id) == Some(id) {
                    taken_is_fine(staging.log.rename_noreplace(&name, &staging.log, &new))?;
                }
            }
            Step::Remove { number, id } => remove(staging, &name_of(number), number, id)?,
        }
    }
    Err(Error::Unsettled {
        path: staging.log.path().join(&staging.base),
    })
}

fn ending(name: &OsStr, plain: &OsStr) -> Option<OsString> {
    let ending = name.to_str()?.strip_prefix(plain.to_str()?)?;
    Some(OsString::from(ending))
}

/// A name that was taken or went away between look and step: a rollover. Look again.
fn taken_is_fine(result: folder::Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(folder::Error::AlreadyExists { .. } | folder::Error::NotFound { .. }) => {
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

/// Takes the file `id` away from `name`. virtlogd may put another file there
/// between our look and our step, so it is moved aside first and looked at.
fn remove(staging: &Staging, name: &OsStr, number: u32, id: FileId) -> Result<()> {
    let aside = OsString::from(format!("{ASIDE}{number}"));
    match staging.log.rename_noreplace(name, &staging.own, &aside) {
        Err(folder::Error::NotFound { .. }) => return Ok(()),
        other => other?,
    }
    settle_aside(staging, &aside, number, |there| there == id)
}

/// A kill in [`remove`] may have left a file aside that is virtlogd's.
fn settle_asides(staging: &Staging, goal: &Goal<'_>) -> Result<()> {
    for aside in staging.own.names()? {
        let number = aside
            .to_str()
            .and_then(|n| n.strip_prefix(ASIDE))
            .and_then(|n| n.parse().ok());
        if let Some(number) = number {
            let ours = |id| goal.staged.contains(&id) || goal.stale.contains(&id);
            settle_aside(staging, &aside, number, ours)?;
        }
    }
    Ok(())
}

/// Removes a file moved aside where it may go, or else gives its name back.
fn settle_aside(
    staging: &Staging,
    aside: &OsStr,
    number: u32,
    may_go: impl Fn(FileId) -> bool,
) -> Result<()> {
    let Some(stat) = staging.own.stat(aside)? else {
        return Ok(());
    };
    if may_go(stat.id) {
        return Ok(staging.own.remove(aside)?);
    }
    let name = rotated_name(&staging.base, number);
    // Where a rollover filled the place meanwhile, ours would be one number up by now.
    let up = rotated_name(&staging.base, number.saturating_add(1));
    match staging.own.rename_noreplace(aside, &staging.log, &name) {
        Err(folder::Error::AlreadyExists { .. }) => {
            taken_is_fine(staging.own.rename_noreplace(aside, &staging.log, &up))
        }
        other => Ok(other?),
    }
}
