//! What the agent counts, for Prometheus.
//!
//! Every name begins with `logchain_agent_`, units are seconds and bytes, and no series is made
//! for a single VM unless the operator wants that. Counting costs an atomic addition: every series
//! is looked up once, at the start.
//!
//! `packaging/prometheus` has alert rules for these names, `packaging/grafana` a dashboard.
//!
//! Must not know: who asks for the page; what is counted beyond its number.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{AtomicU64, GenericCounter, GenericGauge, GenericGaugeVec};
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounterVec, Opts, Registry, TextEncoder,
};
use uuid::Uuid;

/// The media type of [`Metrics::page`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// VMs with a series of their own; all further ones share one.
const MOST_VMS: usize = 10_000;

/// The name of the series that further VMs share.
const OTHER_VMS: &str = "other";

/// Upper bounds in seconds for the time that a guest runs with an incomplete history.
const WINDOW: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 300.0,
];

type Counter = GenericCounter<AtomicU64>;
type Count = GenericGauge<AtomicU64>;
type CountVec = GenericGaugeVec<AtomicU64>;

/// Which half of a handoff this host had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The guest left.
    Source,
    /// The guest came.
    Destination,
}

/// How a handoff ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The destination has the history and said so.
    Carried,
    /// Both hosts have the folder: nothing had to be sent.
    Shared,
    /// The migration failed, and the handoff was taken back.
    Withdrawn,
    /// It failed; the source has the log.
    Failed,
    /// Bytes are gone.
    Lost,
}

/// What the agent counts. One for each agent; share it by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    handoffs: [[Counter; OUTCOMES.len()]; ROLES.len()],
    bytes: [Counter; ROLES.len()],
    under_way: [Count; ROLES.len()],
    window: Histogram,
    pending: Count,
    outbox_bytes: Count,
    outbox_oldest: Gauge,
    held_logs: Count,
    held_unlinked: Count,
    streams: Count,
    streams_waiting: Count,
    streamed_bytes: Counter,
    libvirt_connected: Count,
    libvirt_reconnects: Counter,
    events_missed: Counter,
    peers: Count,
    reloads: [Counter; RESULTS.len()],
    reload_ok: Count,
    reload_at: Gauge,
    /// Bytes for each VM, and the VMs that have a series; where the operator wants them.
    vms: Option<(IntCounterVec, Mutex<HashSet<Uuid>>)>,
}

const ROLES: [(Role, &str); 2] = [(Role::Source, "source"), (Role::Destination, "destination")];

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Carried, "carried"),
    (Outcome::Shared, "shared"),
    (Outcome::Withdrawn, "withdrawn"),
    (Outcome::Failed, "failed"),
    (Outcome::Lost, "lost"),
];

const RESULTS: [(bool, &str); 2] = [(false, "failure"), (true, "success")];

