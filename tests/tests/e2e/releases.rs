//! A release works with the one before it: hosts are upgraded one by one.

use std::env;
use std::path::PathBuf;

use crate::common::{MIGRATION, Outcome, carried, history, migrate_json, spool_is_empty};
use logchain_tests::{Guest, Lab, Ticks};

/// The destination has the release before, then the source has it. The folder in
/// LOGCHAIN_BEFORE has its programs: CONTRIBUTING.md says how they are built.
#[test]
#[ignore = "LOGCHAIN_BEFORE names the folder with the programs of the release before"]
fn a_release_works_with_the_one_before() -> Outcome {
    let before = env::var_os("LOGCHAIN_BEFORE").ok_or("LOGCHAIN_BEFORE is not set")?;
    let before = PathBuf::from(before).join("logchain");
    let before = before.to_str().ok_or("its path is not UTF-8")?;
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
