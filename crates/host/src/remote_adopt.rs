//! The destination's half of a handoff, run at the destination over ssh: `logchain adopt`,
//! whose events this reads.
//!
//! Must not know: what the source's half does.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use logchain_core::handoff::Handoff;
use logchain_core::handoff::offer::AdoptStatus;
use logchain_transport_ssh::{SshOptions, SshTarget, Tries, command, explain, is_turned_away};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::event::PROTOCOL;
use crate::hosts::Hosts;
use crate::{Error, Event, Events, Result};

/// How long it may take until it is ready: it sets aside what an earlier stay left there.
const READY: Duration = Duration::from_secs(15);

/// How long it may take to end by itself.
const END: Duration = Duration::from_secs(10);

/// What is kept of the far side's words.
const MAX_STDERR: u64 = 16 * 1024;

/// Between two heartbeats that it is given: a host that vanishes does not close the pipe, and
/// the destination's half would wait for ever.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long writing a heartbeat may take. Where the pipe is full, the next one does as well.
const WRITE: Duration = Duration::from_millis(100);

/// A line of its output is short.
const MAX_LINE: u64 = 64 * 1024;

/// `logchain adopt` at the destination. Dropping it ends the local ssh; the other side sees its
/// input close, and stops waiting.
pub(crate) struct RemoteAdopt {
    /// Its input is open as long as this is here.
    hold: Option<watch::Sender<()>>,
    state: watch::Receiver<AdoptStatus>,
    ready: watch::Receiver<bool>,
    shared: watch::Receiver<bool>,
    staged: watch::Receiver<Option<u64>>,
    elsewhere: watch::Receiver<bool>,
    task: JoinHandle<()>,
    host: String,
    /// How long it may take to be ready, and to end by itself.
    limits: (Duration, Duration),
}

impl RemoteAdopt {
    /// Starts it. `transport`: the URL where it finds the pieces. `path`: where the log will
    /// lie, for a domain that is not there yet. `put`: how many bytes are in the transport; the
    /// other side is told when that changes, and looks.
    pub(crate) fn start(
        (target, transport): (&SshTarget, OsString),
        options: &SshOptions,
        (handoff, hosts): (&Handoff, Hosts),
        path: Option<&Path>,
        put: watch::Receiver<u64>,
        (patience, events): (Duration, Events),
    ) -> Result<Self> {
        let mut words: Vec<OsString> = vec![options.remote_logchain.clone()];
        words
            .extend(["adopt", "--attached", "--format", "json", "--transport"].map(OsString::from));
        words.push(transport);
        words.extend(["--handoff", &handoff.id.to_string()].map(OsString::from));
        words.extend(["--patience", &patience.as_secs_f64().to_string()].map(OsString::from));
        words.extend(hosts.options());
        words.push("--console".into());
        let mut console = OsString::from(handoff.console.as_str());
        if let Some(path) = path {
            console.push("=");
            console.push(path);
        }
        words.push(console);
        words.push(handoff.domain.to_string().into());

        let supervisor = Supervisor {
            target: target.clone(),
            options: options.clone(),
            words,
            state: watch::Sender::new(AdoptStatus::Working),
            ready: watch::Sender::new(false),
            shared: watch::Sender::new(false),
            staged: watch::Sender::new(None),
            elsewhere: watch::Sender::new(false),
            events,
        };
        let (hold, held) = watch::channel(());
        let child = supervisor.start()?;
        let far = Self {
            hold: Some(hold),
            state: supervisor.state.subscribe(),
            ready: supervisor.ready.subscribe(),
            shared: supervisor.shared.subscribe(),
            staged: supervisor.staged.subscribe(),
            elsewhere: supervisor.elsewhere.subscribe(),
            task: tokio::spawn(supervisor.supervise(child, held, put)),
            host: target.host().to_owned(),
            limits: (READY.min(patience), END.min(patience)),
        };
        Ok(far)
    }

    /// What the offer watches.
    pub(crate) fn state(&self) -> watch::Receiver<AdoptStatus> {
        self.state.clone()
    }

    /// Waits until the migration may begin.
    pub(crate) async fn wait_ready(&mut self) -> Result<()> {
        let (limit, _) = self.limits;
        let waited = timeout(limit, async {
            tokio::select! {
                ready = self.ready.wait_for(|r| *r) => ready.is_ok(),
                _ = self.state.wait_for(|s| *s != AdoptStatus::Working) => false,
            }
        });
        match waited.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::OtherHalf(match &*self.state.borrow() {
                AdoptStatus::Failed(reason) | AdoptStatus::Lost(reason) => reason.clone(),
                AdoptStatus::Working => format!("at {}: the destination's half ended", self.host),
            })),
            Err(_) => Err(Error::OtherHalf(format!(
                "{} was not ready within {} s",
                self.host,
                limit.as_secs_f64()
            ))),
        }
    }

    /// Whether it has the folder of the log as well; known once it is ready.
    pub(crate) fn is_shared(&self) -> bool {
        *self.shared.borrow()
    }

    /// How many bytes it has staged; `None` as long as it has no place for any.
    pub(crate) fn staged(&self) -> watch::Receiver<Option<u64>> {
        self.staged.clone()
    }

    /// Whether the other side itself said that it cannot do it.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(&*self.state.borrow(), AdoptStatus::Failed(_))
    }

    /// Whether ssh led to another host than the destination, where it did nothing.
    pub(crate) fn is_elsewhere(&self) -> bool {
        *self.elsewhere.borrow()
    }

    /// Lets it end by itself, for a bounded time.
    pub(crate) async fn end(mut self) {
        self.hold = None;
        // Past that, dropping the handle ends the local ssh.
        let _ = timeout(self.limits.1, &mut self.task).await;
        self.task.abort();
    }
}

