//! Users who are not root read logs through the agent, if they are in its group.

use crate::agent::{Agent, SOON, in_a_folder};
use crate::common::{Outcome, show};
use logchain_tests::{Guest, Host, HostCommand, Lab, Signal, Ticks};
use serde_json::Value;

/// The group whose members may call.
const GROUP: &str = "64999";

/// Another one.
const OTHERS: &str = "64998";

/// A command of a user who is not root and has one group beside his own.
fn as_user(host: &Host, group: &str, words: &[&str]) -> HostCommand {
    let groups = format!("--groups={group}");
    let setpriv = ["setpriv", "--reuid=65534", "--regid=65534", &groups];
    let command = host.command(setpriv).args(words);
    command.env("HOME", "/nonexistent").env("USER", "nobody")
}

fn config(lab: &Lab) -> String {
    format!("{}\n[control]\ngroup = \"{GROUP}\"\n", in_a_folder(lab))
}

/// A host as it is elsewhere: logs and what logchain remembers are root's.
fn a_host(lab: &Lab) -> Result<&Host, Box<dyn std::error::Error>> {
    let host = lab.host(0);
    for folder in ["/var/log/lab", "/var/lib/logchain"] {
        host.run(["chmod", "700", folder])?.checked()?;
    }
    Ok(host)
}

#[test]
fn a_member_of_the_group_reads_through_the_agent() -> Outcome {
    let lab = Lab::builder().hosts(1).virtlogd(16 << 10, 20).start()?;
    let host = a_host(&lab)?;
    let vm = host.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(600)?;
    let agent = Agent::start(host, &config(&lab))?;
    let log = vm.log_path();
    let log = log.to_str().ok_or("a path")?;
    let ask = |words: &[&str]| as_user(host, GROUP, words).run();

    // By himself he reads nothing.
    assert_ne!(ask(&["cat", log])?.code(), Some(0));
    let refused = ask(&["logchain", "show", log])?;
    assert_eq!(refused.code(), Some(1), "{}", refused.err());
    assert!(
        refused.err().contains("Permission denied"),
        "{}",
        refused.err()
    );

    // His libvirt is one of his own, or refuses him, or answers and the log is refused.
    let system = [
        "env",
        "LIBVIRT_DEFAULT_URI=qemu:///system",
        "logchain",
        "show",
    ];
    let open = || {
        host.run(["chmod", "777", "/run/libvirt/libvirt-sock"])?
            .checked()
    };
    let all = ["-n", "all", "vm"];
    for (way, words) in [
        ("his own libvirt", &["logchain", "show"][..]),
        ("the agent is named", &["logchain", "show", "--agent"]),
        ("the host's libvirt", &system),
    ] {
        if words == system {
            open()?;
        }
        let shown = ask(&[words, &all].concat())?.checked()?;
        let report = Ticks::check_from_boot(&shown.stdout)?;
        println!("{way}: {report}");
        assert!(report.last >= 600, "{way}: {report}");
    }
    // Offsets stay, so both read the same although the guest prints on.
    let part = ["--from", "20000", "-n", "9000", "vm"];
    let his = ask(&[&["logchain", "show"], &part[..]].concat())?.checked()?;
    assert!(his.stdout == show(host, &part)?);
    assert_eq!(his.stdout.len(), 9000);
    assert!(
        his.err().contains("offsets 20000 to 29000; more follows"),
        "{}",
        his.err()
    );
    let json = [&["logchain", "show", "--format", "json"], &part[..]].concat();
    let his: Value = serde_json::from_slice(&ask(&json)?.checked()?.stdout)?;
    let its: Value = serde_json::from_slice(&host.run(&json)?.checked()?.stdout)?;
    for field in [
        "domain", "uuid", "console", "path", "offset", "next", "content",
    ] {
        assert_eq!(his[field], its[field], "{field}");
        assert!(!his[field].is_null(), "{field}");
    }
    let beyond = ask(&["logchain", "show", "--from", "1T", "vm"])?;
    assert_eq!(beyond.code(), Some(1));
    assert!(
        beyond.err().contains("is not there yet"),
        "{}",
        beyond.err()
    );
    let lines = ask(&["logchain", "show", "--lines", "3", "vm"])?.checked()?;
    let newlines = lines.stdout.iter().filter(|b| **b == b'\n').count();
    assert!((2..=3).contains(&newlines), "{}", lines.out());
    let none = ask(&["logchain", "show", "nobody-knows-it"])?;
    assert_eq!(none.code(), Some(1));
    assert!(
        none.err().contains("no domain nobody-knows-it"),
        "{}",
        none.err()
    );

    // What the host waits for, as root is told it: here of a note that cannot be read.
    let notes = host.path("/var/lib/logchain/left");
    std::fs::create_dir_all(&notes)?;
    let note = "11111111-2222-3333-4444-555555555555";
    std::fs::write(notes.join(note), "nonsense")?;
    let his = ask(&["logchain", "status"])?.checked()?;
    let its = host.run(["logchain", "status"])?.checked()?;
    assert_eq!((his.out(), his.err()), (its.out(), its.err()));
    assert!(his.err().contains(note), "{}", his.err());
    let his = ask(&["logchain", "status", "--format", "json"])?.checked()?;
    let his: Value = serde_json::from_slice(&his.stdout)?;
    assert_eq!(his["host"], host.name());
    assert_eq!(his["warnings"].as_array().map(Vec::len), Some(1));
    let agents = ask(&["logchain", "agent", "status"])?.checked()?;
    assert!(
        agents.out().contains("connected to libvirt"),
        "{}",
        agents.out()
    );
    agent.stop()?.checked()?;
    Ok(())
}

