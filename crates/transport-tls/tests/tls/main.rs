//! Agents that speak to each other over real TLS on loopback, and peers that misbehave.

mod agent;
mod authority;
mod hostile;
mod raw;
mod renewal;
mod serving;
mod trust;
