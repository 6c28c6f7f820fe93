//! How the system's ssh is called.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::shell::shell_line;

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
    /// How long nothing may move while an answer is awaited: then the connection
    /// counts as lost. ssh's own keep-alives end a dead one sooner.
    pub quiet: Duration,
    /// Further arguments for ssh. They stand first, so they win over ours.
    pub extra_args: Vec<OsString>,
    /// Whether SFTP may serve where the far side has no logchain.
    pub sftp: bool,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            program: OsString::from("ssh"),
            remote_logchain: OsString::from("logchain"),
            connect_timeout: Duration::from_secs(10),
            quiet: Duration::from_secs(60),
            extra_args: Vec::new(),
            sftp: true,
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
    let mut command = ssh(target, options);
    // sshd hands the command to a shell: every word is quoted.
    command.arg("--").arg(target.host()).arg(shell_line(words));
    command
}

/// As [`command`], for sshd's own SFTP server.
pub(crate) fn subsystem(target: &SshTarget, options: &SshOptions) -> Command {
    let mut command = ssh(target, options);
    command.args(["-s", "--", target.host(), "sftp"]);
    command
}

fn ssh(target: &SshTarget, options: &SshOptions) -> Command {
    let login = target.login();
    let mut command = Command::new(login.program.as_ref().unwrap_or(&options.program));
    let timeout = options.connect_timeout.as_secs().max(1);
    command
        .args(&options.extra_args)
        // No terminal, and nothing of the user's session that a transport needs.
        .args(["-T", "-a", "-x"])
        .args([
            "-oBatchMode=yes",
            "-oServerAliveInterval=5",
            "-oServerAliveCountMax=3",
            "-oClearAllForwardings=yes",
            "-oRemoteCommand=none",
            // A master that the user has is used; none of ours stays behind.
            "-oControlMaster=no",
            // An escape character in a chunk must not reach ssh.
            "-oEscapeChar=none",
        ])
        .arg(format!("-oConnectTimeout={timeout}"));
    login.add_to(&mut command);
    if let Some(port) = target.port() {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(user) = target.user() {
        command.arg("-l").arg(user);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A terminal's Ctrl-C is for the caller, who still needs the connection to clean up.
    command.process_group(0);
    command.kill_on_drop(true);
    command
}