impl Drop for RemoteAdopt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts ssh, hears what it says, and starts it again where it is turned away.
struct Supervisor {
    target: SshTarget,
    options: SshOptions,
    words: Vec<OsString>,
    state: watch::Sender<AdoptStatus>,
    ready: watch::Sender<bool>,
    shared: watch::Sender<bool>,
    staged: watch::Sender<Option<u64>>,
    elsewhere: watch::Sender<bool>,
    events: Events,
}

/// What one run of ssh said.
#[derive(Default)]
struct SshRun {
    /// Anything at all.
    any: bool,
    done: bool,
    reason: Option<String>,
    status: Option<ExitStatus>,
    stderr: String,
}

impl Supervisor {
    fn start(&self) -> Result<Child> {
        command(&self.target, &self.options, &self.words)
            .spawn()
            .map_err(|source| {
                let named = self.target.login().program.as_ref();
                let program = named.unwrap_or(&self.options.program).display();
                let action = format!("cannot start {program}");
                Error::Io { action, source }
            })
    }

    /// Runs until the destination's half ends, and says how it ended.
    async fn supervise(
        self,
        mut child: Child,
        mut held: watch::Receiver<()>,
        mut put: watch::Receiver<u64>,
    ) {
        let mut tries = Tries::within(self.options.connect_timeout);
        let run = loop {
            let run = self.listen(child, &mut held, &mut put).await;
            let turned_away = !run.any && is_turned_away(run.status, &run.stderr);
            if !turned_away || held.has_changed().is_err() || !tries.again().await {
                break run;
            }
            child = match self.start() {
                Ok(child) => child,
                Err(e) => {
                    self.state.send_replace(AdoptStatus::Lost(e.sentence()));
                    return;
                }
            };
        };
        if run.done {
            return;
        }
        let explained = || explain(&self.target, &self.options, run.status, &run.stderr);
        // It did not understand our options: it is of another release, and `explain` says so.
        let usage = run.status.and_then(|s| s.code()) == Some(2);
        self.state.send_replace(match run.reason {
            Some(reason) if !usage => AdoptStatus::Failed(reason),
            Some(_) => AdoptStatus::Failed(explained()),
            // It did not say that it ended: it may be at work still.
            None => AdoptStatus::Lost(explained()),
        });
    }

