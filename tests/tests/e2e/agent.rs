//! The agent: migrations that others start, with an agent on both hosts, on one, or on none.

use std::time::Duration;

use crate::common::{MIGRATION, Outcome, history};
use logchain_tests::{Guest, GuestOn, Host, Lab, LabError, Output, Running, Signal, Ticks};
use serde_json::Value;

/// How soon all is expected once the guest runs there: a busy machine takes its time.
const SOON: Duration = Duration::from_secs(60);

/// The agent of one host.
pub(crate) struct Agent {
    host: Host,
    running: Running,
}

impl Agent {
    /// Starts it, and waits until it watches libvirt.
    pub(crate) fn start(host: &Host, way: &[&str]) -> Result<Self, LabError> {
        let command = host.command(["logchain", "agent", "--format", "json"]);
        let running = command
            .args(way)
            .env("LOGCHAIN_LOG", "debug")
            .limit(Duration::from_secs(3600))
            .spawn()?;
        let agent = Self {
            host: host.clone(),
            running,
        };
        agent.wait_for("the agent to watch", SOON, |e| e["event"] == "watching")?;
        Ok(agent)
    }

    /// What it has told so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let out = self.running.stdout();
        let out = String::from_utf8_lossy(&out).into_owned();
        out.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    /// Waits until it tells such an event.
    pub(crate) fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value, LabError> {
        let found = self.host.until(what, limit, || {
            Ok(self.events().into_iter().find(|event| is_it(event)))
        });
        if found.is_err() {
            println!("{} said: {:#?}", self.host.name(), self.events());
            println!("{}", String::from_utf8_lossy(&self.running.stderr()));
        }
        found
    }

    /// Waits until this many handoffs ended here in this way.
    pub(crate) fn wait_for_handoffs(
        &self,
        count: usize,
        role: &str,
        outcome: &str,
    ) -> Result<Vec<Value>, LabError> {
        let found = self.host.until("the handoff to end", SOON, || {
            let ended = self.events().into_iter().filter(|e| {
                e["event"] == "handoff" && e["role"] == role && e["outcome"] == outcome
            });
            let ended: Vec<Value> = ended.collect();
            Ok((ended.len() >= count).then_some(ended))
        });
        if found.is_err() {
            println!("{} said: {:#?}", self.host.name(), self.events());
            println!("{}", String::from_utf8_lossy(&self.running.stderr()));
        }
        found
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<Output, LabError> {
        self.running.signal(Signal::TERM)?;
        self.running.wait(SOON)
    }
}

/// A migration that somebody else starts.
pub(crate) fn virsh(guest: &GuestOn, to: &Host, way: &[&str]) -> Result<Output, LabError> {
    let command = guest.host().command(["virsh", "--quiet", "migrate"]).args(way);
    let command = command.args([guest.name(), &to.uri()]);
    command.limit(MIGRATION).run()
}

/// Agents on both hosts that meet in a folder.
fn both(lab: &Lab) -> Result<(Agent, Agent), LabError> {
    let url = format!("file://{}/pieces", lab.state().display());
    let way = ["--transport", &url, "--retry", "2"];
    let one = Agent::start(lab.host(0), &way)?;
    let two = Agent::start(lab.host(1), &way)?;
    Ok((one, two))
}

#[test]
fn a_migration_by_virsh_carries_the_log() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let (one, two) = both(&lab)?;
    virsh(&at, h2, &["--live", "--p2p", "--persistent"])?.checked()?;
    let here = one.wait_for_handoffs(1, "source", "carried")?;
    let there = two.wait_for_handoffs(1, "destination", "carried")?;
    println!("{here:#?}\n{there:#?}");
    let there = h2.guest("vm");
    there.wait_for_more_ticks(200)?;
    let report = Ticks::check_from_boot(&history(&there)?)?;
    println!("{report:?}");
    one.stop()?.checked()?;
    two.stop()?.checked()?;
    Ok(())
}
