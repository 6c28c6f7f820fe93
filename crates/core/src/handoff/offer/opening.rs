//! How the source's half begins: what is there of it already, and what is there of an
//! earlier one.
//!
//! Must not know: the log's bytes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::Instrument as _;

use super::held::{Chain, announce};
use super::{Offer, clear};
use crate::OkLogged as _;
use crate::handoff::message::Message;
use crate::handoff::pump::Cuts;
use crate::handoff::streamed::Streamed;
use crate::handoff::{Begin, Error, Handoff, Result, Stage};
use crate::ids::HandoffId;
use crate::stream::History;
use crate::transport::{LogTransportExt, ObjectName};

impl Offer {
    /// Says that it begins; gives what an earlier run of it has put.
    pub(super) async fn begin(&mut self, chain: &Chain, so_far: Option<History>) -> Result<Cuts> {
        // Not if it was not begun before, or can never be whole.
        let may_be_committed = |may| chain.may_be_committed.store(may, Ordering::Relaxed);
        may_be_committed(chain.was_offered_as(self.handoff.id));
        self.remember(chain).await;
        self.clear_before(chain);
        let begin = Begin::new(self.domain_name.clone(), self.host.clone(), so_far);
        let data = begin.encode()?;
        let putter = self.putter(Arc::default());
        if putter.put_new(ObjectName::Begin, data).await?.is_none() {
            may_be_committed(false);
            return Ok(Cuts::new());
        }
        let entries = self.transport.list_all(&self.handoff.prefix()).await?;
        // `begin` is there, also where the listing is older than that put.
        let objects = entries.iter().map(|e| e.key.object);
        if Stage::of(objects.chain([ObjectName::Begin])) != Some(Stage::Begun) {
            return Err(Error::gave_up(
                "this handoff is over already; offer it again",
            ));
        }
        let mut cuts = Cuts::new();
        for entry in entries {
            if let ObjectName::Chunk { offset, len } = entry.key.object
                && cuts.insert(offset, len).is_some()
            {
                may_be_committed(false);
                let why = format!("two pieces begin at byte {offset}; offer it again");
                return Err(Error::gave_up(why));
            }
        }
        Ok(cuts)
    }

    /// What an earlier handoff of this log left, which was begun, never committed and
    /// could not be withdrawn: nobody comes back for it. Beside everything else.
    fn clear_before(&self, chain: &Chain) {
        let never_committed = |id: &HandoffId| *id != self.handoff.id && !chain.was_offered_as(*id);
        let Some(id) = chain.record.begun.filter(never_committed) else {
            return;
        };
        let (transport, before) = (Arc::clone(&self.transport), self.handoff.clone());
        let clear_it = async move {
            clear(&*transport, &Handoff { id, ..before })
                .await
                .ok_logged("what an earlier handoff left stays until the transport's sweep");
        };
        tokio::spawn(clear_it.in_current_span());
    }

    /// What of the history is streamed to the same place. No failure of this is one
    /// of the handoff: it is put as if it were not.
    pub(super) async fn streamed(&self, so_far: &History) -> Streamed {
        let find = Streamed::find(&self.transport, &self.handoff, so_far.clone());
        find.await
            .ok_logged("every piece is put, also those that are streamed already")
            .unwrap_or_default()
    }

    /// Puts down beside the chain that it was begun. Where that cannot be, all of
    /// it is put again should this process end early.
    async fn remember(&self, chain: &Chain) {
        const GIVEN_UP: &str = "if this process ends early, all of it is put again";
        let Some(folder) = chain.folder.try_clone().ok_logged(GIVEN_UP) else {
            return;
        };
        let (handoff, base) = (self.handoff.clone(), chain.base.clone());
        let work = move || announce(&folder, &base, &handoff);
        self.budget.work(work).await.ok_logged(GIVEN_UP);
    }
}
