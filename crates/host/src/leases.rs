//! Who writes a log, as the kernel's leases show it.

use std::ffi::OsStr;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

use logchain_core::chain::Ownership;
use logchain_core::folder::Folder;
use logchain_core::follow::{Writer, Writers};
use logchain_libvirt::drain;

use crate::neighbours;

/// Writers as leases show them.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Whether a writer says nothing: its guest will never print again.
    guest_left: AtomicBool,
}

impl Leases {
    /// From now on a writer does not count: the guest is gone for good, though its process
    /// is there.
    pub(crate) fn guest_left(&self) {
        self.guest_left.store(true, Ordering::Relaxed);
    }
}

impl Writers for Leases {
    fn writer(&self, file: &File) -> Writer {
        match drain::has_writer(file) {
            drain::Writer::None => Writer::None,
            drain::Writer::Some if self.guest_left.load(Ordering::Relaxed) => Writer::Unknown,
            drain::Writer::Some => Writer::Some,
            drain::Writer::Unknown => Writer::Unknown,
        }
    }

    fn ownership(&self, folder: &Folder, base: &OsStr) -> Ownership {
        neighbours::ownership(folder, base)
    }
}
