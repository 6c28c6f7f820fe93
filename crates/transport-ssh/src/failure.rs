//! What ssh's and the far side's failures mean, in one sentence that an operator
//! can act on.
//!
//! ssh ends with 255 for its own failures and with the far command's status
//! otherwise, so its words count only with 255: a spool that the far logchain may
//! not write is no refused login.

use std::process::ExitStatus;

use logchain_core::transport::Error;
use logchain_transport_wire::{DialFailure, Outcome};

use crate::{SshOptions, SshTarget, again};

/// The status with which OpenSSH's sftp-server ends at what it cannot read.
const SFTP_BAD_MESSAGE: i32 = 11;

/// Why a connection could not be made.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) outcome: Outcome,
    pub(crate) sentence: String,
    /// Whether the host may take the next connection.
    pub(crate) turned_away: bool,
    /// Whether ssh works and only a logchain is missing behind it.
    pub(crate) no_logchain: bool,
}

impl Failure {
    pub(crate) fn of(outcome: Outcome, sentence: impl Into<String>) -> Self {
        Self {
            outcome,
            sentence: sentence.into(),
            turned_away: false,
            no_logchain: false,
        }
    }

    fn no_logchain(sentence: impl Into<String>) -> Self {
        Self {
            no_logchain: true,
            ..Self::denied(sentence)
        }
    }

    /// The same failure in the light of what came before it over the far side's
    /// output, where only a logchain should have answered.
    pub(crate) fn after(self, host: &str, code: Option<i32>, answered: &[u8]) -> Self {
        let answered = String::from_utf8_lossy(answered);
        // sshd under `ForceCommand internal-sftp`, and an account without a shell.
        let refusals = [
            "allows sftp connections only",
            "account is currently not available",
        ];
        if refusals.iter().any(|said| answered.contains(said)) {
            let last = answered.lines().rfind(|l| !l.trim().is_empty());
            let last = printable(last.unwrap_or_default());
            return Self::no_logchain(format!("{host} runs no commands: {last}"));
        }
        // sftp-server as the forced command: our greeting is no message of its own.
        if code == Some(SFTP_BAD_MESSAGE) && answered.is_empty() {
            return Self::no_logchain(format!("{host} runs no commands"));
        }
        self
    }

    pub(crate) fn denied(sentence: impl Into<String>) -> Self {
        Self::of(Outcome::Denied, sentence)
    }

    pub(crate) fn unreachable(sentence: impl Into<String>) -> Self {
        Self::of(Outcome::Unreachable, sentence)
    }
}

impl DialFailure for Failure {
    fn broke() -> Self {
        Self::unreachable("the connection broke")
    }

    fn into_error(self, transport: String) -> Error {
        self.outcome.into_error(transport, "", self.sentence)
    }
}

/// What went wrong, as one sentence: from ssh's exit status and what it said.
#[must_use]
pub fn explain(
    target: &SshTarget,
    options: &SshOptions,
    status: Option<ExitStatus>,
    stderr: &str,
) -> String {
    let code = status.and_then(|s| s.code());
    diagnose(target, options, code, stderr).sentence
}

pub(crate) fn diagnose(
    target: &SshTarget,
    options: &SshOptions,
    code: Option<i32>,
    stderr: &str,
) -> Failure {
    let host = target.host();
    let last = last_line(stderr);
    match code {
        Some(255) | None => Failure {
            turned_away: again::of(code, stderr),
            ..of_ssh(target, stderr, &last)
        },
        Some(code) => of_command(host, options, code, stderr, &last),
    }
}

/// As [`diagnose`], where SFTP was asked for.
pub(crate) fn diagnose_sftp(target: &SshTarget, code: Option<i32>, stderr: &str) -> Failure {
    let host = target.host();
    let last = last_line(stderr);
    match code {
        Some(255) | None => of_ssh(target, stderr, &last),
        Some(0) => Failure::unreachable(format!("SFTP at {host} came to an end")),
        Some(126 | 127) => Failure::denied(format!("{host} offers no SFTP")),
        Some(code) if last.is_empty() => {
            Failure::unreachable(format!("SFTP at {host} ended with status {code}"))
        }
        Some(_) => Failure::unreachable(format!("SFTP at {host}: {last}")),
    }
}

