//! Both halves of a handoff in one process, each told what the other does.
//!
//! Must not know: libvirt, what starts a handoff.

use std::convert::Infallible;

use tokio::sync::watch;

use super::adopt::{self, Adopt, SourceLink};
use super::offer::{self, AdoptStatus, Held, Offer};
use super::{Error, Receipt};

/// Runs both halves of a handoff in this process: for a program that moves a log between
/// two folders, and for tests. The two have to be of the same [`Handoff`](super::Handoff)
/// and lead to the same transport. What they were given by [`Offer::with_adopt_status`] and
/// [`Adopt::with_source`] is replaced.
///
/// The files at the source stay, and the record beside them says that they were handed
/// over. A handoff that fails, or whose future is dropped, can be run again under the same
/// id.
///
/// ```
/// use std::sync::Arc;
///
/// use logchain_core::chain::{LogChain, Numbering, NumberingChoice};
/// use logchain_core::follow::NoWriters;
/// use logchain_core::handoff::adopt::{Adopt, Place};
/// use logchain_core::handoff::offer::{Held, Offer, Source};
/// use logchain_core::handoff::{Handoff, run_locally};
/// use logchain_core::placement::Rules;
/// use logchain_core::rotation::Retention;
/// use logchain_core::ids::HandoffId;
/// use logchain_core::transport::MemoryTransport;
/// use tokio::sync::watch;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let (from, to) = (one.path().join("console.log"), two.path().join("console.log"));
/// std::fs::write(one.path().join("console.log.1"), "oldest, ")?;
/// std::fs::write(one.path().join("console.log.0"), "older, ")?;
/// std::fs::write(&from, "newest, ")?;
/// // The guest prints there already.
/// std::fs::write(&to, "and what came after it moved")?;
///
/// let handoff = Handoff {
///     domain: uuid::Uuid::new_v4(),
///     console: "serial0".parse()?,
///     id: HandoffId::random(),
/// };
/// let transport = Arc::new(MemoryTransport::new());
/// let chain = LogChain::open(&from, NumberingChoice::FromZero)?;
/// let held = Held::open(&chain, handoff.domain, &handoff.console)?;
/// // The guest has left: nothing more is written here.
/// let source = watch::Sender::new(Source::Over);
/// let writers = Arc::new(NoWriters);
/// let offer = Offer::new(handoff.clone(), transport.clone(), writers.clone(), source.subscribe());
/// let rules = Rules { numbering: Numbering::FromZero, retention: Retention::UNLIMITED };
/// let place = Place { path: to.clone(), rules };
/// let adopt = Adopt::new(handoff, transport, writers, Arc::new(place));
///
/// let receipt = run_locally(offer, held, adopt).await?;
/// assert_eq!(receipt.bytes, 23);
///
/// let chain = LogChain::open(&to, NumberingChoice::FromZero)?;
/// let whole = std::io::read_to_string(chain.snapshot()?.read_all()?)?;
/// assert_eq!(whole, "oldest, older, newest, and what came after it moved");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::GaveUp`] with the sentence of the half that failed, or [`Error::Aborted`]. The
/// history is whole at the source.
pub async fn run_locally(offer: Offer, held: Held, adopt: Adopt) -> Result<Receipt, Error> {
    let far = watch::Sender::new(AdoptStatus::Working);
    let link = watch::Sender::new(SourceLink::NEW);
    let offer = offer.with_adopt_status(far.subscribe());
    let adopt = adopt.with_source(link.subscribe());
    let mut put = offer.progress();
    let source = async {
        let outcome = offer.run(held).await;
        link.send_replace(SourceLink::Gone);
        outcome
    };
    let destination = async {
        if let adopt::Outcome::Failed { reason } = adopt.run().await {
            far.send_replace(AdoptStatus::Failed(reason));
        }
    };
    let wake = async {
        while put.changed().await.is_ok() {
            link.send_modify(SourceLink::has_put);
        }
        std::future::pending::<Infallible>().await
    };
    let (outcome, ()) = tokio::select! {
        ended = async { tokio::join!(source, destination) } => ended,
        never = wake => match never {},
    };
    match outcome {
        offer::Outcome::Carried(receipt) => Ok(receipt),
        offer::Outcome::NotCarried { reason } => Err(Error::gave_up(reason)),
        offer::Outcome::Aborted => Err(Error::Aborted),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::follow::NoWriters;
    use crate::handoff::Handoff;
    use crate::handoff::offer::Source;
    use crate::ids::HandoffId;
    use crate::testing::Host;
    use crate::transport::{LogTransport, LogTransportExt, MemoryTransport, ObjectName};

    async fn run(
        from: &Host,
        to: &Host,
        transport: Arc<dyn LogTransport>,
        handoff: &Handoff,
    ) -> Result<Receipt, Error> {
        let held = Held::open(&from.chain(), handoff.domain, &handoff.console).unwrap();
        let source = watch::Sender::new(Source::Over);
        let patience = Duration::from_secs(10);
        let writers = Arc::new(NoWriters);
        let offer = Offer::new(
            handoff.clone(),
            Arc::clone(&transport),
            Arc::<NoWriters>::clone(&writers),
            source.subscribe(),
        );
        let adopt = Adopt::new(handoff.clone(), transport, writers, Arc::new(to.place()));
        run_locally(
            offer.with_patience(patience),
            held,
            adopt.with_patience(patience),
        )
        .await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_fails_at_one_side_ends_the_other_and_can_be_run_again() {
        let (from, to) = (Host::new(), Host::new());
        from.print("before ");
        to.print("after");
        let handoff = Handoff {
            domain: uuid::Uuid::from_u128(7),
            console: "serial0".parse().unwrap(),
            id: HandoffId::random(),
        };
        let transport: Arc<dyn LogTransport> = Arc::new(MemoryTransport::new());
        // Somebody else's claim: this destination must not go on.
        let claim = handoff.key(ObjectName::Claim);
        transport
            .put(&claim, "somebody else's".into())
            .await
            .unwrap();
        let failed = run(&from, &to, Arc::clone(&transport), &handoff).await;
        assert!(failed.is_err(), "{failed:?}");
        assert_eq!(fs::read_to_string(&to.log).unwrap(), "after");

        for entry in transport.list_all(&handoff.prefix()).await.unwrap() {
            transport.delete(&entry.key).await.unwrap();
        }
        let receipt = run(&from, &to, transport, &handoff).await.unwrap();
        assert_eq!(receipt.bytes, 7);
        assert_eq!(to.merged(), "before after");
    }
}
