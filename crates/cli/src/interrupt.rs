//! INT, TERM and HUP: all of them ask this process to end cleanly.
//!
//! The first one asks; a second one, and only that, bounds how long it may take.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Closer together they are one: a terminal that is closed sends two at once, and so
/// does `timeout`.
const ONE: Duration = Duration::from_millis(500);

/// What is left to the clean-up after a second one.
const GRACE: Duration = Duration::from_secs(10);

/// How often this process was asked to end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    count: watch::Receiver<u32>,
}

impl Interrupt {
    /// From now on no signal of these ends the process by itself. One that is
    /// ignored (`nohup`) stays so.
    pub(crate) fn catch() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored(&status);
        let (tell, mut told) = mpsc::channel(1);
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            let bit = u32::try_from(kind.as_raw_value().saturating_sub(1)).unwrap_or(0);
            if ignored.checked_shr(bit).unwrap_or(0) & 1 == 1 {
                continue;
            }
            let mut signals = signal(kind)?;
            let tell = tell.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() && tell.send(()).await.is_ok() {}
            });
        }
        let counter = watch::Sender::new(0_u32);
        let count = counter.subscribe();
        tokio::spawn(async move {
            // So that it is never dropped, whatever is ignored.
            let _held = tell;
            let mut last: Option<Instant> = None;
            while told.recv().await.is_some() {
                if last.is_none_or(|last| last.elapsed() > ONE) {
                    counter.send_modify(|n| *n = n.saturating_add(1));
                }
                last = Some(Instant::now());
            }
        });
        Ok(Self { count })
    }

    /// Whether it was asked at all.
    pub(crate) fn came(&self) -> bool {
        self.count() > 0
    }

    pub(crate) fn count(&self) -> u32 {
        *self.count.borrow()
    }

    /// Waits until it is asked, or was.
    pub(crate) async fn first(&self) {
        self.after(0).await;
    }

    /// Waits until it is asked more often than `seen` times.
    pub(crate) async fn after(&self, seen: u32) {
        let mut count = self.count.clone();
        if count.wait_for(|n| *n > seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a second one, and for as long as is left to the clean-up then.
    pub(crate) async fn forced(&self) {
        self.after(1).await;
        tokio::time::sleep(GRACE).await;
    }

    /// Work that has begun nothing yet, and that may be dropped anywhere.
    pub(crate) async fn or<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            () = self.first() => anyhow::bail!("interrupted before anything was begun"),
            done = work => done,
        }
    }

    #[cfg(test)]
    pub(crate) fn of(count: watch::Receiver<u32>) -> Self {
        Self { count }
    }
}

/// The signals that a process ignores, lowest bit first, from its status in /proc.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_process_status() {
        let hup = "Name:\tx\nSigBlk:\t00000000000000ff\nSigIgn:\t0000000000001001\nSigCgt:\t2\n";
        assert_eq!(ignored(hup), 0x1001);
        assert_eq!(ignored(""), 0);
        assert_eq!(ignored("SigIgn:\tnonsense\n"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_second_one_bounds_the_clean_up() {
        let count = watch::Sender::new(0);
        let interrupt = Interrupt::of(count.subscribe());
        assert!(interrupt.or(async { Ok(()) }).await.is_ok());
        count.send_replace(1);
        assert!(interrupt.came());
        assert!(interrupt.or(async { Ok(()) }).await.is_err());
        let long = Duration::from_secs(3600);
        assert!(
            tokio::time::timeout(long, interrupt.forced())
                .await
                .is_err()
        );
        count.send_replace(2);
        assert!(
            tokio::time::timeout(GRACE * 2, interrupt.forced())
                .await
                .is_ok()
        );
    }
}
