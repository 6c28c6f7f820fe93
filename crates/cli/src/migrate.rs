//! `logchain migrate`: virsh's migration, and the logs with it.
//!
//! The log never harms the VM: whatever fails around it, the migration goes on,
//! and the exit status says what became of the log.

mod call;
mod guest;
pub(crate) mod later;
mod logs;
mod request;
mod split;
mod turn;
mod way;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use logchain_core::handoff::Budget;
use logchain_core::handoff::offer::{Outcome as Handed, Source};
use logchain_core::outbox::Kept;
use logchain_core::transport::{HandoffId, LogTransport};
use logchain_host::astray;
use logchain_host::consoles;
use logchain_host::hosts::Hosts;
use logchain_host::meter::Meter;
use logchain_host::progress::Phase;
use logchain_host::transports::{TransportChoice, ssh_options};
use logchain_host::{Event, Events};
use logchain_libvirt::migrate::MigrateRequest;
use logchain_libvirt::outcome::{self, Outcome};
use logchain_libvirt::source_end;
use logchain_libvirt::{Connection, Domain, State};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::args::{DEFAULT_REMOTE, Migrate};
use crate::carry::{self, Begun, Carry, Log, Way};
use crate::exit::{self, Ended, Exit};
use crate::interrupt::Interrupt;
use crate::kept::{self, Keepers};
use crate::noted::Noted;
use crate::report::{self, Watch};
use guest::Resumes;
use logs::Logs;

/// A destination that the source reaches may be out of our own reach: with
/// --p2p it is asked for its events only.
const REACH: Duration = Duration::from_secs(5);

/// How long the two hosts may take to agree on what became of a migration: one
/// that goes on although our connection broke takes its time.
const SETTLE: Duration = Duration::from_secs(600);

/// The source's process ends within seconds of the guest's leaving.
const SOURCE_END: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: Migrate, interrupt: Interrupt) -> anyhow::Result<Exit> {
    let (migration, logs) = interrupt.or(prepare(&args, &interrupt)).await?;
    let begun = AtomicBool::new(false);
    tokio::select! {
        ended = migration.run(logs, &begun) => ended,
        () = interrupt.forced() => {
            let name = migration.domain.name();
            let (exit, fate) = if begun.load(Ordering::Relaxed) {
                (Exit::NotCarried, "see on both hosts where it runs; its log is whole here")
            } else {
                (Exit::Failed, "it is here as before")
            };
            let told = false;
            let reason = format!(
                "interrupted again: ended before all was put in order; domain {name}: {fate}"
            );
            Err(Ended { exit, reason, told }.into())
        }
    }
}

/// All that can be found out before anything is begun. Only what is wrong with the migration
/// itself ends here, or a mistake on the command line: virsh migrates whatever the log is.
async fn prepare<'a>(
    args: &'a Migrate,
    interrupt: &'a Interrupt,
) -> anyhow::Result<(Migration<'a>, Logs)> {
    let watch = if args.verbose {
        Watch::Verbose
    } else {
        Watch::Plain
    };
    let events = report::events(args.format, watch);
    let route = request::Route::of(args)?;
    let request = request::of(args, &route).await?;
    let transport = args.carry.transport.as_deref();
    if transport.is_some() {
        // A mistake in it is told before anybody is asked for anything.
        TransportChoice::of(transport, None)?;
    }
    let connection = consoles::connect_local(args.connect.uri.as_deref()).await?;
    let domain = connection.lookup(&route.domain).await?;
    if !domain.state().await?.is_active() {
        anyhow::bail!(
            "domain {} does not run here; only a running one migrates",
            domain.name()
        );
    }
    let dest = destination(&request).await?;
    let hosts = Hosts::of(&connection, dest.as_ref()).await;
    // libvirt refuses it too, but late, and a copy would be staged beside the log itself.
    let one = dest.as_ref().is_some_and(|d| d.uri() == connection.uri());
    if one || hosts.same().is_some() {
        let uuid = hosts
            .same()
            .map_or(String::new(), |uuid| format!(" ({uuid})"));
        anyhow::bail!(
            "{} is this very host{uuid}; a domain migrates to another one only",
            request.dest_uri
        );
    }
    let logs = Logs::of(&domain, &request).await;
    let choice = way::choose(transport, &request.dest_uri, dest.as_ref())?;
    let meter = Meter::new(events.clone());
    let migration = Migration {
        args,
        events,
        meter,
        request,
        choice,
        domain,
        dest,
        hosts,
        interrupt,
        keepers: Keepers::new(&args.state.folder),
    };
    Ok((migration, logs))
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
    events: Events,
    meter: Meter,
    request: MigrateRequest,
    choice: TransportChoice,
    domain: Domain,
    dest: Option<Connection>,
    hosts: Hosts,
    interrupt: &'a Interrupt,
    keepers: Keepers,
}

