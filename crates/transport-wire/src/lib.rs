//! The protocol that logchain's own transports speak over any stream of bytes: a greeting, then
//! frames that carry the four verbs of a
//! [`LogTransport`](logchain_core::transport::LogTransport).
//!
//! ```text
//! Client ──► Line ──► Link ═══ any stream ═══ serve ──► Handler ──► a transport over there
//! ```
//!
//! A transport brings the stream (a process, a socket) and says by a [`Dial`] how it is made; the
//! rest is here: requests under way side by side, a connection that is made anew when it broke,
//! a server that does what requests ask if its [`Handler`] lets it.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use logchain_core::transport::{Error, MemoryTransport};
//! use logchain_transport_wire::{
//!     Client, Dial, DialFailure, Link, Protocol, ServeOptions, Unrestricted, serve, shake_hands,
//! };
//!
//! const PROTOCOL: Protocol = Protocol::new("example", 1, 1);
//!
//! /// A pipe in this process, and a server at its other end.
//! struct Pipe(Arc<MemoryTransport>);
//!
//! #[derive(Clone, Debug)]
//! struct Broken(String);
//!
//! impl DialFailure for Broken {
//!     fn broke() -> Self {
//!         Self("the pipe broke".to_owned())
//!     }
//!
//!     fn into_error(self, transport: String) -> Error {
//!         Error::Unreachable { transport, reason: self.0 }
//!     }
//! }
//!
//! impl Dial for Pipe {
//!     type Failure = Broken;
//!
//!     async fn dial(&self) -> Result<Link, Broken> {
//!         let (near, far) = tokio::io::duplex(64 * 1024);
//!         let (input, output) = tokio::io::split(far);
//!         let handler = Arc::new(Unrestricted(self.0.clone()));
//!         tokio::spawn(async move {
//!             serve(handler, input, output, PROTOCOL, ServeOptions::default()).await
//!         });
//!         let (output, input) = tokio::io::split(near);
//!         let streams = shake_hands(output, input, PROTOCOL, &mut Vec::new()).await;
//!         let streams = streams.map_err(|e| Broken(e.to_string()))?;
//!         Ok(Link::start(streams, async { "the pipe broke".to_owned() }))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let pipe = Pipe(Arc::new(MemoryTransport::new()));
//! let client = Client::new("a pipe".to_owned(), pipe, Duration::from_secs(60));
//! client.connect().await.map_err(|e| e.into_error("a pipe".to_owned()))?;
//! let asked = client.ask(Bytes::from_static(b"hello")).await;
//! assert!(matches!(asked, Err(Error::Denied { .. })), "this server answers no messages");
//! # Ok(())
//! # }
//! ```
//!
//! Must not know: ssh, TLS, who the other side is, what keys mean, what objects hold.

mod client;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod greeting;
mod handler;
mod line;
mod link;
mod meter;
mod serve;

pub use client::{Client, Dial};
pub use frame::{IN_FLIGHT, MAX_MESSAGE, Outcome};
pub use greeting::Protocol;
pub use handler::{Access, Handler, Unrestricted, Verb};
pub use line::{Connection, DialFailure, Line};
pub use link::{Link, LinkEntry, Streams, shake_hands};
pub use meter::{Meter, Metered};
pub use serve::{ServeError, ServeOptions, serve};
