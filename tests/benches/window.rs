//! How long a reader at the destination has less than the whole history: from the
//! guest's first byte there until what was printed before it is complete. A
//! negative one says how much sooner it was complete. Beside it the procedure that
//! the oldest proposal has: wait until the source is shut off, copy, rename.
//!
//! ```text
//! cargo build --release -p logchain && [LOGCHAIN_LOOKS=1] cargo bench -p logchain-tests --bench window -- [MiB [runs]]
//! ```

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use logchain_tests::{Guest, GuestOn, Host, Lab, Ticks};

type Fallible<T> = Result<T, Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(300);

/// Between two looks at the destination's folder.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Logchain,
    /// Wait, copy, rename.
    AfterShutoff,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Logchain => "logchain migrate",
            Self::AfterShutoff => "migrate, wait for shutoff, rsync, rename",
        }
    }
}

/// One look: when, and the sizes of base and rotated files.
type Sample = (Instant, u64, u64);

fn main() -> Fallible<()> {
    let numbers = std::env::args().skip(1);
    let mut numbers = numbers.filter_map(|a| a.parse::<usize>().ok());
    let mib = numbers.next().unwrap_or(1);
    let runs = numbers.next().unwrap_or(10);
    // Nothing is rolled over while it is measured.
    let lab = Lab::builder().hosts(2).virtlogd(0, 3).start()?;
    println!("way,history MiB,run,window ms,migration ms");
    let mut summary = Vec::new();
    for way in [Way::Logchain, Way::AfterShutoff] {
        let mut windows = Vec::new();
        for run in 0..runs {
            let (window, took) = one(&lab, way, mib, run)?;
            println!("{},{mib},{run},{window},{}", way.name(), took.as_millis());
            windows.push(window);
        }
        windows.sort_unstable();
        let at = |part: usize| windows.get(windows.len() * part / 100).copied();
        let last = windows.last().copied();
        let before = windows.iter().filter(|w| **w <= 0).count();
        summary.push(format!(
            "{}, {mib} MiB: complete before the first byte there in {before} of {runs}; \
             median {} ms, 95 % {} ms, longest {} ms",
            way.name(),
            at(50).unwrap_or_default(),
            at(95).unwrap_or_default(),
            last.unwrap_or_default(),
        ));
    }
    for line in summary {
        println!("{line}");
    }
    Ok(())
}

