//! What it costs to hold a thousand logs, in one folder and in a folder each.
//!
//! `cargo bench -p logchain-core --bench holds`. CPU time is that of the whole process,
//! over `LOGCHAIN_SECONDS` (30): at rest, and while another process writes to every log
//! once a second.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::chain::{LogChain, NumberingChoice};
use logchain_core::folder::{allow_descriptors, with_listings_kept};
use logchain_core::follow::NoWriters;
use logchain_core::holds::{HeldLog, Holds, Limits};
use uuid::Uuid;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LOGS: usize = 1000;
const ROTATED: usize = 3;
const ROLLOVERS: usize = 50;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, role, root, layout] = args.as_slice()
        && role == "write"
    {
        return write(Path::new(root), layout == "one");
    }
    allow_descriptors();
    println!(
        "folders  hold all      RSS  descriptors  CPU at rest  CPU while written  latency (median, most)"
    );
    for one in [true, false] {
        measure(one)?;
    }
    Ok(())
}

fn path_of(root: &Path, one: bool, log: usize) -> PathBuf {
    if one {
        root.join(format!("vm{log}.log"))
    } else {
        root.join(format!("vm{log}/console.log"))
    }
}

fn measure(one: bool) -> Result<()> {
    let root = tempfile::tempdir()?;
    for log in 0..LOGS {
        let base = path_of(root.path(), one, log);
        fs::create_dir_all(base.parent().ok_or("no folder")?)?;
        for number in (0..ROTATED).rev() {
            fs::write(numbered(&base, number), "a line of an older file\n")?;
        }
        fs::write(&base, "a line\n")?;
    }
    let (resident, descriptors) = (status("VmRSS")?, open_files()?);
    let began = Instant::now();
    let holds = Holds::start(Arc::new(NoWriters), Limits::default())?;
    let mut logs: Vec<HeldLog> = Vec::new();
    with_listings_kept(|| {
        for log in 0..LOGS {
            let base = path_of(root.path(), one, log);
            let chain = LogChain::open(&base, NumberingChoice::FromZero)?;
            logs.push(holds.hold(chain, Uuid::new_v4(), "serial0".parse()?)?);
        }
        Result::Ok(())
    })?;
    let hold_all = began.elapsed();
    let (resident, descriptors) = (
        status("VmRSS")?.saturating_sub(resident),
        open_files()?.saturating_sub(descriptors),
    );
    std::thread::park_timeout(Duration::from_secs(1));
    let at_rest = busy_during(|| {
        std::thread::park_timeout(seconds());
        Ok(())
    })?;
    let layout = if one { "one" } else { "each" };
    let mut writer = Command::new(std::env::current_exe()?);
    let writer = writer.arg("write").arg(root.path()).arg(layout);
    let written = busy_during(|| {
        let status = writer.status()?;
        if status.success() {
            Ok(())
        } else {
            Err("the writer failed".into())
        }
    })?;
    let mut latencies = Vec::new();
    for round in 0..ROLLOVERS {
        let log = round.saturating_mul(17) % LOGS;
        let held = logs.get(log).ok_or("no log")?;
        latencies.push(roll_over(&path_of(root.path(), one, log), held)?);
    }
    latencies.sort_unstable();
    let median = latencies.get(ROLLOVERS / 2).ok_or("no round")?;
    let most = latencies.last().ok_or("no round")?;
    println!(
        "{:7} {:6.0} ms {:4.1} MiB {descriptors:12} {:10.4} % {:16.4} % {:10.1} ms {:.1} ms",
        if one { 1 } else { LOGS },
        hold_all.as_secs_f64() * 1e3,
        f64::from(u32::try_from(resident)?) / 1024.0,
        at_rest,
        written,
        median.as_secs_f64() * 1e3,
        most.as_secs_f64() * 1e3,
    );
    Ok(())
}

/// As virtlogd does it; gives how long it takes until the new base is held.
fn roll_over(base: &Path, held: &HeldLog) -> Result<Duration> {
    for number in (1..ROTATED).rev() {
        rename(&numbered(base, number - 1), &numbered(base, number))?;
    }
    rename(base, &numbered(base, 0))?;
    fs::write(base, "the newest line of this log\n")?;
    let began = Instant::now();
    loop {
        let files = held.files();
        if files.last().is_some_and(|file| file.size == 28) {
            return Ok(began.elapsed());
        }
        std::thread::park_timeout(Duration::from_micros(100));
    }
}

/// The other process: a line into every log, once a second.
fn write(root: &Path, one: bool) -> Result<()> {
    let mut files = Vec::new();
    allow_descriptors();
    for log in 0..LOGS {
        let path = path_of(root, one, log);
        files.push(OpenOptions::new().append(true).open(path)?);
    }
    let began = Instant::now();
    while began.elapsed() < seconds() {
        for file in &mut files {
            file.write_all(b"a line of the guest\n")?;
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
    Ok(())
}

fn seconds() -> Duration {
    let seconds = std::env::var("LOGCHAIN_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|s| s.parse().ok()).unwrap_or(30))
}

/// How much of a processor this process took meanwhile, in percent.
fn busy_during(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (before, began) = (cpu_time()?, Instant::now());
    work()?;
    let busy = cpu_time()?.saturating_sub(before);
    Ok(100.0 * busy.as_secs_f64() / began.elapsed().as_secs_f64())
}

/// Of all threads that run now: to the nanosecond, where the process's own is in ticks.
fn cpu_time() -> Result<Duration> {
    let mut all = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let busy = text.split_whitespace().next().ok_or("no schedstat")?;
        all = all.saturating_add(Duration::from_nanos(busy.parse()?));
    }
    Ok(all)
}

/// In KiB.
fn status(field: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(field));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(value.ok_or("no such field")?.parse()?)
}

fn open_files() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

fn numbered(base: &Path, number: usize) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[expect(clippy::disallowed_methods, reason = "as virtlogd renames")]
fn rename(from: &Path, to: &Path) -> Result<()> {
    Ok(fs::rename(from, to)?)
}
