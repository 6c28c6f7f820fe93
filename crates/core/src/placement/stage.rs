//! Staged history: a stream of bytes, cut into parts as the rotation here would
//! have cut it. At no time are more parts kept than can be placed.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread::{self, JoinHandle};

use rustix::fs::{Timespec, Timestamps, futimens};

use super::attributes;
use super::error::{Error, Result};
use super::journal::Part;
use crate::OkLogged as _;
use crate::folder::{FileId, Folder, Stat, fault, sparse, stat_open};
use crate::rotation::Retention;

/// So many bytes are written before they are made durable, beside the writing:
/// or all of a large history would wait for the disk in the end.
const BEHIND: u64 = 16 << 20;

/// Bytes copied at a time where two parts become one.
const COPIED: usize = 64 << 10;

/// How the names of parts begin.
pub(super) const PART: &str = "part-";

pub(super) struct Parts {
    retention: Retention,
    /// Oldest first.
    held: VecDeque<Held>,
    made: u64,
    total: u64,
    dropped: u64,
    /// Bytes written since something was last made durable.
    behind: u64,
    syncing: Option<JoinHandle<io::Result<()>>>,
    /// Whether the newest part is seen already: then it takes what comes.
    keeps_newest: bool,
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
            behind: 0,
            syncing: None,
            keeps_newest: false,
        }
    }

    /// Begins anew, beside what is staged, with other names.
    pub(super) fn after(other: &Self) -> Self {
        Self {
            made: other.made,
            ..Self::new(other.retention)
        }
    }

    /// Bytes of what is staged, from this one of them on: as many as lie in one part, at least
    /// one.
    pub(super) fn read_at(&self, own: &Folder, mut at: u64, block: &mut [u8]) -> Result<usize> {
        for held in &self.held {
            if at >= held.part.size {
                at = at.saturating_sub(held.part.size);
                continue;
            }
            let path = own.path().join(&held.part.name);
            let read = held.file.read_at(block, at);
            let read = read.map_err(|e| Error::io("read", &path, e))?;
            if read > 0 {
                return Ok(read);
            }
        }
        let short = io::Error::from(io::ErrorKind::UnexpectedEof);
        Err(Error::io("read what is staged in", own.path(), short))
    }

    /// Removes what is staged.
    pub(super) fn remove(&mut self, own: &Folder) -> Result<()> {
        self.wait_for_sync(own)?;
        for held in self.held.drain(..) {
            own.remove(OsStr::new(&held.part.name))?;
        }
        Ok(())
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

    /// Which files they are.
    pub(super) fn ids(&self) -> Vec<FileId> {
        self.held.iter().map(|h| h.part.id).collect()
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
        // NULs become holes, which take none.
        let at = self.held.back().map_or(0, |h| h.part.size);
        match sparse::data(at, bytes) {
            0 => {}
            data => own.check_room(data)?,
        }
        let newest = self.held.back().map(|h| h.part.size);
        let cut = |size| starts_file && !self.keeps_newest && self.retention.cut_at_file(size);
        if newest.is_none_or(cut) {
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
            self.behind = self.behind.saturating_add(now.len() as u64);
            bytes = later;
        }
        self.sync_behind(own)
    }

    /// Makes what was written durable on a thread of its own, one at a time.
    fn sync_behind(&mut self, own: &Folder) -> Result<()> {
        let busy = self.syncing.as_ref().is_some_and(|s| !s.is_finished());
        if self.behind < BEHIND || busy {
            return Ok(());
        }
        self.wait_for_sync(own)?;
        let Some(newest) = self.held.back() else {
            return Ok(());
        };
        let path = own.path().join(&newest.part.name);
        let file = newest.file.try_clone();
        let file = file.map_err(|e| Error::io("hold", &path, e))?;
        self.behind = 0;
        self.syncing = Some(thread::spawn(move || file.sync_data()));
        Ok(())
    }

    /// An error of the disk is told once, to whoever syncs first: it counts.
    fn wait_for_sync(&mut self, own: &Folder) -> Result<()> {
        let Some(syncing) = self.syncing.take() else {
            return Ok(());
        };
        let synced = syncing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread failed")));
        synced.map_err(|e| Error::io("sync", own.path(), e))
    }

    fn begin_part(&mut self, own: &Folder) -> Result<()> {
        let name = format!("{PART}{}", self.made);
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

    /// From now on no file of the source begins a part of its own.
    pub(super) fn keep_newest(&mut self) {
        self.keeps_newest = true;
    }

    /// Joins a newest part that is too small for a place of its own. The one copy
    /// of bytes that there is, and it is smaller than the size at which the
    /// rotation here rolls over.
    pub(super) fn join_newest(&mut self, own: &Folder) -> Result<()> {
        let small = self
            .held
            .back()
            .is_some_and(|h| self.retention.join_newest(h.part.size));
        if small
            && self.held.len() > 1
            && let (Some(newest), Some(before)) = (self.held.pop_back(), self.held.back_mut())
        {
            let path = own.path().join(&newest.part.name);
            newest
                .copy_to(before)
                .map_err(|e| Error::io("copy", &path, e))?;
            own.remove(OsStr::new(&newest.part.name))?;
        }
        Ok(())
    }

    /// No more bytes come: joins what is too small, and makes all durable.
    pub(super) fn finish(&mut self, own: &Folder) -> Result<()> {
        self.join_newest(own)?;
        self.wait_for_sync(own)?;
        for held in &self.held {
            let path = own.path().join(&held.part.name);
            let size = fault::sync(&held.file)
                .and_then(|()| stat_open(&held.file))
                .map_err(|e| Error::io("sync", &path, e))?
                .size;
            if size != held.part.size {
                let what = io::Error::other(format!("{size} bytes, not {}", held.part.size));
                return Err(Error::io("rely on", &path, what));
            }
        }
        Ok(())
    }

    /// Says of every part that it was last written at `time`.
    pub(super) fn set_times(&self, own: &Folder, (seconds, nanoseconds): (i64, u32)) -> Result<()> {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        for held in &self.held {
            let path = own.path().join(&held.part.name);
            fault::point()
                .and_then(|()| futimens(&held.file, &times))
                .map_err(|e| Error::io("set the time of", &path, e.into()))?;
        }
        Ok(())
    }

    /// Owner, mode and `labels` as the base file's, see [`attributes`].
    pub(super) fn match_base(
        &self,
        own: &Folder,
        (base, stat): (&File, &Stat),
        labels: &[&str],
    ) -> Result<()> {
        let labels: Vec<(&str, Vec<u8>)> = labels
            .iter()
            .filter_map(|name| Some((*name, attributes::label(base, name)?)))
            .collect();
        for held in &self.held {
            let path = own.path().join(&held.part.name);
            attributes::match_base((&held.file, &path), stat, &labels)?;
        }
        Ok(())
    }

    /// The newest part and the user that it belongs to.
    pub(super) fn newest(&self) -> Option<(&str, u32)> {
        let newest = self.held.back()?;
        let stat = stat_open(&newest.file).ok_logged("its owner is not checked beforehand")?;
        let owner = stat.owner;
        Some((&newest.part.name, owner.0))
    }
}

impl Held {
    fn write(&mut self, own: &Folder, bytes: &[u8]) -> Result<()> {
        let path = own.path().join(&self.part.name);
        self.add(bytes).map_err(|e| Error::io("write", &path, e))
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        sparse::write_at_end(&self.file, self.part.size, bytes)?;
        self.part.size = self.part.size.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Adds all that is here to another part.
    fn copy_to(&self, to: &mut Held) -> io::Result<()> {
        let mut block = vec![0; COPIED];
        let mut at = 0;
        loop {
            let read = match self.file.read_at(&mut block, at) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            to.add(block.get(..read).unwrap_or_default())?;
            at = at.saturating_add(read as u64);
        }
    }
}
