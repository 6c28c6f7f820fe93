//! The reaper: what left and arrived goes, and nothing else does.

use crate::common::{MIGRATION, Outcome, history, migrate, migrate_json, sorted_names};
use logchain_tests::{Guest, GuestOn, Host, Lab, Output, Ticks};
use serde_json::Value;

const P2P: &[&str] = &["--live", "--p2p", "--persistent"];

fn reap(host: &Host, args: &[&str]) -> Result<Output, Box<dyn std::error::Error>> {
    let output = host.command(["logchain", "reap"]).args(args).run()?;
    println!("reap {args:?}: {}{}", output.out(), output.err());
    Ok(output)
}

/// What is said of one domain.
fn told(host: &Host, name: &str, args: &[&str]) -> Result<Value, Box<dyn std::error::Error>> {
    let output = reap(host, &[args, &["--format", "json"]].concat())?;
    for line in output.out().lines() {
        let event: Value = serde_json::from_str(line)?;
        if event["domain"] == name {
            return Ok(event);
        }
    }
    Err(format!("nothing is said of {name}: {}", output.out()).into())
}

fn restart_libvirtd(host: &Host) -> Outcome {
    host.stop_libvirtd()?;
    Ok(host.start_libvirtd()?)
}

fn is_defined(at: &GuestOn) -> Result<bool, Box<dyn std::error::Error>> {
    Ok(at.state()?.is_some())
}

#[test]
fn what_left_goes_once_its_place_is_confirmed() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let (vm, plain) = (
        h1.define(&Guest::new("vm"))?,
        h1.define(&Guest::new("plain"))?,
    );
    vm.start()?;
    plain.start()?;
    vm.wait_for_tick(200)?;
    assert!(reap(h1, &[])?.checked()?.out().contains("no domain waits"));
    migrate_json(&vm, h2, P2P)?;
    let virsh = h1.command(["virsh", "migrate"]).args(P2P);
    let virsh = virsh.args(["plain".to_owned(), h2.uri()]).limit(MIGRATION);
    virsh.run()?.checked()?;
    let (left, plain_left) = (sorted_names(h1, "vm")?, sorted_names(h1, "plain")?);
    // From here on libvirt does not know any more why either is shut off.
    restart_libvirtd(h1)?;
    let reason = h1.run(["virsh", "domstate", "--reason", "vm"])?.checked()?;
    assert!(reason.out().contains("unknown"), "{}", reason.out());

    // Whoever is asked says no, or nothing.
    for (args, why) in [
        (
            &["--placement-command", "/bin/false"][..],
            "/bin/false ended",
        ),
        (&["--placement-command", "/no/such"], "cannot run /no/such"),
        (&["--placement-url", "http://h2:1/{uuid}"], "http://h2:1/"),
    ] {
        let event = told(h1, "vm", args)?;
        assert_eq!(event["event"], "kept", "{event}");
        let said = event["reason"].as_str().unwrap_or_default();
        assert!(
            said.contains("not confirmed") && said.contains(why),
            "{said}"
        );
    }
    h2.stop_libvirtd()?;
    assert_eq!(told(h1, "vm", &[])?["event"], "kept");
    h2.start_libvirtd()?;
    let event = told(h1, "vm", &["--dry-run"])?;
    assert_eq!(event["event"], "would-reap", "{event}");
    assert!(is_defined(&vm)? && sorted_names(h1, "vm")? == left);

    // As a reaper leaves it that is killed right after it has undefined it.
    h1.run(["virsh", "undefine", "vm"])?.checked()?;
    let output = reap(h1, &[])?.checked()?;
    let said = output.out();
    assert!(
        said.contains("of its log removed: it is running at"),
        "{said}"
    );
    assert!(!is_defined(&vm)?);
    assert_eq!(sorted_names(h1, "vm")?, Vec::<String>::new());
    assert!(reap(h1, &[])?.checked()?.out().contains("no domain waits"));
    // It was not seen to leave: nothing of it is touched.
    assert_eq!(plain.state()?.as_deref(), Some("shut off"));
    assert_eq!(sorted_names(h1, "plain")?, plain_left);
    assert_eq!(h2.guest("vm").state()?.as_deref(), Some("running"));
    Ticks::check_from_boot(&history(&h2.guest("vm"))?)?;
    Ok(())
}

