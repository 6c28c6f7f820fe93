//! virtlogd as it is found on hosts: with a configuration that it has not loaded yet, or
//! one of its own, with a program that does not start any more.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::common::{Outcome, carried, history, migrate, migrate_json, sorted_names};
use logchain_tests::{Guest, Host, Lab, Ticks};

/// `logchain rotate` is refused with these words, and nothing happened.
fn refused(host: &Host, words: &[&str]) -> Outcome {
    let pids = host.processes("virtlogd")?;
    let names = sorted_names(host, "vm1")?;
    let output = host.run(["logchain", "rotate", "vm1"])?;
    println!("{:?}: {}", output.took, output.err().trim());
    assert_eq!(output.code(), Some(1), "{}", output.err());
    for words in words {
        assert!(output.err().contains(words), "{words}: {}", output.err());
    }
    assert_eq!(output.err().trim().lines().count(), 1, "{}", output.err());
    // Neither the real one nor one on trial has come or gone.
    assert_eq!(host.processes("virtlogd")?, pids);
    assert_eq!(sorted_names(host, "vm1")?, names);
    host.guest("vm1").wait_for_more_ticks(20)?;
    Ok(())
}

/// Whatever would make virtlogd end, or lose a log, when it executes itself again.
#[test]
fn what_would_end_virtlogd_is_refused_before_it_is_asked() -> Outcome {
    let lab = Lab::builder().hosts(1).virtlogd(8 << 20, 8).start()?;
    let h1 = lab.host(0);
    let vm1 = h1.define(&Guest::new("vm1"))?;
    let other = h1.define(&Guest::new("other").lines(10))?;
    vm1.start()?;
    other.start()?;
    other.wait_for_tick(10)?;
    vm1.wait_for_tick(200)?;
    let pid = h1.processes("virtlogd")?[0].to_string();
    let mounts = || -> Result<String, Box<dyn std::error::Error>> {
        Ok(h1.run(["cat", "/proc/self/mountinfo"])?.checked()?.out())
    };
    let before = mounts()?;

    // Its configuration, as its own parser sees it.
    let conf = h1.path("/etc/libvirt/virtlogd.conf");
    let text = fs::read_to_string(&conf)?;
    fs::write(&conf, format!("{text}max_size = lots\n"))?;
    refused(
        h1,
        &[
            "would end",
            "expecting a value",
            "/etc/libvirt/virtlogd.conf",
        ],
    )?;
    // It starts with this one, and opens no log.
    fs::write(&conf, format!("{text}max_backups = 33\n"))?;
    refused(h1, &["max_backups above 32", "opens no log"])?;
    fs::write(&conf, &text)?;

    // Its program, as an upgrade may leave it.
    let broken = h1.path("/tmp/broken");
    fs::write(
        &broken,
        "#!/bin/sh\necho 'symbol lookup error' >&2\nexit 1\n",
    )?;
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755))?;
    let program = "/usr/sbin/virtlogd";
    h1.run(["mount", "--bind", "/tmp/broken", program])?
        .checked()?;
    refused(h1, &["symbol lookup error"])?;
    fs::write(&broken, [0x7f, b'E', b'L', b'F'])?;
    refused(h1, &["would end"])?;
    // One that neither starts nor ends goes with whoever waits for it.
    h1.run(["cp", "/bin/sleep", "/tmp/waiting"])?.checked()?;
    fs::write(&broken, "#!/bin/sh\nexec /tmp/waiting 1000\n")?;
    let waiting = h1.spawn(["logchain", "rotate", "vm1"])?;
    let limit = Duration::from_secs(20);
    h1.until("a trial", limit, || {
        Ok((!h1.processes("waiting")?.is_empty()).then_some(()))
    })?;
    assert_eq!(h1.signal("logchain-libvir", "KILL")?, 1);
    h1.until("no trial", limit, || {
        Ok(h1.processes("waiting")?.is_empty().then_some(()))
    })?;
    drop(waiting);
    h1.run(["umount", program])?.checked()?;

    // Another guest's log, the place of its state, the number of its files.
    let log = h1.log_path("other").to_string_lossy().into_owned();
    h1.run(["mv", &log, "/tmp/away"])?.checked()?;
    h1.run(["mkdir", &log])?.checked()?;
    refused(h1, &["a folder is in its place"])?;
    h1.run(["rmdir", &log])?.checked()?;
    h1.run(["mv", "/tmp/away", &log])?.checked()?;
    let state = "/run/virtlogd-restart-exec.json";
    h1.run(["mkdir", state])?.checked()?;
    refused(h1, &["a folder is in its place", state])?;
    h1.run(["rmdir", state])?.checked()?;
    let files = format!(
        "{}:1024",
        fs::read_dir(h1.path(format!("/proc/{pid}/fd")))?.count()
    );
    h1.run(["prlimit", "--pid", &pid, &format!("--nofile={files}")])?
        .checked()?;
    refused(h1, &["too few to start itself anew"])?;
    h1.run(["prlimit", "--pid", &pid, "--nofile=1024:1024"])?
        .checked()?;

    // All is mended: it is asked, and nothing of any trial is left.
    let output = h1.run(["logchain", "rotate", "vm1"])?.checked()?;
    println!("{:?}: {}", output.took, output.out().trim());
    assert_eq!(h1.processes("virtlogd")?[0].to_string(), pid);
    vm1.wait_for_more_ticks(50)?;
    Ticks::check_from_boot(&history(&vm1)?)?;
    assert_eq!(mounts()?, before);

    // It would keep fewer than are there from now on: none of them goes for that.
    for _ in 0..2 {
        h1.run(["logchain", "rotate", "vm1"])?.checked()?;
        vm1.wait_for_more_ticks(20)?;
    }
    let files = vm1.log_files()?.len();
    assert!(files > 3, "{files}");
    fs::write(&conf, format!("{text}max_backups = 2\n"))?;
    let output = h1.run(["logchain", "rotate", "vm1"])?.checked()?;
    println!("{}", output.err());
    assert!(
        output.err().contains("changed after virtlogd"),
        "{}",
        output.err()
    );
    vm1.wait_for_more_ticks(20)?;
    assert!(vm1.log_files()?.len() > files);
    Ticks::check_from_boot(&history(&vm1)?)?;
    Ok(())
}

