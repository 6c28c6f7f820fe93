//! Ten guests and many migrations among three hosts with agents, which `virsh` starts, with
//! random options and random faults; nobody calls `logchain`. In the end every line that each guest
//! has printed must be there once, in order, on the host where it is; and no agent may have more
//! open files, memory or spooled pieces than it had at the beginning.
//!
//! ```text
//! cargo build --release -p logchain && cargo bench -p logchain-tests --bench agent_soak -- [hops [seed [fault]]]
//! ```
//!
//! The seed decides guests, hosts, options, faults, moments, and whether agents meet over TLS (an
//! odd one) or in a folder; how fast the machine is decides what a fault meets. `fault`: no other
//! than this one, by its name in [`Fault`]. `LOGCHAIN_LAB_KEEP=1` keeps the hosts' folders.

#![expect(
    clippy::indexing_slicing,
    reason = "a panic ends the run, and is a failure"
)]

#[path = "agent_soak/agents.rs"]
mod agents;
#[path = "soak/parts.rs"]
#[expect(dead_code, reason = "the other soak uses the rest")]
mod parts;

use std::time::{Duration, Instant, SystemTime};

use logchain_tests::{Guest, GuestOn, Lab, Output, Pace, Running, TickError, Ticks, until};

use agents::{Agent, FOLDER, Fault, TLS, Usage};
use parts::{Chance, Fallible, rest};

/// Far more than a migration takes.
const LIMIT: Duration = Duration::from_secs(240);

/// How long all may take to be carried, once nothing is broken any more.
const CARRIED: Duration = Duration::from_secs(240);

const GUESTS: usize = 10;
const MOST_CRASHED: usize = 4;
const HOSTS: usize = 3;

/// A hop in so many is followed by a look at every log; the others go on at once.
const CHECK: u64 = 10;

fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut numbers = args.iter().filter_map(|a| a.parse::<u64>().ok());
    let hops = numbers.next().unwrap_or(20);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = numbers.next().unwrap_or(now.as_secs());
    let mut faults = Fault::ALL.to_vec();
    if let Some(only) = args.iter().find_map(|a| Fault::named(a)) {
        faults = vec![only];
    }
    let way = if seed % 2 == 1 { "TLS" } else { "a folder" };
    println!(
        "{hops} hops, seed {seed}, over {way}, {} faults",
        faults.len()
    );
    let mut soak = Soak::start(seed, faults)?;
    let began = Instant::now();
    for hop in 1..=hops {
        let done = soak.hop(hop);
        let done = done.and_then(|()| match hop % CHECK == 0 || hop == hops {
            true => soak.check(),
            false => Ok(()),
        });
        if let Err(e) = done {
            soak.agents.iter().for_each(Agent::show);
            return Err(format!("hop {hop} of seed {seed}: {e}").into());
        }
    }
    soak.is_as_at_the_beginning()?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!(
        "{hops} hops in {minutes:.1} minutes, {} of them to another host; every line of {GUESTS} \
         guests is there once, in order",
        soak.moved
    );
    Ok(())
}

struct Soak {
    lab: Lab,
    agents: Vec<Agent>,
    /// The host where each guest is.
    at: Vec<usize>,
    /// Guests whose kernel crashed, as QEMU's processor lets it now and then: they are left out.
    crashed: Vec<usize>,
    chance: Chance,
    faults: Vec<Fault>,
    deck: Vec<Fault>,
    moved: u64,
    before: Vec<Usage>,
}

fn name(guest: usize) -> String {
    format!("vm{guest}")
}

impl Soak {
    fn start(seed: u64, faults: Vec<Fault>) -> Fallible<Self> {
        let lab = Lab::builder().hosts(HOSTS).tls().start()?;
        let config = match seed % 2 {
            1 => TLS.to_owned(),
            _ => FOLDER.replace("STATE", &lab.state().display().to_string()),
        };
        let mut at = Vec::new();
        for guest in 0..GUESTS {
            let host = guest % HOSTS;
            // Little, since two processors have to print for ten guests.
            let vm = Guest::new(&name(guest)).pace(Pace::Micros(50_000));
            lab.host(host).define(&vm.append(guest % 2 == 1))?.start()?;
            at.push(host);
            // One after the other: a boot takes a whole processor.
            lab.host(host).guest(&name(guest)).wait_for_tick(5)?;
        }
        let agents = lab.hosts().iter().map(|host| Agent::start(host, &config));
        let agents = agents.collect::<Fallible<Vec<_>>>()?;
        let mut soak = Self {
            lab,
            agents,
            at,
            crashed: Vec::new(),
            chance: Chance::of(seed),
            faults,
            deck: Vec::new(),
            moved: 0,
            before: Vec::new(),
        };
        soak.before = soak.usage()?;
        Ok(soak)
    }

    fn guest(&self, guest: usize) -> GuestOn {
        self.lab.host(self.at[guest]).guest(&name(guest))
    }

