//! Law 1 with agents: whatever an agent does or fails to do, migrations and guests do not
//! notice it. And whenever it is there again, the log is carried after all.

use std::time::Duration;

use crate::agent::{
    Agent, P2P, SOON, as_nova_does, both, in_a_folder, over_tls_with_peers, soon_whole, virsh,
};
use crate::common::{MIGRATION, Outcome};
use crate::faults::all_moments;
use logchain_tests::{Guest, GuestOn, Host, Lab, LabError, Running, Signal};

/// MiB/s: memory takes a second or two. Slower ones show faults of an emulated processor: see
/// the pace in `faults`.
const SLOWLY: &[&str] = &["--bandwidth", "32"];

/// Memory to copy, in MiB, so that there is time for something to happen.
const FILL: u32 = 16;

/// How the agents of a test meet.
#[derive(Clone, Copy, Debug)]
enum Way {
    Folder,
    Tls,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Folder, Self::Tls];

    /// The way over which most can go wrong; both, where all is asked for.
    fn tested() -> Vec<Self> {
        let ways = Self::BOTH.into_iter();
        ways.filter(|way| all_moments() || matches!(way, Self::Tls))
            .collect()
    }

    fn config(self, lab: &Lab) -> String {
        match self {
            Self::Folder => in_a_folder(lab),
            Self::Tls => over_tls_with_peers(lab),
        }
    }
}

/// Starts a slow migration by virsh.
fn slowly(guest: &GuestOn, to: &Host) -> Result<Running, LabError> {
    let command = guest.host().command(["virsh", "--quiet", "migrate"]);
    let command = command.args(P2P).args(SLOWLY);
    let command = command.args([guest.name(), &to.uri()]);
    command.limit(MIGRATION).spawn()
}

/// Waits until memory is copied.
fn while_copying(guest: &GuestOn) -> Result<(), LabError> {
    let job = ["virsh", "domjobinfo", guest.name()];
    guest.host().until("memory to be copied", MIGRATION, || {
        let job = guest.host().run(job)?.out();
        Ok(job.contains("Memory processed").then_some(()))
    })
}

fn a_guest(lab: &Lab) -> Result<GuestOn, LabError> {
    let guest = lab.host(0).define(&Guest::new("vm").fill(FILL))?;
    guest.start()?;
    guest.wait_for_tick(300)?;
    Ok(guest)
}

#[test]
fn agents_that_stand_still_hold_up_nothing() -> Outcome {
    for way in Way::tested() {
        let lab = Lab::builder().hosts(2).tls().start()?;
        let hosts = [lab.host(0), lab.host(1)];
        let mut at = a_guest(&lab)?;
        let config = way.config(&lab);
        let mut one = Agent::start(hosts[0], &config)?;
        let mut two = Agent::start(hosts[1], &config)?;
        for (hop, moment) in ["before", "at once", "while copying"].iter().enumerate() {
            let to = hosts[(hop + 1) % 2];
            let mut migration = None;
            if *moment != "before" {
                migration = Some(slowly(&at, to)?);
            }
            if *moment == "while copying" {
                while_copying(&at)?;
            }
            for agent in [&mut one, &mut two] {
                agent.signal(Signal::STOP)?;
            }
            let migration = match migration {
                Some(migration) => migration,
                None => slowly(&at, to)?,
            };
            migration.wait(MIGRATION)?.checked()?;
            let there = to.guest("vm");
            // It runs there, prints, and nobody is there to help or to harm.
            there.wait_for_more_ticks(200)?;
            for agent in [&mut one, &mut two] {
                agent.signal(Signal::CONT)?;
            }
            at = there;
            let report = soon_whole(&at, &[&one, &two])?;
            println!("{way:?}, stopped {moment} the migration: {report}");
        }
    }
    Ok(())
}

