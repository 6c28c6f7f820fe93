//! Pure: an event, as a sentence for people.

use logchain_host::Event;
use logchain_host::event::{
    Advice, HandoffOutcome, HandoffRole, HandoffSummary, Reaping, Rotation,
};

/// Where a sentence goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// It is what the command does.
    Out,
    /// It is what people should do or know beside that.
    Note,
    /// Something failed.
    Failure,
}

/// Where the sentence of this event goes.
pub(crate) fn stream(event: &Event) -> Stream {
    match event {
        Event::NotCarried { .. } | Event::Withdrawn { .. } | Event::Failed { .. } => {
            Stream::Failure
        }
        Event::Handoff(summary) if summary.outcome == HandoffOutcome::NotCarried => Stream::Failure,
        Event::Warning { .. }
        | Event::LeftBehind { .. }
        | Event::NothingLeft { .. }
        | Event::Recovered { .. }
        | Event::Waiting {
            transport: Some(_), ..
        } => Stream::Note,
        _ => Stream::Out,
    }
}

/// The sentence, without a full stop; empty where people are told nothing, or by another
/// event.
pub(crate) fn sentence(event: &Event) -> String {
    match event {
        Event::Warning { reason } => reason.clone(),
        Event::Migrated {
            domain,
            destination,
            has_log,
        } => {
            let without = if *has_log {
                ""
            } else {
                "; it has no console log"
            };
            format!("domain {domain} migrated to {destination}{without}")
        }
        Event::Undefined { domain } => format!("domain {domain} is undefined here"),
        Event::Carried {
            console,
            bytes,
            dropped,
            files,
            host,
            warnings,
            ..
        } => {
            let files = match files.len() {
                1 => "1 file".to_owned(),
                files => format!("{files} files"),
            };
            let mut sentence =
                format!("{console}: {bytes} bytes of history are in place at {host}, in {files}");
            if *dropped > 0 {
                sentence.push_str(&format!(
                    "; the oldest {dropped} of them are more than the rotation there keeps"
                ));
            }
            for warning in warnings {
                sentence.push_str(&format!("; at {host}: {warning}"));
            }
            sentence
        }
        Event::AlreadyCarried { console, to } => {
            format!("{console}: was handed over to {to} already")
        }
        Event::NotCarried { console, reason } => {
            format!("{console}: the log was not carried: {reason}")
        }
        Event::Withdrawn { console } => format!("{console}: withdrawn"),
        Event::LeftBehind {
            console,
            path,
            command,
            in_outbox,
        } => {
            let is_there = if *in_outbox { "is put down" } else { "stays" };
            format!("the history of {console} {is_there} at {path}; bring it over with: {command}")
        }
        Event::NothingLeft { reason, .. } => format!("{reason}: there is nothing to bring over"),
        Event::Rejoined {
            domain,
            console,
            bytes,
        } => format!("{domain}: {console}: {bytes} bytes of its earlier log are behind it again"),
        Event::AdoptThere { command } => {
            format!("the destination takes the log in with: {command}")
        }
        Event::Waiting {
            domain,
            transport: Some(transport),
            seconds,
        } => {
            let seconds = seconds.unwrap_or_default();
            format!(
                "nothing is offered for domain {domain} in {transport} yet; waiting for up to \
                 {seconds} s"
            )
        }
        Event::Waiting { domain, .. } => format!("waiting for domain {domain}"),
        Event::Placed {
            console, warnings, ..
        } => {
            let warnings = warnings.iter().map(|w| format!("{console}: {w}"));
            warnings.collect::<Vec<_>>().join("\n")
        }
        Event::Adopted {
            console,
            bytes,
            dropped,
            files,
        } => {
            let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
            let files = match names.as_slice() {
                [] => "no file".to_owned(),
                names => names.join(", "),
            };
            let mut sentence =
                format!("{console}: {bytes} bytes of history are in place, in {files}");
            if *dropped > 0 {
                sentence.push_str(&format!(
                    "; the oldest {dropped} of them are more than the rotation here keeps"
                ));
            }
            sentence
        }
        Event::Handoff(summary) => handoff(summary),
        Event::Watching { uri, domains } => format!("watching {uri}: {domains} domains run here"),
        Event::Aborted { console } => {
            format!("{console}: withdrawn by the source; this host is as it was")
        }
        Event::Failed {
            console: Some(console),
            reason,
            ..
        } => format!("{console}: {reason}"),
        Event::Failed {
            domain: Some(domain),
            reason,
            departed: Some(_),
            ..
        } => format!("{domain}: could not be reaped: {reason}"),
        Event::Failed {
            console: None,
            domain: None,
            reason,
            ..
        } => reason.clone(),
        Event::Streaming { console, offset } => {
            format!("{console}: streaming from offset {offset}")
        }
        Event::Recovered { console } => format!("{console}: put again"),
        Event::Ended { console, offset } => {
            format!("{console}: all up to offset {offset} is there")
        }
        Event::Rotated(rotation) => rotated(rotation),
        Event::Empty(Rotation {
            domain,
            console,
            path,
            ..
        }) => format!("{console} of {domain}: {path} is empty, there is nothing to rotate"),
        Event::Nothing => "no domain waits to be reaped here".to_owned(),
        Event::Kept(reaping) => reaped(reaping, "stays"),
        Event::Forgotten(reaping) => reaped(reaping, "is left alone"),
        Event::WouldReap(reaping) => reaped(reaping, &format!("would be {}", reaping.done)),
        Event::Reaped(reaping) => reaped(reaping, &reaping.done),
        Event::Step { .. } => step(event),
        Event::Checked { works, transport } => {
            let transport = match transport.as_str() {
                "" => "the transport",
                transport => transport,
            };
            match works {
                true => format!("{transport} works from here"),
                false => format!("{transport} cannot be relied on from here"),
            }
        }
        _ => String::new(),
    }
}

