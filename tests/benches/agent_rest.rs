//! What an agent needs that has nothing to do: it watches a thousand domains that run, each with a
//! log. They are domains of libvirt's test driver, so no hypervisor and no root is needed.
//!
//! ```text
//! cargo build --release -p logchain && cargo bench -p logchain-tests --bench agent_rest -- \
//!     [--domains 1000] [--seconds 60] [--runs 3]
//! ```
//!
//! A line for each figure, with the median, least and most of the runs:
//!
//! - `watching_ms`: from the start of the program until it tells that it watches libvirt.
//! - `start_cpu_ms`: the processor time that it took until it was at rest.
//! - `resident_kib`, `descriptors`, `threads`: at the end.
//! - `cpu_us_per_s`: processor time at rest. 1000 are a tenth of a percent of one processor.
//! - `wakeups_per_1000_s`: voluntary context switches of all threads at rest; 1000 are one a second.
//!   Which threads they are is told once a run.

#[path = "measure/figures.rs"]
mod figures;
#[path = "measure/process.rs"]
mod process;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use figures::{Figures, number};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Far more than a start takes.
const LIMIT: Duration = Duration::from_secs(60);

/// From `watching` until it is at rest: what it does once after a start is over, and threads that
/// helped with it have ended.
const SETTLES: Duration = Duration::from_secs(15);

fn main() -> Fallible<()> {
    let domains = number("--domains", 1000)?;
    let seconds = Duration::from_secs(number("--seconds", 60)?);
    let runs = number("--runs", 3)?;
    let root = tempfile::tempdir()?;
    let config = prepare(root.path(), domains)?;
    let mut figures = Figures::default();
    for _ in 0..runs {
        one(&config, domains, seconds, &mut figures)?;
    }
    println!("{domains} domains at rest for {} s", seconds.as_secs());
    figures.print();
    Ok(())
}

/// Logs, domains and a configuration; gives the path of the last.
fn prepare(root: &Path, domains: u64) -> Fallible<PathBuf> {
    let mut node = "<node>\n".to_owned();
    for n in 1..=domains {
        let folder = root.join(format!("logs/vm{n}"));
        fs::create_dir_all(&folder)?;
        let log = folder.join("console.log");
        fs::write(&log, "a line of the guest\n".repeat(50))?;
        fs::write(folder.join("console.log.0"), "older lines\n".repeat(50))?;
        let log = log.display();
        writeln!(
            node,
            "<domain type='test'><name>vm{n}</name>\
             <uuid>6a1f8f5e-3c1d-4f55-9e0f-{n:012x}</uuid><memory>65536</memory>\
             <os><type>hvm</type></os><devices><serial type='pty'><log file='{log}'/>\
             <target port='0'/></serial></devices></domain>"
        )?;
    }
    node.push_str("</node>\n");
    let xml = root.join("node.xml");
    fs::write(&xml, node)?;
    let config = root.join("agent.toml");
    let text = format!(
        "connect = \"test://{}\"\nstate = \"{root}/state\"\n\
         [control]\nsocket = \"{root}/agent.sock\"\n",
        xml.display(),
        root = root.display()
    );
    fs::write(&config, text)?;
    Ok(config)
}

/// The agent's process; killed when it is dropped, if it still runs.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // One that has ended is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn one(config: &Path, domains: u64, seconds: Duration, figures: &mut Figures) -> Fallible<()> {
    let began = Instant::now();
    let mut child = Command::new(logchain_tests::logchain_bin()?)
        .args(["agent", "--format", "json", "--config"])
        .arg(config)
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or("no output")?;
    let agent = Agent(child);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        let line = told.recv_timeout(LIMIT.saturating_sub(began.elapsed()))?;
        let event: serde_json::Value = serde_json::from_str(&line)?;
        let field = |name: &str| event.get(name);
        if field("event").is_some_and(|kind| kind == "watching") {
            if field("domains").and_then(serde_json::Value::as_u64) != Some(domains) {
                return Err(format!("it watches others than those of the file: {line}").into());
            }
            break;
        }
        println!("{line}");
    }
    figures.add("watching_ms", u64::try_from(began.elapsed().as_millis())?);
    rest(&told, SETTLES)?;
    let proc = PathBuf::from(format!("/proc/{}", agent.0.id()));
    let (before, since) = (Threads::of(&proc)?, Instant::now());
    figures.add("start_cpu_ms", processor_ms(&proc)?);
    rest(&told, seconds)?;
    let (after, took) = (Threads::of(&proc)?, since.elapsed());
    let millis = u64::try_from(took.as_millis())?.max(1);
    let (mut busy, mut wakeups) = (Duration::ZERO, 0_u64);
    for thread in &after.0 {
        let earlier = before.0.iter().find(|other| other.number == thread.number);
        let (was_busy, switches) = earlier.map_or((Duration::ZERO, 0), |t| (t.busy, t.switches));
        busy += thread.busy.saturating_sub(was_busy);
        let more = thread.switches.saturating_sub(switches);
        wakeups = wakeups.saturating_add(more);
        if more > 0 {
            println!("thread {}: {more} wakeups in {millis} ms", thread.name);
        }
    }
    let busy = u64::try_from(busy.as_micros())?;
    figures.add("cpu_us_per_s", busy.saturating_mul(1000) / millis);
    figures.add(
        "wakeups_per_1000_s",
        wakeups.saturating_mul(1_000_000) / millis,
    );
    figures.add("resident_kib", process::field(&proc, "VmRSS")?);
    let descriptors = fs::read_dir(proc.join("fd"))?.count();
    figures.add("descriptors", u64::try_from(descriptors)?);
    figures.add("threads", u64::try_from(after.0.len())?);
    Ok(())
}

/// Waits; what it tells meanwhile is shown.
fn rest(told: &mpsc::Receiver<String>, time: Duration) -> Fallible<()> {
    let ends = Instant::now() + time;
    loop {
        match told.recv_timeout(ends.saturating_duration_since(Instant::now())) {
            Ok(line) => println!("{line}"),
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err("the agent ended".into()),
        }
    }
}

/// How long all threads of a process have been on a processor, those that have ended too. In
/// ticks of 10 ms.
fn processor_ms(proc: &Path) -> Fallible<u64> {
    let stat = fs::read_to_string(proc.join("stat"))?;
    // The name before it may have spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Vec<u64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<u64>() * 10)
}

/// The threads of a process that run now.
struct Threads(Vec<Thread>);

struct Thread {
    number: u64,
    name: String,
    /// How long it was on a processor; to the nanosecond, where the process's own is in ticks.
    busy: Duration,
    /// How often it gave the processor up by itself.
    switches: u64,
}

impl Threads {
    fn of(proc: &Path) -> Fallible<Self> {
        let mut threads = Vec::new();
        for task in fs::read_dir(proc.join("task"))? {
            let task = task?.path();
            let text = fs::read_to_string(task.join("schedstat"))?;
            let busy = text.split_whitespace().next().ok_or("no schedstat")?;
            let number = task.file_name().and_then(|name| name.to_str());
            threads.push(Thread {
                number: number.ok_or("an odd thread")?.parse()?,
                name: fs::read_to_string(task.join("comm"))?.trim().to_owned(),
                busy: Duration::from_nanos(busy.parse()?),
                switches: process::field(&task, "voluntary_ctxt_switches")?,
            });
        }
        Ok(Self(threads))
    }
}