#[test]
fn what_has_no_receipt_was_changed_or_came_back_stays() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(200)?;
    h2.stop_sshd()?;
    assert_eq!(migrate(&vm, h2, P2P)?.code(), Some(3));
    h2.start_sshd()?;
    restart_libvirtd(h1)?;
    let event = told(h1, "vm", &["--placement-command", "/bin/true"])?;
    assert_eq!(event["event"], "kept");
    assert!(
        event["reason"]
            .as_str()
            .unwrap_or_default()
            .contains("offer"),
        "{event}"
    );

    let offer = ["logchain", "offer", "--transport", "ssh://h2", "vm"];
    h1.command(offer).limit(MIGRATION).run()?.checked()?;
    assert_eq!(told(h1, "vm", &["--dry-run"])?["event"], "would-reap");
    // Defined anew: no domain that left.
    let xml = h1
        .run(["virsh", "dumpxml", "--inactive", "vm"])?
        .checked()?
        .out();
    let more = xml.replacen("</name>", "</name><title>mine</title>", 1);
    let define = |xml: &str| {
        h1.command(["virsh", "define", "/dev/stdin"])
            .input(xml)
            .run()
    };
    define(&more)?.checked()?;
    let event = told(h1, "vm", &[])?;
    assert!(
        event["reason"]
            .as_str()
            .unwrap_or_default()
            .contains("defined anew"),
        "{event}"
    );
    define(&xml)?.checked()?;

    // Its files may stay, and whoever asks a database is told which domain is meant.
    let script = "#!/bin/sh\n[ \"$LOGCHAIN_DOMAIN_NAME $LOGCHAIN_HOST\" = 'vm h1' ] && \
                  [ ${#LOGCHAIN_DOMAIN_UUID} = 36 ] && [ \"$LOGCHAIN_DESTINATION\" ] && \
                  [ -e /tmp/confirmed ]\n";
    std::fs::write(h1.path("/tmp/ask"), script)?;
    h1.run(["chmod", "755", "/tmp/ask"])?.checked()?;
    let mut task = h1
        .command(["logchain", "reap", "--every", "1s", "--files", "keep"])
        .args(["--placement-command", "/tmp/ask"])
        .spawn()?;
    h1.until("the first pass", std::time::Duration::from_secs(20), || {
        Ok((!task.stdout().is_empty()).then_some(()))
    })?;
    assert!(is_defined(&vm)?);
    std::fs::write(h1.path("/tmp/confirmed"), "")?;
    h1.until(
        "the domain to go",
        std::time::Duration::from_secs(20),
        || Ok(vm.state()?.is_none().then_some(())),
    )?;
    task.signal(logchain_tests::Signal::TERM)?;
    let output = task.wait(MIGRATION)?;
    println!("{}{}", output.out(), output.err());
    assert_eq!(output.code(), Some(0));
    // One that stays is told of once.
    assert_eq!(output.out().lines().count(), 2, "{}", output.out());
    assert!(sorted_names(h1, "vm")?.contains(&"console.log".to_owned()));

    // It goes away and back: the note at h2 is of no use any more.
    let back = h2.guest("vm");
    migrate_json(&back, h1, P2P)?;
    h1.guest("vm").destroy()?;
    back.start()?;
    let event = told(h2, "vm", &["--placement-command", "/bin/true"])?;
    assert_eq!(event["event"], "forgotten", "{event}");
    back.destroy()?;
    assert!(
        reap(h2, &["--placement-command", "/bin/true"])?
            .out()
            .contains("no domain")
    );
    assert!(is_defined(&back)?);
    Ok(())
}