/// One that is started late at the destination, at the source, and at both.
#[test]
fn an_agent_may_start_while_a_migration_runs() -> Outcome {
    for way in Way::tested() {
        let lab = Lab::builder().hosts(2).tls().start()?;
        let hosts = [lab.host(0), lab.host(1)];
        let config = way.config(&lab);
        let mut at = a_guest(&lab)?;
        for (hop, late) in [[false, true], [true, false], [true, true]]
            .iter()
            .enumerate()
        {
            let (from, to) = (hosts[hop % 2], hosts[(hop + 1) % 2]);
            let start = |is_late: bool, host: &Host| match is_late {
                true => Ok(None),
                false => Agent::start(host, &config).map(Some),
            };
            let (mut source, mut destination) = (start(late[0], from)?, start(late[1], to)?);
            let migration = slowly(&at, to)?;
            while_copying(&at)?;
            for (agent, host) in [(&mut source, from), (&mut destination, to)] {
                if agent.is_none() {
                    *agent = Some(Agent::start(host, &config)?);
                }
            }
            migration.wait(MIGRATION)?.checked()?;
            at = to.guest("vm");
            at.wait_for_more_ticks(200)?;
            let agents: Vec<&Agent> = source.iter().chain(&destination).collect();
            let report = soon_whole(&at, &agents)?;
            println!("{way:?}, late at the source and the destination {late:?}: {report}");
            for agent in source.into_iter().chain(destination) {
                agent.stop()?.checked()?;
            }
        }
    }
    Ok(())
}

/// Nobody waits for a handoff before the next migration begins.
#[test]
fn migrations_that_follow_each_other_at_once_lose_nothing() -> Outcome {
    for way in Way::BOTH {
        let lab = Lab::builder().hosts(3).tls().start()?;
        let config = way.config(&lab);
        let agents: Vec<Agent> = lab
            .hosts()
            .iter()
            .map(|host| Agent::start(host, &config))
            .collect::<Result<_, _>>()?;
        let agents: Vec<&Agent> = agents.iter().collect();
        let guest = lab.host(0).define(&Guest::new("vm"))?;
        guest.start()?;
        guest.wait_for_tick(300)?;
        let mut at = guest;
        // There and back; on to a third one; and back to where it began.
        for route in [[1, 0], [1, 2], [1, 0]] {
            for to in route {
                let to = lab.host(to);
                virsh(&at, to, P2P)?.checked()?;
                at = to.guest("vm");
            }
            at.wait_for_more_ticks(200)?;
            let report = soon_whole(&at, &agents)?;
            println!("{way:?}, {route:?}: {report}");
        }
    }
    Ok(())
}

/// What an operator can ask while a handoff is under way.
#[test]
fn it_answers_during_a_migration_and_drains_after_it() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = a_guest(&lab)?;
    let (one, two) = both(&lab)?;
    let metrics = |host: &Host| -> Result<String, LabError> {
        let socket = "/run/logchain/agent.sock";
        let curl = [
            "curl",
            "-sS",
            "--unix-socket",
            socket,
            "http://agent/metrics",
        ];
        Ok(host.run(curl)?.checked()?.out())
    };
    let migration = slowly(&at, h2)?;
    let under_way = |host: &Host, role: &str| {
        let row = format!("logchain_agent_handoffs_under_way{{role=\"{role}\"}} 1");
        host.until(&row, SOON, || {
            Ok(metrics(host)?.contains(&row).then_some(()))
        })
    };
    under_way(h1, "source")?;
    under_way(h2, "destination")?;
    let status = h1.run(["logchain", "agent", "status"])?.checked()?.out();
    if !status.contains("vm") {
        return Err(format!("it says nothing of vm: {status}").into());
    }
    // What is under way comes to its end; it is waited for.
    let drain = ["logchain", "agent", "drain", "--wait", "2m"];
    let drained = h1.command(drain).limit(MIGRATION).run()?.checked()?;
    println!("{}{}", status, drained.out());
    migration.wait(MIGRATION)?.checked()?;
    one.wait_for_handoffs(1, "source", "carried")?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(100)?;
    soon_whole(&there, &[&one, &two])?;
    for (host, role) in [(h1, "source"), (h2, "destination")] {
        let row = format!("logchain_agent_handoffs_total{{outcome=\"carried\",role=\"{role}\"}} 1");
        let other =
            format!("logchain_agent_handoffs_total{{role=\"{role}\",outcome=\"carried\"}} 1");
        let page = metrics(host)?;
        if !page.contains(&row) && !page.contains(&other) {
            return Err(format!("{row} is not on {page}").into());
        }
    }
    // One that drains takes nothing in, and the migration back does not wait for it.
    virsh(&there, h1, P2P)?.checked()?;
    let back = h1.guest("vm");
    back.wait_for_more_ticks(100)?;
    one.stop()?.checked()?;
    let one = Agent::start(h1, &in_a_folder(&lab))?;
    soon_whole(&back, &[&one, &two])?;
    Ok(())
}

