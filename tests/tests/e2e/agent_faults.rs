//! The failure matrix with agents: what breaks around a migration that `virsh` starts, and what
//! becomes of the log. The migration's own outcome is libvirt's affair; but wherever the guest
//! runs in the end, its log is whole there, every line once, in order: at once, or as soon as what
//! broke is mended, and until then whole at the source or in its outbox.
//!
//! Each row prints one line: `row | what breaks, when | what came of it`. Those that take minutes
//! are ignored unless asked for (`--run-ignored all`).

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use crate::agent::{Agent, P2P, SOON, in_a_folder, over_tls_with_peers, soon_whole, virsh};
use crate::common::{MIGRATION, Outcome};
use logchain_tests::{Guest, GuestOn, Host, Lab, LabError, Output, Pace, Running, Signal};
use serde_json::Value;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// MiB/s: see the pace in `faults`.
const PACE: &str = "32";

/// libvirt takes half a minute to find out that the network is cut.
const LONG: Duration = Duration::from_secs(240);

/// How the agents of a row meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Folder,
    Tls,
}

/// Two hosts with an agent each, and a guest that has printed some lines on the first one.
struct Scene {
    lab: Lab,
    config: String,
    /// At the source and at the destination; none where it is absent.
    agents: [Option<Agent>; 2],
}

fn row(name: &str, way: Way, what: impl FnOnce(&mut Scene) -> Fallible<String>) -> Outcome {
    let guest = Guest::new("vm").fill(16);
    row_with(name, way, &guest, 300, what)
}

fn row_with(
    name: &str,
    way: Way,
    guest: &Guest,
    lines: u64,
    what: impl FnOnce(&mut Scene) -> Fallible<String>,
) -> Outcome {
    let lab = Lab::builder().hosts(2).tls().start()?;
    let vm = lab.host(0).define(guest)?;
    vm.start()?;
    vm.wait_for_tick(lines)?;
    let config = match way {
        Way::Folder => in_a_folder(&lab),
        Way::Tls => over_tls_with_peers(&lab),
    };
    let config = config.replace("[meet]", "[meet]\npatience = \"10s\"");
    let agents = [0, 1].map(|host| Agent::start(lab.host(host), &config));
    let [source, destination] = agents;
    let mut scene = Scene {
        lab,
        config,
        agents: [Some(source?), Some(destination?)],
    };
    let began = Instant::now();
    let outcome = what(&mut scene);
    if outcome.is_err() {
        scene.agents.iter().flatten().for_each(Agent::dump);
    }
    let outcome = outcome.map_err(|e| format!("{name}: {e}"))?;
    let seconds = began.elapsed().as_secs_f64();
    println!("row | {way:?}: {name} | {outcome} ({seconds:.1} s)");
    Ok(())
}

impl Scene {
    fn host(&self, side: usize) -> &Host {
        self.lab.host(side)
    }

    fn slowly(&self) -> Result<Running, LabError> {
        let command = self.host(0).command(["virsh", "--quiet", "migrate"]);
        let command = command.args(P2P).args(["--bandwidth", PACE]);
        command
            .args(["vm", &self.host(1).uri()])
            .limit(LONG)
            .spawn()
    }

    fn while_copying(&self) -> Result<(), LabError> {
        let host = self.host(0);
        host.until("memory to be copied", MIGRATION, || {
            let job = host.run(["virsh", "domjobinfo", "vm"])?.out();
            Ok(job.contains("Memory processed").then_some(()))
        })
    }

    /// The agents that are there.
    fn running(&self) -> Vec<&Agent> {
        self.agents.iter().flatten().collect()
    }

    fn agent(&mut self, side: usize) -> Fallible<&mut Agent> {
        let agent = self.agents.get_mut(side).and_then(Option::as_mut);
        Ok(agent.ok_or("there is no agent")?)
    }

    /// Kills the agent of this side.
    fn kill(&mut self, side: usize) -> Fallible<()> {
        let agent = self.agents.get_mut(side).and_then(Option::take);
        let mut agent = agent.ok_or("there is no agent")?;
        Ok(agent.kill()?)
    }

