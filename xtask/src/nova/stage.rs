//! What a row does to servers, and how it looks at their logs: in Nova's answer and in the files.

use std::cell::Cell;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use logchain_tests::Host;
use serde_json::{Value, json};

use super::agents::Agents;
use super::api::Api;
use super::cloud::{CALM, Cloud};
use super::config::INSTANCES;
use super::lines::Lines;
use super::wait::until;

/// Far more than anything takes here, for a machine that others use as well.
pub(crate) const LONG: Duration = Duration::from_secs(300);
/// When a history has to be complete after a migration.
const SETTLED: Duration = Duration::from_secs(60);
/// The same where nobody brings one.
const UNSETTLED: Duration = Duration::from_secs(3);
/// How long nothing may happen until Nova is taken to be done.
const CALM_FOR: Duration = Duration::from_secs(5);
/// How many lines a guest prints on a host before it moves on.
const LINES: u64 = 100;

/// The cloud, and whether agents run in it.
pub(crate) struct Stage<'a> {
    pub(crate) cloud: &'a Cloud,
    pub(crate) agents: Option<&'a Agents>,
}

/// A log as Nova gives it, and as its files have it.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) console: Lines,
    pub(crate) files: Lines,
    /// The same as bytes, for whoever wants to know why.
    pub(crate) raw: (Vec<u8>, Vec<u8>),
}

impl Look {
    /// Of a server that is no more.
    pub(crate) fn nothing() -> Self {
        Look {
            console: Lines::default(),
            files: Lines::default(),
            raw: (Vec::new(), Vec::new()),
        }
    }

    /// Whether both have everything since one boot, and reach as far as `before`.
    pub(crate) fn whole_since(&self, before: &Look) -> bool {
        let end = before.files.last().max(before.console.last());
        let reach = self.console.last() >= end && self.files.last() >= end;
        self.console.whole() && self.files.whole() && reach
    }
}

/// A server of a row; Nova deletes it when the row is over.
pub(crate) struct Server<'a> {
    stage: &'a Stage<'a>,
    pub(crate) id: String,
    /// The newest migration from before the present one: Nova makes a record of that one only a
    /// moment after it was asked for it.
    earlier: Cell<u64>,
}

impl<'a> Stage<'a> {
    pub(crate) fn api(&self) -> &Api {
        &self.cloud.api
    }

    /// Has a server made on `host`, and waits until its guest has printed some lines.
    pub(crate) fn server(&'a self, name: &str, host: &str) -> Result<Server<'a>> {
        let id = self.api().create(name, CALM, host)?;
        let server = Server::of(self, &id);
        server.wait_for_status("ACTIVE")?;
        server.wait_for_lines(LINES)?;
        Ok(server)
    }

    /// Removes what a row left that was not run to its end: it must not disturb the next one.
    pub(crate) fn clear(&self) -> Result<()> {
        self.slow(false)?;
        for id in self.api().servers()? {
            let server = Server::of(self, &id);
            server.recover()?;
            server.delete()?;
            for host in [self.cloud.lab.host(0), self.cloud.lab.host(1)] {
                server.sweep(host)?;
            }
        }
        Ok(())
    }

    /// Lets both hypervisors send so little that a migration takes half a minute, or lets them
    /// send as much as they can again.
    pub(crate) fn slow(&self, slow: bool) -> Result<()> {
        for host in [self.cloud.lab.host(0), self.cloud.lab.host(1)] {
            if slow {
                host.slow_network(12)?;
            } else {
                // It may be at full speed already.
                host.run(["tc", "qdisc", "del", "dev", "eth0", "root"])?;
            }
        }
        Ok(())
    }
}

impl<'a> Server<'a> {
    /// One that is there already.
    pub(crate) fn of(stage: &'a Stage<'a>, id: &str) -> Self {
        Server {
            stage,
            id: id.to_owned(),
            earlier: Cell::new(0),
        }
    }
}

impl Server<'_> {
    pub(crate) fn api(&self) -> &Api {
        self.stage.api()
    }

    fn shown(&self) -> Result<Value> {
        let shown = self.api().server(&self.id)?;
        shown.with_context(|| format!("Nova has no server {} any more", self.id))
    }

    /// The host that Nova takes it to be on.
    pub(crate) fn host(&self) -> Result<&Host> {
        let shown = self.shown()?;
        let name = shown.get("OS-EXT-SRV-ATTR:host").and_then(Value::as_str);
        let name = name.context("Nova names no host")?;
        self.stage.cloud.host(name)
    }

