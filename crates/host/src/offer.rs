//! The source's half of a handoff after the migration: for a log that did not go with its VM.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logchain_core::OkLogged as _;
use logchain_core::departure::DEFAULT_STATE;
use logchain_core::folder::Folder;
use logchain_core::handoff::offer::{self, Outcome, Remaining, Source};
use logchain_core::handoff::{Budget, Stage};
use logchain_core::ids::ConsoleName;
use logchain_core::outbox::Entry;
use logchain_core::record::Record;
use logchain_core::transport::{LogTransport, LogTransportExt};
use tokio::sync::watch;
use tracing::{Instrument as _, info_span};
use uuid::Uuid;

use crate::blocking::blocking;
use crate::carry::{self, Carry, RemoteHalf, Route};
use crate::event::HandoffRole;
use crate::hosts::{self, Hosts};
use crate::job::Finished;
use crate::log::ConsoleLog;
use crate::meter::Meter;
use crate::progress::Phase;
use crate::stop::Stop;
use crate::transports::{TransportChoice, ssh_options};
use crate::turn::Turn;
use crate::{Error, Event, Events, Result, consoles, departures, outbox};

/// Which domain's logs are handed over, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Name or UUID of the domain.
    pub domain: String,
    /// Each console and its log's base file, for a domain that libvirt here does not know any
    /// more; otherwise its XML tells.
    pub consoles: Vec<(ConsoleName, PathBuf)>,
    /// URI of the hypervisor here; libvirt's default without it.
    pub connect: Option<String>,
    /// Folder of what logchain remembers of this host.
    pub state: PathBuf,
    /// URL of the transport.
    pub transport: Option<String>,
    /// What logchain is called at the destination, where it is started over ssh.
    pub remote_logchain: Option<String>,
    /// How long nothing may move until a log is left behind.
    pub patience: Duration,
    /// The transport, where the caller has opened it.
    pub(crate) open: Option<Arc<dyn LogTransport>>,
}

impl Options {
    /// `logchain offer` with its defaults.
    #[must_use]
    pub fn new(domain: impl Into<String>) -> Self {
        Self {
            domain: domain.into(),
            consoles: Vec::new(),
            connect: None,
            state: DEFAULT_STATE.into(),
            transport: None,
            remote_logchain: None,
            patience: Duration::from_secs(60),
            open: None,
        }
    }
}

/// The domain that left, and its logs here.
struct DepartedDomain {
    uuid: Uuid,
    name: String,
    logs: Vec<Part>,
    /// This host, as libvirt tells it from others.
    host: Option<Uuid>,
}

/// A log, or what the outbox has of one whose files went.
struct Part {
    log: ConsoleLog,
    entry: Option<Entry>,
}

impl From<ConsoleLog> for Part {
    fn from(log: ConsoleLog) -> Self {
        Self { log, entry: None }
    }
}

impl From<Entry> for Part {
    fn from(entry: Entry) -> Self {
        let log = ConsoleLog {
            console: entry.console.clone(),
            path: entry.path.clone(),
        };
        let entry = Some(entry);
        Self { log, entry }
    }
}

const UNKNOWN: &str = "for a domain that is not defined here any more, give its UUID, and \
                       --console NAME=PATH for each log that is not in the outbox";

/// Hands over what this host has of a domain's logs. [`Finished::failures`] tell of those that
/// stay here.
///
/// # Errors
/// [`Error::Usage`] where nothing tells which log is meant, or the domain runs here. Whatever
/// it is, the logs are whole here, and may be offered again.
pub async fn offer(options: Options, events: &Events, stop: &Stop) -> Result<Finished> {
    let span = info_span!("offer", domain = options.domain);
    let job = async {
        tokio::select! {
            ended = hand_over(&options, events, stop) => ended,
            () = stop.forced() => Err(Error::Interrupted(
                "interrupted again: ended before all was put in order; offer it again".to_owned(),
            )),
        }
    };
    job.instrument(span).await
}

