//! What the fuzz targets call: each takes any bytes for something that comes from
//! outside, and asserts what must hold whatever they are. No part of the API.

pub use crate::archive::fuzz::batch;
pub use crate::chain::fuzz::{gzip, xz, zstd};
pub use crate::handoff::fuzz::{chunk, message};
pub use crate::placement::fuzz_journal as journal;
pub use crate::transport::fuzz::name;

/// The record beside a chain.
pub fn record(data: &[u8]) {
    crate::versioned::fuzz::<crate::record::Record>(data);
}

/// The note that a domain left.
pub fn note(data: &[u8]) {
    crate::versioned::fuzz::<crate::departure::Departure>(data);
}

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("batch", batch),
    ("chunk", chunk),
    ("gzip", gzip),
    ("journal", journal),
    ("message", message),
    ("name", name),
    ("note", note),
    ("record", record),
    ("zstd", zstd),
    ("xz", xz),
];
