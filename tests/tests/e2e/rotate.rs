//! Rotating a log that is written.

use std::time::Duration;

use crate::common::{Outcome, history, show, sorted_names};
use logchain_tests::{Guest, Host, Lab, Pace, Ticks};
use serde_json::Value;

fn rotate(host: &Host, name: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let command = ["logchain", "rotate", "--format", "json", name];
    let output = host.run(command)?.checked()?;
    println!("{} in {:?}", output.out().trim(), output.took);
    Ok(serde_json::from_str(&output.out())?)
}

/// Ten times in a row, under a guest that prints as fast as it can, and that has
/// virtlogd roll over as well; a second, silent guest is rotated in between.
#[test]
fn a_flood_is_rotated_ten_times_and_nothing_is_lost() -> Outcome {
    // Small enough to roll over meanwhile, and so large that the rotation drops nothing.
    let lab = Lab::builder().hosts(1).virtlogd(144 << 10, 32).start()?;
    let h1 = lab.host(0);
    let flood = h1.define(&Guest::new("flood").pace(Pace::Flat))?;
    let silent = h1.define(&Guest::new("silent").lines(50))?;
    silent.start()?;
    silent.wait_for_tick(50)?;
    flood.start()?;
    flood.wait_for_tick(2000)?;
    let poll = |from: u64| -> Result<u64, Box<dyn std::error::Error>> {
        let args = ["--from", &from.to_string(), "-n", "all", "--format", "json"];
        let piece = show(h1, &[&args[..], &["flood"]].concat())?;
        let piece: Value = serde_json::from_slice(&piece)?;
        Ok(piece["next"].as_u64().ok_or("no offset")?)
    };
    let before = poll(0)?;
    let follower = h1.spawn(["logchain", "show", "-f", "--from", "0", "flood"])?;
    let pids = h1.processes("virtlogd")?;
    let mut asked = 0;
    for round in 0..10 {
        let told = rotate(h1, "flood")?;
        assert_eq!(told["event"], "rotated");
        asked += u32::from(told["by"] == "logchain");
        if round == 4 {
            let told = rotate(h1, "silent")?;
            assert_eq!(told["by"], "logchain", "{told}");
            assert_eq!(rotate(h1, "silent")?["event"], "empty");
        }
    }
    // Side by side they wait for each other: asked twice at once, virtlogd would end.
    let side_by_side: Result<Vec<_>, _> = (0..4)
        .map(|_| h1.spawn(["logchain", "rotate", "flood"]))
        .collect();
    for one in side_by_side? {
        one.wait(Duration::from_secs(60))?.checked()?;
    }
    println!("{asked} of 10 by us");
    assert!(asked > 0);
    assert_eq!(h1.processes("virtlogd")?, pids);
    let last = flood.wait_for_more_ticks(2000)?;
    let all = history(&flood)?;
    let report = Ticks::check_from_boot(&all)?;
    assert!(report.last >= last);
    println!("{report}, in {} files", flood.log_files()?.len());
    // It is where the last one left it, and the record knows where each file lies.
    let after = poll(before)?;
    assert!(after >= all.len() as u64, "{after} of {}", all.len());
    h1.until("the follower", Duration::from_secs(20), || {
        Ok((follower.stdout().len() >= all.len()).then_some(()))
    })?;
    assert!(follower.kill()?.stdout.starts_with(&all));
    let verify = ["logchain", "verify", "flood"];
    println!("{}", h1.run(verify)?.checked()?.out());
    // The silent one has its lines, in the rotated file, and goes on with a new one.
    Ticks::check_from_boot(&history(&silent)?)?;
    let sizes = |f: &logchain_tests::LogFile| (f.name.clone(), f.bytes.is_empty());
    let files: Vec<_> = silent.log_files()?.iter().map(sizes).collect();
    let want = [
        ("console.log.0".to_owned(), false),
        ("console.log".to_owned(), true),
    ];
    assert_eq!(files, want);

    // virtlogd would not survive a log that it cannot open: nobody is asked.
    let folder = "/var/log/lab/silent";
    let renamed = "/var/log/lab/renamed";
    h1.run(["mv", folder, renamed])?.checked()?;
    let refused = h1.run(["logchain", "rotate", "flood"])?;
    assert_eq!(refused.code(), Some(1), "{}", refused.err());
    assert!(
        refused.err().contains("/silent, is gone"),
        "{}",
        refused.err()
    );
    h1.run(["mv", renamed, folder])?.checked()?;
    assert_eq!(h1.processes("virtlogd")?, pids);

    // Nobody writes it, or another does: it is refused, and as it was.
    silent.destroy()?;
    let refused = h1.run(["logchain", "rotate", "silent"])?;
    assert_eq!(refused.code(), Some(1), "{}", refused.err());
    assert!(
        refused.err().contains("does not run here"),
        "{}",
        refused.err()
    );
    let conf = h1.path("/etc/libvirt/qemu.conf");
    let text = std::fs::read_to_string(&conf)?.replace("\"logd\"", "\"file\"");
    std::fs::write(&conf, text)?;
    h1.stop_libvirtd()?;
    h1.start_libvirtd()?;
    silent.start()?;
    silent.wait_for_tick(10)?;
    let names = sorted_names(h1, "silent")?;
    let refused = h1.run(["logchain", "rotate", "silent"])?;
    println!("{}", refused.err());
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.err().contains("is written by qemu"),
        "{}",
        refused.err()
    );
    assert_eq!(sorted_names(h1, "silent")?, names);

    // A virtlogd that cannot execute itself again ends: the log keeps its name.
    // So little memory that nothing can be executed: only the real one has the limit.
    let pid = pids.first().ok_or("no virtlogd")?.to_string();
    h1.run(["prlimit", "--pid", &pid, "--as=65536:65536"])?
        .checked()?;
    let before = history(&flood)?;
    let refused = h1.run(["logchain", "rotate", "flood"])?;
    println!("{}", refused.err());
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.err().contains("the log has its name back"),
        "{}",
        refused.err()
    );
    // Between the two looks a rollover may have dropped the oldest file.
    let after = history(&flood)?;
    let first = after.get(..200).ok_or("hardly anything is there")?;
    let at = before.windows(first.len()).position(|bytes| bytes == first);
    let still = &before[at.ok_or("nothing of what was there is left")?..];
    assert!(after.starts_with(still), "{} {}", before.len(), after.len());
    Ticks::check(&after)?;
    assert!(!sorted_names(h1, "flood")?.iter().any(|n| n.ends_with(".d")));
    Ok(())
}
