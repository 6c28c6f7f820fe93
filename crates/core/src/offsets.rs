//! Reads a chain by offsets in the VM's stream: what [`crate::stream`] says of
//! the files that a snapshot holds, with the record beside them.
//!
//! Must not know: handoffs, who writes the log.
//!
//! ```
//! use std::io::Read;
//! use logchain_core::chain::{LogChain, NumberingChoice};
//! use logchain_core::offsets::{Lookup, Offsets};
//! use logchain_core::stream::StreamOffset;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("console.log");
//! std::fs::write(path.with_file_name("console.log.0"), "one two ")?;
//! std::fs::write(&path, "three")?;
//!
//! let chain = LogChain::open(&path, NumberingChoice::Auto)?;
//! let offsets = Offsets::of(&chain)?;
//! let from = StreamOffset::new(4);
//! let Lookup::Run(mut run) = offsets.from(from, 6)? else { panic!("it is there") };
//! let mut text = String::new();
//! run.read_to_string(&mut text)?;
//! assert_eq!(text, "two th");
//! assert_eq!((run.next(), run.more()), (StreamOffset::new(10), true));
//! # Ok(())
//! # }
//! ```

use std::io::{self, Read};
use std::time::Duration;

use crate::OkLogged as _;
use crate::chain::{self, LogChain, Reader, Snapshot};
use crate::folder::FileId;
use crate::placement;
use crate::record::{self, Record};
use crate::stream::{BootRun, Fingerprint, Layout, Ledger, Measure, Place, StreamOffset};

/// How often record and files are read anew because the record changed meanwhile.
const TRIES: usize = 20;

/// Why offsets could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The chain's answer.
    #[error(transparent)]
    Chain(#[from] chain::Error),
    /// The record beside the chain cannot be read. The chain itself can.
    #[error("{0}; without it offsets mean nothing")]
    Record(#[from] record::Error),
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A chain at one moment, and where its files lie in the VM's stream.
#[derive(Debug)]
pub struct Offsets {
    snapshot: Snapshot,
    /// With the files that hold its runs now.
    ledger: Ledger,
    /// As the record has it.
    recorded: Ledger,
    /// Whether history is being put in place: what is missing may yet come.
    arriving: bool,
}

/// What lies at an offset.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// Bytes without a gap.
    Run(Run<'a>),
    /// Dropped by the rotation, or never seen.
    Gone {
        /// The next offset that is there.
        next: StreamOffset,
        /// History is being put in place just now: it may hold these bytes.
        arriving: bool,
    },
    /// The stream ends at `end`, which is the offset asked for or one before it.
    Beyond {
        /// The offset after the last byte.
        end: StreamOffset,
    },
}

/// Bytes of the stream without a gap: a [`Read`].
#[derive(Debug)]
pub struct Run<'a> {
    reader: Reader<'a>,
    bounds: Bounds,
}

/// Which bytes a [`Run`] has, and what lies around them.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    offset: StreamOffset,
    length: u64,
    /// Where the stream ends.
    end: StreamOffset,
    follows_gap: bool,
}

impl Bounds {
    fn run(self, reader: Reader<'_>) -> Lookup<'_> {
        let bounds = self;
        Lookup::Run(Run { reader, bounds })
    }
}

impl Run<'_> {
    /// The offset of the first byte.
    #[must_use]
    pub fn offset(&self) -> StreamOffset {
        self.bounds.offset
    }

    /// The offset that follows the last byte: where to go on.
    #[must_use]
    pub fn next(&self) -> StreamOffset {
        self.bounds.offset.saturating_add(self.bounds.length)
    }

    /// Whether bytes are missing just before it, nobody knows how many: offsets do not
    /// count them.
    #[must_use]
    pub fn follows_gap(&self) -> bool {
        self.bounds.follows_gap
    }

    /// Whether more bytes follow, behind a gap perhaps.
    #[must_use]
    pub fn more(&self) -> bool {
        self.next() < self.bounds.end
    }
}

impl Read for Run<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Offsets {
    /// Takes a snapshot of `chain` with its record.
    ///
    /// # Errors
    /// As [`LogChain::snapshot`]; [`Error::Record`] where the record is damaged.
    pub fn of(chain: &LogChain) -> Result<Self> {
        let mut record = chain.record()?;
        for _ in 0..TRIES {
            let arriving = placement::is_under_way(chain.folder(), chain.base_name());
            let snapshot = chain.snapshot()?;
            let after = chain.record()?;
            if after == record {
                let recorded = record.map(|r| r.ledger).unwrap_or_default();
                let ledger = recognised(&recorded, &snapshot)?;
                return Ok(Self {
                    snapshot,
                    ledger,
                    recorded,
                    arriving,
                });
            }
            record = after;
        }
        Err(chain::Error::Unsettled { path: chain.path() }.into())
    }