    /// Reads what the far side tells until it ends.
    async fn listen(
        &self,
        mut child: Child,
        held: &mut watch::Receiver<()>,
        put: &mut watch::Receiver<u64>,
    ) -> SshRun {
        let said = child.stderr.take().map(|mut stderr| {
            tokio::spawn(async move {
                let mut text = Vec::new();
                let _ = (&mut stderr).take(MAX_STDERR).read_to_end(&mut text).await;
                let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        let mut input = child.stdin.take();
        let mut heartbeats = interval(HEARTBEAT);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut run = SshRun::default();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            loop {
                let read = async {
                    let mut limited = (&mut output).take(MAX_LINE);
                    limited.read_until(b'\n', &mut line).await
                };
                tokio::select! {
                    read = read => match read {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => break,
                    },
                    // A line that has come in part stays in the buffer.
                    _ = held.changed(), if input.is_some() => {
                        input = None;
                        continue;
                    }
                    _ = heartbeats.tick() => {
                        heartbeat(input.as_mut()).await;
                        continue;
                    }
                    Ok(()) = put.changed() => {
                        heartbeat(input.as_mut()).await;
                        continue;
                    }
                }
                run.any = true;
                self.hear(&line, &mut run);
                line.clear();
            }
        }
        run.status = child.wait().await.ok();
        if let Some(said) = said {
            run.stderr = said.await.unwrap_or_default();
        }
        run
    }

    fn hear(&self, line: &[u8], run: &mut SshRun) {
        // A login profile may print something of its own.
        let Some(event) = Event::from_json(line) else {
            return;
        };
        let host = self.target.host();
        match event {
            Event::Hello {
                oldest, release, ..
            } if oldest > PROTOCOL => {
                run.reason.get_or_insert(too_new(host, &release));
            }
            Event::Shared { .. } => {
                self.shared.send_replace(true);
            }
            Event::Staged { bytes, .. } => {
                self.staged.send_replace(Some(bytes));
            }
            Event::Ready { .. } => {
                self.ready.send_replace(true);
            }
            Event::Adopted { .. } | Event::Aborted { .. } => run.done = true,
            Event::Warning { reason } => self.events.warn(said_by(host, &reason)),
            Event::Elsewhere {
                host: there,
                source,
            } => {
                self.elsewhere.send_replace(true);
                run.reason = Some(said_from_elsewhere(host, &there, source));
            }
            // The first reason is the precise one; the error at the end sums up.
            Event::Failed { reason, .. } | Event::Error { reason } => {
                run.reason.get_or_insert(said_by(host, &reason));
            }
            _ => {}
        }
    }
}

/// A heartbeat. The destination looks for new pieces at each of them.
async fn heartbeat(input: Option<&mut ChildStdin>) {
    if let Some(input) = input {
        let _ = timeout(WRITE, input.write_all(b"\n")).await;
    }
}

/// What the far side says, and where that is.
fn said_by(host: &str, said: &str) -> String {
    format!("at {host}: {}", plain(said))
}

/// That this release cannot talk to the one over there.
fn too_new(host: &str, release: &str) -> String {
    let release = plain(release);
    format!("at {host}: logchain {release} is too new for this one; update logchain here")
}

/// That ssh to `host` is not the destination, and where it leads instead.
fn said_from_elsewhere(host: &str, there: &str, is_source: bool) -> String {
    let there = plain(there);
    let where_to = match is_source {
        true => format!("back to the source ({there})"),
        false => format!("to the host {there}"),
    };
    format!(
        "ssh to {host} leads {where_to}, not to the destination that libvirt reaches; no log \
         was touched there; name a way for the log with --transport, as ssh://host"
    )
}

/// Words of another host, made fit for a terminal.
pub(crate) fn plain(said: &str) -> String {
    let said = said.chars().filter(|c| !c.is_control());
    said.take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchain_core::ids::HandoffId;
    use std::os::unix::fs::PermissionsExt;
    use uuid::Uuid;

    #[test]
    fn what_fails_there_is_said_with_its_place() {
        let reason = "cannot write /x:\u{1b}[31m full\n";
        assert_eq!(said_by("h2", reason), "at h2: cannot write /x:[31m full");
        let back = said_from_elsewhere("h2", "h3\u{7}", true);
        assert!(
            back.starts_with("ssh to h2 leads back to the source (h3), not"),
            "{back}"
        );
        let other = said_from_elsewhere("h2", "h3\u{7}", false);
        assert!(
            other.starts_with("ssh to h2 leads to the host h3, not"),
            "{other}"
        );
    }

    /// In place of ssh: what the far side does is a script.
    async fn started(script: &str) -> (Result<()>, RemoteAdopt, String) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("ssh");
        let words = folder.path().join("words");
        let script = format!("#!/bin/sh\necho \"$@\" >{}\n{script}\n", words.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = SshOptions {
            program: program.into(),
            ..SshOptions::default()
        };
        let handoff = Handoff {
            domain: Uuid::from_u128(7),
            console: "serial0".parse().unwrap(),
            id: HandoffId::random(),
        };
        let hosts = Hosts {
            source: Some(Uuid::from_u128(1)),
            destination: Some(Uuid::from_u128(2)),
        };
        let target = SshTarget::on("h2").unwrap();
        let put = watch::Sender::new(0).subscribe();
        let there = (&target, OsString::from("file:///spool"));
        let patience = Duration::from_secs(20);
        let far = RemoteAdopt::start(
            there,
            &options,
            (&handoff, hosts),
            None,
            put,
            (patience, Events::ignored()),
        );
        let mut far = far.unwrap();
        let ready = far.wait_ready().await;
        (ready, far, std::fs::read_to_string(words).unwrap())
    }

    #[tokio::test]
    async fn it_is_told_both_hosts_and_says_where_ssh_led() {
        let (ready, far, words) = started(
            r#"echo '{"event":"elsewhere","host":"h3","source":false}'
            echo '{"event":"error","reason":"h3 is not the host that the domain goes to"}'
            exit 1"#,
        )
        .await;
        let [one, two] = [1, 2].map(Uuid::from_u128);
        assert!(
            words.contains(&format!("--from-host {one} --to-host {two} ")),
            "{words}"
        );
        let said = ready.unwrap_err().sentence();
        assert!(
            said.starts_with("ssh to h2 leads to the host h3, not"),
            "{said}"
        );
        // Pieces that need no ssh go on to where they wait for the destination.
        assert!(far.has_failed() && far.is_elsewhere());
    }

    #[tokio::test]
    async fn one_that_is_too_old_for_that_is_said_to_be() {
        let (ready, far, _) = started(
            r#"echo "error: unexpected argument '--from-host' found" >&2
            echo '{"event":"error","reason":"unexpected argument"}'
            exit 2"#,
        )
        .await;
        let said = ready.unwrap_err().sentence();
        assert!(
            said.contains("the logchain at h2 is too old for this one"),
            "{said}"
        );
        assert!(!far.is_elsewhere());
    }
}
