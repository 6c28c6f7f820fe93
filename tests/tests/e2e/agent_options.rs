//! Every way in which `virsh migrate` moves a guest, with agents on both hosts that nobody told
//! about it.

use std::error::Error;
use std::time::Instant;

use crate::agent::{Agent, P2P, SOON, over_tls_with_peers, virsh};
use crate::common::Outcome;
use crate::options::{AS_ANOTHER, WAYS, a_guest, all_there, titles};
use logchain_tests::{GuestOn, Host, Lab};

/// The guest has two consoles.
const CONSOLES: usize = 2;

/// Migrates, and waits until all of both logs is there.
fn go(
    (agents, at): ([&Agent; 2], &GuestOn),
    to: &Host,
    options: &[&str],
) -> Result<GuestOn, Box<dyn Error>> {
    virsh(at, to, options)?.checked()?;
    let name = options.iter().position(|option| *option == "--dname");
    let name = name.and_then(|at| options.get(at + 1)).copied();
    let at = to.guest(name.unwrap_or(at.name()));
    let began = Instant::now();
    let mut last = String::new();
    let whole = to.until("all of both logs", SOON, || {
        Ok(all_there(&at, CONSOLES)
            .map_err(|e| last = e.to_string())
            .ok())
    });
    let lines = whole.map_err(|e| {
        agents.iter().for_each(|agent| agent.dump());
        format!("{options:?}: {last}; {e}")
    })?;
    let (way, to) = (options.join(" "), to.name());
    let seconds = began.elapsed().as_secs_f64();
    println!("{way} → {lines} lines at {to}, seen after {seconds:.1} s");
    Ok(at)
}

#[test]
fn every_way_of_virsh_migrate_takes_the_log_along() -> Outcome {
    let lab = Lab::builder().hosts(2).tls().start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let mut at = a_guest(&lab)?;
    let config = over_tls_with_peers(&lab);
    let (one, two) = (Agent::start(h1, &config)?, Agent::start(h2, &config)?);
    let agents = [&one, &two];
    let mut hosts = [h2, h1].into_iter().cycle();
    let mut to = || hosts.next().unwrap_or(h1);
    for way in WAYS {
        at = go((agents, &at), to(), way)?;
    }
    let unsafely = |more: &[&'static str]| [P2P, &["--unsafe"], more].concat();
    at = go((agents, &at), to(), &unsafely(&["--tunnelled"]))?;
    at = go(
        (agents, &at),
        to(),
        &unsafely(&["--timeout", "1", "--timeout-suspend"]),
    )?;
    let post_copy = unsafely(&["--postcopy", "--postcopy-after-precopy"]);
    at = go((agents, &at), to(), &post_copy)?;
    // Where it is defined, it cannot come under another name.
    at = go((agents, &at), to(), &unsafely(&["--undefinesource"]))?;
    titles(&at)?;
    let moved = go((agents, &at), to(), AS_ANOTHER)?;
    assert_eq!(moved.state()?.as_deref(), Some("paused"));
    h2.run(["virsh", "resume", "other"])?.checked()?;
    all_there(&moved, CONSOLES)?;
    go((agents, &moved), to(), &unsafely(&[]))?;
    one.stop()?.checked()?;
    two.stop()?.checked()?;
    Ok(())
}
