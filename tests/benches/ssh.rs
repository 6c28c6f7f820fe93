//! A log from one host to another over ssh: `logchain offer`, all of it (read,
//! compressed, put, fetched, staged, synced, placed, receipt), beside what an
//! operator would script; and how long the last bytes of a log take. Build the
//! programs first:
//!
//! ```text
//! cargo build --release -p logchain && cargo bench -p logchain-tests --bench ssh [MiB [mbit]]
//! ```
//!
//! With `mbit` the line between the hosts is shaped to so many Mbit/s. With
//! `LOGCHAIN_BASE=/folder/logchain:/other/logchain` other builds take part.

#[path = "ssh/delta.rs"]
mod delta;
#[path = "ssh/text.rs"]
mod text;

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use logchain_tests::{Guest, GuestOn, Host, Lab};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Of each program, by turns: the machine has other things to do.
const RUNS: usize = 5;
const LIMIT: Duration = Duration::from_secs(600);

const UUID: &str = "6a1f8f5e-3c1d-4f55-9e0f-2b9d1c7a4e10";

/// Who takes part.
enum Program {
    Ours(String),
    Peer(&'static [&'static str]),
}

fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some((role, rest)) = args.split_first()
        && let Some(end) = delta::role(role, rest)
    {
        return end;
    }
    let mut numbers = args.iter().filter_map(|a| a.parse::<usize>().ok());
    let mib = numbers.next().unwrap_or(1024);
    let mbit = numbers.next().map(u64::try_from).transpose()?;
    let lab = Lab::builder().hosts(2).virtlogd(0, 3).start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let guest = h2.define(&Guest::new("vm").uuid(UUID).lines(1))?;
    guest.start()?;
    guest.wait_for_tick(1)?;
    fs::create_dir(h1.path("/tmp/log"))?;
    fs::write(h1.path("/tmp/log/console.log"), text::text(mib))?;
    delta::show(h1)?;
    if let Some(mbit) = mbit {
        h1.slow_network(mbit)?;
    }

    let mut programs = vec![
        ("logchain offer", Program::Ours("logchain".to_owned())),
        ("scp", Program::Peer(&["scp", "-q"])),
        ("rsync -W", Program::Peer(&["rsync", "-W"])),
        (
            "rsync -z --zc=zstd",
            Program::Peer(&["rsync", "-z", "--zc=zstd"]),
        ),
    ];
    let others = std::env::var("LOGCHAIN_BASE").unwrap_or_default();
    for base in others.split(':').filter(|base| !base.is_empty()) {
        programs.push((base, Program::Ours(base.to_owned())));
    }
    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    for run in 0..RUNS {
        for (name, program) in &programs {
            tidy(h1, h2, &guest)?;
            let took = one(h1, program)?;
            match times.iter_mut().find(|(n, _)| n == name) {
                Some((_, all)) => all.push(took),
                None => times.push((name, vec![took])),
            }
        }
        eprintln!("run {} of {RUNS} done", run + 1);
    }

    let line = mbit.map(|m| format!(" at {m} Mbit/s")).unwrap_or_default();
    println!("{mib} MiB of console text over ssh{line}, the middle of {RUNS} runs");
    let ours = median(times.first().map(|(_, t)| t.clone()).unwrap_or_default());
    for (name, all) in times {
        let time = median(all);
        println!(
            "{name:24} {:8.2} s  {:6.0} MiB/s  logchain takes {:.2} times as long",
            time.as_secs_f64(),
            speed(mib, time),
            ours.as_secs_f64() / time.as_secs_f64()
        );
    }
    Ok(())
}

/// Both hosts as before any log went over.
fn tidy(h1: &Host, h2: &Host, guest: &GuestOn) -> Fallible<()> {
    let record = |log: &std::path::Path| log.with_file_name(".console.log.logchain");
    let there = h2.path(h2.log_path(guest.name()));
    for name in [
        record(&h1.path("/tmp/log/console.log")),
        record(&there),
        there.with_extension("log.0"),
        h2.path("/tmp/in"),
    ] {
        if name.exists() {
            fs::remove_file(name)?;
        }
    }
    // What the one before left to the disk is no matter of the next.
    h2.run(["sync"])?.checked()?;
    Ok(())
}

fn one(h1: &Host, program: &Program) -> Fallible<Duration> {
    let words: Vec<&str> = match program {
        Program::Ours(path) => {
            let offer = [path, "offer", "--remote-logchain", path, "--transport"];
            let what = [
                "ssh://h2",
                "--console",
                "serial0=/tmp/log/console.log",
                UUID,
            ];
            [&offer[..], &what[..]].concat()
        }
        Program::Peer(words) => [words, &["/tmp/log/console.log", "h2:/tmp/in"][..]].concat(),
    };
    let began = Instant::now();
    h1.command(words).limit(LIMIT).run()?.checked()?;
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "it is shown to people")]
fn speed(mib: usize, time: Duration) -> f64 {
    mib as f64 / time.as_secs_f64()
}
