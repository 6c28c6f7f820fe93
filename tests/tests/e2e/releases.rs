//! A release works with the one before it: hosts are upgraded one by one.

use std::env;
use std::path::PathBuf;

use crate::agent::{Agent, P2P, in_a_folder, over_tls_with_peers, soon_whole, virsh};
use crate::common::{MIGRATION, Outcome, carried, history, migrate_json, spool_is_empty};
use logchain_tests::{Guest, Lab, Ticks};

/// The program of the release before, by its path.
fn before() -> Result<String, Box<dyn std::error::Error>> {
    let before = env::var_os("LOGCHAIN_BEFORE").ok_or("LOGCHAIN_BEFORE is not set")?;
    let before = PathBuf::from(before).join("logchain");
    let before = before.to_str().ok_or("its path is not UTF-8")?;
    Ok(before.to_owned())
}

/// An agent of the release before on one host, and one of this release on the other: each is source
/// and destination once, over TLS and in a folder.
#[test]
#[ignore = "LOGCHAIN_BEFORE names the folder with the programs of the release before"]
fn agents_of_two_releases_work_together() -> Outcome {
    let before = before()?;
    for is_tls in [true, false] {
        let lab = Lab::builder().hosts(2).tls().start()?;
        let (h1, h2) = (lab.host(0), lab.host(1));
        let config = match is_tls {
            true => over_tls_with_peers(&lab),
            false => in_a_folder(&lab),
        };
        let vm = h1.define(&Guest::new("vm"))?;
        vm.start()?;
        vm.wait_for_tick(300)?;
        let one = Agent::start_program(&before, h1, &config, &[])?;
        let two = Agent::start(h2, &config)?;
        for (at, to) in [(h1, h2), (h2, h1)] {
            virsh(&at.guest("vm"), to, P2P)?.checked()?;
            let there = to.guest("vm");
            there.wait_for_more_ticks(200)?;
            let report = soon_whole(&there, &[&one, &two])?;
            println!("to {}, TLS {is_tls}: {report}", to.name());
        }
        one.stop()?.checked()?;
        two.stop()?.checked()?;
    }
    Ok(())
}

/// The destination has the release before, then the source has it. The folder in
/// LOGCHAIN_BEFORE has its programs: CONTRIBUTING.md says how they are built.
#[test]
#[ignore = "LOGCHAIN_BEFORE names the folder with the programs of the release before"]
fn a_release_works_with_the_one_before() -> Outcome {
    let before = before()?;
    let before = before.as_str();
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(600)?;
    let there = ["--live", "--persistent", "--remote-logchain", before];
    let events = migrate_json(&vm, h2, &there)?;
    println!("to the release before: {}", carried(&events)?);
    let vm = h2.guest("vm");
    vm.wait_for_more_ticks(300)?;

    let back = h2
        .command([before, "migrate", "--live", "--persistent"])
        .args(["--format", "json", "vm", &h1.uri()])
        .limit(MIGRATION)
        .run()?
        .checked()?;
    let events: Result<Vec<serde_json::Value>, _> =
        back.out().lines().map(serde_json::from_str).collect();
    println!("from the release before: {}", carried(&events?)?);
    let vm = h1.guest("vm");
    vm.wait_for_more_ticks(300)?;
    println!("{}", Ticks::check_from_boot(&history(&vm)?)?);
    assert!(spool_is_empty(h1)? && spool_is_empty(h2)?);
    Ok(())
}
