//! The logs of the domains that run here, copied to a store as they grow, where the operator
//! wants that: what `logchain stream` does for one domain, for all of a host.
//!
//! Each log has one task. It begins when the guest runs here, whether it was started here or came
//! by migration; when the guest has left, it puts the last bytes and ends. A second streamer of
//! the same log, by hand or at the host that the guest came from, does no harm: nothing in the
//! store is ever overwritten, and each goes on behind what the other put.
//!
//! - `log`: one log on its way, and what is tried again.
//! - `target`: the store and the bounds, by one reading of the configuration.
//! - `tally`: what the streams do, counted. `wanted`: which logs are streamed.
//!
//! Must not know: libvirt, how a log is handed over.

mod log;
mod tally;
mod target;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use logchain_core::archive::Ask;
use logchain_core::chain::NumberingChoice;
use logchain_core::ids::ConsoleName;
use tokio::sync::watch;
use uuid::Uuid;

use super::Vm;
use super::config::{self, Reloadable};
use super::control::StreamsStatus;
use super::metrics::Metrics;
use crate::Events;
use crate::log::ConsoleLog;
use log::LogStream;
use tally::Tally;
use target::Target;

/// Streams of domains that left and whose last bytes are not put yet. The oldest ends where there
/// are more.
const LEAVING: usize = 256;

/// The streams of this host. Clones are the same.
#[derive(Clone)]
pub(super) struct Streams(Arc<Inner>);

