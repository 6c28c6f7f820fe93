//! The option table: every option that this machine's `virsh migrate --help` lists
//! has a row here, with what was seen of it. Options of a row "works" were part of a
//! real migration after which every line was there, once, in order.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::time::Duration;

use crate::common::{MIGRATION, Outcome, migrate, migrate_json, show};
use crate::{journey, postcopy};
use logchain_tests::{Guest, GuestOn, Host, Lab, Ticks};

/// The table, as far as it was seen.
#[derive(Default)]
struct Table(BTreeMap<String, String>);

impl Table {
    fn put(&mut self, options: &[&str], seen: &str) {
        for option in options.iter().filter(|o| o.starts_with("--")) {
            self.0
                .entry((*option).to_owned())
                .or_insert_with(|| seen.to_owned());
        }
    }

    /// Migrates, and looks whether every line is there on both its consoles.
    fn go(&mut self, at: &GuestOn, to: &Host, options: &[&str]) -> Result<GuestOn, Box<dyn Error>> {
        let events = migrate_json(at, to, options)?;
        let consoles = events.iter().filter(|e| e["event"] == "carried").count();
        let name = options.iter().position(|o| *o == "--dname");
        let name = name.and_then(|n| options.get(n + 1)).copied();
        let at = to.guest(name.unwrap_or(at.name()));
        let lines = all_there(&at, consoles)?;
        let seen = format!("works: {} lines at {}", lines, to.name());
        println!("{} → {seen}", options.join(" "));
        self.put(options, &seen);
        Ok(at)
    }

    /// What libvirt or QEMU cannot do on this machine changes nothing.
    fn cannot(&mut self, at: &GuestOn, to: &Host, options: &[&str], why: &str) -> Outcome {
        let option = options.first().copied().unwrap_or_default();
        let output = migrate(at, to, options)?;
        let said = output.err();
        if output.code() == Some(0) {
            return Err(format!("{options:?} works here, against expectation").into());
        }
        assert_eq!(output.code(), Some(1), "{options:?}: {said}");
        assert!(said.contains("it is here as before"), "{options:?}: {said}");
        assert!(said.contains(why), "{options:?}: {said}");
        assert_eq!(at.state()?.as_deref(), Some("running"));
        all_there(at, 2)?;
        self.put(&[option], &format!("not on this machine: {}", said.trim()));
        Ok(())
    }
}

/// Waits until it prints on, and looks whether all that it printed is there.
pub(crate) fn all_there(at: &GuestOn, consoles: usize) -> Result<u64, Box<dyn Error>> {
    let mut last = 0;
    for console in 0..consoles {
        let console = format!("serial{console}");
        let args = ["-n", "all", "--console", &console, at.name()];
        let before = Ticks::check_from_boot(&show(at.host(), &args)?)?.last;
        if at.state()?.as_deref() == Some("running") {
            at.host()
                .until("it to print on", Duration::from_secs(60), || {
                    let tail = ["logchain", "show", "--console", &console, at.name()];
                    let tail = at.host().run(tail)?.stdout;
                    Ok(Ticks::last(&tail).filter(|now| *now > before + 50))
                })?;
        }
        last = Ticks::check_from_boot(&show(at.host(), &args)?)?.last;
    }
    Ok(last)
}

/// Every option of `virsh migrate`, as it lists them itself.
fn virsh_options(host: &Host) -> Result<Vec<String>, Box<dyn Error>> {
    let help = host.run(["virsh", "migrate", "--help"])?.checked()?.out();
    let (_, options) = help.split_once("OPTIONS").ok_or("no options")?;
    let words = options.lines().filter_map(|l| l.split_whitespace().next());
    let names = words.map(|w| w.trim_matches(['[', ']']).to_owned());
    let found: Vec<_> = names.filter(|w| w.starts_with("--")).collect();
    assert!(found.len() > 40, "{found:?}");
    Ok(found)
}

/// The guest's definition on a host, changed.
fn xml(at: &GuestOn, file: &str, change: (&str, &str), live: bool) -> Outcome {
    let kind = if live { "--migratable" } else { "--inactive" };
    let xml = at.host().run(["virsh", "dumpxml", kind, at.name()])?;
    let xml = xml.checked()?.out();
    assert!(xml.contains(change.0), "{xml}");
    let xml = xml.replace(change.0, change.1);
    std::fs::write(at.host().path(file), xml)?;
    Ok(())
}

/// Ways from the first host to the second one, back, and so on.
pub(crate) const WAYS: [&[&str]; 4] = [
    &[
        "--live",
        "--p2p",
        "--persistent",
        "--unsafe",
        "--verbose",
        "--abort-on-error",
        "--change-protection",
        "--auto-converge",
        "--auto-converge-initial",
        "30",
        "--auto-converge-increment",
        "20",
        "--compressed",
        "--comp-methods",
        "xbzrle",
        "--comp-xbzrle-cache",
        "67108864",
        "--bandwidth",
        "200",
        "--listen-address",
        "0.0.0.0",
        "--migrateuri",
        "tcp://h2:49170",
    ],
    // The client drives it; threads compress; disks are copied. Not live: on a busy machine QEMU's
    // threads now and then corrupt a page that the guest changes meanwhile, and its kernel crashes.
    &[
        "--persistent",
        "--copy-storage-all",
        "--copy-storage-synchronous-writes",
        "--migrate-disks",
        "vda",
        "--disks-port",
        "49301",
        "--compressed",
        "--comp-methods",
        "mt",
        "--comp-mt-level",
        "1",
        "--comp-mt-threads",
        "2",
        "--comp-mt-dthreads",
        "2",
    ],
    &[
        "--live",
        "--p2p",
        "--persistent",
        "--copy-storage-inc",
        "--disks-uri",
        "tcp://h2:49302",
        "--parallel",
        "--parallel-connections",
        "2",
    ],
    &[
        "--live",
        "--p2p",
        "--persistent",
        "--unsafe",
        "--tls",
        "--tls-destination",
        "h1",
        "--undefinesource",
    ],
];

