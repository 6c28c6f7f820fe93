//! One guest, many migrations among three hosts, each with a fault at a random moment
//! and then what an operator would do. After each one every line that the guest has
//! printed must be there once, in order, on the host where it is.
//!
//! ```text
//! cargo build --release -p logchain && cargo bench -p logchain-tests --bench soak -- [hops [seed [fault]]]
//! ```
//!
//! `fault`: no other than this one, by its name in [`Fault`] (`ReloadSource`).
//! The seed decides hosts, faults and moments; how fast the machine is decides what a fault
//! meets. It prints calm and floods its log by turns, so that virtlogd rolls over.
//! `LOGCHAIN_LAB_KEEP=1` keeps the hosts' folders, to look at what went wrong.

#[path = "soak/parts.rs"]
mod parts;

use std::time::{Duration, Instant, SystemTime};

use logchain_tests::{Guest, Host, Lab, Output, Pace};

use parts::{BACKUPS, Chance, FILE, Fallible, Fault, Ledger, rest};

/// Far more than a migration and its clean-up take.
const LIMIT: Duration = Duration::from_secs(180);

/// How long a fault may take to be seen by logchain.
const PATIENCE: &str = "15";

const NAME: &str = "vm";

fn main() -> Fallible<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let hops = numbers.next().unwrap_or(20);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = numbers.next().unwrap_or(now.as_secs());
    let is_named = |f: &Fault| std::env::args().any(|arg| arg == format!("{f:?}"));
    let mut faults: Vec<Fault> = Fault::ALL.iter().copied().filter(is_named).collect();
    if faults.is_empty() {
        faults = Fault::ALL.to_vec();
    }
    println!("{hops} hops, seed {seed}, {} faults", faults.len());
    let lab = Lab::builder().hosts(3).virtlogd(FILE, BACKUPS).start()?;
    // A flood fills a file; all else is kept little, so that nothing is dropped.
    let guest = Guest::new(NAME).pace(Pace::Micros(20_000));
    lab.host(0).define(&guest.floods(12_000, 22_000))?.start()?;
    lab.host(0).guest(NAME).wait_for_tick(20)?;
    let mut soak = Soak {
        lab,
        at: 0,
        usual: Duration::from_millis(2500),
        chance: Chance::of(seed),
        deck: Vec::new(),
        faults,
        ledger: Ledger::default(),
    };
    let began = Instant::now();
    let mut moved = 0;
    for hop in 1..=hops {
        let at = soak.at;
        let done = soak.hop(hop);
        if let Err(e) = done {
            soak.show_holders();
            soak.show_waiting();
            return Err(format!("hop {hop} of seed {seed}: {e}").into());
        }
        moved += u64::from(soak.at != at);
    }
    let minutes = began.elapsed().as_secs() / 60;
    println!(
        "{hops} hops in {minutes} minutes, {moved} of them to another host: {}",
        soak.ledger.verdict()
    );
    Ok(())
}

struct Soak {
    lab: Lab,
    /// The host where the guest is.
    at: usize,
    chance: Chance,
    /// How long a migration takes here.
    usual: Duration,
    /// The faults that are still to come before one comes again.
    deck: Vec<Fault>,
    faults: Vec<Fault>,
    ledger: Ledger,
}

impl Soak {
    fn hop(&mut self, hop: u64) -> Fallible<()> {
        let began = Instant::now();
        let to = (self.at + 1 + self.chance.below(2)) % 3;
        if self.deck.is_empty() {
            self.deck = self.chance.shuffled(&self.faults);
        }
        let fault = self.deck.pop().unwrap_or(Fault::None);
        // Anywhere in a migration, and a little after it.
        let share = u32::try_from(self.chance.below(1100)).unwrap_or(0);
        let moment = self.usual * share / 1000;
        let (from, to_host) = (self.lab.host(self.at).clone(), self.lab.host(to).clone());
        println!(
            "hop {hop}: {} → {}, {} {}",
            from.name(),
            to_host.name(),
            fault.words(&from, &to_host),
            if fault.has_moment() {
                format!("after {} ms", moment.as_millis())
            } else {
                String::new()
            }
        );
        fault.prepare(&to_host)?;
        let program = if fault == Fault::Plain {
            "virsh"
        } else {
            "logchain"
        };
        let mut command = from.command([program, "migrate", "--live", "--p2p", "--persistent"]);
        if fault != Fault::Plain {
            // What it was about is told should it not end.
            command = command.args(["--verbose", "--patience", PATIENCE]);
        }
        let mut running = command.args([NAME, &to_host.uri()]).spawn()?;
        if fault.has_moment() {
            rest(moment);
            fault.strike(&mut running, &from, &to_host)?;
        }
        let output = running.wait(LIMIT)?;
        if fault == Fault::None {
            self.usual = output.took;
        }
        let said = [output.out(), output.err()].concat();
        let said = said.trim().replace('\n', "\n    ");
        match output.code() {
            Some(code) => println!("  ended with {code}: {said}"),
            None => println!("  was killed: {said}"),
        }
        fault.mend(&to_host)?;
        let there = self.settle(self.at, to)?;
        let is_moved = there == to;
        agrees(fault, &output, is_moved)?;
        if is_moved && (fault == Fault::Plain || output.code() != Some(0)) {
            recover(&from, &to_host, &output)?;
        }
        self.at = there;
        let guest = self.lab.host(there).guest(NAME);
        guest.wait_for_more_ticks(20)?;
        let show = ["logchain", "show", "-n", "all", NAME];
        let text = guest.host().command(show).run()?.checked()?.stdout;
        let told = self.ledger.add(&text)?;
        let seconds = began.elapsed().as_secs_f32();
        println!("  {} has {told} ({seconds:.1} s)", guest.host().name());
        Ok(())
    }

