//! A domain's migration as virsh has it, and the domain's logs with it.
//!
//! The log never harms the VM: whatever fails around it, the migration goes on, and what
//! became of the log is told.
//!
//! - [`Options`] say what goes where, [`migrate`] does it.
//! - `logs`: which logs there are; `destination`: how the destination is reached.
//! - `start`: holds the logs and starts both halves; `call`: libvirt's migration;
//!   `switchover`: what is done about one that takes too long; `guest`: when the guest stops
//!   here and runs there.
//! - `arrive`: the guest runs there, its last bytes follow; `split`: post-copy broke off.

mod arrive;
mod call;
mod destination;
mod guest;
mod logs;
mod split;
mod start;
mod switchover;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logchain_core::OkLogged as _;
use logchain_core::departure::DEFAULT_STATE;
use logchain_core::handoff::Budget;
use logchain_core::handoff::offer::Source;
use logchain_libvirt::migrate::MigrateRequest;
use logchain_libvirt::outcome::{self, Outcome};
use logchain_libvirt::{Connection, Domain};
use tokio::sync::watch;
use tracing::{Instrument as _, info_span};

use crate::carry::{Carry, Route};
use crate::event::HandoffRole;
use crate::hosts::Hosts;
use crate::job::Finished;
use crate::log::ConsoleLog;
use crate::meter::Meter;
use crate::outbox::Keepers;
use crate::progress::Phase;
use crate::stop::Stop;
use crate::transports::{TransportChoice, ssh_options};
use crate::turn::Turn;
use crate::{Error, Event, Events, Result, consoles};
use logs::Logs;

/// A destination that the source reaches may be out of our own reach: with
/// --p2p it is asked for its events only.
const REACH: Duration = Duration::from_secs(5);

/// How long the two hosts may take to agree on what became of a migration: one
/// that goes on although our connection broke takes its time.
const SETTLE: Duration = Duration::from_secs(600);

/// How long another process that hands over the same logs is waited for.
const TURN: Duration = Duration::from_secs(5);

/// Which domain goes where, and how its logs follow.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Name, id or UUID of the domain.
    pub domain: String,
    /// The migration as libvirt is asked for it, with the destination's URI.
    pub request: MigrateRequest,
    /// URI of the hypervisor here; libvirt's default without it.
    pub connect: Option<String>,
    /// Folder of what logchain remembers of this host.
    pub state: PathBuf,
    /// URL of the transport; ssh to the destination's host without it.
    pub transport: Option<String>,
    /// What logchain is called at the destination, where it is started over ssh.
    pub remote_logchain: Option<String>,
    /// How long nothing may move until a log is left behind.
    pub patience: Duration,
    /// How long the history may be sent ahead of the migration, at the most.
    pub head_start: Duration,
    /// Whether the source domain is undefined once the destination has its logs.
    pub undefine_when_carried: bool,
    /// After this time the guest is suspended, or switched to post-copy
    /// ([`Options::postcopy_at_timeout`]), so that the migration comes to its end.
    pub timeout: Option<Duration>,
    /// At the timeout the guest is switched to post-copy instead of being suspended.
    pub postcopy_at_timeout: bool,
    /// The guest is switched to post-copy once all its memory was copied once.
    pub postcopy_after_precopy: bool,
}

impl Options {
    /// `logchain migrate` with its defaults.
    #[must_use]
    pub fn new(domain: impl Into<String>, request: MigrateRequest) -> Self {
        Self {
            domain: domain.into(),
            request,
            connect: None,
            state: DEFAULT_STATE.into(),
            transport: None,
            remote_logchain: None,
            patience: Duration::from_secs(60),
            head_start: Duration::from_secs(10),
            undefine_when_carried: false,
            timeout: None,
            postcopy_at_timeout: false,
            postcopy_after_precopy: false,
        }
    }
}

/// Migrates the domain and carries its logs. The domain migrated where this is `Ok`, and
/// [`Finished::failures`] tell which of its logs did not follow.
///
/// # Errors
/// [`Error::NotCarried`] where the domain left, or may have left, and its logs are not known
/// to have followed. Otherwise the domain is here as before, or
/// [`Error::NotMigrated`] says how it stands.
pub async fn migrate(options: Options, events: &Events, stop: &Stop) -> Result<Finished> {
    let span = info_span!("migrate", domain = options.domain);
    migrate_in_span(options, events, stop)
        .instrument(span)
        .await
}

