//! An offset in the VM's stream as a type, so that it is never taken for a place in a
//! file, in what lies here now, or in a handoff.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many bytes the VM's console had printed before a byte, in the VM's whole life and
/// on whichever hosts: the name of that byte, the same on every host and for good.
///
/// Not to be taken for a place in a file or in a [`Snapshot`](crate::chain::Snapshot),
/// which the next rotation changes: a [`Layout`](super::Layout) leads from one to the
/// other.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct StreamOffset(u64);

impl StreamOffset {
    /// That of the first byte ever printed.
    pub const START: Self = Self(0);

    /// Behind all that can be printed.
    pub const MAX: Self = Self(u64::MAX);

    /// The offset with this many bytes before it.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// How many bytes are before it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// So many bytes later; `None`: no stream has so many.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(offset) => Some(Self(offset)),
            None => None,
        }
    }

    /// So many bytes later, or [`StreamOffset::MAX`].
    #[must_use]
    pub const fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// So many bytes earlier; `None`: before the first one.
    #[must_use]
    pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
        match self.0.checked_sub(bytes) {
            Some(offset) => Some(Self(offset)),
            None => None,
        }
    }

    /// So many bytes earlier, or [`StreamOffset::START`].
    #[must_use]
    pub const fn saturating_sub(self, bytes: u64) -> Self {
        Self(self.0.saturating_sub(bytes))
    }

    /// How many bytes lie between `earlier` and this one; `None` where `earlier` is the later one.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// As [`StreamOffset::bytes_since`]; none where `earlier` is behind this one.
    #[must_use]
    pub const fn saturating_bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for StreamOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
