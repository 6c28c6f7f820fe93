//! The agent: one daemon for each hypervisor, which makes the handoff of a domain's logs happen
//! whoever starts the migration.
//!
//! - `host`: the domains that are here; libvirt's events, and looks at what they may have
//!   missed, become steps of `stay`, which is pure.
//! - `source`, `destination`: what is done for a domain that leaves, or comes.
//! - `meet`: how the two halves find each other; `peers`: agents that speak to each other.
//! - `afterwards`: what was not carried at once is tried again.
//!
//! State comes first, events second: an event may be missed and a daemon may restart, so
//! whatever an event tells is also found by looking.
//!
//! Nothing waits for the agent: libvirt, QEMU, virtlogd, the orchestrator and the guest notice
//! neither its absence nor its death. It calls nothing that changes a domain that runs.

mod afterwards;
mod destination;
mod host;
mod meet;
mod peers;
mod source;
mod stay;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::backoff::Backoff;
use logchain_core::departure::DEFAULT_STATE;
use logchain_core::handoff::Budget;
use logchain_libvirt::Connection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::job::Finished;
use crate::stop::Stop;
use crate::{Event, Events, Result, consoles};
use host::{Here, Host};
use meet::Meet;
pub use meet::Meeting;
pub use peers::TlsMeeting;

/// Between two tries to reach libvirt.
const RECONNECT: Backoff = Backoff::doubling(Duration::from_millis(250), Duration::from_secs(10));

/// How long handoffs that are under way may go on once the agent was asked to end.
const DRAIN: Duration = Duration::from_secs(20);

/// What the agent does, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// URI of the hypervisor here; libvirt's default without it.
    pub connect: Option<String>,
    /// Folder of what logchain remembers of this host.
    pub state: PathBuf,
    /// How the two halves of a handoff find each other.
    pub meeting: Meeting,
    /// What logchain is called at the destination, where it is started over ssh.
    pub remote_logchain: Option<String>,
    /// How long nothing may move until a log is left behind, to be tried again later.
    pub patience: Duration,
    /// How often is looked for what was not carried at once, at the most.
    pub retry: Duration,
}

impl Options {
    /// The agent with its defaults.
    #[must_use]
    pub fn new(meeting: Meeting) -> Self {
        Self {
            connect: None,
            state: DEFAULT_STATE.into(),
            meeting,
            remote_logchain: None,
            patience: Duration::from_secs(60),
            retry: Duration::from_secs(60),
        }
    }
}

/// A domain, as people and programs know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vm {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
}

/// What all rooms of the agent share.
struct Shared {
    options: Options,
    events: Events,
    stop: Stop,
    meet: Meet,
    /// What all handoffs take together.
    budget: Budget,
    /// How many handoffs are under way.
    under_way: watch::Sender<usize>,
}

/// A handoff that is under way, for as long as this lives.
struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl Shared {
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.send_modify(|n| *n = n.saturating_add(1));
        UnderWay(Arc::clone(self))
    }

    /// For the jobs of one domain: of what they tell, the agent tells what an operator wants to
    /// know, with the name of the domain.
    fn events_of(&self, vm: &Vm) -> Events {
        let (events, vm) = (self.events.clone(), vm.clone());
        Events::to(move |event: &Event| match event {
            Event::Warning { reason } => events.warn(format!("{}: {reason}", vm.name)),
            Event::LeftBehind { .. }
            | Event::NothingLeft { .. }
            | Event::Handoff(_)
            | Event::AlreadyCarried { .. } => events.tell(event.clone()),
            other => tracing::debug!(
                domain = %vm.uuid,
                event = %other.to_json(),
                "a job of the agent tells"
            ),
        })
    }
}

/// Runs the agent until it is asked to end.
///
/// # Errors
/// [`Error::Usage`](crate::Error::Usage) where the options cannot be meant. A libvirt that is away is waited for.
pub async fn agent(options: Options, events: &Events, stop: &Stop) -> Result<Finished> {
    let here = Here::default();
    let (meet, words) = Meet::start(&options, &here, stop).await?;
    let shared = Arc::new(Shared {
        options,
        events: events.clone(),
        stop: stop.clone(),
        meet,
        budget: Budget::default(),
        under_way: watch::Sender::new(0),
    });
    let mut host = Host::new(Arc::clone(&shared), here.clone(), words);
    let afterwards = tokio::spawn(afterwards::run(Arc::clone(&shared), here));
    tokio::select! {
        () = watch(&shared, &mut host) => {}
        () = stop.asked() => {}
    }
    afterwards.abort();
    // What is not committed is offered again by the next start.
    let mut under_way = shared.under_way.subscribe();
    tokio::select! {
        _ = under_way.wait_for(|n| *n == 0) => {}
        () = sleep(DRAIN) => {}
        () = stop.forced() => {}
    }
    Ok(Finished::default())
}

/// Watches libvirt, over one connection after the other.
async fn watch(shared: &Arc<Shared>, host: &mut Host) {
    let mut waits = RECONNECT.start();
    let mut told = false;
    loop {
        let began = Instant::now();
        match connect(shared).await {
            Ok(connection) => {
                if told {
                    shared
                        .events
                        .warn(format!("{} answers again", connection.uri()));
                }
                told = false;
                let ended = host.watch(connection).await;
                if let Err(e) = ended {
                    shared.events.warn(format!(
                        "libvirt cannot be watched: {}; it is tried again",
                        e.sentence()
                    ));
                    told = true;
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
        if began.elapsed() > Duration::from_secs(60) {
            waits = RECONNECT.start();
        }
        let wait = waits
            .next(Duration::ZERO)
            .unwrap_or(Duration::from_secs(10));
        sleep(wait).await;
    }
}

async fn connect(shared: &Shared) -> Result<Connection> {
    consoles::connect_local(shared.options.connect.as_deref()).await
}
