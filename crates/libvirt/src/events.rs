//! What happens to a domain, as it happens.
//!
//! libvirt's callbacks run on the thread of the event loop: they take the time,
//! put the event into a bounded queue, and return. Must not know: what an event
//! means for a migration (the same detail can mean opposite things on the two
//! hosts; see [`crate::outcome`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tracing::debug;
use uuid::Uuid;
use virt_sys as sys;

use crate::call;
use crate::connection::Connection;
use crate::state::reasons;
use crate::{Error, Result, ffi};

/// How many events may wait to be taken. A migration has about ten.
const QUEUE: usize = 256;

/// libvirt's event loop: one thread, started once, for the life of the process.
///
/// It must be there before a connection is opened, which is why
/// [`Connection::open`] starts it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EventLoop;

impl EventLoop {
    /// Starts it, unless it runs already. Also shuts off libvirt's habit of
    /// printing every error.
    ///
    /// # Errors
    /// [`Error::Machine`] where no thread is to be had.
    pub fn start() -> Result<Self> {
        static RUNS: Mutex<bool> = Mutex::new(false);
        let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        if !*runs {
            let failed = |message: String| Error::Machine {
                action: "start libvirt's event loop".to_owned(),
                message,
            };
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl()
                .map_err(|e| failed(e.message().to_owned()))?;
            thread::Builder::new()
                .name("libvirt-events".to_owned())
                .spawn(run)
                .map_err(|e| failed(e.to_string()))?;
            *runs = true;
        }
        Ok(Self)
    }
}

fn run() {
    loop {
        if virt::event::event_run_default_impl().is_err() {
            pause();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "on the event loop's own thread, so that a loop that fails does not spin"
)]
fn pause() {
    thread::sleep(Duration::from_millis(100));
}

/// One event of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifecycleEvent {
    /// When it reached this process.
    pub at: Instant,
    /// What happened.
    pub event: Lifecycle,
}

/// What happens to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lifecycle {
    /// Its definition was stored.
    Defined,
    /// Its definition was removed.
    Undefined,
    /// Its process is there.
    Started(Started),
    /// Its guest stands still.
    Suspended(Suspended),
    /// Its guest goes on.
    Resumed(Resumed),
    /// Its process is gone.
    Stopped(Stopped),
    /// Its guest has shut down; its process is still there.
    Shutdown,
    /// Its guest sleeps.
    PmSuspended,
    /// Its guest crashed.
    Crashed,
    /// Anything else; the numbers are libvirt's event and detail.
    Other(i32, i32),
}

impl Lifecycle {
    pub(crate) fn from_raw(event: i32, detail: i32) -> Self {
        match u32::try_from(event) {
            Ok(sys::VIR_DOMAIN_EVENT_DEFINED) => Self::Defined,
            Ok(sys::VIR_DOMAIN_EVENT_UNDEFINED) => Self::Undefined,
            Ok(sys::VIR_DOMAIN_EVENT_STARTED) => Self::Started(Started::from_raw(detail)),
            Ok(sys::VIR_DOMAIN_EVENT_SUSPENDED) => Self::Suspended(Suspended::from_raw(detail)),
            Ok(sys::VIR_DOMAIN_EVENT_RESUMED) => Self::Resumed(Resumed::from_raw(detail)),
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED) => Self::Stopped(Stopped::from_raw(detail)),
            Ok(sys::VIR_DOMAIN_EVENT_SHUTDOWN) => Self::Shutdown,
            Ok(sys::VIR_DOMAIN_EVENT_PMSUSPENDED) => Self::PmSuspended,
            Ok(sys::VIR_DOMAIN_EVENT_CRASHED) => Self::Crashed,
            _ => Self::Other(event, detail),
        }
    }
}

reasons! {
    /// Why a domain's process is there.
    Started {
        /// It was started.
        Booted = sys::VIR_DOMAIN_EVENT_STARTED_BOOTED,
        /// It waits, paused, for a guest that comes by migration.
        Migrated = sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED,
        /// It comes from a saved image.
        Restored = sys::VIR_DOMAIN_EVENT_STARTED_RESTORED,
    }
}

