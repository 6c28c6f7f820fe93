//! The caller's wish that a job ends: a program passes its signals on as this.
//!
//! The first request asks a job to end cleanly, however long that takes. The second one
//! bounds it: what is not in order [`GRACE`] later is left as it is, which every job
//! survives, since it takes up next time what it finds.
//!
//! Must not know: signals, or what a job does.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use crate::{Error, Result};

/// How long a job has for its clean-up after the second request.
pub const GRACE: Duration = Duration::from_secs(10);

/// Asks a job to end. Dropped, it asks for nothing any more.
#[derive(Debug)]
pub struct StopRequest(watch::Sender<u32>);

/// How often a job was asked to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<u32>);

/// The two ends: one for whoever may ask, one for the job.
#[must_use]
pub fn stop() -> (StopRequest, Stop) {
    let (request, stop) = watch::channel(0);
    (StopRequest(request), Stop(stop))
}

impl StopRequest {
    /// Asks once more.
    pub fn ask(&self) {
        self.0.send_modify(|n| *n = n.saturating_add(1));
    }
}

impl Stop {
    /// For a job that runs to its end.
    #[must_use]
    pub fn never() -> Self {
        stop().1
    }

    /// Whether it was asked at all.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.count() > 0
    }

    pub(crate) fn count(&self) -> u32 {
        *self.0.borrow()
    }

    /// Waits for the first request.
    pub async fn asked(&self) {
        self.after(0).await;
    }

    /// Waits for a request beyond the first `seen` ones.
    pub(crate) async fn after(&self, seen: u32) {
        let mut count = self.0.clone();
        if count.wait_for(|n| *n > seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the second request, and for the time that the clean-up has then.
    pub(crate) async fn forced(&self) {
        self.after(1).await;
        tokio::time::sleep(GRACE).await;
    }

    /// Runs work that has begun nothing yet, so that it may be dropped at any point.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where the request comes first; what the work fails with.
    pub(crate) async fn or<T, E: Into<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            () = self.asked() => {
                Err(Error::Interrupted("interrupted before anything was begun".to_owned()))
            }
            done = work => done.map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn only_a_second_request_bounds_the_clean_up() {
        let (request, stop) = stop();
        assert!(stop.or(async { Ok::<_, Error>(()) }).await.is_ok());
        request.ask();
        assert!(stop.is_asked());
        assert!(stop.or(async { Ok::<_, Error>(()) }).await.is_err());
        let long = Duration::from_secs(3600);
        assert!(timeout(long, stop.forced()).await.is_err());
        request.ask();
        assert!(timeout(GRACE * 2, stop.forced()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_a_job_that_runs_to_its_end() {
        let never = Stop::never();
        let long = Duration::from_secs(3600);
        assert!(timeout(long, never.asked()).await.is_err());
    }
}
