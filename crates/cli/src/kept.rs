//! Logs held from before the migration until they have arrived, and put down in the
//! outbox where their files go meanwhile; and what is in the outbox joining again
//! when its VM is back.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use logchain_core::handoff::adopt::Adopt as Half;
use logchain_core::handoff::offer::{Held, Offer, Source};
use logchain_core::handoff::{Budget, Handoff, run_locally};
use logchain_core::outbox::{Entry, Keeper, Kept, Outbox};
use logchain_core::record::Record;
use logchain_core::transport::{ConsoleName, HandoffId, LogTransport, MemoryTransport};
use logchain_core::{departure::Notes, folder::Folder};
use logchain_host::Events;
use logchain_host::consoles;
use logchain_host::incoming::IncomingDomain;
use logchain_host::leases::Leases;
use logchain_host::limits;
use logchain_libvirt::Connection;
use tokio::sync::watch;
use uuid::Uuid;

use crate::carry::Log;

/// How long what is in the outbox may take to be put in place on this very host.
const REJOIN: Duration = Duration::from_secs(30);

/// Those of one migration.
pub(crate) struct Keepers {
    outbox: Outbox,
    held: Mutex<Vec<(ConsoleName, Keeper)>>,
}

impl Keepers {
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            outbox: Outbox::of(state),
            held: Mutex::default(),
        }
    }

    /// Holds a log a second time. Where that cannot be, it is carried all the same.
    pub(crate) fn keep(&self, log: &Log, held: &Held) -> Result<(), String> {
        let keeper = held.keep(Arc::new(Leases::default()))?;
        self.lock().push((log.console.clone(), keeper));
        Ok(())
    }

    /// A log was not carried: where its files are gone, or `about_to_go`, what is held
    /// is put down.
    pub(crate) async fn put_down(&self, log: &Log, about_to_go: bool) -> Result<Kept, String> {
        let keeper = {
            let mut held = self.lock();
            let at = held.iter().position(|(console, _)| *console == log.console);
            at.map(|at| held.swap_remove(at).1)
        };
        let Some(keeper) = keeper else {
            let there = log.is_there().await;
            return Ok(if there { Kept::There } else { Kept::Empty });
        };
        let (path, outbox) = (log.path.clone(), self.outbox.clone());
        blocking(move || keeper.put_down(&path, about_to_go, &outbox)).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(ConsoleName, Keeper)>> {
        // It is changed in one step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs of a domain in the outbox, those of a console the newest first.
pub(crate) async fn put_down_here(state: &Path, domain: Uuid) -> Result<Vec<Entry>, String> {
    let outbox = Outbox::of(state);
    blocking(move || outbox.of_domain(domain)).await
}

/// The destination has it: it goes, and the note that its VM left hears of it.
pub(crate) async fn is_received(state: &Path, entry: &Entry) -> Result<(), String> {
    let (state, entry) = (state.to_owned(), entry.clone());
    blocking(move || -> Result<(), anyhow::Error> {
        let outbox = Outbox::of(&state);
        outbox.remove(&entry)?;
        let left = outbox.of_domain(entry.domain)?;
        let Some(notes) = Notes::open(&state)? else {
            return Ok(());
        };
        if left.iter().any(|other| other.console == entry.console) {
            return Ok(());
        }
        if let Some(mut note) = notes.read(entry.domain)? {
            for log in note.logs.iter_mut().filter(|l| l.console == entry.console) {
                log.received = true;
            }
            notes.write(&note)?;
        }
        Ok(())
    })
    .await
}

/// A VM runs here whose log is in this host's outbox, of an earlier stay: it is older
/// than all that is there, and is put behind it, as any that is offered late. Gives
/// what joined, and why something did not.
pub(crate) async fn rejoin(
    (state, events): (&Path, &Events),
    connection: &Connection,
    domain: Uuid,
    console: Option<&ConsoleName>,
) -> (Vec<Entry>, Vec<String>) {
    let (mut joined, mut reasons) = (Vec::new(), Vec::new());
    let entries = match put_down_here(state, domain).await {
        Ok(entries) => entries,
        Err(reason) => return (joined, vec![reason]),
    };
    // The newest first, and none before a newer one of its console is in place.
    let mut stuck: Vec<ConsoleName> = Vec::new();
    for entry in entries {
        if console.is_some_and(|c| *c != entry.console) || stuck.contains(&entry.console) {
            continue;
        }
        let done = match join(events, connection, &entry).await {
            Ok(()) => is_received(state, &entry).await,
            Err(reason) => Err(reason),
        };
        match done {
            Ok(()) => joined.push(entry),
            Err(reason) => {
                let path = entry.path.display();
                reasons.push(format!("{}: {path} stays there: {reason}", entry.console));
                stuck.push(entry.console);
            }
        }
    }
    (joined, reasons)
}

/// Both halves in this process.
async fn join(events: &Events, connection: &Connection, entry: &Entry) -> Result<(), String> {
    let log = Log {
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
    let limits = blocking(|| Ok::<_, String>(limits::limits())).await?;
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
    let held = log.hold(entry.domain).await?;
    run_locally(offer, held, adopt).await.map(|_| ())
}

/// The handoff as which a log in the outbox is offered, over whatever transport.
pub(crate) async fn handoff_of(log: &Log, domain: Uuid) -> Result<HandoffId, String> {
    let (log, path): (Log, PathBuf) = (log.clone(), log.path.clone());
    let read = move || -> Result<_, anyhow::Error> {
        let (folder, base) = Folder::of_file(&path)?;
        let record = Record::read(&folder, &base, domain, &log.console)?;
        let offered = record.and_then(|record| record.offered);
        let offered = offered.with_context(|| {
            let path = path.display();
            format!("the record beside {path} does not say as which handoff it is offered")
        })?;
        Ok(offered.handoff)
    };
    blocking(read).await
}

async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}
