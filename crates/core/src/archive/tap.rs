//! Reads a log, so that files are taken hold of at every rollover however slow the transport is:
//! on a thread of its own or, where many logs are streamed, with what their [`StreamPool`] shares.
//!
//! Must not know: transports.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use super::pool::{Found, Memory, StreamPool};
use crate::chain::{self, LogChain};
use crate::live::{Live, News};
use crate::offsets::{Lookup, Offsets, Result};
use crate::pause::pause;
use crate::stream::StreamOffset;

/// Bytes that are read at once.
pub(super) const BLOCK: usize = 64 * 1024;

/// Blocks read ahead of the transport, by a thread of its own.
const AHEAD: usize = 16;

/// Time between two looks while nobody takes what was read.
const LOOK: Duration = Duration::from_millis(20);

/// The same where many logs wait at once.
const LOOK_OF_MANY: Duration = Duration::from_millis(250);

/// Time between two looks where no notice comes.
const WAIT: Duration = Duration::from_millis(250);

/// How long nothing comes any more once the guest has left, until that was all.
const AT_REST: Duration = Duration::from_secs(1);

/// What comes out.
#[derive(Debug)]
pub(super) enum Tapped {
    Bytes {
        offset: StreamOffset,
        bytes: Vec<u8>,
        memory: Memory,
    },
    Missing {
        next: StreamOffset,
        size: Option<u64>,
    },
    /// Asked to end, and this was all.
    End,
    Failed(crate::offsets::Error),
}

/// The reader's handle. Dropping it stops the reader.
pub(super) struct Tap {
    pub(super) out: mpsc::Receiver<Tapped>,
    wish: Arc<Wish>,
}

/// What the streamer wants of the reader.
#[derive(Default)]
struct Wish {
    asked: AtomicBool,
    drain: AtomicBool,
    changed: Notify,
}

impl Wish {
    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Whether the reader may end, nothing having come since `moved`.
    fn is_over(&self, moved: Instant) -> bool {
        !self.drain.load(Ordering::Acquire) || moved.elapsed() > AT_REST
    }
}

impl Tap {
    /// Reads `chain` from `from` on, which must not be behind its end, on a thread of its own.
    pub(super) fn start(chain: LogChain, from: StreamOffset) -> std::io::Result<Self> {
        let (work, tap) = Work::new(&chain, AHEAD, None);
        let thread = thread::Builder::new().name("logchain-tap".to_owned());
        thread.spawn(move || {
            let end = work.run(chain, from).into();
            // Fails only where nobody listens any more.
            let _ = work.out.blocking_send(end);
        })?;
        Ok(tap)
    }

    /// The same with what the pool shares.
    pub(super) fn start_in(pool: Arc<StreamPool>, chain: LogChain, from: StreamOffset) -> Self {
        // Nothing is read ahead: the pool's thread takes hold of files meanwhile.
        let (work, tap) = Work::new(&chain, 1, Some(Arc::clone(&pool)));
        let work = Arc::new(work);
        let reading = async move {
            let end = work.run_in(&pool, chain, from).await.into();
            let _ = work.out.send(end).await;
        };
        tokio::spawn(reading.in_current_span());
        tap
    }

    /// Reads what is there and ends; with `drain` only once nothing came for a while.
    pub(super) fn end(&self, drain: bool) {
        self.wish.drain.store(drain, Ordering::Release);
        self.wish.asked.store(true, Ordering::Release);
        self.wish.changed.notify_one();
    }
}

impl From<Result<()>> for Tapped {
    fn from(ended: Result<()>) -> Self {
        match ended {
            Ok(()) => Self::End,
            Err(e) => Self::Failed(e),
        }
    }
}

struct Work {
    path: PathBuf,
    out: mpsc::Sender<Tapped>,
    wish: Arc<Wish>,
    pool: Option<Arc<StreamPool>>,
}

impl Work {
    fn new(chain: &LogChain, ahead: usize, pool: Option<Arc<StreamPool>>) -> (Self, Tap) {
        let (sender, out) = mpsc::channel(ahead);
        let wish = Arc::<Wish>::default();
        let work = Self {
            path: chain.path(),
            out: sender,
            wish: Arc::clone(&wish),
            pool,
        };
        (work, Tap { out, wish })
    }

    fn run(&self, chain: LogChain, from: StreamOffset) -> Result<()> {
        let Some(mut live) = self.catch_up(chain, from)? else {
            return Ok(());
        };
        let mut block = vec![0; BLOCK];
        let mut moved = Instant::now();
        while !self.out.is_closed() {
            // Before the look: what comes after it is not waited for.
            let asked = self.wish.is_asked();
            let tapped = match live.read(&mut block)? {
                News::Bytes(count) => Tapped::Bytes {
                    offset: live.offset().saturating_sub(count as u64),
                    bytes: block.get(..count).unwrap_or_default().to_vec(),
                    memory: Memory::default(),
                },
                News::Missing { size } => Tapped::Missing {
                    next: live.offset(),
                    size,
                },
                News::None => {
                    if asked && self.wish.is_over(moved) {
                        return Ok(());
                    }
                    live.wait(WAIT);
                    continue;
                }
            };
            moved = Instant::now();
            if !self.send(tapped, &mut live)? {
                break;
            }
        }
        Ok(())
    }

