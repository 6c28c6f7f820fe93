//! The ssh process behind a connection: its pipes, its last words, its end.

use std::process::ExitStatus;
use std::time::Duration;

use logchain_core::OkLogged as _;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

use crate::failure::{Failure, diagnose, diagnose_sftp};
use crate::{SshOptions, SshTarget};

/// What is kept of ssh's own words: the end, where the reason stands.
const MAX_STDERR: usize = 16 * 1024;

/// How long a process that closed its output may take to end and say why.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// What was asked to answer on the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Logchain,
    Sftp,
}

/// Dropped, it takes the ssh with it.
pub(crate) struct Process {
    child: Child,
    said: JoinHandle<String>,
    target: SshTarget,
    options: SshOptions,
    asks: Asks,
}

impl Process {
    pub(crate) fn start(
        mut command: Command,
        target: &SshTarget,
        options: &SshOptions,
        asks: Asks,
    ) -> Result<(Self, ChildStdout, ChildStdin), Failure> {
        let mut child = command.spawn().map_err(|e| {
            let program = target.login().program.as_ref();
            let program = program.unwrap_or(&options.program).display();
            Failure::denied(format!("cannot start {program}: {e}"))
        })?;
        let (Some(input), Some(output), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::unreachable("ssh has no pipes"));
        };
        debug!(host = target.host(), ?asks, pid = child.id(), "ssh started");
        let process = Self {
            child,
            said: tokio::spawn(tail(stderr)),
            target: target.clone(),
            options: options.clone(),
            asks,
        };
        Ok((process, output, input))
    }

    /// Waits for its end and says what it means. `answered`: what came over its
    /// output before it ended, where nothing should have.
    pub(crate) async fn failure(&mut self, answered: &[u8]) -> Failure {
        const UNKNOWN: &str = "how ssh ended is not known";
        let status = timeout(LAST_WORDS, self.child.wait()).await;
        let status = status
            .ok_logged("ssh does not end by itself: it is killed")
            .and_then(|status| status.ok_logged(UNKNOWN));
        if status.is_none() {
            // Only a child that is gone has said all that it will say.
            self.child
                .start_kill()
                .ok_logged("ssh is killed when its connection is dropped");
        }
        // An ssh master that the user has may keep the pipe open.
        let said = timeout(LAST_WORDS, &mut self.said).await;
        let said = said
            .ok_logged("what ssh said is not waited for any longer")
            .and_then(|said| said.ok_logged("what ssh said is not known"))
            .unwrap_or_default();
        let failure = self.diagnose(status, &said, answered);
        let status = status.map(tracing::field::display);
        let (host, reason) = (self.target.host(), &failure.sentence);
        debug!(host, asks = ?self.asks, status, reason, "ssh ended");
        failure
    }

    fn diagnose(&self, status: Option<ExitStatus>, said: &str, answered: &[u8]) -> Failure {
        let code = status.and_then(|s| s.code());
        match self.asks {
            Asks::Logchain => diagnose(&self.target, &self.options, code, said).after(
                self.target.host(),
                code,
                answered,
            ),
            // It speaks still, but nothing that is understood.
            Asks::Sftp if status.is_none() => Failure::unreachable(format!(
                "what answers at {} is not SFTP as it is spoken here",
                self.target.host()
            )),
            Asks::Sftp => diagnose_sftp(&self.target, code, said),
        }
    }
}

/// Read to its end, so that ssh never waits for us; only the end is kept.
async fn tail(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut block = [0; 4096];
    while let Ok(n @ 1..) = stderr.read(&mut block).await {
        kept.extend_from_slice(block.get(..n).unwrap_or_default());
        let excess = kept.len().saturating_sub(MAX_STDERR);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