impl Metrics {
    /// All at zero. The agent starts at `now`. `per_vm`: whether bytes are counted for each VM as
    /// well.
    ///
    /// # Errors
    /// A name is no name of a metric, or there twice: report it.
    pub fn new(now: SystemTime, per_vm: bool) -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("logchain_agent".to_owned()), None)?;
        let make = Registrar(&registry);
        let handoffs = make.counters(
            "handoffs_total",
            "Handoffs that ended, by this host's half and by what came of them.",
            &["role", "outcome"],
        )?;
        let bytes = make.counters(
            "handed_over_bytes_total",
            "Bytes of history in handoffs that were carried, by this host's half.",
            &["role"],
        )?;
        let under_way = make.gauges(
            "handoffs_under_way",
            "Handoffs that have begun and have not ended, by this host's half.",
            &["role"],
        )?;
        let reloads = make.counters(
            "reloads_total",
            "Tries to load the configuration anew, by result.",
            &["result"],
        )?;
        let window = Histogram::with_opts(
            HistogramOpts::new(
                "window_seconds",
                "Time from the moment a guest first ran at this host until its history was \
                 complete here.",
            )
            .buckets(WINDOW.to_vec()),
        )?;
        registry.register(Box::new(window.clone()))?;
        let build = make.gauges(
            "build_info",
            "The release of the running agent; always 1.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let started = make.gauge(
            "start_time_seconds",
            "When the agent started, in seconds since 1970.",
        )?;
        started.set(seconds(now));
        let vms = if per_vm {
            let vms = make.counters(
                "vm_handed_over_bytes_total",
                "Bytes of history in handoffs that were carried, by VM.",
                &["uuid"],
            )?;
            Some((vms, Mutex::default()))
        } else {
            None
        };
        let metrics = Self {
            handoffs: ROLES.map(|(_, role)| {
                OUTCOMES.map(|(_, outcome)| handoffs.with_label_values(&[role, outcome]))
            }),
            bytes: ROLES.map(|(_, role)| bytes.with_label_values(&[role])),
            under_way: ROLES.map(|(_, role)| under_way.with_label_values(&[role])),
            window,
            pending: make.count(
                "pending_handoffs",
                "Logs in the outbox that wait to be carried.",
            )?,
            outbox_bytes: make.count("outbox_bytes", "Size of all logs in the outbox.")?,
            outbox_oldest: make.gauge(
                "outbox_oldest_seconds",
                "Age of the oldest log in the outbox; 0 if there is none.",
            )?,
            held_logs: make.count("held_logs", "Logs that are held open.")?,
            held_unlinked: make.count(
                "held_unlinked_bytes",
                "Bytes of held files that have no name any more.",
            )?,
            streams: make.count("streams", "Logs that are streamed to the store.")?,
            streams_waiting: make.count(
                "streams_waiting",
                "Streams that wait: for the store, or for a history that did not come yet.",
            )?,
            streamed_bytes: make.counter(
                "streamed_bytes_total",
                "Bytes of logs that streams put into the store, or found there.",
            )?,
            libvirt_connected: make.count(
                "libvirt_connected",
                "Whether the agent is connected to libvirt: 1 or 0.",
            )?,
            libvirt_reconnects: make.counter(
                "libvirt_reconnects_total",
                "Connections to libvirt after the first one.",
            )?,
            events_missed: make.counter(
                "events_missed_total",
                "Changes of domains that were found by looking and not told by libvirt.",
            )?,
            peers: make.count("peers_connected", "Agents of other hosts that answer.")?,
            reloads: RESULTS.map(|(_, result)| reloads.with_label_values(&[result])),
            reload_ok: make.count(
                "config_last_reload_successful",
                "Whether the last try to load the configuration succeeded: 1 or 0.",
            )?,
            reload_at: make.gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration in force was loaded, in seconds since 1970.",
            )?,
            vms,
            registry: registry.clone(),
        };
        metrics.reload_ok.set(1);
        metrics.reload_at.set(seconds(now));
        Ok(metrics)
    }

    /// A handoff has begun. Drop what it gives when the handoff has ended.
    pub fn handoff_begins(&self, role: Role) -> UnderWayGuard {
        let [source, destination] = &self.under_way;
        let count = match role {
            Role::Source => source,
            Role::Destination => destination,
        };
        count.inc();
        UnderWayGuard(count.clone())
    }

    /// A handoff has ended. `bytes`: the length of the history; it counts where it was carried.
    pub fn handoff_ended(&self, role: Role, outcome: Outcome, domain: Uuid, bytes: u64) {
        let by_role = ROLES.iter().zip(self.handoffs.iter().zip(&self.bytes));
        for (_, (outcomes, total)) in by_role.filter(|((known, _), _)| *known == role) {
            let by_outcome = OUTCOMES.iter().zip(outcomes);
            for (_, count) in by_outcome.filter(|((known, _), _)| *known == outcome) {
                count.inc();
            }
            if outcome == Outcome::Carried {
                total.inc_by(bytes);
            }
        }
        if let (Some((counts, known)), Outcome::Carried) = (&self.vms, outcome) {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let has_room = known.len() < MOST_VMS;
            let name = if known.contains(&domain) || (has_room && known.insert(domain)) {
                domain.to_string()
            } else {
                OTHER_VMS.to_owned()
            };
            counts.with_label_values(&[&name]).inc_by(bytes);
        }
    }

    /// A VM is no longer of this host: its own series ends.
    pub fn forget_vm(&self, domain: Uuid) {
        let Some((counts, known)) = &self.vms else {
            return;
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.remove(&domain) {
            // It is missing if it was never counted.
            let _ = counts.remove_label_values(&[&domain.to_string()]);
        }
    }

    /// How long a guest ran here with an incomplete history.
    pub fn window(&self, window: Duration) {
        self.window.observe(window.as_secs_f64());
    }

    /// What waits in the outbox. `oldest`: the age of the oldest log there.
    pub fn outbox(&self, logs: u64, bytes: u64, oldest: Option<Duration>) {
        self.pending.set(logs);
        self.outbox_bytes.set(bytes);
        self.outbox_oldest
            .set(oldest.unwrap_or_default().as_secs_f64());
    }

    /// What is held open: how many logs, and how many bytes of files without a name.
    pub fn held(&self, logs: u64, unlinked_bytes: u64) {
        self.held_logs.set(logs);
        self.held_unlinked.set(unlinked_bytes);
    }

    /// How many logs are streamed, and how many of these streams wait.
    pub fn streams(&self, running: u64, waiting: u64) {
        self.streams.set(running);
        self.streams_waiting.set(waiting);
    }

    /// So many bytes more of logs lie in the store.
    pub fn streamed(&self, bytes: u64) {
        self.streamed_bytes.inc_by(bytes);
    }

    /// Whether the agent is connected to libvirt now.
    pub fn libvirt_connected(&self, is_connected: bool) {
        self.libvirt_connected.set(u64::from(is_connected));
    }

    /// It is connected to libvirt again.
    pub fn libvirt_reconnected(&self) {
        self.libvirt_reconnects.inc();
        self.libvirt_connected(true);
    }

    /// So many changes were found by looking and not told by libvirt.
    pub fn events_missed(&self, count: u64) {
        self.events_missed.inc_by(count);
    }

    /// How many agents of other hosts answer.
    pub fn peers_connected(&self, count: u64) {
        self.peers.set(count);
    }

    /// The configuration was loaded anew at `now`, or could not be.
    pub fn reloaded(&self, is_success: bool, now: SystemTime) {
        let counts = RESULTS.iter().zip(&self.reloads);
        for (_, count) in counts.filter(|((result, _), _)| *result == is_success) {
            count.inc();
        }
        self.reload_ok.set(u64::from(is_success));
        if is_success {
            self.reload_at.set(seconds(now));
        }
    }

    /// Everything, in the text that Prometheus reads: of the type [`CONTENT_TYPE`].
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = Vec::new();
        let families = self.registry.gather();
        // Writing to memory fails only for a family without a series, which is left out.
        if let Err(e) = TextEncoder::new().encode(&families, &mut page) {
            tracing::warn!(error = %e, "a metric is not shown");
        }
        String::from_utf8_lossy(&page).into_owned()
    }
}

/// A handoff that is under way; dropped, it is not any more.
#[derive(Debug)]
#[must_use]
pub struct UnderWayGuard(Count);

impl Drop for UnderWayGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes metrics that are registered.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let made = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CountVec> {
        let made = CountVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<Counter> {
        let made = Counter::new(name, help)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn count(&self, name: &str, help: &str) -> prometheus::Result<Count> {
        let made = Count::new(name, help)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        let made = Gauge::new(name, help)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests;
