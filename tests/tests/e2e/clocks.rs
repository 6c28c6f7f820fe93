//! Hosts whose clocks are years apart: no decision rests on comparing them.

use std::os::unix::fs::PermissionsExt as _;

use crate::common::{MIGRATION, Outcome, carried, history};
use logchain_tests::{Guest, Host, Lab, Ticks};
use serde_json::Value;

const WRAPPER: &str = "/var/lib/logchain/elsewhen";

/// A program on `host` that is logchain at another time.
fn wrap(host: &Host, offset: &str) -> Result<(), std::io::Error> {
    let file = host.path(WRAPPER);
    // What it waits for, it waits for as long as ever.
    let script = format!(
        "#!/bin/sh\nexport FAKETIME_DONT_FAKE_MONOTONIC=1\nexec faketime -f '{offset}' logchain \"$@\"\n"
    );
    std::fs::write(&file, script)?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o700))
}

#[test]
fn clocks_that_are_years_apart_change_nothing() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(300)?;
    wrap(h2, "+3y")?;
    let there = h2.run([
        "sh",
        "-c",
        &format!("{WRAPPER} --version && faketime -f +3y date +%Y"),
    ])?;
    let year = |text: &str| {
        text.lines()
            .last()
            .and_then(|l| l.trim().parse::<u32>().ok())
    };
    let now = h1.run(["date", "+%Y"])?.checked()?;
    assert_eq!(
        year(&there.checked()?.out()),
        year(&now.out()).map(|y| y + 3)
    );

    for (from, to, program) in [(h1, h2, "logchain"), (h2, h1, WRAPPER)] {
        let remote = if program == WRAPPER {
            "logchain"
        } else {
            WRAPPER
        };
        let output = from
            .command([program, "migrate", "--live", "--p2p", "--persistent"])
            .args([
                "--format",
                "json",
                "--remote-logchain",
                remote,
                "vm",
                &to.uri(),
            ])
            .limit(MIGRATION)
            .run()?
            .checked()?;
        let events: Vec<Value> = output
            .out()
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        assert!(carried(&events)?["bytes"].as_u64() > Some(0), "{events:?}");
        let there = to.guest("vm");
        there.wait_for_more_ticks(200)?;
        let report = Ticks::check_from_boot(&history(&there)?)?;
        println!(
            "{}: {} lines, all there, once, in order",
            to.name(),
            report.count
        );
    }
    Ok(())
}
