//! `cargo xtask demo`: two hypervisors, a guest that prints numbered lines, and
//! its log, without logchain and with it.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use logchain_tests::{Guest, GuestOn, Host, Lab, LabError, Output, Ticks, logchain_bin};

use crate::packages;
use crate::process::{answers, cargo, catch_signals, run as run_child};
use crate::progress::begin;

/// Lines that a guest prints on a host before it moves on.
const LINES: u64 = 1000;
/// A migration of an emulated guest takes 2 s; a busy machine makes it many.
const MIGRATION: Duration = Duration::from_secs(180);

/// Installs, builds, and shows it.
pub(crate) fn run(yes: bool) -> Result<()> {
    heading("What is needed");
    packages::ensure(yes, &[])?;
    packages::guest()?;
    heading("The logchain binaries");
    run_child(Command::new(cargo()).args(["build", "--package", "logchain", "--bins"]))?;
    if rustix::process::geteuid().is_root() {
        return in_lab_with_signals();
    }
    if !answers("sudo", &["--version"]) {
        return Err(LabError::NeedsRoot.into());
    }
    println!("the hypervisors need root: going on with sudo");
    let me = std::env::current_exe().context("cannot find this program")?;
    run_child(Command::new("sudo").arg("-E").arg(me).arg("demo-in-lab"))
}

/// The part that needs root.
pub(crate) fn in_lab() -> Result<()> {
    catch_signals()?;
    in_lab_with_signals()
}

fn in_lab_with_signals() -> Result<()> {
    let binary = logchain_bin()?;

    heading("Two hypervisors on this machine");
    let step = begin("starting h1 and h2, each with libvirtd, virtlogd and sshd");
    let lab = Lab::builder().hosts(2).binary(binary).start()?;
    step.done();
    let (h1, h2) = (lab.host(0), lab.host(1));
    let step = begin("booting two guests on h1; each prints a numbered line every millisecond");
    let plain = h1.define(&Guest::new("plain"))?;
    let carried = h1.define(&Guest::new("carried"))?;
    plain.start()?;
    carried.start()?;
    plain.wait_for_tick(LINES)?;
    carried.wait_for_tick(LINES)?;
    step.done();

    heading("Without logchain: h1 → h2 with virsh migrate");
    without(&plain, h2)?;

    heading("With logchain: h1 → h2 → h1");
    let mut seams = vec![with(&carried, h2)?];
    let back = with(&h2.guest("carried"), h1)?;
    seams.push(back);

    heading("What `logchain show -n all carried` gives on h1");
    let step = begin("reading the log");
    let log = h1
        .run(["logchain", "show", "-n", "all", "carried"])?
        .checked()?
        .stdout;
    step.done();
    print_ends(&log);
    for seam in &seams {
        println!("{}", seam.describe(&log));
    }

    heading("Verdict");
    let step = begin("ending the hypervisors");
    drop(lab);
    step.done();
    match Ticks::check_from_boot(&log) {
        Ok(report) => {
            println!("{} lines, all there, once, in order", report.count);
            Ok(())
        }
        Err(wrong) => bail!("the log is not whole: {wrong}"),
    }
}

/// What a plain migration leaves of the log.
fn without(guest: &GuestOn, to: &Host) -> Result<()> {
    let (from, uri) = (guest.host(), to.uri());
    let step = begin(format!(
        "virsh migrate --live --p2p --persistent {} {uri}",
        guest.name()
    ));
    from.command(["virsh", "migrate", "--live", "--p2p", "--persistent"])
        .limit(MIGRATION)
        .args([guest.name(), &uri])
        .run()?
        .checked()?;
    step.done();
    let there = to.guest(guest.name());
    let printed = there.wait_for_more_ticks(LINES)?;
    // It has been seen; the other guest can use its processor.
    there.destroy()?;
    let log: Vec<u8> = there
        .log_files()?
        .into_iter()
        .flat_map(|file| file.bytes)
        .collect();
    let printed = Ticks::last(&log).unwrap_or(printed);
    let kept = Ticks::count(&log);
    println!(
        "the guest has printed {printed} lines; the log on {} holds {kept}: {} are lost there",
        to.name(),
        printed.saturating_sub(kept)
    );
    Ok(())
}

