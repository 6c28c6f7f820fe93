//! Reads a growing chain on threads of its own, so that descriptors are taken at
//! every rollover however slow the transport is. Bytes are read only once there
//! is room for them: until then the descriptors keep them.
//!
//! Must not know: transports.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use blake3::Hash;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::Span;

use super::budget::Room;
use super::memory::Memory;
use super::pool::{Handle, Next, Turn};
use super::{Budget, Error, Result, Sum};
use crate::folder::FileId;
use crate::follow::{Followed, Follower, Missed, Piece, Writer, Writers};

/// Bytes in a piece at most: what an object costs beside its bytes is little then,
/// and some of them are on their way at once all the same.
pub(super) const PIECE: usize = 2 << 20;

/// What comes out before anybody looks: a wish, a piece, an end.
const QUEUE: usize = 4;
// A piece, the wish for the next one, the end: one that found no room would be lost.
const _: () = assert!(QUEUE >= 3);

/// Time between two looks: far below the time in which a guest fills a file.
const LOOK: Duration = Duration::from_millis(10);

/// While the guest runs, a piece that is not full is given after this time.
const EAGER: Duration = Duration::from_millis(500);

/// Where the file system does not tell of writers: no growth for this long is an end.
const AT_REST: Duration = Duration::from_secs(1);

/// A log that still has a writer after this is not over.
const DRAIN: Duration = Duration::from_secs(30);

/// What comes out.
pub(super) enum Pumped {
    /// With the digest of all up to its end, and the room that it takes, packed and not.
    Piece(Piece, Hash, Room),
    /// The source is over: nothing comes any more.
    Drained(Drained),
    Failed(Error),
}

/// The end of a history.
#[derive(Clone, Debug)]
pub(super) struct Drained {
    pub(super) bytes: u64,
    /// BLAKE3, in hex.
    pub(super) digest: String,
    pub(super) missed: Vec<Missed>,
    /// The files that hold it, oldest first.
    pub(super) files: Vec<Followed>,
    /// Files that were emptied from outside, and where the bytes are that they had.
    pub(super) moved: Vec<(FileId, FileId)>,
}

enum Output {
    /// There are bytes: room for so many is wanted, and for a decoder.
    Wants {
        bytes: usize,
        unpack: bool,
    },
    Pumped(Pumped),
}

/// The reader's handle. Dropping it stops the reader.
pub(super) struct Pump {
    out: mpsc::Receiver<Output>,
    requests: Arc<Requests>,
    job: Handle,
    budget: Budget,
    /// Standing in line for room.
    line: Option<Pin<Box<dyn Future<Output = Grant> + Send>>>,
}

/// Room for bytes, and leave to make a decoder.
type Grant = (Room, Option<OwnedSemaphorePermit>);

/// What the reader is told.
#[derive(Default)]
struct Requests {
    over: AtomicBool,
    hurry: AtomicBool,
    given: Mutex<Option<Grant>>,
    /// Pieces that are there already, by where they begin: those are cut again.
    cuts: OnceLock<Cuts>,
}

/// The lengths of pieces, by where they begin.
pub(super) type Cuts = BTreeMap<u64, u32>;

impl Pump {
    pub(super) fn start(
        follower: Follower,
        writers: Arc<dyn Writers>,
        budget: &Budget,
    ) -> std::io::Result<Self> {
        let (sender, out) = mpsc::channel(QUEUE);
        let requests = Arc::new(Requests::default());
        let reader = Reader {
            first: follower.bytes(),
            follower,
            writers,
            out: sender,
            requests: Arc::clone(&requests),
            wants: None,
            unpack: None,
            sum: Sum::default(),
            memory: budget.memory(),
            drain_from: None,
            moved: Instant::now(),
            span: Span::current(),
        };
        Ok(Self {
            out,
            requests,
            job: budget.pool().start(reader)?,
            budget: budget.clone(),
            line: None,
        })
    }

    /// The source is over: read to the end and say when it is reached.
    pub(super) fn drain(&self) {
        self.requests.over.store(true, Ordering::Release);
        self.job.wake();
    }

    /// Whether what is there is wanted at once, however little it is.
    pub(super) fn hurry(&self, hurry: bool) {
        if self.requests.hurry.swap(hurry, Ordering::AcqRel) != hurry && hurry {
            self.job.wake();
        }
    }

    /// Before anything is read: cuts what was put before as it was cut then.
    pub(super) fn cut_as(&self, cuts: Cuts) {
        let _ = self.requests.cuts.set(cuts);
    }

