//! Waiting, always with a bound and always interruptible.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::error::{LabError, Result, io_error};

/// How often a wait looks. Short beside everything that is waited for.
pub(crate) const POLL: Duration = Duration::from_millis(20);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The flag that ends every wait of every lab in this process with
/// [`LabError::Interrupted`]: for a signal handler to set, so that the stack
/// unwinds and the labs on it are dropped.
#[must_use]
pub fn interrupt_flag() -> Arc<AtomicBool> {
    Arc::clone(&INTERRUPTED)
}

pub(crate) fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(LabError::Interrupted);
    }
    Ok(())
}

/// Asks `probe` every 20 ms until it has something, at most for `limit`; `what`
/// is what the error says was waited for.
///
/// # Errors
/// [`LabError::Timeout`], [`LabError::Interrupted`], and what `probe` fails with.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        check_interrupt()?;
        if started.elapsed() >= limit {
            return Err(LabError::Timeout {
                what: what.to_owned(),
                limit,
                context: String::new(),
            });
        }
        pause(POLL);
    }
}

/// For [`until`]: a file's lock, if nobody else has it.
pub(crate) fn try_lock(file: &File, path: &Path) -> Result<Option<()>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(io_error("lock", path)(e)),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the lab is synchronous: its threads may block"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
