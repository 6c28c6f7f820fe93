//! The failure matrix: what breaks around a migration, when, and what holds then.
//! Whatever it is, each row ends in the laws: the VM runs on one host, the exit
//! status and one sentence say what became of the log, which is whole at the
//! destination or whole at the source; nothing is left in spools and staging; and
//! what stayed behind is brought over in the end, every line once, in order.
//!
//! Each row prints one line: `row | what breaks, when | what came of it`.
//! Those that take minutes are ignored unless asked for (`--run-ignored all`);
//! `LOGCHAIN_TEST_FAULTS=all` kills at every phase, not at a sample.

mod clock;
mod daemons;
mod disks;
mod guests;
mod kills;
mod network;
mod outbox;

use std::error::Error;
use std::time::Instant;

use crate::common::{MIGRATION, Outcome, history, sorted_names, spool_files};
use logchain_tests::{Guest, GuestOn, Host, Lab, LabError, Output, Running, TickReport, Ticks};

type Fallible<T> = Result<T, Box<dyn Error>>;

const P2P: &[&str] = &["--live", "--p2p", "--persistent"];

/// What QEMU is called, as the system cuts it.
const QEMU: &str = "qemu-system-x86";

/// What the program is called once it needs libvirt, likewise.
const LOGCHAIN: &str = "logchain-libvir";

/// How fast memory is copied where there has to be time for something to break, in
/// MiB/s. At 10 an emulated QEMU leaves memory at the destination that is behind its
/// processor: with plain virsh too, the guest prints lines twice there, or stops.
const PACE: &str = "32";

/// Lines that the guest prints before anything breaks.
const LINES: u64 = 300;

/// Whether every moment is wanted, not a sample.
pub(crate) fn all_moments() -> bool {
    std::env::var_os("LOGCHAIN_TEST_FAULTS").is_some_and(|value| value == "all")
}

/// Runs a row, on two hosts and a guest that has printed some lines on the first one.
fn row(name: &str, what: impl FnOnce(&Scene) -> Fallible<String>) -> Outcome {
    row_with(name, &Guest::new("vm"), LINES, what)
}

fn row_with(
    name: &str,
    guest: &Guest,
    lines: u64,
    what: impl FnOnce(&Scene) -> Fallible<String>,
) -> Outcome {
    let lab = Lab::start(2)?;
    let vm = lab.host(0).define(guest)?;
    vm.start()?;
    vm.wait_for_tick(lines)?;
    let started = Instant::now();
    let scene = Scene { lab };
    let outcome = what(&scene).map_err(|e| format!("{name}: {e}"))?;
    let seconds = started.elapsed().as_secs_f64();
    println!("row | {name} | {outcome} ({seconds:.1} s)");
    Ok(())
}

/// Where the guest is after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

struct Scene {
    lab: Lab,
}

impl Scene {
    fn h1(&self) -> &Host {
        self.lab.host(0)
    }

    fn h2(&self) -> &Host {
        self.lab.host(1)
    }

    fn at(&self, side: Side) -> GuestOn {
        match side {
            Side::Source => self.h1().guest("vm"),
            Side::Destination => self.h2().guest("vm"),
        }
    }

    /// `logchain migrate` from the first host to the second.
    fn migrate(&self, more: &[&str]) -> Result<Running, LabError> {
        let command = self.h1().command(["logchain", "migrate"]).args(P2P);
        command.args(more).args(["vm", &self.h2().uri()]).spawn()
    }

    /// One that copies memory for some seconds.
    fn slowly(&self, more: &[&str]) -> Result<Running, LabError> {
        self.migrate(&[&["--bandwidth", PACE], more].concat())
    }

    /// Waits until memory is being copied: the guest is awaited at the destination,
    /// and its libvirtd has nothing more to say until the guest goes on there.
    fn while_copying(&self) -> Result<(), LabError> {
        let job = ["virsh", "domjobinfo", "vm"];
        self.h1().until("memory to be copied", MIGRATION, || {
            let job = self.h1().run(job)?.out();
            Ok(job.contains("Memory processed").then_some(()))
        })
    }