    /// Can be given up and called again: a place in line is kept.
    pub(super) async fn next(&mut self) -> Option<Pumped> {
        loop {
            if let Some(line) = &mut self.line {
                let given = line.as_mut().await;
                self.line = None;
                *lock(&self.requests.given) = Some(given);
                self.job.wake();
            }
            match self.out.recv().await? {
                Output::Wants { bytes, unpack } => {
                    let budget = self.budget.clone();
                    self.line = Some(Box::pin(async move {
                        // In this order: who may unpack goes on until the file is read.
                        let unpack = if unpack { budget.unpack().await } else { None };
                        // Packed it takes as much again at the most.
                        (budget.room(bytes.saturating_mul(2)).await, unpack)
                    }));
                }
                Output::Pumped(pumped) => return Some(pumped),
            }
        }
    }
}

fn lock(given: &Mutex<Option<Grant>>) -> MutexGuard<'_, Option<Grant>> {
    // It is put and taken whole.
    given.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the piece at `offset` may be.
fn cut(cuts: Option<&Cuts>, offset: u64) -> usize {
    let Some((at, len)) = cuts.and_then(|cuts| cuts.range(offset..).next()) else {
        return PIECE;
    };
    let most = match at.saturating_sub(offset) {
        0 => u64::from(*len),
        before => before,
    };
    usize::try_from(most).unwrap_or(PIECE).clamp(1, PIECE)
}

struct Reader {
    /// What there was when it began, as it lies on disk: it need not wait for more.
    first: u64,
    follower: Follower,
    writers: Arc<dyn Writers>,
    out: mpsc::Sender<Output>,
    requests: Arc<Requests>,
    /// For so many bytes it waits for room.
    wants: Option<usize>,
    /// Held while a compressed file is read.
    unpack: Option<OwnedSemaphorePermit>,
    sum: Sum,
    memory: Memory,
    drain_from: Option<Instant>,
    moved: Instant,
    /// The half's, which threads do not inherit.
    span: Span,
}

impl Turn for Reader {
    fn turn(&mut self) -> Next {
        if self.out.is_closed() {
            return Next::Never;
        }
        let span = self.span.clone();
        let end = match span.in_scope(|| self.step()) {
            Ok(None) => return Next::After(LOOK),
            Ok(Some(drained)) => Pumped::Drained(drained),
            Err(error) => Pumped::Failed(error),
        };
        self.tell(Output::Pumped(end));
        Next::Never
    }
}

impl Reader {
    /// There is room: no more comes than was asked for.
    fn tell(&self, out: Output) {
        // Fails only where nobody listens any more.
        let _ = self.out.try_send(out);
    }

    /// `Some`: that was all.
    fn step(&mut self) -> Result<Option<Drained>> {
        let over = self.requests.over.load(Ordering::Acquire);
        let hurry = self.requests.hurry.load(Ordering::Acquire);
        // What is there now is not there at the end, when it would be waited for.
        let first = self.follower.offset() < self.first;
        let flush = first || over || hurry || self.moved.elapsed() > EAGER;
        self.follower.refresh(&*self.writers)?;
        let given = lock(&self.requests.given).take();
        if let Some((mut room, unpack)) = given {
            // What has come since has no room.
            let cut = cut(self.requests.cuts.get(), self.follower.offset());
            let most = self.wants.take().unwrap_or(PIECE).min(cut);
            self.unpack = unpack.or(self.unpack.take());
            if let Some(piece) = self.follower.next_in(self.memory.take(most), most, flush)? {
                let up_to = self.sum.add(&piece.bytes);
                self.moved = Instant::now();
                room.shrink(piece.bytes.len().saturating_mul(2));
                self.tell(Output::Pumped(Pumped::Piece(piece, up_to, room)));
            }
            if !self.follower.unpacks() {
                self.unpack = None;
            }
        }
        if self.wants.is_some() {
            return Ok(None);
        }
        let most = cut(self.requests.cuts.get(), self.follower.offset());
        let bytes = self.follower.waiting(most, flush)?;
        if flush && bytes == 0 {
            // Some of it went before it was read, maybe: no more of it comes.
            self.first = 0;
        }
        if bytes > 0 {
            self.wants = Some(bytes);
            let unpack = self.follower.unpacks() && self.unpack.is_none();
            self.tell(Output::Wants { bytes, unpack });
            return Ok(None);
        }
        if !over {
            return Ok(None);
        }
        let since = *self.drain_from.get_or_insert_with(Instant::now);
        let over = match self.follower.drained(&*self.writers)? {
            Writer::None => true,
            Writer::Unknown => self.moved.elapsed() > AT_REST && since.elapsed() > AT_REST,
            Writer::Some => false,
        };
        if over {
            return Ok(Some(Drained {
                bytes: self.follower.offset(),
                digest: self.sum.digest().to_hex().to_string(),
                missed: self.follower.missed().to_vec(),
                files: self.follower.files(),
                moved: self.follower.moved().to_vec(),
            }));
        }
        if since.elapsed() > DRAIN {
            return Err(Error::gave_up(format!(
                "the log at the source still has a writer {} s after its guest was gone",
                DRAIN.as_secs()
            )));
        }
        Ok(None)
    }
}
