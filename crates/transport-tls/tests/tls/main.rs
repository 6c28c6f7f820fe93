//! Agents that speak to each other over real TLS on loopback, and peers that misbehave.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "these are tests: a panic is a failure"
)]

mod agent;
mod authority;
mod hostile;
mod raw;
mod renewal;
mod serving;
mod trust;
