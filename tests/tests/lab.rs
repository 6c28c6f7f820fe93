//! What the end-to-end tests rely on: hosts that reach each other, faults that are
//! felt, files that roll over, and an end that leaves nothing, however it comes.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use logchain_tests::{Guest, Lab, LabBuilder, LabError, Pace, Signal, Ticks, leftovers, until};

type Outcome = Result<(), Box<dyn Error>>;

fn one_host() -> LabBuilder {
    Lab::builder().hosts(1)
}

#[test]
fn hosts_are_apart_and_reach_each_other() -> Outcome {
    // Any program will do: it is only asked where it is.
    let lab = Lab::builder().binary(env!("CARGO_BIN_EXE_lab")).start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    for host in [h1, h2] {
        let name = host.run(["uname", "-n"])?.checked()?.out();
        assert_eq!(name.trim(), host.name());
    }

    let there = h1
        .run(["ssh", "h2", "uname -n; command -v logchain"])?
        .checked()?
        .out();
    assert_eq!(there, "h2\n/run/lab/bin/logchain\n");
    // Here as there: the name finds what the lab was given, which wants a number.
    let here = h1.run(["logchain", "x"])?;
    assert!(here.err().contains("usage: lab"), "{}", here.err());
    let uri = h1
        .run(["virsh", "-c", &h2.uri(), "hostname"])?
        .checked()?
        .out();
    assert_eq!(uri.trim(), "h2");

    // The same path is another file on each host, and none on this machine.
    for path in ["/var/lib/logchain/x", "/tmp/x", "/root/x", "/etc/libvirt/x"] {
        h1.run(["sh", "-c", &format!("echo h1 >{path}")])?
            .checked()?;
        assert_eq!(std::fs::read_to_string(h1.path(path))?, "h1\n");
        assert!(!h2.path(path).exists(), "{path} is on both hosts");
        assert!(!PathBuf::from(path).exists(), "{path} is on this machine");
    }

    h2.stop_sshd()?;
    let refused = h1.run(["ssh", "h2", "true"])?;
    assert_eq!(refused.code(), Some(255), "{}", refused.err());
    h2.start_sshd()?;
    h1.run(["ssh", "h2", "true"])?.checked()?;

    h2.kill_libvirtd()?;
    let refused = h1.run(["virsh", "-c", &h2.uri(), "hostname"])?;
    assert!(!refused.status.success());
    h2.start_libvirtd()?;
    h1.run(["virsh", "-c", &h2.uri(), "hostname"])?.checked()?;
    Ok(())
}

#[test]
fn commands_are_bounded_and_can_be_signalled() -> Outcome {
    let lab = one_host().start()?;
    let host = lab.host(0);

    let output = host.command(["sh", "-c", "cat; echo $WORD >&2; exit 7"]);
    let output = output.env("WORD", "said").input("read").run()?;
    assert_eq!(
        (output.code(), output.out().as_str(), output.err().as_str()),
        (Some(7), "read", "said\n")
    );
    let failed = output.checked().map_err(|e| e.to_string());
    assert!(failed.is_err_and(|e| e.contains("on h1: exit status: 7")));

    let limit = Duration::from_millis(300);
    let late = host.command(["sleep", "54321"]).limit(limit).run();
    let Err(late @ LabError::Timeout { .. }) = late else {
        return Err(format!("{late:?}").into());
    };
    let words = late.to_string();
    assert!(
        words.starts_with("waited 0.3 s in vain: `sleep 54321` on h1 to end"),
        "{words}"
    );
    assert!(words.contains("-- h1's var/log/sshd.log:"), "{words}");
    assert_eq!(host.processes("sleep")?.len(), 1, "only the host's own");

    let trap = "trap 'echo trapped; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let mut running = host.spawn(["sh", "-c", trap])?;
    until("the trap to be set", Duration::from_secs(5), || {
        Ok(running.stdout().starts_with(b"ready\n").then_some(()))
    })?;
    assert!(running.is_running()?);
    running.signal(Signal::INT)?;
    let output = running.wait(Duration::from_secs(5))?;
    assert_eq!(
        (output.code(), output.out().as_str()),
        (Some(5), "ready\ntrapped\n")
    );

    let killed = host.spawn(["cat", "/dev/zero"])?.kill()?;
    assert_eq!(killed.code(), None);
    drop(host.spawn(["tail", "-f", "/dev/null"])?);
    assert_eq!(host.processes("tail")?, Vec::<u32>::new());
    Ok(())
}

