//! virsh migrates a VM whatever its log is, and so does logchain: the log is carried as
//! far as it can be, by the way that libvirt takes, and never to another host.

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::common::{MIGRATION, Outcome, history, show, sorted_names, spool_is_empty};
use logchain_tests::{Guest, GuestOn, Host, Lab, Output, Ticks};

const UUID: &str = "6a1f8f5e-3c1d-4f55-9e0f-2b9d1c7a4e77";

/// `logchain migrate` to a URI.
fn migrate_to(at: &GuestOn, uri: &str, way: &[&str]) -> Result<Output, Box<dyn Error>> {
    let command = at.host().command(["logchain", "migrate"]).args(way);
    Ok(command.args([at.name(), uri]).limit(MIGRATION).run()?)
}

/// It is there, its first console's log is whole, and it prints on.
fn arrived(to: &Host, output: &Output, code: i32) -> Result<GuestOn, Box<dyn Error>> {
    let said = format!("{}{}", output.out(), output.err());
    println!("{said}");
    assert_eq!(output.code(), Some(code), "{said}");
    assert!(
        said.contains("serial0: ") && said.contains("in place"),
        "{said}"
    );
    let at = to.guest("vm");
    assert_eq!(at.state()?.as_deref(), Some("running"));
    at.wait_for_more_ticks(100)?;
    println!("{}", Ticks::check_from_boot(&history(&at)?)?);
    Ok(at)
}

/// A host is emptied as the README does it: of a VM without a log, of one whose log's name
/// leaves no room for a longer one, and of one with a log that has no path from the root. The latter goes back to a host that an alias names, and
/// comes again by ssh with a login of its own.
#[test]
fn a_vm_migrates_whatever_its_log_is() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    h1.define(&Guest::new("mute").without_log())?;
    let guest = Guest::new("vm").uuid(UUID).second_port();
    let vm = h1.define(&guest)?;
    let xml = guest.xml();
    let odd = xml.replace("/var/log/lab/vm/second.log", "tmp/second.log");
    assert_ne!(xml, odd);
    h1.command(["virsh", "--quiet", "define", "/dev/stdin"])
        .input(odd)
        .run()?
        .checked()?;
    let guest = Guest::new("long");
    h1.define(&guest)?;
    h1.run(["virsh", "--quiet", "undefine", "long"])?
        .checked()?;
    let name = "x".repeat(250);
    h1.command(["virsh", "--quiet", "define", "/dev/stdin"])
        .input(guest.xml().replace("console.log", &name))
        .run()?
        .checked()?;
    for name in ["mute", "vm", "long"] {
        h1.start(name)?;
    }
    vm.wait_for_tick(300)?;

    let evacuate = "virsh list --name | xargs -r -P 4 -I{} \
                    logchain migrate --live --p2p --persistent {} qemu+tcp://h2/system";
    let output = h1.command(["sh", "-c", evacuate]).limit(MIGRATION).run()?;
    // xargs's word for one that ended with 1 to 125: the log without a path stayed.
    let at = arrived(h2, &output, 123)?;
    let (out, err) = (output.out(), output.err());
    assert!(
        out.contains("domain mute migrated to qemu+tcp://h2/system; it has no console log\n"),
        "{out}"
    );
    assert!(
        err.contains("the log of serial1, \"tmp/second.log\", has no path from the root"),
        "{err}"
    );
    assert_eq!(h1.run(["virsh", "list", "--name"])?.out().trim(), "");
    assert_eq!(h2.guest("mute").state()?.as_deref(), Some("running"));

    let long = show(h2, &["-n", "all", "long"])?;
    println!("long: {}", Ticks::check_from_boot(&long)?);
    let hops = h2.run(["logchain", "show", "--hops", "long"])?.checked()?;
    assert!(hops.out().contains("h1"), "{}", hops.out());
    assert!(h2.path("/var/log/lab/long").join(name).exists());
    h2.guest("long").destroy()?;

    // Alone: nothing is amiss with a VM that has no log.
    let output = migrate_to(&h2.guest("mute"), &h1.uri(), &["--live", "--p2p"])?;
    assert_eq!(output.code(), Some(0), "{}", output.err());
    assert_eq!(output.err(), "");

    fs::write(
        h2.path("/etc/libvirt/libvirt.conf"),
        "uri_aliases = [ \"home=qemu+tcp://h1/system\" ]\n",
    )?;
    // This host by its name is this host.
    let way = ["-c", "qemu+tcp://h2/system", "--live", "--persistent"];
    let output = migrate_to(&at, "home", &way)?;
    let at = arrived(h1, &output, 3)?;

    // What ssh has of its own lies elsewhere now.
    h1.run(["mv", "/root/.ssh/id_ed25519", "/root/other key"])?
        .checked()?;
    h1.run(["rm", "/root/.ssh/known_hosts"])?.checked()?;
    let login = "keyfile=/root/other%20key&no_verify=1&known_hosts=/root/other%20hosts&no_tty=1";
    let uri = format!("qemu+ssh://%72oot@h2/system?{login}");
    let output = migrate_to(&at, &uri, &["--live", "--persistent"])?;
    arrived(h2, &output, 3)?;
    let learnt = fs::read_to_string(h1.path("/root/other hosts"))?;
    assert!(learnt.contains("ssh-ed25519"), "{learnt:?}");
    assert!(spool_is_empty(h1)? && spool_is_empty(h2)?);
    Ok(())
}

