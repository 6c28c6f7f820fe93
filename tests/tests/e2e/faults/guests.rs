//! Guests that print nothing, or as much as they can.

use super::{Side, row_with};
use crate::common::{MIGRATION, Outcome, history};
use logchain_tests::{Guest, Pace, Ticks};

#[test]
fn a_guest_that_prints_nothing_any_more() -> Outcome {
    let guest = Guest::new("vm").lines(40);
    row_with("the guest is silent | all along", &guest, 40, |scene| {
        let before = history(&scene.at(Side::Source))?;
        let output = scene.migrate(&["--undefinesource"])?.wait(MIGRATION)?;
        let output = output.checked()?;
        let after = history(&scene.at(Side::Destination))?;
        if before != after {
            return Err(format!("{} bytes became {}", before.len(), after.len()).into());
        }
        scene.is_clean()?;
        Ok(format!(
            "status 0 after {:.1} s, the {} bytes are there as they were",
            output.took.as_secs_f64(),
            after.len()
        ))
    })
}

#[test]
fn a_guest_that_floods_its_log() -> Outcome {
    let guest = Guest::new("vm").pace(Pace::Flat);
    row_with(
        "the guest floods its log | all along",
        &guest,
        8_000,
        |scene| {
            let output = scene.slowly(&[])?.wait(MIGRATION)?.checked()?;
            scene.runs_at(Side::Destination)?;
            // The oldest lines are more than the rotation keeps, maybe.
            let report = Ticks::check(&history(&scene.at(Side::Destination))?)?;
            scene.is_clean()?;
            Ok(format!(
                "status 0 after {:.1} s, {} lines (from {} on) are there, once, in order",
                output.took.as_secs_f64(),
                report.count,
                report.first
            ))
        },
    )
}
