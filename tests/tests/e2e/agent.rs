//! The agent: migrations that others start, with an agent on both hosts, on one, or on none.

use std::time::Duration;

use crate::common::{MIGRATION, Outcome, history};
use crate::faults::all_moments;
use logchain_tests::{
    Guest, GuestOn, Host, Lab, LabError, Output, Running, Signal, TickReport, Ticks,
};
use serde_json::Value;

/// How soon all is expected once the guest runs there: a busy machine takes its time.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The agent of one host.
pub(crate) struct Agent {
    host: Host,
    running: Running,
}

impl Agent {
    /// Starts it with this configuration, and waits until it watches libvirt.
    pub(crate) fn start(host: &Host, config: &str) -> Result<Self, LabError> {
        Self::start_with(host, config, &[])
    }

    /// The same, with these variables in its environment.
    pub(crate) fn start_with(
        host: &Host,
        config: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self, LabError> {
        Self::start_program("logchain", host, config, variables)
    }

    /// The same, of another release.
    pub(crate) fn start_program(
        program: &str,
        host: &Host,
        config: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self, LabError> {
        let file = "/run/agent.toml";
        let write = host.command(["tee", file]).input(config);
        write.run()?.checked()?;
        let command = [program, "agent", "--config", file, "--format", "json"];
        let mut command = host.command(command).env("LOGCHAIN_LOG", "debug");
        for (name, value) in variables {
            command = command.env(name, value);
        }
        let agent = Self {
            host: host.clone(),
            running: command.limit(Duration::from_secs(3600)).spawn()?,
        };
        agent.wait_for("the agent to watch", SOON, |e| e["event"] == "watching")?;
        Ok(agent)
    }

    /// What it has told so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let out = self.running.stdout();
        let out = String::from_utf8_lossy(&out).into_owned();
        out.lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect()
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
            self.dump();
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
            self.dump();
        }
        found
    }

    /// Whether its log has this.
    pub(crate) fn said(&self, what: &str) -> bool {
        String::from_utf8_lossy(&self.running.stderr()).contains(what)
    }

    /// How often its log has this.
    pub(crate) fn count(&self, what: &str) -> usize {
        String::from_utf8_lossy(&self.running.stderr())
            .matches(what)
            .count()
    }

    /// Prints all that it said.
    pub(crate) fn dump(&self) {
        println!("{} said: {:#?}", self.host.name(), self.events());
        println!("{}", String::from_utf8_lossy(&self.running.stderr()));
    }

