//! A log that is put into an object store as it grows, wherever its guest is.

use std::time::Duration;

use crate::common::{Outcome, history, migrate_json};
use crate::stores::{URL, environment, start_store, with};
use logchain_tests::{Guest, Host, HostCommand, Lab, Running, Signal, Ticks};

const P2P: &[&str] = &["--live", "--p2p", "--persistent"];
const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
const LIMIT: Duration = Duration::from_secs(60);

fn stream(
    host: &Host,
    environment: &[(&str, String)],
) -> Result<Running, logchain_tests::LabError> {
    let command = host.command(["logchain", "stream", "--wait", "--delay", "0.5"]);
    with(command, environment)
        .args(["--transport", URL, "vm"])
        .spawn()
}

fn show(host: &Host, environment: &[(&str, String)], args: &[&str]) -> HostCommand {
    let command = host.command(["logchain", "show", "--transport", URL]);
    with(command, environment).args(args)
}

/// Its streamers stay on both hosts; it goes there and back, and is destroyed.
/// Whoever asks the store has every line once, on a host that never had the VM.
#[test]
fn a_stream_follows_its_guest_and_outlives_it() -> Outcome {
    let lab = Lab::start(3)?;
    let (h1, h2, h3) = (lab.host(0), lab.host(1), lab.host(2));
    let store = start_store(h3)?;
    let environment = environment(h3);
    let vm = h1.define(&Guest::new("vm").uuid(UUID))?;
    let one = stream(h1, &environment)?;
    let two = stream(h2, &environment)?;
    vm.start()?;
    vm.wait_for_tick(300)?;
    h3.until("the first batch", LIMIT, || {
        let shown = show(h3, &environment, &[UUID]).run()?;
        Ok((shown.code() == Some(0)).then_some(()))
    })?;
    let mut follower = show(h3, &environment, &["-f", "--from", "0", "vm"]).spawn()?;

    migrate_json(&vm, h2, P2P)?;
    h2.guest("vm").wait_for_more_ticks(300)?;
    migrate_json(&h2.guest("vm"), h1, P2P)?;
    vm.wait_for_more_ticks(300)?;
    vm.destroy()?;
    let last = Ticks::last(&history(&vm)?).ok_or("no line in the log")?;
    let put = h3.until("its last line to be put", LIMIT, || {
        let shown = show(h3, &environment, &["-n", "64K", UUID])
            .run()?
            .checked()?;
        Ok((Ticks::last(&shown.stdout) == Some(last)).then_some(()))
    });
    if let Err(e) = put {
        let said =
            |r: &Running| String::from_utf8_lossy(&[r.stdout(), r.stderr()].concat()).into_owned();
        return Err(format!("{e}\nh1: {}\nh2: {}", said(&one), said(&two)).into());
    }
    for mut running in [one, two] {
        running.signal(Signal::INT)?;
        running.wait(LIMIT)?.checked()?;
    }
    // By name, known to the store alone.
    let shown = show(h3, &environment, &["-n", "all", "vm"])
        .run()?
        .checked()?;
    assert!(!shown.err().contains("missing"), "{}", shown.err());
    let report = Ticks::check_from_boot(&shown.stdout)?;
    println!(
        "from the store: {} lines, all there, once, in order",
        report.count
    );
    let followed = h3.until("the follower to have it all", LIMIT, || {
        Ok((follower.stdout().len() >= shown.stdout.len()).then_some(()))
    });
    if let Err(e) = followed {
        let (has, wants) = (follower.stdout().len(), shown.stdout.len());
        let said = String::from_utf8_lossy(&follower.stderr()).into_owned();
        let runs = follower.is_running()?;
        return Err(format!("{e}\n{has} of {wants} bytes; it runs: {runs}; {said}").into());
    }
    assert_eq!(follower.kill()?.stdout, shown.stdout);
    store.kill()?;
    Ok(())
}