    async fn run_in(
        self: &Arc<Self>,
        pool: &StreamPool,
        chain: LogChain,
        from: StreamOffset,
    ) -> Result<()> {
        let turn = pool.start_turn().await;
        let work = Arc::clone(self);
        let catching_up = tokio::task::spawn_blocking(move || work.catch_up(chain, from));
        let caught_up = catching_up.await;
        let caught_up = caught_up.unwrap_or_else(|e| match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => Ok(None),
        });
        drop(turn);
        let Some(live) = caught_up? else {
            return Ok(());
        };
        let log = pool.add(live);
        let mut moved = Instant::now();
        loop {
            // Nothing is read that nobody has room for.
            let Ok(place) = self.out.reserve().await else {
                return Ok(());
            };
            let mut memory = pool.memory().await;
            let asked = self.wish.is_asked();
            let tapped = match log.read().await? {
                Found::Bytes { offset, bytes } => {
                    memory.keep(bytes.len());
                    Tapped::Bytes {
                        offset,
                        bytes,
                        memory,
                    }
                }
                Found::Missing { next, size } => Tapped::Missing { next, size },
                Found::Nothing => {
                    drop((place, memory));
                    if asked && self.wish.is_over(moved) {
                        return Ok(());
                    }
                    tokio::select! {
                        () = log.news() => {}
                        () = self.wish.changed.notified() => {}
                        () = sleep(WAIT), if asked => {}
                        () = self.out.closed() => return Ok(()),
                    }
                    continue;
                }
            };
            place.send(tapped);
            moved = Instant::now();
        }
    }

    /// Gives what was there when we came, and then what follows it; `None` where nobody listens
    /// any more.
    fn catch_up(&self, chain: LogChain, from: StreamOffset) -> Result<Option<Live>> {
        let offsets = Offsets::of(&chain)?;
        offsets.remember(&chain)?;
        let mut live = match &self.pool {
            Some(_) => Live::unnotified(&offsets, chain)?,
            None => Live::after(&offsets, chain)?,
        };
        Ok(self.past(&offsets, from, &mut live)?.then_some(live))
    }

    /// What was there when we came. `false`: nobody listens any more.
    fn past(&self, offsets: &Offsets, from: StreamOffset, live: &mut Live) -> Result<bool> {
        let mut at = from;
        loop {
            let mut run = match offsets.from(at, u64::MAX)? {
                Lookup::Run(run) => run,
                Lookup::Gone { next, .. } => {
                    let size = next.bytes_since(at);
                    if !self.send(Tapped::Missing { next, size }, live)? {
                        return Ok(false);
                    }
                    at = next;
                    continue;
                }
                Lookup::Beyond { .. } => return Ok(true),
            };
            let next = run.next();
            // At the start as well: the run that stored the bytes before a gap ended before it
            // could mark the gap.
            if run.follows_gap() && at > StreamOffset::START {
                let size = None;
                if !self.send(Tapped::Missing { next: at, size }, live)? {
                    return Ok(false);
                }
            }
            while at < next {
                let mut bytes = Vec::new();
                let read = run.by_ref().take(BLOCK as u64).read_to_end(&mut bytes);
                read.map_err(|e| chain::Error::of_io(e, self.path.clone()))?;
                let (offset, count) = (at, bytes.len() as u64);
                if count == 0 {
                    // Cut from outside since we looked.
                    return Ok(true);
                }
                let tapped = Tapped::Bytes {
                    offset,
                    bytes,
                    memory: Memory::default(),
                };
                if !self.send(tapped, live)? {
                    return Ok(false);
                }
                at = at.saturating_add(count);
            }
        }
    }

    /// `false`: nobody listens any more.
    fn send(&self, tapped: Tapped, live: &mut Live) -> Result<bool> {
        if let Some(pool) = &self.pool {
            return self.send_in(pool, tapped, live);
        }
        let mut tapped = tapped;
        loop {
            match self.out.try_send(tapped) {
                Ok(()) => return Ok(true),
                Err(TrySendError::Closed(_)) => return Ok(false),
                Err(TrySendError::Full(back)) => tapped = back,
            }
            live.hold()?;
            pause(LOOK);
        }
    }

    /// The same on a thread of the runtime, with memory of the pool.
    fn send_in(&self, pool: &StreamPool, mut tapped: Tapped, live: &mut Live) -> Result<bool> {
        let runtime = Handle::current();
        loop {
            let room = async { (self.out.reserve().await, pool.memory().await) };
            let room = async { timeout(LOOK_OF_MANY, room).await };
            match runtime.block_on(room) {
                Ok((Ok(place), given)) => {
                    if let Tapped::Bytes { bytes, memory, .. } = &mut tapped {
                        *memory = given;
                        memory.keep(bytes.len());
                    }
                    place.send(tapped);
                    return Ok(true);
                }
                Ok((Err(_), _)) => return Ok(false),
                Err(_) => live.hold()?,
            }
        }
    }
}