    /// Sends it a signal: STOP and CONT for an agent that hangs for a while.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        self.running.signal(signal)
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> Result<(), LabError> {
        self.running.signal(Signal::KILL)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<Output, LabError> {
        self.running.signal(Signal::TERM)?;
        self.running.wait(SOON)
    }
}

/// Waits until the log of a guest has every line since its boot, once and in order.
pub(crate) fn soon_whole(
    guest: &GuestOn,
    agents: &[&Agent],
) -> Result<TickReport, Box<dyn std::error::Error>> {
    let mut last = String::new();
    let whole = guest.host().until("all of the log", SOON, || {
        let log = history(guest).unwrap_or_default();
        match Ticks::check_from_boot(&log) {
            Ok(report) => Ok(Some(report)),
            Err(e) => {
                last = e.to_string();
                Ok(None)
            }
        }
    });
    whole.map_err(|e| {
        for agent in agents {
            agent.dump();
        }
        let names = crate::common::sorted_names(guest.host(), guest.name());
        format!("{last}; there are {names:?}; {e}").into()
    })
}

/// A migration that somebody else starts.
pub(crate) fn virsh(guest: &GuestOn, to: &Host, way: &[&str]) -> Result<Output, LabError> {
    let command = guest
        .host()
        .command(["virsh", "--quiet", "migrate"])
        .args(way);
    let command = command.args([guest.name(), &to.uri()]);
    command.limit(MIGRATION).run()
}

/// How agents meet in a folder that all hosts of the lab have.
pub(crate) fn in_a_folder(lab: &Lab) -> String {
    let store = format!("file://{}/pieces", lab.state().display());
    format!("[outbox]\nretry_min = \"2s\"\n[meet]\nway = \"store\"\nstore = \"{store}\"\n")
}

/// How agents meet over TLS, in a lab whose hosts have certificates.
pub(crate) const OVER_TLS: &str = "\
[outbox]
retry_min = \"2s\"
[meet]
way = \"tls\"
[meet.tls]
ca = \"/etc/libvirt/pki/ca-cert.pem\"
certificate = \"/etc/libvirt/pki/agent-cert.pem\"
key = \"/etc/libvirt/pki/agent-key.pem\"
client_certificate = \"/etc/libvirt/pki/agent-cert.pem\"
client_key = \"/etc/libvirt/pki/agent-key.pem\"
allowed_names = [\"h?\"]
";

/// The same, and each agent knows where all of them are: whoever saw nothing of a migration asks
/// them.
pub(crate) fn over_tls_with_peers(lab: &Lab) -> String {
    let hosts = lab.hosts().iter();
    let peers: Vec<String> = hosts.map(|h| format!("\"{}:16515\"", h.name())).collect();
    let peers = format!("way = \"tls\"\npeers = [{}]", peers.join(", "));
    OVER_TLS.replace("way = \"tls\"", &peers)
}

/// Agents on both hosts that meet in a folder.
pub(crate) fn both(lab: &Lab) -> Result<(Agent, Agent), LabError> {
    let config = in_a_folder(lab);
    let one = Agent::start(lab.host(0), &config)?;
    let two = Agent::start(lab.host(1), &config)?;
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

pub(crate) const P2P: &[&str] = &["--live", "--p2p", "--persistent"];

/// A migration as Nova has it: the source is undefined at once, and its folder removed.
pub(crate) fn as_nova_does(guest: &GuestOn, to: &Host) -> Outcome {
    let there = to.guest(guest.name());
    // Nova makes it on its own, and refuses where one is there.
    there.make_log_folder()?;
    virsh(guest, to, &[P2P, &["--undefinesource"]].concat())?.checked()?;
    guest.remove_log_folder()?;
    Ok(())
}

#[test]
fn there_and_back_and_there_again_with_the_folder_removed() -> Outcome {
    for append in [false, true] {
        let lab = Lab::start(2)?;
        let hosts = [lab.host(0), lab.host(1)];
        let mut at = hosts[0].define(&Guest::new("vm").append(append))?;
        hosts[1].guest("vm").remove_log_folder()?;
        at.start()?;
        at.wait_for_tick(300)?;
        let (one, two) = both(&lab)?;
        for hop in 0..3 {
            let to = hosts[(hop + 1) % 2];
            as_nova_does(&at, to)?;
            at = to.guest("vm");
            let agent = if hop % 2 == 0 { &two } else { &one };
            agent.wait_for_handoffs(hop / 2 + 1, "destination", "carried")?;
            at.wait_for_more_ticks(200)?;
            let report = Ticks::check_from_boot(&history(&at)?)?;
            println!("append {append}, hop {hop}: {report:?}");
        }
        for event in one.events().iter().chain(&two.events()) {
            assert_ne!(event["event"], "warning", "{event}");
            println!("{event}");
        }
    }
    Ok(())
}

#[test]
fn there_and_back_where_everything_stays() -> Outcome {
    for append in [false, true] {
        let lab = Lab::start(2)?;
        let hosts = [lab.host(0), lab.host(1)];
        let mut at = hosts[0].define(&Guest::new("vm").append(append))?;
        at.start()?;
        at.wait_for_tick(300)?;
        let (one, two) = both(&lab)?;
        for hop in 0..4 {
            let to = hosts[(hop + 1) % 2];
            virsh(&at, to, P2P)?.checked()?;
            at = to.guest("vm");
            let agent = if hop % 2 == 0 { &two } else { &one };
            agent.wait_for_handoffs(hop / 2 + 1, "destination", "carried")?;
            at.wait_for_more_ticks(200)?;
            let report = Ticks::check_from_boot(&history(&at)?)?;
            println!("append {append}, hop {hop}: {report:?}");
        }
    }
    Ok(())
}

#[test]
fn a_migration_that_fails_leaves_the_log_where_it_is() -> Outcome {
    let lab = Lab::builder().hosts(2).tls().start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let config = over_tls_with_peers(&lab);
    let (one, two) = (Agent::start(h1, &config)?, Agent::start(h2, &config)?);
    // Long enough for it to be noticed, and cancelled in the middle of copying memory.
    let slow = [P2P, &["--bandwidth", "1"]].concat();
    let command = h1.command(["virsh", "--quiet", "migrate"]).args(&slow);
    let running = command
        .args([at.name(), &h2.uri()])
        .limit(MIGRATION)
        .spawn()?;
    h1.until("the log to be offered", SOON, || {
        Ok(one.said("begun;").then_some(()))
    })?;
    h1.run(["virsh", "domjobabort", "vm"])?.checked()?;
    assert_ne!(running.wait(SOON)?.code(), Some(0));
    one.wait_for_handoffs(1, "source", "withdrawn")?;
    h1.until("the destination to be as it was", SOON, || {
        let names = crate::common::sorted_names(h2, "vm").unwrap_or_default();
        Ok((!names.iter().any(|n| n.contains(".logchain"))).then_some(()))
    })?;
    // It was never to have the log, so there is nothing to be warned of.
    for event in two.events().iter().filter(|e| e["event"] == "handoff") {
        assert_eq!(event["outcome"], "withdrawn", "{event}");
    }
    at.wait_for_more_ticks(100)?;
    Ticks::check_from_boot(&history(&at)?)?;
    // And the next one carries it.
    virsh(&at, h2, P2P)?.checked()?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(100)?;
    Ticks::check_from_boot(&history(&there)?)?;
    Ok(())
}

#[test]
fn post_copy_carries_the_log() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm").fill(48))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let (one, two) = both(&lab)?;
    let way = ["--postcopy", "--postcopy-after-precopy"];
    virsh(&at, h2, &[P2P, &way].concat())?.checked()?;
    one.wait_for_handoffs(1, "source", "carried")?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(200)?;
    Ticks::check_from_boot(&history(&there)?)?;
    Ok(())
}

#[test]
fn an_agent_that_is_installed_later_brings_the_log_over() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let way = in_a_folder(&lab).replace("[meet]", "[meet]\npatience = \"3s\"");
    let one = Agent::start(h1, &way)?;
    as_nova_does(&at, h2)?;
    // Nobody takes it in: it is put down here, and offered for as long as it takes.
    let left = one.wait_for_handoffs(1, "source", "not-carried")?;
    println!("{left:#?}");
    let two = Agent::start(h2, &way)?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(200)?;
    Ticks::check_from_boot(&history(&there)?)?;
    // What arrived leaves the outbox.
    let outbox = h1.path("/var/lib/logchain/outbox");
    h1.until("the outbox to be empty", SOON, || {
        let found = std::process::Command::new("find")
            .arg(&outbox)
            .args(["-type", "f"])
            .output();
        Ok(found.is_ok_and(|o| o.stdout.is_empty()).then_some(()))
    })?;
    Ok(())
}

#[test]
fn logchain_migrate_beside_agents_carries_the_log_once() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let (one, two) = both(&lab)?;
    crate::common::migrate(&at, h2, P2P)?.checked()?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(200)?;
    Ticks::check_from_boot(&history(&there)?)?;
    // Both agents leave it to the command.
    for agent in [&one, &two] {
        let handoffs = agent
            .events()
            .into_iter()
            .filter(|e| e["event"] == "handoff");
        assert_eq!(handoffs.count(), 0, "{:#?}", agent.events());
    }
    Ok(())
}