    /// Waits until the guest runs on one of the two and nothing is under way; gives which.
    fn settle(&self, from: usize, to: usize) -> Fallible<usize> {
        let began = Instant::now();
        let mut woken = false;
        // Who was killed may have asked libvirt a moment before: not at the first look.
        let mut seen = (from, 0);
        loop {
            let mut states = Vec::new();
            for host in [from, to] {
                states.push(self.lab.host(host).guest(NAME).state()?.unwrap_or_default());
            }
            let states: Vec<&str> = states.iter().map(String::as_str).collect();
            let mut is_at = None;
            match states[..] {
                ["running", other] if is_over(other) && self.is_idle(from)? => is_at = Some(from),
                [other, "running"] if is_over(other) => is_at = Some(to),
                // The destination's libvirtd let it go on, and could not say so any more. It
                // is said to be at the source: the operator ends the other one.
                ["running", "running"]
                    if began.elapsed() > Duration::from_secs(20) && self.is_idle(from)? =>
                {
                    let host = self.lab.host(to);
                    println!("  it runs on both: ended on {}", host.name());
                    host.run(["virsh", "destroy", NAME])?;
                }
                // libvirt leaves it paused where it could not learn how it ended; the operator
                // looks on both hosts, and lets it go on where it is alone.
                [one, other] if !woken && began.elapsed() > Duration::from_secs(20) => {
                    let host = if is_over(one) && other == "paused" {
                        to
                    } else {
                        from
                    };
                    let host = self.lab.host(host);
                    println!("  {one:?} and {other:?}: resumed on {}", host.name());
                    host.run(["virsh", "resume", NAME])?;
                    woken = true;
                }
                _ => {}
            }
            seen = match is_at {
                Some(at) if at == seen.0 => (at, seen.1 + 1),
                Some(at) => (at, 1),
                None => (from, 0),
            };
            if seen.1 >= 5 {
                return Ok(seen.0);
            }
            if began.elapsed() > Duration::from_secs(90) {
                return Err(format!("the guest does not run on one host alone: {states:?}").into());
            }
            rest(Duration::from_millis(100));
        }
    }

    /// Who has a file of the log open, on any host: after a failure.
    fn show_holders(&self) {
        const SCRIPT: &str = "for fd in /proc/[0-9]*/fd/*; do to=$(readlink $fd); \
            case $to in *console.log*) p=${fd#/proc/}; p=${p%%/*}; \
            echo \"$(cat /proc/$p/comm) $p has $to, $(grep flags /proc/$p/fdinfo/${fd##*/})\"; esac; done; \
            ls -lai $(dirname {LOG})";
        for host in self.lab.hosts() {
            let log = host.log_path(NAME);
            let script = SCRIPT.replace("{LOG}", &log.to_string_lossy());
            if let Ok(output) = host.run(["sh", "-c", &script]) {
                println!("on {}:\n{}", host.name(), output.out());
            }
        }
    }

    /// What libvirt's programs wait for, where there is a debugger: one that hangs is
    /// none of ours, and plain `virsh migrate` hangs with it.
    fn show_waiting(&self) {
        const SCRIPT: &str = "ps -eo pid,stat,wchan:20,args | cut -c1-150; \
            for p in $(pgrep -x libvirtd) $(pgrep -x virtlogd); do \
            timeout 30 gdb -p $p -batch -ex 'thread apply all bt 14' 2>/dev/null | grep -e ^# -e ^Thread; done";
        for host in self.lab.hosts() {
            if let Ok(output) = host.run(["sh", "-c", SCRIPT]) {
                println!("on {}:\n{}", host.name(), output.out());
            }
        }
    }

    /// No migration is under way.
    fn is_idle(&self, host: usize) -> Fallible<bool> {
        let info = self.lab.host(host).run(["virsh", "domjobinfo", NAME])?;
        Ok(info.status.success() && info.out().contains("None"))
    }
}

fn is_over(state: &str) -> bool {
    !matches!(state, "paused" | "running")
}

/// What logchain ended with must be true.
fn agrees(fault: Fault, output: &Output, is_moved: bool) -> Fallible<()> {
    let fits = match output.code() {
        Some(0) => is_moved,
        Some(1) => !is_moved || fault == Fault::Plain,
        // Nobody could tell where it is, and it says so.
        Some(3) => is_moved || output.err().contains("nobody can tell"),
        Some(_) => false,
        None => fault == Fault::KillSource,
    };
    if fits {
        return Ok(());
    }
    let moved = if is_moved { "moved" } else { "stayed" };
    Err(format!("the guest {moved}, but it ended with {:?}", output.code()).into())
}

/// Brings over what stayed behind, by the command that was printed, where one was.
fn recover(from: &Host, to: &Host, output: &Output) -> Fallible<()> {
    let said = output.err();
    let printed = said.lines().find_map(|line| {
        let (_, command) = line.split_once("bring it over with: ")?;
        Some(command.to_owned())
    });
    let transport = format!("ssh://{}", to.name());
    let own = format!("logchain offer --transport {transport} {NAME}");
    let command = printed.unwrap_or(own);
    let offered = from.command(["sh", "-c", &command]).limit(LIMIT).run()?;
    let words = [offered.out(), offered.err()].concat();
    println!("  {command}\n    {}", words.trim().replace('\n', "\n    "));
    offered.checked()?;
    Ok(())
}
