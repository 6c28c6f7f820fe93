//! What the service manager is told, by the protocol of sd_notify: that the agent is ready, loads
//! its configuration anew, stops, and is alive. `descriptors`: what it keeps for the next agent.
//!
//! One datagram a message, to the socket that `NOTIFY_SOCKET` names. Outside of a service there
//! is none, and nothing is told. A message that cannot be sent is lost: the agent never waits for
//! its manager.
//!
//! Source: `man 3 sd_notify`, `man 3 sd_watchdog_enabled`.
//!
//! Must not know: what the agent does.

pub(super) mod descriptors;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A sign of life is sent no more often than this, however impatient the manager is.
const MOST_OFTEN: Duration = Duration::from_secs(1);

/// Tells the service manager.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says that the manager set for this process.
    ///
    /// # Errors
    /// The socket that is named cannot be used. The agent can go on with
    /// [`Notifier::default`], but its manager will take it for one that does not start.
    pub fn from_env() -> io::Result<Self> {
        Self::new(|name| std::env::var_os(name), std::process::id())
    }

    pub(super) fn new(
        variable: impl Fn(&str) -> Option<OsString>,
        process: u32,
    ) -> io::Result<Self> {
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = match variable("WATCHDOG_PID") {
            Some(_) => number("WATCHDOG_PID") == Some(u64::from(process)),
            None => true,
        };
        let limit = number("WATCHDOG_USEC").filter(|limit| is_ours && *limit > 0);
        let watchdog = limit.map(Duration::from_micros);
        let socket = match variable("NOTIFY_SOCKET") {
            Some(path) if !path.is_empty() => Some(connect(&path)?),
            _ => None,
        };
        Ok(Self { socket, watchdog })
    }

    /// The agent has started: whoever waited for it may go on.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being loaded anew. [`Notifier::ready`] ends this, whatever comes of
    /// it; until then `systemctl reload` waits.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let micros = u64::try_from(now.tv_nsec / 1000).unwrap_or(0);
        let now = seconds.saturating_mul(1_000_000).saturating_add(micros);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// The agent is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// A sentence for `systemctl status`.
    pub fn status(&self, sentence: &str) {
        // A newline would begin another message.
        self.send(&format!("STATUS={}", sentence.replace(['\n', '\r'], " ")));
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// How often the manager wants a sign of life: twice in its limit, at most once a second.
    /// `None`: it wants none.
    #[must_use]
    pub fn alive_every(&self) -> Option<Duration> {
        self.watchdog.map(|limit| (limit / 2).max(MOST_OFTEN))
    }

    /// Sends signs of life as long as `is_alive` says so, and never ends. Run it beside the work,
    /// on the same runtime: one that is blocked sends none, which is what the manager looks for.
    pub async fn keep_alive(&self, mut is_alive: impl FnMut() -> bool) {
        let Some(every) = self.alive_every() else {
            return std::future::pending().await;
        };
        let mut turns = tokio::time::interval(every);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if is_alive() {
                self.alive();
            }
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, manager)) = &self.socket else {
            return;
        };
        if let Err(e) = socket.send_to_addr(message.as_bytes(), manager) {
            tracing::debug!(error = %e, message, "the service manager does not hear");
        }
    }
}

/// A path, or behind an `@` a name in the abstract namespace.
fn connect(path: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, manager))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(variables: &[(&str, &str)]) -> Notifier {
        let of = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.into())
        };
        Notifier::new(of, 7).unwrap()
    }

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_each_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        notifier.ready();
        assert_eq!(heard(&manager), "READY=1");
        let now = || {
            let now = clock_gettime(ClockId::Monotonic);
            now.tv_sec * 1_000_000 + now.tv_nsec / 1000
        };
        let before = now();
        notifier.reloading();
        let said = heard(&manager);
        let at = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!((before..=now()).contains(&at.parse().unwrap()), "{said}");
        notifier.status("2 handoffs\nunder way");
        assert_eq!(heard(&manager), "STATUS=2 handoffs under way");
        notifier.stopping();
        assert_eq!(heard(&manager), "STOPPING=1");
        // A manager that is gone harms nobody.
        drop(manager);
        notifier.ready();
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("logchain-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        notifier(&[("NOTIFY_SOCKET", &format!("@{name}"))]).ready();
        assert_eq!(heard(&manager), "READY=1");
    }

    #[test]
    fn signs_of_life_come_twice_in_the_limit_and_at_most_once_a_second() {
        let every = |variables: &[(&str, &str)]| notifier(variables).alive_every();
        let seconds = Duration::from_secs;
        assert_eq!(every(&[]), None);
        assert_eq!(every(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(every(&[("WATCHDOG_USEC", "30000000")]), Some(seconds(15)));
        assert_eq!(every(&[("WATCHDOG_USEC", "500000")]), Some(seconds(1)));
        let of = |process| every(&[("WATCHDOG_USEC", "4000000"), ("WATCHDOG_PID", process)]);
        assert_eq!(of("7"), Some(seconds(2)));
        assert_eq!(of("8"), None, "another process is meant");
        assert_eq!(of("nonsense"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_end_with_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let socket = path.to_str().unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "10000000")]);
        let mut turns = 0;
        let living = notifier.keep_alive(|| {
            turns += 1;
            turns <= 3
        });
        let limit = Duration::from_secs(60);
        assert!(tokio::time::timeout(limit, living).await.is_err());
        assert!(turns >= 12, "{turns}");
        let mut count = 0;
        while manager.recv(&mut [0; 64]).is_ok() {
            count += 1;
        }
        assert_eq!(count, 3);
    }
}
