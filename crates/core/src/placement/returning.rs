//! Which files here hold nothing but bytes that the history brings back: what the VM left
//! here and handed over since. They go when the history comes.
//!
//! A file is known by its identity and by what it held. One that was compressed, copied or
//! restored while the VM was away has another identity: it is known by what it holds, if
//! the file that was handed over is gone.

use std::ffi::OsStr;

use super::retire::Aside;
use super::{ChainWorkspace, Error, Result, compression, entries};
use crate::OkLogged as _;
use crate::chain::{ChainFile, Compression, Listing, Part};
use crate::content;
use crate::folder::{FileId, Folder, Stat};
use crate::record::{Offered, Record};
use crate::stream::Fingerprint;

/// A file that may hold such bytes.
pub(super) struct Candidate<'a> {
    pub(super) folder: &'a Folder,
    pub(super) name: &'a OsStr,
    pub(super) compression: Option<Compression>,
    pub(super) stat: Stat,
}

impl ChainWorkspace {
    pub(super) fn in_log<'a>(&'a self, name: &'a OsStr, stat: Stat) -> Candidate<'a> {
        Candidate {
            folder: &self.log,
            name,
            compression: compression(name),
            stat,
        }
    }

    pub(super) fn in_own<'a>(&'a self, aside: &'a Aside) -> Candidate<'a> {
        Candidate {
            folder: &self.own,
            name: &aside.name,
            compression: compression(OsStr::new(&aside.suffix)),
            stat: aside.stat,
        }
    }

    /// How many bytes of this file, from its first one on, the history brings back; `None`
    /// where it brings none.
    pub(super) fn comes_back(&self, record: Option<&Record>, file: &Candidate<'_>) -> Option<u64> {
        let owed = self.journal.owed.as_ref();
        let offered = record?.brought_back(owed.map(|owed| &owed.contains[..]))?;
        let id = file.stat.id;
        let known = offered.files.iter().find(|(known, _)| *known == id);
        let Some((_, size)) = known else {
            // The history itself, where it is seen already, is a copy as well.
            if self.is_part(id) {
                return None;
            }
            let same = |print| {
                is_copy(file, print)
                    .ok_logged("the file counts as no copy, and stays")
                    .unwrap_or(false)
            };
            return (self.gone(offered).into_iter().any(same)).then_some(file.stat.size);
        };
        let print = offered.print_of(id);
        let is_it = print.is_none_or(|print| content::is_still(file.folder, file.name, id, print));
        is_it.then_some(*size)
    }

    pub(super) fn is_part(&self, id: FileId) -> bool {
        let mut shown = self.journal.shown.iter().flat_map(|s| &s.files);
        shown.any(|file| *file == id) || self.staged.contains(&id)
    }

    /// What was handed over and is in none of the files that held it then.
    fn gone(&self, offered: &Offered) -> Vec<Fingerprint> {
        let listing = self.listing();
        let named = listing.iter().flat_map(|l| entries(l, &self.base));
        let dated = listing.iter().flat_map(|l| l.dated());
        let mut there: Vec<_> = (named.map(|(name, _, stat)| (&self.log, name, stat.id)))
            .chain(dated.map(|d| (&self.log, d.name.clone(), d.stat.id)))
            .collect();
        let retired = self.journal.retired.iter();
        there.extend(retired.map(|r| (&self.own, r.aside.clone().into(), r.id)));
        let is_there = |known: FileId, print| {
            let mut there = there.iter().filter(|(_, _, id)| *id == known);
            there.any(|(folder, name, id)| content::is_still(folder, name, *id, print))
        };
        let prints = offered.prints.iter().filter(|(_, p)| p.is_telling());
        let gone = prints.filter(|(id, print)| !is_there(*id, *print));
        gone.map(|(_, print)| *print).collect()
    }

    /// Rotated files that hold nothing but bytes the history holds too. One that
    /// grew since holds others as well.
    pub(super) fn stale(&self, listing: &Listing, record: Option<&Record>) -> Result<Vec<FileId>> {
        let mut stale = Vec::new();
        for (name, number, stat) in entries(listing, &self.base) {
            match self.comes_back(record, &self.in_log(&name, stat)) {
                None | Some(0) => {}
                Some(size) if number.is_some() && size == stat.size => stale.push(stat.id),
                Some(bytes) => {
                    return Err(Error::StaleBase {
                        path: self.log.path().join(&name),
                        bytes,
                    });
                }
            }
        }
        for file in listing.dated() {
            let size = self.comes_back(record, &self.in_log(&file.name, file.stat));
            let all = size.is_some_and(|size| size > 0 && size == file.stat.size);
            stale.extend(all.then_some(file.stat.id));
        }
        Ok(stale)
    }
}

/// Whether the file holds the bytes of `print` and no others, as they lie on disk or
/// compressed since.
fn is_copy(file: &Candidate<'_>, print: Fingerprint) -> Result<bool> {
    let opened = file.folder.open_file(file.name)?;
    if opened.1.id != file.stat.id {
        return Ok(false);
    }
    if file.stat.size == print.length() {
        let there = content::fingerprint(&opened.0, 0, print.length());
        let path = file.folder.path().join(file.name);
        return Ok(there.map_err(|e| Error::io("read", &path, e))? == Some(print));
    }
    if file.compression.is_none() {
        return Ok(false);
    }
    let folder = file.folder.path();
    let file = ChainFile::new(opened, folder, file.name, Part::Base, file.compression);
    Ok(file.holds_just(print)?)
}