    /// The other hypervisor.
    pub(crate) fn other_host(&self) -> Result<&str> {
        Ok(match self.host()?.name() {
            "h1" => "h2",
            _ => "h1",
        })
    }

    pub(crate) fn status(&self) -> Result<(String, bool)> {
        let shown = self.shown()?;
        let status = shown.get("status").and_then(Value::as_str).unwrap_or("");
        let busy = shown.get("OS-EXT-STS:task_state");
        Ok((status.to_owned(), busy.is_some_and(|task| !task.is_null())))
    }

    /// Waits until it has this status, and nothing is under way.
    pub(crate) fn wait_for_status(&self, wanted: &str) -> Result<()> {
        until(&format!("the server to be {wanted}"), LONG, || {
            let (status, busy) = self.status()?;
            if status == "ERROR" && wanted != "ERROR" {
                let shown = self.shown()?;
                let fault = shown.get("fault").and_then(|fault| fault.get("message"));
                let fault = fault
                    .and_then(Value::as_str)
                    .unwrap_or("Nova does not say why");
                bail!("the server is in error: {fault}");
            }
            Ok((status == wanted && !busy).then_some(()))
        })
    }

    /// Waits until nothing is under way and stays so, whatever has failed. Where Nova put the
    /// server into error, its operator takes it out again. Gives the status that Nova gave it.
    pub(crate) fn recover(&self) -> Result<String> {
        let mut calm: Option<Instant> = None;
        let status = until("Nova to be done with the server", LONG, || {
            let (status, busy) = self.status()?;
            if busy || status == "MIGRATING" {
                calm = None;
                return Ok(None);
            }
            // Nova lets go of it at first, and puts it into error a moment later.
            let since = *calm.get_or_insert_with(Instant::now);
            Ok((since.elapsed() > CALM_FOR).then_some(status))
        })?;
        if status == "ERROR" {
            let action = json!({"os-resetState": {"state": "active"}});
            self.api().act(&self.id, &action)?;
            self.wait_for_status("ACTIVE")?;
        }
        Ok(status)
    }

    /// Waits until the log at its host has this many lines more than now.
    pub(crate) fn wait_for_lines(&self, more: u64) -> Result<()> {
        let from = self.files()?.last();
        until("the guest to print", LONG, || {
            Ok((self.files()?.last() >= from + more).then_some(()))
        })
    }

    /// Base and rotated files at its host, oldest first.
    pub(crate) fn files(&self) -> Result<Lines> {
        self.files_at(self.host()?)
    }

    pub(crate) fn files_at(&self, host: &Host) -> Result<Lines> {
        Ok(Lines::of(&self.bytes_at(host)?))
    }

    fn bytes_at(&self, host: &Host) -> Result<Vec<u8>> {
        let base = format!("{INSTANCES}/{}/console.log", self.id);
        let mut bytes = Vec::new();
        for number in (0..10).rev() {
            bytes.extend(read(host, &format!("{base}.{number}"))?);
        }
        bytes.extend(read(host, &base)?);
        Ok(bytes)
    }

    /// Whether its folder is there at a host.
    pub(crate) fn has_folder_at(&self, host: &Host) -> bool {
        host.path(format!("{INSTANCES}/{}", self.id)).exists()
    }

    /// What is in its folder at a host.
    pub(crate) fn folder_at(&self, host: &Host) -> Result<Vec<String>> {
        let path = host.path(format!("{INSTANCES}/{}", self.id));
        let entries = fs::read_dir(&path).with_context(|| path.display().to_string())?;
        let names = entries.flatten().map(|entry| entry.file_name());
        Ok(names.map(|n| n.to_string_lossy().into_owned()).collect())
    }

    pub(crate) fn look(&self) -> Result<Look> {
        let console = match self.api().console(&self.id)? {
            Ok(text) => text.into_bytes(),
            Err(_) => Vec::new(),
        };
        let files = self.bytes_at(self.host()?)?;
        Ok(Look {
            console: Lines::of(&console),
            files: Lines::of(&files),
            raw: (console, files),
        })
    }

    /// Looks until `fits`, with agents for as long as they may need; gives the last look.
    pub(crate) fn look_until(&self, fits: impl Fn(&Look) -> bool) -> Result<Look> {
        self.settle(|| self.look(), fits)
    }

