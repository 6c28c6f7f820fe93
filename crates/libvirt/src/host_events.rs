//! What happens to all domains of a host, as it happens: for who watches a whole host.
//!
//! As [`events`](crate::events): callbacks put numbers into a bounded queue and return. Where
//! the queue overflows, what is missed is counted, and whoever listens looks at the state
//! instead. Must not know: what an event means for a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::debug;
use uuid::Uuid;

use crate::connection::Connection;
use crate::events::{Lifecycle, Subscription};
use crate::{Result, ffi};

/// How many events may wait to be taken. A migration has about ten, and a host that is
/// evacuated some hundred domains.
const QUEUE: usize = 8192;

/// One event of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostEvent {
    /// When it reached this process.
    pub at: Instant,
    /// The domain to which it happened.
    pub domain: Uuid,
    /// What happened.
    pub kind: HostEventKind,
}

/// What happens to a domain of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostEventKind {
    /// It began, ended, stood still or went on.
    Lifecycle(Lifecycle),
    /// At the source of a migration: a pass over its memory begins. The number of the pass, counted
    /// from 1.
    Pass(u32),
    /// It got or lost a device while it runs.
    Devices,
}

/// The events of all domains of one host. Dropping it takes the subscriptions back.
#[derive(Debug)]
pub struct HostEvents {
    queue: mpsc::Receiver<HostEvent>,
    missed: Arc<AtomicU64>,
    connection: Connection,
    _subscriptions: Vec<Subscription>,
}

impl HostEvents {
    /// The next event; `None` once the connection is broken and all that came before has been
    /// taken.
    pub async fn recv(&mut self) -> Option<HostEvent> {
        let connection = self.connection.clone();
        tokio::select! {
            biased;
            event = self.queue.recv() => event,
            () = connection.closed() => self.queue.try_recv().ok(),
        }
    }

    /// How many events were dropped since this was last asked, because nobody took them.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

/// Where callbacks put what they hear.
#[derive(Clone)]
struct Sink {
    put: mpsc::Sender<HostEvent>,
    missed: Arc<AtomicU64>,
}

impl Sink {
    fn put(&self, domain: Uuid, kind: HostEventKind) {
        let at = Instant::now();
        debug!(%domain, ?kind, "libvirt tells");
        if self.put.try_send(HostEvent { at, domain, kind }).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Connection {
    /// What happens from now on to any domain of the host.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) where the driver has no lifecycle
    /// events; [`Error::NoAnswer`](crate::Error::NoAnswer), [`Error::Lost`](crate::Error::Lost).
    /// A driver without the other kinds is no failure: those are not told then.
    pub async fn host_events(&self) -> Result<HostEvents> {
        let (put, queue) = mpsc::channel(QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        let sink = Sink {
            put,
            missed: Arc::clone(&missed),
        };
        let ids = self
            .ask("", "watch its domains", move |connect| {
                let to = sink.clone();
                let lifecycle: ffi::OnLifecycle = Box::new(move |domain, event, detail| {
                    let event = Lifecycle::from_raw(event, detail);
                    to.put(domain, HostEventKind::Lifecycle(event));
                });
                let mut ids = vec![ffi::register_lifecycle(connect, lifecycle)?];
                let to = sink.clone();
                let pass: ffi::OnIteration = Box::new(move |domain, number| {
                    let number = u32::try_from(number).unwrap_or(0);
                    to.put(domain, HostEventKind::Pass(number));
                });
                match ffi::register_iteration(connect, pass) {
                    Ok(id) => ids.push(id),
                    Err(error) => debug!(%error, "a migration is noticed when the guest stops"),
                }
                let devices = || -> ffi::OnDevice {
                    let to = sink.clone();
                    Box::new(move |domain| to.put(domain, HostEventKind::Devices))
                };
                match ffi::register_devices(connect, devices) {
                    Ok(both) => ids.extend(both),
                    Err(error) => debug!(%error, "a device that is plugged in is not noticed"),
                }
                Ok(ids)
            })
            .await?;
        let subscriptions = ids.into_iter().map(|id| Subscription::new(self, id));
        Ok(HostEvents {
            queue,
            missed,
            connection: self.clone(),
            _subscriptions: subscriptions.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events::{Started, Stopped};
    use crate::testing::{self, Machine};

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn all_domains_are_told_of_apart() {
        let connection = testing::connect().await;
        let one = Machine::planned(connection.clone(), "host-one");
        let two = Machine::planned(connection.clone(), "host-two");
        let mut events = connection.host_events().await.unwrap();
        one.define_with("").await;
        two.define_with("").await;
        one.start().await;
        two.start().await;
        one.destroy().await;
        let mut of = [Vec::new(), Vec::new()];
        let stopped = Lifecycle::Stopped(Stopped::Destroyed);
        while of[0].last() != Some(&stopped) {
            let event = tokio::time::timeout(LIMIT, events.recv()).await;
            let event = event.unwrap().unwrap();
            let HostEventKind::Lifecycle(kind) = event.kind else {
                continue;
            };
            // Other tests have domains on the same driver.
            if event.domain == one.uuid {
                of[0].push(kind);
            } else if event.domain == two.uuid {
                of[1].push(kind);
            }
        }
        let begun = Lifecycle::Started(Started::Booted);
        assert_eq!(of[0], [Lifecycle::Defined, begun, stopped]);
        assert_eq!(of[1], [Lifecycle::Defined, begun]);
        assert_eq!(events.take_missed(), 0);
        two.destroy().await;
    }
}
