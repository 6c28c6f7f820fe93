//! Offsets, hops and following: what stays the same when the VM moves.

use std::time::Duration;

use crate::common::{Outcome, migrate_json, show};
use logchain_tests::{Guest, Host, Lab, Ticks};
use serde_json::Value;

const P2P: &[&str] = &["--live", "--p2p", "--persistent"];

/// Reads on from an offset as a poller does, to the end.
fn poll(host: &Host, from: u64, got: &mut Vec<u8>) -> Result<u64, Box<dyn std::error::Error>> {
    let mut at = from;
    loop {
        let args = [
            "--from",
            &at.to_string(),
            "-n",
            "64K",
            "--format",
            "json",
            "vm",
        ];
        let piece: Value = serde_json::from_slice(&show(host, &args)?)?;
        assert_eq!(piece["offset"], at);
        let content = piece["content"].as_str().ok_or("no content")?;
        assert_eq!(piece["encoding"], "utf-8");
        got.extend_from_slice(content.as_bytes());
        let next = piece["next"].as_u64().ok_or("no next offset")?;
        assert_eq!(next - at, content.len() as u64);
        at = next;
        if piece["more"] == false {
            return Ok(at);
        }
    }
}

/// One poller, whichever host the VM is on; and one follower that stays where
/// it is: both get every byte once, in order.
#[test]
fn offsets_last_for_life_and_a_follower_misses_nothing() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(500)?;
    let follower = h1.spawn(["logchain", "show", "-f", "--from", "0", "vm"])?;
    let (mut got, mut at) = (Vec::new(), 0);
    at = poll(h1, at, &mut got)?;

    migrate_json(&vm, h2, P2P)?;
    h2.guest("vm").wait_for_more_ticks(500)?;
    at = poll(h2, at, &mut got)?;
    let expired = h2
        .command(["logchain", "show", "--from", "999999999", "vm"])
        .run()?;
    assert_eq!(expired.code(), Some(1));
    assert!(
        expired.err().contains("is not there yet"),
        "{}",
        expired.err()
    );

    migrate_json(&h2.guest("vm"), h1, P2P)?;
    h1.guest("vm").wait_for_more_ticks(500)?;
    at = poll(h1, at, &mut got)?;
    assert_eq!(at, got.len() as u64);
    let report = Ticks::check_from_boot(&got)?;
    println!("polled by offset over two moves: {} lines", report.count);
    assert!(show(h1, &["-n", "all", "vm"])?.starts_with(&got));

    // The follower was on h1 all the time: what h2 wrote came back with the VM.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while follower.stdout().len() < got.len() && std::time::Instant::now() < deadline {
        h1.run(["sleep", "0.1"])?;
    }
    let followed = follower.kill()?;
    assert!(
        followed.stdout.starts_with(&got),
        "followed {} bytes of {}: {}",
        followed.stdout.len(),
        got.len(),
        followed.err()
    );
    println!("followed: {} bytes", followed.stdout.len());

    let hops = String::from_utf8(show(h1, &["--hops", "--format", "json", "vm"])?)?;
    let hops: Vec<Value> = hops
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let hosts: Vec<_> = hops.iter().filter_map(|h| h["host"].as_str()).collect();
    assert_eq!(hosts, [h1.name(), h2.name(), h1.name()]);
    assert_eq!(hops[0]["start"], 0);
    assert!(hops[0]["since"].is_null() && hops[1]["since"].is_u64());
    for pair in hops.windows(2) {
        assert_eq!(pair[0]["end"], pair[1]["start"]);
    }
    println!("{}", String::from_utf8(show(h1, &["--hops", "vm"])?)?);
    Ok(())
}

/// What the rotation dropped has expired, and the first offset still there is said.
#[test]
fn what_rotation_dropped_has_expired() -> Outcome {
    // So large that a busy machine looks before one of them is dropped.
    let lab = Lab::builder().hosts(1).virtlogd(512 << 10, 2).start()?;
    let h1 = lab.host(0);
    let vm = h1.define(&Guest::new("vm").pace(logchain_tests::Pace::Flat))?;
    vm.start()?;
    vm.wait_for_tick(100)?;
    let (mut got, mut at) = (Vec::new(), 0);
    at = poll(h1, at, &mut got)?;
    // As long as somebody looks before a file is dropped, offsets count every byte.
    let first = loop {
        at = poll(h1, at, &mut got)?;
        let output = h1
            .command(["logchain", "show", "--from", "0", "vm"])
            .run()?;
        let said = output.err();
        if let Some((_, first)) = said.split_once("the first one still there is ") {
            assert_eq!(output.code(), Some(1));
            break first.trim().parse::<u64>()?;
        }
        assert_eq!(output.code(), Some(0), "{said}");
    };
    assert_eq!(at, got.len() as u64);
    Ticks::check_from_boot(&got)?;
    let there = show(h1, &["--from", &first.to_string(), "-n", "1000", "vm"])?;
    let first = usize::try_from(first)?;
    assert_eq!(there, got[first..first + 1000]);
    Ok(())
}
