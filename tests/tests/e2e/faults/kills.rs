//! logchain itself is killed at each phase, on either side, and started again.

use std::time::Duration;

use super::{Fallible, LOGCHAIN, P2P, Scene, all_moments, row};
use crate::common::{MIGRATION, Outcome, history, spool_is_empty};
use logchain_tests::{GuestOn, Host, Ticks};

/// Moments in milliseconds after the other half is there: before memory is copied,
/// while it is, around the switchover, while the log is drained, placed, received.
const ALL: &[u64] = &[
    0, 100, 200, 300, 450, 600, 800, 1000, 1400, 1900, 2400, 2600, 2800, 2900, 3000, 3100, 3200,
    3400,
];
const SAMPLE: &[u64] = &[150, 1200, 2600];

fn moments() -> &'static [u64] {
    if all_moments() { ALL } else { SAMPLE }
}

/// Kills at each moment, going to and fro; whatever it met, all is there in the end.
fn sweep(scene: &Scene, kill: impl Fn(&Host, &Host) -> Fallible<()>) -> Fallible<String> {
    let (mut moved, mut stayed) = (0, 0);
    let (mut here, mut there) = (scene.h1().clone(), scene.h2().clone());
    for moment in moments() {
        let mut running = here
            .command(["logchain", "migrate"])
            .args(P2P)
            .args(["--bandwidth", super::PACE, "vm", &there.uri()])
            .spawn()?;
        there.until("the other half to be there", MIGRATION, || {
            let halves = there.processes(LOGCHAIN)?;
            Ok((!halves.is_empty() || !running.is_running()?).then_some(()))
        })?;
        super::pause(Duration::from_millis(*moment));
        kill(&here, &there)?;
        let output = running.wait(MIGRATION)?;
        let at = settle(&here, &there)?;
        let goes_on = at.host().name() == there.name();
        // Whatever was not told is whole somewhere, and comes by the next command.
        if goes_on && output.code() != Some(0) {
            let offer = ["logchain", "offer", "--transport"];
            let to = format!("ssh://{}", there.name());
            let offer = here
                .command(offer)
                .args([&to, "vm"])
                .limit(MIGRATION)
                .run()?;
            offer
                .checked()
                .map_err(|e| format!("killed after {moment} ms: {e}"))?;
        }
        at.wait_for_more_ticks(50)?;
        let all = history(&at)?;
        Ticks::check_from_boot(&all).map_err(|e| format!("killed after {moment} ms: {e}"))?;
        println!(
            "killed after {moment} ms: status {:?}, it runs at {}, whole",
            output.code(),
            at.host().name()
        );
        if goes_on {
            moved += 1;
            std::mem::swap(&mut here, &mut there);
        } else {
            stayed += 1;
        }
    }
    // What a kill left beside a log or in a spool goes with the next ones.
    let last = here
        .command(["logchain", "migrate"])
        .args(P2P)
        .args(["vm", &there.uri()])
        .limit(MIGRATION)
        .run()?;
    last.checked()?;
    let report = Ticks::check_from_boot(&history(&there.guest("vm"))?)?;
    if !spool_is_empty(&there)? {
        let left = there.run(["find", "/var/lib/logchain/spool", "-type", "f"])?;
        println!("left in the spool of {}: {}", there.name(), left.out());
    }
    Ok(format!(
        "{} kills, it moved {moved} times and stayed {stayed} times; all {} lines are there",
        moments().len(),
        report.count
    ))
}

/// Waits until the guest runs on one host and on no other, and nobody works on its log.
fn settle(here: &Host, there: &Host) -> Fallible<GuestOn> {
    for host in [here, there] {
        host.until("logchain to have ended", MIGRATION, || {
            Ok(host.processes(LOGCHAIN)?.is_empty().then_some(()))
        })?;
    }
    let at = here.until("the guest to run on one host", MIGRATION, || {
        let runs = |host: &Host| -> Result<Option<bool>, logchain_tests::LabError> {
            let state = host.guest("vm").state()?;
            Ok(match state.as_deref() {
                Some("running") => Some(true),
                None | Some("shut off") => Some(false),
                Some(_) => None,
            })
        };
        Ok(match (runs(here)?, runs(there)?) {
            (Some(true), Some(false)) => Some(here.guest("vm")),
            (Some(false), Some(true)) => Some(there.guest("vm")),
            _ => None,
        })
    })?;
    // A migration that went on without us is over only then.
    Ok(at)
}

#[test]
fn it_is_killed_at_the_source() -> Outcome {
    row("logchain migrate is killed -9 | at each phase", |scene| {
        sweep(scene, |here, _| {
            here.signal(LOGCHAIN, "KILL")?;
            Ok(())
        })
    })
}

#[test]
fn it_is_killed_at_the_destination() -> Outcome {
    row("logchain adopt is killed -9 | at each phase", |scene| {
        sweep(scene, |_, there| {
            there.signal(LOGCHAIN, "KILL")?;
            Ok(())
        })
    })
}