/// Has ssh on a host take the way to another one.
fn mislead(host: &Host, name: &str, to: &str) -> Outcome {
    let path = host.path("/root/.ssh/config");
    let before = fs::read_to_string(&path)?;
    let first = format!("Host {name}\n\tHostName {to}\n\tHostKeyAlias {to}\n");
    fs::write(path, first + &before)?;
    Ok(())
}

/// ssh and libvirt reach different machines by one name: the source itself, and a third
/// host. Nothing is touched where ssh leads.
#[test]
fn an_ssh_that_leads_elsewhere_touches_nothing_there() -> Outcome {
    let lab = Lab::start(3)?;
    let (h1, h2, h3) = (lab.host(0), lab.host(1), lab.host(2));
    let vm = h1.define(&Guest::new("vm").uuid(UUID))?;
    vm.start()?;
    vm.wait_for_tick(300)?;
    let live = ["--live", "--p2p", "--persistent"];

    mislead(h1, "h2", "h1")?;
    let base = h1.path(vm.log_path());
    let inode = fs::metadata(&base)?.ino();
    let output = migrate_to(&vm, &h2.uri(), &live)?;
    let said = output.err();
    println!("{said}");
    assert_eq!(output.code(), Some(3), "{said}");
    assert!(
        said.contains("ssh to h2 leads back to the source (h1)"),
        "{said}"
    );
    assert!(said.contains("--transport"), "{said}");
    let untouched = |host: &Host| -> Outcome {
        let names = sorted_names(host, "vm")?;
        let ours =
            |name: &&String| !matches!(name.as_str(), "console.log" | ".console.log.logchain");
        assert_eq!(names.iter().find(ours), None, "{names:?}");
        assert!(spool_is_empty(host)?);
        Ok(())
    };
    untouched(h1)?;
    assert_eq!(fs::metadata(&base)?.ino(), inode);
    let here = fs::read(&base)?;
    let left = Ticks::last(&here).ok_or("no line")?;
    let at = h2.guest("vm");
    assert_eq!(at.state()?.as_deref(), Some("running"));
    at.wait_for_more_ticks(100)?;

    // By hand it is no other.
    let offer = |transport: &str| {
        h1.command(["logchain", "offer", "--transport", transport, "vm"])
            .limit(MIGRATION)
            .run()
    };
    let output = offer("ssh://h2")?;
    assert_eq!(output.code(), Some(1), "{}", output.err());
    assert!(
        output.err().contains("leads back to the source"),
        "{}",
        output.err()
    );
    assert!(fs::read(&base)? == here, "its log is as it was");
    let output = offer(&format!("ssh://{}", h2.address()))?.checked()?;
    println!("{}", output.out());
    let whole = history(&at)?;
    assert!(Ticks::check_from_boot(&whole)?.last > left);
    assert!(whole.starts_with(&here));

    mislead(h2, "h1", "h3")?;
    let output = migrate_to(
        &at,
        &h1.uri(),
        &[&live[..], &["--transport", "ssh://h1"]].concat(),
    )?;
    let said = output.err();
    println!("{said}");
    assert_eq!(output.code(), Some(3), "{said}");
    assert!(
        said.contains("ssh to h1 leads to the host h3, not to the destination"),
        "{said}"
    );
    untouched(h3)?;
    assert_eq!(h1.guest("vm").state()?.as_deref(), Some("running"));
    Ok(())
}

/// What lies where the log was is no log: a FIFO that nobody writes, a link elsewhere.
#[test]
fn a_log_that_is_none_any_more_keeps_no_vm_here() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let mut at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(100)?;
    for (to, instead, says) in [
        (h2, "mkfifo", "is a FIFO"),
        (h1, "ln -s /etc/hostname", "is a link"),
    ] {
        let log = at.log_path().display().to_string();
        let replace = format!("mv {log} /tmp/moved && {instead} {log}");
        at.host().run(["sh", "-c", &replace])?.checked()?;
        let output = migrate_to(&at, &to.uri(), &["--live", "--p2p", "--persistent"])?;
        let said = output.err();
        println!("{said}");
        assert_eq!(output.code(), Some(3), "{said}");
        assert!(said.contains(says), "{said}");
        at = to.guest("vm");
        assert_eq!(at.state()?.as_deref(), Some("running"));
        at.wait_for_more_ticks(100)?;
    }

    // A destination that the source's libvirtd reaches alone, and a definition that libvirt
    // alone reads.
    let xml = h1
        .run(["virsh", "dumpxml", "--migratable", "vm"])?
        .checked()?;
    let xml = format!("<!DOCTYPE domain [<!ENTITY a 'b'>]>\n{}", xml.out());
    fs::write(h1.path("/tmp/odd.xml"), xml)?;
    let output = h1
        .command(["unshare", "--net", "logchain", "migrate", "--live", "--p2p"])
        .args(["--xml", "/tmp/odd.xml", "vm", &h2.uri()])
        .limit(MIGRATION)
        .run()?;
    let said = output.err();
    println!("{said}");
    assert_eq!(output.code(), Some(3), "{said}");
    assert!(said.contains("serial0: the log was not carried"), "{said}");
    assert_eq!(h2.guest("vm").state()?.as_deref(), Some("running"));
    Ok(())
}
