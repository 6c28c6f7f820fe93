//! A guest's log follows it: every line once, in order, none torn, whatever the
//! way and whatever goes wrong around it.

use std::error::Error;
use std::fs;
use std::time::Duration;

use crate::common::{
    MIGRATION, Outcome, carried, history, migrate, migrate_json, sorted_names, spool_is_empty,
};
use logchain_tests::{Guest, GuestOn, Lab, Pace, Ticks};

/// Lines that a guest prints before it moves on.
const LINES: u64 = 600;

/// Moves a guest along a route and checks its log at the end and on the way.
fn journey(append: bool, hosts: usize, route: &[usize], ways: &[&[&str]]) -> Outcome {
    let lab = Lab::start(hosts)?;
    let mut at = lab
        .host(route[0])
        .define(&Guest::new("vm").append(append))?;
    at.start()?;
    at.wait_for_tick(LINES)?;
    let mut seam = 0;
    for (to, way) in route[1..].iter().zip(ways) {
        let to = lab.host(*to);
        let events = migrate_json(&at, to, way)?;
        let bytes = carried(&events)?["bytes"].as_u64().ok_or("no length")?;
        assert!(bytes > seam, "the history grows: {bytes} after {seam}");
        seam = bytes;
        println!(
            "{} → {}: {}",
            at.host().name(),
            to.name(),
            carried(&events)?
        );
        let left = at.log_files()?;
        assert!(!left.is_empty(), "the source's copy stays");
        at = to.guest("vm");
        let report = Ticks::check_from_boot(&history(&at)?)?;
        at.wait_for_tick(report.last + LINES)?;
    }
    let all = history(&at)?;
    let report = Ticks::check_from_boot(&all)?;
    println!(
        "append {append}, {route:?}: {} lines, all there, once, in order",
        report.count
    );
    assert!(report.count >= LINES * route.len() as u64);
    assert_eq!(all.len() as u64, {
        let files = at.log_files()?;
        let on_disk: usize = files.iter().map(|f| f.bytes.len()).sum();
        // The guest prints on between the two reads.
        assert!(on_disk >= all.len());
        all.len() as u64
    });
    for host in lab.hosts() {
        assert!(spool_is_empty(host)?, "{}'s spool", host.name());
        let names = sorted_names(host, "vm")?;
        assert!(
            !names.iter().any(|n| n.ends_with(".logchain.d")),
            "{names:?}"
        );
    }
    Ok(())
}

const P2P: &[&str] = &["--live", "--p2p", "--persistent"];
const MANAGED: &[&str] = &["--live", "--persistent"];
const TUNNELLED: &[&str] = &["--live", "--p2p", "--tunnelled", "--persistent"];

/// What shows that a tunnelled one works, for the table of options.
pub(crate) const TUNNELLED_BY: &str = "journey::three_hosts_without_append";

#[test]
fn there_and_back_without_append() -> Outcome {
    journey(false, 2, &[0, 1, 0], &[P2P, MANAGED])
}

#[test]
fn there_and_back_with_append() -> Outcome {
    journey(true, 2, &[0, 1, 0, 1], &[P2P, TUNNELLED, P2P])
}

#[test]
fn three_hosts_without_append() -> Outcome {
    journey(false, 3, &[0, 1, 2], &[TUNNELLED, P2P])
}

#[test]
fn three_hosts_with_append() -> Outcome {
    journey(true, 3, &[0, 1, 2], &[P2P, MANAGED])
}

