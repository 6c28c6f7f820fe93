//! QEMU, libvirtd and virtlogd die, or start anew.

use std::time::Duration;

use super::{QEMU, Side, row, says};
use crate::common::{MIGRATION, Outcome, history};
use logchain_tests::Ticks;

#[test]
fn the_destinations_qemu_dies_while_memory_is_copied() -> Outcome {
    row(
        "the destination's QEMU dies | while memory is copied",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            scene.h2().signal(QEMU, "KILL")?;
            scene.stayed(&running.wait(MIGRATION)?)
        },
    )
}

#[test]
fn the_destinations_qemu_dies_at_switchover() -> Outcome {
    row("the destination's QEMU dies | at switchover", |scene| {
        let running = scene.slowly(&[])?;
        let held = scene.hold_at_switchover()?;
        scene.h2().signal(QEMU, "KILL")?;
        drop(held);
        scene.stayed(&running.wait(MIGRATION)?)
    })
}

/// The VM is lost on both hosts, and not its log.
#[test]
fn the_destinations_qemu_dies_after_switchover() -> Outcome {
    row(
        "the destination's QEMU dies | as soon as the guest left",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            scene.once_it_left()?;
            scene.h2().signal(QEMU, "KILL")?;
            let output = running.wait(MIGRATION)?;
            let code = output.code().ok_or("killed")?;
            let side = match code {
                0 => Side::Destination,
                3 => Side::Source,
                code => return Err(format!("status {code}: {}", output.err()).into()),
            };
            if code == 3 {
                says(&output, 3)?;
            }
            let before = scene.whole_at(side)?;
            // One that was committed and not received stays in the spool: where the source
            // dies too it is all there is.
            if code == 0 {
                scene.is_clean()?;
            }
            // As an operator starts it again, the destination's libvirt begins its log anew.
            Ok(format!(
                "status {code}, {} lines are whole at the {side:?}",
                before.count
            ))
        },
    )
}

#[test]
fn the_destinations_libvirtd_dies_while_memory_is_copied() -> Outcome {
    row(
        "the destination's libvirtd dies and comes back | while memory is copied",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            scene.h2().kill_libvirtd()?;
            scene.h2().start_libvirtd()?;
            scene.stayed(&running.wait(MIGRATION)?)
        },
    )
}

#[test]
fn the_destinations_libvirtd_dies_after_switchover() -> Outcome {
    row(
        "the destination's libvirtd dies and comes back | as soon as the guest left",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            scene.once_it_left()?;
            scene.h2().kill_libvirtd()?;
            scene.h2().start_libvirtd()?;
            let output = running.wait(MIGRATION)?;
            scene.moved(&output, &[0, 3])
        },
    )
}

#[test]
fn the_sources_libvirtd_dies_while_memory_is_copied() -> Outcome {
    row(
        "the source's libvirtd dies and comes back | while memory is copied",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            scene.h1().kill_libvirtd()?;
            scene.h1().start_libvirtd()?;
            scene.stayed(&running.wait(MIGRATION)?)
        },
    )
}

#[test]
fn the_sources_libvirtd_dies_after_switchover() -> Outcome {
    row(
        "the source's libvirtd dies and comes back | as soon as the guest left",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            scene.once_it_left()?;
            scene.h1().kill_libvirtd()?;
            scene.h1().start_libvirtd()?;
            let output = running.wait(MIGRATION)?;
            scene.moved(&output, &[0, 3])
        },
    )
}

/// As its reload does: it starts itself anew, with all its logs.
#[test]
fn virtlogd_starts_itself_anew_on_both_sides() -> Outcome {
    row(
        "virtlogd is reloaded on both hosts | while copied, and as soon as it left",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            for host in scene.lab.hosts() {
                host.signal("virtlogd", "USR1")?;
            }
            scene.once_it_left()?;
            for host in scene.lab.hosts() {
                host.signal("virtlogd", "USR1")?;
            }
            let output = running.wait(MIGRATION)?;
            scene.moved(&output, &[0])
        },
    )
}

/// What the guest prints without a virtlogd is lost, and nothing else is.
#[test]
#[ignore = "takes minutes"]
fn the_sources_virtlogd_dies() -> Outcome {
    row(
        "the source's virtlogd dies and comes back | while memory is copied",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            scene.h1().kill_virtlogd()?;
            let before = history(&scene.at(Side::Source))?;
            scene.h1().start_virtlogd()?;
            let output = running.wait(MIGRATION)?.checked()?;
            scene.runs_at(Side::Destination)?;
            let all = history(&scene.at(Side::Destination))?;
            let after = all
                .strip_prefix(before.as_slice())
                .ok_or("what was there is not")?;
            let report = Ticks::check(after)?;
            scene.is_clean()?;
            Ok(format!(
                "status 0 after {:.1} s, all that it wrote is there, and {} lines from {} on",
                output.took.as_secs_f64(),
                report.count,
                report.first
            ))
        },
    )
}

/// The guest has no log there any more; its history is whole on one side.
#[test]
#[ignore = "takes minutes"]
fn the_destinations_virtlogd_dies() -> Outcome {
    row(
        "the destination's virtlogd dies and comes back | while memory is copied",
        |scene| {
            let running = scene.slowly(&["--patience", "20"])?;
            scene.while_copying()?;
            scene.h2().kill_virtlogd()?;
            scene.h2().start_virtlogd()?;
            let output = running.wait(MIGRATION + Duration::from_secs(60))?;
            let code = output.code().ok_or("killed")?;
            let side = match code {
                0 => Side::Destination,
                1 | 3 => Side::Source,
                code => return Err(format!("status {code}: {}", output.err()).into()),
            };
            let report = scene.whole_at(side)?;
            scene.is_clean()?;
            Ok(format!(
                "status {code}, {} lines are whole at the {side:?}",
                report.count
            ))
        },
    )
}
