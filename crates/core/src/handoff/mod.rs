//! A handoff: one console's history on its way from a source to a destination.
//!
//! Two halves, the source's [`offer`] and the destination's [`adopt`], exchange data only
//! through a [`LogTransport`]; a connection between them only says when to look, and whether
//! the other one still lives. Each half is a state machine without I/O, which says what to
//! do next and is told what came of it, and a driver that does it.
//!
//! ```text
//! source     begin ── chunk* ────────────── commit ────────────────────── (cleans up)
//!                        │                     │                              ▲
//! destination            └──► staged ──────────┴► claim, sealed, placed ── receipt
//! ```
//!
//! What lies in the transport is an object each, never overwritten:
//! [`Begin`], [`Chunk`]s, [`Commit`] or [`Abort`], [`Claim`], [`Receipt`].
//!
//! Must not know: libvirt, who started the migration, any transport's name.
//!
//! Both halves in one process, over a transport in memory, while the migration goes on. If
//! nobody has to be told of the migration, [`run_locally`] does the same in one call:
//!
//! ```
//! use std::sync::Arc;
//! use logchain_core::chain::{LogChain, Numbering, NumberingChoice};
//! use logchain_core::follow::NoWriters;
//! use logchain_core::handoff::adopt::{self, Adopt, Place};
//! use logchain_core::handoff::offer::{self, Held, Offer, Source};
//! use logchain_core::handoff::{Budget, Handoff};
//! use logchain_core::placement::Rules;
//! use logchain_core::rotation::Retention;
//! use logchain_core::ids::HandoffId;
//! use logchain_core::transport::{LogTransport, MemoryTransport};
//! use tokio::sync::watch;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! # let (from, to) = (one.path().join("console.log"), two.path().join("console.log"));
//! std::fs::write(&from, "before the migration, ")?;
//! let transport: Arc<dyn LogTransport> = Arc::new(MemoryTransport::new());
//! let handoff = Handoff {
//!     domain: uuid::Uuid::new_v4(),
//!     console: "serial0".parse()?,
//!     id: HandoffId::random(),
//! };
//! let source = watch::Sender::new(Source::Running);
//! // From here on no rollover, unlink or removal takes a byte away.
//! let chain = LogChain::open(&from, NumberingChoice::FromZero)?;
//! let held = Held::open(&chain, handoff.domain, &handoff.console)?;
//! // A thousand handoffs that share one budget stay within it.
//! let budget = Budget::default();
//! let writers = Arc::new(NoWriters);
//! let offer = Offer::new(handoff.clone(), transport.clone(), writers.clone(), source.subscribe())
//!     .with_names("vm1", "h1")
//!     .with_budget(budget.clone());
//! let rules = Rules { numbering: Numbering::FromZero, retention: Retention::UNLIMITED };
//! let place = Place { path: to.clone(), rules };
//! let adopt = Adopt::new(handoff, transport, writers, Arc::new(place))
//!     .with_host("h2")
//!     .with_budget(budget);
//! // The guest has moved and prints there.
//! std::fs::write(&to, "after it")?;
//! source.send_replace(Source::Over);
//! let (offered, adopted) = tokio::join!(offer.run(held), adopt.run());
//! assert!(matches!(offered, offer::Outcome::Carried(_)), "{offered:?}");
//! assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
//!
//! let chain = LogChain::open(&to, NumberingChoice::FromZero)?;
//! let whole = std::io::read_to_string(chain.snapshot()?.read_all()?)?;
//! assert_eq!(whole, "before the migration, after it");
//! # Ok(())
//! # }
//! ```

pub mod adopt;
mod bounded;
mod budget;
mod chunk;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
#[cfg(any(test, feature = "conformance"))]
pub mod load_test;
mod local;
mod memory;
mod message;
pub mod offer;
mod pool;
mod pump;
mod put;
pub mod stage;
mod streamed;
mod trace;

#[cfg(test)]
mod tests;

use std::time::Duration;

use tracing::Span;
use uuid::Uuid;

pub use budget::{Budget, Limits};
pub use chunk::{Chunk, Sum};
pub use error::Error;
use error::Result;
pub use local::run_locally;
pub use message::{Abort, Begin, Claim, Commit, Damaged, Receipt};
pub use stage::Stage;

use crate::OkLogged as _;
use crate::clock::now;
use crate::ids::{ConsoleName, HandoffId};
use crate::transport::{self, Collection, Key, LogTransport, LogTransportExt, ObjectName, Prefix};

/// How long a half goes on without any news, if it is not told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Which handoff of which console of which domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handoff {
    /// UUID of the domain.
    pub domain: Uuid,
    /// The console.
    pub console: ConsoleName,
    /// The handoff.
    pub id: HandoffId,
}

impl Handoff {
    /// The key of one of its objects.
    #[must_use]
    pub fn key(&self, object: ObjectName) -> Key {
        Key {
            domain: self.domain,
            console: self.console.clone(),
            collection: self.id.into(),
            object,
        }
    }

    /// The handoff that an object belongs to; `None` if it is part of a stream.
    #[must_use]
    pub fn of(key: &Key) -> Option<Self> {
        match key.collection {
            Collection::Handoff(id) => Some(Self {
                domain: key.domain,
                console: key.console.clone(),
                id,
            }),
            Collection::Stream => None,
        }
    }

    /// All its objects.
    #[must_use]
    pub fn prefix(&self) -> Prefix {
        Prefix::Collection(self.domain, self.console.clone(), self.id.into())
    }
}

/// The handoffs of a domain that a destination can adopt, now or once the source has put
/// the rest: begun, and neither withdrawn nor received.
///
/// # Errors
/// The transport's: [`transport::Error::advice`] says whether to ask again.
pub async fn waiting(
    transport: &dyn LogTransport,
    domain: Uuid,
) -> transport::Result<Vec<Handoff>> {
    let entries = transport.list_handoffs(&Prefix::Domain(domain)).await?;
    let open = stage::stages(&entries).into_iter();
    let open = open.filter(|(_, stage)| stage.can_be_adopted());
    Ok(open.map(|(handoff, _)| handoff).collect())
}

/// The source's first word of a handoff; `None` where there is none that can be read.
pub async fn begin_of(transport: &dyn LogTransport, handoff: &Handoff) -> Option<Begin> {
    const UNKNOWN: &str = "the source's names are not known";
    let key = handoff.key(ObjectName::Begin);
    let data = transport.get_opt(&key, message::MAX_MESSAGE).await;
    let data = data.ok_logged(UNKNOWN)??;
    message::Message::decode(&data).ok_logged(UNKNOWN)
}

/// Runs file work on a thread that may block, within the caller's span.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> std::result::Result<T, E> {
    let span = Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(result) => result,
        // Nothing cancels these tasks, so this is a panic in them: let it go on.
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
