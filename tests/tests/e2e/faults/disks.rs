//! A disk fills.

use super::{Side, row_with, says};
use crate::common::{MIGRATION, Outcome};
use logchain_tests::{Guest, Pace, Ticks};

/// More than the small disk holds.
pub(super) const LINES: u64 = 8_000;
pub(super) const KIB: u64 = 320;

/// What we stage there must not take the room that the guest's own log needs: where
/// virtlogd cannot write, it lets go of the log for good.
#[test]
fn the_destinations_disk_fills() -> Outcome {
    let guest = Guest::new("vm").pace(Pace::Micros(500));
    row_with(
        "the disk of the destination's log fills | while memory is copied",
        &guest,
        LINES,
        |scene| {
            let folder = "/var/log/lab/vm";
            scene.h2().small_disk(folder, KIB)?;
            let output = scene.slowly(&[])?.wait(MIGRATION)?;
            says(&output, 3)?;
            scene.h2().resize_disk(folder, 64 * 1024)?;
            // All that the guest printed there is there.
            Ticks::check(&crate::common::history(&scene.at(Side::Destination))?)?;
            scene.moved(&output, &[3])
        },
    )
}

#[test]
fn the_spools_disk_fills() -> Outcome {
    let guest = Guest::new("vm").pace(Pace::Micros(500));
    row_with(
        "the disk of the destination's spool fills | while memory is copied",
        &guest,
        LINES,
        |scene| {
            let folder = "/var/lib/logchain/spool";
            scene.h2().small_disk(folder, 64)?;
            let output = scene.slowly(&["--patience", "5"])?.wait(MIGRATION)?;
            scene.h2().resize_disk(folder, 64 * 1024)?;
            scene.moved(&output, &[0, 3])
        },
    )
}
