//! A tenant who reads the console of a server again and again, and what they saw.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::api::Api;
use super::lines::Lines;
use crate::process::pause;

/// Between two reads.
const PAUSE: Duration = Duration::from_millis(100);
/// Nova's reader gives at most 100 KiB, and drops the carriage returns of these. Beyond this size
/// an answer that is a bit shorter has lost nothing.
const MOST: usize = 96 * 1024;

/// What somebody saw who read all the time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    count: u32,
    /// Reads that Nova answered with an error, and the last status.
    refused: u32,
    status: u16,
    /// Reads that gave less than an earlier one.
    fewer: u32,
    /// From the first such read to the one that gave as much again.
    longest: Duration,
    /// Reads with a line missing, double or torn between others.
    broken: u32,
    most: usize,
    short_since: Option<Instant>,
}

impl Reads {
    /// Whether there was more at one time than later.
    pub(crate) fn shrank(&self) -> bool {
        self.fewer > 0 || self.broken > 0
    }

    fn add(&mut self, answer: Result<String, u16>, now: Instant) {
        self.count += 1;
        let text = match answer {
            Ok(text) => text,
            Err(status) => {
                self.refused += 1;
                self.status = status;
                return;
            }
        };
        if Lines::of(text.as_bytes()).runs().len() > 1 {
            self.broken += 1;
        }
        let there = text.len().min(MOST);
        if there < self.most {
            self.fewer += 1;
            self.short_since.get_or_insert(now);
        } else {
            self.most = there;
        }
        if let Some(since) = self.short_since {
            self.longest = self.longest.max(now.duration_since(since));
        }
        if there == self.most {
            self.short_since = None;
        }
    }
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reads { count, fewer, .. } = self;
        match self.fewer {
            0 => write!(f, "{count}, none shorter")?,
            _ => write!(
                f,
                "{count}, {fewer} shorter for {:.1} s",
                self.longest.as_secs_f32()
            )?,
        }
        if self.broken > 0 {
            write!(f, ", {} with gaps", self.broken)?;
        }
        if self.refused > 0 {
            write!(f, ", {} refused ({})", self.refused, self.status)?;
        }
        Ok(())
    }
}

/// Reads the console of the server `id` all the time while `work` is done.
pub(crate) fn while_reading<T>(
    api: &Api,
    id: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Reads)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<Reads> {
            let mut reads = Reads::default();
            while !done.load(Ordering::Relaxed) {
                reads.add(api.console(id)?, Instant::now());
                pause(PAUSE);
            }
            Ok(reads)
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let reads = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((result?, reads?))
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Reads;

    #[test]
    fn what_a_reader_saw_is_summed_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let text = |length: usize| Ok("x".repeat(length));
        let mut reads = Reads::default();
        reads.add(text(10), at(0));
        reads.add(text(20), at(1));
        assert_eq!(reads.to_string(), "2, none shorter");
        assert!(!reads.shrank());
        reads.add(text(5), at(2));
        reads.add(Err(404), at(3));
        reads.add(text(19), at(4));
        reads.add(text(21), at(5));
        reads.add(text(20), at(6));
        assert_eq!(reads.to_string(), "7, 3 shorter for 3.0 s, 1 refused (404)");
        assert!(reads.shrank());
    }

    #[test]
    fn more_than_nova_gives_is_no_loss() {
        let mut reads = Reads::default();
        reads.add(Ok("x".repeat(100 * 1024)), Instant::now());
        reads.add(Ok("x".repeat(98 * 1024)), Instant::now());
        assert!(!reads.shrank());
    }
}
