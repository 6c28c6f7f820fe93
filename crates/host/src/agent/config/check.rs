//! What the type of a value does not say: which values fit together and can be used. Pure.
//!
//! Must not know: files, lines; whether anything that is named exists.

use std::path::Path;
use std::time::Duration;

use super::{Config, ReapPolicy, TransportKind};
use crate::transports::TransportChoice;

/// Levels of a log, as `log_level` takes them.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The longest [`stream.delay`](super::Stream::delay).
const MOST_DELAY: Duration = Duration::from_secs(600);

/// Everything that is wrong: the key, and a sentence.
pub(super) fn check(config: &Config) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    let mut not = |is_wrong: bool, key: &'static str, what: &str| {
        if is_wrong {
            wrong.push((key, what.to_owned()));
        }
    };
    let meet = &config.meet;
    not(
        config.connect.is_empty(),
        "connect",
        "the URI is empty; write it as qemu:///system",
    );
    not(
        !config.log_level.split(',').all(is_level),
        "log_level",
        "give error, warn, info, debug or trace, or levels by part, as info,logchain_core=debug",
    );
    not(
        meet.way == TransportKind::Store && meet.store.is_none(),
        "meet.store",
        "way = \"store\" needs the URL of the store; write store = \"s3://bucket/prefix\" or \
         \"file:///folder\" under [meet]",
    );
    not(
        meet.way == TransportKind::Tls && meet.tls.allowed_names.is_empty(),
        "meet.tls.allowed_names",
        "way = \"tls\" needs the names of the hosts that may offer and read logs; write \
         allowed_names = [\"*.example.net\"] under [meet.tls], or [\"*\"] for every certificate \
         of the authority",
    );
    not(
        meet.peers.iter().any(|peer| !is_peer(peer)),
        "meet.peers",
        "give each peer as host or host:port, an IPv6 address in brackets",
    );
    not(
        meet.ssh.logchain.is_empty(),
        "meet.ssh.logchain",
        "the name of the program is empty; write logchain or its path",
    );
    let paths: [(&'static str, Option<&Path>); 9] = [
        ("state", Some(&config.state)),
        ("meet.tls.ca", Some(&meet.tls.ca)),
        ("meet.tls.certificate", Some(&meet.tls.certificate)),
        ("meet.tls.key", Some(&meet.tls.key)),
        (
            "meet.tls.client_certificate",
            Some(&meet.tls.client_certificate),
        ),
        ("meet.tls.client_key", Some(&meet.tls.client_key)),
        ("meet.ssh.spool", Some(&meet.ssh.spool)),
        (
            "reap.placement_command",
            config.reap.placement_command.as_deref(),
        ),
        ("control.socket", Some(&config.control.socket)),
    ];
    for (key, path) in paths {
        let is_relative = path.is_some_and(|path| !path.is_absolute());
        not(is_relative, key, "give the path from the root");
    }
    not(
        config.outbox.retry_min > config.outbox.retry_max,
        "outbox.retry_min",
        "the first wait is longer than the longest one; raise outbox.retry_max",
    );
    not(
        config.reap.placement_command.is_some() && config.reap.placement_url.is_some(),
        "reap.placement_url",
        "a new place is confirmed by one authority; give placement_command or placement_url",
    );
    let nobody = config.reap.placement_command.is_none() && config.reap.placement_url.is_none();
    not(
        config.reap.policy == ReapPolicy::WhenConfirmed && nobody,
        "reap.policy",
        "nothing in libvirt names the host that a domain went to, so say who confirms its new \
         place; give placement_command or placement_url, or write policy = \"when-carried\"",
    );
    not(
        config.limits.handoffs == 0,
        "limits.handoffs",
        "with none no log is ever handed over; give 1 or more",
    );
    not(
        config.limits.memory < 4 << 20,
        "limits.memory",
        "a piece of history has 2 MiB, and is compressed beside itself; give 4MiB or more",
    );
    not(
        config.stream.delay > MOST_DELAY,
        "stream.delay",
        "what waits is in memory, and takes the place of other logs; give 10m or less",
    );
    not(
        config.stream.memory < 4 << 20,
        "stream.memory",
        "a batch has up to 1 MiB, and is packed beside itself; give 4MiB or more",
    );
    let stores = [
        (
            "meet.store",
            &meet.store,
            "a store is an object store or a folder that all hosts have; for ssh write way = \
             \"ssh\", for TLS between agents way = \"tls\"",
        ),
        (
            "stream.to",
            &config.stream.to,
            "logs are streamed to an object store or to a folder; write s3://bucket/prefix or \
             file:///folder",
        ),
    ];
    for (key, url, what) in stores {
        let choice = url
            .as_deref()
            .map(|url| TransportChoice::of(Some(url), None));
        match choice {
            Some(Err(e)) => wrong.push((key, e.sentence())),
            Some(Ok(TransportChoice::Ssh(_) | TransportChoice::Agent(_))) => {
                wrong.push((key, what.to_owned()));
            }
            _ => {}
        }
    }
    wrong
}

