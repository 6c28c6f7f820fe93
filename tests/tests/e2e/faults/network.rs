//! The network between the hosts is cut. Nobody is told: what is sent stays away.

use std::time::Duration;

use super::{Side, row};
use crate::common::{MIGRATION, Outcome};

/// libvirt takes half a minute to find out; whatever we wait for ends soon after.
const LONG: Duration = Duration::from_secs(240);

#[test]
fn the_network_is_cut_before_the_migration() -> Outcome {
    row("the network is cut | before the migration", |scene| {
        scene.h2().cut_network()?;
        let output = scene.migrate(&[])?.wait(LONG)?;
        scene.h2().mend_network()?;
        scene.stayed(&output)
    })
}

#[test]
fn the_network_is_cut_for_seconds_while_memory_is_copied() -> Outcome {
    row(
        "the network is cut for 5 s | while memory is copied",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            scene.h2().cut_network()?;
            super::pause(Duration::from_secs(5));
            scene.h2().mend_network()?;
            scene.moved(&running.wait(MIGRATION)?, &[0, 3])
        },
    )
}

#[test]
#[ignore = "takes minutes"]
fn the_network_is_cut_for_good_while_memory_is_copied() -> Outcome {
    row(
        "the network is cut for good | while memory is copied",
        |scene| {
            let running = scene.slowly(&[])?;
            scene.while_copying()?;
            scene.h2().cut_network()?;
            let output = running.wait(LONG)?;
            scene.h2().mend_network()?;
            scene.stayed_alone(&output)
        },
    )
}

#[test]
#[ignore = "takes minutes"]
fn the_network_is_cut_at_switchover() -> Outcome {
    row("the network is cut for good | at switchover", |scene| {
        let running = scene.slowly(&[])?;
        let held = scene.hold_at_switchover()?;
        scene.h2().cut_network()?;
        drop(held);
        let output = running.wait(LONG)?;
        scene.h2().mend_network()?;
        let there = scene.at(Side::Destination);
        if there.state()?.as_deref() == Some("running") {
            // The destination's libvirtd let it go on, and its answer did not come
            // through: the source's let it go on too. Nothing but libvirt is in that.
            if !output
                .err()
                .contains("see that it does not run there as well")
            {
                return Err(format!("it is not told of: {}", output.err()).into());
            }
            there.destroy()?;
        }
        scene.stayed_alone(&output)
    })
}

#[test]
fn the_network_is_cut_after_switchover() -> Outcome {
    row("the network is cut | as soon as the guest left", |scene| {
        let running = scene.slowly(&["--patience", "5"])?;
        scene.while_copying()?;
        scene.once_it_left()?;
        scene.h2().cut_network()?;
        let output = running.wait(LONG)?;
        // The destination needs nobody to run.
        scene.at(Side::Destination).wait_for_more_ticks(100)?;
        scene.h2().mend_network()?;
        // Received or not, what lies in the spool there goes with the next offer.
        scene.offered("vm")?;
        // What the cut connection still held may come when all is cleared.
        let late = |name: &str| name == "commit" || name.starts_with("chunk-");
        scene.moved_but_for(&output, &[0, 3], late)
    })
}
