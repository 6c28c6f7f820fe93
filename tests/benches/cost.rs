//! What it costs a migration to bring the log along: pairs of `logchain migrate` and
//! plain `virsh migrate`, in turns of A B B A, with one guest that goes to and fro.
//!
//! ```text
//! cargo build --release -p logchain && cargo bench -p logchain-tests --bench cost -- \
//!     [--pairs 30] [--mib 1] [--minutes 1000] [--csv target/cost.csv] [--huge-pages] \
//!     [--dirty 12] [--mbit 1000] [--agents tls|folder]
//! ```
//!
//! `--agents tls`, `--agents folder`: in the place of `logchain migrate` it is `virsh migrate` with
//! an agent on each host; they meet over TLS or in a folder. The other half of each pair has none.
//!
//! `--huge-pages`: the guest's memory lies in huge pages of a pool. Without it the destination's
//! QEMU gets fresh pages while memory is copied, which takes 50 or 200 ms as the machine has
//! them at hand; the rest of it falls into the downtime, and the draw decides.
//!
//! `--dirty 12 --mbit 1000`: a guest that writes to 12 MiB of its memory all the time, on a line of
//! 1 Gbit/s between the hosts. An idle guest beside a destination in the same machine stands still
//! for 10 ms, which libvirt counts whole: one of them is a tenth. This one does for more than 100.
//!
//! - *migration*: from the begin of libvirt's job to its end, as libvirt says. What logchain
//!   does before it (a head start for a long history) and after it (the last of the log is
//!   confirmed) is in *command*, from the start of the program to its end.
//! - *downtime*: how long the guest stood still, as libvirt says: from the stop of its processor at
//!   the source to its start at the destination, by the two QEMUs' own clocks. No program beside them
//!   has to be scheduled to see it, as with events.
//! - *silence*: the same as a reader sees it: from the last byte in the source's log to the
//!   first in the destination's. It has virtlogd's and the guest's own time in it.

mod measure;

use std::time::{Duration, Instant};

use logchain_tests::Host;
use measure::agents::Meeting;
use measure::looks::{Look, Looking};
use measure::rows::Rows;
use measure::shuttle::{Scene, Shuttle};
use measure::{Fallible, at, number, option};

const HEADER: &str =
    "way,mib,scene,migration_ms,downtime_ms,silence_ms,command_ms,blur_ms,looking_percent";

/// What a figure may be of plain virsh's.
const FIGURES: [(&str, usize, Option<f64>); 4] = [
    ("migration", 0, Some(1.03)),
    ("downtime", 1, Some(1.02)),
    ("silence", 2, None),
    ("command", 3, None),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Logchain,
    /// As `Virsh`, with agents on both hosts.
    Agents(Meeting),
    Virsh,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Logchain => "logchain",
            Self::Agents(meeting) => meeting.name(),
            Self::Virsh => "virsh",
        }
    }
}

/// What is measured.
struct What {
    /// What is measured beside plain virsh.
    ours: Way,
    mib: u64,
    scene: Scene,
}

impl What {
    /// The first columns of its rows.
    fn of(&self, way: &Way) -> [String; 3] {
        [
            way.name().to_owned(),
            self.mib.to_string(),
            self.scene_name(),
        ]
    }

    fn scene_name(&self) -> String {
        let Scene {
            huge, dirty, mbit, ..
        } = self.scene;
        let pages = if huge { "huge" } else { "ordinary" };
        let line = mbit.map_or_else(String::new, |mbit| format!(" {mbit} Mbit/s"));
        format!("{pages} pages {dirty} MiB dirty{line}")
    }
}

fn main() -> Fallible<()> {
    let pairs = usize::try_from(number("--pairs", 30)?)?;
    let mib = number("--mib", 1)?;
    let minutes = number("--minutes", 1000)?;
    let csv = option("--csv").unwrap_or_else(|| "target/cost.csv".to_owned());
    let ours = match option("--agents") {
        Some(way) => {
            let meeting = Meeting::of(&format!("agents-{way}"));
            Way::Agents(meeting.ok_or_else(|| format!("agents do not meet by {way}"))?)
        }
        None => Way::Logchain,
    };
    let scene = Scene {
        huge: std::env::args().any(|word| word == "--huge-pages"),
        dirty: u32::try_from(number("--dirty", 0)?)?,
        mbit: option("--mbit").map(|text| text.parse()).transpose()?,
        tls: ours == Way::Agents(Meeting::Tls),
    };
    let what = What { ours, mib, scene };
    let mut rows = Rows::open(&csv, HEADER)?;
    let ends = Instant::now() + Duration::from_secs(minutes * 60);
    let mut todo = Vec::new();
    for pair in 0..pairs {
        let ways = match pair % 2 {
            0 => [Way::Virsh, ours],
            _ => [ours, Way::Virsh],
        };
        let is_missing = |way: &Way| rows.count(&what.of(way)) <= pair;
        todo.extend(ways.into_iter().filter(is_missing));
    }
    if !todo.is_empty() {
        let mut shuttle = Shuttle::start(&scene)?;
        // The first one after a boot finds memory that no other finds.
        one(&mut shuttle, Way::Virsh, &what)?;
        println!("{HEADER}");
        for way in todo {
            if Instant::now() >= ends {
                println!("the time is over: the next run goes on here");
                break;
            }
            rows.add(one(&mut shuttle, way, &what)?)?;
        }
    }
    println!(
        "in {}, {mib} MiB of history, {}:",
        rows.path().display(),
        what.scene_name()
    );
    for (name, column, most) in FIGURES {
        sum_up(&rows, &what, name, column, most)?;
    }
    Ok(())
}

