//! A history to and from a store as a handoff moves it, from a file and to a file,
//! beside the best that other clients do with one object of that size at the same
//! store. The files are in memory: no disk is measured.
//!
//! `cargo bench -p logchain-transport-s3 --bench throughput -- [MIB] [moto|ceph]`

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark ends where something fails"
)]

#[path = "../tests/store/child.rs"]
mod child;
#[path = "../tests/store/cluster.rs"]
mod cluster;
#[path = "../tests/store/moto.rs"]
mod moto;
#[path = "../tests/store/signed.rs"]
mod signed;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use logchain_core::ids::HandoffId;
use logchain_core::transport::{Key, LogTransport, LogTransportExt, MAX_OBJECT, ObjectName};
use logchain_transport_s3::{StoreOptions, StoreTransport};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::signer::Signer;
use uuid::Uuid;

use cluster::{BUCKET, Ceph, KEY};
use moto::Moto;

/// At a time, as `core::handoff` puts and gets.
const PUTS: usize = 12;
const GETS: usize = 12;
/// At a time, for curl.
const CURLS: usize = 8;

const MIB: usize = 1 << 20;

fn main() {
    // Also run as a test, where nothing is to be measured.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let words: Vec<_> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let mib = words.iter().find_map(|w| w.parse().ok()).unwrap_or(64usize);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if words.iter().any(|w| w == "ceph") {
        let ceph = runtime.block_on(Ceph::start());
        measure(&runtime, &ceph.endpoint(), mib);
    } else {
        measure(&runtime, &Moto::start().endpoint(), mib);
    }
}

fn measure(runtime: &tokio::runtime::Runtime, endpoint: &str, mib: usize) {
    let rounds = 5;
    let settings = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        // As over https, and as the addresses for curl are signed.
        ("AWS_UNSIGNED_PAYLOAD", "true"),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", KEY),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let url = format!("s3://{BUCKET}/bench").parse().unwrap();
    let transport = StoreTransport::open_in(&url, &StoreOptions::default(), settings);
    let transport = Arc::new(transport.unwrap());
    let others = Others::new(endpoint, mib);
    let mut times = BTreeMap::<_, Vec<Duration>>::new();
    let mut note = |what: &'static str, who: &'static str, time| {
        times.entry((what, who)).or_default().push(time);
    };
    for round in 0..rounds {
        let keys = keys(mib);
        let ours = timed(|| {
            runtime.block_on(put(&transport, &keys, &others.whole()));
        });
        note("put", OURS, ours);
        let back = others.back("ours");
        let ours = timed(|| runtime.block_on(get(&transport, &keys, &back)));
        note("get", OURS, ours);
        runtime.block_on(async {
            for key in &keys {
                transport.delete(key).await.unwrap();
            }
        });
        for (what, who, command) in others.commands(runtime, round) {
            others.back("");
            note(what, who, timed(|| run(command)));
        }
        runtime.block_on(others.clear());
    }
    println!("medians of {rounds}, {mib} MiB, MiB/s");
    for what in ["put", "get"] {
        let rate = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort();
            u32::try_from(mib).map(f64::from).unwrap() / times[times.len() / 2].as_secs_f64()
        };
        let ours = rate(&times[&(what, OURS)]);
        println!("{what}  {OURS:28} {ours:6.0}");
        let theirs = times
            .iter()
            .filter(|((w, who), _)| *w == what && *who != OURS);
        for ((_, who), times) in theirs {
            let theirs = rate(times);
            println!("     {who:28} {theirs:6.0}   we: {:.2}×", ours / theirs);
        }
    }
}

async fn put(transport: &Arc<StoreTransport>, keys: &[Key], from: &Path) {
    let file = Arc::new(File::open(from).unwrap());
    stream::iter(keys)
        .zip(stream::iter((0u64..).step_by(MAX_OBJECT)))
        .map(|(key, offset)| {
            let (transport, key, file) = (Arc::clone(transport), key.clone(), Arc::clone(&file));
            tokio::spawn(async move {
                let read = move || {
                    let mut piece = vec![0; MAX_OBJECT];
                    file.read_exact_at(&mut piece, offset).map(|()| piece)
                };
                let piece = tokio::task::spawn_blocking(read).await.unwrap().unwrap();
                transport.put(&key, piece.into()).await.unwrap();
            })
        })
        .buffer_unordered(PUTS)
        .for_each(|put| async { put.unwrap() })
        .await;
}

async fn get(transport: &StoreTransport, keys: &[Key], to: &Path) {
    let file = Arc::new(File::create(to).unwrap());
    let mut pieces = stream::iter(keys)
        .map(|key| transport.get_bytes(key, MAX_OBJECT as u64))
        .buffered(GETS);
    while let Some(piece) = pieces.next().await {
        let (piece, file) = (piece.unwrap(), Arc::clone(&file));
        assert_eq!(piece.len(), MAX_OBJECT);
        // In the blocks in which a staging is written, and in which curl writes.
        let write = move || {
            let mut blocks = piece.chunks(64 << 10);
            blocks.try_for_each(|block| (&*file).write_all(block))
        };
        tokio::task::spawn_blocking(write).await.unwrap().unwrap();
    }
}

