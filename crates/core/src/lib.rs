//! The chain of a VM's console log: a base file and its rotated files, read as
//! one stream of bytes, and what carries that stream from one host to the next.
//!
//! This crate knows files and bytes. It must not know libvirt, a network, a
//! command line, or the name of any backend: those live in crates that depend
//! on this one.
//!
//! - [`chain`]: open a chain, read its tail or all of it.
//! - [`follow`]: hold a growing chain by its descriptors.
//! - [`transport`]: [`LogTransport`](transport::LogTransport), where the pieces
//!   of a handoff lie until they are adopted.
//! - [`handoff`]: the two halves of a handoff as state machines without I/O,
//!   and the drivers that run them.
//! - [`rotation`], [`placement`]: how carried history comes to lie behind the
//!   base file: decided purely, applied in one place.
//! - [`record`]: what is remembered beside a chain.
//! - [`backoff`]: how long to wait before something is tried again.
//! - [`archive`]: a stream in a transport, put as it grows.
//! - [`outbox`]: logs that were not carried and whose files went.
//! - [`departure`], [`reap`]: a domain that left, and when what it left may go.

#![forbid(unsafe_code)]

pub mod archive;
pub mod backoff;
pub mod chain;
mod content;
pub mod departure;
pub mod escape;
pub mod folder;
pub mod follow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod handoff;
pub mod live;
pub mod offsets;
pub mod outbox;
mod pause;
pub mod placement;
pub mod reap;
pub mod record;
pub mod rotation;
pub mod standing;
pub mod stream;
pub mod transport;
pub mod verify;
mod versioned;
