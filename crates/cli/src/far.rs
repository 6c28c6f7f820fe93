//! The destination's half, run on the far side over ssh.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use logchain_core::handoff::Handoff;
use logchain_core::handoff::offer::AdoptStatus;
use logchain_host::event::PROTOCOL;
use logchain_host::{Event, Events};
use logchain_transport_ssh::{SshOptions, SshTarget, Tries, command, explain, is_turned_away};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use logchain_host::hosts::Hosts;

/// Before the migration may begin, the far side puts its own house in order.
const READY: Duration = Duration::from_secs(15);

/// How long it may take to end by itself.
const END: Duration = Duration::from_secs(10);

/// What is kept of the far side's words.
const MAX_STDERR: u64 = 16 * 1024;

/// Between two signs of life that it is given: a host that vanished without a word is
/// no end of its input, and it would wait for ever.
pub(crate) const SIGN: Duration = Duration::from_secs(5);

/// How long a sign may take to be written. Where nothing moves, one more is no matter.
const WRITE: Duration = Duration::from_millis(100);

/// A line of its output is short.
const MAX_LINE: u64 = 64 * 1024;

/// `logchain adopt` at the destination. Dropped, its input ends, and with it its
/// reason to wait; the local ssh ends too.
pub(crate) struct FarAdopt {
    /// Its input stays open as long as this does.
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

impl FarAdopt {
    /// Starts it. `transport`: the URL where it finds the pieces. `path`: where the
    /// log will lie, if the domain is not there yet. It looks whenever more was `put`.
    pub(crate) fn start(
        (target, transport): (&SshTarget, OsString),
        options: &SshOptions,
        (handoff, hosts): (&Handoff, Hosts),
        path: Option<&Path>,
        put: watch::Receiver<u64>,
        (patience, events): (Duration, Events),
    ) -> Result<Self, String> {
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

        let attendant = Attendant {
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
        let child = attendant.start()?;
        let far = Self {
            hold: Some(hold),
            state: attendant.state.subscribe(),
            ready: attendant.ready.subscribe(),
            shared: attendant.shared.subscribe(),
            staged: attendant.staged.subscribe(),
            elsewhere: attendant.elsewhere.subscribe(),
            task: tokio::spawn(attendant.attend(child, held, put)),
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
    pub(crate) async fn wait_ready(&mut self) -> Result<(), String> {
        let (limit, _) = self.limits;
        let waited = timeout(limit, async {
            tokio::select! {
                ready = self.ready.wait_for(|r| *r) => ready.is_ok(),
                _ = self.state.wait_for(|s| *s != AdoptStatus::Working) => false,
            }
        });
        match waited.await {
            Ok(true) => Ok(()),
            Ok(false) => match &*self.state.borrow() {
                AdoptStatus::Failed(reason) | AdoptStatus::Lost(reason) => Err(reason.clone()),
                AdoptStatus::Working => {
                    Err(format!("at {}: the destination's half ended", self.host))
                }
            },
            Err(_) => Err(format!(
                "{} was not ready within {} s",
                self.host,
                limit.as_secs_f64()
            )),
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

    /// Whether it said itself that it cannot do it.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(&*self.state.borrow(), AdoptStatus::Failed(_))
    }

    /// Whether ssh led to another host than the destination, where it did nothing.
    pub(crate) fn is_elsewhere(&self) -> bool {
        *self.elsewhere.borrow()
    }

    /// Lets it come to its end.
    pub(crate) async fn end(mut self) {
        self.hold = None;
        // Past that, dropping the handle ends the local ssh.
        let _ = timeout(self.limits.1, &mut self.task).await;
        self.task.abort();
    }
}

impl Drop for FarAdopt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What it takes to run it.
struct Attendant {
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

/// What one ssh said.
#[derive(Default)]
struct Told {
    /// Anything at all.
    any: bool,
    done: bool,
    reason: Option<String>,
    status: Option<ExitStatus>,
    stderr: String,
}

impl Attendant {
    fn start(&self) -> Result<Child, String> {
        command(&self.target, &self.options, &self.words)
            .spawn()
            .map_err(|e| {
                let named = self.target.login().program.as_ref();
                let program = named.unwrap_or(&self.options.program).display();
                format!("cannot start {program}: {e}")
            })
    }

    /// Attends to it until it ends, and then says how it ended. Where ssh is turned
    /// away it is started again.
    async fn attend(
        self,
        mut child: Child,
        mut held: watch::Receiver<()>,
        mut put: watch::Receiver<u64>,
    ) {
        let mut tries = Tries::within(self.options.connect_timeout);
        let told = loop {
            let told = self.listen(child, &mut held, &mut put).await;
            let turned_away = !told.any && is_turned_away(told.status, &told.stderr);
            if !turned_away || held.has_changed().is_err() || !tries.again().await {
                break told;
            }
            child = match self.start() {
                Ok(child) => child,
                Err(reason) => {
                    self.state.send_replace(AdoptStatus::Lost(reason));
                    return;
                }
            };
        };
        if told.done {
            return;
        }
        let explained = || explain(&self.target, &self.options, told.status, &told.stderr);
        // Bad usage is ours: the two are of different releases, which is explained better.
        let usage = told.status.and_then(|s| s.code()) == Some(2);
        self.state.send_replace(match told.reason {
            Some(reason) if !usage => AdoptStatus::Failed(reason),
            Some(_) => AdoptStatus::Failed(explained()),
            // It said nothing of an end: it may be at work still.
            None => AdoptStatus::Lost(explained()),
        });
    }

    /// Reads what the far side tells until it ends.
    async fn listen(
        &self,
        mut child: Child,
        held: &mut watch::Receiver<()>,
        put: &mut watch::Receiver<u64>,
    ) -> Told {
        let said = child.stderr.take().map(|mut stderr| {
            tokio::spawn(async move {
                let mut text = Vec::new();
                let _ = (&mut stderr).take(MAX_STDERR).read_to_end(&mut text).await;
                let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        let mut input = child.stdin.take();
        let mut signs = interval(SIGN);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Told::default();
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
                    // A line that is half here goes on where it is.
                    _ = held.changed(), if input.is_some() => {
                        input = None;
                        continue;
                    }
                    _ = signs.tick() => {
                        sign(input.as_mut()).await;
                        continue;
                    }
                    Ok(()) = put.changed() => {
                        sign(input.as_mut()).await;
                        continue;
                    }
                }
                told.any = true;
                self.hear(&line, &mut told);
                line.clear();
            }
        }
        told.status = child.wait().await.ok();
        if let Some(said) = said {
            told.stderr = said.await.unwrap_or_default();
        }
        told
    }

    fn hear(&self, line: &[u8], told: &mut Told) {
        // A profile that prints something is no news of ours.
        let Some(event) = Event::from_json(line) else {
            return;
        };
        let host = self.target.host();
        match event {
            Event::Hello {
                oldest, release, ..
            } if oldest > PROTOCOL => {
                told.reason.get_or_insert(too_new(host, &release));
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
            Event::Adopted { .. } | Event::Aborted { .. } => told.done = true,
            Event::Warning { reason } => self.events.warn(said_by(host, &reason)),
            Event::Elsewhere {
                host: there,
                source,
            } => {
                self.elsewhere.send_replace(true);
                told.reason = Some(said_from_elsewhere(host, &there, source));
            }
            // The first one says it best: an error at the end sums up.
            Event::Failed { reason, .. } | Event::Error { reason } => {
                told.reason.get_or_insert(said_by(host, &reason));
            }
            _ => {}
        }
    }
}

/// A sign of life, at which it looks for what is new.
async fn sign(input: Option<&mut ChildStdin>) {
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
    use logchain_core::transport::HandoffId;
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
    async fn started(script: &str) -> (Result<(), String>, FarAdopt, String) {
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
        let far = FarAdopt::start(
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
        let said = ready.unwrap_err();
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
        let said = ready.unwrap_err();
        assert!(
            said.contains("the logchain at h2 is too old for this one"),
            "{said}"
        );
        assert!(!far.is_elsewhere());
    }
}
