//! 64 MiB to and from a store, beside plain curl to the same store.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark ends where something fails"
)]

#[path = "../tests/store/child.rs"]
mod child;
#[path = "../tests/store/moto.rs"]
mod moto;

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use logchain_core::transport::{
    HandoffId, Key, LogTransport, LogTransportExt, MAX_OBJECT, ObjectName,
};
use logchain_transport_s3::{StoreOptions, StoreTransport};
use uuid::Uuid;

use moto::{BUCKET, Moto};

const PIECES: usize = 8;
const ROUNDS: usize = 5;
/// At a time, for both.
const IN_FLIGHT: usize = 4;

fn main() {
    // Also run as a test, where nothing is to be measured.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let moto = Moto::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = StoreOptions::default();
    let environment = [
        ("AWS_ENDPOINT", moto.endpoint()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "bench".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "bench".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let url = format!("s3://{BUCKET}/bench").parse().unwrap();
    let transport = StoreTransport::open_in(&url, &options, environment).unwrap();
    let mut state = 1u64;
    let piece: Bytes = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_le_bytes()[7]
    })
    .take(MAX_OBJECT)
    .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("piece");
    std::fs::write(&file, &piece).unwrap();

    let mut rounds = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        let [put, get, curl_put, curl_get] = &mut rounds;
        let keys = keys();
        put.push(timed(|| {
            runtime.block_on(async {
                stream::iter(&keys)
                    .map(|key| transport.put(key, piece.clone()))
                    .buffer_unordered(IN_FLIGHT)
                    .for_each(|put| async { put.unwrap() })
                    .await;
            });
        }));
        get.push(timed(|| {
            runtime.block_on(async {
                stream::iter(&keys)
                    .map(|key| transport.get_bytes(key, MAX_OBJECT as u64))
                    .buffer_unordered(IN_FLIGHT)
                    .for_each(|got| async { assert_eq!(got.unwrap().len(), MAX_OBJECT) })
                    .await;
            });
        }));
        let urls: Vec<_> = (0..PIECES)
            .map(|n| format!("{}/{BUCKET}/curl/{round}/{n}", moto.endpoint()))
            .collect();
        curl_put.push(timed(|| {
            let file = file.to_str().unwrap();
            curl(urls.iter().flat_map(|url| ["-T", file, url]));
        }));
        curl_get.push(timed(|| {
            curl(urls.iter().flat_map(|url| ["-o", "/dev/null", url]));
        }));
        runtime.block_on(async {
            for key in &keys {
                transport.delete(key).await.unwrap();
            }
        });
    }
    let [put, get, curl_put, curl_get] = rounds.map(rate);
    println!("medians of {ROUNDS}, {PIECES} pieces of 8 MiB, {IN_FLIGHT} at a time, MiB/s");
    println!(
        "put  {put:6.0}   curl {curl_put:6.0}   {:.2}×",
        put / curl_put
    );
    println!(
        "get  {get:6.0}   curl {curl_get:6.0}   {:.2}×",
        get / curl_get
    );
}

fn keys() -> Vec<Key> {
    let (domain, handoff) = (Uuid::new_v4(), HandoffId::random());
    let console: logchain_core::transport::ConsoleName = "serial0".parse().unwrap();
    let offsets = (0u64..).step_by(MAX_OBJECT).take(PIECES);
    let len = u32::try_from(MAX_OBJECT).unwrap();
    offsets
        .map(|offset| Key {
            domain,
            console: console.clone(),
            handoff,
            object: ObjectName::Chunk { offset, len },
        })
        .collect()
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn rate(mut times: Vec<Duration>) -> f64 {
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    64.0 / median.as_secs_f64()
}

/// As parallel as we are, in one process, with connections kept.
fn curl<'a>(words: impl Iterator<Item = &'a str>) {
    let mut command = Command::new("curl");
    let most = IN_FLIGHT.to_string();
    // moto wants to know who asks; it does not check.
    let who = "Authorization: AWS4-HMAC-SHA256 Credential=x/20300101/us-east-1/s3/aws4_request";
    // It would wait before each body otherwise.
    command.args(["-H", who, "-H", "Expect:"]);
    command.args(["--no-progress-meter", "--fail"]);
    command.args(["--parallel", "--parallel-max", &most]);
    let status = command.args(words).status().unwrap();
    assert!(status.success(), "curl: {status}");
}
