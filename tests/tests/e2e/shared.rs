//! Both hosts have one folder of logs: nothing is sent, and what libvirt unlinks at the
//! destination is there all the same, behind its new log.

use crate::common::{
    MIGRATION, Outcome, history, migrate, migrate_json, sorted_names, spool_is_empty,
};
use logchain_tests::{Guest, Lab, Ticks};

const LIVE: &[&str] = &["--live", "--p2p", "--persistent"];

fn goes_on(append: bool) -> Outcome {
    let lab = Lab::builder().hosts(2).shared_logs().start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let mut at = h1.define(&Guest::new("vm").append(append))?;
    at.start()?;
    at.wait_for_tick(500)?;
    for to in [h2, h1, h2] {
        let events = migrate_json(&at, to, LIVE)?;
        assert!(events.iter().any(|e| e["event"] == "carried"), "{events:?}");
        at = to.guest("vm");
        Ticks::check_from_boot(&history(&at)?)?;
        at.wait_for_more_ticks(300)?;
        let report = Ticks::check_from_boot(&history(&at)?)?;
        let names = sorted_names(to, "vm")?;
        println!("append {append}, at {}: {report}; {names:?}", to.name());
        assert!(
            !names.iter().any(|n| n.ends_with(".logchain.d")),
            "{names:?}"
        );
        assert!(spool_is_empty(h1)? && spool_is_empty(h2)?);
        let hops = to.run(["logchain", "show", "--hops", "vm"])?.checked()?;
        assert!(hops.out().contains("h1"), "{}", hops.out());
    }

    // One that is refused leaves the log where it is: the guest prints on into it.
    let before = sorted_names(h2, "vm")?;
    h1.refuse_migrations(true)?;
    let output = migrate(&at, h1, LIVE)?;
    assert_eq!(output.code(), Some(1), "{}", output.err());
    at.wait_for_more_ticks(300)?;
    assert_eq!(sorted_names(h2, "vm")?, before);
    Ticks::check_from_boot(&history(&at)?)?;

    // The domain that stayed behind goes; the files, which are the log there still, stay.
    h1.command(["logchain", "reap"])
        .limit(MIGRATION)
        .run()?
        .checked()?;
    assert_eq!(h1.guest("vm").state()?, None);
    println!("{}", Ticks::check_from_boot(&history(&at)?)?);
    Ok(())
}

#[test]
fn a_folder_that_both_hosts_have_without_append() -> Outcome {
    goes_on(false)
}

#[test]
fn a_folder_that_both_hosts_have_with_append() -> Outcome {
    goes_on(true)
}
