//! How long a reader at the destination has less than the whole history: from the
//! guest's first byte there until what was printed before it is complete. A
//! negative one says how much sooner it was complete. Beside it the procedure that
//! the oldest proposal has: wait until the source is shut off, copy, rename. By turns,
//! with one guest that goes to and fro.
//!
//! ```text
//! cargo build --release -p logchain && cargo bench -p logchain-tests --bench window -- \
//!     [--runs 50] [--mib 1,64,1024] [--minutes 1000] [--csv target/window.csv] \
//!     [--ways logchain,after-shutoff]
//! ```
//!
//! The ways `agents-tls` and `agents-folder` are plain `virsh migrate` with an agent on each host;
//! the agents meet over TLS or in a folder that both hosts have. Their rows have one column more,
//! `told_ms`: the window that the destination's agent tells. It counts from libvirt's event that
//! the guest runs, and is never negative.
//!
//! Each migration is a row of the CSV file, and what is there is not measured again: so
//! it can be done in slices. `cargo xtask plot` makes a picture of it.
//! `LOGCHAIN_LOOKS=1` shows every change that was seen.

mod measure;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use measure::agents::Meeting;
use measure::looks::{Look, Looking};
use measure::rows::Rows;
use measure::shuttle::{Scene, Shuttle};
use measure::{Fallible, at, number, option};

const HEADER: &str = "way,mib,window_ms,blur_ms,migration_ms,looking_percent";

/// Where agents are among the ways.
const HEADER_OF_AGENTS: &str = "way,mib,window_ms,blur_ms,migration_ms,looking_percent,told_ms";

/// More than this of a window, in any run, and it is no success.
const MOST: i64 = 500;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Logchain,
    /// Wait, copy, rename.
    AfterShutoff,
    /// Plain `virsh migrate`, with agents on both hosts.
    Agents(Meeting),
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Logchain => "logchain",
            Self::AfterShutoff => "after-shutoff",
            Self::Agents(meeting) => meeting.name(),
        }
    }

    fn of(name: &str) -> Fallible<Self> {
        let others = [Self::Logchain, Self::AfterShutoff].into_iter();
        let mut all = others.chain(Meeting::of(name).map(Self::Agents));
        let found = all.find(|way| way.name() == name);
        Ok(found.ok_or_else(|| format!("there is no way {name}"))?)
    }
}

fn main() -> Fallible<()> {
    let runs = usize::try_from(number("--runs", 50)?)?;
    let minutes = number("--minutes", 1000)?;
    let sizes = option("--mib").unwrap_or_else(|| "1,64,1024".to_owned());
    let sizes: Vec<u64> = sizes.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let ways = option("--ways").unwrap_or_else(|| "logchain,after-shutoff".to_owned());
    let ways: Vec<Way> = ways.split(',').map(Way::of).collect::<Result<_, _>>()?;
    let has_agents = ways.iter().any(|way| matches!(way, Way::Agents(_)));
    let (header, csv) = match has_agents {
        true => (HEADER_OF_AGENTS, "target/window-agents.csv"),
        false => (HEADER, "target/window.csv"),
    };
    let csv = option("--csv").unwrap_or_else(|| csv.to_owned());
    let mut rows = Rows::open(&csv, header)?;
    let ends = Instant::now() + Duration::from_secs(minutes * 60);
    let mut todo = Vec::new();
    for run in 0..runs {
        for mib in &sizes {
            // None is always the first.
            let mut ways = ways.clone();
            let first = run % ways.len().max(1);
            ways.rotate_left(first);
            for way in ways {
                if rows.count(&[way.name(), &mib.to_string()]) <= run {
                    todo.push((way, *mib));
                }
            }
        }
    }
    if !todo.is_empty() {
        let mut shuttle = Shuttle::start(&Scene {
            tls: has_agents,
            ..Scene::default()
        })?;
        println!("{header}");
        for (way, mib) in todo {
            if Instant::now() >= ends {
                println!("the time is over: the next run goes on here");
                break;
            }
            let mut row = one(&mut shuttle, way, mib)?;
            if !has_agents {
                row.pop();
            }
            rows.add(row)?;
        }
    }
    println!("in {}:", rows.path().display());
    for mib in sizes {
        for way in &ways {
            sum_up(&rows, *way, mib)?;
        }
    }
    Ok(())
}

