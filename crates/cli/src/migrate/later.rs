//! Pure: what is said of a log that stayed behind.

use std::ffi::OsString;
use std::path::Path;

use logchain_core::outbox::Entry;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::args::STATE;
use crate::carry::Log;

/// The state folder is so many names above the base file of a log in its outbox.
const STATE_ABOVE: usize = 5;

/// How `offer` reaches what `migrate` reached.
pub(crate) struct Way<'a> {
    pub(crate) transport: String,
    pub(crate) connect: Option<&'a str>,
    pub(crate) remote: Option<&'a str>,
}

/// For people and for programs.
pub(crate) struct Left {
    pub(crate) sentence: String,
    pub(crate) event: Value,
}

/// It is whole here: how to bring it over.
pub(crate) fn by_offer(way: &Way<'_>, log: &Log, domain: Uuid) -> Left {
    let mut console = OsString::from(format!("{}=", log.console));
    console.push(&log.path);
    let command = command(way, &["--console".into(), console], domain);
    let (console, path) = (log.console.as_str(), log.path.display());
    Left {
        sentence: format!(
            "the history of {console} stays at {path}; bring it over with: {command}"
        ),
        event: json!({
            "event": "left-behind",
            "console": console,
            "path": log.path.to_string_lossy(),
            "command": command,
        }),
    }
}

/// Its files went, or will: what was held of them was put down.
pub(crate) fn from_outbox(way: &Way<'_>, entry: &Entry) -> Left {
    let state = entry.path.ancestors().nth(STATE_ABOVE);
    let state = state.filter(|state| *state != Path::new(STATE));
    let state = state.map(|state| {
        let mut option = OsString::from("--state=");
        option.push(state);
        option
    });
    let which: Vec<OsString> = state.into_iter().collect();
    let command = command(way, &which, entry.domain);
    let (console, path) = (entry.console.as_str(), entry.path.display());
    Left {
        sentence: format!(
            "the history of {console} is put down at {path}; bring it over with: {command}"
        ),
        event: json!({
            "event": "left-behind",
            "console": console,
            "path": entry.path.to_string_lossy(),
            "command": command,
        }),
    }
}

/// What brings it over.
pub(crate) fn command(way: &Way<'_>, which: &[OsString], domain: Uuid) -> String {
    let mut words: Vec<OsString> = ["logchain", "offer", "--transport", &way.transport]
        .map(OsString::from)
        .into();
    // In one word: what begins with a dash is a value all the same.
    let options = [
        ("--connect=", way.connect),
        ("--remote-logchain=", way.remote),
    ];
    for (option, value) in options {
        words.extend(value.map(|value| OsString::from(format!("{option}{value}"))));
    }
    words.extend_from_slice(which);
    words.push(domain.to_string().into());
    logchain_transport_ssh::shell_line(words)
        .to_string_lossy()
        .into_owned()
}

/// Nobody can bring it over. `fate`: what became of it, as "is gone from".
pub(crate) fn not_at_all(log: &Log, fate: &str) -> Left {
    let (console, path) = (log.console.as_str(), log.path.display());
    let why = format!("the log of {console} {fate} {path}");
    Left {
        sentence: format!("{why}: there is nothing to bring over"),
        event: json!({
            "event": "nothing-left",
            "console": console,
            "path": log.path.to_string_lossy(),
            "reason": why,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        let log = Log {
            console: "serial0".parse().unwrap(),
            path: "/var/log/it's \"mine\" $HOME/-x.log".into(),
        };
        let way = Way {
            transport: "file:///a b".to_owned(),
            connect: Some("qemu:///system?a=b&c"),
            remote: Some("-odd"),
        };
        let domain = Uuid::from_u128(7);
        let left = by_offer(&way, &log, domain);
        let command = left.event["command"].as_str().unwrap();
        assert!(left.sentence.ends_with(command), "{}", left.sentence);
        let script = format!("logchain() {{ printf '%s\\n' \"$@\"; }}; {command}");
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let domain = domain.to_string();
        let words = [
            "offer",
            "--transport",
            "file:///a b",
            "--connect=qemu:///system?a=b&c",
            "--remote-logchain=-odd",
            "--console",
            "serial0=/var/log/it's \"mine\" $HOME/-x.log",
            &domain,
        ];
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            words.join("\n") + "\n"
        );
    }

    #[test]
    fn what_was_never_read_is_offered_to_nobody() {
        let log = Log {
            console: "serial0".parse().unwrap(),
            path: "/gone.log".into(),
        };
        for fate in ["is gone from", "could not be opened at"] {
            let sentence = not_at_all(&log, fate).sentence;
            assert!(!sentence.contains("offer") && sentence.contains("/gone.log"));
        }
    }
}
