//! A host that turns connections away because too many come at once (sshd's
//! `MaxStartups`) takes them a moment later: when to try again.

use std::process::ExitStatus;
use std::time::Duration;

use logchain_core::backoff::{Backoff, Waits};
use tokio::time::Instant;
use tracing::debug;

use crate::failure::Failure;

/// Whoever was turned away together comes back apart.
const RETRY: Backoff =
    Backoff::doubling(Duration::from_millis(100), Duration::from_secs(2)).spread();

/// Tries to connect, for as long as they may take together.
#[derive(Clone, Debug)]
pub struct Tries {
    began: Instant,
    waits: Waits,
}

impl Tries {
    /// From now on for so long.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            waits: RETRY.within(limit).start(),
        }
    }

    /// Waits before the next one; `false` where there is none.
    pub async fn again(&mut self) -> bool {
        let Some(wait) = self.waits.next(self.began.elapsed()) else {
            return false;
        };
        tokio::time::sleep(wait).await;
        true
    }
}

/// Connects, again where the host turned it away, for as long as that may take.
pub(crate) async fn open<T, F>(limit: Duration, mut once: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut tries = Tries::within(limit);
    loop {
        match once().await {
            Err(failure) if failure.turned_away && tries.again().await => {
                debug!(reason = failure.sentence, "turned away: tried again");
            }
            other => return other,
        }
    }
}

/// Whether ssh says that it was turned away before it could log in, by a host that
/// may take it the next moment.
#[must_use]
pub fn is_turned_away(status: Option<ExitStatus>, stderr: &str) -> bool {
    of(status.and_then(|s| s.code()), stderr)
}

pub(crate) fn of(code: Option<i32>, stderr: &str) -> bool {
    let words = [
        "kex_exchange_identification:",
        "ssh_exchange_identification:",
        "Not allowed at this time",
    ];
    matches!(code, Some(255)) && words.iter().any(|w| stderr.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_turned_away_at_the_door_comes_again() {
        let door = "kex_exchange_identification: read: Connection reset by peer\r\n\
                    Connection reset by 192.0.2.2 port 22\r\n";
        assert!(of(Some(255), door));
        assert!(!of(Some(1), door), "the far command said it");
        for other in [
            "root@h2: Permission denied (publickey).",
            "ssh: connect to host h2 port 22: Connection refused",
            "",
        ] {
            assert!(!of(Some(255), other), "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tries_come_to_an_end() {
        let began = Instant::now();
        let mut tries = Tries::within(Duration::from_secs(10));
        let mut count = 0;
        while tries.again().await {
            count += 1;
        }
        assert!((5..30).contains(&count), "{count}");
        assert!(began.elapsed() <= Duration::from_secs(10));
    }
}
