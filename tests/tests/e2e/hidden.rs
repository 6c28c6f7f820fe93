//! A log whose file was removed or renamed while its guest runs, and one that nobody
//! writes any more.

use std::error::Error;

use crate::common::{Outcome, history, migrate};
use logchain_tests::{Guest, GuestOn, Host, Lab, Ticks};

const P2P: &[&str] = &["--live", "--p2p", "--persistent"];

/// What `status` and `verify` say of the guest's log.
fn said(guest: &GuestOn) -> Result<(String, String), Box<dyn Error>> {
    let host = guest.host();
    let status = host.run(["logchain", "status"])?.checked()?;
    let verify = host.run(["logchain", "verify", guest.name()])?;
    println!("status: {}verify: {}", status.err(), verify.out());
    assert_eq!(verify.code(), Some(1), "{}{}", verify.out(), verify.err());
    Ok((status.err(), verify.out()))
}

fn is_whole(guest: &GuestOn) -> Outcome {
    let host = guest.host();
    let verify = host.run(["logchain", "verify", guest.name()])?.checked()?;
    assert!(verify.out().contains("is whole"), "{}", verify.out());
    let status = host.run(["logchain", "status"])?.checked()?;
    assert!(!status.err().contains(guest.name()), "{}", status.err());
    Ok(())
}

/// `hide` (a shell's command in the folder of the log) takes the log from its path: what
/// is said, and that all of it is at the destination.
fn hidden_and_carried(hide: &str, says: &str, append: bool) -> Outcome {
    // A rollover before the migration would leave the file to nobody: it is not to come.
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm").append(append))?;
    let other = h1.define(&Guest::new("other").lines(50))?;
    other.start()?;
    vm.start()?;
    vm.wait_for_tick(1000)?;
    is_whole(&vm)?;
    let folder = vm.log_path();
    let folder = folder.parent().ok_or("no folder")?.display().to_string();
    h1.run(["sh", "-c", &format!("cd {folder} && {hide}")])?
        .checked()?;
    let (status, verify) = said(&vm)?;
    assert!(status.contains(says) && verify.contains(says));
    assert!(
        status.contains("nobody who reads the log sees it"),
        "{status}"
    );
    // The other one's log is where it belongs.
    is_whole(&other)?;

    let output = migrate(&vm, h2, P2P)?;
    assert_eq!(output.code(), Some(0), "{}", output.err());
    let vm = h2.guest("vm");
    vm.wait_for_more_ticks(300)?;
    let report = Ticks::check_from_boot(&history(&vm)?)?;
    println!("{hide}: {report}");
    is_whole(&vm)
}

#[test]
fn a_removed_log_is_told_of_and_carried() -> Outcome {
    hidden_and_carried("rm console.log", "removed file", false)
}

#[test]
fn a_log_moved_away_with_another_in_its_place_is_carried() -> Outcome {
    let hide = "mv console.log console.log.old && touch console.log";
    hidden_and_carried(hide, "was renamed", false)
}

#[test]
fn a_log_moved_to_a_number_of_its_chain_is_carried_once() -> Outcome {
    let hide = "mv console.log.1 console.log.2; mv console.log.0 console.log.1; \
                mv console.log console.log.0";
    hidden_and_carried(hide, "was renamed", true)
}

/// Two of the guest's logs were renamed, and nobody can tell which is which: the guest
/// migrates, and the exit status says that a part of its logs stayed behind.
#[test]
fn a_log_that_may_be_any_of_two_files_is_not_said_to_be_carried() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm").second_port())?;
    vm.start()?;
    vm.wait_for_tick(400)?;
    let folder = vm.log_path();
    let folder = folder.parent().ok_or("no folder")?.display().to_string();
    let hide = "mv console.log console.log.old; mv second.log console.log.older";
    h1.run(["sh", "-ec", &format!("cd {folder}; ls >&2; {hide}")])?
        .checked()?;
    let (status, _) = said(&vm)?;
    let doubt = "may go to any of these";
    assert!(status.contains(doubt), "{status}");
    let output = migrate(&vm, h2, P2P)?;
    println!("{}", output.err());
    assert_eq!(output.code(), Some(3), "{}", output.err());
    assert!(output.err().contains(doubt), "{}", output.err());
    assert_eq!(h2.guest("vm").state()?.as_deref(), Some("running"));
    Ok(())
}

/// virtlogd is ended, and another one started: the pipe of the guest has no reader.
#[test]
fn a_log_without_a_writer_is_told_of() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(400)?;
    is_whole(&vm)?;
    restart_virtlogd(h1)?;
    let (status, verify) = said(&vm)?;
    let lost = "what the guest prints is lost";
    assert!(status.contains(lost) && verify.contains(lost));
    // It goes on at the destination: what was written is there, and what comes.
    let output = migrate(&vm, h2, P2P)?;
    assert_eq!(output.code(), Some(0), "{}", output.err());
    let vm = h2.guest("vm");
    vm.wait_for_more_ticks(300)?;
    assert!(Ticks::count(&history(&vm)?) > 400);
    let verify = h2.run(["logchain", "verify", "vm"])?;
    assert!(!verify.out().contains(lost), "{}", verify.out());
    Ok(())
}

fn restart_virtlogd(host: &Host) -> Outcome {
    host.kill_virtlogd()?;
    Ok(host.start_virtlogd()?)
}
