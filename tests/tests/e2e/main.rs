//! End to end: real libvirtd, virtlogd, QEMU and sshd, and the `logchain` binary.

#![expect(
    clippy::indexing_slicing,
    reason = "these are tests: a panic is a failure"
)]
mod agent;
mod agent_boots;
mod agent_control;
mod agent_faults;
mod agent_late;
mod agent_options;
mod agent_orchestrators;
mod agent_peace;
mod agent_stored;
mod agent_streams;
#[cfg(feature = "thief")]
mod agent_thief;
mod any_log;
mod checking;
mod clocks;
mod common;
mod copytruncate;
mod faults;
mod hidden;
mod interrupted;
mod journey;
mod left_behind;
mod neighbours;
mod offsets;
mod options;
mod postcopy;
mod progress;
mod reap;
mod refusals;
mod releases;
mod rotate;
mod shared;
mod showing;
mod status;
mod stores;
mod streaming;
mod virtlogd;
mod ways;
