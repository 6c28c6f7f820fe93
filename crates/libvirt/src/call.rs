//! One call into libvirt: on a thread of its own, waited for no longer than a limit.
//!
//! Not on the runtime's pool: a runtime that ends waits for its pool, and a call
//! to a host that hangs can take minutes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

/// How many calls may be under way at once; one that hangs keeps its place.
const AT_ONCE: usize = 64;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// libvirt's own answer; `alive` is whether the connection still stands.
    Libvirt {
        error: virt::error::Error,
        alive: bool,
    },
    /// None within the limit. The call goes on behind our back.
    NoAnswer(Duration),
    /// No thread to be had, or a panic.
    Machine(String),
}

/// Runs `call` and waits for its answer, for ever where there is no `limit`.
pub(crate) async fn call<T, F>(limit: Option<Duration>, call: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Failure> + Send + 'static,
{
    let slots = slots();
    let work = async move {
        let permit = slots
            .acquire_owned()
            .await
            .map_err(|_| Failure::Machine("no call may be made any more".to_owned()))?;
        let (tell, told) = oneshot::channel();
        let body = move || {
            let answer = catch_unwind(AssertUnwindSafe(call))
                .unwrap_or_else(|_| Err(Failure::Machine("the call panicked".to_owned())));
            drop(permit);
            // Nobody listens any more where the limit passed.
            drop(tell.send(answer));
        };
        thread::Builder::new()
            .name("libvirt-call".to_owned())
            .spawn(body)
            .map_err(|e| Failure::Machine(format!("no thread for it: {e}")))?;
        told.await
            .unwrap_or_else(|_| Err(Failure::Machine("the call ended silently".to_owned())))
    };
    match limit {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work)
            .await
            .unwrap_or(Err(Failure::NoAnswer(limit))),
    }
}

/// Runs `work` later, on a thread of its own, for what nobody waits for.
pub(crate) fn aside(work: impl FnOnce() + Send + 'static) {
    // Where no thread is to be had, the closure is dropped, and with it what it holds.
    drop(
        thread::Builder::new()
            .name("libvirt-close".to_owned())
            .spawn(work),
    );
}

fn slots() -> Arc<Semaphore> {
    use std::sync::OnceLock;
    static SLOTS: OnceLock<Arc<Semaphore>> = OnceLock::new();
    Arc::clone(SLOTS.get_or_init(|| Arc::new(Semaphore::new(AT_ONCE))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn a_call_that_hangs_is_given_up() {
        let began = Instant::now();
        let limit = Duration::from_millis(50);
        let (_hold, held) = std::sync::mpsc::channel::<()>();
        let answer = call(Some(limit), move || {
            let _ = held.recv();
            Ok(())
        })
        .await;
        assert!(matches!(answer, Err(Failure::NoAnswer(l)) if l == limit));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let answer = call(None, || -> Result<(), Failure> { panic!("on purpose") }).await;
        assert!(matches!(answer, Err(Failure::Machine(_))));
    }
}