#[test]
fn an_agent_at_the_source_alone_hands_over_by_ssh() -> Outcome {
    let lab = Lab::start(2)?;
    let hosts = [lab.host(0), lab.host(1)];
    let mut at = hosts[0].define(&Guest::new("vm"))?;
    hosts[1].guest("vm").remove_log_folder()?;
    at.start()?;
    at.wait_for_tick(300)?;
    // The destination needs none: its half is started over ssh.
    for hop in 0..2 {
        let agent = Agent::start(hosts[hop], "")?;
        as_nova_does(&at, hosts[1 - hop])?;
        let ended = agent.wait_for_handoffs(1, "source", "carried")?;
        println!("{ended:#?}");
        at = hosts[1 - hop].guest("vm");
        at.wait_for_more_ticks(200)?;
        let report = Ticks::check_from_boot(&history(&at)?)?;
        println!("hop {hop}: {report:?}");
        agent.stop()?.checked()?;
    }
    Ok(())
}

/// `kill -9` of either agent, and a start after it.
#[test]
fn an_agent_that_is_killed_goes_on_where_it_was() -> Outcome {
    let lab = Lab::start(2)?;
    let hosts = [lab.host(0), lab.host(1)];
    let way = in_a_folder(&lab).replace("[meet]", "[meet]\npatience = \"20s\"");
    let mut agents = [Agent::start(hosts[0], &way)?, Agent::start(hosts[1], &way)?];
    let mut at = hosts[0].define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    // What the agent says in the phase in which it is killed, and which of the two.
    let phases = [
        (0, "holds the log"),
        (0, "begun;"),
        (0, "the guest has left"),
        (0, "drained"),
        (0, "committed"),
        (1, "action=Receive"),
        (1, "ready"),
        (1, "complete"),
        (1, "sealed"),
        (1, "placed"),
    ];
    // A sample: before the commit and after it, at either host.
    let sample = ["begun;", "committed", "complete", "placed"];
    let phases = phases.into_iter();
    let phases = phases.filter(|(_, phase)| all_moments() || sample.contains(phase));
    for (hop, (whose, phase)) in phases.enumerate() {
        let (from, to) = (hop % 2, 1 - hop % 2);
        let victim = if whose == 0 { from } else { to };
        let before = agents[victim].count(phase);
        let command = at.host().command(["virsh", "--quiet", "migrate"]).args(P2P);
        let command = command.args([at.name(), &hosts[to].uri()]);
        let migration = command.limit(MIGRATION).spawn()?;
        hosts[victim].until(phase, SOON, || {
            Ok((agents[victim].count(phase) > before).then_some(()))
        })?;
        agents[victim].kill()?;
        migration.wait(MIGRATION)?.checked()?;
        at = hosts[to].guest("vm");
        agents[victim] = Agent::start(hosts[victim], &way)?;
        at.wait_for_more_ticks(200)?;
        let whole = at.host().until("all of the log", SOON, || {
            let log = history(&at).unwrap_or_default();
            Ok(Ticks::check_from_boot(&log).ok())
        });
        if whole.is_err() {
            for agent in &agents {
                agent.dump();
            }
            println!("{:?}", Ticks::check_from_boot(&history(&at)?));
        }
        println!("hop {hop}, {phase}: {:?}", whole?);
    }
    Ok(())
}

