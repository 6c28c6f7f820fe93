//! What the logchain agents of hypervisors say to each other, over mutual TLS with the
//! certificates that libvirt already has: the four verbs of a
//! [`LogTransport`](logchain_core::transport::LogTransport) on the other agent's spool, and [messages](PeerLink::ask).
//!
//! ```text
//! PeerLink ──► TLS 1.3 ──► Server ──► Service (may this peer do that?) ──► the agent's spool
//! ```
//!
//! Either side shows a certificate of the one CA, and its names have to be
//! [allowed](AllowedNames). Beyond that nobody may do anything: each request is asked of the
//! [`Service`] that the agent brings.
//!
//! Must not know: migrations, domains that are expected, what messages mean.

mod admission;
mod allowed;
mod client;
mod connection;
mod credentials;
mod dn;
mod failure;
mod files;
mod names;
mod peer;
mod pki;
mod protocol;
mod server;
mod service;
mod socket;
mod verify;

pub use allowed::{AllowedNames, ExpectedPeer};
pub use client::{LinkOptions, PeerLink};
pub use credentials::{ClientCredentials, Notice};
pub use logchain_transport_wire::{Access, MAX_MESSAGE, Verb};
pub use names::{BadCertificate, PeerNames};
pub use peer::{BadAddress, Peer, PeerAddress};
pub use pki::{Pki, PkiError};
pub use protocol::DEFAULT_PORT;
pub use server::{BindError, Server, ServerOptions};
pub use service::{Refusal, Service};