#[test]
fn a_guest_without_pause_rolls_its_log_over() -> Outcome {
    let lab = one_host().virtlogd(256 * 1024, 5).start()?;
    let host = lab.host(0);
    let vm = host.define(&Guest::new("vm1").append(true).pace(Pace::Flat))?;
    vm.start()?;
    host.until("a second rotated file", Duration::from_secs(60), || {
        Ok((vm.log_files()?.len() >= 3).then_some(()))
    })?;
    vm.destroy()?;
    assert_eq!(vm.state()?.as_deref(), Some("shut off"));
    let zombies = host.run(["sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status"])?;
    assert_eq!(zombies.out(), "", "the host collects its dead");

    let files = vm.log_files()?;
    let newest = files.last().map(|file| file.name.as_str());
    assert_eq!(newest, Some("console.log"));
    let log: Vec<u8> = files.into_iter().flat_map(|file| file.bytes).collect();
    Ticks::check_from_boot(&log)?;
    Ok(())
}

#[test]
fn a_refused_migration_leaves_the_guest_where_it_is() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm1").lines(50))?;
    vm.start()?;
    assert_eq!(vm.wait_for_tick(50)?, 50);
    let uri = h2.uri();
    let migrate = [
        "virsh",
        "migrate",
        "--live",
        "--p2p",
        "--persistent",
        "vm1",
        &uri,
    ];

    h2.refuse_migrations(true)?;
    let refused = h1.run(migrate)?;
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.err().contains("this host takes no guests"),
        "{}",
        refused.err()
    );
    assert_eq!(vm.state()?.as_deref(), Some("running"));
    assert_eq!(h2.guest("vm1").state()?, None);

    h2.refuse_migrations(false)?;
    h1.run(migrate)?.checked()?;
    assert_eq!(h2.guest("vm1").state()?.as_deref(), Some("running"));
    assert_eq!(vm.last_tick()?, Some(50), "it fell silent after its lines");
    Ok(())
}

#[test]
fn two_labs_stand_side_by_side() -> Outcome {
    let one = one_host().start()?;
    let two = one_host().start()?;
    assert_ne!(one.state(), two.state());
    one.host(0)
        .run(["sh", "-c", "echo one >/tmp/name"])?
        .checked()?;
    assert!(!two.host(0).path("/tmp/name").exists());
    // Both have h1 at one address: each is alone in its network.
    let name = two.host(0).run(["ssh", "h1", "cat /tmp/name"])?;
    assert_eq!(name.code(), Some(1), "{}", name.out());
    let state = one.state().to_owned();
    drop(one);
    assert_eq!(leftovers(&state)?, Vec::<String>::new());
    two.host(0).run(["virsh", "list"])?.checked()?;
    Ok(())
}

/// A process that holds a lab, and its lab's state folder.
fn holder() -> Result<(Child, PathBuf), Box<dyn Error>> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut state = None;
    for line in BufReader::new(child.stdout.take().ok_or("no pipe")?).lines() {
        let line = line?;
        match line.strip_prefix("state ") {
            Some(path) => state = Some(PathBuf::from(path)),
            None if line.starts_with("ready") => break,
            None => {}
        }
    }
    Ok((child, state.ok_or("the lab did not come up")?))
}

#[test]
fn nothing_is_left_of_a_lab_whose_owner_was_killed() -> Outcome {
    for signal in [Signal::KILL, Signal::TERM] {
        let (mut child, state) = holder()?;
        assert!(leftovers(&state)?.len() > 10, "it is there while it lives");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal)?;
        child.wait()?;
        let killed = Instant::now();
        let gone = until("the lab to vanish", Duration::from_secs(10), || {
            Ok(leftovers(&state)?.is_empty().then_some(()))
        });
        gone.map_err(|e| format!("{e}: {:?}", leftovers(&state)))?;
        eprintln!("{signal:?}: gone after {:.1?}", killed.elapsed());
    }
    Ok(())
}

#[test]
fn the_next_lab_removes_what_nobody_was_left_to_remove() -> Outcome {
    let (mut child, state) = holder()?;
    // The switch is the owner's only child; without it nobody removes the folder.
    let pid = child.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let unshare = children
        .split_whitespace()
        .next()
        .ok_or("no switch")?
        .parse()?;
    let unshare = rustix::process::Pid::from_raw(unshare).ok_or("no switch")?;
    rustix::process::kill_process(unshare, Signal::KILL)?;
    until("its processes to end", Duration::from_secs(10), || {
        Ok((leftovers(&state)?.len() <= 1).then_some(()))
    })?;
    child.kill()?;
    child.wait()?;
    assert_eq!(
        leftovers(&state)?,
        [format!("the folder {}", state.display())]
    );
    drop(one_host().start()?);
    assert_eq!(leftovers(&state)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn without_root_the_lab_says_so() -> Outcome {
    // Where others may run it: the build's folder may be root's alone.
    let copy = std::env::temp_dir().join(format!("lab-without-root-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_lab"), &copy)?;
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let output = Command::new("setpriv").args(nobody).arg(&copy).output();
    std::fs::remove_file(&copy)?;
    let output = output?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    assert!(said.starts_with("lab: the lab needs root"), "{said}");
    Ok(())
}
