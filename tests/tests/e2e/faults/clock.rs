//! The clock jumps while the log is on its way: nothing is decided by it.

use std::os::unix::fs::PermissionsExt as _;

use super::{Fallible, P2P, PACE, row};
use crate::common::{MIGRATION, Outcome};
use logchain_tests::Host;

const WRAPPER: &str = "/var/lib/logchain/anytime";
const NOW: &str = "/tmp/now";

/// A program on `host` that is logchain at the time that a file says, looked at anew
/// whenever it asks for the time.
fn wrap(host: &Host) -> Fallible<()> {
    let file = host.path(WRAPPER);
    let script = format!(
        "#!/bin/sh\n\
         export LD_PRELOAD=$(faketime -f +0 sh -c 'echo $LD_PRELOAD')\n\
         export FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1\n\
         export FAKETIME_TIMESTAMP_FILE={NOW}\n\
         exec logchain \"$@\"\n"
    );
    std::fs::write(&file, script)?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o700))?;
    jump(host, "+0")
}

fn jump(host: &Host, offset: &str) -> Fallible<()> {
    Ok(std::fs::write(host.path(NOW), format!("{offset}\n"))?)
}

#[test]
fn the_clocks_jump() -> Outcome {
    row(
        "the clocks jump, a year ahead here and back there | while memory is copied",
        |scene| {
            let (h1, h2) = (scene.h1(), scene.h2());
            wrap(h1)?;
            wrap(h2)?;
            let year = |host: &Host| -> Fallible<u32> {
                let show = format!(
                    "LD_PRELOAD=$(faketime -f +0 sh -c 'echo $LD_PRELOAD') \
                 FAKETIME_NO_CACHE=1 FAKETIME_TIMESTAMP_FILE={NOW} date +%Y"
                );
                let said = host.run(["sh", "-c", &show])?.checked()?;
                Ok(said.out().trim().parse()?)
            };
            let now = year(h1)?;
            let command = h1.command([WRAPPER, "migrate"]).args(P2P);
            let command = command.args(["--bandwidth", PACE, "--remote-logchain", WRAPPER]);
            let running = command.args(["vm", &h2.uri()]).spawn()?;
            scene.while_copying()?;
            jump(h1, "+1y")?;
            jump(h2, "-1y")?;
            if (year(h1)?, year(h2)?) != (now + 1, now - 1) {
                return Err("the clocks did not jump".into());
            }
            scene.moved(&running.wait(MIGRATION)?, &[0])
        },
    )
}
