//! Post-copy: the guest runs at the destination, and prints there, before its last
//! bytes from the source have come. And post-copy that breaks off half-way.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::common::{MIGRATION, Outcome, carried, history, migrate, migrate_json, show, watch};
use logchain_tests::{Guest, GuestOn, Host, Lab, Running, Ticks};

/// What shows that its options work, for the table of options.
pub(crate) const SHOWN_BY: &str = "postcopy::the_guest_prints_there_before_its_memory_is_there";

/// The same, of those that go on after a failure.
pub(crate) const RESUMED_BY: &str = "postcopy::one_that_broke_off_is_resumed";

const LIVE: &[&str] = &["--live", "--p2p", "--persistent"];
const WAY: &[&str] = &["--live", "--p2p", "--persistent", "--postcopy"];

#[test]
fn the_guest_prints_there_before_its_memory_is_there() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let mut at = h1.define(&Guest::new("vm").dirty(12))?;
    at.start()?;
    at.wait_for_tick(500)?;
    let seen = [watch(h1)?, watch(h2)?];
    let told = |host: usize, what: &str| {
        let told = String::from_utf8_lossy(&seen[host].stdout()).into_owned();
        assert!(told.contains(what), "nothing of {what} at {host}: {told}");
    };
    let ways: [&[&str]; 3] = [
        &[
            "--postcopy",
            "--postcopy-after-precopy",
            "--postcopy-bandwidth",
            "20",
        ],
        &["--postcopy", "--timeout", "1", "--timeout-postcopy"],
        // It would never arrive were it not suspended: libvirt tells of that as of any
        // guest that leaves.
        &["--timeout", "1", "--timeout-suspend"],
    ];
    for (to, way) in [h2, h1, h2].into_iter().zip(ways) {
        let way = [LIVE, &["--bandwidth", "20"], way].concat();
        let events = migrate_json(&at, to, &way)?;
        at = to.guest("vm");
        at.wait_for_more_ticks(100)?;
        let report = Ticks::check_from_boot(&history(&at)?)?;
        let window = &carried(&events)?["window_ms"];
        println!(
            "{}: {report}; complete {window} ms after it ran there",
            way.join(" ")
        );
    }
    told(1, "Resumed Post-copy");
    told(0, "Resumed Post-copy");
    Ok(())
}

/// A migration that is in post-copy, and stays there for a while.
fn in_post_copy(at: &GuestOn, to: &Host, more: &[&str]) -> Result<Running, Box<dyn Error>> {
    let slow = ["--bandwidth", "3", "--timeout", "1", "--timeout-postcopy"];
    let slow = [&slow[..], &["--postcopy-bandwidth", "3"], more].concat();
    let command = at.host().command(["logchain", "migrate"]).args(WAY);
    let command = command.args(slow).args([at.name(), &to.uri()]);
    let running = command.limit(MIGRATION).spawn()?;
    let there = to.guest(at.name());
    to.until("the guest to run there", MIGRATION, || {
        Ok((there.state()?.as_deref() == Some("running")).then_some(()))
    })?;
    Ok(running)
}

#[test]
fn one_that_broke_off_is_resumed() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm").append(true).fill(16))?;
    vm.start()?;
    vm.wait_for_tick(500)?;
    let running = in_post_copy(&vm, h2, &[])?;
    // What it needs is there: a guest that waits for a page of its memory can hold up
    // its QEMU, which then hears nothing of being resumed.
    h2.guest("vm").wait_for_more_ticks(1000)?;
    let broke = Instant::now();
    h1.run(["virsh", "domjobabort", "vm", "--postcopy"])?
        .checked()?;
    let output = running.wait(MIGRATION)?;
    println!(
        "after {:?}: {}{}",
        broke.elapsed(),
        output.out(),
        output.err()
    );
    assert_eq!(output.code(), Some(3), "{}", output.err());
    assert!(
        output.err().contains("--postcopy-resume"),
        "{}",
        output.err()
    );
    assert!(
        output.err().contains("its log is whole there"),
        "{}",
        output.err()
    );
    assert!(broke.elapsed() < Duration::from_secs(30));
    // All that it printed, here and there, is there; it stands still on both hosts.
    let there = h2.guest("vm");
    let report = Ticks::check_from_boot(&history(&there)?)?;
    println!("broken off: {report}");

    let way = [WAY, &["--postcopy-resume"]].concat();
    let output = migrate(&vm, h2, &way)?.checked()?;
    println!("{}{}", output.out(), output.err());
    assert_eq!(vm.state()?.as_deref(), Some("shut off"));
    there.wait_for_more_ticks(300)?;
    let report = Ticks::check_from_boot(&history(&there)?)?;
    println!("resumed: {report}");
    Ok(())
}

/// The destination's QEMU dies with the memory that it has. What it printed is on the
/// host that it printed it on.
#[test]
fn one_whose_destination_dies_says_where_the_log_is() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm").fill(16))?;
    vm.start()?;
    vm.wait_for_tick(500)?;
    let running = in_post_copy(&vm, h2, &[])?;
    let qemu = h2.processes("qemu-system-x86")?;
    let pids = qemu.iter().map(u32::to_string);
    h2.run(["kill", "-KILL"].map(str::to_owned).into_iter().chain(pids))?
        .checked()?;
    let died = Instant::now();
    let output = running.wait(MIGRATION)?;
    println!(
        "after {:?}: {}{}",
        died.elapsed(),
        output.out(),
        output.err()
    );
    assert_eq!(output.code(), Some(3), "{}", output.err());
    assert!(output.err().contains("is lost at"), "{}", output.err());
    assert!(died.elapsed() < Duration::from_secs(60));
    // Here all until it left, there all since: one after the other, nothing is missing.
    let path = vm.log_path();
    let path = path.to_str().ok_or("a path")?;
    let mut all = show(h1, &["-n", "all", path])?;
    all.extend(show(h2, &["-n", "all", path])?);
    println!("{}", Ticks::check_from_boot(&all)?);
    Ok(())
}
