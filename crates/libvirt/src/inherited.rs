//! The descriptors that this process got at its start from whoever started it.
//!
//! It has nothing to do with libvirt. It is here because this crate has the project's one module
//! of unsafe code.
//!
//! Must not know: what they are.

use std::os::fd::OwnedFd;

use crate::ffi;

/// The first one behind standard input, output and error.
const FIRST: i32 = 3;

/// The first `count` of them, in order, `None` for each that is not there or was given before.
/// From now on each belongs to the caller, and no program that this process starts gets it.
///
/// Call it before anything else is opened by a library that does not see to that.
#[must_use]
pub fn take(count: usize) -> Vec<Option<OwnedFd>> {
    (FIRST..).take(count).map(ffi::take_inherited).collect()
}
