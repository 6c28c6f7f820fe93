//! Staged history: a stream of bytes, cut into parts as the rotation here would
//! have cut it. At no time are more parts kept than can be placed.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};

use super::error::{Error, Result};
use super::journal::Part;
use crate::folder::{Folder, Stat, stat_open};
use crate::rotation::Retention;

pub(super) struct Parts {
    retention: Retention,
    /// Oldest first.
    held: VecDeque<Held>,
    made: u64,
    total: u64,
    dropped: u64,
}

struct Held {
    part: Part,
    file: File,
}

impl Parts {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            retention,
            held: VecDeque::new(),
            made: 0,
            total: 0,
            dropped: 0,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The parts, newest first, and how many bytes came before the oldest.
    pub(super) fn described(&self) -> (Vec<Part>, u64) {
        (
            self.held.iter().rev().map(|h| h.part.clone()).collect(),
            self.dropped,
        )
    }

    pub(super) fn append(
        &mut self,
        own: &Folder,
        starts_file: bool,
        mut bytes: &[u8],
    ) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let newest = self.held.back().map(|h| h.part.size);
        if newest.is_none_or(|size| starts_file && self.retention.cut_at_file(size)) {
            self.begin_part(own)?;
        }
        while !bytes.is_empty() {
            let size = self.held.back().map_or(0, |h| h.part.size);
            let room = usize::try_from(self.retention.room(size)).unwrap_or(usize::MAX);
            let Some((now, later)) = bytes.split_at_checked(room.min(bytes.len())) else {
                break;
            };
            if now.is_empty() {
                self.begin_part(own)?;
                continue;
            }
            let Some(newest) = self.held.back_mut() else {
                break;
            };
            newest.write(own, now)?;
            self.total = self.total.saturating_add(now.len() as u64);
            bytes = later;
        }
        Ok(())
    }

    fn begin_part(&mut self, own: &Folder) -> Result<()> {
        let name = format!("part-{}", self.made);
        let file = own.create_new(OsStr::new(&name), 0o600)?;
        let id = stat_open(&file)
            .map_err(|e| Error::io("look at", &own.path().join(&name), e))?
            .id;
        self.made = self.made.saturating_add(1);
        self.held.push_back(Held {
            part: Part { name, id, size: 0 },
            file,
        });
        while self.held.len() > self.retention.parts() {
            if let Some(oldest) = self.held.pop_front() {
                self.dropped = self.dropped.saturating_add(oldest.part.size);
                own.remove(OsStr::new(&oldest.part.name))?;
            }
        }
        Ok(())
    }

    /// No more bytes come: joins a newest part that is too small for a place of
    /// its own, and makes all of them durable.
    pub(super) fn finish(&mut self, own: &Folder) -> Result<()> {
        let small = self
            .held
            .back()
            .is_some_and(|h| self.retention.join_newest(h.part.size));
        if small
            && self.held.len() > 1
            && let (Some(mut newest), Some(before)) = (self.held.pop_back(), self.held.back_mut())
        {
            let path = own.path().join(&newest.part.name);
            newest
                .file
                .seek(SeekFrom::Start(0))
                .map_err(|e| Error::io("read", &path, e))?;
            let copied = std::io::copy(&mut newest.file, &mut before.file)
                .map_err(|e| Error::io("write", &own.path().join(&before.part.name), e))?;
            before.part.size = before.part.size.saturating_add(copied);
            own.remove(OsStr::new(&newest.part.name))?;
        }
        for held in &self.held {
            let path = own.path().join(&held.part.name);
            held.file
                .sync_all()
                .map_err(|e| Error::io("sync", &path, e))?;
        }
        Ok(())
    }

    /// Owner and mode as the base file's: who may read the log may read its history.
    pub(super) fn match_owner(&self, own: &Folder, base: &Stat) -> Result<()> {
        for held in &self.held {
            let path = own.path().join(&held.part.name);
            let (uid, gid) = base.owner;
            fchown(
                &held.file,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
            )
            .map_err(|e| Error::io("change the owner of", &path, e.into()))?;
            fchmod(&held.file, Mode::from_raw_mode(base.mode))
                .map_err(|e| Error::io("change the mode of", &path, e.into()))?;
        }
        Ok(())
    }
}

impl Held {
    fn write(&mut self, own: &Folder, bytes: &[u8]) -> Result<()> {
        let path = own.path().join(&self.part.name);
        self.file
            .write_all(bytes)
            .map_err(|e| Error::io("write", &path, e))?;
        self.part.size = self.part.size.saturating_add(bytes.len() as u64);
        Ok(())
    }
}