/// The libvirtd of a host that is not in this migration hangs; its agent hangs with it, and
/// nobody else does.
#[test]
fn a_daemon_that_hangs_elsewhere_holds_up_nobody() -> Outcome {
    let lab = Lab::builder().hosts(3).tls().start()?;
    let (h1, h2, h3) = (lab.host(0), lab.host(1), lab.host(2));
    let at = a_guest(&lab)?;
    let config = Way::Tls.config(&lab);
    let agents: Vec<Agent> = lab
        .hosts()
        .iter()
        .map(|host| Agent::start(host, &config))
        .collect::<Result<_, _>>()?;
    h3.signal("libvirtd", "STOP")?;
    let moved = virsh(&at, h2, P2P).and_then(logchain_tests::Output::checked);
    let ended = agents[1].wait_for_handoffs(1, "destination", "carried");
    h3.signal("libvirtd", "CONT")?;
    moved?;
    ended?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(100)?;
    soon_whole(&there, &[&agents[0], &agents[1]])?;
    // h1 has nothing more of it.
    assert_eq!(h1.guest("vm").state()?.as_deref(), Some("shut off"));
    Ok(())
}

/// The store is away while the guest moves, and its folder at the source is removed.
#[test]
fn a_store_that_is_away_holds_up_nothing() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    h2.guest("vm").make_log_folder()?;
    let at = a_guest(&lab)?;
    h2.guest("vm").remove_log_folder()?;
    let pieces = lab.state().join("pieces");
    std::fs::create_dir_all(&pieces)?;
    let config = in_a_folder(&lab).replace("[meet]", "[meet]\npatience = \"5s\"");
    let one = Agent::start(h1, &config)?;
    let two = Agent::start(h2, &config)?;
    // A file in its place: neither can it be made anew, nor written to.
    std::fs::remove_dir_all(&pieces)?;
    std::fs::write(&pieces, "")?;
    as_nova_does(&at, h2)?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(200)?;
    let left = one.wait_for_handoffs(1, "source", "not-carried")?;
    println!("{}", left[0]);
    std::fs::remove_file(&pieces)?;
    soon_whole(&there, &[&one, &two])?;
    Ok(())
}

/// A serial port that is plugged in while the guest runs, and its log.
#[test]
fn the_log_of_a_port_that_was_plugged_in_goes_along() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    h2.guest("vm").make_log_folder()?;
    h1.guest("vm").make_log_folder()?;
    // libvirt plugs in no port of the board; a channel it does, where its bus is there.
    let bus = "<controller type='virtio-serial' index='0'/><memballoon";
    let xml = Guest::new("vm").xml().replacen("<memballoon", bus, 1);
    let define = h1.command(["virsh", "--quiet", "define", "/dev/stdin"]);
    define.input(xml).run()?.checked()?;
    let at = h1.guest("vm");
    at.start()?;
    at.wait_for_tick(300)?;
    let (one, two) = both(&lab)?;
    let log = "/var/log/lab/vm/plugged.log";
    let channel = format!(
        "<channel type='pty'><log file='{log}' append='on'/>\
         <target type='virtio' name='org.example.plugged'/></channel>"
    );
    let attach = h1.command(["virsh", "attach-device", "vm", "/dev/stdin", "--live"]);
    let attached = attach.input(channel).run()?;
    println!("{}{}", attached.out(), attached.err());
    attached.checked()?;
    // The guest has no driver for it: what it would say is put there by hand, where virtlogd
    // appends.
    std::fs::write(h1.path(log), "said at the source\n")?;
    virsh(&at, h2, P2P)?.checked()?;
    let ended = one.wait_for_handoffs(2, "source", "carried")?;
    println!("{ended:#?}");
    let found = h2.until("the second log", Duration::from_secs(30), || {
        let folder = h2.path("/var/log/lab/vm");
        let files = std::fs::read_dir(folder).map(|d| d.flatten().collect::<Vec<_>>());
        let mut texts = files.unwrap_or_default().into_iter().filter_map(|entry| {
            let is_its = entry.file_name().to_string_lossy().starts_with("plugged");
            std::fs::read_to_string(entry.path())
                .ok()
                .filter(|_| is_its)
        });
        Ok(texts.find(|text| text.contains("said at the source")))
    });
    if found.is_err() {
        one.dump();
        two.dump();
    }
    found?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(100)?;
    soon_whole(&there, &[&one, &two])?;
    Ok(())
}
