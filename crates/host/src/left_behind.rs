//! Pure: the events of a log that was not carried, and the command that carries it later.

use std::ffi::OsString;
use std::path::Path;

use logchain_core::departure::DEFAULT_STATE;
use logchain_core::outbox::Entry;
use uuid::Uuid;

use crate::Event;
use crate::log::ConsoleLog;

/// The base file of a log in the outbox lies so many names below the state folder.
const STATE_ABOVE: usize = 5;

/// The options with which `logchain offer` reaches the same destination.
pub(crate) struct OfferOptions<'a> {
    pub(crate) transport: String,
    pub(crate) connect: Option<&'a str>,
    pub(crate) remote: Option<&'a str>,
}

/// The log is whole here.
pub(crate) fn whole_here(options: &OfferOptions<'_>, log: &ConsoleLog, domain: Uuid) -> Event {
    let command = offer_command(options, log, domain);
    Event::LeftBehind {
        console: log.console.clone(),
        path: log.path.display().to_string(),
        command,
        in_outbox: false,
    }
}

/// The files of the log went, or will go: what was held of them is in the outbox.
pub(crate) fn in_outbox(options: &OfferOptions<'_>, entry: &Entry) -> Event {
    let state = entry.path.ancestors().nth(STATE_ABOVE);
    let state = state.filter(|state| *state != Path::new(DEFAULT_STATE));
    let state = state.map(|state| {
        let mut option = OsString::from("--state=");
        option.push(state);
        option
    });
    let which: Vec<OsString> = state.into_iter().collect();
    let command = command(options, &which, entry.domain);
    Event::LeftBehind {
        console: entry.console.clone(),
        path: entry.path.display().to_string(),
        command,
        in_outbox: true,
    }
}

/// The command that carries a log that is whole here.
pub(crate) fn offer_command(options: &OfferOptions<'_>, log: &ConsoleLog, domain: Uuid) -> String {
    let mut console = OsString::from(format!("{}=", log.console));
    console.push(&log.path);
    command(options, &["--console".into(), console], domain)
}

/// The command that carries a log; `which`: the options that name it.
pub(crate) fn command(options: &OfferOptions<'_>, which: &[OsString], domain: Uuid) -> String {
    let mut words: Vec<OsString> = ["logchain", "offer", "--transport", &options.transport]
        .map(OsString::from)
        .into();
    // As one word each, so that a value may begin with a dash.
    for (option, value) in [
        ("--connect=", options.connect),
        ("--remote-logchain=", options.remote),
    ] {
        words.extend(value.map(|value| OsString::from(format!("{option}{value}"))));
    }
    words.extend_from_slice(which);
    words.push(domain.to_string().into());
    logchain_transport_ssh::shell_line(words)
        .to_string_lossy()
        .into_owned()
}

/// Nothing is left that could be carried. `fate`: what became of it, as "is gone from".
pub(crate) fn nothing_left(log: &ConsoleLog, fate: &str) -> Event {
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
        let log = ConsoleLog {
            console: "serial0".parse().unwrap(),
            path: "/var/log/it's \"mine\" $HOME/-x.log".into(),
        };
        let options = OfferOptions {
            transport: "file:///a b".to_owned(),
            connect: Some("qemu:///system?a=b&c"),
            remote: Some("-odd"),
        };
        let domain = Uuid::from_u128(7);
        let left = whole_here(&options, &log, domain);
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
        let log = ConsoleLog {
            console: "serial0".parse().unwrap(),
            path: "/gone.log".into(),
        };
        for fate in ["is gone from", "could not be opened at"] {
            let Event::NothingLeft { reason, .. } = nothing_left(&log, fate) else {
                panic!("{fate}")
            };
            assert!(!reason.contains("offer") && reason.contains("/gone.log"));
        }
    }
}
