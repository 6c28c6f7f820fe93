//! Descriptors outlast the agent, by the service manager's file descriptor store. A small
//! stand-in plays systemd's part: it keeps what the agent gives it, and the next agent starts
//! with that.

use std::time::Duration;

use logchain_tests::{Guest, GuestOn, Host, Lab, LabError, Running, Ticks};

use crate::agent::{Agent, P2P, SOON, as_nova_does, in_a_folder, soon_whole, virsh};
use crate::common::{Outcome, history};

const SOCKET: &str = "/run/notify";

/// Keeps descriptors by their names, and says in a file which of its own each one is.
const KEEP: &str = r#"
import array, os, socket
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind("/run/notify")
kept = {}
while True:
    with open("/run/kept.new", "w") as said:
        for name, fd in kept.items(): print(name, f"/proc/{os.getpid()}/fd/{fd}", file=said)
    os.replace("/run/kept.new", "/run/kept")
    message, control, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(16))
    fds = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS): fds.frombytes(data)
    said = dict(line.split("=", 1) for line in message.decode().splitlines())
    if said.get("FDSTORE") == "1":
        assert said["FDNAME"] not in kept
        kept[said["FDNAME"]], = fds
    elif said.get("FDSTOREREMOVE") == "1":
        os.close(kept.pop(said["FDNAME"]))
"#;

/// Becomes `logchain` with what is kept, from descriptor 3 on.
const START: &str = r#"#!/usr/bin/env python3
import os, sys
kept = [line.split() for line in open("/run/kept")]
opened = [os.open(path, os.O_RDONLY) for _, path in kept]
high = [os.dup2(fd, 500 + n) for n, fd in enumerate(opened)]
for n, fd in enumerate(high): os.dup2(fd, 3 + n)
os.closerange(3 + len(high), 1000)
os.environ.update(NOTIFY_SOCKET="/run/notify", LISTEN_PID=str(os.getpid()),
                  LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES=":".join(name for name, _ in kept))
os.execvp("logchain", ["logchain"] + sys.argv[1:])
"#;

/// The stand-in on one host.
struct Manager {
    host: Host,
    _keeps: Running,
}

impl Manager {
    fn start(host: &Host) -> Result<Self, LabError> {
        let starter = "/run/logchain-with-descriptors";
        let write = host.command(["tee", starter]).input(START);
        write.run()?.checked()?;
        host.run(["chmod", "755", starter])?.checked()?;
        let keeps = host.command(["python3", "-c", KEEP]);
        let this = Self {
            host: host.clone(),
            _keeps: keeps.limit(Duration::from_secs(3600)).spawn()?,
        };
        host.until("the stand-in to listen", SOON, || {
            Ok(host.run(["test", "-e", SOCKET])?.checked().ok())
        })?;
        this.wait_for("the stand-in to have nothing", |names| names.is_empty())?;
        Ok(this)
    }

    /// An agent that gives it descriptors, and begins with what it has.
    fn agent(&self, config: &str) -> Result<Agent, LabError> {
        Agent::start_program("/run/logchain-with-descriptors", &self.host, config, &[])
    }

    /// How many bytes the files have that it keeps.
    fn bytes(&self) -> Result<u64, LabError> {
        let all = "cut -d' ' -f2 /run/kept | xargs stat -L -c '%s %F' | grep regular";
        let sizes = self.host.run(["sh", "-c", all])?.checked()?.out();
        let sizes = sizes
            .lines()
            .filter_map(|line| line.split(' ').next()?.parse::<u64>().ok());
        Ok(sizes.sum())
    }

    fn wait_for(&self, what: &str, is_it: impl Fn(&[String]) -> bool) -> Result<(), LabError> {
        self.host.until(what, SOON, || {
            let kept = self.host.run(["cat", "/run/kept"])?;
            let Ok(kept) = kept.checked() else {
                return Ok(None);
            };
            let names: Vec<String> = kept.out().lines().map(str::to_owned).collect();
            Ok(is_it(&names).then_some(()))
        })
    }
}

/// A guest that has printed on the first host, an agent there that was killed, and one on the
/// second host.
fn bed(lab: &Lab, config: &str) -> Result<(GuestOn, Manager, Agent), LabError> {
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let manager = Manager::start(h1)?;
    let mut one = manager.agent(config)?;
    let two = Agent::start(h2, config)?;
    // The folder, and at least one file.
    manager.wait_for("the descriptors", |names| names.len() >= 2)?;
    one.kill()?;
    Ok((at, manager, two))
}

#[test]
fn a_folder_that_goes_while_no_agent_runs_takes_no_line() -> Outcome {
    let lab = Lab::start(2)?;
    let config = in_a_folder(&lab);
    let (at, manager, two) = bed(&lab, &config)?;
    at.remove_log_folder()?;
    // Its guest goes on printing where nobody finds it.
    let before = manager.bytes()?;
    lab.host(0).until("the guest to print", SOON, || {
        Ok((manager.bytes()? > before + 1000).then_some(()))
    })?;
    let one = manager.agent(&config)?;
    virsh(&at, lab.host(1), P2P)?.checked()?;
    one.wait_for_handoffs(1, "source", "carried")?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    let there = lab.host(1).guest("vm");
    there.wait_for_more_ticks(100)?;
    println!("{:?}", Ticks::check_from_boot(&history(&there)?)?);
    // The destination has all of it: nothing is kept for long.
    manager.wait_for("the descriptors to go", |names| names.is_empty())?;
    one.stop()?.checked()?;
    Ok(())
}

#[test]
fn a_boot_while_no_agent_runs_leaves_the_log_before_it() -> Outcome {
    let lab = Lab::start(2)?;
    let config = format!("{}\n[holds]\nkeep_boots = 2\n", in_a_folder(&lab));
    let (at, manager, two) = bed(&lab, &config)?;
    at.destroy()?;
    at.start()?;
    at.wait_for_tick(100)?;
    let one = manager.agent(&config)?;
    crate::agent_boots::wait_for_boots(&one, lab.host(0), 2)?;
    virsh(&at, lab.host(1), P2P)?.checked()?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    lab.host(1).guest("vm").wait_for_more_ticks(100)?;
    crate::agent_boots::each_is_whole(lab.host(1), -1..=0)
}

#[test]
fn a_domain_that_leaves_while_no_agent_runs_leaves_no_line_behind() -> Outcome {
    for undefines in [true, false] {
        let lab = Lab::start(2)?;
        let config = in_a_folder(&lab);
        let (at, manager, two) = bed(&lab, &config)?;
        let (h2, there) = (lab.host(1), lab.host(1).guest("vm"));
        if undefines {
            there.remove_log_folder()?;
            as_nova_does(&at, h2)?;
        } else {
            virsh(&at, h2, P2P)?.checked()?;
            at.remove_log_folder()?;
        }
        let one = manager.agent(&config)?;
        let report = soon_whole(&there, &[&one, &two])?;
        println!("undefined: {undefines}: {report:?}");
        manager.wait_for("the descriptors to go", |names| names.is_empty())?;
    }
    Ok(())
}