/// A console: on its way, or why it is not.
type Started = (Log, Result<Carry, NotStarted>);

/// Why a console is not on its way.
struct NotStarted {
    reason: String,
    /// Whether its log could be opened here.
    held: bool,
}

impl Migration<'_> {
    async fn run(&self, logs: Logs, begun: &AtomicBool) -> anyhow::Result<Exit> {
        let Logs {
            found,
            mut left_out,
        } = logs;
        for reason in &left_out {
            let sentence = format!("{reason}: it cannot be carried; the migration goes on");
            self.events.warn(sentence);
        }
        let source = watch::Sender::new(Source::Running);
        let carry = &self.args.carry;
        let ssh = ssh_options(Some(&carry.remote_logchain), carry.patience);
        let way = Way {
            events: self.events.clone(),
            choice: &self.choice,
            ssh: &ssh,
            patience: carry.patience,
            domain: self.domain.uuid(),
            domain_name: self.domain.name(),
            hosts: self.hosts,
            budget: Budget::default(),
            writers: Arc::default(),
        };
        let watch = async { Ok(self.watch_destination().await) };
        let resumed = self.interrupt.or(watch).await?;
        let rejoin = async {
            self.rejoin().await;
            Ok(())
        };
        self.interrupt.or(rejoin).await?;
        let starting = async {
            let mut start = pin!(self.start(&way, found, &source, &mut left_out));
            tokio::select! {
                started = &mut start => started,
                () = self.interrupt.first() => {
                    // Whoever waits for the far side stops, and withdraws.
                    self.meter.enter(Phase::Undo);
                    source.send_replace(Source::Stays);
                    start.await
                }
            }
        };
        let started = self.meter.during(Phase::Prepare, starting).await;
        for carry in started.iter().filter_map(|(_, carry)| carry.as_ref().ok()) {
            self.meter.log(carry.put.clone(), carry.bytes);
        }
        if !self.interrupt.came() {
            let ahead = self.head_start(&started);
            self.meter.during(Phase::HeadStart, ahead).await;
        }
        if self.interrupt.came() {
            source.send_replace(Source::Stays);
            let end = end_all(started);
            self.meter.during(Phase::Undo, end).await;
            let name = self.domain.name();
            anyhow::bail!("interrupted: domain {name} is here as before, and its log too");
        }

        begun.store(true, Ordering::Relaxed);
        let last_bytes = self.watch_source(&source).await;
        let turn = turn::watch(self.args, &self.domain, &self.events).await;
        let call = self.call(source.subscribe());
        let (call, cancelled) = self.meter.during(Phase::Memory, call).await;
        for watch in [last_bytes, turn].into_iter().flatten() {
            watch.abort();
        }
        let went = match &call {
            Ok(()) => Phase::Switchover,
            Err(_) => Phase::Undo,
        };
        let settled = outcome::settle(&self.domain, self.dest.as_ref(), &call, SETTLE);
        match self.meter.during(went, settled).await {
            Outcome::Migrated { .. } => self.finish((started, left_out), &source, &resumed).await,
            Outcome::Failed {
                reason,
                at_source,
                dest_answered,
            } => {
                source.send_replace(Source::Stays);
                self.meter.during(Phase::Undo, end_all(started)).await;
                // What libvirt answers then depends on how far it was.
                let reason = if cancelled {
                    "interrupted".to_owned()
                } else {
                    reason
                };
                let name = self.domain.name();
                let uri = &self.request.dest_uri;
                self.events.tell(Event::Failed {
                    console: None,
                    domain: Some(name.to_owned()),
                    reason: reason.clone(),
                    departed: None,
                });
                anyhow::bail!(
                    "domain {name} was not migrated to {uri}: {reason}; {}",
                    match (at_source, dest_answered) {
                        (true, true) => "it is here as before, and its log too",
                        (true, false) => {
                            "it is here as before, and its log too; the destination did not \
                             answer: see that it does not run there as well"
                        }
                        (false, _) => "it is over on both hosts, and its log is here",
                    }
                );
            }
            Outcome::Split { reason, at_dest } => {
                let way = (way, &source, &resumed);
                self.split((started, left_out), way, (reason, at_dest))
                    .await
            }
            Outcome::Unknown { why } => {
                // Nothing is withdrawn: should it have migrated, the log is offered later.
                drop(started);
                let (exit, told) = (Exit::NotCarried, false);
                let reason = format!(
                    "nobody can tell whether domain {} migrated: {why}; its log is whole here",
                    self.domain.name()
                );
                Err(Ended { exit, reason, told }.into())
            }
        }
    }

    /// Holds every log, and starts both halves where the transport is there. `left_out`
    /// gets a sentence for each log of which a part cannot be held.
    async fn start(
        &self,
        way: &Way<'_>,
        logs: Vec<(Log, Option<PathBuf>)>,
        source: &watch::Sender<Source>,
        left_out: &mut Vec<String>,
    ) -> Vec<Started> {
        // Held first: whatever the transport does, the bytes are ours. Then all
        // connections at once.
        let mut begun = Vec::new();
        for (log, expected) in logs {
            let id = HandoffId::random();
            let astray = astray::astray(&self.domain, &log.path).await;
            let newest = astray.and_then(|astray| {
                let sentence = format!("{}: {}", log.console, astray.sentence);
                self.events.warn(sentence.clone());
                left_out.extend(astray.is_left_out.then_some(sentence));
                astray.file
            });
            let held = log.hold_for(way.domain, Some(id), newest).await;
            if let Ok(held) = &held {
                log.say_remarks(&self.events, held);
            }
            if let Ok(held) = &held
                && let Err(reason) = self.keepers.keep(&log, held)
            {
                self.events.warn(format!(
                    "{}: should its files go before it has arrived, it is lost: {reason}",
                    log.console
                ));
            }
            let carry = match held {
                Ok(held) => match Begun::of(way, &log.console, id, expected.as_deref()) {
                    Ok(begun) => Ok((held, begun)),
                    Err(reason) => Err((reason, true)),
                },
                Err(reason) => Err((reason, false)),
            };
            begun.push((log, carry));
        }
        let any = begun.iter().any(|(_, carry)| carry.is_ok());
        let transport: Result<Arc<dyn LogTransport>, String> = if any {
            let open = async { Ok(self.choice.open(way.ssh, way.patience).await?) };
            self.interrupt
                .or(open)
                .await
                .map_err(|e| exit::sentence(&e))
        } else {
            Err(String::new())
        };
        if transport.is_ok() {
            carry::say_adopt(&self.events, &self.choice, way.domain);
        }
        let mut started = Vec::new();
        for (log, carry) in begun {
            let carry = match (carry, &transport) {
                (Ok((held, begun)), Ok(transport)) => {
                    let (transport, source) = (Arc::clone(transport), source.subscribe());
                    let start = Carry::start(way, transport, begun, held, source, true).await;
                    start.map_err(|reason| (reason, true))
                }
                (Ok((_, begun)), Err(reason)) => {
                    // Before the migration begins the destination is as it was.
                    begun.end().await;
                    Err((reason.clone(), true))
                }
                (Err(failed), _) => Err(failed),
            };
            let carry = carry.map_err(|(reason, held)| NotStarted { reason, held });
            if let Err(NotStarted { reason, .. }) = &carry
                && !self.interrupt.came()
            {
                self.events.warn(format!(
                    "{}: the log cannot be carried now: {reason}; the migration goes on",
                    log.console
                ));
            }
            started.push((log, carry));
        }
        started
    }

    /// A long history takes longer than a small guest's memory: it goes ahead, for a
    /// bounded time, so that it is there before the guest is.
    async fn head_start(&self, started: &[Started]) {
        let ahead = async {
            for carry in started.iter().filter_map(|(_, carry)| carry.as_ref().ok()) {
                carry.ahead().await;
            }
        };
        tokio::select! {
            _ = timeout(self.args.head_start, ahead) => {}
            () = self.interrupt.first() => {}
        }
    }

    /// The guest runs at the destination: brings the last bytes after it.
    async fn finish(
        &self,
        (started, left_out): (Vec<Started>, Vec<String>),
        source: &watch::Sender<Source>,
        resumed: &Resumes,
    ) -> anyhow::Result<Exit> {
        let (name, uri) = (self.domain.name(), &self.request.dest_uri);
        let has_log = !started.is_empty() || !left_out.is_empty();
        self.events.tell(Event::Migrated {
            domain: name.to_owned(),
            destination: uri.clone(),
            has_log,
        });
        if !has_log {
            let domain = name.to_owned();
            self.events.tell(Event::NoLog { domain });
        }
        // One that came too late to cancel the migration leaves the log on its way.
        let seen = self.interrupt.count();
        if seen > 0 {
            self.events.warn(format!(
                "it was too late to cancel: domain {name} runs there"
            ));
        }
        let source_end = async {
            tokio::select! {
                ended = source_end::wait(&self.domain, SOURCE_END) => if let Err(e) = ended {
                    // The log's own end decides: nobody writes it any more, or it is not over.
                    self.events.warn(e.to_string());
                },
                () = self.interrupt.after(seen) => {}
            }
        };
        self.meter.during(Phase::SourceEnd, source_end).await;
        source.send_replace(Source::Over);
        let mut noted = self.note(&started).await;
        let mut reasons = self
            .arrive(started, (source, resumed), seen, noted.as_mut())
            .await;
        reasons.extend(left_out);
        if reasons.is_empty() && self.args.undefine_when_carried {
            self.undefine().await;
        }
        if let Some(noted) = noted
            && let Err(reason) = noted.end(&self.domain).await
        {
            self.events.warn(reason);
        }
        Ended::told(Exit::NotCarried, &reasons)
    }

    /// Waits for every log to arrive; gives why some did not.
    async fn arrive(
        &self,
        started: Vec<Started>,
        (source, resumed): (&watch::Sender<Source>, &Resumes),
        seen: u32,
        mut noted: Option<&mut Noted>,
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        for (log, carry) in started {
            let (outcome, at, held) = match carry {
                Ok(carry) => {
                    // A signal leaves it behind.
                    let end = carry.end_or(self.interrupt.after(seen), source);
                    let (outcome, at) = self.meter.during(Phase::Arrival, end).await;
                    (outcome, at, true)
                }
                Err(NotStarted { reason, held }) => {
                    (Handed::NotCarried { reason }, Instant::now(), held)
                }
            };
            let window = resumed
                .borrow()
                .map(|since| at.saturating_duration_since(since));
            let window = window.and_then(|w| u64::try_from(w.as_millis()).ok());
            if let Err(reason) = carry::tell(&self.events, &log, &outcome, window) {
                reasons.push(reason);
                self.events.tell(self.left(&log, held).await);
            } else if let Some(noted) = &mut noted {
                noted.received(&log.console);
            }
        }
        reasons
    }

    /// Puts down that the domain left, for `reap` and `status`.
    async fn note(&self, started: &[Started]) -> Option<Noted> {
        let logs: Vec<&Log> = started.iter().map(|(log, _)| log).collect();
        let to = (self.request.dest_uri.as_str(), self.dest.as_ref());
        let state = &self.args.state.folder;
        match Noted::begin(state, &self.domain, to, &self.way_back(), &logs).await {
            Ok(noted) => Some(noted),
            Err(reason) => {
                self.events.warn(reason);
                None
            }
        }
    }

    /// What is left here of a log that was not carried.
    async fn left(&self, log: &Log, held: bool) -> Event {
        let (way, domain) = (self.way_back(), self.domain.uuid());
        if !held {
            return later::not_at_all(log, "could not be opened at");
        }
        // Where libvirt has forgotten the domain, whoever had that done removes its
        // folder next.
        let gone = match self.domain.state().await {
            Ok(state) => state == State::Gone,
            Err(_) => self.args.way.undefine_source,
        };
        match self.keepers.put_down(log, gone).await {
            Ok(Kept::There) => later::by_offer(&way, log, domain),
            Ok(Kept::PutDown(entry)) => later::from_outbox(&way, &entry),
            Ok(Kept::Empty) => later::not_at_all(log, "is gone from"),
            Err(reason) => {
                self.events.warn(format!(
                    "{}: what is held of it could not be put down: {reason}",
                    log.console
                ));
                match log.is_there().await {
                    true => later::by_offer(&way, log, domain),
                    false => later::not_at_all(log, "is gone from"),
                }
            }
        }
    }

    /// What this VM left in the outbox of this host at an earlier stay is part of its
    /// log again before it goes on.
    async fn rejoin(&self) {
        let (state, uuid) = (&self.args.state.folder, self.domain.uuid());
        let (_, reasons) =
            kept::rejoin((state, &self.events), self.domain.connection(), uuid, None).await;
        for reason in reasons {
            self.events.warn(reason);
        }
    }

    fn way_back(&self) -> later::Way<'_> {
        let carry = &self.args.carry;
        later::Way {
            transport: self.choice.to_string(),
            connect: self.args.connect.uri.as_deref(),
            remote: Some(carry.remote_logchain.as_str()).filter(|r| *r != DEFAULT_REMOTE),
        }
    }

    async fn undefine(&self) {
        match self.domain.undefine().await {
            Ok(()) | Err(logchain_libvirt::Error::NoDomain { .. }) => {
                let domain = self.domain.name().to_owned();
                self.events.tell(Event::Undefined { domain });
            }
            Err(e) => self.events.warn(e.to_string()),
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
