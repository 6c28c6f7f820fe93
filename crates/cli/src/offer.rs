//! `logchain offer`: the source's half, after the migration.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use logchain_core::folder::Folder;
use logchain_core::handoff::offer::{self, Outcome, Remaining, Source};
use logchain_core::handoff::{Budget, Stage};
use logchain_core::outbox::Entry;
use logchain_core::record::Record;
use logchain_core::transport::{ConsoleName, LogTransport, LogTransportExt};
use logchain_host::Event;
use logchain_host::consoles;
use logchain_host::hosts::{self, Hosts};
use logchain_host::meter::Meter;
use logchain_host::progress::Phase;
use logchain_host::transports::{TransportChoice, ssh_options};
use logchain_libvirt::Error;
use tokio::sync::watch;
use uuid::Uuid;

use crate::args::Offer;
use crate::carry::{self, Begun, Carry, Log, Way};
use crate::exit::{Ended, Exit, Usage};
use crate::interrupt::Interrupt;
use crate::kept;
use crate::report::{self, Watch};

/// The domain whose log is handed over, and its logs here.
struct Past {
    uuid: Uuid,
    name: String,
    logs: Vec<Part>,
    /// This host, as libvirt tells it from others.
    host: Option<Uuid>,
}

/// A log, or what was put down of one whose files went.
struct Part {
    log: Log,
    entry: Option<Entry>,
}

impl From<Log> for Part {
    fn from(log: Log) -> Self {
        Self { log, entry: None }
    }
}

impl From<Entry> for Part {
    fn from(entry: Entry) -> Self {
        let log = Log {
            console: entry.console.clone(),
            path: entry.path.clone(),
        };
        let entry = Some(entry);
        Self { log, entry }
    }
}

const UNKNOWN: &str = "for a domain that is not defined here any more, give its UUID, and \
                       --console NAME=PATH for each log that is not in the outbox";

pub(crate) async fn run(args: Offer, interrupt: Interrupt) -> anyhow::Result<Exit> {
    tokio::select! {
        ended = hand_over(&args, &interrupt) => ended,
        () = interrupt.forced() => {
            anyhow::bail!("interrupted again: ended before all was put in order; offer it again")
        }
    }
}

async fn hand_over(args: &Offer, interrupt: &Interrupt) -> anyhow::Result<Exit> {
    let events = report::events(args.format, Watch::Plain);
    let choice = TransportChoice::of(args.carry.transport.as_deref(), None)?;
    let ssh = ssh_options(Some(&args.carry.remote_logchain), args.carry.patience);
    let past = interrupt.or(find(args)).await?;
    let way = Way {
        events: events.clone(),
        choice: &choice,
        ssh: &ssh,
        patience: args.carry.patience,
        domain: past.uuid,
        domain_name: &past.name,
        // Where the domain is by now, nobody here can tell for certain.
        hosts: Hosts {
            source: past.host,
            destination: None,
        },
        budget: Budget::default(),
        writers: Arc::default(),
    };
    let mut early = begin_first(&way, past.logs.first().map(|part| &part.log));
    let open = async { Ok(choice.open(&ssh, args.carry.patience).await?) };
    let transport = interrupt.or(open).await?;
    carry::say_adopt(&events, &choice, past.uuid);
    let mut reasons = Vec::new();
    let mut behind: Vec<ConsoleName> = Vec::new();
    for part in past.logs {
        let log = &part.log;
        // Each is placed behind all that is there: an older one has to wait for a newer.
        let waits = behind.contains(&log.console);
        if interrupt.came() || waits {
            let reason = match waits {
                true => "what is newer of it has to be there first",
                false => "interrupted before it was begun",
            };
            let reason = reason.to_owned();
            let outcome = Outcome::NotCarried { reason };
            reasons.extend(carry::tell(&events, log, &outcome, None).err());
            continue;
        }
        let early = early.take_if(|b| b.is_of(log));
        let outcome = carry_part(&way, &transport, &part, early, interrupt).await?;
        let carried = match outcome {
            Handed::Before => true,
            Handed::Ended(outcome) => {
                let told = carry::tell(&events, log, &outcome, None);
                let carried = told.is_ok();
                reasons.extend(told.err());
                carried
            }
        };
        match &part.entry {
            Some(entry) if carried => {
                if let Err(reason) = kept::is_received(&args.state.folder, entry).await {
                    events.warn(reason);
                }
            }
            _ if !carried => behind.push(log.console.clone()),
            _ => {}
        }
    }
    Ended::told(Exit::Failed, &reasons)
}

