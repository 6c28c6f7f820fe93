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
//! assert_eq!(live.offset().get(), 4);
//! # Ok(())
//! # }
//! ```

mod held;
mod notices;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::OkLogged as _;
use crate::chain::{self, Amount, ChainFile, LogChain, Snapshot, Tail};
use crate::content::Watched;
use crate::folder::{FileId, stat_open};
use crate::offsets::{Error, Offsets, Result};
use crate::stream::{Fingerprint, Ledger, Place, StreamOffset};
use held::{Held, Source};
use notices::Notices;

/// How long history that is being put in place is waited for before what came
/// after it is given: an adoption that hangs must not silence the log for ever.
const ARRIVAL: Duration = Duration::from_secs(120);

/// Where no notice comes of a change (network file systems), this is how long it
/// takes to be seen.
const LOOK: Duration = Duration::from_millis(250);

/// Files held at most. A reader that is so much slower than the guest loses, to the rotation,
/// the oldest of the files that are not held yet.
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
    offset: StreamOffset,
    notices: Notices,
    /// Since when history was seen to be on its way.
    arriving: Option<Instant>,
    /// The files that were there when the folder was looked at last, and what they held.
    seen: Vec<(FileId, Option<Fingerprint>)>,
}

impl LogChain {
    /// Follows the log from its end on, over rollovers and over a migration away and back.
    ///
    /// Offsets are kept as by [`LogChain::from`].
    ///
    /// # Errors
    /// As [`LogChain::from`].
    ///
    /// ```
    /// use std::io::Write;
    /// use logchain_core::{LogChain, News, NumberingChoice};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("console.log");
    /// std::fs::write(&path, "before")?;
    /// let mut live = LogChain::open(&path, NumberingChoice::Auto)?.follow()?;
    ///
    /// std::fs::OpenOptions::new().append(true).open(&path)?.write_all(b"news")?;
    /// let mut buffer = [0; 100];
    /// assert_eq!(live.read(&mut buffer)?, News::Bytes(4));
    /// assert_eq!(&buffer[..4], b"news");
    /// // Nothing more yet: `live.wait(…)` sleeps until there may be.
    /// assert_eq!(live.read(&mut buffer)?, News::None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow(&self) -> Result<Live> {
        Ok(self.tail_and_follow(Amount::Bytes(0))?.1)
    }

    /// The end of the log, and what follows it: no byte comes twice, and none is left out
    /// between the two.
    ///
    /// # Errors
    /// As [`LogChain::tail`] and [`LogChain::from`].
    pub fn tail_and_follow(&self, amount: Amount) -> Result<(Tail, Live)> {
        let offsets = Offsets::of(self)?;
        // A full disk, say, is no reason not to read what is there.
        offsets
            .remember(self)
            .ok_logged("what the files hold is remembered at a later look");
        let live = Live::after(&offsets, self.try_clone()?)?;
        Ok((Tail::of(offsets.into_snapshot(), amount)?, live))
    }
}

impl Live {
    /// Follows `chain` from the end of what `offsets` holds.
    pub fn after(offsets: &Offsets, chain: LogChain) -> Result<Self> {
        let notices = Notices::of(chain.folder().path());
        Self::new(offsets, chain, notices)
    }

    /// As [`Live::after`], for a caller that learns by other means when to read: [`Live::wait`]
    /// only sleeps. It takes no inotify descriptor, of which the system has few for each user.
    pub(crate) fn unnotified(offsets: &Offsets, chain: LogChain) -> Result<Self> {
        Self::new(offsets, chain, Notices::none())
    }

    fn new(offsets: &Offsets, chain: LogChain, notices: Notices) -> Result<Self> {
        let layout = offsets.layout(StreamOffset::MAX)?;
        let (ledger, offset) = (offsets.remembered(&layout)?, layout.end());
        let mut held = VecDeque::new();
        let placed = |f: &&ChainFile| !ledger.is_foreign(f.id());
        if let Some(file) = offsets.snapshot().files().iter().rfind(placed) {
            held.push_back(Held::new(file.try_clone()?, file.size())?);
        }
        Ok(Self {
            chain,
            ledger,
            held,
            offset,
            notices,
            arriving: None,
            seen: seen(offsets.snapshot())?,
        })
    }

    /// The log that is followed.
    pub(crate) fn chain(&self) -> &LogChain {
        &self.chain
    }

    /// Whether the file at the log's path is held.
    #[cfg(test)]
    pub(crate) fn holds_base(&self) -> bool {
        let base = self.chain.folder().stat(self.chain.base_name());
        let newest = self.held.back().map(|held| held.id);
        base.unwrap().is_some_and(|base| Some(base.id) == newest)
    }

