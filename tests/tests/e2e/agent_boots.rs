//! The logs of earlier boots, which a start of the guest wipes.

use logchain_tests::{Guest, Host, Lab, LabError, Ticks};
use serde_json::Value;

use crate::agent::{Agent, P2P, SOON, in_a_folder, soon_whole, virsh};
use crate::common::Outcome;

/// Two earlier boots are kept.
fn keeping(lab: &Lab) -> String {
    format!("{}\n[holds]\nkeep_boots = 2\n", in_a_folder(lab))
}

fn show(host: &Host, name: &str, how: &[&str]) -> Result<(Vec<u8>, bool), LabError> {
    let path = host.log_path(name);
    let path = path.to_string_lossy().into_owned();
    let command = host.command(["logchain", "show"]).args(how);
    let output = command.args([path.as_str()]).run()?;
    Ok((output.stdout.clone(), output.checked().is_ok()))
}

/// How many boots' logs are there.
fn boots(host: &Host, name: &str) -> Result<Vec<Value>, LabError> {
    let (list, _) = show(host, name, &["--list-boots", "--format", "json"])?;
    let list = String::from_utf8_lossy(&list).into_owned();
    let lines = list
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(lines.collect())
}

pub(crate) fn wait_for_boots(agent: &Agent, host: &Host, count: usize) -> Outcome {
    let found = host.until("the earlier boots' logs", SOON, || {
        Ok((boots(host, "vm")?.len() == count).then_some(()))
    });
    if found.is_err() {
        agent.dump();
    }
    Ok(found?)
}

/// Waits until the present boot has printed so many lines.
fn wait_for_lines(host: &Host, count: usize) -> Outcome {
    host.until("the present boot's lines", SOON, || {
        let (log, _) = show(host, "vm", &["--boot", "0", "-n", "all"])?;
        let lines = log.iter().filter(|byte| **byte == b'\n').count();
        Ok((lines > count).then_some(()))
    })?;
    Ok(())
}

/// Each boot printed its lines from the first one on.
pub(crate) fn each_is_whole(host: &Host, ages: std::ops::RangeInclusive<i32>) -> Outcome {
    for age in ages {
        let (log, is_there) = show(host, "vm", &["--boot", &age.to_string(), "-n", "all"])?;
        assert!(is_there, "boot {age}");
        let report = Ticks::check_from_boot(&log)?;
        println!("boot {age}: {report:?}");
    }
    Ok(())
}

#[test]
fn a_start_leaves_the_logs_of_the_last_boots() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(200)?;
    let way = keeping(&lab);
    let (one, two) = (Agent::start(h1, &way)?, Agent::start(h2, &way)?);
    for boot in 1..=3_usize {
        at.destroy()?;
        // As Nova's hard reboot does.
        let xml = h1.run(["virsh", "dumpxml", "vm"])?.checked()?.out();
        h1.run(["virsh", "--quiet", "undefine", "vm"])?.checked()?;
        let define = h1.command(["virsh", "--quiet", "define", "/dev/stdin"]);
        define.input(xml).run()?.checked()?;
        at.start()?;
        wait_for_boots(&one, h1, (boot + 1).min(3))?;
        wait_for_lines(h1, 50)?;
    }
    each_is_whole(h1, -2..=0)?;
    let (_, is_there) = show(h1, "vm", &["--boot", "-3"])?;
    assert!(!is_there, "only two are kept");
    let (end, _) = show(h1, "vm", &["--boot", "-1", "--lines", "2"])?;
    // Its guest was destroyed: the last line may have no end.
    let ends = end.iter().filter(|byte| **byte == b'\n').count();
    assert!((1..=2).contains(&ends), "{ends} lines end");

    // Through the agent it is the same.
    let (earlier, _) = show(h1, "vm", &["--boot", "-1", "-n", "all"])?;
    let ask = |how: &[&str]| {
        h1.command(["logchain", "show", "--agent", "vm"])
            .args(how)
            .run()
    };
    let asked = ask(&["--boot", "-1", "-n", "all"])?.checked()?;
    assert!(asked.stdout == earlier, "{} bytes", asked.stdout.len());
    let list = ask(&["--list-boots", "--format", "json"])?.checked()?.out();
    assert_eq!(list.lines().count(), 3, "{list}");

    // The boundaries go with the history.
    virsh(&at, h2, P2P)?.checked()?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    h2.guest("vm").wait_for_more_ticks(100)?;
    assert_eq!(boots(h2, "vm")?.len(), 3);
    each_is_whole(h2, -2..=0)?;
    one.stop()?.checked()?;
    two.stop()?.checked()?;
    Ok(())
}

