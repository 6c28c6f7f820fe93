//! The note that `migrate` leaves for `reap` and `status`: the domain left.
//!
//! Without it the log and the VM are as well: no failure here is one of the migration.

use std::path::Path;

use jiff::Timestamp;
use logchain_core::departure::{Departure, Destination, LeftLog, Notes};
use logchain_core::transport::ConsoleName;
use logchain_libvirt::{Connection, Domain, Error, State};
use uuid::Uuid;

use crate::carry::Log;
use crate::migrate::later::Way;

/// A note that was written.
pub(crate) struct Noted {
    notes: Notes,
    written: Departure,
    note: Departure,
}

impl Noted {
    /// The guest has left: puts down that it did, before the logs have arrived.
    /// `to`: the destination's URI, and a connection to it where there is one.
    pub(crate) async fn begin(
        state: &Path,
        domain: &Domain,
        to: (&str, Option<&Connection>),
        way: &Way<'_>,
        logs: &[&Log],
    ) -> Result<Self, String> {
        let host = match to.1 {
            Some(there) => there.host_uuid().await.ok().flatten(),
            None => None,
        };
        let uri = to.0.to_owned();
        let here = domain.connection().uri();
        let to = Destination { uri, host };
        let mut note = Departure::new(domain.uuid(), domain.name(), here, to, Timestamp::now());
        note.definition = definition(domain).await.map_err(|e| failed(domain, &e))?;
        note.transport.clone_from(&way.transport);
        note.remote = way.remote.map(str::to_owned);
        let left = logs.iter().map(|log| LeftLog {
            console: log.console.clone(),
            path: log.path.clone(),
            received: false,
        });
        note.logs = left.collect();
        let (state, written) = (state.to_owned(), note.clone());
        let notes = blocking(move || {
            let notes = Notes::create(&state)?;
            notes.write(&written)?;
            Ok(notes)
        });
        let notes = notes.await.map_err(|e| failed(domain, &e))?;
        Ok(Self {
            notes,
            written: note.clone(),
            note,
        })
    }

    /// The destination has this log.
    pub(crate) fn received(&mut self, console: &ConsoleName) {
        for log in self.note.logs.iter_mut().filter(|l| l.console == *console) {
            log.received = true;
        }
    }

    /// All that `migrate` does is done. Where nothing is left to do either, no note is.
    pub(crate) async fn end(mut self, domain: &Domain) -> Result<(), String> {
        let gone = matches!(domain.state().await, Ok(State::Gone));
        if gone {
            self.note.definition = None;
        }
        let over = gone && self.note.logs.iter().all(|log| log.received);
        let Self {
            notes,
            written,
            note,
        } = self;
        let work = move || match over {
            true => notes.remove(&written).map(drop),
            false if note == written => Ok(()),
            false => notes.write(&note),
        };
        blocking(work).await.map_err(|e| failed(domain, &e))
    }
}

/// The domain is here, with its history: that it left once is over. Without this the
/// next `reap` that sees it run drops the note.
pub(crate) async fn came_back(state: &Path, domain: Uuid) -> Result<(), String> {
    let state = state.to_owned();
    let work = move || {
        let Some(notes) = Notes::open(&state)? else {
            return Ok(());
        };
        match notes.read(domain)? {
            Some(note) => notes.remove(&note).map(drop),
            None => Ok(()),
        }
    };
    let removed = blocking(work).await;
    removed.map_err(|e| format!("cannot drop the note that domain {domain} left: {e}"))
}

/// The digest of the definition that stays here; `None` where none does.
pub(crate) async fn definition(domain: &Domain) -> Result<Option<String>, Error> {
    match domain.is_persistent().await {
        Ok(true) => {}
        Ok(false) | Err(Error::NoDomain { .. }) => return Ok(None),
        Err(e) => return Err(e),
    }
    match domain.inactive_xml().await {
        Ok(xml) => Ok(Some(Departure::digest(&xml))),
        Err(Error::NoDomain { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

fn failed(domain: &Domain, error: &dyn std::fmt::Display) -> String {
    let name = domain.name();
    format!("cannot note that domain {name} left, so reap will not know it: {error}")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, logchain_core::departure::Error> + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await??)
}
