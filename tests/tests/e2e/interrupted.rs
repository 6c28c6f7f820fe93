//! Whoever ends logchain finds all as it was: INT, TERM and HUP mean the same, at
//! any moment, and a process that is killed leaves nobody behind for long.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{MIGRATION, Outcome, history, migrate, sorted_names, spool_is_empty};
use logchain_tests::{Guest, GuestOn, Host, Lab, LabError, Running, Signal, Ticks};

/// What the program is called once it needs libvirt, as the system cuts it.
const PROCESS: &str = "logchain-libvir";

/// What it says while nobody takes the log in.
const AWAITED: &str = "waiting for the log to be confirmed";

/// A migration that takes a while.
fn slowly(at: &GuestOn, to: &Host, mib: &str, more: &[&str]) -> Result<Running, LabError> {
    let way = ["--live", "--p2p", "--persistent", "--bandwidth", mib];
    let command = at.host().command(["logchain", "migrate"]).args(way);
    let command = command.args(more).args([at.name(), &to.uri()]);
    command.limit(MIGRATION).spawn()
}

/// Waits until the program catches signals: before that it has begun nothing.
fn wait_until_it_catches(host: &Host) -> Result<(), LabError> {
    host.until("signals to be caught", Duration::from_secs(20), || {
        for pid in host.processes(PROCESS)? {
            let status = host.path(format!("/proc/{pid}/status"));
            let status = fs::read_to_string(status).unwrap_or_default();
            let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            // TERM is the 15th.
            if caught.is_some_and(|mask| mask >> 14 & 1 == 1) {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the moment is what is tried; no runtime is here"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn mv(from: &Path, to: &Path) -> Outcome {
    let moved = Command::new("mv").arg("-n").args([from, to]).status()?;
    assert!(moved.success());
    Ok(())
}

/// Nobody of ours works on either host any more.
fn all_ended(hosts: &[Host]) -> Result<bool, LabError> {
    for host in hosts {
        for name in [PROCESS, "logchain", "ssh"] {
            if !host.processes(name)?.is_empty() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[test]
fn a_signal_at_any_moment_cancels_and_leaves_all_as_it_was() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let before = sorted_names(h1, "vm")?;
    let signals = [Signal::INT, Signal::TERM, Signal::HUP];
    // From before anything is begun to well within the copying of memory.
    for (i, delay) in [
        0, 300, 500, 570, 580, 590, 600, 610, 620, 640, 680, 720, 760, 800, 900, 1000, 1300, 2000,
    ]
    .into_iter()
    .enumerate()
    {
        let signal = signals[i % 3];
        let mut running = slowly(&at, h2, "1", &[])?;
        wait_until_it_catches(h1)?;
        pause(Duration::from_millis(delay));
        running.signal(signal)?;
        let asked = Instant::now();
        let output = running.wait(MIGRATION)?;
        let (out, said) = (output.out(), output.err());
        println!(
            "{signal:?} after {delay} ms: {} ms, {}",
            asked.elapsed().as_millis(),
            said.trim()
        );
        assert_eq!(output.code(), Some(1), "{delay} ms: {out}{said}");
        assert_eq!((out.as_str(), said.lines().count()), ("", 1), "{said}");
        assert!(said.contains("interrupted"), "{said}");
        assert!(asked.elapsed() < Duration::from_secs(10), "{delay} ms");
        assert_eq!(at.state()?.as_deref(), Some("running"));
        assert_eq!(h2.guest("vm").state()?, None);
        h1.until("all to end", Duration::from_secs(5), || {
            Ok(all_ended(lab.hosts())?.then_some(()))
        })?;
        assert!(spool_is_empty(h2)?, "after {delay} ms");
        let there = sorted_names(h2, "vm")?;
        assert!(
            !there.iter().any(|n| n.contains(".logchain")),
            "after {delay} ms: {there:?}"
        );
        let mut here = sorted_names(h1, "vm")?;
        // The record of whose log it is may be there now.
        here.retain(|name| name != ".console.log.logchain");
        assert_eq!(here, before);
    }
    // What a terminal does: the whole group hears of it, ssh too.
    let group = ["timeout", "--preserve-status", "-s", "INT", "1.5"];
    let way = [
        "logchain",
        "migrate",
        "--live",
        "--p2p",
        "--bandwidth",
        "1",
        "vm",
    ];
    let output = h1.command(group).args(way).args([h2.uri()]).run()?;
    assert_eq!(output.code(), Some(1), "{}{}", output.out(), output.err());
    assert!(spool_is_empty(h2)?);
    h1.until("all to end", Duration::from_secs(5), || {
        Ok(all_ended(lab.hosts())?.then_some(()))
    })?;
    // And the next one works as if nothing had been.
    migrate(&at, h2, &["--live", "--p2p", "--persistent"])?.checked()?;
    Ticks::check_from_boot(&history(&h2.guest("vm"))?)?;
    Ok(())
}

/// A folder that nobody adopts from: the log is on its way for as long as one waits.
#[test]
fn what_was_begun_is_taken_up_by_the_next_run() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let folder = "file:///tmp/pieces";
    let way = [
        "--live",
        "--p2p",
        "--persistent",
        "--transport",
        folder,
        "--verbose",
    ];
    let command = h1.command(["logchain", "migrate"]).args(way);
    let mut running = command.args([at.name(), &h2.uri()]).spawn()?;
    let adopt = "logchain adopt --transport file:///tmp/pieces";
    h1.until("the guest to have moved", MIGRATION, || {
        let said = String::from_utf8_lossy(&running.stdout()).into_owned();
        Ok(said.contains("migrated to").then_some(()))
    })?;
    h1.until("the log to be waited for", MIGRATION, || {
        let said = String::from_utf8_lossy(&running.stderr()).into_owned();
        Ok(said.contains(AWAITED).then_some(()))
    })?;
    running.signal(Signal::TERM)?;
    let output = running.wait(Duration::from_secs(20))?;
    let (out, said) = (output.out(), output.err());
    println!("{out}{said}");
    assert_eq!(output.code(), Some(3), "{out}{said}");
    assert!(
        out.lines().next().is_some_and(|l| l.contains(adopt)),
        "{out}"
    );
    assert!(
        said.contains("interrupted while the log was on its way"),
        "{said}"
    );
    assert!(
        said.contains("bring it over with: logchain offer"),
        "{said}"
    );
    assert!(!said.contains(['\r', '\x1b']), "{said:?}");
    assert!(said.contains(AWAITED), "{said}");

    // The destination has no such folder, and none is made there.
    let uuid = h2.run(["virsh", "domuuid", "vm"])?.checked()?.out();
    let adopt = ["logchain", "adopt", "--transport", folder, uuid.trim()];
    let none = h2.run(adopt)?;
    assert_eq!(none.code(), Some(1), "{}", none.err());
    assert!(!h2.path("/tmp/pieces").exists());

    // `offer` takes the same handoff up, and is ended too.
    let mut running = h1.spawn(["logchain", "offer", "--transport", folder, "vm"])?;
    h1.until("the offer to begin", MIGRATION, || {
        Ok((!running.stdout().is_empty()).then_some(()))
    })?;
    running.signal(Signal::HUP)?;
    let output = running.wait(Duration::from_secs(20))?;
    assert_eq!(output.code(), Some(1), "{}{}", output.out(), output.err());

    // The pieces travel by hand, without their end; `adopt` is ended while it waits.
    let handoff = fs::read_dir(h1.path(format!("/tmp/pieces/v1/{}/serial0", uuid.trim())))?;
    let handoffs: Vec<_> = handoff.flatten().collect();
    assert_eq!(handoffs.len(), 1, "one handoff, taken up again");
    let (from, to) = (h1.path("/tmp/pieces"), h2.path("/tmp/pieces"));
    let copied = Command::new("cp").arg("-r").args([&from, &to]).status()?;
    assert!(copied.success());
    let there = handoffs[0].path();
    let there = to.join(there.strip_prefix(&from)?).join("commit");
    mv(&there, &h2.path("/tmp/commit"))?;
    let before = sorted_names(h2, "vm")?;
    let mut running = h2.spawn(adopt)?;
    h2.until("pieces to be staged", MIGRATION, || {
        Ok(sorted_names(h2, "vm")
            .is_ok_and(|now| now != before)
            .then_some(()))
    })?;
    running.signal(Signal::INT)?;
    let output = running.wait(Duration::from_secs(20))?;
    assert_eq!(output.code(), Some(1), "{}{}", output.out(), output.err());
    assert!(
        output.err().contains("this host is as it was"),
        "{}",
        output.err()
    );
    assert_eq!(sorted_names(h2, "vm")?, before);

    // Whole, it arrives.
    mv(&h2.path("/tmp/commit"), &there)?;
    h2.run(adopt)?.checked()?;
    Ticks::check_from_boot(&history(&h2.guest("vm"))?)?;
    Ok(())
}

/// Killed, it can clean up nothing: its ssh sees that and ends, and so does the other half.
#[test]
fn killed_it_leaves_nobody_behind() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let running = slowly(&at, h2, "1", &[])?;
    h2.until("the guest to be awaited at h2", MIGRATION, || {
        Ok(h2.guest("vm").state()?.map(drop))
    })?;
    assert!(!h1.processes("ssh")?.is_empty());
    running.kill()?;
    h1.run(["virsh", "domjobabort", "vm"])?;
    // Far less than the patience of a minute.
    h1.until("all to end", Duration::from_secs(10), || {
        Ok(all_ended(lab.hosts())?.then_some(()))
    })?;
    h1.until("the guest to be here alone", MIGRATION, || {
        Ok(h2.guest("vm").state()?.is_none().then_some(()))
    })?;
    migrate(&at, h2, &["--live", "--p2p", "--persistent"])?.checked()?;
    Ticks::check_from_boot(&history(&h2.guest("vm"))?)?;
    Ok(())
}

/// An ssh that hangs is given up in the time that was asked for.
#[test]
fn an_ssh_that_hangs_costs_no_more_than_patience() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let running = slowly(&at, h2, "20", &["--patience", "10"])?;
    h2.until("the guest to be awaited at h2", MIGRATION, || {
        Ok(h2.guest("vm").state()?.map(drop))
    })?;
    let ssh = h1.processes("ssh")?;
    assert!(!ssh.is_empty());
    let stop = ssh.iter().map(u32::to_string);
    h1.run(["kill", "-STOP"].map(str::to_owned).into_iter().chain(stop))?
        .checked()?;
    h1.until("the guest to have left", MIGRATION, || {
        Ok((at.state()?.as_deref() == Some("shut off")).then_some(()))
    })?;
    let left = Instant::now();
    let output = running.wait(MIGRATION)?;
    println!(
        "{:?} after {:.1} s: {}{}",
        output.code(),
        left.elapsed().as_secs_f64(),
        output.out(),
        output.err()
    );
    assert!(matches!(output.code(), Some(0 | 3)), "{:?}", output.code());
    // Once to see that it hangs, once more for the other half to end.
    assert!(left.elapsed() < Duration::from_secs(25));
    assert_eq!(h2.guest("vm").state()?.as_deref(), Some("running"));
    Ok(())
}