    fn start(&mut self, side: usize) -> Fallible<()> {
        let agent = Agent::start(self.host(side), &self.config)?;
        if let Some(place) = self.agents.get_mut(side) {
            *place = Some(agent);
        }
        Ok(())
    }

    /// Waits until the guest runs on one host alone; says on which, and that it prints there.
    /// Where libvirt knows no better it pauses on both: then an operator lets it go on at the
    /// source.
    fn settles(&self) -> Fallible<GuestOn> {
        let guests = [self.host(0).guest("vm"), self.host(1).guest("vm")];
        let at = self
            .host(0)
            .until("the guest to run on one host", MIGRATION, || {
                let [here, there] = [guests[0].state()?, guests[1].state()?];
                let is_over =
                    |state: &Option<String>| matches!(state.as_deref(), None | Some("shut off"));
                let runs = |state: &Option<String>| state.as_deref() == Some("running");
                Ok(match () {
                    () if runs(&here) && is_over(&there) => Some(0),
                    () if runs(&there) && is_over(&here) => Some(1),
                    () => None,
                })
            })?;
        let at = self.host(at).guest("vm");
        at.wait_for_more_ticks(100)?;
        Ok(at)
    }

    /// What came of the log once all is mended.
    fn whole(&self, migration: &Output) -> Fallible<String> {
        let at = self.settles()?;
        let agents = self.running();
        let began = Instant::now();
        let report = soon_whole(&at, &agents)?;
        let seconds = began.elapsed().as_secs_f64();
        let moved = match migration.status.success() {
            true => "the guest moved",
            false => "the migration failed",
        };
        Ok(format!(
            "{moved}, it runs at {} and its log is whole there after {seconds:.1} s: {} lines",
            at.host().name(),
            report.count
        ))
    }

    /// The source says that it keeps the log.
    fn is_kept(&self) -> Fallible<String> {
        let source = self.agents.first().and_then(Option::as_ref);
        let source = source.ok_or("there is no agent at the source")?;
        let ended = source.wait_for_handoffs(1, "source", "not-carried")?;
        let next = ended.iter().find_map(|event| event["next"].as_str());
        Ok(next.unwrap_or("nothing").to_owned())
    }
}

/// The agent of a side is killed in the middle of its handoff, and started again after the
/// migration.
fn an_agent_is_killed(side: usize, way: Way) -> Outcome {
    let name = ["source", "destination"];
    let name = format!(
        "the agent at the {} is killed | once its handoff has begun",
        name[side]
    );
    row(&name, way, |scene| {
        let migration = scene.slowly()?;
        let begun = ["begun;", "ready"][side];
        let agent = scene.agents[side].as_ref().ok_or("there is no agent")?;
        scene
            .host(side)
            .until("the handoff to begin", MIGRATION, || {
                Ok(agent.said(begun).then_some(()))
            })?;
        scene.kill(side)?;
        let output = migration.wait(MIGRATION)?.checked()?;
        scene.start(side)?;
        scene.whole(&output)
    })
}

/// The agent of the source is not there from before it could put down that the guest leaves until
/// the guest has left. Its next start finds a domain that is shut off because it migrated.
#[test]
fn the_agent_at_the_source_is_killed_before_it_noticed() -> Outcome {
    let name = "the source has no agent | from before the migration until after it";
    row(name, Way::Tls, |scene| {
        scene.kill(0)?;
        let output = scene.slowly()?.wait(MIGRATION)?.checked()?;
        scene.start(0)?;
        scene.whole(&output)
    })
}

