//! Ways to write a log and to define a guest, and the log follows: files that QEMU
//! writes itself, guests that are gone once they stop, paths that differ.

use std::error::Error;
use std::time::Duration;

use crate::common::{Outcome, migrate_json, show};
use logchain_tests::{Guest, GuestOn, Host, Lab, Ticks};

/// Moves a guest, and waits until it prints on; `path`: where its log is then.
fn moved(at: &GuestOn, to: &Host, way: &[&str]) -> Result<GuestOn, Box<dyn Error>> {
    let events = migrate_json(at, to, way)?;
    assert!(events.iter().any(|e| e["event"] == "carried"), "{events:?}");
    let at = to.guest(at.name());
    let all = ["-n", "all", at.name()];
    let before = Ticks::check_from_boot(&show(to, &all)?)?.last;
    to.until("it to print on", Duration::from_secs(60), || {
        let tail = to.run(["logchain", "show", at.name()])?.stdout;
        Ok(Ticks::last(&tail).filter(|now| *now > before + 50))
    })?;
    let report = Ticks::check_from_boot(&show(to, &all)?)?;
    println!("{} to {}: {report}", at.name(), to.name());
    Ok(at)
}

const LIVE: &[&str] = &["--live", "--p2p", "--persistent"];

/// QEMU writes a `<log>` and a device of type file itself.
#[test]
fn files_that_qemu_writes_itself() -> Outcome {
    let lab = Lab::builder().hosts(2).stdio_handler("file").start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let guests = [
        Guest::new("off"),
        Guest::new("on").append(true),
        Guest::new("dev").file(),
    ];
    for guest in guests {
        let vm = h1.define(&guest)?;
        vm.start()?;
        vm.wait_for_tick(300)?;
        let vm = moved(&vm, h2, LIVE)?;
        let vm = moved(&vm, h1, LIVE)?;
        vm.destroy()?;
    }
    Ok(())
}

/// virtlogd writes a device of type file as it does a `<log>`; the guest is gone where
/// it is not; its log lies elsewhere at the destination.
#[test]
fn a_transient_guest_whose_log_lies_elsewhere_there() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.create(&Guest::new("vm").file().append(true))?;
    vm.wait_for_tick(300)?;
    let xml = h1
        .run(["virsh", "dumpxml", "--migratable", "vm"])?
        .checked()?
        .out();
    let there = xml.replace("/var/log/lab/vm/console.log", "/var/lib/elsewhere/tty.log");
    assert_ne!(xml, there);
    std::fs::write(h1.path("/tmp/there.xml"), there)?;
    h2.run(["mkdir", "/var/lib/elsewhere"])?.checked()?;
    let at = moved(&vm, h2, &["--live", "--p2p", "--xml", "/tmp/there.xml"])?;
    assert_eq!(vm.state()?, None, "it is gone here");
    assert!(h2.path("/var/lib/elsewhere/tty.log").exists());
    assert!(!h2.path("/var/log/lab/vm/console.log").exists());
    // And back, where the path is the first one again.
    let back = h2
        .run(["virsh", "dumpxml", "--migratable", "vm"])?
        .checked()?
        .out();
    let back = back.replace("/var/lib/elsewhere/tty.log", "/var/log/lab/vm/console.log");
    std::fs::write(h2.path("/tmp/back.xml"), back)?;
    moved(&at, h1, &["--live", "--p2p", "--xml", "/tmp/back.xml"])?;
    Ok(())
}

/// On a file system whose leases say nothing of writers (NFS, SMB, FUSE) a log counts as
/// complete when it rests: nothing waits for a writer that cannot be seen.
#[test]
fn a_log_on_a_file_system_that_does_not_show_its_writers() -> Outcome {
    let lab = Lab::start(2)?;
    let mut mounts = Vec::new();
    for host in [lab.host(0), lab.host(1)] {
        // Over itself: what the lab makes in that folder stays to be seen.
        mounts.push(host.spawn(["bindfs", "-f", "/var/log/lab", "/var/log/lab"])?);
        let mounted = "grep -q ' /var/log/lab fuse' /proc/mounts";
        host.until("the mount", Duration::from_secs(10), || {
            let there = host.run(["sh", "-c", mounted])?.code() == Some(0);
            Ok(there.then_some(()))
        })?;
    }
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(300)?;
    let vm = moved(&vm, h2, LIVE)?;
    let vm = moved(&vm, h1, LIVE)?;
    vm.destroy()?;
    for mount in mounts {
        mount.kill()?;
    }
    Ok(())
}