async fn hand_over(options: &Options, events: &Events, stop: &Stop) -> Result<Finished> {
    let choice = TransportChoice::of(options.transport.as_deref(), None)?;
    let ssh = ssh_options(options.remote_logchain.as_deref(), options.patience);
    let departed = stop.or(find(options)).await?;
    let turn = Turn::wait(
        &options.state,
        departed.uuid,
        HandoffRole::Source,
        options.patience,
    );
    let _turn = match stop.or(turn).await {
        Ok(None) => {
            return Err(Error::Refused(format!(
                "another process of logchain hands over the logs of domain {}; see with \
                 logchain status how far it is",
                departed.name
            )));
        }
        Err(e @ Error::Interrupted(_)) => return Err(e),
        Err(e) => {
            events.warn(e.sentence());
            None
        }
        Ok(turn) => turn,
    };
    let route = Route {
        events: events.clone(),
        choice: &choice,
        ssh: &ssh,
        patience: options.patience,
        domain: departed.uuid,
        domain_name: &departed.name,
        // The domain left some time ago, and may have moved on.
        hosts: Hosts {
            source: departed.host,
            destination: None,
        },
        budget: Budget::default(),
        writers: Arc::default(),
    };
    let mut early = begin_first(&route, departed.logs.first().map(|part| &part.log));
    let transport = match &options.open {
        Some(open) => Arc::clone(open),
        None => stop.or(choice.open(&ssh, options.patience)).await?,
    };
    carry::say_adopt(events, &choice, departed.uuid);
    let mut failures = Vec::new();
    let mut behind: Vec<ConsoleName> = Vec::new();
    for part in departed.logs {
        let log = &part.log;
        // History is placed behind all that is there, so the newer one has to go first.
        let waits = behind.contains(&log.console);
        if stop.is_asked() || waits {
            let reason = match waits {
                true => "what is newer of it has to be there first",
                false => "interrupted before it was begun",
            };
            let reason = reason.to_owned();
            let outcome = Outcome::NotCarried { reason };
            failures.extend(carry::tell(events, log, &outcome, None));
            continue;
        }
        let early = early.take_if(|b| b.is_of(log));
        let outcome = carry_part(&route, &transport, &part, early, stop).await?;
        let carried = match outcome {
            LogOutcome::Before => true,
            LogOutcome::Ended(outcome) => {
                let failure = carry::tell(events, log, &outcome, None);
                let carried = failure.is_none();
                failures.extend(failure);
                carried
            }
        };
        if !carried {
            behind.push(log.console.clone());
            continue;
        }
        let marked = match &part.entry {
            Some(entry) => outbox::mark_received(&options.state, entry).await,
            None => {
                let (state, console) = (options.state.clone(), log.console.clone());
                let mark = move || departures::mark_received(&state, departed.uuid, &console);
                blocking(mark).await
            }
        };
        if let Err(e) = marked {
            events.warn(e.sentence());
        }
    }
    Ok(failures.into())
}

/// What became of a log.
enum LogOutcome {
    /// Nothing was to do.
    Before,
    /// How it ended.
    Ended(Outcome),
}

async fn left_of(
    route: &Route<'_>,
    transport: &Arc<dyn LogTransport>,
    log: &ConsoleLog,
) -> Result<Remaining> {
    let chain = log.chain(&route.events)?;
    let left = offer::remaining(&chain, route.domain, &log.console, &**transport).await;
    Ok(left?)
}

/// How often a log is tried, as long as each try leaves something else to do.
const TRIES: usize = 3;

/// Tries again where the first try changes what is left to do: the destination finds that what
/// an earlier run left in the transport is damaged, and clears it; or an object that an earlier
/// run put over a broken line arrives only now.
async fn carry_part(
    route: &Route<'_>,
    transport: &Arc<dyn LogTransport>,
    part: &Part,
    mut early: Option<RemoteHalf>,
    stop: &Stop,
) -> Result<LogOutcome> {
    let mut left = left_of(route, transport, &part.log).await?;
    let mut tries = 1;
    loop {
        let outcome = carry_one(route, transport, part, (&left, early.take()), stop).await?;
        let before = match &left {
            // It was handed over to the outbox, and what was committed elsewhere before that
            // is still wanted there.
            Remaining::Nothing(offered) if offered.to != transport.to_string() => {
                return Ok(outcome);
            }
            Remaining::Nothing(offered) | Remaining::Receipt(offered) => Some(offered.handoff),
            Remaining::Rest(id) => Some(*id),
            Remaining::All => None,
        };
        if let Some(id) = before
            && !matches!(outcome, LogOutcome::Ended(Outcome::NotCarried { .. }))
        {
            // A broken connection may have left pieces; and a destination that had it in place
            // already has put its receipt again.
            let handoff = route.handoff(&part.log.console, id);
            let cleared = offer::clear(&**transport, &handoff).await;
            cleared.ok_logged("the pieces stay until the transport's sweep removes them");
            return Ok(outcome);
        }
        if before.is_none() || tries >= TRIES || stop.is_asked() {
            return Ok(outcome);
        }
        let Ok(now) = left_of(route, transport, &part.log).await else {
            return Ok(outcome);
        };
        // The receipt may be there by now, though the other half's end was not seen.
        let may_be_there = tries == 1 && matches!(now, Remaining::Receipt(_));
        if now == left && !may_be_there {
            return Ok(outcome);
        }
        left = now;
        tries += 1;
    }
}