struct Inner {
    events: Events,
    tally: Tally,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None`: nothing is streamed.
    target: Option<Arc<Target>>,
    guests: HashMap<Uuid, Guest>,
    /// Domains whose history is being taken in, and by how many tasks.
    arriving: HashMap<Uuid, usize>,
    streams: HashMap<(Uuid, ConsoleName), Stream>,
    leaving: VecDeque<watch::Sender<Ask>>,
    is_over: bool,
}

/// A domain that runs here.
struct Guest {
    vm: Vm,
    logs: Vec<ConsoleLog>,
    numbering: NumberingChoice,
}

struct Stream {
    path: PathBuf,
    ask: watch::Sender<Ask>,
}

impl State {
    /// The guest of this stream has left, or its console is gone.
    fn drain(&mut self, key: &(Uuid, ConsoleName)) {
        let Some(stream) = self.streams.remove(key) else {
            return;
        };
        stream.ask.send_replace(Ask::Drain);
        self.leaving.retain(|ask| !ask.is_closed());
        self.leaving.push_back(stream.ask);
        if self.leaving.len() > LEAVING
            && let Some(oldest) = self.leaving.pop_front()
        {
            oldest.send_replace(Ask::End);
        }
    }

    /// Asks every stream to put what is there, and to end.
    fn end_all(&mut self) {
        let streams = std::mem::take(&mut self.streams);
        let streams = streams.into_values().map(|stream| stream.ask);
        for ask in streams.chain(std::mem::take(&mut self.leaving)) {
            ask.send_replace(Ask::End);
        }
    }
}

/// The history of a domain that came is being taken in, for as long as this lives: until then
/// nobody knows at which offset its log here begins.
pub(super) struct Arriving {
    streams: Streams,
    domain: Uuid,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut state = self.streams.state();
        if let Some(count) = state.arriving.get_mut(&self.domain) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.arriving.remove(&self.domain);
            }
        }
        self.streams.start(&mut state, self.domain);
    }
}

impl Streams {
    /// None yet.
    pub(super) fn new(metrics: Arc<Metrics>, events: Events) -> Self {
        Self(Arc::new(Inner {
            tally: Tally::new(metrics, events.clone()),
            events,
            state: Mutex::default(),
        }))
    }

    /// Streams as `[stream]` says from now on. Streams that run by another section put what is
    /// there and end, and those that are wanted begin anew, where these end.
    pub(super) fn configure(&self, section: &config::Stream) {
        let mut state = self.state();
        let before = state.target.as_ref().map(|target| &target.config);
        let is_same = before.map_or(section.to.is_none(), |before| before == section);
        if is_same || state.is_over {
            return;
        }
        state.end_all();
        state.target = match Target::of(section, &self.0.tally) {
            Ok(target) => target.map(Arc::new),
            Err(e) => {
                let reason = e.sentence();
                self.0.events.warn(format!("nothing is streamed: {reason}"));
                None
            }
        };
        let guests: Vec<_> = state.guests.keys().copied().collect();
        for domain in guests {
            self.start(&mut state, domain);
        }
    }

    /// Streams as the configuration says, whenever it is loaded anew. It never ends.
    pub(super) async fn follow(&self, config: &Reloadable) {
        let mut loaded = config.subscribe();
        loop {
            let section = loaded.borrow_and_update().stream.clone();
            self.configure(&section);
            if loaded.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// A domain runs here, with these logs.
    pub(super) fn here(&self, vm: Vm, logs: Vec<ConsoleLog>, numbering: NumberingChoice) {
        let mut state = self.state();
        let domain = vm.uuid;
        let is_there = |key: &(Uuid, ConsoleName), stream: &Stream| {
            let mut logs = logs.iter();
            logs.any(|log| log.console == key.1 && log.path == stream.path)
        };
        let of_it = state.streams.iter().filter(|(key, _)| key.0 == domain);
        let gone = of_it.filter(|(key, stream)| !is_there(key, stream));
        let gone: Vec<_> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            state.drain(&key);
        }
        let guest = Guest {
            vm,
            logs,
            numbering,
        };
        state.guests.insert(domain, guest);
        self.start(&mut state, domain);
    }

    /// A domain does not run here any more: what its guest printed last is put.
    pub(super) fn left(&self, domain: Uuid) {
        let mut state = self.state();
        state.guests.remove(&domain);
        let of_it = state.streams.keys().filter(|key| key.0 == domain);
        let of_it: Vec<_> = of_it.cloned().collect();
        for key in of_it {
            state.drain(&key);
        }
    }

    /// The history of a domain is being taken in.
    pub(super) fn arriving(&self, domain: Uuid) -> Arriving {
        let mut state = self.state();
        let count = state.arriving.entry(domain).or_default();
        *count = count.saturating_add(1);
        drop(state);
        Arriving {
            streams: self.clone(),
            domain,
        }
    }

    /// Asks all to put what is there, and waits until they have ended. Nothing begins any more.
    pub(super) async fn end(&self) {
        {
            let mut state = self.state();
            state.is_over = true;
            state.end_all();
        }
        self.0.tally.all_ended().await;
    }

    /// What they do now; `None` where nothing is streamed.
    pub(super) fn status(&self) -> Option<StreamsStatus> {
        let to = self.state().target.as_ref()?.config.to.clone()?;
        let counts = self.0.tally.counts();
        Some(StreamsStatus {
            to,
            running: counts.running,
            waiting: counts.waiting,
            bytes: counts.bytes,
            trouble: counts.reason,
        })
    }

    /// Begins the streams of a domain that are wanted and do not run. One that ended by itself
    /// does not begin again while its domain stays: what ended it would do so again.
    fn start(&self, state: &mut State, domain: Uuid) {
        if state.is_over || state.arriving.contains_key(&domain) {
            return;
        }
        let (Some(target), Some(guest)) = (&state.target, state.guests.get(&domain)) else {
            return;
        };
        for log in &guest.logs {
            let key = (domain, log.console.clone());
            let is_wanted = target.wanted.has(&guest.vm, log.console.as_str());
            if !is_wanted || state.streams.contains_key(&key) {
                continue;
            }
            let (ask, asked) = watch::channel(Ask::Go);
            let stream = LogStream {
                vm: guest.vm.clone(),
                log: log.clone(),
                numbering: guest.numbering,
                target: Arc::clone(target),
                tally: self.0.tally.clone(),
                events: self.0.events.clone(),
                ask: asked,
            };
            tracing::debug!(%domain, console = %log.console, "a stream begins");
            tokio::spawn(stream.run());
            let path = log.path.clone();
            state.streams.insert(key, Stream { path, ask });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so a panic leaves no half of one.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
