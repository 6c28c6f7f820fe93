//! The seeds of the fuzz targets, and for a moment what changes make of them.

#[path = "../../../fuzz/replay.rs"]
mod replay;

use std::time::Duration;

use logchain_transport_wire::fuzzing::TARGETS;

const EACH: Duration = Duration::from_millis(500);

#[test]
fn nothing_from_outside_breaks_it() {
    for (target, run) in TARGETS {
        replay::replay(target, *run, EACH);
    }
}