async fn migrate_in_span(options: Options, events: &Events, stop: &Stop) -> Result<Finished> {
    let prepared = stop.or(prepare(&options, events, stop)).await?;
    let (migration, logs) = prepared;
    let begun = AtomicBool::new(false);
    tokio::select! {
        ended = migration.run(logs, &begun) => ended,
        () = stop.forced() => {
            let name = migration.domain.name();
            let sentence = |fate: &str| format!(
                "interrupted again: ended before all was put in order; domain {name}: {fate}"
            );
            Err(match begun.load(Ordering::Relaxed) {
                true => Error::NotCarried(sentence(
                    "see on both hosts where it runs; its log is whole here",
                )),
                false => Error::Interrupted(sentence("it is here as before")),
            })
        }
    }
}

/// All that can be found out before anything is begun. Only what is wrong with the migration
/// itself ends here, or a mistake in the options: virsh migrates whatever the log is.
async fn prepare<'a>(
    options: &'a Options,
    events: &Events,
    stop: &'a Stop,
) -> Result<(Migration<'a>, Logs)> {
    let request = &options.request;
    let transport = options.transport.as_deref();
    if transport.is_some() {
        // A mistake in it is told before anybody is asked for anything.
        TransportChoice::of(transport, None)?;
    }
    let connection = consoles::connect_local(options.connect.as_deref()).await?;
    let domain = connection.lookup(&options.domain).await?;
    if !domain.state().await?.is_active() {
        return Err(Error::Refused(format!(
            "domain {} does not run here; only a running one migrates",
            domain.name()
        )));
    }
    let dest = connect_destination(request).await?;
    let hosts = Hosts::of(&connection, dest.as_ref()).await;
    // libvirt refuses it too, but late, and a copy would be staged beside the log itself.
    let one = dest.as_ref().is_some_and(|d| d.uri() == connection.uri());
    if one || hosts.same().is_some() {
        let uuid = hosts
            .same()
            .map_or(String::new(), |uuid| format!(" ({uuid})"));
        return Err(Error::Refused(format!(
            "{} is this very host{uuid}; a domain migrates to another one only",
            request.dest_uri
        )));
    }
    let logs = Logs::of(&domain, request).await;
    let choice = destination::choose(transport, &request.dest_uri, dest.as_ref())?;
    let migration = Migration {
        options,
        events: events.clone(),
        meter: Meter::new(events.clone()),
        choice,
        domain,
        dest,
        hosts,
        stop,
        keepers: Keepers::new(&options.state),
    };
    Ok((migration, logs))
}

async fn connect_destination(request: &MigrateRequest) -> Result<Option<Connection>> {
    let uri = Some(request.dest_uri.as_str());
    if request.flags.p2p || request.flags.direct {
        let reached = Connection::open_within(uri, REACH).await;
        return Ok(reached.ok_logged("the source's libvirt reaches it; its events are not heard"));
    }
    Ok(Some(Connection::open(uri).await?))
}

struct Migration<'a> {
    options: &'a Options,
    events: Events,
    meter: Meter,
    choice: TransportChoice,
    domain: Domain,
    dest: Option<Connection>,
    hosts: Hosts,
    stop: &'a Stop,
    keepers: Keepers,
}

/// A console's log: on its way, or why it is not.
type Started = (ConsoleLog, Result<Carry, NotStarted>);

/// Why a console's log is not on its way.
struct NotStarted {
    why: Error,
    /// Whether the log could be opened here.
    is_held: bool,
}

