//! The outbox of this host: logs that were not carried and whose files went.
//!
//! [`Keepers`] hold the logs of a migration from before it begins until they have arrived, and
//! put them down here where their files go meanwhile. When the VM is back, [`rejoin`] puts
//! what is here behind its log.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use logchain_core::folder::Folder;
use logchain_core::handoff::adopt::Adopt as Half;
use logchain_core::handoff::offer::{Held, Offer, Source};
use logchain_core::handoff::{Budget, Handoff, run_locally};
use logchain_core::ids::{ConsoleName, HandoffId};
use logchain_core::outbox::{Entry, KeepOutcome, Keeper, Outbox};
use logchain_core::record::Record;
use logchain_core::transport::{LogTransport, MemoryTransport};
use logchain_libvirt::Connection;
use tokio::sync::watch;
use uuid::Uuid;

use crate::blocking::blocking;
use crate::incoming::IncomingDomain;
use crate::leases::Leases;
use crate::log::ConsoleLog;
use crate::{Error, Event, Events, Result, consoles, departures, limits};

/// How long putting a log from the outbox in place may take without any progress.
const REJOIN: Duration = Duration::from_secs(30);

/// The logs of one migration, each held until it has arrived.
pub(crate) struct Keepers {
    outbox: Outbox,
    held: Mutex<Vec<(ConsoleName, Keeper)>>,
    guest_left: AtomicBool,
}