fn rotated(rotation: &Rotation) -> String {
    let Rotation {
        domain,
        console,
        path,
        ..
    } = rotation;
    match rotation.bytes {
        Some(bytes) => {
            format!("{console} of {domain}: {path} is rotated, its {bytes} bytes are in {path}.0")
        }
        None => format!("{console} of {domain}: virtlogd rolled {path} over at this very moment"),
    }
}

fn reaped(reaping: &Reaping, what: &str) -> String {
    let parts = [&*reaping.domain, what, &*reaping.reason];
    let said = parts.into_iter().filter(|part| !part.is_empty());
    said.collect::<Vec<_>>().join(": ")
}

fn step(event: &Event) -> String {
    let Event::Step {
        step,
        works,
        ms,
        mib_per_s,
        reason,
        advice,
    } = event
    else {
        return String::new();
    };
    if *works {
        let ms = ms.unwrap_or_default();
        let fast = mib_per_s.map_or_else(String::new, |s| format!(", {s} MiB/s"));
        return format!("{step}: works ({ms:.1} ms{fast})");
    }
    let reason = reason.as_deref().unwrap_or("it failed");
    let what = match advice {
        Some(Advice::Retry) => "it may work later: try again",
        Some(Advice::Fix) => "this has to be mended",
        Some(Advice::Report) | None => "this should not happen: report it",
    };
    format!("{step}: {reason}; {what}")
}

