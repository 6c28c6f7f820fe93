//! Real `logchain adopt` processes, killed at random times, hundreds of them:
//! whatever they had begun, the next one finishes it, and every byte is there once.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::chain::{LogChain, NumberingChoice};
use logchain_core::follow::NoWriters;
use logchain_core::handoff::Handoff;
use logchain_core::handoff::offer::{Held, Offer, Outcome, Source};
use logchain_core::ids::HandoffId;
use logchain_core::transport::{DirectoryTransport, LogTransportExt};
use tokio::sync::watch;
use uuid::Uuid;

type Fallible<T> = Result<T, Box<dyn Error>>;

const KILLS: u64 = 200;

/// Kills of one handoff's processes at most: then it may come to its end.
const KILLS_EACH: u64 = 8;

/// However busy the machine is, it ends some time, with fewer kills perhaps.
const LIMIT: Duration = Duration::from_secs(60);

/// Numbers that look random, and are the same in every run.
struct Dice(u64);
impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % most
    }
}

/// A host of libvirt's test driver on which the domain runs already.
fn host(folder: &Path, domain: Uuid, log: &Path) -> Fallible<String> {
    let node = folder.join("node.xml");
    let log = log.display();
    fs::write(
        &node,
        format!(
            "<node><domain type='test'><name>vm</name><uuid>{domain}</uuid>\
             <memory>8192</memory><os><type>hvm</type></os><devices>\
             <serial type='pty'><log file='{log}' append='off'/></serial>\
             </devices></domain></node>"
        ),
    )?;
    Ok(format!("test://{}", node.display()))
}

/// The source's half up to its commit: nobody adopts yet.
async fn commit(from: &Path, spool: &Path, handoff: &Handoff) -> Fallible<()> {
    let chain = LogChain::open(from, NumberingChoice::FromZero)?;
    let held = Held::open(&chain, handoff.domain, &handoff.console)?;
    let offer = Offer::new(
        handoff.clone(),
        Arc::new(DirectoryTransport::open(spool)?),
        Arc::new(NoWriters),
        watch::Sender::new(Source::Over).subscribe(),
    )
    .with_names("vm", "h1")
    .with_patience(Duration::from_millis(50));
    match offer.run(held).await {
        Outcome::NotCarried { .. } => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

#[tokio::test]
async fn killed_at_any_time_the_next_one_finishes_it() -> Fallible<()> {
    let mut dice = Dice(7);
    let (mut kills, mut rounds) = (0, 0);
    // How long one takes that nobody kills: the first round tells.
    let mut whole = Duration::ZERO;
    let began = Instant::now();
    while kills < KILLS && began.elapsed() < LIMIT {
        let round = rounds;
        rounds += 1;
        let folder = tempfile::tempdir()?;
        let (from, to) = (folder.path().join("h1"), folder.path().join("h2"));
        let spool = folder.path().join("spool");
        for made in [&from, &to, &spool] {
            fs::create_dir(made)?;
        }
        let mut expected = Vec::new();
        for name in ["console.log.1", "console.log.0", "console.log"] {
            let byte = u8::try_from(dice.below(26))? + b'a';
            let size = usize::try_from(dice.below(300_000) + 1)?;
            fs::write(from.join(name), vec![byte; size])?;
            expected.extend(vec![byte; size]);
        }
        let log = to.join("console.log");
        fs::write(to.join("console.log.0"), "rolled over there\n")?;
        fs::write(&log, "new there\n")?;
        expected.extend(b"rolled over there\nnew there\n");

        let handoff = Handoff {
            domain: Uuid::new_v4(),
            console: "serial0".parse()?,
            id: HandoffId::random(),
        };
        commit(&from.join("console.log"), &spool, &handoff).await?;
        let uri = host(folder.path(), handoff.domain, &log)?;
        let adopt = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_logchain"));
            command
                .args(["adopt", "-c", &uri, "--transport"])
                .arg(format!("file://{}", spool.display()))
                .args(["--handoff", &handoff.id.to_string()])
                .args(["--console", "serial0"])
                .arg(handoff.domain.to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            command
        };
        for _ in 0..KILLS_EACH {
            if whole.is_zero() {
                break;
            }
            let mut child = adopt().spawn()?;
            let most = u64::try_from(whole.as_micros())?;
            tokio::time::sleep(Duration::from_micros(dice.below(most))).await;
            if child.try_wait()?.is_some() {
                break;
            }
            child.kill()?;
            child.wait()?;
            kills += 1;
        }
        let started = Instant::now();
        let last = adopt().output()?;
        let said = String::from_utf8_lossy(&last.stderr).into_owned();
        assert!(last.status.success(), "round {round}: {said}");
        if whole.is_zero() {
            whole = started.elapsed();
        }

        let chain = LogChain::open(&log, NumberingChoice::FromZero)?;
        let mut all = Vec::new();
        let snapshot = chain.snapshot()?;
        std::io::Read::read_to_end(&mut snapshot.read_all()?, &mut all)?;
        assert!(
            all == expected,
            "round {round}: {} of {} bytes",
            all.len(),
            expected.len()
        );
        let mut names: Vec<String> = fs::read_dir(&to)?
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<_>>()?;
        names.retain(|n| n.starts_with('.'));
        assert_eq!(names, [".console.log.logchain"], "round {round}");
        let transport = DirectoryTransport::open(&spool)?;
        let key = handoff.key(logchain_core::transport::ObjectName::Receipt);
        assert!(transport.get_opt(&key, 1 << 20).await?.is_some());
    }
    println!("{kills} kills in {rounds} handoffs, each of which takes {whole:?}");
    assert!(kills > 0);
    Ok(())
}
