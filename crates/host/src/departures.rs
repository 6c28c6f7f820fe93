//! The note that a domain left this host: `migrate` writes it for `reap` and `status`.
//!
//! Nothing here fails a migration: without the note the source domain stays defined until
//! somebody undefines it, and nothing is lost.

use std::path::Path;

use jiff::Timestamp;
use logchain_core::OkLogged as _;
use logchain_core::departure::{Departure, Destination, LeftLog, Notes};
use logchain_core::ids::ConsoleName;
use logchain_libvirt::{Connection, Domain, State};
use uuid::Uuid;

use crate::blocking::blocking;
use crate::left_behind::OfferOptions;
use crate::log::ConsoleLog;
use crate::{Error, Result};

/// The note on one domain, kept up to date while its logs arrive.
pub(crate) struct DepartureNote {
    notes: Notes,
    written: Departure,
    note: Departure,
}

impl DepartureNote {
    /// The guest has left: puts down that it did, before the logs have arrived.
    /// `to`: the destination's URI, and a connection to it where there is one.
    pub(crate) async fn begin(
        state: &Path,
        domain: &Domain,
        to: (&str, Option<&Connection>),
        offer: &OfferOptions<'_>,
        logs: &[&ConsoleLog],
    ) -> Result<Self> {
        let host = match to.1 {
            Some(there) => {
                let host = there.host_uuid().await;
                host.ok_logged("the note names the destination by its URI alone")
                    .flatten()
            }
            None => None,
        };
        let uri = to.0.to_owned();
        let here = domain.connection().uri();
        let to = Destination { uri, host };
        let mut note = Departure::new(domain.uuid(), domain.name(), here, to, Timestamp::now());
        note.definition = definition(domain)
            .await
            .map_err(|e| failed(domain, e.into()))?;
        note.transport.clone_from(&offer.transport);
        note.remote = offer.remote.map(str::to_owned);
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
        let notes = notes.await.map_err(|e| failed(domain, e))?;
        Ok(Self {
            notes,
            written: note.clone(),
            note,
        })
    }

    /// The guest stays here after all: nothing is to be remembered.
    pub(crate) async fn withdraw(self) -> Result<()> {
        let Self { notes, written, .. } = self;
        blocking(move || Ok(notes.remove(&written).map(drop)?)).await
    }

    /// Over which transport its logs are offered.
    pub(crate) async fn goes_over(mut self, transport: &str) -> Self {
        transport.clone_into(&mut self.note.transport);
        if self.note == self.written {
            return self;
        }
        let (notes, note) = (self.notes, self.note.clone());
        let write = move || {
            (
                notes.write(&note).ok_logged("it is written at the end"),
                notes,
            )
        };
        match tokio::task::spawn_blocking(write).await {
            Ok((written, notes)) => {
                if written.is_some() {
                    self.written = self.note.clone();
                }
                Self { notes, ..self }
            }
            // Nothing cancels this task, so this is a panic in it: let it go on.
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }

    /// The destination has this log.
    pub(crate) fn received(&mut self, console: &ConsoleName) {
        self.note.received(console);
    }

    /// All that `migrate` does is done. Where nothing is left to do either, no note is.
    pub(crate) async fn end(mut self, domain: &Domain) -> Result<()> {
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
        let work = move || {
            if over {
                notes.remove(&written)?;
            } else if note != written {
                notes.write(&note)?;
            }
            Ok(())
        };
        blocking(work).await.map_err(|e| failed(domain, e))
    }
}

/// The logs of a departed domain that are to be handed over still.
pub(crate) fn missing(note: &Departure) -> impl Iterator<Item = ConsoleLog> {
    note.missing().map(|log| ConsoleLog {
        console: log.console.clone(),
        path: log.path.clone(),
    })
}

/// Notes that the destination has this log of a domain that left. Blocks on files.
pub(crate) fn mark_received(state: &Path, domain: Uuid, console: &ConsoleName) -> Result<()> {
    let Some(notes) = Notes::open(state)? else {
        return Ok(());
    };
    if let Some(mut note) = notes.read(domain)? {
        note.received(console);
        notes.write(&note)?;
    }
    Ok(())
}

/// The domain is here, with its history: that it left once is over. Without this the
/// next `reap` that sees it run drops the note.
pub(crate) async fn came_back(state: &Path, domain: Uuid) -> Result<()> {
    let state = state.to_owned();
    let work = move || {
        let Some(notes) = Notes::open(&state)? else {
            return Ok(());
        };
        if let Some(note) = notes.read(domain)? {
            notes.remove(&note)?;
        }
        Ok(())
    };
    let removed = blocking(work).await;
    removed.map_err(|e| e.meaning(format!("cannot drop the note that domain {domain} left")))
}

/// The digest of the definition that stays here; `None` where none does.
pub(crate) async fn definition(domain: &Domain) -> logchain_libvirt::Result<Option<String>> {
    use logchain_libvirt::Error;
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

fn failed(domain: &Domain, error: Error) -> Error {
    let name = domain.name();
    error.meaning(format!(
        "cannot note that domain {name} left, so reap will not know it"
    ))
}
