//! Which files a chain consists of at one look: data, and what can be said of it.
//!
//! Must not know: what is in the files.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::names::{Meaning, may_mean, meaning};
use super::ownership::{Foreign, Ownership, claim_by_times, follows_at_once};
use super::{Claim, Compression, Date, Numbering, Part, Remark, Result};
use crate::OkLogged as _;
use crate::folder::{FileId, Folder, Stat};
use crate::record::Record;
use crate::stream::Seen;

/// A rotated file with a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Its name in the folder.
    pub name: OsString,
    /// Its number: the greater, the older.
    pub number: u32,
    /// How it is compressed, if it is.
    pub compression: Option<Compression>,
    /// What lies under the name. Not always a regular file.
    pub stat: Stat,
}

/// A rotated file with a date, as logrotate's `dateext` names it. It has no number:
/// nothing that moves rotated files from number to number touches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    /// Its name in the folder.
    pub name: OsString,
    /// The date in its name.
    pub date: Date,
    /// How it is compressed, if it is.
    pub compression: Option<Compression>,
    /// What lies under the name. Not always a regular file.
    pub stat: Stat,
}

/// A file of a chain, whatever its name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name in the folder; `None`: that of the base file.
    pub name: Option<&'a OsStr>,
    /// Which part of the chain it is.
    pub part: Part,
    /// How it is compressed, if it is.
    pub compression: Option<Compression>,
    /// What lies under the name.
    pub stat: &'a Stat,
}

/// Numbers that are missing in a chain: bytes that were there once, perhaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gap {
    /// The first missing number.
    pub first: u32,
    /// The last missing number.
    pub last: u32,
}

/// Whether numbers are missing between a file and the one before it. They fall towards the base.
pub(super) fn is_after_gap(gaps: &[Gap], before: Option<Part>, file: Part) -> bool {
    let after = match file {
        Part::Base => None,
        Part::Number(number) => Some(number),
        Part::Date(_) => return false,
    };
    let Some(Part::Number(before)) = before else {
        return false;
    };
    let mut gaps = gaps.iter();
    gaps.any(|gap| gap.last < before && after.is_none_or(|after| gap.first > after))
}

/// Base and rotated files of a chain, as one look at the folder found them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    base: Option<Stat>,
    rotated: Vec<Rotated>,
    /// Newest first.
    dated: Vec<Dated>,
    shadowed: Vec<OsString>,
    foreign: Vec<Foreign>,
    unread: Vec<OsString>,
}

