//! What all rooms of the agent share: the configuration in force, who is told, what is counted,
//! and what is under way.
//!
//! Must not know: how a handoff is made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use logchain_core::handoff::{Budget, Limits};
use logchain_core::ids::ConsoleName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Vm;
use super::config::{Config, Reloadable};
use super::control::HandoffStatus;
use super::held::HeldLogs;
use super::meet::Meet;
use super::metrics::{self, Metrics};
use super::streams::Streams;
use crate::event::{HandoffOutcome, HandoffRole, HandoffSummary};
use crate::stop::Stop;
use crate::{Event, Events};

pub(super) struct Shared {
    pub(super) config: Arc<Reloadable>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Events,
    pub(super) stop: Stop,
    pub(super) meet: Meet,
    pub(super) held: HeldLogs,
    pub(super) streams: Streams,
    /// What all handoffs take together.
    pub(super) budget: Budget,
    /// How many domains' handoffs may run at once.
    turns: Arc<Semaphore>,
    /// Whether nothing new is begun.
    draining: AtomicBool,
    next: AtomicU64,
    under_way: Mutex<BTreeMap<u64, HandoffStatus>>,
    /// How many.
    count: watch::Sender<usize>,
}

impl Shared {
    pub(super) fn new(
        (config, held, streams): (Arc<Reloadable>, HeldLogs, Streams),
        metrics: Arc<Metrics>,
        events: Events,
        stop: &Stop,
        meet: Meet,
    ) -> Self {
        let limits = config.current().limits.clone();
        let memory = limits.memory;
        let turns = usize::try_from(limits.handoffs).unwrap_or(usize::MAX);
        let budget = Budget::new(Limits {
            bytes: usize::try_from(memory).unwrap_or(usize::MAX),
            ..Limits::default()
        });
        Self {
            config,
            metrics,
            events,
            stop: stop.clone(),
            meet,
            held,
            streams,
            budget,
            turns: Arc::new(Semaphore::new(turns.min(Semaphore::MAX_PERMITS))),
            draining: AtomicBool::new(false),
            next: AtomicU64::new(0),
            under_way: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.current()
    }

    /// How long nothing may move until a log is left behind, to be tried again later.
    pub(super) fn patience(&self) -> Duration {
        self.config().meet.patience
    }

    /// Waits until one handoff more may run; it does for as long as what this gives lives.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// From now on nothing new is begun.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// A handoff has begun, for as long as what this gives lives.
    pub(super) fn begin(
        self: &Arc<Self>,
        vm: &Vm,
        console: &ConsoleName,
        role: HandoffRole,
    ) -> UnderWay {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let status = HandoffStatus {
            domain: vm.name.clone(),
            uuid: vm.uuid,
            console: console.to_string(),
            role: match role {
                HandoffRole::Source => "source".to_owned(),
                HandoffRole::Destination => "destination".to_owned(),
            },
            phase: "under way".to_owned(),
            bytes: 0,
            peer: None,
            since: u64::try_from(Timestamp::now().as_second()).unwrap_or(0),
        };
        self.lock().insert(number, status);
        self.count.send_modify(|n| *n = n.saturating_add(1));
        UnderWay {
            shared: Arc::clone(self),
            number,
            _counted: self.metrics.handoff_begins(counted(role)),
        }
    }

    /// What is under way, the oldest first.
    pub(super) fn under_way(&self) -> Vec<HandoffStatus> {
        self.lock().values().cloned().collect()
    }

    /// Waits until nothing is.
    pub(super) async fn all_ended(&self) {
        let mut count = self.count.subscribe();
        // The sender is here.
        let _ = count.wait_for(|n| *n == 0).await;
    }

    /// A handoff ended: it is told, and counted.
    pub(super) fn ended(&self, summary: HandoffSummary) {
        let outcome = match summary.outcome {
            HandoffOutcome::Carried => metrics::Outcome::Carried,
            HandoffOutcome::Withdrawn => metrics::Outcome::Withdrawn,
            HandoffOutcome::NotCarried => metrics::Outcome::Failed,
        };
        let role = counted(summary.role);
        self.metrics
            .handoff_ended(role, outcome, summary.uuid, summary.bytes);
        if let Some(ms) = summary.window_ms {
            self.metrics.window(Duration::from_millis(ms));
        }
        self.events.tell(Event::Handoff(summary));
    }

    /// For the jobs of one domain: of what they tell, the agent tells what an operator wants to
    /// know, with the name of the domain.
    pub(super) fn events_of(&self, vm: &Vm) -> Events {
        let (events, vm) = (self.events.clone(), vm.clone());
        Events::to(move |event: &Event| match event {
            Event::Warning { reason } => events.warn(format!("{}: {reason}", vm.name)),
            Event::LeftBehind { .. } | Event::NothingLeft { .. } | Event::Rejoined { .. } => {
                events.tell(event.clone());
            }
            other => tracing::debug!(
                domain = %vm.uuid,
                event = %other.to_json(),
                "a job of the agent tells"
            ),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, HandoffStatus>> {
        // Each change is one step, so a panic leaves no half of one.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn counted(role: HandoffRole) -> metrics::Role {
    match role {
        HandoffRole::Source => metrics::Role::Source,
        HandoffRole::Destination => metrics::Role::Destination,
    }
}

/// A handoff that is under way, for as long as this lives.
pub(super) struct UnderWay {
    shared: Arc<Shared>,
    number: u64,
    _counted: metrics::UnderWayGuard,
}

impl UnderWay {
    /// How many of its bytes are on their way, or here.
    pub(super) fn bytes(&self, bytes: u64) {
        if let Some(status) = self.shared.lock().get_mut(&self.number) {
            status.bytes = bytes;
        }
    }

    /// The other host.
    pub(super) fn peer(&self, peer: &str) {
        if let Some(status) = self.shared.lock().get_mut(&self.number) {
            status.peer = Some(peer.to_owned());
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.lock().remove(&self.number);
        self.shared.count.send_modify(|n| *n = n.saturating_sub(1));
    }
}
