//! Where a migration stands: on a terminal, in a pipe, for programs; and Ctrl-C there.

use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;

use crate::common::{
    MIGRATION, Outcome, history, migrate, migrate_json, sorted_names, spool_is_empty,
};
use logchain_tests::{Guest, GuestOn, Host, Lab, Ticks};

const P2P: &[&str] = &["--live", "--p2p", "--persistent"];

/// Puts some MiB of an older history behind a guest's log.
fn older(guest: &GuestOn, mib: usize) -> Outcome {
    let line = b"an older line of the guest, of the days before it was migrated\n";
    let bytes = line.repeat((mib << 20) / line.len());
    fs::write(rotated(guest), bytes)?;
    Ok(())
}

fn rotated(guest: &GuestOn) -> PathBuf {
    let base = guest.host().path(guest.log_path());
    base.with_file_name("console.log.0")
}

/// `logchain migrate` on a terminal. What it shows; the script types Ctrl-C once
/// the screen says `cue`.
fn on_a_terminal(
    at: &GuestOn,
    to: &Host,
    way: &str,
    cue: Option<&str>,
) -> Result<(i32, String), Box<dyn std::error::Error>> {
    let types = match cue {
        Some(cue) => {
            format!("until grep -qF '{cue}' /tmp/screen; do sleep 0.05; done; printf '\\003'; ")
        }
        None => String::new(),
    };
    let command = format!(
        "exec logchain migrate --live --p2p --persistent {way} {} {}",
        at.name(),
        to.uri()
    );
    // Its input stays open: a terminal does not end.
    let script = format!(
        "rm -f /tmp/screen /tmp/over; : >/tmp/screen; \
         {{ {types}until [ -e /tmp/over ]; do sleep 0.1; done; }} | \
         {{ script -qefc '{command}' /tmp/screen >/dev/null; echo $? >/tmp/over; }}; \
         cat /tmp/over"
    );
    let shell = at.host().command(["sh", "-c", &script]).limit(MIGRATION);
    let status = shell.run()?.checked()?.out().trim().parse()?;
    let screen = fs::read(at.host().path("/tmp/screen"))?;
    Ok((status, String::from_utf8_lossy(&screen).into_owned()))
}

/// What stays on the screen: of each line what was written last.
fn stays(screen: &str) -> Vec<&str> {
    screen
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .map(|line| line.rsplit('\r').next().unwrap_or(line))
        .map(|line| line.trim_start_matches("\x1b[K"))
        .filter(|line| !line.is_empty() && !line.starts_with("Script "))
        .collect()
}

#[test]
fn a_terminal_shows_where_it_stands_and_keeps_only_what_happened() -> Outcome {
    let lab = Lab::builder().hosts(2).virtlogd(0, 3).start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;

    // Ctrl-C as a terminal types it: everything in its foreground hears of it.
    let (status, screen) = on_a_terminal(&at, h2, "--bandwidth 1", Some("migrating ["))?;
    println!("{screen:?}");
    assert_eq!(status, 1);
    let left = stays(&screen);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        left[0].contains("interrupted; it is here as before, and its log too"),
        "{left:?}"
    );
    assert_eq!(at.state()?.as_deref(), Some("running"));
    assert_eq!(h2.guest("vm").state()?, None);

    older(&at, 64)?;
    let (status, screen) = on_a_terminal(&at, h2, "--bandwidth 20", None)?;
    println!("{screen:?}");
    assert_eq!(status, 0);
    for shown in [
        "\rwaiting for the destination to be ready",
        "\rsending the log ahead [",
        "\rmigrating [",
        "memory ",
        "\rthe guest moves over",
        "\rwaiting for the source to end",
        "log 64.",
    ] {
        assert!(screen.contains(shown), "{shown:?} in {screen:?}");
    }
    let left = stays(&screen);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].starts_with("domain vm migrated to"), "{left:?}");
    assert!(left[1].contains("bytes of history are in place at h2"));
    Ok(())
}

