//! What many handoffs in one process may take together: bytes in memory, calls
//! under way, threads.
//!
//! Whoever wants something waits in line: no handoff is passed over, and one that
//! has nothing to send, or waits for the other half, holds nothing.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bounded::Bounded;
use super::memory::Memory;
use super::pool::Pool;
use crate::transport::LogTransport;

/// Bytes are counted in these.
const UNIT: usize = 1 << 10;

/// Time between two looks at the transport.
const LOOK: Duration = Duration::from_millis(25);

/// The same for one that is nearly alone and not told of what is new: the last bytes
/// of a log are on their way while its guest stands still.
const QUICK: Duration = Duration::from_millis(5);

/// The longest time between two looks.
const SELDOM: Duration = Duration::from_secs(1);

/// A look may take one part in so many of the time.
const SHARE: u32 = 8;

/// Compressed files that are read at once: a decoder takes some MiB.
const UNPACK: usize = 4;

/// How much all handoffs with one [`Budget`] take together. Files are not counted:
/// every file of every chain is held open. Nor is what the allocator keeps of memory
/// that was given back: glibc has eight arenas a processor by default, and each keeps
/// some MiB. A process that hands over many logs at once sets `MALLOC_ARENA_MAX=4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of pieces in memory; no less than is needed for one piece is taken.
    pub bytes: usize,
    /// Calls of the transport under way.
    pub calls: usize,
    /// Threads at work on files.
    pub threads: usize,
}

impl Default for Limits {
    /// One handoff alone is not held up by it; a thousand stay below 256 MiB, and with
    /// four arenas (see [`Limits`]) near 150.
    fn default() -> Self {
        Self {
            bytes: 48 << 20,
            calls: 32,
            threads: 16,
        }
    }
}

/// What many handoffs in one process may take together. Handoffs that are given
/// clones of one share it.
///
/// Handoffs whose transports can fail apart from each other are given a budget
/// for each transport: pieces for a host that hangs hold what they have.
#[derive(Clone)]
pub struct Budget {
    limits: Limits,
    bytes: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    unpack: Arc<Semaphore>,
    pool: Pool,
    memory: Memory,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Budget {
    /// One with these limits; of each there is at least one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let of = |n: usize| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            limits,
            bytes: of(limits.bytes / UNIT),
            calls: of(limits.calls),
            threads: of(limits.threads),
            unpack: of(UNPACK),
            pool: Pool::default(),
            memory: Memory::default(),
        }
    }

    /// Buffers of pieces, which all handoffs use again.
    pub(super) fn memory(&self) -> Memory {
        self.memory.clone()
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The transport, of which only so many calls are under way at once.
    pub(super) fn bound(&self, transport: &Arc<dyn LogTransport>) -> Arc<dyn LogTransport> {
        Arc::new(Bounded {
            inner: Arc::clone(transport),
            budget: self.clone(),
        })
    }

    /// Room for so many bytes; all there is for one who asks for more.
    pub(super) async fn room(self, bytes: usize) -> Room {
        let most = (self.limits.bytes / UNIT).max(1);
        let units = u32::try_from(units(bytes).min(most)).unwrap_or(u32::MAX);
        Room(self.bytes.acquire_many_owned(units).await.ok())
    }

    /// Leave to read a compressed file.
    pub(super) async fn unpack(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.unpack).acquire_owned().await.ok()
    }

    /// Leave to make a call of the transport.
    pub(super) async fn call(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        Arc::clone(&self.calls).acquire_owned().await.ok()
    }

    /// Runs file work on a thread that may block.
    pub(super) async fn work<T: Send + 'static, E: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let turn = Arc::clone(&self.threads).acquire_owned().await;
        super::blocking(move || {
            // Until it is done, also where nobody waits for it any more.
            let _turn = turn;
            work()
        })
        .await
    }
}

fn units(bytes: usize) -> usize {
    bytes / UNIT + 1
}

/// Room that is held. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// Gives back all but what so many bytes need.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(held) = &mut self.0 {
            let excess = held.num_permits().saturating_sub(units(bytes));
            drop(held.split(excess));
        }
    }
}

/// When a look at the transport comes again: soon, but where many wait their turn
/// each looks less often.
pub(super) struct Pace(Instant);

impl Pace {
    /// A look begins.
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// It is over: waits until the next one. `told`: of what is new one is told, and
    /// looks all the same.
    pub(super) async fn rest(self, budget: &Budget, told: bool) {
        // A look that took long because the machine is busy is no sign of many.
        let half = budget.limits.calls / 2;
        let alone = budget.calls.available_permits() > half;
        tokio::time::sleep(rest(self.0.elapsed(), alone, told)).await;
    }
}

fn rest(took: Duration, alone: bool, told: bool) -> Duration {
    match alone {
        true if told => LOOK,
        true => took.clamp(QUICK, LOOK),
        false => took.saturating_mul(SHARE).clamp(LOOK, SELDOM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_take_long_are_seldom() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(1), false, false), LOOK);
        assert_eq!(rest(ms(10), false, false), ms(80));
        assert_eq!(rest(ms(5000), false, true), SELDOM);
        assert_eq!(rest(ms(1), true, false), QUICK);
        assert_eq!(rest(ms(10), true, false), ms(10));
        assert_eq!(rest(ms(5000), true, false), LOOK);
        assert_eq!(rest(ms(1), true, true), LOOK);
    }

    #[tokio::test]
    async fn room_is_had_in_line_and_given_back() {
        let budget = Budget::new(Limits {
            bytes: 10 * UNIT,
            ..Limits::default()
        });
        let mut large = budget.clone().room(100 * UNIT).await;
        assert_eq!(budget.bytes.available_permits(), 0, "all there is");
        large.shrink(3 * UNIT);
        assert_eq!(budget.bytes.available_permits(), 6);
        // One that needs more than there is now is not passed over by small ones.
        let first = tokio::spawn(budget.clone().room(7 * UNIT));
        tokio::task::yield_now().await;
        let second = tokio::spawn(budget.clone().room(0));
        tokio::task::yield_now().await;
        assert!(!first.is_finished() && !second.is_finished());
        drop(large);
        let _both = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(budget.bytes.available_permits(), 1);
    }
}