impl Keepers {
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            outbox: Outbox::of(state),
            held: Mutex::default(),
            guest_left: AtomicBool::new(false),
        }
    }

    /// The guest has left: what is written under the logs' names from now on is no part of them.
    pub(crate) fn guest_left(&self) {
        let held = self.lock();
        self.guest_left.store(true, Ordering::Relaxed);
        for (_, keeper) in &*held {
            keeper.guest_left();
        }
    }

    /// Holds a log a second time, for the outbox. Where that fails, it is carried all the same.
    pub(crate) fn keep(&self, log: &ConsoleLog, held: &Held) -> Result<()> {
        let keeper = held.keep(Arc::new(Leases::default()))?;
        let mut held = self.lock();
        if self.guest_left.load(Ordering::Relaxed) {
            keeper.guest_left();
        }
        held.push((log.console.clone(), keeper));
        Ok(())
    }

    /// For a log that was not carried: what is held of it goes into the outbox where its files
    /// are gone, or `about_to_go`.
    pub(crate) async fn put_down(
        &self,
        log: &ConsoleLog,
        about_to_go: bool,
    ) -> Result<KeepOutcome> {
        let keeper = {
            let mut held = self.lock();
            let at = held.iter().position(|(console, _)| *console == log.console);
            at.map(|at| held.swap_remove(at).1)
        };
        let Some(keeper) = keeper else {
            let there = log.is_there().await;
            return Ok(if there {
                KeepOutcome::There
            } else {
                KeepOutcome::Empty
            });
        };
        let (path, outbox) = (log.path.clone(), self.outbox.clone());
        blocking(move || Ok(keeper.put_down(&path, about_to_go, &outbox)?)).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(ConsoleName, Keeper)>> {
        // Each change is one step, so a panic leaves no half of one.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs of a domain in the outbox, those of a console the newest first.
pub(crate) async fn entries(state: &Path, domain: Uuid) -> Result<Vec<Entry>> {
    let outbox = Outbox::of(state);
    blocking(move || Ok(outbox.of_domain(domain)?)).await
}

/// The destination has this log: it leaves the outbox, and the note that its VM left says so.
pub(crate) async fn mark_received(state: &Path, entry: &Entry) -> Result<()> {
    let (state, entry) = (state.to_owned(), entry.clone());
    blocking(move || {
        let outbox = Outbox::of(&state);
        outbox.remove(&entry)?;
        let left = outbox.of_domain(entry.domain)?;
        if left.iter().any(|other| other.console == entry.console) {
            return Ok(());
        }
        departures::mark_received(&state, entry.domain, &entry.console)
    })
    .await
}

/// Puts what the outbox has of a VM that runs here again behind its log: it is of an earlier
/// stay, and so older than all that is there. Gives what joined, and why something did not.
pub(crate) async fn rejoin(
    (state, events): (&Path, &Events),
    connection: &Connection,
    domain: Uuid,
    console: Option<&ConsoleName>,
) -> (Vec<Entry>, Vec<Error>) {
    let (mut joined, mut reasons) = (Vec::new(), Vec::new());
    let entries = match entries(state, domain).await {
        Ok(entries) => entries,
        Err(e) => return (joined, vec![e]),
    };
    if entries.is_empty() {
        return (joined, reasons);
    }
    let name = connection.lookup_uuid(domain).await;
    let name = name.map_or_else(|_| domain.to_string(), |known| known.name().to_owned());
    // Each goes behind all that is there, so the newest goes first, and an older one waits for it.
    let mut stuck: Vec<ConsoleName> = Vec::new();
    for entry in entries {
        if console.is_some_and(|c| *c != entry.console) || stuck.contains(&entry.console) {
            continue;
        }
        let done = match join(events, connection, &entry).await {
            Ok(()) => mark_received(state, &entry).await,
            Err(e) => Err(e),
        };
        match done {
            Ok(()) => {
                events.tell(Event::Rejoined {
                    domain: name.clone(),
                    console: entry.console.clone(),
                    bytes: entry.bytes,
                });
                joined.push(entry);
            }
            Err(e) => {
                let path = entry.path.display();
                reasons.push(e.meaning(format!(
                    "{}: {path} could not be put behind the log and stays in the outbox",
                    entry.console
                )));
                stuck.push(entry.console);
            }
        }
    }
    (joined, reasons)
}

/// Hands one log over, with both halves in this process.
async fn join(events: &Events, connection: &Connection, entry: &Entry) -> Result<()> {
    let log = ConsoleLog {
        console: entry.console.clone(),
        path: entry.path.clone(),
    };
    let id = handoff_of(&log, entry.domain).await?;
    let handoff = Handoff {
        domain: entry.domain,
        console: entry.console.clone(),
        id,
    };
    let transport: Arc<dyn LogTransport> = Arc::new(MemoryTransport::new());
    let over = watch::Sender::new(Source::Over);
    let budget = Budget::default();
    let limits = blocking(|| Ok(limits::limits())).await?;
    limits.warn(events);
    let offer = Offer::new(
        handoff.clone(),
        Arc::clone(&transport),
        Arc::new(Leases::default()),
        over.subscribe(),
    )
    .with_names("", consoles::own_name())
    .with_patience(REJOIN)
    .with_budget(budget.clone());
    let adopt = Half::new(
        handoff,
        transport,
        Arc::new(Leases::default()),
        Arc::new(IncomingDomain {
            connection: connection.clone(),
            domain: entry.domain,
            console: entry.console.clone(),
            limits,
        }),
    )
    .with_host(consoles::own_name())
    .with_patience(REJOIN)
    .with_budget(budget);
    let held = log.hold(entry.domain, events).await?;
    run_locally(offer, held, adopt).await?;
    Ok(())
}

/// The handoff id of a log in the outbox: the same one over every transport.
pub(crate) async fn handoff_of(log: &ConsoleLog, domain: Uuid) -> Result<HandoffId> {
    let (log, path): (ConsoleLog, PathBuf) = (log.clone(), log.path.clone());
    let read = move || {
        let (folder, base) = Folder::of_file(&path)?;
        let record = Record::read(&folder, &base, domain, &log.console)?;
        let offered = record.and_then(|record| record.offered);
        let offered = offered.ok_or_else(|| {
            let path = path.display();
            Error::Handoff(format!(
                "the record beside {path} does not say as which handoff it is offered"
            ))
        })?;
        Ok(offered.handoff)
    };
    blocking(read).await
}