fn last_line(stderr: &str) -> String {
    let last = stderr.lines().rfind(|l| !l.trim().is_empty());
    printable(last.unwrap_or_default())
}

fn of_ssh(target: &SshTarget, stderr: &str, last: &str) -> Failure {
    let host = target.host();
    let said = |needles: &[&str]| needles.iter().any(|n| stderr.contains(n));
    if said(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]) && said(&["Host key verification failed"])
    {
        return Failure::denied(format!(
            "the host key of {host} has changed; if that is right, mend known_hosts, else do not connect"
        ));
    }
    if said(&["Host key verification failed"]) {
        return Failure::denied(format!(
            "the host key of {host} is not known; add it to known_hosts and try again"
        ));
    }
    if said(&["Permission denied", "Too many authentication failures"]) {
        return Failure::denied(format!(
            "{host} refuses the login; put a key there that works without a question"
        ));
    }
    // Servers for files alone refuse every command.
    if said(&["exec request failed on channel"]) {
        return Failure::no_logchain(format!("{host} runs no commands"));
    }
    if said(&["subsystem request failed on channel"]) {
        return Failure::denied(format!("{host} offers no SFTP"));
    }
    if said(&["Could not resolve hostname"]) {
        return Failure::unreachable(format!("this machine finds no address for {host}"));
    }
    if said(&["Connection refused"]) {
        let port = target.port().map(|p| format!(" on port {p}"));
        let port = port.unwrap_or_default();
        return Failure::unreachable(format!(
            "{host} refuses the connection{port}; see whether sshd runs there"
        ));
    }
    if said(&[
        "Connection timed out",
        "Operation timed out",
        "No route to host",
        "Network is unreachable",
    ]) {
        return Failure::unreachable(format!("the network does not lead to {host}: {last}"));
    }
    if said(&["not responding"]) {
        return Failure::unreachable(format!("{host} stopped answering"));
    }
    if last.is_empty() {
        return Failure::unreachable(format!("ssh to {host} ended without a word"));
    }
    Failure::unreachable(format!("ssh to {host}: {last}"))
}

fn of_command(host: &str, options: &SshOptions, code: i32, stderr: &str, last: &str) -> Failure {
    let program = options.remote_logchain.display();
    let is_old = |line: &&str| {
        line.starts_with("error: unrecognized subcommand")
            || line.starts_with("error: unexpected argument")
    };
    match code {
        127 => Failure::no_logchain(format!(
            "{program} is not installed at {host}; install it there, or name its place with --remote-logchain"
        )),
        126 => Failure::no_logchain(format!("{program} at {host} cannot be run: {last}")),
        2 => match stderr.lines().find(is_old) {
            Some(line) => Failure::denied(format!(
                "the logchain at {host} is too old for this one; bring both to one release ({})",
                printable(line)
            )),
            None => Failure::denied(format!("{program} at {host}: {last}")),
        },
        0 => Failure::denied(format!(
            "what answers at {host} is not logchain: it ended at once"
        )),
        _ if last.is_empty() => {
            Failure::unreachable(format!("ssh to {host} ended with status {code}"))
        }
        _ => {
            let said = last.strip_prefix("logchain: ").unwrap_or(last);
            let mut failure = Failure::denied(format!("{program} at {host}: {said}"));
            if said.contains("No space left") || said.contains("quota exceeded") {
                failure.outcome = Outcome::Full;
            }
            failure
        }
    }
}

/// It goes to a terminal.
fn printable(line: &str) -> String {
    let line = line.chars().filter(|c| !c.is_control()).take(300);
    line.collect::<String>().trim().to_owned()
}