/// A host handed the log over when the guest left it for the first time, and remembers that. It has no
/// agent while the guest is back and leaves again: its next agent must not take the new part for what
/// was handed over.
#[test]
fn a_guest_comes_and_leaves_again_where_there_is_no_agent() -> Outcome {
    let name = "the source has no agent | while its guest is back for a moment";
    row(name, Way::Tls, |scene| {
        let (h1, h2) = (scene.host(0).clone(), scene.host(1).clone());
        let (here, there) = (h1.guest("vm"), h2.guest("vm"));
        virsh(&here, &h2, P2P)?.checked()?;
        there.wait_for_more_ticks(100)?;
        soon_whole(&there, &scene.running())?;
        scene.kill(0)?;
        virsh(&there, &h1, P2P)?.checked()?;
        here.wait_for_more_ticks(100)?;
        virsh(&here, &h2, P2P)?.checked()?;
        there.wait_for_more_ticks(100)?;
        scene.start(0)?;
        let agents = scene.running();
        Ok(soon_whole(&there, &agents)?.to_string())
    })
}

/// When the domains left of which a host has a note.
fn departures(host: &Host) -> Vec<i64> {
    let folder = host.path("/var/lib/logchain/left");
    let mut times = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        // One that goes just now, and what is being written, is no note.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let note = text.lines().next().unwrap_or_default();
        let note: Value = serde_json::from_str(note).unwrap_or_default();
        times.extend(note["at"].as_i64());
    }
    times
}

/// An agent that is killed cannot see to it that the log makes way for the guest's next stay, where
/// a start appends. The next agent does, whether libvirt still knows the domain or has forgotten it:
/// or what the guest printed elsewhere meanwhile could not be put between its two stays.
#[test]
fn after_a_kill_the_log_makes_way_for_the_guests_next_stay() -> Outcome {
    let name = "the agent at the source is killed | and the guest comes back to a log that appends";
    let guest = Guest::new("vm").append(true);
    row_with(name, Way::Tls, &guest, 300, |scene| {
        let mut came = String::new();
        for more in [&["--persistent"][..], &["--persistent", "--undefinesource"]] {
            let (here, there) = (scene.host(0).guest("vm"), scene.host(1).guest("vm"));
            // So that the other one has no more than put down that the guest leaves.
            scene.agent(1)?.signal(Signal::STOP)?;
            let earlier = departures(here.host());
            let way = [&["--live", "--p2p", "--bandwidth", PACE], more].concat();
            let migration = here.host().command(["virsh", "--quiet", "migrate"]);
            let migration = migration.args(&way).args(["vm", &there.host().uri()]);
            let migration = migration.limit(LONG).spawn()?;
            here.host()
                .until("the guest's leaving to be noted", SOON, || {
                    // The earlier note goes meanwhile, since the guest is back.
                    let now = departures(here.host());
                    Ok(now.iter().any(|at| !earlier.contains(at)).then_some(()))
                })?;
            scene.kill(0)?;
            migration.wait(MIGRATION)?.checked()?;
            there.wait_for_more_ticks(100)?;
            scene.agent(1)?.signal(Signal::CONT)?;
            scene.start(0)?;
            let base = here.host().path(here.log_path());
            here.host().until("the log to make way", SOON, || {
                Ok((!base.exists()).then_some(()))
            })?;
            let agents = scene.running();
            soon_whole(&there, &agents)?;
            virsh(&there, here.host(), P2P)?.checked()?;
            here.wait_for_more_ticks(100)?;
            came = soon_whole(&here, &agents)?.to_string();
        }
        Ok(format!("back twice: {came}"))
    })
}

#[test]
fn the_agent_at_the_source_is_killed() -> Outcome {
    an_agent_is_killed(0, Way::Tls)
}

#[test]
fn the_agent_at_the_destination_is_killed() -> Outcome {
    an_agent_is_killed(1, Way::Tls)
}

#[test]
#[ignore = "one of each fault is in the plain suite"]
fn agents_that_meet_in_a_folder_are_killed() -> Outcome {
    an_agent_is_killed(0, Way::Folder)?;
    an_agent_is_killed(1, Way::Folder)
}

/// libvirtd dies on a side while memory is copied. The migration fails, or the guest is there.
fn libvirtd_is_killed(side: usize, way: Way) -> Outcome {
    let name = ["source", "destination"];
    let name = format!(
        "libvirtd at the {} is killed | while memory is copied",
        name[side]
    );
    row(&name, way, |scene| {
        let migration = scene.slowly()?;
        scene.while_copying()?;
        scene.host(side).kill_libvirtd()?;
        let output = migration.wait(LONG)?;
        scene.host(side).start_libvirtd()?;
        let first = scene.whole(&output)?;
        // And the next one carries it, where this one failed.
        if output.status.success() {
            return Ok(first);
        }
        let again = scene.slowly()?.wait(LONG)?.checked()?;
        Ok(format!("{first}; then {}", scene.whole(&again)?))
    })
}