    /// Waits until the guest stands still at the source, and holds it there: the
    /// destination's libvirtd, which has to let it go on, stands still.
    fn hold_at_switchover(&self) -> Result<Held<'_>, LabError> {
        self.while_copying()?;
        self.h2().signal("libvirtd", "STOP")?;
        let held = Held(self.h2());
        let here = self.at(Side::Source);
        self.h1().until("the guest to stand still", MIGRATION, || {
            Ok((here.state()?.as_deref() == Some("paused")).then_some(()))
        })?;
        Ok(held)
    }

    /// Waits until the guest has left the source.
    fn once_it_left(&self) -> Result<(), LabError> {
        let here = self.at(Side::Source);
        self.h1().until("the guest to have left", MIGRATION, || {
            let state = here.state()?;
            Ok(matches!(state.as_deref(), None | Some("shut off")).then_some(()))
        })
    }

    /// The guest runs on this side and on no other, and prints on.
    fn runs_at(&self, side: Side) -> Outcome {
        let other = match side {
            Side::Source => Side::Destination,
            Side::Destination => Side::Source,
        };
        let (here, there) = (self.at(side), self.at(other));
        here.host().until("the guest to run", MIGRATION, || {
            Ok((here.state()?.as_deref() == Some("running")).then_some(()))
        })?;
        there
            .host()
            .until("it to run nowhere else", MIGRATION, || {
                let state = there.state()?;
                Ok(matches!(state.as_deref(), None | Some("shut off")).then_some(()))
            })?;
        here.wait_for_more_ticks(100)?;
        Ok(())
    }

    /// Every line since the boot is in the log on this side.
    fn whole_at(&self, side: Side) -> Fallible<TickReport> {
        let at = self.at(side);
        let report = Ticks::check_from_boot(&history(&at)?);
        let names = sorted_names(at.host(), "vm");
        Ok(report.map_err(|e| format!("{e}; at the {side:?} are {names:?}"))?)
    }

    /// Nothing is under way any more on either host.
    fn is_clean(&self) -> Outcome {
        self.is_clean_but_for(|_| false)
    }

    /// `may_lie`: names of objects in the spool that may.
    fn is_clean_but_for(&self, may_lie: impl Fn(&str) -> bool) -> Outcome {
        for host in self.lab.hosts() {
            let name = host.name();
            host.until("logchain to have ended", MIGRATION, || {
                let busy = [LOGCHAIN, "logchain", "ssh"].map(|name| host.processes(name));
                let busy = busy.into_iter().collect::<Result<Vec<_>, _>>()?;
                Ok(busy.iter().all(Vec::is_empty).then_some(()))
            })?;
            let left = spool_files(host)?;
            let mut names = left.lines().filter_map(|path| path.rsplit('/').next());
            if !names.all(&may_lie) {
                return Err(format!("something is left in the spool of {name}: {left}").into());
            }
            let names = sorted_names(host, "vm").unwrap_or_default();
            if names.iter().any(|n| n.ends_with(".logchain.d")) {
                return Err(format!("staging is left on {name}: {names:?}").into());
            }
        }
        Ok(())
    }

    /// Nothing changed: status 1, one sentence, and a next migration works.
    fn stayed(&self, output: &Output) -> Fallible<String> {
        says(output, 1)?;
        self.runs_at(Side::Source)?;
        self.whole_at(Side::Source)?;
        self.is_clean()?;
        self.moves_on(output, |_| false)
    }

    /// The same where the hosts could not reach each other: what lies at the
    /// destination goes with the next migration.
    fn stayed_alone(&self, output: &Output) -> Fallible<String> {
        says(output, 1)?;
        self.at(Side::Source).wait_for_more_ticks(100)?;
        self.whole_at(Side::Source)?;
        let there = self.at(Side::Destination);
        if there.state()?.as_deref() == Some("paused") {
            // libvirt was told neither to let it go on nor to end it.
            there.destroy()?;
        }
        self.runs_at(Side::Source)?;
        // What the cut connection still held came to the spool once it was mended,
        // maybe after all was cleared. What is alone is swept after an hour.
        self.moves_on(output, |name| name.starts_with("chunk-"))
    }

    fn moves_on(&self, output: &Output, may_lie: impl Fn(&str) -> bool) -> Fallible<String> {
        let again = self.migrate(&[])?.wait(MIGRATION)?.checked();
        again.map_err(|e| format!("the next migration failed: {e}"))?;
        self.runs_at(Side::Destination)?;
        let report = self.whole_at(Side::Destination)?;
        self.is_clean_but_for(may_lie)?;
        Ok(format!(
            "status 1 after {:.1} s, it runs at the source with its log; the next migration \
             carries all {} lines",
            output.took.as_secs_f64(),
            report.count
        ))
    }

    /// It migrated: with its log (0), or the log is whole at the source, and `offer`
    /// brings it over (3). `expected`: the statuses that may be.
    fn moved(&self, output: &Output, expected: &[i32]) -> Fallible<String> {
        self.moved_but_for(output, expected, |_| false)
    }

    /// `may_lie`: names of objects in the spool that may in the end.
    fn moved_but_for(
        &self,
        output: &Output,
        expected: &[i32],
        may_lie: impl Fn(&str) -> bool,
    ) -> Fallible<String> {
        self.runs_at(Side::Destination)?;
        let (code, took) = (output.code(), output.took.as_secs_f64());
        if !code.is_some_and(|code| expected.contains(&code)) {
            return Err(format!("status {code:?}: {}{}", output.out(), output.err()).into());
        }
        let mut later = "with its log";
        if code == Some(3) {
            says(output, 3)?;
            self.offered("vm")?;
            later = "its log whole at the source, and brought over by offer";
        }
        let report = self.whole_at(Side::Destination)?;
        self.is_clean_but_for(may_lie)?;
        Ok(format!(
            "status {} after {took:.1} s, it runs at the destination, {later}: {} lines",
            code.unwrap_or(-1),
            report.count
        ))
    }

    /// `logchain offer` succeeds, and once more it has nothing to do.
    fn offered(&self, domain: &str) -> Fallible<Output> {
        let offer = ["logchain", "offer", "--transport", "ssh://h2", domain];
        let output = self.h1().command(offer).limit(MIGRATION).run()?;
        Ok(output.checked()?)
    }
}

/// While it lives, the destination's libvirtd stands still.
struct Held<'a>(&'a Host);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Where it was killed meanwhile, that is what the row is about.
        let _ = self.0.signal("libvirtd", "CONT");
    }
}

/// It ended with this status, without a panic, and its last words are a sentence that
/// names what happened.
fn says(output: &Output, code: i32) -> Outcome {
    let (out, said) = (output.out(), output.err());
    if output.code() != Some(code) {
        return Err(format!("status {:?}, not {code}: {out}{said}", output.code()).into());
    }
    if said.trim().is_empty() || said.contains("panicked") || said.contains('\x1b') {
        return Err(format!("no plain sentence: {said:?}").into());
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the moment is what is tried; no runtime is here"
)]
fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}
