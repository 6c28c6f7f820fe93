//! `logchain migrate`: virsh's migration, and the logs with it.
//!
//! The log never harms the VM: whatever fails around it, the migration goes on,
//! and the exit status says what became of the log.

mod request;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use logchain_core::handoff::offer::{Outcome as Handed, Source};
use logchain_core::transport::LogTransport;
use logchain_libvirt::consoles::consoles;
use logchain_libvirt::events::{Lifecycle, LifecycleEvents, Resumed};
use logchain_libvirt::migrate::{self, MigrateRequest};
use logchain_libvirt::outcome::{self, Outcome};
use logchain_libvirt::source_end;
use logchain_libvirt::{Connection, Domain};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use crate::args::Migrate;
use crate::carry::{self, Carry, Log, Way};
use crate::exit::Exit;
use crate::host;
use crate::report::Report;
use crate::transports::{Choice, ssh_options};

/// A destination that the source reaches may be out of our own reach: with
/// --p2p it is asked for its events only.
const REACH: Duration = Duration::from_secs(5);

/// Between two looks at how far the migration is.
const LOOK: Duration = Duration::from_millis(500);

/// How long the two hosts may take to agree on what became of a migration: one
/// that goes on although our connection broke takes its time.
const SETTLE: Duration = Duration::from_secs(600);

/// The source's process ends within seconds of the guest's leaving.
const SOURCE_END: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: Migrate) -> anyhow::Result<Exit> {
    let report = Report::new(args.format);
    let request = request::of(&args).await?;
    let choice = Choice::of(args.carry.transport.as_deref(), Some(&args.dest_uri))?;
    let connection = host::connect_local(args.connect.uri.as_deref()).await?;
    let domain = connection.lookup(&args.domain).await?;
    if !domain.state().await?.is_active() {
        anyhow::bail!(
            "domain {} does not run here; only a running one migrates",
            domain.name()
        );
    }
    let logs = logs_of(&domain, &request).await?;
    let dest = destination(&request).await?;

    let migration = Migration {
        args: &args,
        report,
        request,
        choice,
        domain,
        dest,
    };
    migration.run(logs).await
}

/// The logs of a domain, and where each will lie at the destination.
async fn logs_of(domain: &Domain, request: &MigrateRequest) -> anyhow::Result<Vec<(Log, PathBuf)>> {
    let there = match &request.params.dest_xml {
        Some(xml) => consoles(xml).context("--xml")?,
        None => Vec::new(),
    };
    let mut logs = Vec::new();
    for console in host::consoles_of(domain).await? {
        let moved = there
            .iter()
            .find(|c| c.name == console.name)
            .map(|c| c.path.clone());
        let expected = moved.unwrap_or_else(|| console.path.clone());
        logs.push((
            Log {
                console: host::key_name(&console)?,
                path: console.path,
            },
            expected,
        ));
    }
    Ok(logs)
}

async fn destination(request: &MigrateRequest) -> anyhow::Result<Option<Connection>> {
    let uri = Some(request.dest_uri.as_str());
    if request.flags.p2p || request.flags.direct {
        return Ok(Connection::open_within(uri, REACH).await.ok());
    }
    Ok(Some(Connection::open(uri).await?))
}

struct Migration<'a> {
    args: &'a Migrate,
    report: Report,
    request: MigrateRequest,
    choice: Choice,
    domain: Domain,
    dest: Option<Connection>,
}

/// A console: on its way, or why it is not.
type Started = (Log, Result<Carry, String>);