/// What became of a log.
enum Handed {
    /// Nothing was to do.
    Before,
    /// How it ended.
    Ended(Outcome),
}

async fn left_of(
    way: &Way<'_>,
    transport: &Arc<dyn LogTransport>,
    log: &Log,
) -> Result<Remaining, String> {
    offer::remaining(&log.chain()?, way.domain, &log.console, &**transport).await
}

/// How often a log is tried while each try leaves something else to do.
const TRIES: usize = 3;

/// What an earlier run left may turn out to be damaged, and the destination clears it
/// then; or its last bytes come only now, over a line that broke.
async fn carry_part(
    way: &Way<'_>,
    transport: &Arc<dyn LogTransport>,
    part: &Part,
    mut early: Option<Begun>,
    interrupt: &Interrupt,
) -> anyhow::Result<Handed> {
    let left = left_of(way, transport, &part.log).await;
    let mut left = left.map_err(anyhow::Error::msg)?;
    let mut tries = 1;
    loop {
        let outcome = carry_one(way, transport, part, (&left, early.take()), interrupt).await?;
        let before = match &left {
            // What it was handed over to may be the outbox: what was committed elsewhere
            // before is still wanted there.
            Remaining::Nothing(offered) if offered.to != transport.to_string() => {
                return Ok(outcome);
            }
            Remaining::Nothing(offered) | Remaining::Receipt(offered) => Some(offered.handoff),
            Remaining::Rest(id) => Some(*id),
            Remaining::All => None,
        };
        if let Some(id) = before
            && !matches!(outcome, Handed::Ended(Outcome::NotCarried { .. }))
        {
            // What a connection that broke left of it there; and the receipt once more, of
            // a half that saw it was in place already.
            let handoff = way.handoff(&part.log.console, id);
            let _ = offer::clear(&**transport, &handoff).await;
            return Ok(outcome);
        }
        if before.is_none() || tries >= TRIES || interrupt.came() {
            return Ok(outcome);
        }
        let Ok(now) = left_of(way, transport, &part.log).await else {
            return Ok(outcome);
        };
        // A receipt may have come by now, whatever became of the other half.
        let may_be_there = tries == 1 && matches!(now, Remaining::Receipt(_));
        if now == left && !may_be_there {
            return Ok(outcome);
        }
        left = now;
        tries += 1;
    }
}

async fn carry_one(
    way: &Way<'_>,
    transport: &Arc<dyn LogTransport>,
    part: &Part,
    (left, early): (&Remaining, Option<Begun>),
    interrupt: &Interrupt,
) -> anyhow::Result<Handed> {
    let log = &part.log;
    let over = watch::Sender::new(Source::Over);
    let transport = Arc::clone(transport);
    let begun = match left {
        Remaining::Nothing(done) => {
            way.events.tell(Event::AlreadyCarried {
                console: log.console.clone(),
                to: done.to.clone(),
            });
            return Ok(Handed::Before);
        }
        Remaining::Receipt(begun) => {
            let (transport, begun) = (Arc::clone(&transport), begun.clone());
            Err(Carry::resume(way, transport, log, begun))
        }
        Remaining::Rest(id) => Ok(Begun::again(way, &log.console, *id)),
        Remaining::All => match (&part.entry, early) {
            (Some(_), _) => Ok(again(way, log, &*transport).await?),
            (None, Some(begun)) => Ok(Ok(begun)),
            (None, None) => Ok(Begun::new(way, &log.console, None)),
        },
    };
    let meter = Meter::new(way.events.clone());
    let carry = match begun {
        Err(resumed) => resumed,
        Ok(Err(reason)) => Err(reason),
        Ok(Ok(begun)) => {
            let held = log.hold(way.domain).await.map_err(anyhow::Error::msg)?;
            log.say_remarks(&way.events, &held);
            let source = over.subscribe();
            let start = Carry::start(way, transport, begun, held, source, false);
            meter.during(Phase::Prepare, start).await
        }
    };
    let outcome = match carry {
        Ok(carry) => {
            meter.log(carry.put.clone(), carry.bytes);
            let end = carry.end_or(interrupt.first(), &over);
            meter.during(Phase::Arrival, end).await.0
        }
        Err(reason) => Outcome::NotCarried { reason },
    };
    Ok(Handed::Ended(outcome))
}

