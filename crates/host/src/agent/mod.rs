//! The agent: one daemon for each hypervisor, which makes the handoff of a domain's logs happen
//! whoever starts the migration.
//!
//! - `host`: the domains that are here; libvirt's events, and looks at what they may have
//!   missed, become steps of `stay`, which is pure. `here` has the outcome for the other rooms.
//! - `known`: which logs a domain has. `held`: their logs, held by descriptor.
//! - `source`, `destination`: what is done for a domain that leaves, or comes.
//! - `meet`: how the two halves find each other; `peers`: agents that speak to each other.
//! - `afterwards`: what was not carried at once is tried again.
//! - `unseen`: domains that are shut off; those that left while no agent was here. `unclaimed`:
//!   logs that an earlier agent held, of domains that libvirt does not know any more.
//! - `streams`: the logs of the domains that run here, copied to a store as they grow.
//! - `shared`: what these rooms share, and what is under way.
//!
//! How it is operated:
//!
//! - [`config`]: its configuration file, and what of it can change while the agent runs.
//! - [`control`]: its control socket, and the calls that a client makes there; `desk` answers them,
//!   and `log_reader` reads logs for it.
//! - [`metrics`]: what it counts for Prometheus.
//! - [`operate`]: all of these together, beside the agent's own work.
//! - [`reloader`]: the one place that loads the configuration anew.
//! - [`systemd`]: what it tells the service manager.
//!
//! State comes first, events second: an event may be missed and a daemon may restart, so
//! whatever an event tells is also found by looking.
//!
//! Nothing waits for the agent: libvirt, QEMU, virtlogd, the orchestrator and the guest notice
//! neither its absence nor its death. It calls nothing that changes a domain that runs.
//!
//! Must not know: command lines, terminals, exit codes.

mod afterwards;
pub mod config;
pub mod control;
mod desk;
mod destination;
mod held;
mod here;
mod host;
mod known;
mod log_reader;
mod make_way;
mod meet;
pub mod metrics;
pub mod operate;
mod peers;
pub mod reloader;
mod shared;
mod source;
mod stay;
mod streams;
pub mod systemd;
mod unclaimed;
mod unseen;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use logchain_core::backoff::Backoff;
use logchain_core::holds::Stored;
use logchain_libvirt::Connection;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::job::Finished;
use crate::stop::Stop;
use crate::{Error, Events, Result, consoles};
use config::Reloadable;
use desk::Desk;
use held::HeldLogs;
use here::Here;
use host::Host;
use meet::Meet;
use metrics::Metrics;
use reloader::Reloader;
use shared::Shared;
use streams::Streams;
use systemd::Notifier;
use systemd::descriptors::Descriptors;

/// Between two tries to reach libvirt.
const RECONNECT: Backoff = Backoff::doubling(Duration::from_millis(250), Duration::from_secs(10));

/// A connection that stood for so long was no failure: the next try comes soon.
const STOOD: Duration = Duration::from_secs(60);

/// How long handoffs and streams that are under way may go on once the agent was asked to end.
const DRAIN: Duration = Duration::from_secs(20);

/// A domain, as people and programs know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vm {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
}