/// Window and duration of one migration of a guest of its own.
fn one(lab: &Lab, way: Way, mib: usize, run: usize) -> Fallible<(i64, Duration)> {
    let (from, to) = match run % 2 {
        0 => (lab.host(0), lab.host(1)),
        _ => (lab.host(1), lab.host(0)),
    };
    let name = format!("vm{}{run}", if way == Way::Logchain { "l" } else { "s" });
    let guest = from.define(&Guest::new(&name))?;
    guest.start()?;
    guest.wait_for_tick(300)?;
    history(&guest, mib)?;
    let sampler = Sampler::start(to.path(to.log_path(&name)));
    let began = Instant::now();
    let done = match way {
        Way::Logchain => with_logchain(&guest, to),
        Way::AfterShutoff => after_shutoff(&guest, to),
    };
    let took = began.elapsed();
    let there = to.guest(&name);
    if done.is_ok() {
        there.wait_for_more_ticks(50)?;
    }
    let samples = sampler.end()?;
    done?;
    let bytes = size_of(&from.path(from.log_path(&name)))?;
    if way == Way::Logchain {
        whole(to, &name)?;
    }
    there.destroy()?;
    for host in [from, to] {
        let _ = host.run(["virsh", "undefine", &name])?;
        if let Some(folder) = host.path(host.log_path(&name)).parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
    if std::env::var_os("LOGCHAIN_LOOKS").is_some() {
        show_looks(&samples);
    }
    Ok((window(&samples, bytes)?, took))
}

fn with_logchain(guest: &GuestOn, to: &Host) -> Fallible<()> {
    let command = ["logchain", "migrate", "--live", "--p2p", "--persistent"];
    let command = guest.host().command(command);
    let uri = to.uri();
    command
        .args([guest.name(), &uri])
        .limit(LIMIT)
        .run()?
        .checked()?;
    Ok(())
}

fn after_shutoff(guest: &GuestOn, to: &Host) -> Fallible<()> {
    let from = guest.host();
    let command = ["virsh", "migrate", "--live", "--p2p", "--persistent"];
    let uri = to.uri();
    let virsh = from.command(command).args([guest.name(), &uri]);
    virsh.limit(LIMIT).run()?.checked()?;
    from.until("the source to be shut off", LIMIT, || {
        Ok((guest.state()?.as_deref() == Some("shut off")).then_some(()))
    })?;
    let log = from.log_path(guest.name());
    let log = log.to_str().ok_or("an odd path")?;
    // Rotated files first, and each of them one up: the base becomes the newest.
    let script = format!(
        "set -e; for f in {log}.0 {log}; do [ ! -e $f ] || rsync -W $f {to}:$f.carried; done; \
         ssh {to} 'set -e; [ ! -e {log}.0.carried ] || mv -n {log}.0.carried {log}.1; \
         mv -n {log}.carried {log}.0'",
        to = to.name()
    );
    from.command(["sh", "-c", &script])
        .limit(LIMIT)
        .run()?
        .checked()?;
    Ok(())
}

/// Puts so much of a history behind the guest's log.
fn history(guest: &GuestOn, mib: usize) -> Fallible<()> {
    let path = guest.host().path(guest.log_path());
    let mut text = Vec::with_capacity((mib + 1) << 20);
    let mut line = 0_u64;
    while text.len() < mib << 20 {
        line += 1;
        text.extend(format!("older line {line:010} of what the guest printed long ago\n").bytes());
    }
    fs::write(rotated(&path, 0), text)?;
    Ok(())
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Bytes of a chain whose log lies at `path`.
fn size_of(path: &Path) -> Fallible<u64> {
    let mut all = fs::metadata(path)?.len();
    for number in 0..4 {
        all += fs::metadata(rotated(path, number)).map_or(0, |m| m.len());
    }
    Ok(all)
}

/// Every line of the guest's own is there, once, in order.
fn whole(to: &Host, name: &str) -> Fallible<()> {
    let shown = to
        .command(["logchain", "show", "-n", "4M", name])
        .run()?
        .checked()?;
    let text = shown.stdout;
    let marker = b"logchain lab guest";
    let at = text.windows(marker.len()).position(|w| w == marker);
    let own = at
        .and_then(|at| text.get(at..))
        .ok_or("the guest's first line is not there")?;
    Ticks::check_from_boot(own)?;
    Ok(())
}

/// Looks at a log's folder until it is told to end.
struct Sampler {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    fn start(path: PathBuf) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            let mut samples: Vec<Sample> = Vec::new();
            let size = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
            while !ended.load(Ordering::Acquire) {
                // The base first: bytes of it are never taken for early ones.
                let base = size(&path);
                let older = (0..4).map(|n| size(&rotated(&path, n))).sum();
                let now = (Instant::now(), base, older);
                if samples.last().is_none_or(|l| (l.1, l.2) != (base, older)) {
                    samples.push(now);
                }
                rest(LOOK);
            }
            samples
        });
        Self { ends, thread }
    }

    fn end(self) -> Fallible<Vec<Sample>> {
        self.ends.store(true, Ordering::Release);
        self.thread.join().map_err(|_| "the sampler failed".into())
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread that only samples")]
fn rest(time: Duration) {
    thread::sleep(time);
}

/// Every change that was seen, in milliseconds from the guest's first byte there.
fn show_looks(samples: &[Sample]) {
    let first = samples.iter().find(|(_, base, _)| *base > 0);
    for (at, base, older) in samples {
        let Some((first, ..)) = first else { return };
        let after = at.saturating_duration_since(*first).as_millis();
        let before = first.saturating_duration_since(*at).as_millis();
        if after < 1000 {
            eprintln!("{after:4} -{before:<5} base {base:8} rotated {older}");
        }
    }
}

/// In milliseconds; of `bytes` of history.
fn window(samples: &[Sample], bytes: u64) -> Fallible<i64> {
    let first = samples.iter().find(|(_, base, _)| *base > 0);
    let complete = samples.iter().find(|(_, _, older)| *older >= bytes);
    let (first, complete) = match (first, complete) {
        (Some(first), Some(complete)) => (first.0, complete.0),
        _ => return Err(format!("no end of {bytes} bytes in {} looks", samples.len()).into()),
    };
    let after = i64::try_from(complete.saturating_duration_since(first).as_millis())?;
    let before = i64::try_from(first.saturating_duration_since(complete).as_millis())?;
    Ok(after - before)
}
