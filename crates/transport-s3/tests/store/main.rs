//! Against a real server, well and ill.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

mod azurite;
mod ceph;
mod child;
mod cluster;
mod errors;
mod faults;
mod garage;
mod moto;
mod proxy;
mod real;
mod server;
mod signed;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use logchain_core::ids::HandoffId;
use logchain_core::transport::{Key, ObjectName};
use logchain_transport_s3::{StoreOptions, StoreTransport};
use uuid::Uuid;

/// A transport to a server of ours.
fn open(endpoint: &str, url: &str, patience: Duration) -> StoreTransport {
    open_with(endpoint, url, patience, &[])
}

fn open_with(
    endpoint: &str,
    url: &str,
    patience: Duration,
    settings: &[(&str, &str)],
) -> StoreTransport {
    open_as(endpoint, url, patience, settings, ("test", "test"))
}

fn open_as(
    endpoint: &str,
    url: &str,
    patience: Duration,
    settings: &[(&str, &str)],
    (id, secret): (&str, &str),
) -> StoreTransport {
    let options = StoreOptions {
        patience,
        settings: settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    // As it would stand in the environment.
    let environment = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", id),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_PROFILE", "no option of a store"),
        ("HOME", "/"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    StoreTransport::open_in(&url.parse().unwrap(), &options, environment).unwrap()
}

fn chunk(domain: Uuid, handoff: HandoffId, offset: u64) -> Key {
    Key {
        domain,
        console: "serial0".parse().unwrap(),
        collection: handoff.into(),
        object: ObjectName::Chunk { offset, len: 1 },
    }
}

fn any_key() -> Key {
    chunk(Uuid::new_v4(), HandoffId::random(), 0)
}

/// Bytes that differ from those of another number everywhere.
fn bytes(n: u64, len: usize) -> Bytes {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(byte).take(len).collect()
}