#[test]
#[ignore = "takes minutes"]
fn libvirtd_is_killed_at_each_side() -> Outcome {
    for way in [Way::Folder, Way::Tls] {
        libvirtd_is_killed(0, way)?;
        libvirtd_is_killed(1, way)?;
    }
    Ok(())
}

/// What virtlogd had not written is lost with it, and it is the guest's next line that says so:
/// the log goes on with whatever is there.
#[test]
#[ignore = "one of each fault is in the plain suite"]
fn virtlogd_starts_anew_at_each_side() -> Outcome {
    for side in [0, 1] {
        let name = ["source", "destination"];
        let name = format!(
            "virtlogd at the {} starts anew | while memory is copied",
            name[side]
        );
        row(&name, Way::Tls, |scene| {
            let migration = scene.slowly()?;
            scene.while_copying()?;
            scene.host(side).signal("virtlogd", "USR1")?;
            let output = migration.wait(MIGRATION)?.checked()?;
            scene.whole(&output)
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "takes minutes"]
fn the_network_is_cut_for_seconds() -> Outcome {
    for way in [Way::Folder, Way::Tls] {
        row(
            "the network is cut for 5 s | while memory is copied",
            way,
            |scene| {
                let migration = scene.slowly()?;
                scene.while_copying()?;
                scene.host(1).cut_network()?;
                pause(Duration::from_secs(5));
                scene.host(1).mend_network()?;
                let output = migration.wait(LONG)?;
                scene.whole(&output)
            },
        )?;
    }
    Ok(())
}

/// The guest has left, and nothing reaches the destination before its log does.
#[test]
#[ignore = "takes minutes"]
fn the_network_is_cut_as_soon_as_the_guest_left() -> Outcome {
    row(
        "the network is cut | as soon as the guest left",
        Way::Tls,
        |scene| {
            let migration = scene.slowly()?;
            scene.while_copying()?;
            let here = scene.host(0).guest("vm");
            scene
                .host(0)
                .until("the guest to have left", MIGRATION, || {
                    let state = here.state()?;
                    Ok(matches!(state.as_deref(), None | Some("shut off")).then_some(()))
                })?;
            scene.host(1).cut_network()?;
            pause(Duration::from_secs(20));
            scene.host(1).mend_network()?;
            let output = migration.wait(LONG)?;
            scene.whole(&output)
        },
    )
}

/// The host that a guest goes to is gone in the middle of it, and comes back later, as after a power
/// cut.
#[test]
#[ignore = "takes minutes"]
fn the_destination_vanishes() -> Outcome {
    let name = "the destination vanishes | while memory is copied";
    row(name, Way::Tls, |scene| {
        let migration = scene.slowly()?;
        scene.while_copying()?;
        scene.host(1).cut_network()?;
        scene.kill(1)?;
        scene.host(1).kill_libvirtd()?;
        scene.host(1).signal("qemu-system-x86", "KILL")?;
        scene.host(1).kill_virtlogd()?;
        let failed = migration.wait(LONG)?;
        assert!(!failed.status.success(), "nobody is there");
        scene.host(1).mend_network()?;
        scene.host(1).start_virtlogd()?;
        scene.host(1).start_libvirtd()?;
        scene.start(1)?;
        let stayed = scene.whole(&failed)?;
        let output = scene.slowly()?.wait(MIGRATION)?.checked()?;
        let moved = scene.whole(&output)?;
        Ok(format!("{stayed}; then {moved}"))
    })
}

/// Nobody takes the log in: the source keeps it, and hands it over once somebody does.
fn the_destinations_agent_is_absent(way: Way) -> Outcome {
    row("the destination has no agent | all along", way, |scene| {
        scene.kill(1)?;
        let output = scene.slowly()?.wait(MIGRATION)?.checked()?;
        let kept = scene.is_kept()?;
        scene.start(1)?;
        let whole = scene.whole(&output)?;
        Ok(format!("{kept}; started, {whole}"))
    })
}

#[test]
fn the_destinations_agent_is_absent_and_comes_later() -> Outcome {
    the_destinations_agent_is_absent(Way::Tls)
}

#[test]
#[ignore = "one of each fault is in the plain suite"]
fn the_destinations_agent_is_absent_with_a_folder() -> Outcome {
    the_destinations_agent_is_absent(Way::Folder)
}

/// There is no room for the history, but for what the guest prints.
#[test]
#[ignore = "one of each fault is in the plain suite"]
fn the_disk_of_the_destinations_log_is_full() -> Outcome {
    for way in [Way::Folder, Way::Tls] {
        let name = "the disk of the destination's log is full | while memory is copied";
        let guest = Guest::new("vm").pace(Pace::Micros(1000));
        // The history does not fit, and what the guest prints there meanwhile does: virtlogd lets
        // go of a log for good where it cannot write.
        row_with(name, way, &guest, 20_000, |scene| {
            let folder = "/var/log/lab/vm";
            scene.host(1).small_disk(folder, 560)?;
            let output = scene.slowly()?.wait(MIGRATION)?.checked()?;
            let kept = scene.is_kept()?;
            scene.host(1).resize_disk(folder, 64 * 1024)?;
            let whole = scene.whole(&output)?;
            Ok(format!("{kept}; with room, {whole}"))
        })?;
    }
    Ok(())
}

/// The spool of the destination's agent is full.
#[test]
#[ignore = "one of each fault is in the plain suite"]
fn the_disk_of_the_destinations_spool_is_full() -> Outcome {
    let name = "the disk of the destination's spool is full | while memory is copied";
    let guest = Guest::new("vm").pace(Pace::Micros(500));
    row_with(name, Way::Tls, &guest, 8000, |scene| {
        let folder = "/var/lib/logchain/peers";
        scene.kill(1)?;
        scene.host(1).small_disk(folder, 64)?;
        scene.start(1)?;
        let output = scene.slowly()?.wait(MIGRATION)?.checked()?;
        let at = scene.settles()?;
        scene.host(1).resize_disk(folder, 64 * 1024)?;
        drop(at);
        scene.whole(&output)
    })
}

/// The folder where both meet is away.
#[test]
#[ignore = "one of each fault is in the plain suite"]
fn the_store_is_away() -> Outcome {
    row("the store is away | from before on", Way::Folder, |scene| {
        let pieces = scene.lab.state().join("pieces");
        // It is made when something is put there first.
        match std::fs::remove_dir_all(&pieces) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        std::fs::write(&pieces, "")?;
        let output = scene.slowly()?.wait(MIGRATION)?.checked()?;
        let kept = scene.is_kept()?;
        std::fs::remove_file(&pieces)?;
        let whole = scene.whole(&output)?;
        Ok(format!("{kept}; with the store, {whole}"))
    })
}

/// The clocks of the two agents differ by years.
#[test]
#[ignore = "one of each fault is in the plain suite"]
fn the_clocks_are_off() -> Outcome {
    row(
        "the destination's clock is two years behind | all along",
        Way::Folder,
        |scene| {
            scene.kill(1)?;
            let preload =
                scene
                    .host(1)
                    .run(["faketime", "-f", "-2y", "sh", "-c", "echo $LD_PRELOAD"])?;
            let preload = preload.checked()?.out();
            let past = [("LD_PRELOAD", preload.trim()), ("FAKETIME", "-2y")];
            let past = [&past[..], &[("FAKETIME_DONT_FAKE_MONOTONIC", "1")]].concat();
            let agent = Agent::start_with(scene.host(1), &scene.config, &past)?;
            scene.agents[1] = Some(agent);
            let output = scene.slowly()?.wait(MIGRATION)?.checked()?;
            scene.whole(&output)
        },
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the moment is what is tried; no runtime is here"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
