//! Waiting, always with a bound and always interruptible.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use logchain_tests::LabError;

use crate::process::{interrupted, pause};

/// Nova answers slower than this is asked.
const POLL: Duration = Duration::from_millis(200);

/// Asks `probe` until it has something, at most for `limit`; `what` is what the error says was
/// waited for.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if interrupted() {
            return Err(LabError::Interrupted.into());
        }
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if started.elapsed() > limit {
            bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        pause(POLL);
    }
}

/// Waits for so long.
pub(crate) fn rest(time: Duration) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < time {
        if interrupted() {
            return Err(LabError::Interrupted.into());
        }
        pause(POLL);
    }
    Ok(())
}
