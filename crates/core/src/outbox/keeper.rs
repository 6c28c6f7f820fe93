//! Holds a log from before its VM leaves until it is known to have arrived: should
//! its files go meanwhile, its bytes are here still.
//!
//! It reads nothing until it has to: the descriptors keep the bytes. A thread looks
//! for rollovers, so that their files are held too.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::debug;

use super::{EndedBoot, Entry, Error, Outbox, PutDown, Result};
use crate::OkLogged as _;
use crate::follow::{Follower, Writer, Writers};
use crate::pause::pause;
use crate::record::{Offered, Record};
use crate::sentence;

/// Between two looks for a rollover: far below the time in which a guest fills a file.
const LOOK: Duration = Duration::from_millis(20);

/// A log that nobody has written for this long is over, where the file system does
/// not tell of writers.
const AT_REST: Duration = Duration::from_secs(1);

/// One that still has a writer after this is put down as it is then.
const DRAIN: Duration = Duration::from_secs(30);

/// Holds a log. Dropped, it lets go.
pub struct Keeper {
    stop: Arc<AtomicBool>,
    left: Arc<AtomicBool>,
    thread: Option<JoinHandle<Follower>>,
    writers: Arc<dyn Writers>,
    record: Record,
    committed: Arc<OnceLock<Offered>>,
}

/// What became of a log that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepOutcome {
    /// Its files are where they were.
    There,
    /// They are not, or will not be for long, and it was put down.
    PutDown(Entry),
    /// There is nothing in them.
    Empty,
}

impl Keeper {
    /// Starts to hold what `held` holds. `committed` is filled in once the handoff of
    /// it is.
    ///
    /// # Errors
    /// The system's, where no thread can be started.
    pub fn start(
        held: Follower,
        record: Record,
        committed: Arc<OnceLock<Offered>>,
        writers: Arc<dyn Writers>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let left = Arc::new(AtomicBool::new(false));
        let signals = (Arc::clone(&stop), Arc::clone(&left));
        let sees = Arc::clone(&writers);
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || watch(held, (&signals.0, &signals.1), &*sees))?;
        Ok(Self {
            stop,
            left,
            thread: Some(thread),
            writers,
            record,
            committed,
        })
    }

    /// The guest has left. Once nobody writes what it wrote, the log is over: what a guest that comes
    /// back writes under its names is no part of it. Does not wait.
    pub fn guest_left(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// The log was not carried, and its guest is gone: where its files are not found
    /// at `path` any more, or are `about_to_go`, puts it down. Blocks, at most half a
    /// minute and the time that copying takes.
    pub fn put_down(
        mut self,
        path: &Path,
        about_to_go: bool,
        outbox: &Outbox,
    ) -> Result<KeepOutcome> {
        self.stop.store(true, Ordering::Release);
        let Some(Ok(held)) = self.thread.take().map(JoinHandle::join) else {
            return Err(Error::NotHeld {
                path: path.to_owned(),
            });
        };
        let kept = Kept {
            held,
            record: &self.record,
            committed: self.committed.get(),
        };
        // Of a guest that left the thread has waited for the end.
        let has_ended = self.left.load(Ordering::Acquire);
        let writers = (!has_ended).then_some(&*self.writers);
        kept.put_down(path, about_to_go, writers, outbox)
    }
}

/// A log that is held, of which nothing was read.
pub(crate) struct Kept<'a> {
    pub(crate) held: Follower,
    /// The record as it was beside the files.
    pub(crate) record: &'a Record,
    /// What was committed of it, if anything was.
    pub(crate) committed: Option<&'a Offered>,
}

impl Kept<'_> {
    /// As [`Keeper::put_down`]. `writers`: who has to stop writing it first, if anybody.
    pub(crate) fn put_down(
        mut self,
        path: &Path,
        about_to_go: bool,
        writers: Option<&dyn Writers>,
        outbox: &Outbox,
    ) -> Result<KeepOutcome> {
        let is_there = self.held.is_found(path)?;
        if is_there && !about_to_go {
            return Ok(KeepOutcome::There);
        }
        if let Some(writers) = writers {
            wait_for_the_end(&mut self.held, writers)?;
        }
        self.put_as_it_is((is_there.then_some(path), None), outbox)
    }

    /// Puts down what is held now, and waits for nobody. `there`: the path of the base
    /// file, if its files are there still. `ended`: whether a boot of the VM ended it.
    pub(crate) fn put_as_it_is(
        self,
        (there, ended): (Option<&Path>, Option<EndedBoot>),
        outbox: &Outbox,
    ) -> Result<KeepOutcome> {
        if self.held.files().iter().all(|file| file.size == 0) {
            return Ok(KeepOutcome::Empty);
        }
        let log = PutDown {
            held: &self.held,
            record: self.record,
            committed: self.committed,
            there,
            ended,
        };
        outbox.put(&log).map(KeepOutcome::PutDown)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // What is let go of has no end to be waited for.
        self.left.store(false, Ordering::Release);
        self.stop.store(true, Ordering::Release);
    }
}

fn watch(
    mut held: Follower,
    (stop, left): (&AtomicBool, &AtomicBool),
    writers: &dyn Writers,
) -> Follower {
    let mut fails = false;
    loop {
        // Also where it is put down at once.
        if left.load(Ordering::Acquire) {
            let waited = wait_for_the_end(&mut held, writers);
            waited.ok_logged("what is held is put down as it is");
            return held;
        }
        if stop.load(Ordering::Acquire) {
            return held;
        }
        let refreshed = held.refresh(writers);
        // It may pass; what is held is held. Told once, not at each look.
        match refreshed {
            Err(error) if !fails => {
                debug!(error = %sentence(&error), "what is held stays held; looked at again");
                fails = true;
            }
            Err(_) => {}
            Ok(_) => fails = false,
        }
        pause(LOOK);
    }
}

/// Waits until nobody writes it.
fn wait_for_the_end(held: &mut Follower, writers: &dyn Writers) -> Result<()> {
    let start = Instant::now();
    let (mut before, mut moved) = (held.bytes(), Instant::now());
    while start.elapsed() < DRAIN {
        held.refresh(writers)?;
        let written = held.written(writers)?;
        let now = held.bytes();
        if now != before {
            (before, moved) = (now, Instant::now());
        }
        match written {
            Writer::None => return Ok(()),
            Writer::Unknown if moved.elapsed() > AT_REST => return Ok(()),
            Writer::Unknown | Writer::Some => pause(LOOK),
        }
    }
    Ok(())
}
