//! What the agent brings: who may do what, and the answers to messages.
//!
//! Must not know: connections.

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::transport::{Error, Key};
use logchain_transport_wire::{Access, Outcome};

use crate::Peer;

/// Decides for the agent what a peer may do, and answers it.
///
/// A peer has shown a certificate of the CA, and its names are allowed. That makes it a host of
/// the same installation, and no more: which domains it may touch is decided here.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Whether the peer may do this. Asked before each request; a listing without a domain never
    /// comes so far. It must not block.
    ///
    /// # Errors
    /// Why not; the peer is told.
    fn authorise(&self, peer: &Peer, access: &Access<'_>) -> Result<(), Refusal>;

    /// The peer put an object into the spool that was not there before. Called before the peer is
    /// answered. It must not block.
    fn stored(&self, peer: &Peer, key: &Key) {
        let _ = (peer, key);
    }

    /// Answers a message of at most [`MAX_MESSAGE`](crate::MAX_MESSAGE) bytes with one of as many.
    /// The future is dropped if it takes longer than
    /// [`ServerOptions::message`](crate::ServerOptions::message). It is not dropped if the
    /// connection breaks, so the peer may ask again while it runs.
    ///
    /// # Errors
    /// Why there is no answer; the peer is told.
    async fn ask(&self, peer: &Peer, message: Bytes) -> Result<Bytes, Refusal>;
}

/// Why a peer is refused something, in a sentence that it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    outcome: Outcome,
    sentence: String,
}

impl Refusal {
    /// It may not: the peer gets [`Error::Denied`].
    pub fn denied(sentence: impl Into<String>) -> Self {
        Self::of(Outcome::Denied, sentence)
    }

    /// Not now, and the same request may succeed later: the peer gets [`Error::Unreachable`].
    pub fn not_now(sentence: impl Into<String>) -> Self {
        Self::of(Outcome::Unreachable, sentence)
    }

    /// There is no room: the peer gets [`Error::Full`].
    pub fn full(sentence: impl Into<String>) -> Self {
        Self::of(Outcome::Full, sentence)
    }

    fn of(outcome: Outcome, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        Self { outcome, sentence }
    }

    /// The sentence.
    #[must_use]
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    pub(crate) fn into_error(self, transport: String) -> Error {
        self.outcome.into_error(transport, "", self.sentence)
    }
}