impl Migration<'_> {
    async fn run(self, logs: Vec<(Log, PathBuf)>) -> anyhow::Result<Exit> {
        let source = watch::Sender::new(Source::Running);
        let ssh = ssh_options(&self.args.carry);
        let way = Way {
            choice: &self.choice,
            ssh: &ssh,
            patience: self.args.carry.patience,
            domain: self.domain.uuid(),
            domain_name: self.domain.name(),
        };
        let started = self.start(&way, logs, &source).await;
        let resumed = self.watch_destination().await;

        let call = self.call().await;
        match outcome::settle(&self.domain, self.dest.as_ref(), &call, SETTLE).await {
            Outcome::Migrated { .. } => self.finish(started, &source, &resumed).await,
            Outcome::Failed { reason, at_source } => {
                source.send_replace(Source::Stays);
                end_all(started).await;
                let name = self.domain.name();
                let uri = &self.request.dest_uri;
                let event = json!({ "event": "failed", "domain": name, "reason": reason });
                self.report.event("", &event);
                self.report.warn(&format!(
                    "domain {name} was not migrated to {uri}: {reason}; {}",
                    if at_source {
                        "it is here as before, and its log too"
                    } else {
                        "it is over on both hosts, and its log is here"
                    }
                ));
                Ok(Exit::Failed)
            }
            Outcome::Unknown { why } => {
                // Nothing is withdrawn: should it have migrated, the log is offered later.
                self.report.warn(&format!(
                    "nobody can tell whether domain {} migrated: {why}; its log is whole here",
                    self.domain.name()
                ));
                drop(started);
                Ok(Exit::NotCarried)
            }
        }
    }

    /// Holds every log, and starts both halves where the transport is there.
    async fn start(
        &self,
        way: &Way<'_>,
        logs: Vec<(Log, PathBuf)>,
        source: &watch::Sender<Source>,
    ) -> Vec<Started> {
        // Held first: whatever the transport does, the bytes are ours.
        let mut held = Vec::new();
        for (log, expected) in logs {
            held.push((log.clone(), expected, log.hold(way.domain).await));
        }
        let any = held.iter().any(|(_, _, held)| held.is_ok());
        let transport: Result<Arc<dyn LogTransport>, String> = if any {
            self.choice
                .open(way.ssh)
                .await
                .map_err(|e| format!("{e:#}"))
        } else {
            Err(String::new())
        };
        let mut started = Vec::new();
        for (log, expected, held) in held {
            let carry = match (held, &transport) {
                (Ok(held), Ok(transport)) => {
                    let (transport, source) = (Arc::clone(transport), source.subscribe());
                    Carry::start(way, transport, &log, held, source, Some(&expected)).await
                }
                (Err(reason), _) => Err(reason),
                (Ok(_), Err(reason)) => Err(reason.clone()),
            };
            if let Err(reason) = &carry {
                self.report.warn(&format!(
                    "{}: the log cannot be carried now: {reason}; the migration goes on",
                    log.console
                ));
            }
            started.push((log, carry));
        }
        started
    }

    /// When the guest first ran at the destination, once it has.
    async fn watch_destination(&self) -> watch::Receiver<Option<Instant>> {
        let resumed = watch::Sender::new(None);
        let receiver = resumed.subscribe();
        if let Some(dest) = &self.dest
            && let Ok(events) = dest.lifecycle_events(self.domain.uuid()).await
        {
            tokio::spawn(first_resumed(events, resumed));
        }
        receiver
    }

    /// The migration itself, with its progress; Ctrl-C ends it at the source.
    async fn call(&self) -> Result<(), logchain_libvirt::Error> {
        let (domain, dest, request) =
            (self.domain.clone(), self.dest.clone(), self.request.clone());
        let mut call =
            tokio::spawn(async move { migrate::migrate(&domain, dest.as_ref(), &request).await });
        let mut look = interval(LOOK);
        let mut shown = false;
        let answer = loop {
            tokio::select! {
                answer = &mut call => break answer,
                _ = look.tick() => shown |= self.show_progress().await,
                Ok(()) = tokio::signal::ctrl_c() => {
                    self.report.warn("cancelling the migration");
                    if let Err(e) = migrate::abort(&self.domain).await {
                        self.report.warn(&format!("it cannot be cancelled: {e}"));
                    }
                }
            }
        };
        if shown {
            self.report.progress_done();
        }
        answer.unwrap_or_else(|e| {
            let action = "migrate".to_owned();
            Err(logchain_libvirt::Error::Machine {
                action,
                message: e.to_string(),
            })
        })
    }

    async fn show_progress(&self) -> bool {
        if !self.args.verbose {
            return false;
        }
        // One slow answer must not hold up the end of the migration.
        let progress = timeout(LOOK, migrate::progress(&self.domain)).await;
        let Ok(Ok(Some(progress))) = progress else {
            return false;
        };
        let Some(fraction) = progress.fraction() else {
            return false;
        };
        self.report
            .progress(&format!("Migration: [{:3.0} %]", fraction * 100.0));
        true
    }

    /// The guest runs at the destination: brings the last bytes after it.
    async fn finish(
        &self,
        started: Vec<Started>,
        source: &watch::Sender<Source>,
        resumed: &watch::Receiver<Option<Instant>>,
    ) -> anyhow::Result<Exit> {
        let (name, uri) = (self.domain.name(), &self.request.dest_uri);
        let event = json!({ "event": "migrated", "domain": name, "destination": uri });
        self.report
            .event(&format!("domain {name} migrated to {uri}"), &event);
        if let Err(e) = source_end::wait(&self.domain, SOURCE_END).await {
            // The log's own end decides: nobody writes it any more, or it is not over.
            self.report.warn(&e.to_string());
        }
        source.send_replace(Source::Over);
        let mut all = true;
        for (log, carry) in started {
            let outcome = match carry {
                Ok(carry) => self.wait(carry).await,
                Err(reason) => (Handed::NotCarried { reason }, Instant::now()),
            };
            let (outcome, at) = outcome;
            let window = resumed
                .borrow()
                .map(|since| at.saturating_duration_since(since));
            let more = json!({ "window_ms": window.map(|w| u64::try_from(w.as_millis()).ok()) });
            let carried = carry::tell(self.report, &log, &outcome, more);
            if !carried {
                self.report.warn(&self.later(&log));
            }
            all &= carried;
        }
        if !all {
            return Ok(Exit::NotCarried);
        }
        if self.args.undefine_when_carried {
            self.undefine().await;
        }
        Ok(Exit::Done)
    }

    /// Waits for a log to arrive; Ctrl-C leaves it behind.
    async fn wait(&self, carry: Carry) -> (Handed, Instant) {
        let put = carry.put.clone();
        let mut end = std::pin::pin!(carry.end());
        let mut look = interval(Duration::from_secs(1));
        look.tick().await;
        let mut shown = false;
        loop {
            tokio::select! {
                ended = &mut end => {
                    if shown {
                        self.report.progress_done();
                    }
                    return ended;
                }
                _ = look.tick() => {
                    self.report.progress(&format!("Log: {} bytes sent", *put.borrow()));
                    shown = true;
                }
                Ok(()) = tokio::signal::ctrl_c() => {
                    let reason = "interrupted while the log was on its way".to_owned();
                    return (Handed::NotCarried { reason }, Instant::now());
                }
            }
        }
    }

    /// How to bring a log over that stayed behind.
    fn later(&self, log: &Log) -> String {
        let transport = match &self.choice {
            Choice::Ssh(target) => target.to_string(),
            Choice::Folder(path) => format!("file://{}", path.display()),
        };
        format!(
            "the history of {} stays at {}; bring it over with: logchain offer --transport {transport} \
             --console {}={} {}",
            log.console,
            log.path.display(),
            log.console,
            log.path.display(),
            self.domain.uuid(),
        )
    }

    async fn undefine(&self) {
        match self.domain.undefine().await {
            Ok(()) | Err(logchain_libvirt::Error::NoDomain { .. }) => {
                let name = self.domain.name();
                let event = json!({ "event": "undefined", "domain": name });
                self.report
                    .event(&format!("domain {name} is undefined here"), &event);
            }
            Err(e) => self.report.warn(&e.to_string()),
        }
    }
}

async fn first_resumed(mut events: LifecycleEvents, resumed: watch::Sender<Option<Instant>>) {
    while let Some(event) = events.recv().await {
        if matches!(
            event.event,
            Lifecycle::Resumed(Resumed::Migrated | Resumed::Postcopy)
        ) {
            resumed.send_replace(Some(event.at));
            return;
        }
    }
}

/// Lets every half come to its end, side by side.
async fn end_all(started: Vec<Started>) {
    let ends: Vec<_> = started
        .into_iter()
        .filter_map(|(_, carry)| Some(tokio::spawn(carry.ok()?.end())))
        .collect();
    for end in ends {
        // Its outcome is the withdrawal that was asked for.
        let _ = end.await;
    }
}
