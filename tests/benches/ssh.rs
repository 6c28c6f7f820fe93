//! A log from one host to another over ssh: `logchain offer`, all of it (read,
//! compressed, put, fetched, staged, synced, placed, receipt), beside what an
//! operator would script. Build the programs first:
//!
//! ```text
//! cargo build --release -p logchain && cargo bench -p logchain-tests --bench ssh [MiB [mbit]]
//! ```
//!
//! With `mbit` the line between the hosts is shaped to so many Mbit/s.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use logchain_tests::{Guest, Host, Lab};

type Fallible<T> = Result<T, Box<dyn Error>>;

const RUNS: usize = 3;
const LIMIT: Duration = Duration::from_secs(600);

/// Console text as a Linux guest prints it: it shrinks to a third or a fourth.
fn text(mib: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity((mib << 20) + 200);
    let mut seed = 7_u64;
    let mut dice = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 33
    };
    let words = [
        "systemd[1]: Started session",
        "kernel: EXT4-fs (vda1): mounted filesystem",
        "sshd: Accepted key for root",
        "audit: type=1400 apparmor",
        "docker0: port 3 entered blocking state",
        "nfs: server not responding",
        "Out of memory: killed process",
        "virtio_net eth0: link becomes ready",
    ];
    let mut time = 0;
    while text.len() < mib << 20 {
        time += dice() % 100_000;
        let word = usize::try_from(dice() % 8).unwrap_or_default();
        let word = words.get(word).copied().unwrap_or_default();
        let (a, b) = (dice(), dice() % 65_536);
        let _ = writeln!(
            text,
            "[{:5}.{:06}] {word} {a:x} {b}",
            time / 1_000_000,
            time % 1_000_000
        );
    }
    text.truncate(mib << 20);
    text
}

fn timed(host: &Host, args: &[&str]) -> Fallible<Duration> {
    let began = Instant::now();
    host.command(args).limit(LIMIT).run()?.checked()?;
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() -> Fallible<()> {
    let mut numbers = std::env::args().filter_map(|a| a.parse::<usize>().ok());
    let mib = numbers.next().unwrap_or(1024);
    let mbit = numbers.next();
    let lab = Lab::builder().hosts(2).virtlogd(0, 3).start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let guests: Vec<_> = (0..RUNS)
        .map(|n| {
            let uuid = format!("6a1f8f5e-3c1d-4f55-9e0f-2b9d1c7a4e1{n}");
            let guest = h2.define(&Guest::new(&format!("vm{n}")).uuid(&uuid).lines(1))?;
            guest.start()?;
            guest.wait_for_tick(1)?;
            Ok((guest, uuid))
        })
        .collect::<Fallible<_>>()?;
    let log = text(mib);
    for n in 0..RUNS {
        let folder = h1.path(format!("/tmp/log{n}"));
        fs::create_dir(&folder)?;
        fs::write(folder.join("console.log"), &log)?;
    }
    h2.run(["mkdir", "/tmp/in"])?.checked()?;
    if let Some(mbit) = mbit {
        let rate = format!("{mbit}mbit");
        let shape = [
            "sh",
            "-c",
            &format!(
                "tc qdisc add dev $(ip -o route get 10.0.0.0 | sed 's/.* dev \\([^ ]*\\).*/\\1/') root tbf rate {rate} burst 256k latency 50ms"
            ),
        ];
        h1.run(shape)?.checked()?;
    }

    println!("{mib} MiB of console text over ssh, the middle of {RUNS} runs");
    let (mut ours, mut best) = (Vec::new(), Duration::MAX);
    for (n, (_, uuid)) in guests.iter().enumerate() {
        let console = format!("serial0=/tmp/log{n}/console.log");
        let offer = [
            "logchain",
            "offer",
            "--transport",
            "ssh://h2",
            "--console",
            &console,
            uuid,
        ];
        ours.push(timed(h1, &offer)?);
    }
    let ours = median(ours);
    println!(
        "{:24} {:8.2} s  {:6.0} MiB/s",
        "logchain offer",
        ours.as_secs_f64(),
        speed(mib, ours)
    );
    let peers: &[(&str, &[&str])] = &[
        ("scp", &["scp", "-q"]),
        ("rsync -W", &["rsync", "-W"]),
        ("rsync -z --zc=zstd", &["rsync", "-z", "--zc=zstd"]),
    ];
    for (name, words) in peers {
        if h1
            .run(["which", words.first().copied().unwrap_or_default()])?
            .code()
            != Some(0)
        {
            println!("{name:24} is not installed");
            continue;
        }
        let mut times = Vec::new();
        for n in 0..RUNS {
            let from = format!("/tmp/log{n}/console.log");
            let to = format!("h2:/tmp/in/{}-{n}", name.replace(' ', ""));
            times.push(timed(
                h1,
                &[words, &[from.as_str(), to.as_str()][..]].concat(),
            )?);
        }
        let time = median(times);
        best = best.min(time);
        println!(
            "{name:24} {:8.2} s  {:6.0} MiB/s  logchain takes {:.2} times as long",
            time.as_secs_f64(),
            speed(mib, time),
            ours.as_secs_f64() / time.as_secs_f64()
        );
    }
    println!(
        "beside the best of them: {:.2}",
        ours.as_secs_f64() / best.as_secs_f64()
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "it is shown to people")]
fn speed(mib: usize, time: Duration) -> f64 {
    mib as f64 / time.as_secs_f64()
}
