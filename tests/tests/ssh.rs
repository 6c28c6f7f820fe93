//! The ssh transport against a real sshd: the same suite as every transport, and
//! connections that are cut all the time.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use logchain_core::transport::{
    Advice, Error, HandoffId, Key, LogTransportExt, ObjectName, Prefix, conformance,
};
use logchain_tests::{Host, Lab};
use logchain_transport_ssh::{SshOptions, SshTarget, SshTransport};
use tokio::runtime::Runtime;
use uuid::Uuid;

type Outcome = Result<(), Box<dyn StdError>>;

/// As many objects as a log of this many MiB has.
const OBJECTS: u64 = 48;

/// However often it is cut: each try must get something over.
const LIMIT: Duration = Duration::from_secs(120);

fn options(from: &Host) -> Result<SshOptions, Box<dyn StdError>> {
    Ok(SshOptions {
        program: from.stand_in("ssh")?.into(),
        ..SshOptions::default()
    })
}

#[test]
fn over_a_real_sshd_it_conforms() -> Outcome {
    let lab = Lab::start(2)?;
    let options = options(lab.host(0))?;
    Runtime::new()?.block_on(async {
        let target: SshTarget = "ssh://h2/tmp/spool".parse()?;
        let transport = SshTransport::connect(target, options).await?;
        conformance::run_all(Arc::new(transport)).await;
        Ok(())
    })
}

async fn put(transport: &SshTransport, key: &Key, data: &Bytes) -> Result<u64, Error> {
    let (began, mut tries) = (Instant::now(), 1);
    loop {
        match transport.put_same(key, data.clone()).await {
            Ok(()) => return Ok(tries),
            Err(e) if e.advice() == Advice::Retry && began.elapsed() < LIMIT => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => return Err(e),
        }
    }
}

/// Every put comes through in the end, once and unaltered, although every ssh
/// between the hosts is killed several times a second.
#[test]
fn cut_all_the_time_it_loses_nothing() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let options = options(h1)?;
    let done = AtomicBool::new(false);
    let (tries, cuts) = std::thread::scope(|scope| {
        let cutting = scope.spawn(|| -> Result<u64, String> {
            let mut cuts = 0;
            while !done.load(Ordering::Relaxed) {
                h2.run(["sleep", "0.3"]).map_err(|e| e.to_string())?;
                // The session's processes; the daemon itself stays.
                let kill = ["pkill", "-KILL", "-f", "^sshd: root"];
                h2.run(kill).map_err(|e| e.to_string())?;
                cuts += 1;
            }
            Ok(cuts)
        });
        let put = || -> Result<u64, Box<dyn StdError>> {
            Runtime::new()?.block_on(async {
                let target: SshTarget = "ssh://h2/tmp/spool".parse()?;
                let transport = loop {
                    match SshTransport::connect(target.clone(), options.clone()).await {
                        Ok(transport) => break transport,
                        Err(e) if e.advice() == Advice::Retry => {}
                        Err(e) => return Err(e.into()),
                    }
                };
                let first = Key {
                    domain: Uuid::new_v4(),
                    console: "serial0".parse()?,
                    lot: HandoffId::random().into(),
                    object: ObjectName::Begin,
                };
                let mut tries = 0;
                for n in 0..OBJECTS {
                    let object = ObjectName::Chunk { offset: n, len: 1 };
                    let key = Key {
                        object,
                        ..first.clone()
                    };
                    let data = Bytes::from(vec![u8::try_from(n)?; 1 << 20]);
                    tries += put(&transport, &key, &data).await?;
                }
                Ok(tries)
            })
        };
        let tries = put();
        done.store(true, Ordering::Relaxed);
        (tries, cutting.join())
    });
    let cuts = cuts.map_err(|_| "the cutting thread failed")??;
    let tries = tries?;
    println!("{OBJECTS} objects over {cuts} cuts, in {tries} tries");
    Runtime::new()?.block_on(async {
        let target: SshTarget = "ssh://h2/tmp/spool".parse()?;
        let transport = SshTransport::connect(target, options).await?;
        let listed = transport.list_all(&Prefix::All).await?;
        assert_eq!(listed.len() as u64, OBJECTS);
        for entry in listed {
            let ObjectName::Chunk { offset, .. } = entry.key.object else {
                return Err("an object that nobody put".into());
            };
            let data = transport.get_bytes(&entry.key, 2 << 20).await?;
            assert!(data == vec![u8::try_from(offset)?; 1 << 20], "{offset}");
        }
        Ok(())
    })
}
