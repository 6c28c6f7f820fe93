//! Looks at the sizes of files, often, on a thread of its own, and says itself
//! how exact it was and what it cost.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Fallible;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// A look that saw something new.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) at: Instant,
    /// The look before it, which did not see it yet.
    pub(crate) before: Instant,
    pub(crate) sizes: Vec<u64>,
}

impl Look {
    /// What it saw came so long before it at the most.
    pub(crate) fn blur(&self) -> Duration {
        self.at.saturating_duration_since(self.before)
    }
}

/// All looks, and the share of a processor that they took, in percent.
pub(crate) struct Looks {
    pub(crate) seen: Vec<Look>,
    pub(crate) cost: f64,
}

pub(crate) struct Looking {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Looks>,
}

impl Looking {
    /// Sizes are looked at in the order of the paths.
    pub(crate) fn start(paths: Vec<PathBuf>) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            let mut seen: Vec<Look> = Vec::new();
            let began = Instant::now();
            let mut before = began;
            while !ended.load(Ordering::Acquire) {
                let at = Instant::now();
                let size = |path: &PathBuf| fs::metadata(path).map_or(0, |m| m.len());
                let sizes: Vec<u64> = paths.iter().map(size).collect();
                if seen.last().is_none_or(|last| last.sizes != sizes) {
                    seen.push(Look { at, before, sizes });
                }
                before = at;
                rest(LOOK);
            }
            let share = on_processor().as_secs_f64() / began.elapsed().as_secs_f64();
            let cost = share * 100.0;
            Looks { seen, cost }
        });
        Self { ends, thread }
    }

    pub(crate) fn end(self) -> Fallible<Looks> {
        self.ends.store(true, Ordering::Release);
        self.thread.join().map_err(|_| "the looks failed".into())
    }
}

/// How long this thread has been on a processor.
fn on_processor() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

#[expect(clippy::disallowed_methods, reason = "a thread that only looks")]
fn rest(time: Duration) {
    thread::sleep(time);
}
