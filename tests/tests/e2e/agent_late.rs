//! A host cannot hand its log over in time, and the guest goes on to further hosts: the log comes to
//! it all the same, and lies where it belongs.

use crate::agent::{Agent, P2P, SOON, over_tls_with_peers, soon_whole, virsh};
use crate::common::Outcome;
use logchain_tests::{Guest, GuestOn, Host, Lab, LabError, Signal};

/// Three hosts with agents that meet over TLS, and a guest on the first one whose log is appended
/// to.
fn begin(lab: &Lab) -> Result<(Vec<Agent>, GuestOn), LabError> {
    let config = over_tls_with_peers(lab);
    let start = |host| Agent::start(host, &config);
    let agents = lab.hosts().iter().map(start).collect::<Result<_, _>>()?;
    let guest = lab.host(0).define(&Guest::new("vm").append(true))?;
    guest.start()?;
    guest.wait_for_tick(300)?;
    Ok((agents, guest))
}

fn go(at: &GuestOn, to: &Host) -> Result<GuestOn, LabError> {
    virsh(at, to, P2P)?.checked()?;
    let there = to.guest("vm");
    there.wait_for_more_ticks(100)?;
    Ok(there)
}

/// The host where the guest is now never saw the one that has the rest of the log. The host in
/// between tells that it did.
#[test]
fn a_log_that_stayed_behind_follows_over_another_host() -> Outcome {
    let lab = Lab::builder().hosts(3).tls().start()?;
    let (mut agents, at) = begin(&lab)?;
    agents[0].signal(Signal::STOP)?;
    let at = go(&at, lab.host(1))?;
    let at = go(&at, lab.host(2))?;
    agents[2].wait_for("the part of the second host", SOON, |e| {
        e["event"] == "handoff" && e["outcome"] == "carried"
    })?;
    agents[0].signal(Signal::CONT)?;
    let report = soon_whole(&at, &[&agents[0], &agents[1], &agents[2]])?;
    println!("{report}");
    Ok(())
}

/// The third host has a copy of the beginning from an earlier stay, and takes it along. The second
/// one has all of it, and cannot hand over. When the guest is back there, what is in both is there
/// once, and the new part lies behind it.
#[test]
fn an_old_copy_that_went_along_is_there_once() -> Outcome {
    let lab = Lab::builder().hosts(3).tls().start()?;
    let (mut agents, at) = begin(&lab)?;
    let [h1, h2, h3] = [0, 1, 2].map(|n| lab.host(n));
    let at = go(&at, h3)?;
    soon_whole(&at, &[&agents[0], &agents[2]])?;
    let at = go(&at, h1)?;
    soon_whole(&at, &[&agents[0], &agents[2]])?;
    let at = go(&at, h2)?;
    soon_whole(&at, &[&agents[0], &agents[1]])?;
    agents[1].signal(Signal::STOP)?;
    let at = go(&at, h3)?;
    let at = go(&at, h1)?;
    agents[1].signal(Signal::CONT)?;
    // What it prints there from now on must be told from what it printed there before.
    h2.until("the log to make way", SOON, || {
        Ok((!h2.path(h2.log_path("vm")).exists()).then_some(()))
    })?;
    let at = go(&at, h2)?;
    let all = [&agents[0], &agents[1], &agents[2]];
    println!("back at the second host: {}", soon_whole(&at, &all)?);
    let at = go(&at, h1)?;
    println!("and on: {}", soon_whole(&at, &all)?);
    Ok(())
}