    /// Whether [`Live::read`] may find something, at the price of two looks at inodes. A file
    /// that was emptied and has just its old length again is not noticed: read now and then
    /// whatever this says.
    pub(crate) fn may_have_news(&self) -> bool {
        if self.held.len() > 1 || self.arriving.is_some() {
            return true;
        }
        let front = self.held.front();
        let is_at_its_end = front.is_none_or(|held| match &held.source {
            Source::Plain(file) => {
                stat_open(file).is_ok_and(|s| s.size == held.at)
                    && !(held.watched.was_empty() && held.watched.is_written(file))
            }
            Source::Compressed(_) | Source::Lost => false,
        });
        if !is_at_its_end {
            return true;
        }
        let base = self.chain.folder().stat(self.chain.base_name());
        let base = base.map(|base| base.filter(|s| s.regular && s.size > 0));
        let ours = front.map(|held| held.id);
        base.map_or(true, |base| base.is_some_and(|base| Some(base.id) != ours))
    }

    /// The offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> StreamOffset {
        self.offset
    }

    /// The next bytes, if there are any. After an error it can be called again.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<News> {
        loop {
            self.came_before(0, false)?;
            let front = self.held.front().map(|held| &held.source);
            if matches!(front, Some(Source::Lost)) {
                self.held.pop_front();
                return Ok(News::Missing { size: None });
            }
            match self.read_held(buffer)? {
                Given::Bytes(0) => {}
                Given::Bytes(n) => return Ok(News::Bytes(n)),
                Given::Replaced => {
                    self.replaced(0)?;
                    continue;
                }
            }
            if self.held.len() > 1 {
                if self.came_before(0, true)? {
                    continue;
                }
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
    pub fn hold(&mut self) -> Result<()> {
        // The first look may have taken hold of copies; the second is of the file behind them.
        if !self.settle_newest()? && !self.settle_newest()? {
            return Ok(());
        }
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
            Source::Compressed(_) | Source::Lost => newest.at,
        };
        let newest = newest.id;
        // What the snapshot holds counts as seen from here on.
        if !self.settle_newest()? {
            return Ok(());
        }
        offsets.assume(&self.ledger, Some((newest, size)))?;
        let layout = offsets.layout(self.offset)?;
        offsets.remember(&self.chain)?;
        self.ledger = offsets.remembered(&layout)?;
        self.seen = seen(offsets.snapshot())?;
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
        let size = start.bytes_since(self.offset).filter(|size| *size > 0)?;
        self.offset = start;
        Some(News::Missing { size: Some(size) })
    }

    /// Whether the newest file still holds what was seen of it. If it does not, arranges
    /// that what it held is read from its copy, or reported as missing.
    fn settle_newest(&mut self) -> Result<bool> {
        let came = self.came_before(self.held.len().saturating_sub(1), false)?;
        let Some(held) = self.held.back_mut() else {
            return Ok(true);
        };
        let Source::Plain(file) = &held.source else {
            return Ok(true);
        };
        let same = held.watched.is_same(file, held.at);
        let same = same.map_err(|source| chain::Error::Read {
            path: self.chain.folder().path().join(&held.name),
            source,
        })?;
        if !same {
            self.replaced(self.held.len().saturating_sub(1))?;
        }
        Ok(same && !came)
    }

    /// A held file was emptied from outside. What it had is read from the copy that was
    /// made of it before, then what came in between, then the file anew.
    fn replaced(&mut self, index: usize) -> Result<()> {
        let Some(held) = self.held.get(index) else {
            return Ok(());
        };
        let Source::Plain(file) = &held.source else {
            return Ok(());
        };
        let fail = |source| chain::Error::Read {
            path: self.chain.folder().path().join(&held.name),
            source,
        };
        let file = file.try_clone().map_err(fail)?;
        let watched = Watched::of(&file).map_err(fail)?;
        let anew = Held {
            name: held.name.clone(),
            source: Source::Plain(file),
            watched,
            ..Held::at(held.id, 0)
        };
        let (id, known) = (held.id, |id| self.knows(id));
        let mut came = Vec::new();
        let (mut now, mut copy) = (Vec::new(), None);
        match self.chain.copied(id, held.watched.mark(), known)? {
            Some(files) => {
                for (index, file) in files.into_iter().enumerate() {
                    came.push(print(&file)?);
                    now.push(match index {
                        0 => Held::new(file, held.at)?,
                        _ => Held::new(file, 0)?,
                    });
                }
                if let Some(first) = now.first_mut() {
                    first.start = held.start;
                    copy = Some((id, first.id));
                }
            }
            None => {
                now.push(Held::at(id, held.at));
                for copy in self.chain.came_before(id, known, || self.fingerprints())? {
                    came.push(print(&copy)?);
                    now.push(Held::new(copy, 0)?);
                }
            }
        }
        now.push(anew);
        self.seen.extend(came);
        let newer = self.held.split_off(index);
        self.held.extend(now);
        self.held.extend(newer.into_iter().skip(1));
        // What was given of it lies before what it holds now.
        let given = (index == 0 && copy.is_none()).then_some(self.offset);
        self.remember(copy, given)
    }

    /// Takes hold of the copies of what a file held while nobody looked: one that was
    /// empty when it was last seen may have been written, copied and emptied since. Says
    /// whether there are any. `last`: this file will not be looked at again, so look even
    /// if it does not seem to have been written.
    fn came_before(&mut self, index: usize, last: bool) -> Result<bool> {
        let held = self.held.get(index).filter(|held| match &held.source {
            Source::Plain(file) => {
                held.watched.was_empty() && (last || held.watched.is_written(file))
            }
            Source::Compressed(_) | Source::Lost => false,
        });
        let Some(id) = held.map(|held| held.id) else {
            return Ok(false);
        };
        let known = |id| self.knows(id);
        let copies = self.chain.came_before(id, known, || self.fingerprints())?;
        if copies.is_empty() {
            return Ok(false);
        }
        let newer = self.held.split_off(index);
        for copy in copies {
            self.seen.push(print(&copy)?);
            self.held.push_back(Held::new(copy, 0)?);
        }
        self.held.extend(newer);
        Ok(true)
    }

    /// The fingerprints of all known files.
    fn fingerprints(&self) -> Vec<Fingerprint> {
        self.seen.iter().filter_map(|(_, print)| *print).collect()
    }

    fn knows(&self, id: FileId) -> bool {
        let seen = self.seen.iter().any(|(seen, _)| *seen == id);
        seen || self.held.iter().any(|held| held.id == id)
    }

    /// The log was emptied: writes down where its bytes are now, while that can be seen.
    fn remember(
        &mut self,
        moved: Option<(FileId, FileId)>,
        given: Option<StreamOffset>,
    ) -> Result<()> {
        let mut offsets = match Offsets::of(&self.chain) {
            Err(Error::Chain(e)) if e.is_not_found() => return Ok(()),
            offsets => offsets?,
        };
        offsets.assume(&self.ledger, None)?;
        if let Some((was, now)) = moved {
            offsets.moved(was, now);
        }
        if let Some(given) = given {
            offsets.reach(given);
        }
        let layout = offsets.layout(self.offset)?;
        offsets.remember(&self.chain)?;
        self.ledger = offsets.remembered(&layout)?;
        Ok(())
    }

    fn read_held(&mut self, buffer: &mut [u8]) -> Result<Given> {
        let Some(held) = self.held.front_mut() else {
            return Ok(Given::Bytes(0));
        };
        let path = || self.chain.folder().path().join(&held.name);
        let read = match &mut held.source {
            Source::Plain(file) => {
                let stat = stat_open(file).map_err(|source| chain::Error::Read {
                    path: path(),
                    source,
                })?;
                if stat.size < held.at {
                    return Ok(Given::Replaced);
                }
                let read = file.read_at(buffer, held.at);
                // After it was read: what was read before the file was emptied is good,
                // and what was read later is not what follows.
                let same = held.watched.mark().is_in(file);
                if !same.map_err(|source| chain::Error::Read {
                    path: path(),
                    source,
                })? {
                    return Ok(Given::Replaced);
                }
                read
            }
            Source::Compressed(reader) => reader.read(buffer),
            Source::Lost => Ok(0),
        };
        let n = match read {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(e) => return Err(chain::Error::of_io(e, path()).into()),
        };
        held.at = held.at.saturating_add(n as u64);
        let given = buffer.get(..n).unwrap_or_default();
        held.watched.go_to(held.at, given);
        self.offset = self.offset.saturating_add(n as u64);
        Ok(Given::Bytes(n))
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
        // What the snapshot holds counts as seen from here on.
        if !self.settle_newest()? {
            return Ok(Next::Found);
        }
        offsets.assume(&self.ledger, self.held.front().map(|h| (h.id, h.at)))?;
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
        self.ledger = offsets.remembered(&layout)?;
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
                (file, skip, Some(Some(next.saturating_bytes_since(was))))
            }
            // Less than was given: another VM's log, perhaps. All of it is new.
            (None, Place::Beyond) => (0, 0, Some(None)),
        };
        self.seen = seen(offsets.snapshot())?;
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

    /// Waits until something may be new: for `time` at the most, and never longer than 250 ms.
    pub fn wait(&mut self, time: Duration) {
        self.notices.wait(time.min(LOOK));
    }
}

enum Next {
    Found,
    Missing(Option<u64>),
    NotYet,
}

/// What was read of a file.
enum Given {
    Bytes(usize),
    /// Nothing: it was emptied from outside, and may hold other bytes by now.
    Replaced,
}

fn seen(snapshot: &Snapshot) -> chain::Result<Vec<(FileId, Option<Fingerprint>)>> {
    let seen = snapshot.files().iter().map(print);
    seen.collect()
}

/// A plain file, and what it holds.
fn print(file: &ChainFile) -> chain::Result<(FileId, Option<Fingerprint>)> {
    Ok(match file.compression() {
        None => (file.id(), file.fingerprint(0, file.size())?),
        Some(_) => (file.id(), None),
    })
}

#[cfg(test)]
mod tests;
