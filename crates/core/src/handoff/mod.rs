//! A handoff: one console's history on its way from a source to a destination.
//!
//! Two halves that share nothing but a [`LogTransport`](crate::transport::LogTransport):
//! the source's [`offer`] and the destination's [`adopt`]. Each is a state
//! machine without I/O, which says what to do next and is told what came of it,
//! and a driver that does it.
//!
//! ```text
//! source     begin ── chunk* ────────────── commit ─────────────── (cleans up)
//!                        │                     │                       ▲
//! destination            └──► staged ──────────┴► sealed, placed ── receipt
//! ```
//!
//! What lies in the transport is an object each, never overwritten:
//! [`Begin`], [`Chunk`]s, [`Commit`] or [`Abort`], [`Receipt`].
//!
//! Must not know: libvirt, who started the migration, any transport's name.

pub mod adopt;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod message;
pub mod offer;
mod pump;

#[cfg(test)]
mod tests;

use uuid::Uuid;

pub use message::{Abort, Begin, Chunk, Commit, Damaged, Receipt};

use crate::transport::{ConsoleName, HandoffId, Key, ObjectName, Prefix};

/// Which handoff of which console of which domain.
#[derive(Clone, Debug, PartialEq, Eq)]
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
            handoff: self.id,
            object,
        }
    }

    /// All its objects.
    #[must_use]
    pub fn prefix(&self) -> Prefix {
        Prefix::Handoff(self.domain, self.console.clone(), self.id)
    }
}

/// Seconds since 1970, for people who read records.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

/// Runs file work on a thread that may block.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // Nothing cancels these tasks, so this is a panic in them: let it go on.
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
