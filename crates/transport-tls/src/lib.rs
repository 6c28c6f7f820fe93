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
//! ```no_run
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use logchain_core::transport::LogTransport;
//! use logchain_transport_tls::{
//!     AllowedNames, ClientCredentials, DEFAULT_PORT, ExpectedPeer, LinkOptions, Notice, PeerLink,
//!     Pki, Server, ServerOptions, Service,
//! };
//!
//! # async fn agent(
//! #     spool: Arc<dyn LogTransport>,
//! #     service: Arc<dyn Service>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let allowed: AllowedNames = ["C=GB,O=Red Hat,CN=*.example.org"].into_iter().collect();
//! let mut options = ServerOptions::default();
//! options.allowed = allowed.clone();
//! let address = ([0, 0, 0, 0], DEFAULT_PORT).into();
//! let server = Server::bind(address, Pki::libvirt(), options, spool, service).await?;
//! let running = tokio::spawn(server.run(std::future::pending()));
//!
//! let credentials = ClientCredentials::load(Pki::libvirt(), Notice::default()).await?;
//! let link = PeerLink::new(
//!     "192.0.2.7".parse()?,
//!     credentials,
//!     ExpectedPeer::Allowed(allowed),
//!     LinkOptions::default(),
//! );
//! let answer = link.ask(Bytes::from_static(b"domain X comes in at me")).await?;
//! # drop((running, answer));
//! # Ok(())
//! # }
//! ```
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
