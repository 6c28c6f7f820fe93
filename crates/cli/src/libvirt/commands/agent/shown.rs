//! What a running agent answers, in lines for people. Pure.
//!
//! Must not know: where an answer comes from.

use std::time::Duration;

use jiff::Timestamp;
use logchain_core::quantity::duration_text;
use logchain_host::agent::config::Changes;
use logchain_host::agent::control::{HandoffStatus, Status, StreamsStatus};

/// What it does at `now`.
pub(super) fn status(status: &Status, now: Timestamp) -> String {
    let mut lines = vec![format!(
        "{}: logchain agent {}, started {} ago, {}{}",
        status.host,
        status.release,
        since(status.started, now),
        if status.libvirt_connected {
            "connected to libvirt"
        } else {
            "NOT connected to libvirt"
        },
        if status.draining {
            ", draining: it begins nothing new"
        } else {
            ""
        },
    )];
    lines.push(under_way(status.handoffs.len()));
    lines.extend(status.handoffs.iter().map(|one| handoff(one, now)));
    let outbox = &status.outbox;
    lines.push(match outbox.logs {
        0 => "the outbox is empty".to_owned(),
        logs => format!(
            "the outbox holds {} ({} bytes), the oldest for {}",
            count(logs, "log"),
            outbox.bytes,
            duration_text(Duration::from_secs(outbox.oldest_seconds)),
        ),
    });
    lines.extend(status.streams.as_ref().map(streams));
    if !status.peers.is_empty() {
        lines.push(format!("peers that answer: {}", status.peers.join(", ")));
    }
    lines.extend(waiting(&status.needs_restart));
    lines.extend(status.warnings.iter().map(|w| format!("warning: {w}")));
    whole(&lines)
}

/// What a reload changed.
pub(super) fn changes(changes: &Changes) -> String {
    let mut lines = Vec::new();
    if !changes.applied.is_empty() {
        lines.push(format!("now in force: {}", changes.applied.join(", ")));
    }
    lines.extend(waiting(&changes.needs_restart));
    if lines.is_empty() {
        lines.push("nothing has changed".to_owned());
    }
    whole(&lines)
}

/// How many handoffs are under way.
pub(super) fn under_way(handoffs: usize) -> String {
    match handoffs {
        0 => "no handoff is under way".to_owned(),
        1 => "1 handoff is under way".to_owned(),
        more => format!("{more} handoffs are under way"),
    }
}

fn waiting(keys: &[String]) -> Option<String> {
    let keys = (!keys.is_empty()).then(|| keys.join(", "))?;
    Some(format!("in force after a restart: {keys}"))
}

fn handoff(handoff: &HandoffStatus, now: Timestamp) -> String {
    let peer = handoff.peer.as_deref().unwrap_or("a host not known yet");
    let way = match handoff.role.as_str() {
        "destination" => "from",
        _ => "to",
    };
    format!(
        "  {} {} {way} {peer}: {}, {} bytes, for {}",
        handoff.domain,
        handoff.console,
        handoff.phase,
        handoff.bytes,
        since(handoff.since, now),
    )
}

fn streams(streams: &StreamsStatus) -> String {
    let waits = match (streams.waiting, &streams.trouble) {
        (0, _) => String::new(),
        (waiting, Some(reason)) => format!(", {waiting} of them waiting: {reason}"),
        (waiting, None) => format!(", {waiting} of them waiting"),
    };
    let logs = count(streams.running, "log");
    format!(
        "streaming {logs} to {} ({} bytes){waits}",
        streams.to, streams.bytes
    )
}

fn since(seconds: u64, now: Timestamp) -> String {
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    let seconds = now.saturating_sub(seconds);
    // To the largest unit: nobody counts the seconds of a day.
    let unit = match seconds {
        0..120 => 1,
        120..7200 => 60,
        7200..172_800 => 3600,
        _ => 86400,
    };
    duration_text(Duration::from_secs(seconds - seconds % unit))
}

fn count(number: u64, what: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {what}{end}")
}

fn whole(lines: &[String]) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use logchain_host::agent::control::OutboxStatus;

    use super::*;

    #[test]
    fn a_status_is_read_by_people() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let idle = Status {
            host: "h1".to_owned(),
            release: "0.1.0".to_owned(),
            started: 1_000_000 - 90,
            libvirt_connected: true,
            ..Status::default()
        };
        let want = "h1: logchain agent 0.1.0, started 90s ago, connected to libvirt\n\
                    no handoff is under way\nthe outbox is empty\n";
        assert_eq!(status(&idle, now), want);
        let handoff = HandoffStatus {
            domain: "vm1".to_owned(),
            console: "serial0".to_owned(),
            role: "source".to_owned(),
            phase: "the history is sent".to_owned(),
            bytes: 4096,
            peer: Some("h2".to_owned()),
            since: 1_000_000 - 5,
            ..HandoffStatus::default()
        };
        let busy = Status {
            started: 1_000_000 - 300_000,
            libvirt_connected: false,
            draining: true,
            handoffs: vec![handoff],
            outbox: OutboxStatus {
                logs: 2,
                bytes: 77,
                oldest_seconds: 600,
            },
            streams: Some(StreamsStatus {
                to: "s3://b".to_owned(),
                running: 3,
                waiting: 2,
                bytes: 10,
                trouble: Some("it does not answer".to_owned()),
            }),
            peers: vec!["h2".to_owned(), "h3".to_owned()],
            needs_restart: vec!["connect".to_owned()],
            warnings: vec!["h4 does not answer".to_owned()],
            ..idle
        };
        let want = "h1: logchain agent 0.1.0, started 3d ago, NOT connected to libvirt, draining: it \
                    begins nothing new\n1 handoff is under way\n  vm1 serial0 to h2: the history is \
                    sent, 4096 bytes, for 5s\nthe outbox holds 2 logs (77 bytes), the oldest for \
                    10m\nstreaming 3 logs to s3://b (10 bytes), 2 of them waiting: it does not \
                    answer\npeers that answer: h2, h3\nin force after a restart: connect\nwarning: h4 \
                    does not answer\n";
        assert_eq!(status(&busy, now), want);
    }

    #[test]
    fn a_reload_is_read_by_people() {
        let mut found = Changes::default();
        assert_eq!(changes(&found), "nothing has changed\n");
        found.applied = vec!["meet.peers".to_owned(), "meet.peers_dns".to_owned()];
        found.needs_restart = vec!["connect".to_owned()];
        let want = "now in force: meet.peers, meet.peers_dns\nin force after a restart: connect\n";
        assert_eq!(changes(&found), want);
    }
}