/// Runs the agent until it is asked to end. `reload`: notified by whoever wants the
/// configuration to be loaded anew, as a signal does.
///
/// # Errors
/// [`Error::Usage`] where the configuration cannot be meant, [`Error::Io`] where a socket cannot
/// be made. A libvirt or a store that is away is waited for.
pub async fn agent(
    config: Arc<Reloadable>,
    reload: Arc<Notify>,
    events: &Events,
    stop: &Stop,
) -> Result<Finished> {
    let current = config.current();
    // First of all: what a library opens and leaves open for `exec` looks like one of them.
    let stored = stored(current.state.clone(), events).await;
    let metrics = Metrics::new(SystemTime::now(), current.metrics.label_per_vm);
    let metrics = Arc::new(metrics.map_err(|e| Error::Refused(e.to_string()))?);
    let manager = Notifier::from_env().map_err(|source| Error::Io {
        action: "cannot speak to the service manager".to_owned(),
        source,
    })?;
    let reloader = Reloader {
        config: Arc::clone(&config),
        metrics: Arc::clone(&metrics),
        manager: Arc::new(manager),
        events: events.clone(),
    };
    let here = Here::default();
    let (meet, words) = Meet::start(&config, &here, stop).await?;
    let for_later = (here.clone(), events.clone(), stored);
    let held = HeldLogs::start(Arc::clone(&config), for_later)?;
    let streams = Streams::new(Arc::clone(&metrics), events.clone());
    let shared = Shared::new((config, held, streams), metrics, events.clone(), stop, meet);
    let shared = Arc::new(shared);
    let desk = Desk::new(Arc::clone(&shared), here.clone(), reloader.clone());
    let manager = Arc::clone(&reloader.manager);
    // Its endpoints outlast its work: an operator sees what still comes to its end.
    let (close, closed) = crate::stop::stop();
    let endpoints = operate::open(reloader, Arc::new(desk), reload, &closed).await?;
    let mut host = Host::new(Arc::clone(&shared), here.clone(), words);
    let afterwards = tokio::spawn(afterwards::run(Arc::clone(&shared), here));
    let reaper = tokio::spawn(afterwards::reap(Arc::clone(&shared)));
    let streaming = tokio::spawn({
        let shared = Arc::clone(&shared);
        async move { shared.streams.follow(&shared.config).await }
    });
    manager.ready();
    let work = async {
        tokio::select! {
            () = watch(&shared, &mut host) => {}
            () = stop.asked() => {}
        }
        manager.stopping();
        afterwards.abort();
        reaper.abort();
        streaming.abort();
        // What is not committed is offered again by the next start, and streams go on there.
        tokio::select! {
            ((), ()) = async { tokio::join!(shared.all_ended(), shared.streams.end()) } => {}
            () = sleep(DRAIN) => {}
            () = stop.forced() => {}
        }
        close.ask();
    };
    tokio::join!(work, endpoints.run(&closed, || true));
    Ok(Finished::default())
}

/// What earlier agents held, where the service manager keeps descriptors. Where it cannot be
/// used, the agent does without.
async fn stored(state: std::path::PathBuf, events: &Events) -> Option<Stored> {
    let manager = Descriptors::from_env(events);
    let (store, came) = match manager {
        Ok(found) => found?,
        Err(error) => {
            tracing::debug!(%error, "the service manager keeps no descriptors");
            return None;
        }
    };
    tracing::debug!(descriptors = came.len(), "descriptors came back");
    let open = move || Stored::open(&state, Box::new(store), came);
    match tokio::task::spawn_blocking(open).await {
        Ok(Ok(stored)) => Some(stored),
        Ok(Err(error)) => {
            events.warn(format!(
                "{error}: log files that are removed while no agent runs are lost"
            ));
            None
        }
        Err(_) => None,
    }
}

/// Watches libvirt, over one connection after the other.
async fn watch(shared: &Arc<Shared>, host: &mut Host) {
    let mut waits = RECONNECT.start();
    let mut told = false;
    loop {
        let began = Instant::now();
        match connect(shared).await {
            Ok(connection) => {
                told = false;
                let ended = host.watch(connection).await;
                shared.metrics.libvirt_connected(false);
                if let Err(e) = ended {
                    shared.events.warn(format!(
                        "libvirt cannot be watched: {}; it is tried again",
                        e.sentence()
                    ));
                }
            }
            Err(e) if !told => {
                told = true;
                shared.events.warn(format!(
                    "libvirt cannot be reached: {}; until it can, no migration is noticed, and \
                     the logs that are held stay held",
                    e.sentence()
                ));
            }
            Err(_) => {}
        }
        if began.elapsed() > STOOD {
            waits = RECONNECT.start();
        }
        // It has no end of its own.
        sleep(waits.next(Duration::ZERO).unwrap_or(STOOD)).await;
    }
}

async fn connect(shared: &Shared) -> Result<Connection> {
    consoles::connect_local(Some(&shared.config().connect)).await
}
