//! What it costs to put pieces into another agent's spool over loopback: 64 MiB in pieces of
//! 1 MiB, several under way at once as `core::handoff` has them, and one small object at a time
//! over a warm link. Beside the same frames through a pipe in this process, and over ssh where an
//! sshd can be started (`mkdir /run/sshd`). The spools are in memory: no disk is measured.
//!
//! `cargo bench -p logchain-transport-tls --bench puts -- [MIB]`

#![expect(clippy::unwrap_used, reason = "a benchmark ends where something fails")]

#[expect(dead_code, reason = "tests need more of it")]
#[path = "../../tests/tls/authority.rs"]
mod authority;
mod over_ssh;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use logchain_core::ids::HandoffId;
use logchain_core::transport::{Error, Key, LogTransport, MemoryTransport, ObjectName};
use logchain_transport_tls::{
    Access, AllowedNames, ClientCredentials, ExpectedPeer, LinkOptions, Notice, Peer, PeerLink,
    Refusal, Server, ServerOptions, Service,
};
use logchain_transport_wire::{
    Client, Dial, DialFailure, Link, Protocol, ServeOptions, Unrestricted, serve, shake_hands,
};
use uuid::Uuid;

/// At a time, as `core::handoff` puts.
const PUTS: usize = 12;

const MIB: usize = 1 << 20;
const SMALL: usize = 200;
const ROUNDS: usize = 5;

struct Anything;

#[async_trait]
impl Service for Anything {
    fn authorise(&self, _: &Peer, _: &Access<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    async fn ask(&self, _: &Peer, message: Bytes) -> Result<Bytes, Refusal> {
        Ok(message)
    }
}

/// The frames without what carries them.
struct Pipe(Arc<MemoryTransport>);

#[derive(Clone, Debug)]
struct Broken;

impl DialFailure for Broken {
    fn broke() -> Self {
        Self
    }

    fn into_error(self, transport: String) -> Error {
        let reason = "the pipe broke".to_owned();
        Error::Unreachable { transport, reason }
    }
}

impl Dial for Pipe {
    type Failure = Broken;

    async fn dial(&self) -> Result<Link, Broken> {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let (input, output) = tokio::io::split(far);
        let handler = Arc::new(Unrestricted(Arc::<MemoryTransport>::clone(&self.0)));
        tokio::spawn(async move {
            let options = ServeOptions::default();
            serve(handler, input, output, Protocol::TRANSPORT, options).await
        });
        let (output, input) = tokio::io::split(near);
        let streams = shake_hands(output, input, Protocol::TRANSPORT, &mut Vec::new()).await;
        Ok(Link::start(streams.unwrap(), async { String::new() }))
    }
}

fn key(offset: usize, len: usize, collection: HandoffId) -> Key {
    Key {
        domain: Uuid::from_u128(1),
        console: "serial0".parse().unwrap(),
        collection: collection.into(),
        object: ObjectName::Chunk {
            offset: offset as u64,
            len: u32::try_from(len).unwrap(),
        },
    }
}

/// Both by one way, the best and the middle of some rounds.
async fn measure<F>(name: &str, mib: usize, put: impl Fn(Key, Bytes) -> F)
where
    F: Future<Output = Result<(), Error>>,
{
    let piece = Bytes::from(vec![7; MIB]);
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let handoff = HandoffId::random();
        let began = Instant::now();
        let puts = (0..mib).map(|n| put(key(n * MIB, MIB, handoff), piece.clone()));
        let mut puts = stream::iter(puts).buffer_unordered(PUTS);
        while let Some(done) = puts.next().await {
            done.unwrap();
        }
        times.push(began.elapsed());
    }
    times.sort();
    let speed = |time: Duration| mib as f64 / time.as_secs_f64();
    let (best, middle) = (times.first().unwrap(), times.get(ROUNDS / 2).unwrap());
    println!(
        "{name}: {mib} MiB at {:.0} MiB/s, at best {:.0}",
        speed(*middle),
        speed(*best)
    );

    let small = Bytes::from_static(&[7; SMALL]);
    let handoff = HandoffId::random();
    let mut times = Vec::new();
    for n in 0..500 {
        let began = Instant::now();
        put(key(n * SMALL, SMALL, handoff), small.clone())
            .await
            .unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 100).unwrap().as_micros();
    println!(
        "{name}: a put of {SMALL} bytes in {} µs, one in a hundred in more than {}",
        at(50),
        at(99)
    );
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("transport") {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(over_ssh::serve());
    }
    // Also run as a test, where nothing is to be measured.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let words: Vec<_> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let mib = words.first().map_or(64, |w| w.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // The other host: a thread with a runtime of its own, as its agent has one.
    let far = std::thread::spawn(|| {
        let far = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let authority = authority::Authority::new("ca");
        let host = authority.named("h1");
        let spool = Arc::new(MemoryTransport::new());
        let address = "127.0.0.1:0".parse().unwrap();
        let options = ServerOptions::default();
        let server = Server::bind(address, host.pki(), options, spool, Arc::new(Anything));
        let server = far.block_on(server).unwrap();
        (far, server, host)
    });
    let (far, server, host) = far.join().unwrap();
    let address = server.local_addr();
    std::thread::spawn(move || far.block_on(server.run(std::future::pending())));

    runtime.block_on(async {
        let client = Client::new(
            "pipe".to_owned(),
            Pipe(Arc::new(MemoryTransport::new())),
            Duration::from_secs(60),
        );
        let put = async |key: Key, data: Bytes| client.put(&key, data).await;
        measure("frames through a pipe", mib, put).await;

        let credentials = ClientCredentials::load(host.pki(), Notice::default()).await;
        let began = Instant::now();
        let link = PeerLink::new(
            address.into(),
            credentials.unwrap(),
            ExpectedPeer::Allowed(AllowedNames::any()),
            LinkOptions::default(),
        );
        link.connect().await.unwrap();
        println!("TLS: connected in {} µs", began.elapsed().as_micros());
        let put = async |key: Key, data: Bytes| link.put(&key, data).await;
        measure("TLS on loopback", mib, put).await;

        if let Some((transport, _folder)) = over_ssh::connect().await {
            let put = async |key: Key, data: Bytes| transport.put(&key, data).await;
            measure("ssh to an sshd here", mib, put).await;
        }
    });
}
