//! A host whose certificate is good, and which has no part in a migration, can neither read the
//! log nor add to it, at neither end, neither during the migration nor after it.

use std::time::Duration;

use crate::agent::{Agent, OVER_TLS, P2P, soon_whole};
use crate::common::{MIGRATION, Outcome, history};
use logchain_tests::{Guest, Host, Lab, LabError, Running, Ticks};

/// The port at which agents listen.
const AGENTS: u16 = 16515;

/// How long it tries, at the most, at one agent.
const SECONDS: &str = "20";

/// The thief on `from`, at the agent of `at`. `holds`: connections that it has meanwhile.
fn thief(
    from: &Host,
    at: &Host,
    domain: &str,
    seconds: &str,
    holds: &[String],
) -> Result<Running, LabError> {
    // It needs the host's network and certificate, and nothing else of it.
    let program = env!("CARGO_BIN_EXE_thief");
    let pki = from.path("/etc/libvirt/pki").display().to_string();
    let agent = format!("{}:{AGENTS}", at.address());
    let command = from.command([program, &pki, &agent, domain, seconds]);
    command.args(holds).with_this_machines_files().spawn()
}

/// It was there, tried, and got nothing.
fn is_empty_handed(thief: Running) -> Result<u32, Box<dyn std::error::Error>> {
    let said = thief.wait(MIGRATION)?.checked()?.out();
    let tried = said.lines().find_map(|l| l.strip_prefix("tried "));
    let tried: u32 = tried.ok_or("it never tried")?.parse()?;
    let got: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .collect();
    match got.is_empty() {
        true => Ok(tried),
        false => Err(format!("the thief got {}: {:#?}", got.len(), got.get(..6)).into()),
    }
}

/// `holds`: what the thief is connected to at a host, as an address and a port each.
fn tries_while_a_guest_moves(holds: impl Fn(&Host) -> Vec<String>) -> Outcome {
    let lab = Lab::builder().hosts(3).tls().start()?;
    let (h1, h2, h3) = (lab.host(0), lab.host(1), lab.host(2));
    let one = Agent::start(h1, OVER_TLS)?;
    let two = Agent::start(h2, OVER_TLS)?;
    // Its own agent would tell nobody more.
    let at = h1.define(&Guest::new("vm").fill(16))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let uuid = h1.run(["virsh", "domuuid", "vm"])?.checked()?.out();
    let uuid = uuid.trim();
    let during = [
        thief(h3, h1, uuid, SECONDS, &holds(h1))?,
        thief(h3, h2, uuid, SECONDS, &holds(h2))?,
    ];
    let command = h1.command(["virsh", "--quiet", "migrate"]).args(P2P);
    let command = command.args(["--bandwidth", "32", "vm", &h2.uri()]);
    command.limit(MIGRATION).run()?.checked()?;
    one.wait_for_handoffs(1, "source", "carried")?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(100)?;
    for thief in during {
        println!("it tried {} times", is_empty_handed(thief)?);
    }
    for at in [h1, h2] {
        is_empty_handed(thief(h3, at, uuid, "1", &[])?)?;
    }
    // To the byte what the guest printed, and nothing else.
    soon_whole(&there, &[&one, &two])?;
    let log = history(&there)?;
    Ticks::check_from_boot(&log)?;
    if log.windows(6).any(|bytes| bytes == b"forged") {
        return Err("the thief's bytes are in the log".into());
    }
    Ok(())
}

#[test]
fn a_host_without_a_part_in_a_migration_reads_and_adds_nothing() -> Outcome {
    tries_while_a_guest_moves(|_| Vec::new())
}

/// As a host has it that migrates another guest there at the time: a connection to the daemon
/// is no proof of a part in this migration.
#[test]
fn a_connection_to_the_daemon_makes_no_host_believed() -> Outcome {
    tries_while_a_guest_moves(|host| vec![format!("{}:16509", host.address())])
}

/// An agent that was started anew has not seen its guests come. That lets in nobody who was not
/// the first, and nobody at all once the log is here.
#[test]
fn an_agent_that_was_started_anew_believes_no_thief() -> Outcome {
    let lab = Lab::builder().hosts(3).tls().start()?;
    let (h1, h2, h3) = (lab.host(0), lab.host(1), lab.host(2));
    let one = Agent::start(h1, OVER_TLS)?;
    let two = Agent::start(h2, OVER_TLS)?;
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    crate::agent::virsh(&at, h2, P2P)?.checked()?;
    one.wait_for_handoffs(1, "source", "carried")?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    two.stop()?.checked()?;
    let two = Agent::start(h2, OVER_TLS)?;
    let uuid = h2.run(["virsh", "domuuid", "vm"])?.checked()?.out();
    is_empty_handed(thief(h3, h2, uuid.trim(), "2", &[])?)?;
    h2.until(
        "the log to be looked at once more",
        Duration::from_secs(30),
        || {
            Ok(h2
                .run(["logchain", "agent", "status"])?
                .status
                .success()
                .then_some(()))
        },
    )?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(100)?;
    soon_whole(&there, &[&one, &two])?;
    Ok(())
}