#[test]
fn a_host_is_evacuated_and_another_one_comes_the_other_way() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let names = ["a", "b", "c", "d"];
    for name in names {
        h1.define(&Guest::new(name))?.start()?;
    }
    let back = h2.define(&Guest::new("e"))?;
    back.start()?;
    let (one, two) = both(&lab)?;
    for name in names {
        h1.guest(name).wait_for_tick(100)?;
    }
    back.wait_for_tick(100)?;
    let mut running = Vec::new();
    for name in names {
        let command = h1.command(["virsh", "--quiet", "migrate"]).args(P2P);
        running.push(command.args([name, &h2.uri()]).limit(MIGRATION).spawn()?);
    }
    virsh(&back, h1, P2P)?.checked()?;
    for running in running {
        running.wait(MIGRATION)?.checked()?;
    }
    two.wait_for_handoffs(4, "destination", "carried")?;
    one.wait_for_handoffs(1, "destination", "carried")?;
    for guest in names
        .map(|name| h2.guest(name))
        .iter()
        .chain([&h1.guest("e")])
    {
        guest.wait_for_more_ticks(50)?;
        Ticks::check_from_boot(&history(guest)?)?;
    }
    Ok(())
}

/// libvirtd and virtlogd are started anew while the agent watches.
#[test]
fn an_agent_outlives_libvirtd_and_virtlogd() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let (one, two) = both(&lab)?;
    for host in [h1, h2] {
        host.kill_libvirtd()?;
        host.start_libvirtd()?;
    }
    for agent in [&one, &two] {
        agent.wait_for("libvirt to be watched again", SOON, |_| {
            let watching = agent
                .events()
                .into_iter()
                .filter(|e| e["event"] == "watching");
            watching.count() == 2
        })?;
    }
    virsh(&at, h2, P2P)?.checked()?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(100)?;
    Ticks::check_from_boot(&history(&there)?)?;
    Ok(())
}