/// A guest that prints nothing more brings back what it left. What its host keeps of that
/// by then is what `migrate` says it is.
#[test]
fn a_silent_guest_goes_there_and_back_and_the_limit_is_lowered() -> Outcome {
    let lab = Lab::builder().hosts(2).virtlogd(16 << 10, 20).start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let lines = 2500;
    let at1 = h1.define(&Guest::new("vm").lines(lines))?;
    at1.start()?;
    at1.wait_for_tick(lines)?;
    let at2 = h2.guest("vm");
    // What a migration says of the files that are there then.
    let dropped = |from: &GuestOn, to: &GuestOn| -> Result<u64, Box<dyn Error>> {
        let events = migrate_json(from, to.host(), P2P)?;
        let arrived = carried(&events)?;
        println!("{arrived}");
        let files = to.log_files()?;
        for told in arrived["files"].as_array().ok_or("no files")? {
            let there = files.iter().find(|f| told[0] == f.name.as_str());
            let there = there.ok_or_else(|| format!("{told} is not there"))?;
            assert_eq!(told[1], there.bytes.len());
        }
        let on_disk: usize = files.iter().map(|f| f.bytes.len()).sum();
        let bytes = arrived["bytes"].as_u64().ok_or("no bytes")?;
        let dropped = arrived["dropped"].as_u64().ok_or("no dropped")?;
        assert_eq!(bytes, on_disk as u64 + dropped);
        Ok(dropped)
    };
    for (from, to) in [(&at1, &at2), (&at2, &at1), (&at1, &at2)] {
        assert_eq!(dropped(from, to)?, 0);
    }
    let conf = h1.path("/etc/libvirt/virtlogd.conf");
    let text = fs::read_to_string(&conf)?;
    let few = text.replace("max_backups = 20", "max_backups = 2");
    assert_ne!(few, text);
    fs::write(&conf, &few)?;
    h1.kill_virtlogd()?;
    h1.start_virtlogd()?;
    let all = history(&at2)?;
    let dropped = usize::try_from(dropped(&at2, &at1)?)?;
    assert!(dropped > 0);
    assert_eq!(Some(history(&at1)?.as_slice()), all.get(dropped..));
    Ok(())
}

/// Both sides roll over while it moves, and it prints as fast as it can.
#[test]
fn a_flood_keeps_what_the_rotation_keeps() -> Outcome {
    // A file is full in less than a second, a migration takes more than one.
    let (size, backups) = (128 << 10, 6);
    let lab = Lab::builder().hosts(2).virtlogd(size, backups).start()?;
    let mut at = lab.host(0).define(&Guest::new("vm").pace(Pace::Flat))?;
    at.start()?;
    // All backups are full: there is something to lose.
    at.host()
        .until("the log to roll over", Duration::from_secs(120), || {
            Ok(at
                .log_files()?
                .iter()
                .any(|f| f.name == "console.log.5")
                .then_some(()))
        })?;
    let (mut here, mut there) = (0, 0);
    for to in [1, 0, 1, 0] {
        let to = lab.host(to);
        let base = inode(&at)?;
        let events = migrate_json(&at, to, P2P)?;
        here += u32::from(inode(&at)? != base);
        at = to.guest("vm");
        let all = history(&at)?;
        let carried = carried(&events)?;
        // The first name given tells how often it had rolled over by then.
        there += u32::from(carried["files"][0][0] != "console.log.0");
        let report = Ticks::check(&all)?;
        println!(
            "{carried}: {} bytes, lines {} to {}",
            all.len(),
            report.first,
            report.last
        );
        // A rotation keeps its backups in full, but for the line each is cut at.
        let promised = u64::from(backups) * (size - 80);
        assert!(
            all.len() as u64 >= promised,
            "{} of {promised} bytes are left",
            all.len()
        );
        let names = sorted_names(to, "vm")?;
        assert!(!names.contains(&"console.log.6".to_owned()), "{names:?}");
    }
    println!("rolled over during {here} of 4 migrations at the source, {there} at the destination");
    assert!(
        here > 0,
        "the source never rolled over: this proves nothing"
    );
    // And virtlogd goes on rolling over what was placed.
    let before = Ticks::check(&history(&at)?)?.last;
    at.wait_for_tick(before + 10_000)?;
    Ticks::check(&history(&at)?)?;
    Ok(())
}

