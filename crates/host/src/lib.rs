//! What one hypervisor does so that console logs follow their VMs: a library, for the
//! command line and for whoever embeds it.
//!
//! A job tells what happens as [`Event`]s. The caller gives it a [`Listener`], which prints
//! them, writes them down or ignores them.
//!
//! Must not know: command lines, terminals, exit codes. Nothing here prints.
//!
//! ```
//! use logchain_host::{Event, Events};
//!
//! let events = Events::to(|event: &Event| println!("{}", event.to_json()));
//! events.tell(Event::warning("the disk is nearly full"));
//! ```

pub mod astray;
pub mod consoles;
pub mod error;
pub mod event;
pub mod hosts;
pub mod incoming;
pub mod leases;
pub mod limits;
pub mod meter;
pub mod neighbours;
pub mod progress;
pub mod transports;

pub use error::{Error, Result};
pub use event::{Event, Events, Listener};