    /// The same, of the files at a host and nothing else.
    pub(crate) fn files_until(&self, host: &Host, fits: impl Fn(&Lines) -> bool) -> Result<Lines> {
        self.settle(|| self.files_at(host), fits)
    }

    fn settle<T>(&self, look: impl Fn() -> Result<T>, fits: impl Fn(&T) -> bool) -> Result<T> {
        let limit = match self.stage.agents {
            Some(_) => SETTLED,
            None => UNSETTLED,
        };
        let started = Instant::now();
        until("the log to settle", LONG, || {
            let found = look()?;
            let enough = fits(&found) || started.elapsed() > limit;
            Ok(enough.then_some(found))
        })
    }

    /// Asks for a live migration to the other host; gives that host's name.
    pub(crate) fn begin_migration(&self) -> Result<String> {
        let to = self.other_host()?.to_owned();
        let newest = self.api().migration(&self.id)?;
        self.earlier.set(newest.map_or(0, |(number, _)| number));
        let action = json!({"os-migrateLive": {"host": to, "block_migration": "auto"}});
        self.api().act(&self.id, &action)?;
        Ok(to)
    }

    /// Waits until the migration that was begun last has one of these statuses.
    pub(crate) fn wait_for_migration(&self, wanted: &[&str]) -> Result<(u64, String)> {
        until(&format!("the migration to be {wanted:?}"), LONG, || {
            let newest = self.api().migration(&self.id)?;
            Ok(newest.filter(|(number, status)| {
                *number > self.earlier.get() && wanted.contains(&status.as_str())
            }))
        })
    }

    /// A live migration to the other host, from the call to the end of all of Nova's work.
    pub(crate) fn migrate(&self) -> Result<String> {
        let to = self.begin_migration()?;
        self.end_migration(&to)?;
        Ok(to)
    }

    pub(crate) fn end_migration(&self, to: &str) -> Result<()> {
        let ended = ["completed", "error", "failed", "cancelled"];
        let (_, status) = self.wait_for_migration(&ended)?;
        self.wait_for_status("ACTIVE")?;
        let host = self.host()?.name();
        if status != "completed" || host != to {
            bail!("the migration to {to} is {status}, and the server is on {host}");
        }
        Ok(())
    }

    /// Waits until memory is copied: Nova says that it is running, and QEMU that it sends.
    pub(crate) fn wait_for_copying(&self) -> Result<()> {
        self.wait_for_migration(&["running"])?;
        let host = self.host()?;
        until("memory to be copied", LONG, || {
            let info = host.run(["virsh", "domjobinfo", &self.id])?;
            let sent = info
                .out()
                .lines()
                .any(|line| line.starts_with("Memory processed:") && !line.contains(" 0.000"));
            Ok(sent.then_some(()))
        })
    }

    /// The hypervisor on which its domain runs, whatever Nova knows.
    pub(crate) fn real_host(&self) -> Result<Option<&Host>> {
        for host in [self.stage.cloud.lab.host(0), self.stage.cloud.lab.host(1)] {
            let state = host.run(["virsh", "domstate", &self.id])?;
            if state.out().trim() == "running" {
                return Ok(Some(host));
            }
        }
        Ok(None)
    }

    /// Whether its domain has a console to be logged.
    pub(crate) fn has_serial_port(&self) -> Result<bool> {
        let xml = self.host()?.run(["virsh", "dumpxml", &self.id])?;
        Ok(xml.checked()?.out().contains("<serial"))
    }

    /// Removes what is left of it at a host behind Nova's back.
    pub(crate) fn sweep(&self, host: &Host) -> Result<()> {
        // Each fails where nothing is left, which is well.
        host.run(["virsh", "destroy", &self.id])?;
        host.run(["virsh", "undefine", &self.id])?;
        let folder = format!("{INSTANCES}/{}", self.id);
        host.run(["rm", "-rf", &folder])?.checked()?;
        Ok(())
    }

    /// Has Nova delete it, and waits until it is gone.
    pub(crate) fn delete(&self) -> Result<()> {
        self.api().delete(&self.id)?;
        self.wait_until_gone()
    }

    pub(crate) fn wait_until_gone(&self) -> Result<()> {
        until("the server to be deleted", LONG, || {
            Ok(self.api().server(&self.id)?.is_none().then_some(()))
        })
    }
}

/// A file on a host; nothing where it is not there (any more).
fn read(host: &Host, path: &str) -> Result<Vec<u8>> {
    let path = host.path(path);
    match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.with_context(|| path.display().to_string()),
    }
}