/// On a slow line a history takes long, and the migration has not begun.
#[test]
fn a_head_start_that_takes_long_is_cancelled() -> Outcome {
    let lab = Lab::builder().hosts(2).virtlogd(0, 3).start()?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    let path = rotated(&at);
    // Nothing that shrinks.
    let noise = fs::File::open("/dev/urandom")?;
    io::copy(&mut noise.take(16 << 20), &mut fs::File::create(&path)?)?;
    h1.slow_network(8)?;

    let cue = Some("sending the log ahead [");
    let (status, screen) = on_a_terminal(&at, h2, "--head-start 300", cue)?;
    println!("{screen:?}");
    assert_eq!(status, 1);
    let left = stays(&screen);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        left[0].ends_with("domain vm is here as before, and its log too"),
        "{left:?}"
    );
    assert!(!screen.contains("\rmigrating"), "{screen:?}");
    assert_eq!(at.state()?.as_deref(), Some("running"));
    assert_eq!(h2.guest("vm").state()?, None);
    assert_eq!(fs::metadata(&path)?.len(), 16 << 20);
    assert!(spool_is_empty(h2)?);
    let there = sorted_names(h2, "vm")?;
    assert!(!there.iter().any(|n| n.contains(".logchain")), "{there:?}");
    Ok(())
}

#[test]
fn programs_hear_where_it_stands_and_a_pipe_on_request() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let at = h1.define(&Guest::new("vm"))?;
    at.start()?;
    at.wait_for_tick(300)?;
    older(&at, 1)?;
    let events = migrate_json(&at, h2, &[P2P, &["--bandwidth", "20"]].concat())?;
    let phases: Vec<_> = events
        .iter()
        .filter(|e| e["event"] == "phase")
        .filter_map(|e| e["phase"].as_str())
        .collect();
    assert_eq!(
        phases,
        [
            "prepare",
            "head-start",
            "memory",
            "switchover",
            "source-end",
            "arrival"
        ]
    );
    let progress: Vec<_> = events.iter().filter(|e| e["event"] == "progress").collect();
    // One a second at the most, and one for each phase.
    let millis = |e: &&&serde_json::Value| e["elapsed_ms"].as_u64();
    let seconds: u64 = progress
        .iter()
        .filter_map(|e| millis(&e))
        .max()
        .unwrap_or(0)
        / 1000;
    assert!(seconds >= 2, "{progress:?}");
    let copying = progress.iter().filter(|e| e["phase"] == "memory");
    let copying: Vec<_> = copying.filter(|e| e["memory"]["total"].is_u64()).collect();
    assert!(!copying.is_empty(), "{progress:?}");
    for event in copying {
        let (done, total) = (
            event["memory"]["done"].as_u64(),
            event["memory"]["total"].as_u64(),
        );
        assert!(done <= total && total > Some(90 << 20), "{event}");
        assert!(event["log"]["done"].is_u64(), "{event}");
    }
    let of_one = |phase: &str| progress.iter().filter(|e| e["phase"] == phase).count();
    for phase in phases {
        let longest = progress.iter().filter(|e| e["phase"] == phase);
        let longest = longest.filter_map(|e| e["elapsed_ms"].as_u64()).max();
        let most = longest.unwrap_or(0) / 1000 + 1;
        assert!(of_one(phase) as u64 <= most, "{phase}: {progress:?}");
    }
    let carried = events.iter().position(|e| e["event"] == "carried");
    assert_eq!(carried, Some(events.len() - 1));

    // Plain lines, and only when asked for.
    let at = h2.guest("vm");
    at.wait_for_more_ticks(50)?;
    let output = migrate(&at, h1, P2P)?.checked()?;
    assert_eq!(output.err(), "");
    let at = h1.guest("vm");
    at.wait_for_more_ticks(50)?;
    let output = migrate(&at, h2, &[P2P, &["--verbose"]].concat())?.checked()?;
    let said = output.err();
    for line in [
        "waiting for the destination to be ready",
        "migrating",
        "the guest moves over",
    ] {
        assert!(said.lines().any(|l| l.starts_with(line)), "{said}");
    }
    assert!(!said.contains(['\r', '\x1b']), "{said:?}");
    let at = h2.guest("vm");
    at.wait_for_more_ticks(50)?;
    Ticks::check_from_boot(&history(&at)?)?;
    Ok(())
}
