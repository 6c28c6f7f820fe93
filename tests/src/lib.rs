//! The lab: real hypervisors on this machine, each with its own libvirtd,
//! virtlogd, sshd and QEMU, and guests that print numbered lines; and the oracle
//! that says whether a console log holds them all.
//!
//! ```no_run
//! use logchain_tests::{Guest, Lab, Pace, Ticks};
//!
//! # fn main() -> Result<(), logchain_tests::LabError> {
//! let lab = Lab::start(2)?;
//! let (h1, h2) = (lab.host(0), lab.host(1));
//! let vm = h1.define(&Guest::new("vm1").append(true).pace(Pace::Micros(1000)))?;
//! vm.start()?;
//! vm.wait_for_tick(500)?;
//! h1.run(["virsh", "migrate", "--live", "--p2p", "--persistent", "vm1", &h2.uri()])?
//!     .checked()?;
//! h2.guest("vm1").wait_for_tick(1000)?;
//! let history = h2.run(["logchain", "show", "-n", "all", "vm1"])?.checked()?;
//! let report = Ticks::check_from_boot(&history.stdout);
//! # drop(report);
//! # Ok(())
//! # }
//! ```
//!
//! Everything of a lab lives in namespaces that have no name and end with the
//! process that started it, however that ends. It needs root.
//!
//! The environment: `LOGCHAIN_BIN` (the binary that hosts run as `logchain`),
//! `LOGCHAIN_LAB_KERNEL` (a guest kernel, instead of the distribution's),
//! `LOGCHAIN_LAB_DIR` (where state folders stand, `/var/tmp`; not beneath what a
//! host has of its own, such as `/tmp` or `/var/lib`), `LOGCHAIN_LAB_KEEP=1`
//! (state folders stay, to look at the daemons' logs).
//!
//! This crate knows nothing of the insides of the others: it runs the `logchain`
//! binary as a user would.

mod boot;
mod command;
mod error;
mod guest;
mod host;
mod lab;
mod place;
mod serial;
mod state;
mod ticks;
mod tool;
mod wait;

pub use boot::{BootFiles, KERNEL_ARGUMENTS, boot_files, prepare_guest};
pub use command::{HostCommand, Output, Running};
pub use error::{LabError, Result};
pub use guest::{Guest, GuestOn, Pace};
pub use host::{Host, LogFile};
pub use lab::{Lab, LabBuilder};
pub use place::logchain_bin;
pub use state::leftovers;
pub use ticks::{TickError, TickReport, Ticks};
pub use wait::{interrupt_flag, until};

pub use rustix::process::Signal;
