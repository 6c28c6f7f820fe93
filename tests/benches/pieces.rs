//! Pieces of 8 MiB from one host to another and back: by a logchain over there, by
//! SFTP, and beside them scp with one file. Build the programs first:
//!
//! ```text
//! cargo build --release -p logchain && cargo bench -p logchain-tests --bench pieces [MiB [ms]]
//! ```
//!
//! With `ms` every byte takes so long each way.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use bytes::Bytes;
use logchain_core::ids::HandoffId;
use logchain_core::transport::{Key, LogTransport, LogTransportExt, ObjectName};
use logchain_tests::{Host, Lab};
use logchain_transport_ssh::{SshOptions, SshTransport};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use uuid::Uuid;

type Fallible<T> = Result<T, Box<dyn Error>>;

const RUNS: usize = 3;
const PIECE: usize = 8 << 20;
/// As many at once as an offer puts.
const AT_ONCE: usize = 6;
const LIMIT: Duration = Duration::from_secs(600);

/// A line on which all takes its time. (`tc` could do it, but not every kernel has netem.)
const LATE: &str = "
import os, queue, socket, sys, threading, time
late = int(sys.argv[1]) / 1000
line = socket.create_connection((sys.argv[2], int(sys.argv[3])))
line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

def way(read, write):
    under_way = queue.Queue()
    def take():
        while data := read():
            under_way.put((time.monotonic() + late, data))
        under_way.put(None)
    threading.Thread(target=take, daemon=True).start()
    while item := under_way.get():
        time.sleep(max(0, item[0] - time.monotonic()))
        write(item[1])

def out(data):
    while data:
        data = data[os.write(1, data):]

back = threading.Thread(target=way, args=(lambda: line.recv(1 << 18), out))
back.start()
there = lambda: way(lambda: os.read(0, 1 << 18), line.sendall)
threading.Thread(target=there, daemon=True).start()
back.join()
";

fn main() -> Fallible<()> {
    let mut numbers = std::env::args().filter_map(|a| a.parse::<usize>().ok());
    let mib = numbers.next().unwrap_or(256).max(8);
    let delay = numbers.next();
    let lab = Lab::start(2)?;
    let h1 = lab.host(0);
    let proxy = delay.map(|ms| format!("-oProxyCommand=python3 /tmp/late.py {ms} %h %p"));
    fs::write(h1.path("/tmp/late.py"), LATE)?;
    // Nothing that ssh could shrink.
    let mut piece = vec![0; PIECE];
    let mut seed = 7_u64;
    for byte in &mut piece {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = u8::try_from(seed >> 56).unwrap_or_default();
    }
    let piece = Bytes::from(piece);
    let pieces = mib * (1 << 20) / PIECE;
    fs::write(h1.path("/tmp/all"), piece.repeat(pieces))?;
    let runtime = Runtime::new()?;
    println!("{mib} MiB, the middle of {RUNS} runs");
    // In turns: what disturbs one disturbs the others too.
    let mut times: [Vec<(Duration, Duration)>; 3] = Default::default();
    for n in 0..RUNS {
        for (way, times) in times.iter_mut().enumerate() {
            times.push(match way {
                0 => runtime.block_on(ours(h1, "logchain", proxy.as_deref(), &piece, pieces))?,
                1 => runtime.block_on(ours(h1, "no-logchain", proxy.as_deref(), &piece, pieces))?,
                _ => scp(h1, proxy.as_deref(), n)?,
            });
        }
    }
    let [logchain, sftp, scp] = times.map(|times| {
        let (there, back): (Vec<_>, Vec<_>) = times.into_iter().unzip();
        (middle(there), middle(back))
    });
    for (name, (there, back)) in [("logchain", logchain), ("SFTP", sftp), ("scp", scp)] {
        println!(
            "{name:12} there {:6.2} s {:6.0} MiB/s ({:.2} times scp)   back {:6.2} s {:6.0} MiB/s ({:.2} times scp)",
            there.as_secs_f64(),
            speed(mib, there),
            there.as_secs_f64() / scp.0.as_secs_f64(),
            back.as_secs_f64(),
            speed(mib, back),
            back.as_secs_f64() / scp.1.as_secs_f64(),
        );
    }
    Ok(())
}

async fn ours(
    from: &Host,
    remote: &str,
    proxy: Option<&str>,
    piece: &Bytes,
    pieces: usize,
) -> Fallible<(Duration, Duration)> {
    let options = SshOptions {
        program: from.stand_in("ssh")?.into(),
        remote_logchain: remote.into(),
        extra_args: proxy.into_iter().map(Into::into).collect(),
        ..SshOptions::default()
    };
    let target = "ssh://h2/tmp/spool".parse()?;
    let transport = std::sync::Arc::new(SshTransport::connect(target, options).await?);
    let first = Key {
        domain: Uuid::nil(),
        console: "serial0".parse()?,
        collection: HandoffId::random().into(),
        object: ObjectName::Begin,
    };
    let keys: Vec<Key> = (0..pieces as u64)
        .map(|offset| Key {
            object: ObjectName::Chunk { offset, len: 1 },
            ..first.clone()
        })
        .collect();
    let mut took = Vec::new();
    for back in [false, true] {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for key in keys.clone() {
            if tasks.len() >= AT_ONCE {
                tasks.join_next().await.ok_or("a task")???;
            }
            let (transport, piece) = (std::sync::Arc::clone(&transport), piece.clone());
            tasks.spawn(async move {
                if back {
                    transport.get_bytes(&key, PIECE as u64).await.map(drop)
                } else {
                    transport.put(&key, piece).await
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        took.push(began.elapsed());
    }
    for key in &keys {
        transport.delete(key).await?;
    }
    match took.as_slice() {
        [there, back] => Ok((*there, *back)),
        _ => Err("two ways".into()),
    }
}

fn scp(from: &Host, proxy: Option<&str>, n: usize) -> Fallible<(Duration, Duration)> {
    let there = format!("h2:/tmp/all{n}");
    let timed = |from_to: [&str; 2]| -> Fallible<Duration> {
        let words = ["scp", "-q"].into_iter().chain(proxy).chain(from_to);
        let began = Instant::now();
        from.command(words).limit(LIMIT).run()?.checked()?;
        Ok(began.elapsed())
    };
    let took = (timed(["/tmp/all", &there])?, timed([&there, "/tmp/back"])?);
    from.run(["ssh", "h2", "rm", &format!("/tmp/all{n}")])?
        .checked()?;
    Ok(took)
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "it is shown to people")]
fn speed(mib: usize, time: Duration) -> f64 {
    mib as f64 / time.as_secs_f64()
}
