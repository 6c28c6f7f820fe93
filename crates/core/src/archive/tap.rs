//! Reads a log on a thread of its own, so that files are taken hold of at every
//! rollover however slow the transport is.
//!
//! Must not know: transports.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::chain::{self, LogChain};
use crate::live::{Live, News};
use crate::offsets::{Lookup, Offsets, Result};
use crate::pause::pause;
use crate::stream::StreamOffset;

const BLOCK: usize = 64 * 1024;

/// Blocks read ahead of the transport.
const AHEAD: usize = 16;

/// Time between two looks while nobody takes what was read.
const LOOK: Duration = Duration::from_millis(20);

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
    },
    Missing {
        next: StreamOffset,
        size: Option<u64>,
    },
    /// Asked to end, and this was all.
    End,
    Failed(crate::offsets::Error),
}

/// The thread's handle. Dropping it stops the thread.
pub(super) struct Tap {
    pub(super) out: mpsc::Receiver<Tapped>,
    asked: Arc<AtomicBool>,
    drain: Arc<AtomicBool>,
}

impl Tap {
    /// Reads `chain` from `from` on, which must not be behind its end.
    pub(super) fn start(chain: LogChain, from: StreamOffset) -> std::io::Result<Self> {
        let (sender, out) = mpsc::channel(AHEAD);
        let (asked, drain) = (Arc::default(), Arc::default());
        let work = Work {
            path: chain.path(),
            out: sender,
            asked: Arc::clone(&asked),
            drain: Arc::clone(&drain),
        };
        let thread = thread::Builder::new().name("logchain-tap".to_owned());
        thread.spawn(move || {
            let end = match work.run(chain, from) {
                Ok(()) => Tapped::End,
                Err(e) => Tapped::Failed(e),
            };
            // Fails only where nobody listens any more.
            let _ = work.out.blocking_send(end);
        })?;
        Ok(Self { out, asked, drain })
    }

    /// Reads what is there and ends; with `drain` only once nothing came for a while.
    pub(super) fn end(&self, drain: bool) {
        self.drain.store(drain, Ordering::Release);
        self.asked.store(true, Ordering::Release);
    }
}

struct Work {
    path: PathBuf,
    out: mpsc::Sender<Tapped>,
    asked: Arc<AtomicBool>,
    drain: Arc<AtomicBool>,
}

impl Work {
    fn run(&self, chain: LogChain, from: StreamOffset) -> Result<()> {
        let offsets = Offsets::of(&chain)?;
        offsets.remember(&chain)?;
        let mut live = Live::after(&offsets, chain)?;
        if !self.past(&offsets, from, &mut live)? {
            return Ok(());
        }
        drop(offsets);
        let mut block = vec![0; BLOCK];
        let mut moved = Instant::now();
        while !self.out.is_closed() {
            // Before the look: what comes after it is not waited for.
            let asked = self.asked.load(Ordering::Acquire);
            let tapped = match live.read(&mut block)? {
                News::Bytes(count) => Tapped::Bytes {
                    offset: live.offset().saturating_sub(count as u64),
                    bytes: block.get(..count).unwrap_or_default().to_vec(),
                },
                News::Missing { size } => Tapped::Missing {
                    next: live.offset(),
                    size,
                },
                News::None => {
                    let rest = !self.drain.load(Ordering::Acquire) || moved.elapsed() > AT_REST;
                    if asked && rest {
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
                if !self.send(Tapped::Bytes { offset, bytes }, live)? {
                    return Ok(false);
                }
                at = at.saturating_add(count);
            }
        }
    }

    /// `false`: nobody listens any more.
    fn send(&self, tapped: Tapped, live: &mut Live) -> Result<bool> {
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
}
