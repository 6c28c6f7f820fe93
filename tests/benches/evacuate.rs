//! A host is evacuated: many guests leave it at once, with an agent on each host. What the agents
//! need for it, and when the histories are complete.
//!
//! ```text
//! cargo build --release -p logchain && cargo bench -p logchain-tests --bench evacuate -- \
//!     [--guests 8] [--mib 8] [--runs 3] [--agents tls|folder]
//! ```
//!
//! All guests leave at once and go back in the next run, so that each host is source and
//! destination by turns. A line for each figure: its name, and the median, least and most of the
//! runs. *peak* is the most memory that an agent has had since its start; agents are started anew
//! for each run. Emulated guests keep the processors busy, so look at the memory rather than the
//! times.

#[path = "measure/agents.rs"]
mod agents;
#[path = "measure/figures.rs"]
mod figures;
#[path = "measure/process.rs"]
mod process;

use std::fs;
use std::time::{Duration, Instant};

use agents::{Agents, Meeting};
use figures::{Figures, number, option};
use logchain_tests::{Guest, Host, Lab, Running, Ticks};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Far more than all of them take.
const LIMIT: Duration = Duration::from_secs(300);

/// The last words of each history that is laid.
const MARK: &[u8] = b"the end of what the guest printed long ago\n";

/// The agent's process, as the kernel cuts its name.
const PROCESS: &str = "logchain-libvir";

fn main() -> Fallible<()> {
    let guests = usize::try_from(number("--guests", 8)?)?;
    let mib = usize::try_from(number("--mib", 8)?)?;
    let runs = usize::try_from(number("--runs", 3)?)?;
    let way = option("--agents").unwrap_or_else(|| "tls".to_owned());
    let meeting = Meeting::of(&format!("agents-{way}"));
    let meeting = meeting.ok_or_else(|| format!("agents do not meet by {way}"))?;
    let lab = Lab::builder().hosts(2).virtlogd(0, 3).tls().start()?;
    let names: Vec<String> = (0..guests).map(|n| format!("vm{n}")).collect();
    for name in &names {
        lab.host(0).define(&Guest::new(name))?.start()?;
    }
    for name in &names {
        let guest = lab.host(0).guest(name);
        guest.wait_for_tick(100)?;
        // A start wipes what there is, so it is laid now.
        let mut rotated = lab.host(0).path(guest.log_path()).into_os_string();
        rotated.push(".0");
        fs::write(rotated, history(mib << 20, name))?;
    }
    let mut figures = Figures::default();
    for run in 0..runs {
        let (from, to) = (lab.host(run % 2), lab.host((run + 1) % 2));
        one((&lab, meeting), (from, to), &names, &mut figures)?;
    }
    println!("{} {guests} guests with {mib} MiB each", meeting.name());
    figures.print();
    Ok(())
}

/// All guests go from one host to the other.
fn one(
    (lab, meeting): (&Lab, Meeting),
    (from, to): (&Host, &Host),
    names: &[String],
    figures: &mut Figures,
) -> Fallible<()> {
    let agents = Agents::start(lab, meeting)?;
    for name in names {
        from.guest(name).wait_for_more_ticks(50)?;
    }
    let resting = peaks([from, to])?;
    let began = Instant::now();
    let leaving = names.iter().map(|name| {
        let command = ["virsh", "--quiet", "migrate", "--live", "--p2p"];
        let command = from
            .command(command)
            .args(["--persistent", name, &to.uri()]);
        command.limit(LIMIT).spawn()
    });
    let leaving: Vec<Running> = leaving.collect::<Result<_, _>>()?;
    for migration in leaving {
        migration.wait(LIMIT)?.checked()?;
    }
    let migrated = began.elapsed();
    let windows = agents.handoffs(names.len(), to)?;
    let carried = began.elapsed();
    let peaks = peaks([from, to])?;
    agents.end()?;
    for name in names {
        let guest = to.guest(name);
        guest.wait_for_more_ticks(50)?;
        let show = to.command(["logchain", "show", "-n", "all", name]).run()?;
        let text = show.checked()?.stdout;
        let end = text.windows(MARK.len()).rposition(|w| w == MARK);
        let own = end.and_then(|at| text.get(at + MARK.len()..));
        Ticks::check_from_boot(own.ok_or("the end of the history is not there")?)?;
    }
    let mib = |kib: u64| kib.div_ceil(1024);
    figures.add("source_before_mib", mib(resting[0]));
    figures.add("source_peak_mib", mib(peaks[0]));
    figures.add("destination_before_mib", mib(resting[1]));
    figures.add("destination_peak_mib", mib(peaks[1]));
    figures.add("all_migrated_ms", u64::try_from(migrated.as_millis())?);
    figures.add("all_carried_ms", u64::try_from(carried.as_millis())?);
    for window in windows.into_iter().flatten() {
        figures.add("window_told_ms", window);
    }
    Ok(())
}

/// The most memory that the agent of each host has had at once, in KiB.
fn peaks(hosts: [&Host; 2]) -> Fallible<[u64; 2]> {
    let mut peaks = [0; 2];
    for (host, peak) in hosts.into_iter().zip(&mut peaks) {
        // The agent is the oldest of its name.
        let pids = host.processes(PROCESS)?;
        let pid = pids.iter().min().ok_or("no agent runs")?;
        *peak = process::field(&host.path(format!("/proc/{pid}")), "VmHWM")?;
    }
    Ok(peaks)
}

/// So many bytes, a little more: lines with digits that no compression takes away.
fn history(bytes: usize, name: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.saturating_add(256));
    let mut state: u64 = name.bytes().fold(0x9e37_79b9_7f4a_7c15, |state, byte| {
        state.rotate_left(8) ^ u64::from(byte)
    });
    while text.len() < bytes {
        for _ in 0..4 {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.extend_from_slice(format!("{state:016x} ").as_bytes());
        }
        text.push(b'\n');
    }
    text.extend_from_slice(MARK);
    text
}