fn sum_up(rows: &Rows, way: Way, mib: u64) -> Fallible<()> {
    let mib = mib.to_string();
    let rows = rows.of(&[way.name(), &mib]);
    let windows = rows.iter().filter_map(|row| row.first());
    let mut windows: Vec<i64> = windows.map(|w| w.parse()).collect::<Result<_, _>>()?;
    windows.sort_unstable();
    let (runs, longest) = (windows.len(), at(&windows, 100));
    if runs == 0 {
        return Ok(());
    }
    let before = windows.iter().filter(|w| **w <= 0).count();
    let met = before * 100 >= runs * 95 && longest <= MOST;
    println!(
        "{:13} {mib:>4} MiB: complete before the first byte there in {before} of {runs}; median {} ms, \
         95 % {} ms, longest {longest} ms: the goal is {}",
        way.name(),
        at(&windows, 50),
        at(&windows, 95),
        if met { "met" } else { "missed" },
    );
    let told = rows.iter().filter_map(|row| row.get(TOLD)?.parse().ok());
    let mut told: Vec<u64> = told.collect();
    told.sort_unstable();
    if matches!(way, Way::Agents(_)) {
        println!(
            "{:13} {mib:>4} MiB: the agent tells a window in {} of {runs}; median {} ms, 95 % {} ms, \
             longest {} ms",
            way.name(),
            told.len(),
            at(&told, 50),
            at(&told, 95),
            at(&told, 100),
        );
    }
    Ok(())
}

/// The column of the agent's own window, behind those that name a row.
const TOLD: usize = 4;

/// One migration, as a row.
fn one(shuttle: &mut Shuttle, way: Way, mib: u64) -> Fallible<Vec<String>> {
    shuttle.lay(mib)?;
    let agents = match way {
        Way::Agents(meeting) => Some(shuttle.agents(meeting)?),
        Way::Logchain | Way::AfterShutoff => None,
    };
    // The base first: bytes of it are never taken for early ones.
    let looking = Looking::start(Shuttle::files(shuttle.to()));
    let began = Instant::now();
    let done = match way {
        Way::Logchain => shuttle.by_logchain().map(drop),
        Way::AfterShutoff => after_shutoff(shuttle),
        Way::Agents(_) => shuttle.by_virsh().map(drop),
    };
    let took = began.elapsed();
    // Where the migration failed there may be none.
    let handoffs = match (&agents, &done) {
        (Some(agents), Ok(())) => agents.handoffs(1, shuttle.to()),
        _ => Ok(Vec::new()),
    };
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |m| m.len());
    let bytes = Shuttle::files(shuttle.from()).iter().map(size).sum();
    let arrived = if done.is_ok() {
        shuttle.arrived()
    } else {
        Ok(())
    };
    let looks = looking.end()?;
    done?;
    arrived?;
    let told = handoffs?.into_iter().flatten().next();
    if let Some(agents) = agents {
        agents.end()?;
    }
    shuttle.check()?;
    if std::env::var_os("LOGCHAIN_LOOKS").is_some() {
        show(&looks.seen);
    }
    let (window, blur) = window(&looks.seen, bytes)?;
    Ok(vec![
        way.name().to_owned(),
        mib.to_string(),
        window.to_string(),
        blur.as_millis().to_string(),
        took.as_millis().to_string(),
        format!("{:.1}", looks.cost),
        told.map_or_else(String::new, |told| told.to_string()),
    ])
}

fn after_shutoff(shuttle: &Shuttle) -> Fallible<()> {
    shuttle.by_virsh()?;
    shuttle.until_shut_off()?;
    let from = shuttle.from();
    let log = shuttle.guest().log_path();
    let log = log.to_str().ok_or("an odd path")?;
    // Rotated files first, and each of them one up: the base becomes the newest.
    let script = format!(
        "set -e; for f in {log}.0 {log}; do [ ! -e $f ] || rsync -W $f {to}:$f.carried; done; \
         ssh {to} 'set -e; [ ! -e {log}.0.carried ] || mv -n {log}.0.carried {log}.1; \
         mv -n {log}.carried {log}.0'",
        to = shuttle.to().name()
    );
    from.command(["sh", "-c", &script])
        .limit(Duration::from_secs(300))
        .run()?
        .checked()?;
    Ok(())
}

fn base(look: &Look) -> u64 {
    look.sizes.first().copied().unwrap_or(0)
}

fn rotated(look: &Look) -> u64 {
    look.sizes.iter().skip(1).sum()
}

/// Every change that was seen, in milliseconds from the guest's first byte there.
fn show(looks: &[Look]) {
    let Some(first) = looks.iter().find(|look| base(look) > 0) else {
        return;
    };
    for look in looks {
        let after = look.at.saturating_duration_since(first.at).as_millis();
        let before = first.at.saturating_duration_since(look.at).as_millis();
        if after < 1000 {
            let (base, rotated) = (base(look), rotated(look));
            eprintln!("{after:4} -{before:<5} base {base:8} rotated {rotated}");
        }
    }
}

/// In milliseconds, of `bytes` of history; and how exact that is.
fn window(looks: &[Look], bytes: u64) -> Fallible<(i64, Duration)> {
    let first = looks.iter().find(|look| base(look) > 0);
    let complete = looks.iter().find(|look| rotated(look) >= bytes);
    let (Some(first), Some(complete)) = (first, complete) else {
        return Err(format!("no end of {bytes} bytes in {} looks", looks.len()).into());
    };
    let millis = |one: &Look, other: &Look| {
        i64::try_from(one.at.saturating_duration_since(other.at).as_millis())
    };
    let window = millis(complete, first)? - millis(first, complete)?;
    Ok((window, first.blur().max(complete.blur())))
}