reasons! {
    /// Why a domain's guest stands still.
    Suspended {
        /// Somebody paused it.
        Paused = sys::VIR_DOMAIN_EVENT_SUSPENDED_PAUSED,
        /// At the source: it writes nothing here any more, unless the migration fails.
        Migrated = sys::VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED,
        /// A disk failed.
        IoError = sys::VIR_DOMAIN_EVENT_SUSPENDED_IOERROR,
        /// At the source: it left, and its memory follows.
        Postcopy = sys::VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY,
        /// Post-copy broke off.
        PostcopyFailed = sys::VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED,
    }
}

reasons! {
    /// Why a domain's guest goes on.
    Resumed {
        /// Somebody resumed it.
        Unpaused = sys::VIR_DOMAIN_EVENT_RESUMED_UNPAUSED,
        /// At the destination: it came. At the source: it stayed, the migration failed.
        Migrated = sys::VIR_DOMAIN_EVENT_RESUMED_MIGRATED,
        /// At the destination: it came, and its memory follows.
        Postcopy = sys::VIR_DOMAIN_EVENT_RESUMED_POSTCOPY,
        /// Post-copy broke off.
        PostcopyFailed = sys::VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED,
    }
}

reasons! {
    /// Why a domain's process is gone.
    Stopped {
        /// Its guest shut down.
        Shutdown = sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN,
        /// Somebody ended it.
        Destroyed = sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED,
        /// It died.
        Crashed = sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED,
        /// At the source: its guest left.
        Migrated = sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED,
        /// It was saved to a file.
        Saved = sys::VIR_DOMAIN_EVENT_STOPPED_SAVED,
        /// It could not be started, or no guest came.
        Failed = sys::VIR_DOMAIN_EVENT_STOPPED_FAILED,
    }
}

/// The events of one domain on one host. Dropping it takes the subscription back.
#[derive(Debug)]
pub struct LifecycleEvents {
    queue: mpsc::Receiver<LifecycleEvent>,
    missed: Arc<AtomicU64>,
    subscription: Subscription,
}

impl LifecycleEvents {
    /// The next event; `None` once the connection is broken and all that came
    /// before has been taken.
    pub async fn recv(&mut self) -> Option<LifecycleEvent> {
        let connection = self.subscription.connection.clone();
        tokio::select! {
            biased;
            event = self.queue.recv() => event,
            () = connection.closed() => self.queue.try_recv().ok(),
        }
    }

    /// An event that has come already.
    pub fn try_recv(&mut self) -> Option<LifecycleEvent> {
        self.queue.try_recv().ok()
    }

