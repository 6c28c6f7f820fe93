//! Somebody empties a log under virtlogd, as logrotate's `copytruncate` does.

use std::time::Duration;

use crate::common::{MIGRATION, Outcome, history, show};
use logchain_tests::{Guest, Host, Lab, Ticks};

/// Copies the log and empties it. virtlogd stands still meanwhile: what it writes between
/// the two is lost to everybody.
fn copy_and_truncate(host: &Host, log: &str) -> Outcome {
    let script =
        format!("if [ -e {log}.0 ]; then mv {log}.0 {log}.1; fi && cp {log} {log}.0 && : > {log}");
    assert!(host.signal("virtlogd", "STOP")? > 0);
    let done = host.run(["sh", "-c", &script]);
    host.signal("virtlogd", "CONT")?;
    done?.checked()?;
    Ok(())
}

/// virtlogd opens its logs for appending, so no hole comes into being; offsets count on
/// over the copy, a follower reads its rest there, and so does a handoff.
#[test]
fn a_log_that_is_emptied_under_virtlogd_is_read_on_in_its_copy() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(300)?;
    let log = vm.log_path().to_string_lossy().into_owned();
    let before = show(h1, &["--from", "0", "-n", "all", "vm"])?;
    let follower = h1.spawn(["logchain", "show", "-f", "--from", "0", "vm"])?;
    vm.wait_for_more_ticks(50)?;

    copy_and_truncate(h1, &log)?;
    // Until it is longer than it was.
    let grown = before.len() as u64 * 2;
    h1.until(
        "the log to outgrow its old length",
        Duration::from_secs(60),
        || {
            let size = std::fs::metadata(h1.path(&log)).map_or(0, |m| m.len());
            Ok((size > grown).then_some(()))
        },
    )?;
    let all = show(h1, &["--from", "0", "-n", "all", "vm"])?;
    assert!(all.starts_with(&before));
    println!("by offsets: {}", Ticks::check_from_boot(&all)?);
    // No hole: it is written at its end.
    assert!(!all.contains(&0));

    // Again, while it is handed over.
    let way = ["logchain", "migrate", "--live", "--p2p", "--persistent"];
    let uri = h2.uri();
    let moving = h1.spawn(way.into_iter().chain(["vm", &uri]))?;
    h1.until("the handoff to begin", Duration::from_secs(20), || {
        let folder = h1.path(&log).with_file_name(".console.log.logchain");
        let record = std::fs::read_to_string(folder).unwrap_or_default();
        Ok(record.contains("\"begun\"").then_some(()))
    })?;
    copy_and_truncate(h1, &log)?;
    let moved = moving.wait(MIGRATION)?.checked()?;
    println!("{}", moved.err());
    h2.guest("vm").wait_for_more_ticks(100)?;
    let there = history(&h2.guest("vm"))?;
    println!("at the destination: {}", Ticks::check_from_boot(&there)?);
    assert!(there.starts_with(&all));
    let offsets = show(h2, &["--from", "0", "-n", "all", "vm"])?;
    assert!(offsets.starts_with(&all));
    Ticks::check_from_boot(&offsets)?;

    let followed = follower.kill()?;
    assert!(followed.stdout.starts_with(&all), "{}", followed.err());
    Ticks::check_from_boot(&followed.stdout)?;
    assert!(!followed.err().contains("missing"), "{}", followed.err());
    Ok(())
}