/// What is in the outbox is offered as the same handoff for good. What is there of a
/// try that was withdrawn, or that somebody had claimed and cleared in part, goes first.
async fn again(
    way: &Way<'_>,
    log: &Log,
    transport: &dyn LogTransport,
) -> anyhow::Result<Result<Begun, String>> {
    let id = kept::handoff_of(log, way.domain).await;
    let id = id.map_err(anyhow::Error::msg)?;
    let handoff = way.handoff(&log.console, id);
    let entries = transport.list_all(&handoff.prefix()).await?;
    let stage = Stage::of(entries.iter().map(|e| e.key.object));
    if stage.is_some_and(Stage::is_in_the_way) {
        offer::clear(transport, &handoff).await?;
    }
    Ok(Begun::again(way, &log.console, id))
}

/// Starts the other half of the first log while the transport is connected: of one
/// that was never offered, since no other is sure to be begun anew.
fn begin_first(way: &Way<'_>, first: Option<&Log>) -> Option<Begun> {
    let log = first?;
    let (folder, base) = Folder::of_file(&log.path).ok()?;
    let record = Record::read(&folder, &base, way.domain, &log.console).ok()?;
    if record.is_some_and(|record| record.offered.is_some() || record.begun.is_some()) {
        return None;
    }
    Begun::new(way, &log.console, None).ok()
}

/// By libvirt where it still knows the domain, else by what was given.
async fn find(args: &Offer) -> anyhow::Result<Past> {
    let connection = consoles::connect_local(args.connect.uri.as_deref()).await?;
    let given: Vec<Log> = args
        .consoles
        .iter()
        .map(|(console, path)| Log {
            console: console.clone(),
            path: path.clone(),
        })
        .collect();
    let state = &args.state.folder;
    let domain = match connection.lookup(&args.domain).await {
        Ok(domain) => domain,
        Err(e @ Error::NoDomain { .. }) => {
            let Ok(uuid) = args.domain.parse::<Uuid>() else {
                return Err(e).context(UNKNOWN);
            };
            let logs = with_outbox(given, state, uuid).await?;
            if logs.is_empty() {
                return Err(e).context(UNKNOWN);
            }
            let name = args.domain.clone();
            let host = hosts::uuid_of(&connection).await;
            return Ok(Past {
                uuid,
                name,
                logs,
                host,
            });
        }
        Err(e) => return Err(e.into()),
    };
    if domain.state().await?.is_active() {
        return Err(Usage(format!(
            "domain {} runs here; its log goes with it when it migrates (logchain migrate)",
            domain.name()
        ))
        .into());
    }
    let logs = if given.is_empty() {
        let consoles = consoles::consoles_of(&domain).await?;
        let log = |c: &logchain_libvirt::consoles::Console| -> anyhow::Result<Log> {
            Ok(Log {
                console: consoles::key_name(c)?,
                path: c.path.clone(),
            })
        };
        consoles.iter().map(log).collect::<anyhow::Result<_>>()?
    } else {
        given
    };
    Ok(Past {
        uuid: domain.uuid(),
        name: domain.name().to_owned(),
        logs: with_outbox(logs, state, domain.uuid()).await?,
        host: hosts::uuid_of(&connection).await,
    })
}

/// The logs themselves first: what was put down of an earlier stay is older. A log
/// of which nothing is left but what was put down is no failure.
async fn with_outbox(logs: Vec<Log>, state: &Path, domain: Uuid) -> anyhow::Result<Vec<Part>> {
    let entries = kept::put_down_here(state, domain).await;
    let entries = entries.map_err(anyhow::Error::msg)?;
    let mut parts: Vec<Part> = Vec::new();
    for log in logs {
        if log.is_there().await || !entries.iter().any(|e| e.console == log.console) {
            parts.push(log.into());
        }
    }
    parts.extend(entries.into_iter().map(Part::from));
    Ok(parts)
}
