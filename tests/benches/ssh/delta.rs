//! How long the last bytes of a log take that was followed over a far line: from
//! the end of the source until they are put, and until all of it is committed.
//!
//! Both run on a host of the lab: the bench itself, started there in a role.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use logchain_core::chain::{LogChain, NumberingChoice};
use logchain_core::follow::NoWriters;
use logchain_core::handoff::Handoff;
use logchain_core::handoff::offer::{AdoptStatus, Held, Offer, Source};
use logchain_core::ids::HandoffId;
use logchain_core::transport::{LogTransport, LogTransportExt, ObjectName};
use logchain_tests::Host;
use logchain_transport_ssh::{SshOptions, SshTarget, SshTransport};
use tokio::sync::watch;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// There and back.
const ROUND: Duration = Duration::from_millis(20);
const RUNS: usize = 9;
const DELTA: usize = 4096;

/// Where `host` is to show it.
pub(super) fn show(host: &Host) -> Fallible<()> {
    let me = std::env::current_exe()?;
    let me = me.to_str().ok_or("a path that is no text")?;
    let output = host.command([me, "delta", me]).run()?.checked()?;
    println!("{}", output.out().trim_end());
    Ok(())
}

/// What this process is, if it is not the bench.
pub(super) fn role(role: &str, rest: &[String]) -> Option<Fallible<()>> {
    match (role, rest) {
        ("delta", [me]) => Some(delta(me)),
        ("line", [host]) => Some(line(host)),
        _ => None,
    }
}

/// A line to sshd at `host` on which every byte takes half a round.
fn line(host: &str) -> Fallible<()> {
    let out = TcpStream::connect((host, 22))?;
    out.set_nodelay(true)?;
    let back = out.try_clone()?;
    thread::spawn(move || late(back, std::io::stdout()));
    late(std::io::stdin(), out);
    Ok(())
}

fn late(mut from: impl Read, mut to: impl Write + Send + 'static) {
    let (sender, queue) = mpsc::channel::<(Instant, Vec<u8>)>();
    let writer = thread::spawn(move || {
        for (due, bytes) in queue {
            let left = due.saturating_duration_since(Instant::now());
            // Nothing else is done on this thread.
            thread::park_timeout(left);
            if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
                return;
            }
        }
    });
    let mut block = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut block) {
        let bytes = block.get(..n).unwrap_or_default().to_vec();
        if sender.send((Instant::now() + ROUND / 2, bytes)).is_err() {
            break;
        }
    }
    drop(sender);
    let _ = writer.join();
}

fn delta(me: &str) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let target: SshTarget = "ssh://h2/tmp/delta".parse()?;
        let proxy = format!("-oProxyCommand={me} line %h");
        let options = SshOptions {
            extra_args: vec![OsString::from(proxy)],
            ..SshOptions::default()
        };
        let transport: Arc<dyn LogTransport> =
            Arc::new(SshTransport::connect(target, options).await?);
        let folder = Path::new("/tmp/delta-log");
        fs::create_dir_all(folder)?;
        let (mut rounds, mut puts, mut commits) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let handoff = Handoff {
                domain: uuid::Uuid::new_v4(),
                console: "serial0".parse()?,
                id: HandoffId::random(),
            };
            let began = Instant::now();
            let commit = handoff.key(ObjectName::Commit);
            transport.get_opt(&commit, 1 << 20).await?;
            rounds.push(began.elapsed());
            let (put, committed) = once(&transport, folder, handoff).await?;
            puts.push(put);
            commits.push(committed);
        }
        let (round, put, committed) = (median(rounds), median(puts), median(commits));
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "the last {DELTA} bytes, on a line of {} ms there and back, the middle of {RUNS}: \
             put after {:.1} ms, {:.2} round trips; committed after {:.1} ms, {:.2}",
            ROUND.as_millis(),
            ms(put),
            put.as_secs_f64() / round.as_secs_f64(),
            ms(committed),
            committed.as_secs_f64() / round.as_secs_f64(),
        );
        Ok(())
    })
}

/// From the end of the source until its last bytes are put; until it is committed.
async fn once(
    transport: &Arc<dyn LogTransport>,
    folder: &Path,
    handoff: Handoff,
) -> Fallible<(Duration, Duration)> {
    let log = folder.join("console.log");
    fs::write(&log, vec![b'a'; 1 << 20])?;
    let chain = LogChain::open(&log, NumberingChoice::FromZero)?;
    let source = watch::Sender::new(Source::Running);
    let far = watch::Sender::new(AdoptStatus::Working);
    let put = watch::Sender::new(0);
    let mut told = put.subscribe();
    let held = Held::open(&chain, handoff.domain, &handoff.console)?;
    let offer = Offer::new(
        handoff.clone(),
        Arc::clone(transport),
        Arc::new(NoWriters),
        source.subscribe(),
    )
    .with_names("vm", "h1")
    .with_adopt_status(far.subscribe())
    .with_patience(Duration::from_secs(60))
    .with_progress(put);
    let task = tokio::spawn(offer.run(held));
    told.wait_for(|put| *put == 1 << 20).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut file = OpenOptions::new().append(true).open(&log)?;
    file.write_all(&[b'b'; DELTA])?;
    source.send_replace(Source::Over);
    let began = Instant::now();
    told.wait_for(|put| *put > 1 << 20).await?;
    let all_put = began.elapsed();
    // It is written beside the log just before it is put: one round after that.
    let spool = handoff.key(ObjectName::Commit);
    let committed = loop {
        let asked = began.elapsed();
        if transport.get_opt(&spool, 1 << 20).await?.is_some() {
            // When that was asked for is when it was there, at the latest.
            break asked + ROUND / 2;
        }
    };
    task.abort();
    Ok((all_put, committed))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
