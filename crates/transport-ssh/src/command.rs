//! How the system's ssh is called, and what its failures mean.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::SshTarget;

/// How ssh is called.
#[derive(Clone, Debug)]
pub struct SshOptions {
    /// The ssh program.
    pub program: OsString,
    /// What logchain is called on the far side.
    pub remote_logchain: OsString,
    /// How long connecting and shaking hands may take.
    pub connect_timeout: Duration,
    /// Further arguments for ssh, before the host.
    pub extra_args: Vec<OsString>,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            program: OsString::from("ssh"),
            remote_logchain: OsString::from("logchain"),
            connect_timeout: Duration::from_secs(10),
            extra_args: Vec::new(),
        }
    }
}

/// The command that runs `words` on the far side. Standard input, output and
/// error are pipes; the local ssh ends when the child is dropped.
///
/// Nobody can answer a question here, so ssh asks none (`BatchMode`): keys come
/// from files or an agent.
#[must_use]
pub fn command(target: &SshTarget, options: &SshOptions, words: &[OsString]) -> Command {
    let mut command = Command::new(&options.program);
    let timeout = options.connect_timeout.as_secs().max(1);
    command
        .args([
            "-T",
            "-oBatchMode=yes",
            "-oServerAliveInterval=5",
            "-oServerAliveCountMax=3",
        ])
        .arg(format!("-oConnectTimeout={timeout}"))
        // An escape character in a chunk must not reach ssh.
        .arg("-oEscapeChar=none")
        .args(&options.extra_args);
    if let Some(port) = target.port() {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(user) = target.user() {
        command.arg("-l").arg(user);
    }
    command.arg("--").arg(target.host()).arg(shell_words(words));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// sshd hands the command to a shell: every word is quoted.
fn shell_words(words: &[OsString]) -> OsString {
    let mut line = Vec::new();
    for word in words {
        if !line.is_empty() {
            line.push(b' ');
        }
        quote(word, &mut line);
    }
    OsString::from_vec(line)
}

fn quote(word: &OsStr, line: &mut Vec<u8>) {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-=:,@%+".contains(b);
    if !word.is_empty() && word.as_bytes().iter().all(plain) {
        line.extend_from_slice(word.as_bytes());
        return;
    }
    line.push(b'\'');
    for byte in word.as_bytes() {
        if *byte == b'\'' {
            line.extend_from_slice(b"'\\''");
        } else {
            line.push(*byte);
        }
    }
    line.push(b'\'');
}

/// What went wrong, as one sentence: from ssh's exit status and what it said.
#[must_use]
pub fn explain(
    target: &SshTarget,
    options: &SshOptions,
    status: Option<ExitStatus>,
    stderr: &str,
) -> String {
    let host = target.host();
    let said = |needle: &str| stderr.contains(needle);
    let code = status.and_then(|s| s.code());
    if code == Some(127) || said("command not found") {
        let program = options.remote_logchain.display();
        return format!(
            "{program} is not installed at {host}; install it there, or name its place with --remote-logchain"
        );
    }
    if said("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        return format!(
            "the host key of {host} has changed; if that is right, mend known_hosts, else do not connect"
        );
    }
    if said("Host key verification failed") || said("No matching host key") {
        return format!("the host key of {host} is not known; add it to known_hosts and try again");
    }
    if said("Permission denied") {
        return format!("{host} refuses the login; put a key there that works without a question");
    }
    let last = stderr
        .lines()
        .rev()
        .find(|l| !l.trim().is_empty())
        .unwrap_or_default();
    let last: String = last.chars().filter(|c| !c.is_control()).take(300).collect();
    match (code, last.is_empty()) {
        (_, false) => format!("ssh to {host}: {last}"),
        (Some(code), true) => format!("ssh to {host} ended with status {code}"),
        (None, true) => format!("ssh to {host} ended without a word"),
    }
}