impl Migration<'_> {
    async fn run(&self, logs: Logs, begun: &AtomicBool) -> Result<Finished> {
        let mut left_out = Vec::new();
        for reason in logs.left_out {
            let sentence = format!("{reason}: it cannot be carried; the migration goes on");
            self.events.warn(sentence);
            left_out.push(Event::warning(reason));
        }
        let source = watch::Sender::new(Source::Running);
        let options = self.options;
        // An agent here leaves the logs to this process, for as long as it holds the turn.
        let uuid = self.domain.uuid();
        let turn = Turn::wait(&options.state, uuid, HandoffRole::Source, TURN);
        let _turn = match self.stop.or(turn).await {
            Ok(Some(turn)) => Some(turn),
            Ok(None) => {
                let name = self.domain.name();
                self.events.warn(format!(
                    "another process of logchain still hands over the logs of domain {name}; the \
                     migration goes on"
                ));
                None
            }
            Err(e @ Error::Interrupted(_)) => return Err(e),
            Err(e) => {
                self.events.warn(e.sentence());
                None
            }
        };
        let ssh = ssh_options(options.remote_logchain.as_deref(), options.patience);
        let route = Route {
            events: self.events.clone(),
            choice: &self.choice,
            ssh: &ssh,
            patience: options.patience,
            domain: self.domain.uuid(),
            domain_name: self.domain.name(),
            hosts: self.hosts,
            budget: Budget::default(),
            writers: Arc::default(),
        };
        let watch = async { Ok::<_, Error>(self.watch_destination().await) };
        let resumed = self.stop.or(watch).await?;
        let rejoin = async {
            self.rejoin().await;
            Ok::<_, Error>(())
        };
        self.stop.or(rejoin).await?;
        let starting = async {
            let mut start = pin!(self.start(&route, logs.found, &source, &mut left_out));
            tokio::select! {
                started = &mut start => started,
                () = self.stop.asked() => {
                    // Whoever waits for the other half stops, and withdraws.
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
        if !self.stop.is_asked() {
            let ahead = self.head_start(&started);
            self.meter.during(Phase::HeadStart, ahead).await;
        }
        let name = self.domain.name();
        if self.stop.is_asked() {
            source.send_replace(Source::Stays);
            let end = end_all(started);
            self.meter.during(Phase::Undo, end).await;
            return Err(Error::Interrupted(format!(
                "interrupted: domain {name} is here as before, and its log too"
            )));
        }

        begun.store(true, Ordering::Relaxed);
        let last_bytes = self.watch_source(&source).await;
        let switch = switchover::watch(options, &self.domain, &self.events).await;
        let call = self.call(source.subscribe());
        let (call, cancelled) = self.meter.during(Phase::Memory, call).await;
        for watch in [last_bytes, switch].into_iter().flatten() {
            watch.abort();
        }
        let went = match &call {
            Ok(()) => Phase::Switchover,
            Err(_) => Phase::Undo,
        };
        let settled = outcome::settle(&self.domain, self.dest.as_ref(), &call, SETTLE);
        match self.meter.during(went, settled).await {
            Outcome::Migrated { .. } => {
                Ok(self.finish((started, left_out), &source, &resumed).await)
            }
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
                Err(self.not_migrated(reason, at_source, dest_answered))
            }
            Outcome::Split { reason, at_dest } => {
                let route = (route, &source, &resumed);
                Err(self
                    .split((started, left_out), route, (reason, at_dest))
                    .await)
            }
            Outcome::Unknown { why } => {
                // Nothing is withdrawn: should it have migrated, the log is offered later.
                drop(started);
                Err(Error::NotCarried(format!(
                    "nobody can tell whether domain {name} migrated: {why}; its log is whole here"
                )))
            }
        }
    }

    fn not_migrated(&self, reason: String, at_source: bool, dest_answered: bool) -> Error {
        let (name, uri) = (self.domain.name(), &self.options.request.dest_uri);
        self.events.tell(Event::Failed {
            console: None,
            domain: Some(name.to_owned()),
            reason: reason.clone(),
            departed: None,
        });
        let stands = match (at_source, dest_answered) {
            (true, true) => "it is here as before, and its log too",
            (true, false) => {
                "it is here as before, and its log too; the destination did not answer: see that \
                 it does not run there as well"
            }
            (false, _) => "it runs on neither host, and its log is here",
        };
        Error::NotMigrated(format!(
            "domain {name} was not migrated to {uri}: {reason}; {stands}"
        ))
    }
}

/// Lets every half come to its end, side by side.
async fn end_all(started: Vec<Started>) {
    let ends: Vec<_> = started
        .into_iter()
        .filter_map(|(_, carry)| Some(tokio::spawn(carry.ok()?.end())))
        .collect();
    for end in ends {
        end.await.ok_logged("its outcome was to be the withdrawal");
    }
}