/// Where one host's bytes end and the next one's begin.
struct Seam {
    from: String,
    to: String,
    offset: usize,
}

/// Migrates a guest with its log.
fn with(guest: &GuestOn, to: &Host) -> Result<Seam> {
    let (from, uri) = (guest.host(), to.uri());
    let step = begin(format!(
        "logchain migrate --live --p2p --persistent {} {uri}",
        guest.name()
    ));
    let output = from
        .command(["logchain", "migrate", "--live", "--p2p", "--persistent"])
        .args(["--format", "json", guest.name(), &uri])
        .limit(MIGRATION)
        .run()?
        .checked()?;
    step.done();
    let seam = Seam {
        from: from.name().to_owned(),
        to: to.name().to_owned(),
        offset: carried_bytes(&output)?,
    };
    println!("{} bytes of history carried", seam.offset);
    let step = begin(format!("letting it print {LINES} lines on {}", to.name()));
    to.guest(guest.name()).wait_for_more_ticks(LINES)?;
    step.done();
    Ok(seam)
}

/// The length of the history that came over, from what `migrate` says.
fn carried_bytes(output: &Output) -> Result<usize> {
    let said = output.out();
    let bytes = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|event| event.get("event").is_some_and(|name| name == "carried"))
        .and_then(|event| event.get("bytes")?.as_u64());
    let bytes = bytes.with_context(|| {
        format!(
            "logchain migrate did not say how much it carried:\n{said}{}",
            output.err()
        )
    })?;
    usize::try_from(bytes).context("more history than memory")
}

impl Seam {
    fn describe(&self, log: &[u8]) -> String {
        let mut text = format!("seam: {} → {} at byte {}", self.from, self.to, self.offset);
        let (Some(before), Some(after)) = (log.get(..self.offset), log.get(self.offset..)) else {
            text += ", beyond the end";
            return text;
        };
        // The line that the guest was in the middle of as it moved.
        let begin = before.rsplit(|b| *b == b'\n').next().unwrap_or_default();
        let end = after.split(|b| *b == b'\n').next().unwrap_or_default();
        let _ = write!(
            text,
            ":  {} | {}",
            String::from_utf8_lossy(begin),
            String::from_utf8_lossy(end).trim_end()
        );
        text
    }
}

fn print_ends(log: &[u8]) {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    let head = lines.iter().take(4);
    let tail = lines.iter().rev().take(3).collect::<Vec<_>>();
    for line in head {
        println!("  {}", line.trim_end());
    }
    println!("  … {} lines in all …", lines.len());
    for line in tail.into_iter().rev() {
        println!("  {}", line.trim_end());
    }
}

pub(crate) fn heading(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe is found out by whoever prints next.
    let _ = if out.is_terminal() {
        writeln!(out, "\n\x1b[1m{text}\x1b[0m")
    } else {
        writeln!(out, "\n{text}")
    };
}

#[cfg(test)]
mod tests {
    use super::Seam;

    #[test]
    fn a_seam_shows_the_line_it_cuts() {
        let seam = |offset| Seam {
            from: "h1".to_owned(),
            to: "h2".to_owned(),
            offset,
        };
        let log = b"one\r\ntwo\r\nthree\r\n";
        assert_eq!(seam(7).describe(log), "seam: h1 → h2 at byte 7:  tw | o");
        assert_eq!(seam(5).describe(log), "seam: h1 → h2 at byte 5:   | two");
        assert_eq!(
            seam(99).describe(log),
            "seam: h1 → h2 at byte 99, beyond the end"
        );
    }
}