    /// How many events were dropped because nobody took them.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// How often the memory of one domain was gone over by the migration that runs.
/// Dropping it takes the subscription back.
#[derive(Debug)]
pub struct Passes {
    newest: watch::Receiver<u32>,
    _subscription: Subscription,
}

impl Passes {
    /// Waits until the pass with this number begins, counted from 1; `false` where
    /// the connection broke before.
    pub async fn reach(&mut self, pass: u32) -> bool {
        self.newest.wait_for(|at| *at >= pass).await.is_ok()
    }
}

pub(crate) async fn passes(connection: &Connection, uuid: Uuid) -> Result<Passes> {
    let (put, newest) = watch::channel(0);
    let tell: ffi::OnIteration = Box::new(move |domain, iteration| {
        if domain == uuid {
            put.send_replace(u32::try_from(iteration).unwrap_or(0));
        }
    });
    let id = connection
        .ask(&uuid.to_string(), "watch its migration", move |connect| {
            ffi::register_iteration(connect, tell)
        })
        .await?;
    Ok(Passes {
        newest,
        _subscription: Subscription::new(connection, id),
    })
}

/// A callback that libvirt knows by this number. Dropping it takes the callback back.
#[derive(Debug)]
pub(crate) struct Subscription {
    connection: Connection,
    id: i32,
}

impl Subscription {
    pub(crate) fn new(connection: &Connection, id: i32) -> Self {
        Self {
            connection: connection.clone(),
            id,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let connection = self.connection.clone();
        let id = self.id;
        // The last subscription to go makes libvirt ask the host.
        call::aside(move || {
            if let Some(connect) = connection.raw() {
                drop(ffi::deregister(connect, id));
            }
        });
    }
}

pub(crate) async fn subscribe(connection: &Connection, uuid: Uuid) -> Result<LifecycleEvents> {
    let (put, queue) = mpsc::channel(QUEUE);
    let missed = Arc::new(AtomicU64::new(0));
    let lost = Arc::clone(&missed);
    // Of all domains, since this one may not be there yet.
    let tell: ffi::OnLifecycle = Box::new(move |domain, event, detail| {
        if domain != uuid {
            return;
        }
        let event = LifecycleEvent {
            at: Instant::now(),
            event: Lifecycle::from_raw(event, detail),
        };
        debug!(%domain, event = ?event.event, "libvirt tells");
        if put.try_send(event).is_err() {
            debug!(%domain, "nobody takes this domain's events: this one is counted as missed");
            lost.fetch_add(1, Ordering::Relaxed);
        }
    });
    let id = connection
        .ask(&uuid.to_string(), "watch the domain", move |connect| {
            ffi::register_lifecycle(connect, tell)
        })
        .await?;
    Ok(LifecycleEvents {
        queue,
        missed,
        subscription: Subscription::new(connection, id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Machine};

    const LIMIT: Duration = Duration::from_secs(20);

    async fn next(events: &mut LifecycleEvents) -> LifecycleEvent {
        tokio::time::timeout(LIMIT, events.recv())
            .await
            .unwrap()
            .unwrap()
    }

    #[tokio::test]
    async fn a_life_is_told_in_order_and_only_this_one() {
        let connection = testing::connect().await;
        let machine = Machine::planned(connection.clone(), "events");
        let other = Machine::planned(connection.clone(), "other");
        // Before the domain is there: as on the destination of a migration.
        let mut events = connection.lifecycle_events(machine.uuid).await.unwrap();

        let began = Instant::now();
        other.define_with("").await;
        machine.define_with("").await;
        machine.start().await;
        other.start().await;
        machine.domain().await.suspend().await.unwrap();
        machine.destroy().await;
        machine.domain().await.undefine().await.unwrap();

        let mut told = Vec::new();
        let mut last = began;
        while told.last() != Some(&Lifecycle::Undefined) {
            let event = next(&mut events).await;
            assert!(event.at >= last && event.at.elapsed() < LIMIT);
            last = event.at;
            told.push(event.event);
        }
        assert_eq!(
            told,
            [
                Lifecycle::Defined,
                Lifecycle::Started(Started::Booted),
                Lifecycle::Suspended(Suspended::Paused),
                Lifecycle::Stopped(Stopped::Destroyed),
                Lifecycle::Undefined,
            ]
        );
        assert_eq!(events.missed(), 0);
        other.destroy().await;
    }

    #[tokio::test]
    async fn a_queue_that_nobody_takes_from_is_bounded() {
        let machine = Machine::define("flood", "").await;
        let mut events = machine
            .connection
            .lifecycle_events(machine.uuid)
            .await
            .unwrap();
        for _ in 0..QUEUE + 10 {
            machine.define_with("").await;
        }
        let waited = Instant::now();
        while events.missed() < 10 && waited.elapsed() < LIMIT {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(events.missed(), 10);
        let mut kept = 0;
        while events.try_recv().is_some() {
            kept += 1;
        }
        assert_eq!(kept, QUEUE);
    }

    #[tokio::test]
    async fn dropping_takes_the_subscription_back() {
        let machine = Machine::define("dropped", "").await;
        let events = machine
            .connection
            .lifecycle_events(machine.uuid)
            .await
            .unwrap();
        // Freed by libvirt together with the callback.
        let alive = Arc::downgrade(&events.missed);
        drop(events);
        let waited = Instant::now();
        while alive.strong_count() > 0 && waited.elapsed() < LIMIT {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(alive.strong_count(), 0);
    }

    #[test]
    fn numbers_become_events() {
        for ((event, detail), want) in [
            ((2, 1), Lifecycle::Started(Started::Migrated)),
            ((3, 1), Lifecycle::Suspended(Suspended::Migrated)),
            ((3, 7), Lifecycle::Suspended(Suspended::Postcopy)),
            ((4, 1), Lifecycle::Resumed(Resumed::Migrated)),
            ((4, 3), Lifecycle::Resumed(Resumed::Postcopy)),
            ((5, 3), Lifecycle::Stopped(Stopped::Migrated)),
            ((5, 5), Lifecycle::Stopped(Stopped::Failed)),
            ((5, 77), Lifecycle::Stopped(Stopped::Other(77))),
            ((6, 0), Lifecycle::Shutdown),
            ((42, 1), Lifecycle::Other(42, 1)),
            ((-1, 0), Lifecycle::Other(-1, 0)),
        ] {
            assert_eq!(Lifecycle::from_raw(event, detail), want);
        }
    }
}
