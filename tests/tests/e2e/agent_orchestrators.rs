//! Migrations as orchestrators ask libvirt for them, with agents on both hosts. `virsh` passes the same
//! flags and parameters, as they stand in each one's sources. Nova itself is in `cargo xtask test --nova`.

use std::error::Error;

use crate::agent::{Agent, over_tls_with_peers, soon_whole, virsh};
use crate::common::Outcome;
use logchain_tests::{Guest, GuestOn, Host, Lab};

/// Where the definition for the destination lies.
const XML: &str = "/tmp/destination.xml";

struct Row {
    who: &'static str,
    flags: &'static [&'static str],
    /// Names the destination's address in the network of migrations.
    address: Option<&'static str>,
    /// Gives the destination a definition of its own, in which a display listens elsewhere.
    xml: bool,
}

const fn row(who: &'static str, flags: &'static [&'static str]) -> Row {
    Row {
        who,
        flags,
        address: None,
        xml: false,
    }
}

/// Domains that are started with `virDomainCreateXML`, and are gone where they stop.
const TRANSIENT: [Row; 3] = [
    // heartbeat/VirtualDomain: VirtualDomain_migrate_to(); src/vmm_mad/remotes/kvm/migrate.
    row("pacemaker's VirtualDomain, OpenNebula", &["--live"]),
    // MigrateKVMAsync.call(): virDomainMigrate3() by a client that is connected to both.
    Row {
        address: Some("tcp:"),
        xml: true,
        ..row(
            "CloudStack",
            &["--live", "--compressed", "--auto-converge", "--dname", "vm"],
        )
    },
    // vdsm/virt/migration.py.
    Row {
        address: Some("tcp://"),
        ..row(
            "oVirt",
            &["--live", "--p2p", "--abort-on-error", "--auto-converge"],
        )
    },
];

const PERSISTENT: [Row; 4] = [
    // virtManager/object/domain.py: migrate().
    row(
        "virt-manager",
        &["--live", "--persistent", "--undefinesource"],
    ),
    row(
        "virt-manager, tunnelled",
        &[
            "--live",
            "--persistent",
            "--undefinesource",
            "--p2p",
            "--tunnelled",
        ],
    ),
    // cockpit-machines, src/libvirtApi/domain: domainMigrateToUri().
    row(
        "Cockpit",
        &["--live", "--p2p", "--persistent", "--undefinesource"],
    ),
    row("Cockpit, temporarily", &["--live", "--p2p"]),
];

fn go(at: &GuestOn, to: &Host, row: &Row) -> Result<GuestOn, Box<dyn Error>> {
    let mut way: Vec<String> = row.flags.iter().map(|&flag| flag.to_owned()).collect();
    if let Some(scheme) = row.address {
        way.extend([
            "--migrateuri".to_owned(),
            format!("{scheme}{}", to.address()),
        ]);
    }
    if row.xml {
        let dump = ["virsh", "dumpxml", "--migratable", at.name()];
        let xml = at.host().run(dump)?.checked()?.stdout;
        std::fs::write(at.host().path(XML), xml)?;
        way.extend(["--xml".to_owned(), XML.to_owned()]);
    }
    let way: Vec<&str> = way.iter().map(String::as_str).collect();
    virsh(at, to, &way)?.checked()?;
    let there = to.guest(at.name());
    there.wait_for_more_ticks(100)?;
    Ok(there)
}

#[test]
fn every_orchestrators_way_takes_the_log_along() -> Outcome {
    let lab = Lab::builder().hosts(2).tls().start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let config = over_tls_with_peers(&lab);
    let (one, two) = (Agent::start(h1, &config)?, Agent::start(h2, &config)?);
    let transient = h1.create(&Guest::new("vm"))?;
    let persistent = h1.define(&Guest::new("lasting").append(true))?;
    persistent.start()?;
    for (mut at, rows) in [(transient, &TRANSIENT[..]), (persistent, &PERSISTENT[..])] {
        at.wait_for_tick(100)?;
        for row in rows {
            let to = if at.host().name() == "h1" { h2 } else { h1 };
            at = go(&at, to, row)?;
            let report = soon_whole(&at, &[&one, &two])?;
            println!("row | {} | {} | {report}", row.who, row.flags.join(" "));
        }
        at.destroy()?;
    }
    one.stop()?.checked()?;
    two.stop()?.checked()?;
    Ok(())
}
