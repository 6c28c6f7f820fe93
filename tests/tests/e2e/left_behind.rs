//! Logs that could not be carried at first: what becomes of them when the VM
//! comes back, or when they are offered another way.

use crate::common::{MIGRATION, Outcome, history, migrate, migrate_json};
use logchain_tests::{Guest, Lab, Ticks};

const P2P: &[&str] = &["--live", "--p2p", "--persistent"];

fn comes_back(append: bool) -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm").append(append))?;
    vm.start()?;
    vm.wait_for_tick(400)?;
    h2.stop_sshd()?;
    let output = migrate(&vm, h2, P2P)?;
    assert_eq!(output.code(), Some(3), "{}", output.err());
    let vm = h2.guest("vm");
    vm.wait_for_more_ticks(400)?;
    h2.start_sshd()?;

    // Nobody offered it. The VM comes back, and with it all that it printed elsewhere.
    migrate_json(&vm, h1, P2P)?;
    let vm = h1.guest("vm");
    vm.wait_for_more_ticks(200)?;
    let report = Ticks::check_from_boot(&history(&vm)?)?;
    println!(
        "append {append}: {} lines, all there, once, in order",
        report.count
    );

    // And from here on it goes with the VM again.
    migrate_json(&vm, h2, P2P)?;
    let vm = h2.guest("vm");
    vm.wait_for_more_ticks(200)?;
    Ticks::check_from_boot(&history(&vm)?)?;
    Ok(())
}

#[test]
fn what_stayed_behind_joins_when_the_vm_comes_back() -> Outcome {
    comes_back(false)
}

#[test]
fn what_stayed_behind_joins_when_the_vm_comes_back_with_append() -> Outcome {
    comes_back(true)
}

/// Committed to a folder that the destination does not see; then offered over ssh.
#[test]
fn a_log_committed_in_vain_is_offered_another_way() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(300)?;
    let way = [P2P, &["--transport", "file:///tmp/mine", "--patience", "2"]].concat();
    let output = migrate(&vm, h2, &way)?;
    assert_eq!(output.code(), Some(3), "{}", output.err());
    let vm = h2.guest("vm");
    vm.wait_for_more_ticks(300)?;

    let offer = ["logchain", "offer", "--transport", "ssh://h2", "vm"];
    h1.command(offer).limit(MIGRATION).run()?.checked()?;
    Ticks::check_from_boot(&history(&vm)?)?;
    // The folder's own handoff, should it come there after all, changes nothing.
    let pieces = h1
        .run(["tar", "-C", "/tmp/mine", "-cf", "-", "."])?
        .checked()?;
    h2.run(["mkdir", "/tmp/mine"])?.checked()?;
    let unpack = h2.command(["tar", "-C", "/tmp/mine", "-xf", "-"]);
    unpack.input(pieces.stdout).run()?.checked()?;
    h2.run(["logchain", "adopt", "--transport", "file:///tmp/mine", "vm"])?
        .checked()?;
    Ticks::check_from_boot(&history(&vm)?)?;
    Ok(())
}
