//! The ssh transport against a real sshd, by a logchain over there and by SFTP: the
//! same suite as every transport, and connections that are cut all the time.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use logchain_core::ids::HandoffId;
use logchain_core::transport::{
    Advice, DirectoryTransport, Error, Key, LogTransport, LogTransportExt, ObjectName, Prefix,
    conformance,
};
use logchain_tests::{Guest, Host, Lab, Ticks};
use logchain_transport_ssh::{ServedBy, SshOptions, SshTarget, SshTransport};
use serde_json::Value;
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

/// As where there is no logchain.
fn sftp_options(from: &Host) -> Result<SshOptions, Box<dyn StdError>> {
    Ok(SshOptions {
        remote_logchain: "no-logchain".into(),
        ..options(from)?
    })
}

async fn over_sftp(url: &str, options: &SshOptions) -> Result<SshTransport, Box<dyn StdError>> {
    let transport = SshTransport::connect(url.parse()?, options.clone()).await?;
    assert_eq!(transport.served_by(), ServedBy::Sftp);
    Ok(transport)
}

fn key(object: ObjectName) -> Result<Key, Box<dyn StdError>> {
    Ok(Key {
        domain: Uuid::from_u128(1),
        console: "serial0".parse()?,
        collection: HandoffId::random().into(),
        object,
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

#[test]
fn over_sftp_it_conforms() -> Outcome {
    let lab = Lab::start(2)?;
    let options = sftp_options(lab.host(0))?;
    Runtime::new()?.block_on(async {
        let transport = over_sftp("ssh://h2/tmp/spool", &options).await?;
        conformance::run_all(Arc::new(transport)).await;
        Outcome::Ok(())
    })?;
    // No ssh stays once the transport is gone.
    let h1 = lab.host(0);
    h1.until("every ssh to end", Duration::from_secs(5), || {
        Ok(h1.processes("ssh")?.is_empty().then_some(()))
    })?;
    Ok(())
}

/// From now on its sshd does nothing but `forced`, whatever it is asked for.
fn force(host: &Host, forced: &str) -> Outcome {
    let config = host.path("/var/lib/lab/sshd/config");
    let plain = std::fs::read_to_string(&config)?;
    let plain: String = plain
        .lines()
        .filter(|line| !line.starts_with("ForceCommand"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&config, format!("{plain}ForceCommand {forced}\n"))?;
    host.stop_sshd()?;
    Ok(host.start_sshd()?)
}

/// A key or an account that may do nothing but SFTP.
#[test]
fn where_sshd_allows_only_sftp_it_serves() -> Outcome {
    let lab = Lab::start(2)?;
    let (options, h2) = (options(lab.host(0))?, lab.host(1));
    for forced in ["internal-sftp", "/usr/lib/openssh/sftp-server"] {
        force(h2, forced)?;
        Runtime::new()?.block_on(async {
            let transport = over_sftp("ssh://h2/tmp/spool", &options).await?;
            let key = key(ObjectName::Begin)?;
            transport.put(&key, Bytes::from_static(b"x")).await?;
            assert_eq!(transport.get_bytes(&key, 9).await?, "x");
            let forbidden = SshOptions {
                sftp: false,
                ..options.clone()
            };
            let refused = SshTransport::connect("ssh://h2/tmp/spool".parse()?, forbidden).await;
            let sentence = refused.unwrap_err().to_string();
            println!("{sentence}");
            assert!(sentence.contains("h2 runs no commands"), "{sentence}");
            Outcome::Ok(())
        })?;
    }
    // And where there is no SFTP either.
    force(h2, "echo no-logchain: not found >&2; exit 127")?;
    Runtime::new()?.block_on(async {
        let target = "ssh://h2/tmp/spool".parse()?;
        let refused = SshTransport::connect(target, sftp_options(lab.host(0))?).await;
        let sentence = refused.unwrap_err().to_string();
        println!("{sentence}");
        assert!(
            sentence.contains("no-logchain is not installed at h2"),
            "{sentence}"
        );
        assert!(sentence.contains("h2 offers no SFTP"), "{sentence}");
        Ok(())
    })
}

/// A spool is the same whoever serves it, a folder of the other host's included.
#[test]
fn a_spool_by_sftp_is_a_spool() -> Outcome {
    let lab = Lab::start(2)?;
    let h1 = lab.host(0);
    let (plain, sftp) = (options(h1)?, sftp_options(h1)?);
    Runtime::new()?.block_on(async {
        let sftp = over_sftp("ssh://h2/tmp/spool", &sftp).await?;
        let helper = SshTransport::connect("ssh://h2/tmp/spool".parse()?, plain).await?;
        assert_eq!(helper.served_by(), ServedBy::Logchain);
        let folder = DirectoryTransport::open(&lab.host(1).path("/tmp/spool"))?;
        let ways: [&dyn LogTransport; 3] = [&sftp, &helper, &folder];
        let data = Bytes::from(vec![7; 5_000_000]);
        for (n, one) in ways.into_iter().enumerate() {
            let object = ObjectName::Chunk {
                offset: n as u64,
                len: 1,
            };
            let key = key(object)?;
            one.put(&key, data.clone()).await?;
            for other in ways {
                assert!(
                    other.get_bytes(&key, 8 << 20).await? == data,
                    "{one}, {other}"
                );
                let again = other.put(&key, Bytes::new()).await;
                assert!(
                    matches!(again, Err(Error::AlreadyExists { .. })),
                    "{again:?}"
                );
                assert_eq!(other.list_all(&Prefix::All).await?.len(), 1);
            }
            let other = ways.into_iter().nth((n + 1) % 3).ok_or("three ways")?;
            other.delete(&key).await?;
            assert!(one.list_all(&Prefix::All).await?.is_empty());
        }
        let left = std::fs::read_dir(lab.host(1).path("/tmp/spool/v1"))?.count();
        assert_eq!(left, 0, "emptied folders stay");
        Ok(())
    })
}

/// SFTP has no word for a full disk; it is found out and said all the same.
#[test]
fn a_full_disk_is_said_by_sftp_too() -> Outcome {
    let lab = Lab::start(2)?;
    let (options, h2) = (sftp_options(lab.host(0))?, lab.host(1));
    h2.run(["mkdir", "/tmp/small"])?.checked()?;
    let mount = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=3m",
        "small",
        "/tmp/small",
    ];
    h2.run(mount)?.checked()?;
    Runtime::new()?.block_on(async {
        let transport = over_sftp("ssh://h2/tmp/small/spool", &options).await?;
        let key = key(ObjectName::Begin)?;
        let full = transport.put(&key, Bytes::from(vec![1; 4 << 20])).await;
        println!("{}", full.clone().unwrap_err());
        assert!(matches!(full, Err(Error::Full { .. })), "{full:?}");
        // What was written of it is gone: what fits goes in.
        let fits = Bytes::from(vec![1; 2 << 20]);
        transport.put(&key, fits.clone()).await?;
        assert!(transport.get_bytes(&key, 4 << 20).await? == fits);
        let handoff = h2.path("/tmp/small/spool").join(key.to_string());
        let folder = handoff.parent().ok_or("a folder")?;
        assert_eq!(std::fs::read_dir(folder)?.count(), 1);
        // A full one can be emptied, by a new connection as well.
        drop(transport);
        h2.run(["sh", "-c", "head -c 4M /dev/zero >/tmp/small/more"])?;
        let transport = over_sftp("ssh://h2/tmp/small/spool", &options).await?;
        transport.delete(&key).await?;
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

#[test]
fn cut_all_the_time_it_loses_nothing() -> Outcome {
    let lab = Lab::start(2)?;
    cut_all_the_time(&lab, &options(lab.host(0))?)
}

#[test]
fn cut_all_the_time_sftp_loses_nothing() -> Outcome {
    let lab = Lab::start(2)?;
    cut_all_the_time(&lab, &sftp_options(lab.host(0))?)
}

/// Every put comes through in the end, once and unaltered, although every ssh
/// between the hosts is killed several times a second.
fn cut_all_the_time(lab: &Lab, options: &SshOptions) -> Outcome {
    let h2 = lab.host(1);
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
                    collection: HandoffId::random().into(),
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
        let transport = SshTransport::connect(target, options.clone()).await?;
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

const P2P: &[&str] = &["migrate", "--live", "--p2p", "--persistent"];
const SPOOL: &str = "ssh://h3/tmp/spool";

/// The spool lies on a host that has sshd and nothing else.
#[test]
fn a_log_follows_its_guest_over_a_third_host() -> Outcome {
    let lab = Lab::start(3)?;
    let (h1, h2, h3) = (lab.host(0), lab.host(1), lab.host(2));
    force(h3, "internal-sftp")?;
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(600)?;

    let check = ["logchain", "transport", "check", SPOOL];
    let output = h1.run(check)?.checked()?;
    println!("{}{}", output.err(), output.out());
    assert!(output.err().contains("can sync files but no folders"));
    assert!(output.out().contains("(SFTP) works from here"));

    let migrate = h1.command(["logchain"]).args(P2P);
    let output = migrate
        .args(["--transport", SPOOL, "--format", "json", "vm", &h2.uri()])
        .limit(LIMIT)
        .run()?
        .checked()?;
    let events: Vec<Value> = output
        .out()
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let of = |kind: &str| events.iter().find(|e| e["event"] == kind);
    let warning = of("warning").ok_or("no warning")?;
    let reason = warning["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("if h3 crashes"), "{reason}");
    let carried = of("carried").ok_or("nothing was carried")?;
    assert!(carried["bytes"].as_u64() > Some(0), "{carried}");
    let there = h2.guest("vm");
    there.wait_for_more_ticks(300)?;
    let shown = h2.run(["logchain", "show", "-n", "all", "vm"])?.checked()?;
    let report = Ticks::check_from_boot(&shown.stdout)?;
    println!("{} lines, all there, once, in order", report.count);
    let left = std::fs::read_dir(h3.path("/tmp/spool/v1"))?.count();
    assert_eq!(left, 0, "pieces stay in the spool");
    Ok(())
}

/// Whoever offers and whoever adopts need not reach the spool by the same way.
#[test]
fn what_sftp_brought_a_folder_gives_and_the_other_way_round() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    for host in [h1, h2] {
        force(host, "internal-sftp")?;
    }
    for (name, offered, adopted) in [
        ("one", "ssh://h2/tmp/spool", "file:///tmp/spool"),
        ("two", "file:///tmp/spool", "ssh://h1/tmp/spool"),
    ] {
        let uuid = Uuid::new_v4().to_string();
        let guest = h2.define(&Guest::new(name).uuid(&uuid).lines(1))?;
        guest.start()?;
        guest.wait_for_tick(1)?;
        let log: Vec<u8> = (0..200_000)
            .flat_map(|n| format!("{name} {n}\n").into_bytes())
            .collect();
        std::fs::create_dir(h1.path(format!("/tmp/{name}")))?;
        std::fs::write(h1.path(format!("/tmp/{name}/console.log")), &log)?;
        let console = format!("serial0=/tmp/{name}/console.log");
        let offer = h1
            .command(["logchain", "offer", "--transport", offered])
            .args(["--console", &console, &uuid])
            .spawn()?;
        let said = format!("logchain adopt --transport {offered} {uuid}");
        h1.until("the command to be said", Duration::from_secs(30), || {
            let out = String::from_utf8_lossy(&offer.stdout()).into_owned();
            Ok(out.contains(&said).then_some(()))
        })?;
        h2.command(["logchain", "adopt", "--transport", adopted, &uuid])
            .limit(LIMIT)
            .run()?
            .checked()?;
        offer.wait(LIMIT)?.checked()?;
        let shown = h2.run(["logchain", "show", "-n", "all", name])?.checked()?;
        assert!(shown.stdout.starts_with(&log), "{name} came altered");
    }
    Ok(())
}