impl Listing {
    /// Puts the files of a chain in order. Of several with one number the plain
    /// one counts: whoever compresses a file removes it only afterwards. Where
    /// two are compressed, the `.gz` counts. Likewise for those with a date.
    #[must_use]
    pub fn new(
        base: Option<Stat>,
        rotated: impl IntoIterator<Item = Rotated>,
        dated: impl IntoIterator<Item = Dated>,
    ) -> Self {
        let mut rotated: Vec<_> = rotated.into_iter().collect();
        rotated.sort_by_key(|r| (r.number, r.compression));
        let mut dated: Vec<_> = dated.into_iter().collect();
        // Newest first, and the files of one name together, the plain one first.
        dated.sort_by(|a, b| {
            let stems = plain(&b.name, b.compression).cmp(plain(&a.name, a.compression));
            let dates = b.date.cmp(&a.date);
            dates.then(stems).then(a.compression.cmp(&b.compression))
        });
        let mut shadowed = Vec::new();
        rotated.dedup_by(|later, first| {
            let same = later.number == first.number;
            shadowed.extend(same.then(|| later.name.clone()));
            same
        });
        dated.dedup_by(|later, first| {
            let same =
                plain(&later.name, later.compression) == plain(&first.name, first.compression);
            shadowed.extend(same.then(|| later.name.clone()));
            same
        });
        Self {
            base,
            rotated,
            dated,
            shadowed,
            foreign: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// As [`Listing::read_owned`], by someone who knows nothing of whose the files are.
    pub fn read(folder: &Folder, base: &OsStr) -> Result<Self> {
        Self::read_owned(folder, base, &Ownership::default())
    }

    /// Looks at the folder once. A name that goes while we look counts as not
    /// there; only [`LogChain::snapshot`](super::LogChain::snapshot) sees to it
    /// that all belongs to one moment.
    pub fn read_owned(folder: &Folder, base: &OsStr, ownership: &Ownership) -> Result<Self> {
        let (mut rotated, mut dated, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        let mut claims: Vec<(OsString, Claim)> = Vec::new();
        for name in folder.names_where(|name| may_mean(base, name))? {
            match meaning(base, &name) {
                None => {}
                Some(Meaning::Numbered(parsed)) => {
                    if let Some(stat) = folder.stat(&name)? {
                        rotated.push(Rotated {
                            name,
                            number: parsed.number,
                            compression: parsed.compression,
                            stat,
                        });
                    }
                }
                Some(Meaning::Dated { date, compression }) => {
                    if let Some(stat) = folder.stat(&name)? {
                        dated.push(Dated {
                            name,
                            date,
                            compression,
                            stat,
                        });
                    }
                }
                Some(Meaning::Unread) => {
                    let regular = folder.stat(&name)?.is_some_and(|stat| stat.regular);
                    unread.extend(regular.then_some(name));
                }
                Some(Meaning::RecordOf(log)) => claims.push((log, Claim::Record)),
                Some(Meaning::RotatedOf(log)) => claims.push((log, Claim::Rotated)),
            }
        }
        unread.sort_unstable();
        let base_stat = folder.stat(base)?;
        let mut whose = Whose {
            folder,
            base,
            base_stat: base_stat.as_ref(),
            ownership,
            claims: &claims,
            record: None,
        };
        let mut foreign = Vec::new();
        rotated.retain(|file: &Rotated| {
            let claim = whose.claim(&file.name, &file.stat, file.compression);
            foreign.extend(claim.map(|claim| Foreign {
                name: file.name.clone(),
                number: Some(file.number),
                id: file.stat.id,
                claim,
            }));
            claim.is_none()
        });
        dated.retain(|file: &Dated| {
            let claim = whose.claim(&file.name, &file.stat, file.compression);
            foreign.extend(claim.map(|claim| Foreign {
                name: file.name.clone(),
                number: None,
                id: file.stat.id,
                claim,
            }));
            claim.is_none()
        });
        foreign.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
        Ok(Self {
            foreign,
            unread,
            ..Self::new(base_stat, rotated, dated)
        })
    }

    /// The base file.
    #[must_use]
    pub fn base(&self) -> Option<&Stat> {
        self.base.as_ref()
    }

    /// The rotated files that have a number: newest first.
    #[must_use]
    pub fn rotated(&self) -> &[Rotated] {
        &self.rotated
    }

    /// The rotated files that have a date: newest first. By their names they are
    /// older than those with numbers.
    #[must_use]
    pub fn dated(&self) -> &[Dated] {
        &self.dated
    }

    /// All files of the chain, newest first by name.
    pub fn files(&self) -> impl Iterator<Item = Entry<'_>> {
        let base = self.base.iter().map(|stat| Entry {
            name: None,
            part: Part::Base,
            compression: None,
            stat,
        });
        let rotated = self.rotated.iter().map(|r| Entry {
            name: Some(&r.name),
            part: Part::Number(r.number),
            compression: r.compression,
            stat: &r.stat,
        });
        let dated = self.dated.iter().map(|d| Entry {
            name: Some(&d.name),
            part: Part::Date(d.date),
            compression: d.compression,
            stat: &d.stat,
        });
        base.chain(rotated).chain(dated)
    }

    /// The files, oldest first, as [`crate::stream`] wants to know them.
    pub(crate) fn seen(&self, numbering: Numbering) -> Vec<Seen> {
        let gaps = self.gaps(numbering);
        let mut files: Vec<Entry<'_>> = self.files().collect();
        files.reverse();
        let mut older = None;
        let seen = files.iter().map(|file| Seen {
            id: file.stat.id,
            length: file.compression.is_none().then_some(file.stat.size),
            after_gap: is_after_gap(&gaps, older.replace(file.part), file.part),
            compressed: file.compression.is_some(),
        });
        seen.collect()
    }

    /// The names of files of which times do not prove whether they are this chain's: who
    /// knows more of whose they are should say it ([`Ownership`]).
    ///
    /// Compressed files are none of them, since nobody writes one as a log.
    pub fn unproven(&self) -> impl Iterator<Item = &OsStr> {
        let newer = self.files();
        let older = self.files().skip(1);
        let pairs = newer.zip(older).filter(|(newer, older)| {
            older.compression.is_none() && !follows_at_once(older.stat, newer.stat)
        });
        let without_base = self.files().take(1).filter(|f| f.compression.is_none());
        let ours = without_base.chain(pairs.map(|(_, older)| older));
        let doubtful = self.foreign.iter().filter(|f| f.claim.is_doubt());
        let doubtful = doubtful.map(|f| f.name.as_os_str());
        ours.filter_map(|file| file.name).chain(doubtful)
    }

    /// Files that are not this chain's, though they are named like it.
    #[must_use]
    pub fn foreign(&self) -> &[Foreign] {
        &self.foreign
    }

    /// Names that look like rotated files and are not read.
    #[must_use]
    pub fn unread(&self) -> &[OsString] {
        &self.unread
    }

    /// What of the folder is not read, and why.
    #[must_use]
    pub fn remarks(&self) -> Vec<Remark> {
        let foreign = self.foreign.iter().cloned().map(Remark::Foreign);
        let unread = self.unread.iter().cloned();
        let unread = unread.map(|name| Remark::Unread { name });
        let shadowed = self.shadowed.iter().cloned();
        let shadowed = shadowed.map(|name| Remark::Shadowed { name });
        foreign.chain(unread).chain(shadowed).collect()
    }

    /// Numbers that no file of this chain can get, since another log's has them.
    fn taken(&self) -> impl Iterator<Item = u32> {
        let numbers = self.foreign.iter().filter_map(|f| f.number);
        numbers.filter(|n| !self.rotated.iter().any(|r| r.number == *n))
    }

    /// How many numbers between `first` and `number` other logs' files have.
    pub(crate) fn taken_below(&self, first: u32, number: u32) -> u32 {
        let taken = self.taken().filter(|n| (first..number).contains(n));
        u32::try_from(taken.count()).unwrap_or(u32::MAX)
    }

    /// The number with this place among those that this chain can use: the one with
    /// `place - first` such numbers between it and `first`.
    pub(crate) fn number_at(&self, first: u32, place: u32) -> u32 {
        let mut taken: Vec<u32> = self.taken().filter(|n| *n >= first).collect();
        taken.sort_unstable();
        taken.iter().fold(place, |number, taken| {
            number.saturating_add(u32::from(*taken <= number))
        })
    }

    /// Names that do not count, because another one has their number or date.
    #[must_use]
    pub fn shadowed(&self) -> &[OsString] {
        &self.shadowed
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.rotated.is_empty() && self.dated.is_empty()
    }

    /// The missing numbers, newest first: before the first rotated file and
    /// between two. What is missing behind the last one cannot be known.
    #[must_use]
    pub fn gaps(&self, numbering: Numbering) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut next = numbering.first();
        for Rotated { number, .. } in &self.rotated {
            if let Some(last) = number.checked_sub(1).filter(|last| *last >= next) {
                gaps.extend(self.untaken(next, last));
            }
            next = number.saturating_add(1).max(next);
        }
        gaps
    }

    /// The numbers from `first` to `last` without those that other logs' files have.
    fn untaken(&self, first: u32, last: u32) -> Vec<Gap> {
        let mut taken: Vec<u32> = self.taken().collect();
        taken.retain(|n| (first..=last).contains(n));
        taken.sort_unstable();
        let mut gaps = Vec::new();
        let mut next = first;
        for number in taken {
            if number > next {
                let last = number.saturating_sub(1);
                gaps.push(Gap { first: next, last });
            }
            next = number.saturating_add(1);
        }
        if next <= last {
            gaps.push(Gap { first: next, last });
        }
        gaps
    }

    /// Whether the same names lead to the same files. Sizes may differ: the
    /// base grows all the time.
    #[must_use]
    pub fn same_files(&self, other: &Self) -> bool {
        let mut files = self.files().zip(other.files());
        let mut foreign = self.foreign.iter().zip(&other.foreign);
        self.files().count() == other.files().count()
            && self.foreign.len() == other.foreign.len()
            && files.all(|(a, b)| a.name == b.name && a.stat.id == b.stat.id)
            && foreign.all(|(a, b)| a.name == b.name && a.id == b.id)
    }

    /// Two names that lead to one file, the newer first; `None` is the base. In
    /// a rollover this is a sign of two looks at different moments.
    pub(super) fn same_file_twice(&self) -> Option<(Option<&OsStr>, Option<&OsStr>)> {
        let mut ids: Vec<(FileId, Option<&OsStr>)> =
            self.files().map(|f| (f.stat.id, f.name)).collect();
        // Stable: of one file's names the newer stays first.
        ids.sort_by_key(|(id, _)| *id);
        ids.windows(2).find_map(|pair| match pair {
            [(a, newer), (b, older)] if a == b => Some((*newer, *older)),
            _ => None,
        })
    }
}

/// The name without the suffix of its compression.
fn plain(name: &OsStr, compression: Option<Compression>) -> &[u8] {
    let name = name.as_bytes();
    let suffix = compression.map_or("", Compression::suffix);
    name.strip_suffix(suffix.as_bytes()).unwrap_or(name)
}

/// Tells whose the files of one look are.
struct Whose<'a> {
    folder: &'a Folder,
    base: &'a OsStr,
    base_stat: Option<&'a Stat>,
    ownership: &'a Ownership,
    /// What lies beside the files.
    claims: &'a [(OsString, Claim)],
    /// The record beside the base: read only where times raise a suspicion.
    record: Option<Option<Record>>,
}

