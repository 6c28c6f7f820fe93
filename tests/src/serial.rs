//! One thread at a time has labs. A hypervisor with emulated processors fills the
//! machine; tests that run as threads of one process take turns. One thread may
//! have several labs side by side.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use crate::error::{LabError, Result};
use crate::wait::check_interrupt;

static HOLDER: Mutex<Option<(ThreadId, usize)>> = Mutex::new(None);
static FREED: Condvar = Condvar::new();

/// A thread's turn; it may end on another thread.
#[derive(Debug)]
pub(crate) struct Turn(());

impl Turn {
    /// Waits until no other thread has a lab.
    pub(crate) fn take(limit: Duration) -> Result<Turn> {
        let me = std::thread::current().id();
        let step = Duration::from_millis(100);
        let mut holder = HOLDER.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waited = Duration::ZERO;
        loop {
            match &mut *holder {
                None => *holder = Some((me, 1)),
                Some((thread, labs)) if *thread == me => *labs += 1,
                Some(_) => {
                    check_interrupt()?;
                    if waited >= limit {
                        return Err(LabError::Timeout {
                            what: "another thread's lab to end".to_owned(),
                            limit,
                            context: String::new(),
                        });
                    }
                    waited += step;
                    holder = FREED
                        .wait_timeout(holder, step)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                    continue;
                }
            }
            return Ok(Turn(()));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut holder = HOLDER.lock().unwrap_or_else(PoisonError::into_inner);
        *holder = match *holder {
            Some((thread, labs)) if labs > 1 => Some((thread, labs - 1)),
            _ => None,
        };
        FREED.notify_all();
    }
}