#[test]
fn a_member_follows_a_guest_while_its_agent_is_updated() -> Outcome {
    let lab = Lab::builder().hosts(1).virtlogd(16 << 10, 20).start()?;
    let host = a_host(&lab)?;
    let vm = host.define(&Guest::new("vm"))?;
    vm.start()?;
    let begin = vm.wait_for_tick(100)?;
    let agent = Agent::start(host, &config(&lab))?;
    let words = ["logchain", "show", "--follow", "--lines", "5", "vm"];
    let mut follower = as_user(host, GROUP, &words).limit(SOON * 10).spawn()?;
    let seen = |more: u64| {
        let after = vm.wait_for_more_ticks(more)?;
        host.until("the follower to see new lines", SOON, || {
            let last = Ticks::last(&follower.stdout());
            Ok(last.filter(|last| *last >= after))
        })
    };
    let last = seen(300).inspect_err(|_| agent.dump())?;
    assert!(last > begin);
    // An agent that is killed and started anew breaks the connection, and no line is lost.
    agent.stop()?.checked()?;
    vm.wait_for_more_ticks(100)?;
    let agent = Agent::start(host, &config(&lab))?;
    seen(100).inspect_err(|_| agent.dump())?;
    let report = Ticks::check(&follower.stdout())?;
    println!("{report}");
    assert!(report.count >= 500, "{report}");

    // Whoever reads what it prints goes away; then it ends, and so does what the agent does for it.
    follower.signal(Signal::TERM)?;
    let ended = follower.wait(SOON)?;
    assert_eq!(ended.err(), "");
    agent.stop()?.checked()?;
    Ok(())
}

#[test]
fn whoever_is_not_in_the_group_is_refused() -> Outcome {
    let lab = Lab::start(1)?;
    let host = a_host(&lab)?;
    let vm = host.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(10)?;
    // Without an agent nothing of one is said.
    let shown = as_user(host, OTHERS, &["logchain", "show", "vm"]).run()?;
    assert_eq!(shown.code(), Some(1));
    assert!(!shown.err().contains("agent"), "{}", shown.err());
    let agent = Agent::start(host, &config(&lab))?;
    let why = "may not be used; become root or a member of control.group";
    for words in [
        &["logchain", "show", "vm"][..],
        &["logchain", "show", "--follow", "vm"],
        &["logchain", "show", "--agent", "vm"],
        &["logchain", "status", "--agent"],
        &["logchain", "agent", "status"],
    ] {
        let refused = as_user(host, OTHERS, words).run()?;
        assert_eq!(
            (refused.code(), refused.out()),
            (Some(1), String::new()),
            "{words:?}"
        );
        assert!(refused.err().contains(why), "{words:?}: {}", refused.err());
        // Root, and the members, are let in all the while.
        let member = as_user(host, GROUP, &["logchain", "agent", "status"]).run()?;
        member.checked()?;
    }
    // What he can see of the host by himself he is told, and what not.
    let status = as_user(host, OTHERS, &["logchain", "status"])
        .run()?
        .checked()?;
    assert!(status.err().contains(why), "{}", status.err());
    agent.stop()?.checked()?;
    Ok(())
}