/// `info`, or `part=info`.
fn is_level(text: &str) -> bool {
    let level = text.rsplit('=').next().unwrap_or_default().trim();
    LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
}

/// `host`, `host:port`, `[address]` or `[address]:port`.
fn is_peer(text: &str) -> bool {
    let (host, rest) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("address", rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_end = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    !host.is_empty() && host.chars().all(is_host) && is_end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_host_with_or_without_a_port() {
        for good in [
            "h1",
            "h1.example.net:16515",
            "10.0.0.1",
            "[fd00::1]",
            "[fd00::1]:1",
        ] {
            assert!(is_peer(good), "{good}");
        }
        for bad in [
            "", ":1", "h1:", "h1:0", "h1:99999", "fd00::1", "a b", "[h1]:1", "u@h1",
        ] {
            assert!(!is_peer(bad), "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told_by_key() {
        let wrong = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            let wrong = check(&config).into_iter().map(|(key, _)| key);
            wrong.collect::<Vec<_>>()
        };
        assert!(wrong(|_| {}).is_empty());
        assert_eq!(wrong(|c| c.meet.way = TransportKind::Store), ["meet.store"]);
        assert_eq!(
            wrong(|c| c.meet.way = TransportKind::Tls),
            ["meet.tls.allowed_names"]
        );
        let ssh = |c: &mut Config| c.meet.store = Some("ssh://h/s".to_owned());
        assert_eq!(wrong(ssh), ["meet.store"]);
        assert_eq!(wrong(|c| c.log_level = "loud".to_owned()), ["log_level"]);
        assert!(wrong(|c| c.log_level = "warn,logchain_core=debug".to_owned()).is_empty());
        assert_eq!(wrong(|c| c.state = "here".into()), ["state"]);
        let tls = |c: &mut Config| c.meet.store = Some("tls://h".to_owned());
        assert_eq!(wrong(tls), ["meet.store"]);
        assert_eq!(
            wrong(|c| c.reap.policy = ReapPolicy::WhenConfirmed),
            ["reap.policy"]
        );
        assert_eq!(wrong(|c| c.limits.handoffs = 0), ["limits.handoffs"]);
        let to = |url: &str| {
            let mut config = Config::default();
            config.stream.to = Some(url.to_owned());
            check(&config).len()
        };
        assert_eq!((to("file:///a"), to("s3://b/p")), (0, 0));
        assert_eq!((to("ssh://h/s"), to("tls://h"), to("/a")), (1, 1, 1));
        assert_eq!(wrong(|c| c.stream.memory = 1), ["stream.memory"]);
        let delay = |c: &mut Config| c.stream.delay = Duration::from_secs(3600);
        assert_eq!(wrong(delay), ["stream.delay"]);
    }
}
