//! The console log of a virtual machine as one stream of bytes: a base file and its
//! rotated files, read and followed as one, and carried from one host to the next.
//!
//! Begin with [`LogChain::open`]. What it gives answers in a sentence each:
//!
//! | question | call |
//! | --- | --- |
//! | What did the guest print last? | [`chain.tail(Amount::Lines(100))`](LogChain::tail) |
//! | What did it print since I looked? | [`chain.from(offset, limit)`](LogChain::from) |
//! | What does it print now? | [`chain.follow()`](LogChain::follow) |
//! | Is the log whole? | [`chain.verify()`](LogChain::verify) |
//! | Where was the VM, what was handed over? | [`chain.record()`](LogChain::record) |
//!
//! ```
//! use std::io::Read;
//! use logchain_core::{Amount, LogChain, NumberingChoice};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("console.log");
//! // As virtlogd leaves a log that it rolled over in the middle of a line.
//! std::fs::write(path.with_file_name("console.log.0"), "booting\nlog")?;
//! std::fs::write(&path, "in: ")?;
//!
//! let chain = LogChain::open(&path, NumberingChoice::Auto)?;
//! let mut last = String::new();
//! chain.tail(Amount::Lines(1))?.read_to_string(&mut last)?;
//! assert_eq!(last, "login: ");
//! assert!(chain.verify()?.is_whole());
//! # Ok(())
//! # }
//! ```
//!
//! All of that blocks on files: async code calls it on a thread for such work.
//!
//! To carry a log, the source holds it open ([`Held`]) and runs an [`Offer`], the destination
//! runs an [`Adopt`], and a [`LogTransport`] lies between them. [`handoff`] has an example of
//! both; [`transport`] says how to write a transport of your own.
//!
//! This crate knows files and bytes. It must not know libvirt, a network, a command line, or the
//! name of any backend: those live in crates that depend on this one.
//!
//! # Modules
//!
//! - [`chain`], [`offsets`], [`live`]: read a log as it lies here, by offsets in the VM's stream,
//!   and as it grows. [`stream`] decides where in that stream a file lies.
//! - [`follow`]: hold a growing chain by its descriptors.
//! - [`holds`]: hold the logs of a whole host, all the time.
//! - [`ids`]: what tells one console, and one handoff, from every other.
//! - [`record`]: what is remembered beside a chain.
//! - [`transport`]: where the pieces of a handoff lie until they are adopted.
//! - [`handoff`]: the two halves of a handoff as state machines without I/O, and the drivers that
//!   run them.
//! - [`rotation`], [`placement`]: how carried history comes to lie behind the base file: decided
//!   purely, applied in one place.
//! - [`backoff`]: how long to wait before something is tried again.
//! - [`archive`]: a stream in a transport, put as it grows.
//! - [`outbox`]: logs that were not carried and whose files went.
//! - [`departure`], [`reap`]: a domain that left, and when what it left may go.
//! - [`quantity`]: sizes and durations as people write them.
//! - [`verify`], [`standing`]: what is wrong with a log, and how far each handoff is.

#![forbid(unsafe_code)]

pub mod archive;
pub mod backoff;
pub mod chain;
mod clock;
mod content;
pub mod departure;
pub mod escape;
pub mod folder;
pub mod follow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod handoff;
pub mod holds;
pub mod ids;
pub mod live;
pub mod offsets;
mod ok_logged;
pub mod outbox;
mod pause;
pub mod placement;
pub mod quantity;
pub mod reap;
pub mod record;
pub mod rotation;
mod sentence;
pub mod standing;
pub mod stream;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
pub mod transport;
pub mod verify;
mod versioned;

pub use archive::Archive;
pub use chain::{Amount, Error as ChainError, LogChain, Numbering, NumberingChoice, Tail};
pub use follow::{Follower, Writer, Writers};
pub use handoff::adopt::Adopt;
pub use handoff::offer::{Held, Offer};
pub use handoff::{Budget, Handoff};
pub use holds::{HeldLog, Holds, Notice};
pub use ids::{ConsoleId, ConsoleName, HandoffId, InvalidId};
pub use live::{Live, News};
pub use offsets::{Error as OffsetError, Lookup, Offsets};
pub use ok_logged::OkLogged;
pub use record::{Error as RecordError, Record};
pub use sentence::sentence;
pub use stream::StreamOffset;
pub use transport::{
    DirectoryTransport, Error as TransportError, LogTransport, LogTransportExt, MemoryTransport,
};
pub use verify::{Finding, Verdict};

/// The failure of what an embedder implements: it is told, with its causes, and never looked
/// into.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