    /// Adds what the caller knows: the places of files, for a chain without a record, and
    /// how long a file was that it had open.
    pub(crate) fn assume(
        &mut self,
        ledger: &Ledger,
        held: Option<(FileId, u64)>,
    ) -> chain::Result<()> {
        if self.ledger.is_empty() {
            self.ledger = recognised(ledger, &self.snapshot)?;
        }
        if let Some((id, length)) = held {
            self.ledger.grown(id, length);
        }
        Ok(())
    }

    /// The caller has read up to this offset: whatever comes now lies behind it.
    pub(crate) fn reach(&mut self, offset: StreamOffset) {
        self.ledger.reach(offset);
    }

    /// The caller saw that the bytes of the file `was` lie in `now`.
    pub(crate) fn moved(&mut self, was: FileId, now: FileId) {
        if self.ledger.is_gone(was) {
            self.ledger.moved_to(was, now);
        }
    }

    /// The ledger as it is once this layout is remembered.
    pub(crate) fn remembered(&self, layout: &Layout) -> chain::Result<Ledger> {
        let mut ledger = self.ledger.clone();
        ledger.remember(layout);
        ledger.note(&self.snapshot.seen(), true, &mut look(&self.snapshot))?;
        Ok(ledger)
    }

    /// The files.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What is remembered of the stream.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether history is being put in place just now.
    #[must_use]
    pub fn is_arriving(&self) -> bool {
        self.arriving
    }

    /// As [`Snapshot`], to keep it.
    #[must_use]
    pub fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    /// The offset after the stream's last byte: that of the next one to come.
    pub fn end(&self) -> Result<StreamOffset> {
        Ok(self.layout(StreamOffset::MAX)?.end())
    }

    /// What each boot of the VM printed of what is there, oldest first: see [`Ledger::boots`].
    pub fn boots(&self) -> Result<Vec<BootRun>> {
        let layout = self.layout(StreamOffset::START)?;
        let first = layout.first().unwrap_or(layout.end());
        Ok(self.ledger.boots(first, layout.end()))
    }

    /// Where the files lie, down to the offset `down_to`. Compressed files are
    /// gone through where their length decides.
    pub fn layout(&self, down_to: StreamOffset) -> Result<Layout> {
        loop {
            match self.ledger.lay(&self.snapshot.seen(), down_to) {
                Ok(layout) => return Ok(layout),
                Err(Measure(file)) => self.snapshot.measure(file)?,
            }
        }
    }

