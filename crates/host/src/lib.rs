//! What one hypervisor does so that console logs follow their VMs: a library, for the
//! command line and for whoever embeds it.
//!
//! Each job has a room: its `Options`, and one function that does it. The caller gives it
//! [`Events`], to hear what happens, and a [`Stop`], to ask it to end.
//!
//! | job | what it does |
//! | --- | --- |
//! | [`migrate`] | migrates a domain as virsh does, and its logs with it |
//! | [`offer`] | hands over the logs of a domain that left without them |
//! | [`adopt`] | takes in the logs of a domain that comes, or came |
//! | [`stream`] | puts a log into a transport as it grows |
//! | [`rotate`] | rotates a running domain's log now |
//! | [`reap`] | undefines the domains that left, once their new place is confirmed |
//! | [`status`] | tells where every handoff on this host stands |
//! | [`verify`] | tells whether a log is whole, and mends it |
//! | [`check`] | tries out a transport |
//! | [`agent`] | does all of that on a host by itself, whoever starts migrations |
//!
//! Must not know: command lines, terminals, exit codes. Nothing here prints.
//!
//! ```
//! use logchain_host::{Event, Events};
//!
//! let events = Events::to(|event: &Event| println!("{}", event.to_json()));
//! events.tell(Event::warning("the disk is nearly full"));
//! ```

pub mod adopt;
pub mod agent;
pub mod astray;
mod blocking;
mod carry;
pub mod check;
pub mod consoles;
mod departures;
pub mod error;
pub mod event;
pub mod hosts;
mod incoming;
pub mod job;
mod leases;
mod left_behind;
pub mod limits;
pub mod log;
mod meter;
pub mod migrate;
pub mod neighbours;
pub mod offer;
mod outbox;
pub mod progress;
pub mod reap;
mod remote_adopt;
pub mod rotate;
pub mod status;
pub mod stop;
mod stoppable;
pub mod stream;
pub mod transports;
pub mod verify;

pub use error::{Error, Result};
pub use event::{Event, Events, Listener};
pub use job::Finished;
pub use stop::{Stop, StopRequest};

/// The libvirt of this host: connections, domains, and the request of a migration.
pub use logchain_libvirt as libvirt;
