//! A host that turns connections away because too many come at once (sshd's
//! `MaxStartups`) takes them a moment later: when to try again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;

/// The first pause, on the average.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause, on the average.
const LONGEST: Duration = Duration::from_secs(2);

/// Tries to connect, for as long as they may take together.
#[derive(Clone, Copy, Debug)]
pub struct Tries {
    end: Instant,
    pause: Duration,
}

impl Tries {
    /// From now on for so long.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        Self {
            end: Instant::now() + limit,
            pause: FIRST,
        }
    }

    /// Waits before the next one; `false` where there is none. Whoever was turned
    /// away together comes back apart.
    pub async fn again(&mut self) -> bool {
        let pause = spread(self.pause, RandomState::new().build_hasher().finish());
        if Instant::now() + pause >= self.end {
            return false;
        }
        self.pause = self.pause.saturating_mul(2).min(LONGEST);
        tokio::time::sleep(pause).await;
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
            Err(failure) if failure.turned_away && tries.again().await => {}
            other => return other,
        }
    }
}

/// Between a half and one and a half of it.
fn spread(pause: Duration, dice: u64) -> Duration {
    let part = u32::try_from(dice % 1024).unwrap_or_default();
    pause / 2 + pause.saturating_mul(part) / 1024
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

    #[test]
    fn pauses_are_spread() {
        let ms = Duration::from_millis;
        assert_eq!(spread(ms(100), 0), ms(50));
        assert!(spread(ms(100), 1023) > ms(149) && spread(ms(100), 1023) < ms(150));
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
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