/// Not live, left paused, under another name and definition: see [`titles`].
pub(crate) const AS_ANOTHER: &[&str] = &[
    "--p2p",
    "--persistent",
    "--undefinesource",
    "--suspend",
    "--unsafe",
    "--dname",
    "other",
    "--xml",
    "/tmp/live.xml",
    "--persistent-xml",
    "/tmp/kept.xml",
    "--graphicsuri",
    "spice://h2:5900",
];

/// Definitions of a guest with titles: that of its run, and the one that is kept.
pub(crate) fn titles(at: &GuestOn) -> Outcome {
    let titled = |title: &str| format!("<name>vm</name><title>{title}</title>");
    let name = "<name>vm</name>";
    xml(at, "/tmp/live.xml", (name, &titled("live")), true)?;
    xml(at, "/tmp/kept.xml", (name, &titled("kept")), false)
}

/// A guest with two consoles and a disk that each host has for itself, on the first host.
pub(crate) fn a_guest(lab: &Lab) -> Result<GuestOn, Box<dyn Error>> {
    for host in [lab.host(0), lab.host(1)] {
        let disk = host.path(DISK);
        std::fs::create_dir_all(disk.parent().ok_or("no folder")?)?;
        File::create(disk)?.set_len(8 << 20)?;
    }
    let guest = Guest::new("vm").second_port().disk(DISK);
    let vm = lab.host(0).define(&guest)?;
    vm.start()?;
    vm.wait_for_tick(300)?;
    Ok(vm)
}

const LIVE: &[&str] = &["--live", "--p2p", "--persistent"];
const DISK: &str = "/var/lib/libvirt/images/vm.raw";

#[test]
fn every_option_of_virsh_migrate() -> Outcome {
    let lab = Lab::builder().hosts(2).tls().start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let mut table = Table::default();
    let vm = a_guest(&lab)?;
    refused(&mut table, &vm, h2)?;

    // A disk that is not shared is unsafe, libvirt says.
    let output = migrate(&vm, h2, LIVE)?;
    assert_eq!(output.code(), Some(1));
    assert!(
        output.err().to_lowercase().contains("unsafe"),
        "{}",
        output.err()
    );
    let mut vm = vm;
    for (way, to) in WAYS.iter().zip([h2, h1].into_iter().cycle()) {
        vm = table.go(&vm, to, way)?;
    }

    titles(&vm)?;
    let moved = table.go(&vm, h2, AS_ANOTHER)?;
    assert_eq!(moved.state()?.as_deref(), Some("paused"));
    assert_eq!(vm.state()?, None, "the source forgot it");
    let title = |kind: &[&str]| {
        let desc = [&["virsh", "desc", "--title"], kind, &["other"]].concat();
        h2.run(desc).map(|output| output.out().trim().to_owned())
    };
    assert_eq!(title(&["--live"])?, "live");
    assert_eq!(title(&["--config"])?, "kept");
    h2.run(["virsh", "resume", "other"])?.checked()?;
    all_there(&moved, 2)?;

    let rdma = [
        "--rdma-pin-all",
        "--live",
        "--p2p",
        "--unsafe",
        "--migrateuri",
        "rdma://h1",
    ];
    table.cannot(&moved, h1, &rdma, "")?;
    let zerocopy = ["--zerocopy", "--live", "--p2p", "--unsafe", "--parallel"];
    table.cannot(&moved, h1, &zerocopy, "")?;

    table.put(
        &["--tunnelled"],
        &format!("works: {}", journey::TUNNELLED_BY),
    );
    let postcopy = [
        "--postcopy",
        "--postcopy-after-precopy",
        "--postcopy-bandwidth",
        "--timeout",
        "--timeout-postcopy",
        "--timeout-suspend",
    ];
    table.put(&postcopy, &format!("works: {}", postcopy::SHOWN_BY));
    let resume = &["--postcopy-resume"];
    table.put(resume, &format!("works: {}", postcopy::RESUMED_BY));
    print(&table, &virsh_options(h1)?)
}

/// What is refused, before anything is begun, and why.
fn refused(table: &mut Table, at: &GuestOn, to: &Host) -> Outcome {
    for (options, says) in [
        (
            &["--offline", "--persistent"][..],
            "moves a definition and no guest",
        ),
        (&["--direct", "--live"], "which QEMU does not"),
    ] {
        let output = migrate(at, to, options)?;
        assert_eq!(output.code(), Some(2), "{options:?}: {}", output.err());
        assert!(output.err().contains(says), "{}", output.err());
        table.put(&options[..1], &format!("refused: {}", output.err().trim()));
    }
    // What is given by its place may be given by name.
    let uri = to.uri();
    let named = [
        "logchain",
        "migrate",
        "--offline",
        "--desturi",
        &uri,
        "--domain",
        at.name(),
    ];
    let output = at.host().command(named).limit(MIGRATION).run()?;
    assert!(
        output.err().contains("moves a definition"),
        "{}",
        output.err()
    );
    table.put(&["--domain", "--desturi"], "works: by name as by place");
    Ok(())
}

/// Prints the table; an option without a row is one that was forgotten.
fn print(table: &Table, options: &[String]) -> Outcome {
    let mut forgotten = Vec::new();
    for option in options {
        match table.0.get(option) {
            Some(seen) => println!("{option:36} {seen}"),
            None => forgotten.push(option),
        }
    }
    assert!(forgotten.is_empty(), "no row for {forgotten:?}");
    Ok(())
}