    /// The bytes from `offset` on: at most `most`, and only up to a gap. It can be asked
    /// again and again, and answers from the same moment; [`LogChain::from`] looks anew.
    pub fn from(&self, offset: StreamOffset, most: u64) -> Result<Lookup<'_>> {
        let layout = self.layout(offset)?;
        Ok(match self.bounds(&layout, offset, most) {
            // Not all files: one that is no part of the stream may lie between.
            Ok(bounds) => {
                let runs = layout.runs(offset, bounds.length);
                bounds.run(self.snapshot.read_runs(runs))
            }
            Err(nothing) => nothing,
        })
    }

    /// As [`Offsets::from`], by a reader that keeps open what it has yet to read.
    fn into_from(self, offset: StreamOffset, most: u64) -> Result<Lookup<'static>> {
        let layout = self.layout(offset)?;
        Ok(match self.bounds(&layout, offset, most) {
            Ok(bounds) => {
                let runs = layout.runs(offset, bounds.length);
                bounds.run(self.snapshot.into_runs(runs))
            }
            Err(nothing) => nothing,
        })
    }

    /// How far a read from `offset` goes; or else what there is in place of bytes.
    fn bounds(
        &self,
        layout: &Layout,
        offset: StreamOffset,
        most: u64,
    ) -> Result<Bounds, Lookup<'static>> {
        match layout.find(offset) {
            Place::In { .. } => {}
            Place::Gone { next } => {
                return Err(Lookup::Gone {
                    next,
                    arriving: self.arriving,
                });
            }
            Place::Beyond => return Err(Lookup::Beyond { end: layout.end() }),
        }
        let not_counted = || {
            let holes = self.ledger.holes().iter().chain(layout.holes());
            holes.filter(|hole| hole.size.is_none()).map(|hole| hole.at)
        };
        let up_to = not_counted().filter(|at| *at > offset).min();
        let up_to = up_to.unwrap_or(StreamOffset::MAX);
        let up_to = up_to.saturating_bytes_since(offset);
        let length = layout.run_after(offset).min(up_to).min(most);
        Ok(Bounds {
            offset,
            length,
            end: layout.end(),
            follows_gap: not_counted().any(|at| at == offset),
        })
    }

    /// Writes down beside the chain where its files lie, so that offsets mean
    /// the same after the next rollover.
    ///
    /// Says whether it wrote: it does not where nothing is new, where this process may
    /// not write there, or where another one holds the lock or wrote first.
    pub fn remember(&self, chain: &LogChain) -> Result<bool> {
        // A known file that is gone was compressed, maybe: its place is known now, and
        // would not be any more once the files after it are gone too. One that is being
        // compressed at this moment is not whole yet.
        let down_to = self.recorded.oldest_gone(&self.snapshot.seen());
        let layout = match self.layout(down_to.unwrap_or(StreamOffset::MAX)) {
            Err(_) if down_to.is_some() => self.layout(StreamOffset::MAX),
            layout => layout,
        }?;
        let mut ledger = self.ledger.clone();
        let found = ledger.remember(&layout) || !self.ledger.has_places_of(&self.recorded);
        let seen = self.snapshot.seen();
        let noted = ledger.note(&seen, found, &mut look(&self.snapshot))?;
        if !found && !noted {
            return Ok(false);
        }
        let (folder, base) = (chain.folder(), chain.base_name());
        let written = (|| {
            let Some(_lock) = folder.lock(Duration::ZERO)? else {
                return Ok(false);
            };
            let mut record = Record::read_any(folder, base)?.unwrap_or_else(Record::unowned);
            if record.ledger != self.recorded {
                return Ok(false);
            }
            record.ledger = ledger;
            record.write(folder, base)?;
            Ok(true)
        })();
        match written {
            Err(record::Error::Folder(e)) if e.is_refusal() => Ok(false),
            other => Ok(other?),
        }
    }
}

impl LogChain {
    /// At most `most` bytes of the VM's stream from `offset` on, and only up to a gap.
    ///
    /// An offset means the same byte for the VM's life, on whichever host it runs: read on
    /// at [`Run::next`], today or next week. For that, where the files lie is written down
    /// beside the log if this process may do so; a failure there does not hinder reading.
    /// Whoever wants to know of it calls [`Offsets::remember`].
    ///
    /// # Errors
    /// As [`LogChain::snapshot`]; [`Error::Record`] where the record is damaged, so that no
    /// offset can be told: [`LogChain::verify`] says how it is mended.
    ///
    /// ```
    /// use std::io::Read;
    /// use logchain_core::{Lookup, LogChain, NumberingChoice, StreamOffset};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("console.log");
    /// std::fs::write(path.with_file_name("console.log.0"), "one two ")?;
    /// std::fs::write(&path, "three")?;
    ///
    /// let chain = LogChain::open(&path, NumberingChoice::Auto)?;
    /// let (mut offset, mut text) = (StreamOffset::new(4), String::new());
    /// loop {
    ///     match chain.from(offset, 6)? {
    ///         Lookup::Run(mut run) => {
    ///             run.read_to_string(&mut text)?;
    ///             offset = run.next();
    ///         }
    ///         // The rotation dropped it: go on with what is left.
    ///         Lookup::Gone { next, .. } => offset = next,
    ///         Lookup::Beyond { .. } => break,
    ///     }
    /// }
    /// assert_eq!((offset.get(), text.as_str()), (13, "two three"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn from(&self, offset: StreamOffset, most: u64) -> Result<Lookup<'static>> {
        let offsets = Offsets::of(self)?;
        // A full disk, say, is no reason not to read what is there.
        offsets
            .remember(self)
            .ok_logged("what the files hold is remembered at a later look");
        offsets.into_from(offset, most)
    }
}

/// What is known, by the files that hold it now.
fn recognised(ledger: &Ledger, snapshot: &Snapshot) -> chain::Result<Ledger> {
    ledger.recognise(&snapshot.seen(), &mut look(snapshot))
}

/// Looks into the files of a snapshot.
fn look(
    snapshot: &Snapshot,
) -> impl FnMut(usize, u64, u64) -> chain::Result<Option<Fingerprint>> + '_ {
    |file, skip, length| match snapshot.files().get(file) {
        Some(file) => match file.fingerprint(skip, length) {
            // Whoever reads it is told; here it just is not what is looked for.
            Err(chain::Error::Damaged { .. }) => Ok(None),
            print => print,
        },
        None => Ok(None),
    }
}
