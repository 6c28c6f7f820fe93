//! Before anything is staged: the folder of the log is opened, and what an earlier run left
//! of this handoff is found.
//!
//! Must not know: pieces.

use std::sync::Arc;

use super::state::Event;
use super::{Adoption, Milestone, Place};
use crate::folder::{self, Folder};
use crate::handoff::{Error, Handoff, Receipt, Result, Sum};
use crate::placement::{self, Staging};
use crate::record::{Adopted, Record};

/// What an earlier run left of a handoff.
enum EarlierRun {
    New,
    /// The source's record is beside the log here.
    Shared,
    Sealed,
    /// It is in place, or part of what is; the receipt where it is known.
    Adopted(Option<Receipt>),
}

fn receipt_again(adopted: &Adopted, host: String) -> Receipt {
    let sums = (adopted.bytes, adopted.digest.clone());
    Receipt::new(sums, host, adopted.dropped, adopted.placed.clone())
}

impl Adoption {
    pub(super) async fn prepare(&mut self) -> Event {
        if let Some(place) = self.adopt.expected.clone() {
            match self.open(place, true).await {
                Ok(Some(Event::Shared)) => {
                    self.tell(Milestone::Shared);
                    self.tell(Milestone::Ready);
                    return Event::Shared;
                }
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(error) => return Event::Failed(error),
            }
        }
        if self.staging.is_some() {
            self.tell(Milestone::CanStage);
        }
        self.tell(Milestone::Ready);
        Event::Prepared
    }

    /// Opens the staging at `place`. `Some`: an earlier run had gone further.
    /// A folder that is not there yet is left alone: an orchestrator that makes
    /// it may refuse one that exists.
    pub(super) async fn open(&mut self, place: Place, before: bool) -> Result<Option<Event>> {
        let Handoff {
            domain,
            console,
            id,
        } = self.adopt.handoff.clone();
        let writers = Arc::clone(&self.adopt.writers);
        let host = self.adopt.host.clone();
        let work = move || -> placement::Result<(Option<Staging>, EarlierRun)> {
            let (log, base) = match Folder::of_file(&place.path) {
                Ok(found) => found,
                Err(folder::Error::NotFound { .. }) => return Ok((None, EarlierRun::New)),
                Err(e) => return Err(e.into()),
            };
            let mut staging = Staging::open(&place.path, id, place.rules, writers)?;
            // Behind the lock: another run of it may just have ended. Only a record that
            // says so makes what lies here this VM's: the same path may have been another's.
            let record = match Record::read_any(&log, &base) {
                Ok(record) => record.filter(|r| r.is_of(domain, &console)),
                Err(e) => {
                    if !staging.is_sealed() {
                        staging.discard()?;
                    }
                    return Err(e.into());
                }
            };
            Record::remove_unfinished(staging.folder(), staging.base())?;
            let adopted = record.as_ref().and_then(|r| r.find_adopted(id));
            let contained = record.as_ref().is_some_and(|r| r.contains.contains(&id));
            if adopted.is_some() || contained {
                let receipt = adopted.map(|a| receipt_again(a, host));
                return Ok((Some(staging), EarlierRun::Adopted(receipt)));
            }
            if staging.is_sealed() {
                return Ok((Some(staging), EarlierRun::Sealed));
            }
            // The source writes the handoff's id into its record before it starts us. Ids are
            // random, so this record is the source's: both hosts have this folder.
            if record.as_ref().is_some_and(|r| r.begun == Some(id)) {
                if before {
                    staging.keep()?;
                }
                return Ok((Some(staging), EarlierRun::Shared));
            }
            if before {
                staging.retire(record.as_ref())?;
            }
            Ok((Some(staging), EarlierRun::New))
        };
        let (staging, found) = self.adopt.budget.work(work).await?;
        self.staging = staging;
        self.sum = Sum::default();
        self.next = 0;
        Ok(match found {
            EarlierRun::New => None,
            EarlierRun::Shared if before => Some(Event::Shared),
            EarlierRun::Shared => {
                return Err(Error::gave_up(
                    "both hosts have the folder of this log, and it was not known before \
                     the migration: nothing is put there",
                ));
            }
            EarlierRun::Sealed => Some(Event::WasSealed),
            EarlierRun::Adopted(Some(receipt)) => Some(Event::WasAdopted(receipt)),
            EarlierRun::Adopted(None) => {
                let Some(commit) = self.commit().await? else {
                    // The history is here already, but this offer is not committed yet: look again.
                    if let Some(staging) = self.staging.take() {
                        let left = self.adopt.budget.work(move || staging.discard());
                        left.await?;
                    }
                    return Ok(None);
                };
                let (sums, host) = ((commit.bytes, commit.digest), self.adopt.host.clone());
                Some(Event::WasAdopted(Receipt::new(sums, host, 0, Vec::new())))
            }
        })
    }
}