/// What virtlogd keeps is what it has loaded: not what a file says that it never read,
/// and not what one says that changed since.
#[test]
fn history_is_not_dropped_by_limits_that_virtlogd_has_not_loaded() -> Outcome {
    // More than the guest prints on a busy machine until it has moved.
    let lab = Lab::builder().hosts(2).virtlogd(16 << 10, 32).start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    // The one at the destination has a configuration of its own.
    let conf = h2.path("/etc/libvirt/virtlogd.conf");
    let text = fs::read_to_string(&conf)?;
    let few = text.replace("max_backups = 32", "max_backups = 1");
    assert_ne!(few, text);
    fs::write(h2.path("/etc/libvirt/own.conf"), &text)?;
    fs::write(&conf, &few)?;
    h2.kill_virtlogd()?;
    h2.run(["virtlogd", "--daemon", "--config", "/etc/libvirt/own.conf"])?
        .checked()?;
    let at1 = h1.define(&Guest::new("vm1"))?;
    at1.start()?;
    at1.wait_for_tick(1500)?;
    assert!(at1.log_files()?.len() > 4);
    let events = migrate_json(&at1, h2, &["--live", "--persistent", "--undefinesource"])?;
    let arrived = carried(&events)?;
    assert_eq!(arrived["dropped"], 0, "{arrived}");
    assert!(
        arrived["files"]
            .as_array()
            .is_some_and(|files| files.len() > 1),
        "{arrived}"
    );
    let at2 = h2.guest("vm1");
    at2.wait_for_more_ticks(50)?;
    Ticks::check_from_boot(&history(&at2)?)?;

    // Back, to a virtlogd whose file has been changed since it was loaded.
    fs::write(h1.path("/etc/libvirt/virtlogd.conf"), &few)?;
    let output = migrate(&at2, h1, &["--live", "--persistent", "--undefinesource"])?;
    println!("{}", output.err());
    assert_eq!(output.code(), Some(0), "{}", output.err());
    assert!(
        output
            .err()
            .contains("at h1: /etc/libvirt/virtlogd.conf changed after virtlogd")
    );
    at1.wait_for_more_ticks(50)?;
    Ticks::check_from_boot(&history(&at1)?)?;
    Ok(())
}

/// A newer virtlogd removes what lies above `max_backups` once a day: it is told.
#[test]
fn what_virtlogd_would_clear_away_is_told() -> Outcome {
    let lab = Lab::builder().hosts(1).virtlogd(64 << 10, 2).start()?;
    let h1 = lab.host(0);
    let vm1 = h1.define(&Guest::new("vm1"))?;
    vm1.start()?;
    vm1.wait_for_tick(10)?;
    for number in 0..4 {
        let path = format!("{}.{number}", h1.log_path("vm1").display());
        fs::write(h1.path(path), "older\n")?;
    }
    let verify = || h1.run(["logchain", "verify", "vm1"]);
    let before = verify()?.out();
    assert!(
        before.contains("console.log.3 lies beyond the 2 files"),
        "{before}"
    );
    let conf = h1.path("/etc/libvirt/virtlogd.conf");
    let mut text = fs::read_to_string(&conf)?;
    text.push_str("max_age_days = 30\nlog_root = \"/var/log/lab\"\n");
    fs::write(&conf, text)?;
    h1.signal("virtlogd", "USR1")?;
    vm1.wait_for_more_ticks(20)?;
    let after = verify()?.out();
    println!("{after}");
    assert!(
        after.contains("console.log.3 is removed by virtlogd within a day"),
        "{after}"
    );
    // The one whose number is max_backups stays, and so it is said of that.
    assert!(
        after.contains("console.log.2 lies beyond the 2 files"),
        "{after}"
    );
    Ok(())
}
