//! Pure: what is said of a log that stayed behind.

use std::ffi::OsString;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::carry::Log;

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
    let mut console = OsString::from(format!("{}=", log.console));
    console.push(&log.path);
    words.extend(["--console".into(), console, domain.to_string().into()]);
    let command = logchain_transport_ssh::shell_line(words)
        .to_string_lossy()
        .into_owned();
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

/// Nobody can bring it over. `held`: it could be opened before the migration.
pub(crate) fn not_at_all(log: &Log, held: bool) -> Left {
    let (console, path) = (log.console.as_str(), log.path.display());
    let why = if held {
        format!("the log of {console} is gone from {path}")
    } else {
        format!("the log of {console} could not be opened at {path}")
    };
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
        for held in [false, true] {
            let sentence = not_at_all(&log, held).sentence;
            assert!(!sentence.contains("offer") && sentence.contains("/gone.log"));
        }
    }
}