#[test]
fn agents_speak_to_each_other_over_tls() -> Outcome {
    let lab = Lab::builder().hosts(2).tls().start()?;
    let hosts = [lab.host(0), lab.host(1)];
    let agents = [
        Agent::start(hosts[0], OVER_TLS)?,
        Agent::start(hosts[1], OVER_TLS)?,
    ];
    let mut at = hosts[0].define(&Guest::new("vm"))?;
    hosts[1].guest("vm").remove_log_folder()?;
    at.start()?;
    at.wait_for_tick(300)?;
    for hop in 0..4 {
        let to = (hop + 1) % 2;
        as_nova_does(&at, hosts[to])?;
        let ended = agents[to].wait_for_handoffs(hop / 2 + 1, "destination", "carried")?;
        println!(
            "{}",
            ended.last().map(ToString::to_string).unwrap_or_default()
        );
        at = hosts[to].guest("vm");
        at.wait_for_more_ticks(200)?;
        let report = Ticks::check_from_boot(&history(&at)?)?;
        println!("hop {hop}: {report:?}");
    }
    Ok(())
}

/// Somebody removes the folder of a running guest's log: the agent holds what was in it.
#[test]
fn a_log_that_was_removed_under_its_guest_is_carried() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let (one, two) = both(&lab)?;
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    at.remove_log_folder()?;
    // The guest prints on, to where nobody finds it.
    let later = [P2P, &["--bandwidth", "8"]].concat();
    virsh(&at, h2, &later)?.checked()?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(200)?;
    let report = Ticks::check_from_boot(&history(&there)?)?;
    println!("{report:?} {:?}", one.events());
    Ok(())
}

/// What lies at the destination from an earlier stay, and was never handed over, is wiped by
/// libvirt when the guest comes back.
#[test]
fn what_an_earlier_stay_left_is_not_wiped() -> Outcome {
    let lab = Lab::start(2)?;
    let hosts = [lab.host(0), lab.host(1)];
    let way = in_a_folder(&lab).replace("[meet]", "[meet]\npatience = \"3s\"");
    let one = Agent::start(hosts[0], &way)?;
    let at = hosts[0].define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    // There is no agent at the destination: the log stays behind.
    virsh(&at, hosts[1], P2P)?.checked()?;
    let there = hosts[1].guest("vm");
    there.wait_for_more_ticks(200)?;
    virsh(&there, hosts[0], P2P)?.checked()?;
    // Nobody handed over what it printed there; what it printed here before is here again.
    let whole = hosts[0].until("the earlier stay's log", SOON, || {
        let log = history(&at).unwrap_or_default();
        Ok(log.starts_with(FIRST).then_some(log))
    });
    if whole.is_err() {
        one.dump();
    }
    let whole = whole?;
    assert!(Ticks::last(&whole).is_some());
    Ok(())
}

/// How each guest's log begins.
const FIRST: &[u8] = b"logchain lab guest\r\nLC 0000000001 ";

/// Whoever reads at the destination, from before the migration on: what was seen once is seen in
/// each later read.
#[test]
fn a_reader_at_the_destination_never_sees_less_than_before() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(2000)?;
    let (_one, two) = both(&lab)?;
    let way = [P2P, &["--bandwidth", "32"]].concat();
    let command = h1.command(["virsh", "--quiet", "migrate"]).args(&way);
    let mut running = command
        .args([at.name(), &h2.uri()])
        .limit(MIGRATION)
        .spawn()?;
    let path = h2.log_path("vm");
    let path = path.to_string_lossy().into_owned();
    let mut seen: Vec<u8> = Vec::new();
    let (mut reads, mut grew) = (0, 0);
    let mut after = 0;
    // Until some reads after the handoff has ended.
    while after < 10 {
        let ended = !running.is_running()? && two.events().iter().any(|e| e["event"] == "handoff");
        after += usize::from(ended);
        // Before the domain is there, there may be no file.
        let output = h2.command(["logchain", "show", "-n", "all", &path]).run()?;
        reads += 1;
        let now = output.stdout;
        if let Some(last) = Ticks::last(&seen) {
            let still = Ticks::last(&now).is_some_and(|now| now >= last);
            assert!(
                still,
                "read {reads}: {last} was seen before, and is not any more"
            );
            let began = seen.starts_with(FIRST);
            assert!(
                !began || now.starts_with(FIRST),
                "read {reads}: the beginning is gone"
            );
        }
        grew += usize::from(now.len() > seen.len());
        seen = now;
    }
    running.wait(MIGRATION)?.checked()?;
    println!("{reads} reads, {grew} of them longer than the one before");
    Ticks::check_from_boot(&seen)?;
    Ok(())
}