/// One migration, as a row.
fn one(shuttle: &mut Shuttle, way: Way, what: &What) -> Fallible<Vec<String>> {
    shuttle.lay(what.mib)?;
    let agents = match way {
        Way::Agents(meeting) => Some(shuttle.agents(meeting)?),
        Way::Logchain | Way::Virsh => None,
    };
    let base = |host| Shuttle::files(host).into_iter().next();
    let bases = [base(shuttle.from()), base(shuttle.to())];
    let looking = Looking::start(bases.into_iter().flatten().collect());
    let output = match way {
        Way::Logchain => shuttle.by_logchain(),
        Way::Virsh | Way::Agents(_) => shuttle.by_virsh(),
    };
    let done = output.and_then(|output| {
        let job = Job::of(shuttle.from())?;
        shuttle.until_shut_off()?;
        shuttle.arrived()?;
        Ok((output, job))
    });
    let looks = looking.end()?;
    let (output, job) = done?;
    if let Some(agents) = agents {
        // It has arrived: where it is now is the destination.
        agents.handoffs(1, shuttle.from())?;
        agents.end()?;
    }
    if way != Way::Virsh {
        shuttle.check()?;
    }
    let (silence, blur) = silence(&looks.seen)?;
    let mut row = what.of(&way).to_vec();
    row.extend([
        job.elapsed.to_string(),
        job.downtime.to_string(),
        silence.as_millis().to_string(),
        output.took.as_millis().to_string(),
        blur.as_millis().to_string(),
        format!("{:.1}", looks.cost),
    ]);
    Ok(row)
}

/// What libvirt says of a migration that is over; in milliseconds.
struct Job {
    elapsed: u64,
    downtime: u64,
}

impl Job {
    fn of(host: &Host) -> Fallible<Self> {
        let info = host.run(["virsh", "domjobinfo", "--completed", "vm"])?;
        let text = info.checked()?.out();
        let figure = |name: &str| -> Fallible<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let words =
                line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
            let number = words.and_then(|word| word.parse().ok());
            Ok(number.ok_or_else(|| format!("libvirt does not say \"{name}\":\n{text}"))?)
        };
        Ok(Self {
            elapsed: figure("Time elapsed")?,
            downtime: figure("Total downtime")?,
        })
    }
}

/// From the source's last byte to the destination's first, and how exact that is.
fn silence(looks: &[Look]) -> Fallible<(Duration, Duration)> {
    let size = |look: &Look, file: usize| look.sizes.get(file).copied().unwrap_or(0);
    let first = looks.iter().find(|look| size(look, 1) > 0);
    let most = looks.iter().map(|look| size(look, 0)).max().unwrap_or(0);
    let last = looks.iter().find(|look| size(look, 0) == most);
    let (first, last) = first.zip(last).ok_or("nothing was printed")?;
    let silence = first.at.saturating_duration_since(last.at);
    Ok((silence, first.blur().max(last.blur())))
}

fn sum_up(rows: &Rows, what: &What, name: &str, column: usize, most: Option<f64>) -> Fallible<()> {
    let figures = |way: Way| -> Fallible<Vec<f64>> {
        let cells = rows.of(&what.of(&way));
        let cells = cells.iter().filter_map(|row| row.get(column));
        Ok(cells.map(|cell| cell.parse()).collect::<Result<_, _>>()?)
    };
    let (ours, theirs) = (figures(what.ours)?, figures(Way::Virsh)?);
    let mut ratios: Vec<f64> = ours
        .iter()
        .zip(&theirs)
        .map(|(a, b)| a / b.max(1.0))
        .collect();
    let sorted = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all
    };
    ratios.sort_by(f64::total_cmp);
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    let (low, high) = sure(&ratios);
    let goal = most.map_or_else(String::new, |most| {
        let met = if at(&ratios, 50) <= most {
            "met"
        } else {
            "missed"
        };
        format!("; the goal of {most} is {met}")
    });
    println!(
        "{name:9} {} {:5.0} ms, virsh {:5.0} ms (medians, {:.3} times); {} pairs: {:.3} times, half of \
         them between {:.3} and {:.3}, the median itself between {:.3} and {:.3} with 95 %{goal}",
        what.ours.name(),
        at(&ours, 50),
        at(&theirs, 50),
        at(&ours, 50) / at(&theirs, 50).max(1.0),
        ratios.len(),
        at(&ratios, 50),
        at(&ratios, 25),
        at(&ratios, 75),
        low,
        high,
    );
    Ok(())
}

/// Between which of the sorted figures the true median lies, with 95 %: by their ranks, whatever
/// they are spread like.
fn sure(sorted: &[f64]) -> (f64, f64) {
    let half = sorted.len() / 2;
    let mut aside = 0;
    // Just below the root of the number.
    while (aside + 1) * (aside + 1) <= sorted.len() {
        aside += 1;
    }
    let last = sorted.len().saturating_sub(1);
    let figure = |rank: usize| sorted.get(rank.min(last)).copied().unwrap_or_default();
    (figure(half.saturating_sub(aside)), figure(half + aside))
}