async fn carry_one(
    route: &Route<'_>,
    transport: &Arc<dyn LogTransport>,
    part: &Part,
    (left, early): (&Remaining, Option<RemoteHalf>),
    stop: &Stop,
) -> Result<LogOutcome> {
    let log = &part.log;
    let over = watch::Sender::new(Source::Over);
    let transport = Arc::clone(transport);
    let remote = match left {
        Remaining::Nothing(done) => {
            route.events.tell(Event::AlreadyCarried {
                console: log.console.clone(),
                to: done.to.clone(),
            });
            return Ok(LogOutcome::Before);
        }
        Remaining::Receipt(offered) => {
            let (transport, offered) = (Arc::clone(&transport), offered.clone());
            Err(Carry::resume(route, transport, log, offered))
        }
        Remaining::Rest(id) => Ok(RemoteHalf::again(route, &log.console, *id)),
        Remaining::All => match (&part.entry, early) {
            (Some(_), _) => Ok(again(route, log, &*transport).await?),
            (None, Some(remote)) => Ok(Ok(remote)),
            (None, None) => Ok(RemoteHalf::new(route, &log.console, None)),
        },
    };
    let meter = Meter::new(route.events.clone());
    let carry = match remote {
        Err(resumed) => resumed,
        Ok(Err(e)) => Err(e),
        Ok(Ok(remote)) => {
            let held = log.hold(route.domain, &route.events).await?;
            log.tell_remarks(&route.events, &held);
            let source = over.subscribe();
            let start = Carry::start(route, transport, remote, held, source, false);
            meter.during(Phase::Prepare, start).await
        }
    };
    let outcome = match carry {
        Ok(carry) => {
            meter.log(carry.put.clone(), carry.bytes);
            let end = carry.end_or(stop.asked(), &over);
            meter.during(Phase::Arrival, end).await.0
        }
        Err(e) => Outcome::NotCarried {
            reason: e.sentence(),
        },
    };
    Ok(LogOutcome::Ended(outcome))
}

/// A log in the outbox keeps one handoff id for good. What an earlier try left in the transport
/// is cleared first where that try was withdrawn, or claimed and cleared in part.
async fn again(
    route: &Route<'_>,
    log: &ConsoleLog,
    transport: &dyn LogTransport,
) -> Result<Result<RemoteHalf>> {
    let id = outbox::handoff_of(log, route.domain).await?;
    let handoff = route.handoff(&log.console, id);
    let entries = transport.list_all(&handoff.prefix()).await?;
    let stage = Stage::of(entries.iter().map(|e| e.key.object));
    if stage.is_some_and(Stage::is_in_the_way) {
        offer::clear(transport, &handoff).await?;
    }
    Ok(RemoteHalf::again(route, &log.console, id))
}

/// Starts the other half of the first log while the transport connects, where that log was
/// never offered: only then is it certain that a new handoff begins.
fn begin_first(route: &Route<'_>, first: Option<&ConsoleLog>) -> Option<RemoteHalf> {
    let log = first?;
    let (folder, base) = Folder::of_file(&log.path).ok()?;
    let record = Record::read(&folder, &base, route.domain, &log.console).ok()?;
    if record.is_some_and(|record| record.offered.is_some() || record.begun.is_some()) {
        return None;
    }
    RemoteHalf::new(route, &log.console, None).ok()
}

/// Finds the logs: libvirt names them where it still knows the domain, else the options do.
async fn find(options: &Options) -> Result<DepartedDomain> {
    use logchain_libvirt::Error as Libvirt;

    let connection = consoles::connect_local(options.connect.as_deref()).await?;
    let given: Vec<ConsoleLog> = options
        .consoles
        .iter()
        .map(|(console, path)| ConsoleLog {
            console: console.clone(),
            path: path.clone(),
        })
        .collect();
    let state = &options.state;
    let domain = match connection.lookup(&options.domain).await {
        Ok(domain) => domain,
        Err(e @ Libvirt::NoDomain { .. }) => {
            let Ok(uuid) = options.domain.parse::<Uuid>() else {
                return Err(Error::from(e).meaning(UNKNOWN));
            };
            let logs = with_outbox(given, state, uuid).await?;
            if logs.is_empty() {
                return Err(Error::from(e).meaning(UNKNOWN));
            }
            let name = options.domain.clone();
            let host = hosts::uuid_of(&connection).await;
            return Ok(DepartedDomain {
                uuid,
                name,
                logs,
                host,
            });
        }
        Err(e) => return Err(e.into()),
    };
    if domain.state().await?.is_active() {
        return Err(Error::Usage(format!(
            "domain {} runs here; its log goes with it when it migrates (logchain migrate)",
            domain.name()
        )));
    }
    let logs = if given.is_empty() {
        let consoles = consoles::consoles_of(&domain).await?;
        let log = |c: &logchain_libvirt::consoles::Console| -> Result<ConsoleLog> {
            Ok(ConsoleLog {
                console: consoles::key_name(c)?,
                path: c.path.clone(),
            })
        };
        consoles.iter().map(log).collect::<Result<_>>()?
    } else {
        given
    };
    Ok(DepartedDomain {
        uuid: domain.uuid(),
        name: domain.name().to_owned(),
        logs: with_outbox(logs, state, domain.uuid()).await?,
        host: hosts::uuid_of(&connection).await,
    })
}

/// The logs themselves, then what the outbox has of them, which is older. A log of which only
/// the outbox has something is left out.
async fn with_outbox(logs: Vec<ConsoleLog>, state: &Path, domain: Uuid) -> Result<Vec<Part>> {
    let entries = outbox::entries(state, domain).await?;
    let mut parts: Vec<Part> = Vec::new();
    for log in logs {
        if log.is_there().await || !entries.iter().any(|e| e.console == log.console) {
            parts.push(log.into());
        }
    }
    parts.extend(entries.into_iter().map(Part::from));
    Ok(parts)
}
