//! Follows a chain as it grows: over rollovers, and over a migration to or from
//! this host. What [`Live`] gives are the bytes of the VM's stream, each once,
//! in order; where some are missing it says so.
//!
//! A file that was opened stays open until its last byte was given, so what
//! happens to names takes nothing away. What comes next is found by identity,
//! or, where that file is gone, by offset.
//!
//! Must not know: who writes the log, where the bytes go.
//!
//! ```
//! use std::io::Write;
//! use logchain_core::chain::{LogChain, NumberingChoice};
//! use logchain_core::live::{Live, News};
//! use logchain_core::offsets::Offsets;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("console.log");
//! let mut log = std::fs::File::create(&path)?;
//! let chain = LogChain::open(&path, NumberingChoice::FromZero)?;
//! let mut live = Live::after(&Offsets::of(&chain)?, chain)?;
//!
//! log.write_all(b"news")?;
//! let mut buffer = [0; 100];
//! assert_eq!(live.read(&mut buffer)?, News::Bytes(4));
//! assert_eq!(live.read(&mut buffer)?, News::None);
//! assert_eq!(live.offset(), 4);
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::chain::{self, ChainFile, LogChain, decompressed};
use crate::folder::{FileId, stat_open};
use crate::offsets::{Error, Offsets, Result};
use crate::pause::pause;
use crate::stream::{Ledger, Place};

/// How long history that is being put in place is waited for before what came
/// after it is given: an adoption that hangs must not silence the log for ever.
const ARRIVAL: Duration = Duration::from_secs(120);

/// Where no notice comes of a change (network file systems), this is how long it
/// takes to be seen.
const LOOK: Duration = Duration::from_millis(250);

/// Files held at most. Whoever reads so much slower than the guest prints loses the
/// oldest to the rotation.
const HELD: usize = 64;

/// What [`Live::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// So many bytes are in the buffer.
    Bytes(usize),
    /// Bytes are missing here; the next ones begin at [`Live::offset`].
    Missing {
        /// How many, where that is known.
        size: Option<u64>,
    },
    /// Nothing new yet.
    None,
}

/// A chain that is followed.
#[derive(Debug)]
pub struct Live {
    chain: LogChain,
    /// Where files lie, for a chain beside which no record can be kept.
    ledger: Ledger,
    /// Oldest first. The last one is the base file, or was.
    held: VecDeque<Held>,
    offset: u64,
    notices: Option<OwnedFd>,
    /// Since when history was seen to be on its way.
    arriving: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    id: FileId,
    name: std::ffi::OsString,
    source: Source,
    at: u64,
    /// The offset of the byte at which it begins to be read, where known.
    start: Option<u64>,
}

enum Source {
    Plain(File),
    Compressed(Box<dyn Read + Send>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Compressed(_) => "Compressed",
        })
    }
}

impl Live {
    /// Follows `chain` from the end of what `offsets` holds.
    ///
    /// # Errors
    /// Those of reading.
    pub fn after(offsets: &Offsets, chain: LogChain) -> Result<Self> {
        let layout = offsets.layout(u64::MAX)?;
        let (mut ledger, offset) = (offsets.ledger().clone(), layout.end());
        ledger.remember(&layout);
        let mut held = VecDeque::new();
        let placed = |f: &&ChainFile| !ledger.is_foreign(f.id());
        if let Some(file) = offsets.snapshot().files().iter().rfind(placed) {
            held.push_back(Held::new(file.try_clone()?, file.size())?);
        }
        let notices = watch(chain.folder().path());
        Ok(Self {
            chain,
            ledger,
            held,
            offset,
            notices,
            arriving: None,
        })
    }

