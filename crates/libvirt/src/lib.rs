//! What logchain needs of libvirt: where a domain's console logs lie, the
//! migration, the events around it, and when a log has no writer any more.
//!
//! This crate must not know a transport or a handoff: it says what happens to a
//! domain, and others say what happens to its log.
//!
//! - [`Connection`], [`Domain`]: a host, and a domain on it.
//! - [`uri`]: pure: connection URIs, read as libvirt reads them.
//! - [`consoles`]: pure: the console logs in a domain's XML.
//! - [`virtlogd_conf`]: pure: how far a log is rolled over on this host.
//! - [`events`]: what happens to a domain, as it happens; [`host_events`]: to all of a host.
//! - [`migrate`]: virsh's options, checked, and the call itself.
//! - [`outcome`]: what became of a migration, decided from both hosts.
//! - [`source_end`]: waiting until the source's domain is over.
//! - [`peers`]: which other hosts a domain's QEMU and the daemon are connected with.
//! - [`drain`]: whether anybody still has a log open for writing.
//! - [`inherited`]: the descriptors that this process got at its start.
//! - [`virtlogd`]: the very process that writes one, and how it opens its logs anew.
//!
//! Every call into libvirt blocks and keeps its error in its thread. So each
//! runs, with the reading of its error, on a thread of its own, and is waited
//! for no longer than a limit. A future that is dropped does not end its call.

//!
//! ```no_run
//! use std::time::Duration;
//! use logchain_libvirt::{Connection, consoles, outcome, source_end};
//! use logchain_libvirt::migrate::{MigrateFlags, MigrateRequest, migrate};
//!
//! # async fn example() -> logchain_libvirt::Result<()> {
//! let source = Connection::open(None).await?;
//! let dest = Connection::open(Some("qemu+ssh://h2/system")).await?;
//! let domain = source.lookup("vm1").await?;
//! let logs = consoles::consoles(&domain.live_xml().await?)?;
//! let mut events = dest.lifecycle_events(domain.uuid()).await?;
//! let request = MigrateRequest {
//!     dest_uri: dest.uri().to_owned(),
//!     flags: MigrateFlags { live: true, p2p: true, ..MigrateFlags::default() },
//!     ..MigrateRequest::default()
//! };
//! let call = migrate(&domain, Some(&dest), &request).await;
//! match outcome::settle(&domain, Some(&dest), &call, Duration::from_secs(30)).await {
//!     outcome::Outcome::Migrated { .. } => {
//!         source_end::wait(&domain, Duration::from_secs(60)).await?;
//!     }
//!     other => eprintln!("{other:?}"),
//! }
//! # drop((logs, events.recv().await));
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod call;
mod capabilities;
mod connection;
pub mod consoles;
mod domain;
pub mod drain;
mod error;
pub mod events;
#[expect(
    unsafe_code,
    reason = "the one place for what the safe bindings lack or do wrongly"
)]
mod ffi;
mod forget;
pub mod host_events;
pub mod inherited;
mod look;
pub mod migrate;
pub mod outcome;
pub mod peers;
mod running;
pub mod source_end;
mod state;
pub mod uri;
pub mod virtlogd;
pub mod virtlogd_conf;
pub mod written;

pub use connection::Connection;
pub use domain::{Domain, Job};
pub use error::{Error, Result};
pub use running::RunningDomain;
pub use state::{Paused, Running, Shutoff, State};

#[cfg(test)]
mod testing;
