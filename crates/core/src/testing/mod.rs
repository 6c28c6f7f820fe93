//! What tests have in common, here and in the crates built upon this one: who writes a file, as
//! a test says it; virtlogd as it rolls a log over; a host with a folder and a log.
//!
//! Nothing here decides whether a test passes, and whatever fails here panics: a panic in a test
//! is a failing test. Must not know: what any one test is about.

#![expect(clippy::unwrap_used, reason = "a panic in a test is a failing test")]

mod host;
mod logd;
mod writers;

pub use host::{Arriving, Host, folder, read};
pub use logd::{Logd, numbered};
pub use writers::{FakeWriters, Switch};
