//! Where the destination has this very folder: its half holds the files, so that nothing
//! has to be sent. What is left to say is that the guest has left, and where its log
//! ended then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Instrument as _, debug};

use super::{
    Chain, Drained, Event, Held, Offer, Outcome, Source, history, not_carried, so_far, trace,
};
use crate::follow::{Followed, Follower, Writer};
use crate::handoff::Result;
use crate::handoff::message::{Commit, Message};
use crate::handoff::trace::Half;
use crate::record::Record;
use crate::sentence;
use crate::transport::ObjectName;

/// Until virtlogd has written what it holds, once its guest is gone. Where the log is
/// written by the destination too, nothing tells it: then it is this long.
const REST: Duration = Duration::from_secs(1);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What stands for the digest of what was never sent.
const NOT_SENT: &str = "shared";

impl Offer {
    /// As [`Offer::run`], where the destination has the folder of the log.
    pub async fn run_shared(self, held: Held) -> Outcome {
        let span = self.handoff.span(Half::Offer);
        let half = async {
            let outcome = self.share(held).await;
            trace::outcome(&outcome);
            outcome
        };
        half.instrument(span).await
    }

    async fn share(mut self, held: Held) -> Outcome {
        let (follower, chain) = held.apart();
        self.bound();
        let so_far = so_far(&chain.record, &follower, &self.host);
        if let Err(error) = self.begin(&chain, so_far).await {
            return not_carried(sentence(&error));
        }
        debug!(
            bytes = follower.bytes(),
            "begun; the destination has this very folder"
        );
        loop {
            let source = *self.source.borrow_and_update();
            match source {
                Source::Over => break,
                Source::Stays => {
                    let event = self.withdraw(None).await;
                    trace::event(&event, 0);
                    return Outcome::Aborted;
                }
                Source::Running | Source::Stopped => {}
            }
            if self.source.changed().await.is_err() {
                let reason = "the migration was left alone";
                let event = self.withdraw(Some(reason)).await;
                trace::event(&event, 0);
                return not_carried(reason.to_owned());
            }
        }
        let end = Instant::now();
        while follower.newest_writer(&*self.writers) != Writer::None && end.elapsed() < REST {
            tokio::time::sleep(LOOK).await;
        }
        let ended = ended(&follower);
        if let Err(error) = self.commit_shared(&ended, &chain).await {
            return not_carried(sentence(&error));
        }
        debug!(bytes = ended.bytes, "committed");
        match self.receipt(ended.bytes, &ended.digest).await {
            Event::Received(receipt) => {
                self.settle(&chain.folder, &chain.base).await;
                Outcome::Carried(receipt)
            }
            Event::Failed(error) => not_carried(sentence(&error)),
            _ => not_carried("the receipt did not come".to_owned()),
        }
    }

    /// Nothing is written down as handed over: the files are the log still.
    async fn commit_shared(&self, ended: &Drained, chain: &Chain) -> Result<()> {
        let folder = chain.folder.try_clone()?;
        let (base, handoff) = (chain.base.clone(), self.handoff.clone());
        let (host, drained, was) = (self.host.clone(), ended.clone(), Arc::clone(&chain.known));
        let work = move || {
            Record::update(&folder, &base, handoff.domain, &handoff.console, |record| {
                record.begun = None;
                history(record, &was, &drained, &host, handoff.id)
            })
        };
        let told = self.budget.work(work).await;
        let told = told.map_err(|e: crate::record::Error| e)?;
        let commit = Commit::new(ended.bytes, ended.digest.clone(), Vec::new(), told);
        self.put(ObjectName::Commit, commit.encode()).await
    }
}

/// The files as they are now, as if they had been read.
fn ended(follower: &Follower) -> Drained {
    let files: Vec<Followed> = follower.files();
    let files = files.into_iter().map(|f| Followed { given: f.size, ..f });
    let files: Vec<Followed> = files.collect();
    Drained {
        bytes: files.iter().fold(0, |sum, f| sum.saturating_add(f.size)),
        digest: NOT_SENT.to_owned(),
        missed: Vec::new(),
        files,
        moved: follower.moved().to_vec(),
    }
}
