//! Where the source has this very folder: what is there is held until its guest has
//! left, and nothing comes.

use std::time::Instant;

use tracing::debug;

use super::{Adoption, Commit, Event, MAX_MESSAGE, Message, Milestone, Receipt};
use crate::handoff::budget::Pace;
use crate::handoff::{Error, Result};
use crate::sentence;
use crate::transport::{Advice, LogTransportExt, ObjectName};

impl Adoption {
    /// Holds the files, and brings them behind the base that libvirt begins here, until
    /// the source says that its guest has left, or gives up.
    pub(super) async fn share(&mut self) -> Event {
        let attached = self.was_attached();
        let began = Instant::now();
        loop {
            let gone = attached && !self.is_source_alive();
            let pace = Pace::begin();
            match self.look_shared().await {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(error) => return Event::Failed(error),
            }
            if gone || (!attached && began.elapsed() > self.adopt.patience) {
                let reason = "the source is gone before its guest had left";
                return Event::Failed(Error::gave_up(reason));
            }
            pace.rest(&self.adopt.budget, false).await;
        }
    }

    async fn look_shared(&mut self) -> Result<Option<Event>> {
        let held = self.with_staging(|staging| {
            staging.keep()?;
            staging.reappear()
        });
        held.await?;
        if self.aborted().await? {
            return Ok(Some(Event::AbortSeen));
        }
        let commit = match self.commit_if_there().await? {
            Some(commit) => commit,
            None => return Ok(None),
        };
        let owed = self.owed(commit).await;
        let (sums, host) = ((owed.bytes, owed.digest.clone()), owed.host.clone());
        let settled = self.with_staging(move |staging| staging.settle_shared(owed));
        let placed = settled.await?;
        self.tell(Milestone::Placed(placed.clone()));
        let receipt = Receipt::new(sums, host, placed.dropped, placed.files);
        Ok(Some(Event::WasAdopted(receipt)))
    }

    /// The commit; `None` where it is not there yet, or cannot be asked for just now.
    async fn commit_if_there(&self) -> Result<Option<Commit>> {
        let key = self.adopt.handoff.key(ObjectName::Commit);
        match self.adopt.transport.get_opt(&key, MAX_MESSAGE).await {
            Err(e) if e.advice() == Advice::Retry => {
                debug!(error = %sentence(&e), "the commit is looked for again");
                Ok(None)
            }
            Err(e) => Err(e.into()),
            Ok(None) => Ok(None),
            Ok(Some(data)) => Ok(Some(Commit::decode(&data)?)),
        }
    }
}
