//! What the two programs `logchain` and `logchain-libvirt` share: the command line, exit codes,
//! and what needs no libvirt. It is no library for others: embed `logchain-core` or
//! `logchain-host`.
//!
//! Must not know: libvirt, nor a crate that is linked to it. Some linkers would then load
//! libvirt into `logchain` as well, which takes ten times as long as showing a log.

#![expect(
    missing_docs,
    reason = "only these two programs use it; help texts document the arguments"
)]

pub mod args;
mod definitions;
pub mod exit;
pub mod logging;
pub mod serve;
pub mod show;
mod sibling;
mod without_libvirt;

pub use without_libvirt::main as without_libvirt;
