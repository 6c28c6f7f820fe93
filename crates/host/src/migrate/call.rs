//! The migration itself: libvirt's call, how far it is, and its cancelling.
//!
//! Must not know: logs.

use std::pin::pin;
use std::time::{Duration, Instant};

use logchain_core::OkLogged as _;
use logchain_core::handoff::offer::Source;
use logchain_libvirt::migrate::{self, JobProgress};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Migration;
use crate::progress::{Amount, Phase};

/// Between two looks at how far the migration is.
const LOOK: Duration = Duration::from_millis(500);

/// Between two tries to cancel it.
const CANCEL: Duration = Duration::from_millis(200);

/// How long cancelling waits for the first bytes of memory or disks. libvirt 9.0 that is asked
/// to cancel while it tells QEMU to begin can miss QEMU's word that it did, and waits for
/// it without end. Where the destination is silent none are sent ever.
const EARLY: Duration = Duration::from_secs(3);

impl Migration<'_> {
    /// The migration itself, with its progress; a signal cancels it at the source.
    /// Gives libvirt's answer, and whether it took the cancelling.
    pub(super) async fn call(
        &self,
        mut source: watch::Receiver<Source>,
    ) -> (Result<(), logchain_libvirt::Error>, bool) {
        let (domain, dest, request) = (
            self.domain.clone(),
            self.dest.clone(),
            self.options.request.clone(),
        );
        let mut call =
            tokio::spawn(async move { migrate::migrate(&domain, dest.as_ref(), &request).await });
        let mut looks = pin!(self.look());
        let mut again = interval(CANCEL);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cancelled = false;
        let mut asked = None;
        let answer = loop {
            tokio::select! {
                answer = &mut call => break answer,
                Ok(()) = source.changed() => {
                    let stands = *source.borrow_and_update() == Source::Stopped;
                    if !self.stop.is_asked() {
                        self.meter.enter(if stands { Phase::Switchover } else { Phase::Memory });
                    }
                }
                // Beside all else: a slow answer must not hold up the end.
                () = &mut looks, if self.meter.is_wanted() => {}
                // Until it is over: at first there is no job yet that could be cancelled.
                _ = again.tick(), if self.stop.is_asked() => {
                    self.meter.enter(Phase::Undo);
                    let since = *asked.get_or_insert_with(Instant::now);
                    if since.elapsed() > EARLY || self.is_copying().await {
                        cancelled |= migrate::abort(&self.domain).await.is_ok();
                    }
                }
                // Polled anew, and then the branch above is open.
                () = self.stop.asked(), if !self.stop.is_asked() => {}
            }
        };
        let answer = answer.unwrap_or_else(|e| {
            let action = "migrate".to_owned();
            Err(logchain_libvirt::Error::Machine {
                action,
                message: e.to_string(),
            })
        });
        (answer, cancelled)
    }

    /// Whether anything of the guest has been sent.
    async fn is_copying(&self) -> bool {
        self.job().await.is_some_and(|job| job.processed > 0)
    }

    /// How far libvirt is, where a job is under way and it says so in time.
    async fn job(&self) -> Option<JobProgress> {
        let progress = timeout(LOOK, migrate::progress(&self.domain)).await;
        progress
            .ok()?
            .ok_logged("this look at the migration's progress is left out")?
    }

    /// Looks at how far libvirt is, without end.
    async fn look(&self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let Some(job) = self.job().await else {
                continue;
            };
            let part = |total: u64, left| Amount {
                done: total.saturating_sub(left),
                total,
            };
            // All is 0 while the destination is prepared.
            if job.memory_total > 0 {
                let disks = (job.disk_total > 0).then(|| part(job.disk_total, job.disk_remaining));
                let memory = part(job.memory_total, job.memory_remaining);
                self.meter.copied(memory, disks);
            }
        }
    }
}