    /// One migration with a fault at some moment of it, or a little after it.
    fn hop(&mut self, hop: u64) -> Fallible<()> {
        let guest = loop {
            let guest = self.chance.below(GUESTS);
            if !self.crashed.contains(&guest) {
                break guest;
            }
        };
        let from = self.at[guest];
        let to = (from + 1 + self.chance.below(HOSTS - 1)) % HOSTS;
        if self.deck.is_empty() {
            self.deck = self.chance.shuffled(&self.faults);
        }
        let fault = self.deck.pop().unwrap_or(Fault::None);
        let struck = if self.chance.below(2) == 0 { from } else { to };
        let moment = Duration::from_millis(self.chance.below(4000) as u64);
        let removes = self.chance.below(2) == 0;
        let mut way = vec!["--live", "--persistent"];
        match self.chance.below(4) {
            0 => {}
            1 => way.extend(["--p2p", "--postcopy", "--postcopy-after-precopy"]),
            _ => way.push("--p2p"),
        }
        if removes {
            way.push("--undefinesource");
        }
        println!(
            "hop {hop}: {} h{} → h{} {way:?}, {fault:?} at h{} after {} ms",
            name(guest),
            from + 1,
            to + 1,
            struck + 1,
            moment.as_millis()
        );
        let here = self.guest(guest);
        // As an orchestrator does it: the folder is made before, and removed after it.
        self.lab.host(to).guest(&name(guest)).make_log_folder()?;
        let command = here
            .host()
            .command(["virsh", "--quiet", "migrate"])
            .args(&way);
        let command = command.args([&name(guest), &self.lab.host(to).uri()]);
        let running = command.limit(LIMIT).spawn()?;
        let output = self.strike(fault, struck, moment, running)?;
        let there = self.settle(guest, from, to)?;
        if there == to {
            self.moved += 1;
            if removes && here.state()?.is_none() {
                here.remove_log_folder()?;
            }
        }
        if !output.status.success() {
            println!("  virsh: {}", output.err().trim());
        }
        self.at[guest] = there;
        Ok(())
    }

    fn strike(
        &mut self,
        fault: Fault,
        struck: usize,
        moment: Duration,
        running: Running,
    ) -> Fallible<Output> {
        if fault == Fault::None {
            return Ok(running.wait(LIMIT)?);
        }
        rest(moment);
        fault.strike(&mut self.agents[struck])?;
        // What hangs or is cut off does so for some seconds, and then the operator comes.
        rest(Duration::from_millis(1500));
        fault.mend(&mut self.agents[struck])?;
        Ok(running.wait(LIMIT)?)
    }

    /// Waits until the guest runs on one of the two hosts alone; gives which.
    fn settle(&self, guest: usize, from: usize, to: usize) -> Fallible<usize> {
        let began = Instant::now();
        let mut woken = false;
        let at = |host: usize| self.lab.host(host).guest(&name(guest));
        let is_over = |state: &str| !matches!(state, "paused" | "running");
        loop {
            let states = [from, to].map(|host| at(host).state());
            let [here, there] = states;
            let (here, there) = (here?.unwrap_or_default(), there?.unwrap_or_default());
            match (here.as_str(), there.as_str()) {
                ("running", other) if is_over(other) => return Ok(from),
                (other, "running") if is_over(other) => return Ok(to),
                _ => {}
            }
            // Where libvirt cannot know how it ended, an operator decides.
            if began.elapsed() > Duration::from_secs(30) && !woken {
                woken = true;
                println!("  {here:?} and {there:?}: an operator looks");
                if here == "running" || (here == "paused" && there == "paused") {
                    drop(at(to).destroy());
                }
                let host = if here.is_empty() || is_over(&here) {
                    to
                } else {
                    from
                };
                let resume = ["virsh", "resume", &name(guest)];
                self.lab.host(host).run(resume)?;
            }
            if began.elapsed() > LIMIT {
                return Err(format!("{} is {here:?} and {there:?}", name(guest)).into());
            }
            rest(Duration::from_millis(100));
        }
    }

    /// Every log is whole where its guest is.
    fn check(&mut self) -> Fallible<()> {
        for guest in 0..GUESTS {
            if self.crashed.contains(&guest) {
                continue;
            }
            let at = self.guest(guest);
            let mut last = String::new();
            let show = ["logchain", "show", "-n", "all", &name(guest)];
            let whole = until("the log to be whole", CARRIED, || {
                let log = at.host().run(show)?;
                match Ticks::check_from_boot(&log.stdout) {
                    Ok(report) => Ok(Some(report.to_string())),
                    Err(e @ TickError::Crashed { .. }) => Ok(Some(e.to_string())),
                    Err(e) => {
                        last = format!("{e} {}", log.err());
                        Ok(None)
                    }
                }
            });
            let report = whole.map_err(|e| {
                let files = at
                    .host()
                    .run(["ls", "-la", &format!("/var/log/lab/{}", name(guest))]);
                let files = files.map(|f| f.out()).unwrap_or_default();
                format!(
                    "{} on {}: {last}\n{files}{e}",
                    name(guest),
                    at.host().name()
                )
            })?;
            println!("  {} on {}: {report}", name(guest), at.host().name());
            if report.contains("it crashed") {
                self.crashed.push(guest);
                at.destroy()?;
                if self.crashed.len() > MOST_CRASHED {
                    return Err("too many guests crashed".into());
                }
            }
        }
        Ok(())
    }

    fn usage(&self) -> Fallible<Vec<Usage>> {
        self.agents.iter().map(Agent::usage).collect()
    }

    /// Agents have no more of anything than before the first hop, but for what a guest that is
    /// here now costs, and some memory of the allocator's.
    fn is_as_at_the_beginning(&self) -> Fallible<()> {
        let mut last = String::new();
        let fits = until("the agents to be as at the beginning", CARRIED, || {
            let now = self.usage().unwrap_or_default();
            last = format!("{:?}, and now {now:?}", self.before);
            let pairs = self.before.iter().zip(&now);
            let fits = now.len() == HOSTS && pairs.clone().all(|(before, now)| now.fits(before));
            Ok(fits.then_some(()))
        });
        println!("  in the beginning {last}");
        fits.map_err(|e| format!("{last}: {e}").into())
    }
}
