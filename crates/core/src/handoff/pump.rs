//! Reads a growing chain on a thread of its own, so that descriptors are taken
//! at every rollover however slow the transport is.
//!
//! Must not know: transports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::follow::{self, Followed, Follower, Missed, Piece, Writer, Writers};

/// Bytes in a piece at most.
pub(super) const PIECE: usize = 1 << 20;

/// Pieces read ahead of the transport.
const AHEAD: usize = 4;

/// Time between two looks: far below the time in which a guest fills a file.
const LOOK: Duration = Duration::from_millis(10);

/// Where the file system does not tell of writers: no growth for this long is an end.
const AT_REST: Duration = Duration::from_secs(1);

/// A log that still has a writer after this is not over.
const DRAIN: Duration = Duration::from_secs(30);

/// What comes out.
pub(super) enum Pumped {
    Piece(Piece),
    /// The source is over: nothing comes any more.
    Drained(Drained),
    Failed(String),
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
}

/// The thread's handle. Dropping it stops the thread.
pub(super) struct Pump {
    out: mpsc::Receiver<Pumped>,
    over: Arc<AtomicBool>,
    thread: thread::Thread,
}

impl Pump {
    pub(super) fn start(follower: Follower, writers: Arc<dyn Writers>) -> std::io::Result<Self> {
        let (sender, out) = mpsc::channel(AHEAD);
        let over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&over);
        let thread = thread::Builder::new()
            .name("logchain-pump".to_owned())
            .spawn(move || {
                let end = match run(follower, &*writers, &sender, &flag) {
                    Ok(Some(drained)) => Pumped::Drained(drained),
                    Ok(None) => return,
                    Err(reason) => Pumped::Failed(reason),
                };
                // Fails only where nobody listens any more.
                let _ = sender.blocking_send(end);
            })?;
        Ok(Self {
            out,
            over,
            thread: thread.thread().clone(),
        })
    }

    /// The source is over: read to the end and say when it is reached.
    pub(super) fn drain(&self) {
        self.over.store(true, Ordering::Release);
        self.thread.unpark();
    }

    pub(super) async fn next(&mut self) -> Option<Pumped> {
        self.out.recv().await
    }
}

/// `None`: nobody listens any more.
fn run(
    mut follower: Follower,
    writers: &dyn Writers,
    out: &mpsc::Sender<Pumped>,
    over: &AtomicBool,
) -> Result<Option<Drained>, String> {
    let text = |e: follow::Error| e.to_string();
    let mut hasher = blake3::Hasher::new();
    let mut drain_from = None;
    let mut moved = Instant::now();
    while !out.is_closed() {
        let flush = over.load(Ordering::Acquire);
        follower.refresh(writers).map_err(text)?;
        let mut dry = false;
        while let Ok(place) = out.try_reserve() {
            let Some(piece) = follower.next(PIECE, flush).map_err(text)? else {
                dry = true;
                break;
            };
            hasher.update(&piece.bytes);
            moved = Instant::now();
            place.send(Pumped::Piece(piece));
        }
        if flush && dry {
            let since = *drain_from.get_or_insert_with(Instant::now);
            let over = match follower.drained(writers).map_err(text)? {
                Writer::None => true,
                Writer::Unknown => moved.elapsed() > AT_REST && since.elapsed() > AT_REST,
                Writer::Some => false,
            };
            if over {
                return Ok(Some(Drained {
                    bytes: follower.offset(),
                    digest: hasher.finalize().to_hex().to_string(),
                    missed: follower.missed().to_vec(),
                    files: follower.files(),
                }));
            }
            if since.elapsed() > DRAIN {
                return Err(format!(
                    "the log at the source still has a writer {} s after its guest was gone",
                    DRAIN.as_secs()
                ));
            }
        }
        thread::park_timeout(LOOK);
    }
    Ok(None)
}