const OURS: &str = "logchain, pieces of 8 MiB";

/// Other clients, and what they put.
struct Others {
    endpoint: String,
    store: AmazonS3,
    pieces: usize,
    /// In memory: no disk is to be measured.
    folder: tempfile::TempDir,
    aws: bool,
}

impl Others {
    fn new(endpoint: &str, mib: usize) -> Self {
        let store = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_access_key_id(KEY)
            .with_secret_access_key(KEY)
            .with_bucket_name(BUCKET);
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let pieces = mib * MIB / MAX_OBJECT;
        let piece = noise();
        std::fs::write(folder.path().join("piece"), &piece).unwrap();
        std::fs::write(folder.path().join("whole"), piece.repeat(pieces)).unwrap();
        let aws = Command::new("aws").arg("--version").output();
        Self {
            endpoint: endpoint.to_owned(),
            store: store.build().unwrap(),
            pieces,
            folder,
            aws: aws.is_ok_and(|o| o.status.success()),
        }
    }

    fn whole(&self) -> PathBuf {
        self.folder.path().join("whole")
    }

    /// An empty place, where nothing has to be given back first.
    fn back(&self, name: &str) -> PathBuf {
        let place = self.folder.path().join("back");
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir(&place).unwrap();
        place.join(name)
    }

    fn signed(&self, runtime: &tokio::runtime::Runtime, method: &str, name: &str) -> String {
        let path = object_store::path::Path::from(name);
        let hour = Duration::from_secs(3600);
        let url = self.store.signed_url(method.parse().unwrap(), &path, hour);
        runtime.block_on(url).unwrap().to_string()
    }

    fn commands(
        &self,
        runtime: &tokio::runtime::Runtime,
        round: usize,
    ) -> Vec<(&'static str, &'static str, Command)> {
        let at = self.folder.path();
        let pieces: Vec<_> = (0..self.pieces)
            .map(|n| format!("curl/{round}/{n}"))
            .collect();
        let whole = [format!("curl/{round}/whole")];
        let mut commands = Vec::new();
        for (who, names, file) in [
            ("curl, pieces", &pieces[..], at.join("piece")),
            ("curl, one object", &whole[..], at.join("whole")),
        ] {
            let signed = |method| names.iter().map(move |n| self.signed(runtime, method, n));
            let back = at.join("back/curl");
            commands.push(("put", who, curl(signed("PUT"), Some(&file), &back)));
            commands.push(("get", who, curl(signed("GET"), None, &back)));
        }
        if self.aws {
            let object = format!("s3://{BUCKET}/aws/{round}");
            let aws = |from: &str, to: &str| {
                let mut command = Command::new("aws");
                command.args(["--endpoint-url", &self.endpoint, "--region", "us-east-1"]);
                command.args(["s3", "cp", "--quiet", from, to]);
                command.env("AWS_ACCESS_KEY_ID", KEY);
                command.env("AWS_SECRET_ACCESS_KEY", KEY);
                command
            };
            let (whole, back) = (self.whole(), at.join("back/aws"));
            let (whole, back) = (whole.to_str().unwrap(), back.to_str().unwrap());
            commands.push(("put", "aws s3 cp, one object", aws(whole, &object)));
            commands.push(("get", "aws s3 cp, one object", aws(&object, back)));
        }
        commands
    }

    async fn clear(&self) {
        use object_store::{ObjectStore, ObjectStoreExt};
        let mut there = self.store.list(None);
        while let Some(object) = there.next().await {
            self.store.delete(&object.unwrap().location).await.unwrap();
        }
        // A store that clears in the background does so now.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

/// In one process, with connections kept.
fn curl(urls: impl Iterator<Item = String>, from: Option<&Path>, to: &Path) -> Command {
    let mut command = Command::new("curl");
    // It would wait before each body otherwise.
    command.args(["-H", "Expect:", "--no-progress-meter", "--fail"]);
    command.args(["--parallel", "--parallel-max", &CURLS.to_string()]);
    for (n, url) in urls.enumerate() {
        match from {
            Some(file) => command.arg("-T").arg(file),
            None => command.arg("-o").arg(to.with_extension(n.to_string())),
        };
        command.arg(url);
    }
    command
}

fn run(mut command: Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// Nothing that could be compressed.
fn noise() -> Bytes {
    let mut state = 1u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_le_bytes()[7]
    };
    std::iter::repeat_with(next).take(MAX_OBJECT).collect()
}

fn keys(mib: usize) -> Vec<Key> {
    let (domain, handoff) = (Uuid::new_v4(), HandoffId::random());
    let console: logchain_core::ids::ConsoleName = "serial0".parse().unwrap();
    let offsets = (0u64..).step_by(MAX_OBJECT).take(mib * MIB / MAX_OBJECT);
    let len = u32::try_from(MAX_OBJECT).unwrap();
    offsets
        .map(|offset| Key {
            domain,
            console: console.clone(),
            collection: handoff.into(),
            object: ObjectName::Chunk { offset, len },
        })
        .collect()
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