/// The destination has rolled over more than once before the history comes.
#[test]
fn history_goes_behind_what_the_destination_rolled_over() -> Outcome {
    let (size, backups) = (128 << 10, 30);
    let lab = Lab::builder().hosts(2).virtlogd(size, backups).start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm").pace(Pace::Flat))?;
    at.start()?;
    at.wait_for_tick(10_000)?;
    h2.stop_sshd()?;
    assert_eq!(migrate(&at, h2, P2P)?.code(), Some(3));
    let there = h2.guest("vm");
    h2.until("the log to roll over", Duration::from_secs(60), || {
        Ok(there
            .log_files()?
            .iter()
            .any(|f| f.name == "console.log.1")
            .then_some(()))
    })?;
    h2.start_sshd()?;
    let offer = [
        "logchain",
        "offer",
        "--format",
        "json",
        "--transport",
        "ssh://h2",
        "vm",
    ];
    let output = h1.command(offer).limit(MIGRATION).run()?.checked()?;
    let events = output.out();
    let events = events.lines().map(serde_json::from_str);
    let events: Vec<serde_json::Value> = events.collect::<Result<_, _>>()?;
    let event = carried(&events)?;
    println!("{event}");
    let first = event["files"][0][0].as_str().ok_or("nothing was placed")?;
    assert!(
        !["console.log.0", "console.log.1"].contains(&first),
        "{first}"
    );
    Ticks::check_from_boot(&history(&there)?)?;
    Ok(())
}

/// Which file the base of a guest's log is.
fn inode(guest: &GuestOn) -> Result<u64, Box<dyn std::error::Error>> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(guest.host().path(guest.log_path()))?.ino())
}

#[test]
fn a_source_that_is_undefined_at_once() -> Outcome {
    let lab = Lab::start(2)?;
    let at = lab.host(0).define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(LINES)?;
    let way = ["--live", "--p2p", "--persistent", "--undefinesource"];
    migrate(&at, lab.host(1), &way)?.checked()?;
    assert_eq!(at.state()?, None);
    Ticks::check_from_boot(&history(&lab.host(1).guest("vm"))?)?;
    Ok(())
}

#[test]
fn a_source_that_is_undefined_when_the_log_is_carried() -> Outcome {
    let lab = Lab::start(2)?;
    let at = lab.host(0).define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(LINES)?;
    let way = ["--live", "--p2p", "--persistent", "--undefine-when-carried"];
    let output = migrate(&at, lab.host(1), &way)?.checked()?;
    assert!(
        output.out().contains("domain vm is undefined here"),
        "{}",
        output.out()
    );
    assert_eq!(at.state()?, None);
    Ticks::check_from_boot(&history(&lab.host(1).guest("vm"))?)?;
    Ok(())
}

/// What Nova does: the source is undefined by the migration, and its folder
/// renamed and removed right after it; the destination's folder is made just before.
#[test]
fn a_folder_removed_right_after_the_migration() -> Outcome {
    let lab = Lab::start(2)?;
    let at = lab.host(0).define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(LINES)?;
    let there = lab.host(1).guest("vm");
    there.remove_log_folder()?;
    there.make_log_folder()?;
    let running = at
        .host()
        .command([
            "logchain",
            "migrate",
            "--live",
            "--p2p",
            "--persistent",
            "--undefinesource",
            "vm",
        ])
        .args([lab.host(1).uri()])
        .limit(MIGRATION)
        .spawn()?;
    at.host().until("the source to be gone", MIGRATION, || {
        Ok(at.state()?.is_none().then_some(()))
    })?;
    at.remove_log_folder()?;
    let output = running.wait(MIGRATION)?.checked()?;
    println!("{}", output.out());
    Ticks::check_from_boot(&history(&there)?)?;
    Ok(())
}

