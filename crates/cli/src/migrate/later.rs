//! Pure: what is said of a log that stayed behind.

use std::ffi::OsString;
use std::path::Path;

use logchain_core::outbox::Entry;
use logchain_host::Event;
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

/// It is whole here: how to bring it over.
pub(crate) fn by_offer(way: &Way<'_>, log: &Log, domain: Uuid) -> Event {
    let command = offer_command(way, log, domain);
    Event::LeftBehind {
        console: log.console.clone(),
        path: log.path.display().to_string(),
        command,
        in_outbox: false,
    }
}

/// Its files went, or will: what was held of them was put down.
pub(crate) fn from_outbox(way: &Way<'_>, entry: &Entry) -> Event {
    let state = entry.path.ancestors().nth(STATE_ABOVE);
    let state = state.filter(|state| *state != Path::new(STATE));
    let state = state.map(|state| {
        let mut option = OsString::from("--state=");
        option.push(state);
        option
    });
    let which: Vec<OsString> = state.into_iter().collect();
    let command = command(way, &which, entry.domain);
    Event::LeftBehind {
        console: entry.console.clone(),
        path: entry.path.display().to_string(),
        command,
        in_outbox: true,
    }
}

/// What brings over a log that is whole here.
pub(crate) fn offer_command(way: &Way<'_>, log: &Log, domain: Uuid) -> String {
    let mut console = OsString::from(format!("{}=", log.console));
    console.push(&log.path);
    command(way, &["--console".into(), console], domain)
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
pub(crate) fn not_at_all(log: &Log, fate: &str) -> Event {
    let (console, path) = (log.console.clone(), log.path.display().to_string());
    let reason = format!("the log of {console} {fate} {path}");
    Event::NothingLeft {
        console,
        path,
        reason,
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
        let Event::LeftBehind { command, .. } = left else {
            panic!("{left:?}")
        };
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
            let sentence = crate::report::sentence(&not_at_all(&log, fate));
            assert!(!sentence.contains("offer") && sentence.contains("/gone.log"));
        }
    }
}