/// A guest that was shut off when the agent came.
#[test]
fn a_guest_that_is_shut_off_keeps_its_log_when_it_starts() -> Outcome {
    let lab = Lab::start(1)?;
    let h1 = lab.host(0);
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(200)?;
    at.destroy()?;
    let way = keeping(&lab);
    let one = Agent::start(h1, &way)?;
    // What is shut off is looked at aside.
    let held = "logchain_agent_held_logs 1";
    h1.until("its log to be held", SOON, || {
        Ok(is_in_metrics(h1, held)?.then_some(()))
    })?;
    at.start()?;
    wait_for_boots(&one, h1, 2)?;
    // A boot that prints nothing leaves the log of the one before it where it is.
    at.destroy()?;
    at.start()?;
    wait_for_lines(h1, 50)?;
    each_is_whole(h1, 0..=0)?;
    // It may have printed something after all.
    let first = h1.until("the first boot's log", SOON, || {
        let count = boots(h1, "vm")?.len();
        Ok((count > 1).then(|| 1 - i32::try_from(count).unwrap_or(2)))
    });
    if first.is_err() {
        one.dump();
    }
    let first = first?;
    each_is_whole(h1, first..=first)?;
    drop(one);
    Ok(())
}

fn is_in_metrics(host: &Host, line: &str) -> Result<bool, LabError> {
    let curl = ["curl", "-s", "--unix-socket", "/run/logchain/agent.sock"];
    let page = host.command(curl).args(["http://agent/metrics"]).run()?;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    Ok(page.lines().any(|found| found == line))
}

/// The destination's folder is removed once a migration was given up, as Nova does it. What had
/// come there of the history was never the guest's log there: the next migration brings it once.
#[test]
fn a_migration_that_is_given_up_leaves_no_boot_behind() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let config = keeping(&lab);
    let (one, two) = (Agent::start(h1, &config)?, Agent::start(h2, &config)?);
    let guest = h1.define(&Guest::new("vm").fill(16))?;
    guest.start()?;
    guest.wait_for_tick(300)?;
    let there = h2.guest("vm");
    for _ in 0..2 {
        let slowly = h1.command(["virsh", "--quiet", "migrate"]).args(P2P);
        let slowly = slowly.args(["--bandwidth", "2", "vm", &h2.uri()]);
        let migration = slowly.limit(SOON).spawn()?;
        let shown = h2.path(h2.log_path("vm")).with_extension("log.0");
        h2.until("the history to be shown", SOON, || {
            Ok(shown.exists().then_some(()))
        })?;
        h1.run(["virsh", "domjobabort", "vm"])?.checked()?;
        assert!(!migration.wait(SOON)?.status.success());
        h2.until("the guest to be gone", SOON, || {
            Ok(there.state()?.is_none().then_some(()))
        })?;
        there.remove_log_folder()?;
        there.make_log_folder()?;
    }
    virsh(&guest, h2, P2P)?.checked()?;
    there.wait_for_more_ticks(100)?;
    println!("{}", soon_whole(&there, &[&one, &two])?);
    assert!(!two.said("removed before they were handed over"));
    Ok(())
}