/// One sentence for the whole handoff: which VM, between which hosts, how much, and what a reader
/// had less; or why not, and what happens next.
fn handoff(summary: &HandoffSummary) -> String {
    let HandoffSummary {
        domain,
        console,
        role,
        outcome,
        peer,
        bytes,
        dropped,
        window_ms,
        reason,
        next,
        ..
    } = summary;
    let peer = peer.as_deref();
    let mut sentence = match (outcome, role) {
        (HandoffOutcome::Carried, HandoffRole::Source) => format!(
            "{domain}: {console}: {bytes} bytes of history are in place at {}",
            peer.unwrap_or("the destination")
        ),
        (HandoffOutcome::Carried, HandoffRole::Destination) => format!(
            "{domain}: {console}: {bytes} bytes of history from {} are in place",
            peer.unwrap_or("the source")
        ),
        (HandoffOutcome::Withdrawn, HandoffRole::Source) => {
            format!("{domain}: {console}: the migration failed, and the log stays here")
        }
        (HandoffOutcome::Withdrawn, HandoffRole::Destination) => {
            format!("{domain}: {console}: the source withdrew the log")
        }
        (HandoffOutcome::NotCarried, HandoffRole::Source) => {
            format!("{domain}: {console}: the log was not carried")
        }
        (HandoffOutcome::NotCarried, HandoffRole::Destination) => {
            format!("{domain}: {console}: the log was not taken in")
        }
    };
    if let Some(reason) = reason {
        sentence.push_str(&format!(": {reason}"));
    }
    if *dropped > 0 {
        sentence.push_str(&format!(
            "; the oldest {dropped} of them are more than the rotation there keeps"
        ));
    }
    match window_ms {
        Some(0) => sentence.push_str("; they were there before the guest ran here"),
        Some(ms) => sentence.push_str(&format!(
            "; for {ms} ms after the guest began to run here a reader had less"
        )),
        None => {}
    }
    if let Some(next) = next {
        sentence.push_str(&format!("; {next}"));
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind that release 0.1 has written.
    const OF_0_1: &str = include_str!("../../../../host/tests/wire/0.1.jsonl");

    /// Kinds and forms that 0.1 did not write.
    const SINCE: &str = r#"
{"event":"hello","protocol":1,"oldest":1,"release":"0.1.0"}
{"event":"migrated","domain":"mute","destination":"qemu+tcp://h2/system","has_log":false}
{"event":"left-behind","console":"serial0","path":"/o/console.log","command":"logchain offer --transport ssh://h2 00000000-0000-0000-0000-000000000007","in_outbox":true}
{"event":"elsewhere","host":"h1","source":true}
{"event":"waiting","domain":"vm","transport":"s3://b/p","seconds":60.0}
{"event":"placed","console":"serial0","files":[],"dropped":0,"warnings":["one thing","another thing"]}
{"event":"adopted","console":"serial0","bytes":140020,"dropped":20,"files":[["console.log.0",25332],["console.log.1",114668]]}
{"event":"rotated","domain":"vm","uuid":"00000000-0000-0000-0000-000000000007","console":"serial0","path":"/l/console.log","bytes":null,"by":"virtlogd"}
{"event":"would-reap","domain":"vm","reason":"it is running at h2","done":"undefined","uuid":"00000000-0000-0000-0000-000000000007","destination":"qemu+tcp://h2/system","left":1795800000,"dry_run":true,"files":0,"bytes":0,"kept":[]}
{"event":"reaped","domain":"vm","reason":"it is running at h2","done":"undefined, 2 files with 700 bytes of its log removed","uuid":"00000000-0000-0000-0000-000000000007","destination":"qemu+tcp://h2/system","left":1795800000,"dry_run":false,"files":2,"bytes":700,"kept":[]}
{"event":"step","step":"upload","works":true,"ms":14.04,"mib_per_s":1141}
{"event":"step","step":"put","works":false,"reason":"no answer","advice":"retry"}
{"event":"step","step":"put","works":false,"reason":"no rights","advice":"fix"}
{"event":"step","step":"get","works":false,"reason":"other bytes came back","advice":"report"}
{"event":"checked","works":true,"transport":"s3://b/p"}
{"event":"checked","works":false,"transport":"s3://b/p"}
"#;

    /// After a change of a sentence, `INSTA_UPDATE=always cargo test -p logchain` writes the
    /// snapshot.
    #[test]
    fn people_are_told_what_they_were_told() {
        let mut told = String::new();
        for line in OF_0_1.lines().chain(SINCE.trim().lines()) {
            let event = Event::from_json(line.as_bytes());
            let event = event.unwrap_or_else(|| panic!("{line}"));
            let sentence = match sentence(&event) {
                sentence if sentence.is_empty() => "nothing".to_owned(),
                sentence => format!("{:?}: {sentence}", stream(&event)),
            };
            told.push_str(&format!("{line}\n    {sentence}\n"));
        }
        insta::assert_snapshot!(told);
    }
}