    /// The offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, if there are any.
    ///
    /// # Errors
    /// Those of reading. After one it can be tried again.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<News> {
        loop {
            if let Some(news) = self.read_held(buffer)? {
                return Ok(news);
            }
            if self.held.len() > 1 {
                self.held.pop_front();
                if let Some(missing) = self.go_to_next() {
                    return Ok(missing);
                }
                continue;
            }
            match self.find_next()? {
                Next::Found => {}
                Next::Missing(size) => return Ok(News::Missing { size }),
                Next::NotYet => return Ok(News::None),
            }
        }
    }

    /// Takes hold of files that came since, so that no rollover takes them away
    /// while nobody reads. Reading does that too, at the end of what is held.
    ///
    /// # Errors
    /// Those of reading.
    pub fn hold(&mut self) -> Result<()> {
        let Some(newest) = self.held.back() else {
            return Ok(());
        };
        let base = self.chain.folder().stat(self.chain.base_name());
        let base = base.map_err(chain::Error::from)?.filter(|s| s.regular);
        if self.held.len() >= HELD || base.is_none_or(|b| b.id == newest.id) {
            return Ok(());
        }
        let mut offsets = match self.offsets() {
            Err(Error::Chain(e)) if e.is_not_found() => return Ok(()),
            offsets => offsets?,
        };
        let size = match &newest.source {
            Source::Plain(file) => stat_open(file).map_or(newest.at, |s| s.size),
            Source::Compressed(_) => newest.at,
        };
        let newest = newest.id;
        offsets.assume(&self.ledger, Some((newest, size)));
        let layout = offsets.layout(self.offset)?;
        offsets.remember(&self.chain)?;
        self.ledger = offsets.ledger().clone();
        self.ledger.remember(&layout);
        let files = offsets.into_snapshot().into_files();
        let Some(at) = files.iter().position(|f| f.id() == newest) else {
            // History comes, or all is gone: reading finds out at its end.
            return Ok(());
        };
        let newer = files.into_iter().skip(at.saturating_add(1));
        for file in newer.filter(|f| !self.ledger.is_foreign(f.id())) {
            let mut next = Held::new(file, 0)?;
            next.start = layout.offset_in(next.id, 0);
            self.held.push_back(next);
        }
        Ok(())
    }

    /// The chain as it is now. What is held is part of it, even where its writer went on
    /// writing to it after a new base was begun.
    fn offsets(&self) -> Result<Offsets> {
        let held = self.held.iter().map(|held| held.id);
        Offsets::of(&self.chain.with_ours(held)?)
    }

    /// The next file is the front now. `Some`: there is a gap before it.
    fn go_to_next(&mut self) -> Option<News> {
        let start = self.held.front()?.start?;
        let size = start.checked_sub(self.offset).filter(|size| *size > 0)?;
        self.offset = start;
        Some(News::Missing { size: Some(size) })
    }

    fn read_held(&mut self, buffer: &mut [u8]) -> Result<Option<News>> {
        let Some(held) = self.held.front_mut() else {
            return Ok(None);
        };
        let path = || self.chain.folder().path().join(&held.name);
        let read = match &mut held.source {
            Source::Plain(file) => {
                let stat = stat_open(file).map_err(|source| chain::Error::Read {
                    path: path(),
                    source,
                })?;
                if stat.size < held.at {
                    // Emptied from outside. What it held was given, as far as we know.
                    held.at = 0;
                    return Ok(Some(News::Missing { size: None }));
                }
                file.read_at(buffer, held.at)
            }
            Source::Compressed(reader) => reader.read(buffer),
        };
        let n = match read {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(e) => return Err(chain::Error::of_io(e, path()).into()),
        };
        held.at = held.at.saturating_add(n as u64);
        self.offset = self.offset.saturating_add(n as u64);
        Ok((n > 0).then_some(News::Bytes(n)))
    }

    /// The file held is at its end: whether another one follows it.
    fn find_next(&mut self) -> Result<Next> {
        let ours = self.held.front().map(|h| h.id);
        let base = self.chain.folder().stat(self.chain.base_name());
        let base = base.map_err(chain::Error::from)?.filter(|s| s.regular);
        // No base: a rollover is half done. An empty one: whoever renamed the old
        // one may still write to it.
        if base.is_none_or(|b| Some(b.id) == ours || b.size == 0) {
            return Ok(Next::NotYet);
        }
        let mut offsets = match self.offsets() {
            Err(Error::Chain(e)) if e.is_not_found() => return Ok(Next::NotYet),
            offsets => offsets?,
        };
        offsets.assume(&self.ledger, self.held.front().map(|h| (h.id, h.at)));
        let layout = offsets.layout(self.offset)?;
        let at = offsets.snapshot().files().iter();
        let at = at.map(ChainFile::id).position(|id| Some(id) == ours);
        // What has no place yet comes behind a history that is not complete.
        let has_place = |f: &ChainFile| !offsets.ledger().is_foreign(f.id());
        let newer = |at: usize| {
            let files = offsets.snapshot().files().iter();
            files.skip(at.saturating_add(1)).any(has_place)
        };
        let patient = |since: &Instant| since.elapsed() < ARRIVAL;
        let waits = offsets.is_arriving() && self.arriving.as_ref().is_none_or(patient);
        if offsets.is_arriving() && !at.is_some_and(newer) {
            // The VM comes, or comes back: what it printed elsewhere comes first.
            if self.arriving.get_or_insert_with(Instant::now).elapsed() < ARRIVAL {
                return Ok(Next::NotYet);
            }
        }
        self.arriving = None;
        offsets.remember(&self.chain)?;
        self.ledger = offsets.ledger().clone();
        self.ledger.remember(&layout);
        let was = self.offset;
        let ours = at.and_then(|at| Some((at, self.held.pop_front()?)));
        let (file, skip, missing) = match (&ours, layout.find(was)) {
            (Some((at, held)), _) => {
                // History may have been put behind it since: the same byte, another offset.
                self.offset = layout.offset_in(held.id, held.at).unwrap_or(was).max(was);
                (at.saturating_add(1), 0, None)
            }
            (None, Place::In { file, skip }) => {
                let hole = layout.holes().iter().find(|h| h.at == was);
                (file, skip, hole.map(|h| h.size))
            }
            (None, Place::Gone { next }) => {
                let Place::In { file, skip } = layout.find(next) else {
                    return Ok(Next::NotYet);
                };
                self.offset = next;
                (file, skip, Some(Some(next.saturating_sub(was))))
            }
            // Less than was given: another VM's log, perhaps. All of it is new.
            (None, Place::Beyond) => (0, 0, Some(None)),
        };
        // Ours first: bytes may have come since we read its end, before it was renamed.
        self.held = ours.map(|(_, held)| held).into_iter().collect();
        let newer = offsets.into_snapshot().into_files().into_iter().skip(file);
        let newer = newer.filter(|f| !waits || !self.ledger.is_foreign(f.id()));
        for (index, file) in newer.enumerate() {
            let skip = if index == 0 { skip } else { 0 };
            let mut next = Held::new(file, skip)?;
            next.start = layout.offset_in(next.id, skip);
            self.held.push_back(next);
        }
        Ok(missing.map_or(Next::Found, Next::Missing))
    }

    /// Waits until something may be new, at most for `time`.
    pub fn wait(&mut self, time: Duration) {
        let time = time.min(LOOK);
        let Some(notices) = &self.notices else {
            return pause(time);
        };
        let timeout = Timespec::try_from(time).ok();
        let mut fds = [PollFd::new(notices, PollFlags::IN)];
        if poll(&mut fds, timeout.as_ref()).is_ok_and(|n| n > 0) {
            let mut seen = [0; 4096];
            while rustix::io::read(notices, &mut seen).is_ok_and(|n| n > 0) {}
        }
    }
}

enum Next {
    Found,
    Missing(Option<u64>),
    NotYet,
}

impl Held {
    fn new(file: ChainFile, at: u64) -> Result<Self> {
        let (id, name) = (file.id(), file.name().to_owned());
        let source = match file.compression() {
            None => Source::Plain(file.into_file()),
            Some(_) => {
                let mut reader = decompressed(file)?;
                let skip = io::copy(&mut reader.by_ref().take(at), &mut io::sink());
                skip.map_err(|e| chain::Error::of_io(e, (&name).into()))?;
                Source::Compressed(reader)
            }
        };
        Ok(Self {
            id,
            name,
            source,
            at,
            start: None,
        })
    }
}

/// Notices of what happens in a folder, where the system gives them.
fn watch(folder: &Path) -> Option<OwnedFd> {
    let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let what = WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::CREATE;
    inotify::add_watch(&notices, folder, what).ok()?;
    Some(notices)
}

#[cfg(test)]
mod tests;