#[test]
fn a_destination_that_refuses_changes_nothing() -> Outcome {
    for append in [false, true] {
        let lab = Lab::start(2)?;
        let (h1, h2) = (lab.host(0), lab.host(1));
        let at = h1.define(&Guest::new("vm").append(append))?;
        at.start()?;
        at.wait_for_tick(LINES)?;
        // There and back once, so that the destination has leftovers of a stay.
        migrate(&at, h2, P2P)?.checked()?;
        let there = h2.guest("vm");
        there.wait_for_more_ticks(100)?;
        let here_before = sorted_names(h2, "vm")?;
        let left_before = h1.read_log_files("vm")?;
        h1.refuse_migrations(true)?;
        let output = migrate(&there, h1, P2P)?;
        assert_eq!(output.code(), Some(1), "{}{}", output.out(), output.err());
        assert!(
            output.err().contains("was not migrated to"),
            "{}",
            output.err()
        );
        assert_eq!(there.state()?.as_deref(), Some("running"));
        assert_eq!(sorted_names(h2, "vm")?, here_before);
        Ticks::check_from_boot(&history(&there)?)?;
        there.wait_for_more_ticks(100)?;
        // The hook refuses after libvirt has prepared the log: what we took aside is back.
        let left = h1.read_log_files("vm")?;
        let bytes = |files: &[logchain_tests::LogFile]| -> Vec<u8> {
            files.iter().flat_map(|f| f.bytes.clone()).collect()
        };
        assert_eq!(bytes(&left), bytes(&left_before), "append {append}");
        let names = sorted_names(h1, "vm")?;
        assert!(
            !names.iter().any(|n| n.ends_with(".logchain.d")),
            "{names:?}"
        );
        assert!(spool_is_empty(h1)?);
        // And the next migration works as if nothing had been.
        h1.refuse_migrations(false)?;
        migrate(&there, h1, P2P)?.checked()?;
        Ticks::check_from_boot(&history(&h1.guest("vm"))?)?;
    }
    Ok(())
}

#[test]
fn without_ssh_it_migrates_and_is_offered_later() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(LINES)?;
    h2.stop_sshd()?;
    let output = migrate(&at, h2, P2P)?;
    assert_eq!(output.code(), Some(3), "{}{}", output.out(), output.err());
    assert!(
        output.err().contains("logchain offer --transport ssh://h2"),
        "{}",
        output.err()
    );
    let there = h2.guest("vm");
    assert_eq!(there.state()?.as_deref(), Some("running"));
    assert_eq!(at.state()?.as_deref(), Some("shut off"));
    let here = Ticks::check_from_boot(&history(&at)?)?;
    assert!(here.last >= LINES);
    there.wait_for_more_ticks(100)?;

    let offer = ["logchain", "offer", "--transport", "ssh://h2", "vm"];
    let refused = h1.command(offer).limit(MIGRATION).run()?;
    assert_eq!(
        refused.code(),
        Some(1),
        "{}{}",
        refused.out(),
        refused.err()
    );
    h2.start_sshd()?;
    h1.command(offer).limit(MIGRATION).run()?.checked()?;
    Ticks::check_from_boot(&history(&there)?)?;
    // Twice is once.
    let again = h1.command(offer).limit(MIGRATION).run()?.checked()?;
    assert!(
        again.out().contains("was handed over to ssh://h2"),
        "{}",
        again.out()
    );
    Ticks::check_from_boot(&history(&there)?)?;
    assert!(spool_is_empty(h2)?);
    Ok(())
}

/// Where the log cannot be opened it is left behind, and the guest moves.
#[test]
fn a_log_that_cannot_be_opened_does_not_stop_the_guest() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(1)?;
    let log = at.log_path();
    let log = log.to_str().ok_or("a path")?;
    // virtlogd goes on writing to the file; its name leads elsewhere now.
    h1.run([
        "sh",
        "-c",
        &format!("mv {log} {log}.real && ln -s {log}.real {log}"),
    ])?
    .checked()?;
    let way = ["--live", "--p2p", "--persistent", "--undefinesource"];
    let output = migrate(&at, h2, &way)?;
    assert_eq!(output.code(), Some(3), "{}{}", output.out(), output.err());
    assert!(output.err().contains("is a link"), "{}", output.err());
    // Nothing could be offered: no command is given that would fail.
    assert!(
        output.err().contains("there is nothing to bring over"),
        "{}",
        output.err()
    );
    assert!(!output.err().contains("logchain offer"), "{}", output.err());
    assert!(!output.err().contains('\x1b'), "{}", output.err());
    assert_eq!(h2.guest("vm").state()?.as_deref(), Some("running"));
    Ok(())
}

