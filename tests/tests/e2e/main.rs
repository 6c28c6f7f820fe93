//! End to end: real libvirtd, virtlogd, QEMU and sshd, and the `logchain` binary.

mod common;
mod journey;
mod refusals;
mod showing;