impl Whose<'_> {
    fn claim(
        &mut self,
        name: &OsStr,
        stat: &Stat,
        compression: Option<Compression>,
    ) -> Option<Claim> {
        if let Some(known) = self.ownership.claim(name) {
            // History that is being put in place is held open for writing by whoever does it.
            let is_part = known == Claim::Written
                && (self.ownership.is_ours(stat.id) || self.is_recorded(stat.id));
            return (!is_part).then_some(known);
        }
        // Only a plain file is ever a log that somebody writes.
        if compression.is_some() {
            return None;
        }
        let beside = self.claims.iter().filter(|(log, _)| log == name);
        let mut beside = beside.map(|(_, claim)| *claim);
        if let Some(beside) = beside.find(|claim| {
            let of_record = *claim == Claim::Record;
            !of_record || self.has_own_record(name, stat.id)
        }) {
            return Some(beside);
        }
        let claim = claim_by_times(stat, self.base_stat?)?;
        // History that logchain put in place was written for as long as it came.
        let ours = self.ownership.is_ours(stat.id) || self.is_recorded(stat.id);
        (!ours).then_some(claim)
    }

    /// Whether the record beside the file `name` makes it a log of its own. One that
    /// names no guest may have been left by somebody who looked at a rotated file as
    /// if it were a log, and means nothing once another file has the name.
    fn has_own_record(&mut self, name: &OsStr, id: FileId) -> bool {
        match Record::read_any(self.folder, name) {
            Ok(Some(own)) if own.owner.is_none() => {
                own.ledger.start_of(id).is_some() && !self.is_recorded(id)
            }
            Ok(Some(_) | None) | Err(_) => true,
        }
    }

    fn is_recorded(&mut self, id: FileId) -> bool {
        let (folder, base) = (self.folder, self.base);
        let record = self.record.get_or_insert_with(|| {
            let record = Record::read_any(folder, base);
            record.ok_logged("no file counts as remembered").flatten()
        });
        record
            .as_ref()
            .is_some_and(|r| r.ledger.start_of(id).is_some())
    }
}

#[cfg(test)]
mod tests;