#[test]
fn ctrl_c_ends_the_migration_and_leaves_all_as_it_was() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(LINES)?;
    let mut running = h1
        .command([
            "logchain",
            "migrate",
            "--live",
            "--p2p",
            "--persistent",
            "--bandwidth",
            "1",
            "vm",
        ])
        .args([h2.uri()])
        .limit(MIGRATION)
        .spawn()?;
    h2.until("the guest to be awaited at h2", MIGRATION, || {
        Ok(h2.guest("vm").state()?.map(drop))
    })?;
    running.signal(logchain_tests::Signal::INT)?;
    let output = running.wait(MIGRATION)?;
    assert_eq!(output.code(), Some(1), "{}{}", output.out(), output.err());
    assert_eq!(at.state()?.as_deref(), Some("running"));
    assert_eq!(h2.guest("vm").state()?, None);
    assert!(spool_is_empty(h2)?);
    at.wait_for_more_ticks(100)?;
    Ticks::check_from_boot(&history(&at)?)?;
    Ok(())
}

/// A reader on either host never sees less than it saw, from before the migration to
/// after it: by `show`, and reading the files plainly, as Nova does.
#[test]
fn a_reader_never_sees_history_shrink() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(LINES)?;
    let log = at.log_path();
    let log = log.to_str().ok_or("an odd path")?;
    let show = "logchain show -n all vm 2>/dev/null".to_owned();
    // Oldest first. So little is printed that nothing is rolled over between two of them.
    let plain = format!("for f in {log}.2 {log}.1 {log}.0 {log}; do cat $f 2>/dev/null; done");
    let mut readers = Vec::new();
    for host in [h1, h2] {
        for by in [&show, &plain] {
            let reader = format!("while :; do echo $({{ {by}; }} | grep -ac '^LC '); done");
            let name = format!("on {} by {by}", host.name());
            readers.push((name, host, host.spawn(["sh", "-c", &reader])?));
        }
    }
    // Copying memory takes a second or two: also where the machine is busy, nobody is early.
    let events = migrate_json(&at, h2, &[P2P, &["--bandwidth", "32"]].concat())?;
    h2.guest("vm").wait_for_more_ticks(300)?;
    let total = Ticks::count(
        &h1.read_log_files("vm")?
            .iter()
            .flat_map(|f| f.bytes.clone())
            .collect::<Vec<_>>(),
    );
    for (name, host, mut reader) in readers {
        assert!(reader.is_running()?, "{name}");
        let seen = counts(&reader.kill()?.stdout);
        assert!(seen.len() > 5 && seen.is_sorted(), "{name}: {seen:?}");
        let last = seen.last().copied().unwrap_or(0);
        let grown = if host.name() == h2.name() { 200 } else { 0 };
        assert!(last >= total + grown, "{name}: {last} of {total}: {seen:?}");
        // What is there at first is the history, not what is printed there.
        let first = seen.iter().find(|n| **n > 0).copied().unwrap_or(0);
        assert!(first > LINES / 2, "{name}: {seen:?}");
        println!("{name}: {} reads, at first {first} lines", seen.len());
    }
    let window = &carried(&events)?["window_ms"];
    assert!(window.is_u64(), "{window}");
    Ticks::check_from_boot(&history(&h2.guest("vm"))?)?;
    Ok(())
}

fn counts(output: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(output);
    // The last one may be cut off.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|l| l.parse().ok()).collect()
}
