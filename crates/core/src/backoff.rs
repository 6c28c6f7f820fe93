//! How long to wait before something is tried again, and when to give up.
//!
//! Pure: whoever tries says how much time has passed, and does the waiting.
//!
//! Must not know: what is tried.
//!
//! ```
//! use std::time::Duration;
//! use logchain_core::backoff::Backoff;
//!
//! let ms = Duration::from_millis;
//! const TWICE: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(1))
//!     .with_tries(2);
//! let mut waits = TWICE.start();
//! assert_eq!(waits.next(ms(5)), Some(ms(100)));
//! assert_eq!(waits.next(ms(110)), Some(ms(200)));
//! assert_eq!(waits.next(ms(315)), None, "tried again twice");
//! ```

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The waits between tries: each twice as long as the one before, up to a longest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
    limit: Duration,
    is_spread: bool,
}

impl Backoff {
    /// Always the same wait, without end.
    #[must_use]
    pub const fn every(wait: Duration) -> Self {
        Self::doubling(wait, wait)
    }

    /// From `first` on each wait is twice as long as the one before, but never longer than
    /// `longest`; without end.
    #[must_use]
    pub const fn doubling(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            tries: u32::MAX,
            limit: Duration::MAX,
            is_spread: false,
        }
    }

    /// So many further tries at most.
    #[must_use]
    pub const fn with_tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// No further try later than this after the first one.
    #[must_use]
    pub const fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Each wait is between a half and one and a half of what it would be. For a host that
    /// turns callers away when many come at once: they come back at different times.
    #[must_use]
    pub const fn spread(mut self) -> Self {
        self.is_spread = true;
        self
    }

    /// The wait after so many failures, without bounds or spread; none after none.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(n) => (self.first.saturating_mul(2_u32.saturating_pow(n))).min(self.longest),
        }
    }

    /// The first try is made now.
    #[must_use]
    pub fn start(self) -> Waits {
        self.seeded(RandomState::new().build_hasher().finish())
    }

    fn seeded(self, seed: u64) -> Waits {
        Waits {
            backoff: self,
            taken: 0,
            seed,
        }
    }
}

/// The waits of one series of tries.
#[derive(Clone, Debug)]
pub struct Waits {
    backoff: Backoff,
    taken: u32,
    seed: u64,
}

impl Waits {
    /// How long to wait before the next try; `None` where there is none. `elapsed`: the time
    /// since the first try began.
    pub fn next(&mut self, elapsed: Duration) -> Option<Duration> {
        let Backoff {
            tries,
            limit,
            is_spread,
            ..
        } = self.backoff;
        if self.taken >= tries {
            return None;
        }
        let taken = self.taken.saturating_add(1);
        let mut wait = self.backoff.after(taken);
        if is_spread {
            wait = spread(wait, self.seed);
            // Knuth's multiplier: the next wait is spread by other bits.
            let next = self.seed.wrapping_mul(6_364_136_223_846_793_005);
            self.seed = next.wrapping_add(1).rotate_left(32);
        }
        if elapsed.saturating_add(wait) > limit {
            return None;
        }
        self.taken = taken;
        Some(wait)
    }
}

/// Between a half and one and a half of it.
fn spread(wait: Duration, dice: u64) -> Duration {
    let part = u32::try_from(dice % 1024).unwrap_or_default();
    wait / 2 + wait.saturating_mul(part) / 1024
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        let backoff = Backoff::doubling(ms(50), ms(300));
        let mut waits = backoff.start();
        let taken: Vec<_> = (0..5)
            .filter_map(|_| waits.next(Duration::MAX / 2))
            .collect();
        assert_eq!(taken, [ms(50), ms(100), ms(200), ms(300), ms(300)]);
        assert_eq!(backoff.after(0), Duration::ZERO);
        assert_eq!(backoff.after(u32::MAX), ms(300));
    }

    #[test]
    fn none_is_spread_out_of_bounds() {
        assert_eq!(spread(ms(100), 0), ms(50));
        assert!(spread(ms(100), 1023) > ms(149) && spread(ms(100), 1023) < ms(150));
    }

    proptest! {
        #[test]
        fn it_ends_in_time_and_after_its_tries(
            first in 1_u64..1000,
            longest in 1_u64..5000,
            tries in 0_u32..20,
            limit in 0_u64..20_000,
            seed: u64,
        ) {
            let backoff = Backoff::doubling(ms(first), ms(longest)).with_tries(tries);
            let mut waits = backoff.within(ms(limit)).spread().seeded(seed);
            let (mut elapsed, mut taken) = (Duration::ZERO, 0);
            while let Some(wait) = waits.next(elapsed) {
                prop_assert!(wait <= ms(longest) * 3 / 2);
                elapsed += wait;
                taken += 1;
                prop_assert!(taken <= tries && elapsed <= ms(limit));
            }
        }
    }
}
