//! Placement against other processes: one that rolls over as virtlogd does, one
//! that is killed, one that holds the chain. They are this very binary, started
//! again with [`ROLE`] set.

#![expect(clippy::unwrap_used, reason = "a panic in a test is a failing test")]

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use logchain_core::chain::Numbering;
use logchain_core::folder::Folder;
use logchain_core::follow::NoWriters;
use logchain_core::ids::{ConsoleName, HandoffId};
use logchain_core::placement::{ChainWorkspace, PendingAdoption, Rules, Staging};
use logchain_core::record::{Offered, Record};
use logchain_core::rotation::Retention;
use logchain_core::stream::History;
use logchain_core::testing::{FakeWriters, Logd, folder, read};

const ROLE: &str = "LOGCHAIN_TEST_ROLE";
const AT: &str = "LOGCHAIN_TEST_AT";

const BACKUPS: u32 = 60;
/// Fewer than would drop anything.
const ROLLOVERS: u32 = 40;

fn rules() -> Rules {
    Rules {
        numbering: Numbering::FromZero,
        retention: Retention::virtlogd(2, BACKUPS),
    }
}

fn start(role: &str, at: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "other_process", "--nocapture"])
        .env(ROLE, role)
        .env(AT, at)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test's thread may block")]
fn sleep(time: Duration) {
    thread::sleep(time);
}

fn wait_for(path: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < end, "{} does not come", path.display());
        sleep(Duration::from_micros(100));
    }
}

fn merged(log: &Path) -> String {
    String::from_utf8(read(log)).unwrap()
}

/// No test of its own: what the others start.
#[test]
fn other_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let at = PathBuf::from(std::env::var_os(AT).unwrap());
    match role.as_str() {
        "virtlogd" => virtlogd(&at),
        "place" => place_one(&at),
        "hold" => hold(&at),
        other => panic!("no role {other}"),
    }
}

/// Writes and rolls over in the folders 0, 1, 2 … of `lane`, each until the next
/// one appears, then says so.
fn virtlogd(lane: &Path) {
    for n in 0_u32.. {
        let here = lane.join(n.to_string());
        let next = lane.join((n + 1).to_string());
        wait_for(&here);
        let log = here.join("console.log");
        let mut logd = Logd::new(&log, u64::MAX, BACKUPS);
        logd.open().unwrap();
        let mut line = 0_u32;
        let end = Instant::now() + Duration::from_secs(20);
        while !next.exists() {
            assert!(Instant::now() < end, "nobody is there any more");
            logd.write(format!("n{line}\n").as_bytes()).unwrap();
            line += 1;
            if line.is_multiple_of(2) && logd.rollovers() < ROLLOVERS {
                logd.begin_rollover();
                logd.finish();
            }
            sleep(Duration::from_micros(200));
        }
        fs::write(here.join("done"), line.to_string()).unwrap();
        if next.join("end").exists() {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing has that name")]
fn rename(from: &Path, to: &Path) {
    let _ = fs::rename(from, to);
}

#[test]
fn history_is_placed_while_another_process_rolls_over() {
    let began = Instant::now();
    let lanes: Vec<_> = (0..4).map(|_| thread::spawn(move || race(began))).collect();
    let placed: u32 = lanes.into_iter().map(|lane| lane.join().unwrap()).sum();
    println!("{placed} placements in {:?}", began.elapsed());
    assert!(placed > 50, "only {placed}");
}

fn race(began: Instant) -> u32 {
    let lane = folder();
    let mut other = start("virtlogd", lane.path());
    let mut n = 0;
    let mut last = false;
    while !last {
        let here = lane.path().join(n.to_string());
        if n == 0 {
            fs::create_dir(&here).unwrap();
        }
        let log = here.join("console.log");
        wait_for(&log);
        let writers = Arc::new(FakeWriters::SOMEBODY);
        let mut staging = Staging::open(&log, HandoffId::random(), rules(), writers).unwrap();
        for part in 0..3 {
            staging
                .append(true, format!("h{part}\n").as_bytes())
                .unwrap();
        }
        staging.seal(None).unwrap();
        let placed = staging.place().unwrap();
        assert_eq!((placed.files.len(), placed.dropped), (3, 0));
        staging.clean().unwrap();
        n += 1;
        let next = lane.path().join(format!(".{n}"));
        // The last folder only says that it is the last.
        last = began.elapsed() >= Duration::from_secs(10);
        if last {
            fs::create_dir(&next).unwrap();
            fs::write(next.join("end"), "").unwrap();
            rename(&next, &lane.path().join(n.to_string()));
        } else {
            fs::create_dir(lane.path().join(n.to_string())).unwrap();
        }
        wait_for(&here.join("done"));
        let lines = loop {
            let done = fs::read_to_string(here.join("done")).unwrap();
            if let Ok(lines) = done.parse::<u32>() {
                break lines;
            }
        };
        let expected: String = (0..3)
            .map(|n| format!("h{n}\n"))
            .chain((0..lines).map(|n| format!("n{n}\n")))
            .collect();
        assert_eq!(merged(&log), expected, "placement {n}");
        fs::remove_dir_all(&here).unwrap();
    }
    assert!(other.wait().unwrap().success());
    n
}

fn record(log: &Path, names: &[&str]) -> Record {
    let (folder, _) = Folder::of_file(log).unwrap();
    let stat = |n: &&str| folder.stat(OsStr::new(n)).unwrap().unwrap();
    let mut record = Record::new(uuid::Uuid::nil(), console());
    record.offered = Some(Offered {
        handoff: HandoffId::random(),
        to: "elsewhere".to_owned(),
        bytes: 0,
        digest: String::new(),
        at: Timestamp::constant(0, 0),
        files: names.iter().map(stat).map(|s| (s.id, s.size)).collect(),
        prints: Vec::new(),
        received: true,
    });
    record
}

fn console() -> ConsoleName {
    "serial0".parse().unwrap()
}

fn say(word: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\n{word}").unwrap();
    out.flush().unwrap();
}

/// A handoff from its start to its end.
fn place_one(log: &Path) {
    let record = record(log, &["console.log", "console.log.0"]);
    // Nothing is done before the other side is ready to kill us.
    say("ready");
    let writers = Arc::new(NoWriters);
    let mut staging = Staging::open(log, HandoffId::random(), rules(), writers).unwrap();
    staging.retire(Some(&record)).unwrap();
    let mut base = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(log)
        .unwrap();
    base.write_all(b"new ").unwrap();
    for part in ["aa ", "bb ", "cc "] {
        staging.append(true, part.as_bytes()).unwrap();
    }
    staging.owe(PendingAdoption {
        domain: uuid::Uuid::nil(),
        console: console(),
        bytes: 9,
        digest: String::new(),
        from: String::new(),
        host: String::new(),
        at: Timestamp::constant(1, 0),
        history: History::of(9),
        contains: record.offered.iter().map(|o| o.handoff).collect(),
    });
    staging.seal(Some(&record)).unwrap();
    say("sealed");
    staging.place().unwrap();
    say("placed");
    staging.clean().unwrap();
}

#[test]
fn a_process_killed_at_any_time_costs_nothing() {
    let began = Instant::now();
    let (mut rounds, mut sealed, mut undone) = (0_u64, 0, 0);
    while rounds < 400 && began.elapsed() < Duration::from_secs(15) {
        let dir = folder();
        let log = dir.path().join("console.log");
        fs::write(&log, "bb ").unwrap();
        fs::write(dir.path().join("console.log.0"), "aa ").unwrap();
        let mut child = start("place", &log);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "it never began");
        }
        sleep(Duration::from_micros(rounds * 7919 % 2500));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut said = String::new();
        out.read_to_string(&mut said).unwrap();

        let writers = Arc::new(NoWriters);
        ChainWorkspace::recover_all(&log, rules(), writers).unwrap();
        let merged = merged(&log);
        let placed = merged == "aa bb cc new ";
        let as_found = ["aa bb ", "aa bb new "].contains(&merged.as_str());
        let must = said.lines().any(|l| l == "sealed");
        assert!(placed || !must && as_found, "{merged:?} after {said:?}");
        let names = fs::read_dir(dir.path()).unwrap();
        let names: Vec<_> = names.map(|e| e.unwrap().file_name()).collect();
        let left = |n: &&std::ffi::OsString| n.to_string_lossy().ends_with(".logchain.d");
        assert_eq!(names.iter().find(left), None);
        rounds += 1;
        if placed {
            sealed += 1;
        } else {
            undone += 1;
        }
    }
    println!(
        "{rounds} kills in {:?}: {sealed} finished, {undone} undone",
        began.elapsed()
    );
    assert!(
        rounds >= 50 && sealed > 0 && undone > 0,
        "{rounds} {sealed} {undone}"
    );
}

/// Holds the chain until it is killed.
fn hold(log: &Path) {
    let writers = Arc::new(NoWriters);
    let staging = Staging::open(log, HandoffId::random(), rules(), writers).unwrap();
    say("held");
    let _ = std::io::stdin().read(&mut [0]);
    drop(staging);
}

#[test]
fn two_processes_exclude_each_other_and_a_killed_one_is_no_obstacle() {
    let dir = folder();
    let log = dir.path().join("console.log");
    fs::write(&log, "a").unwrap();
    let mut child = start("hold", &log);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "held" {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "it never held it");
    }
    let second = thread::spawn(move || {
        let writers = Arc::new(NoWriters);
        Staging::open(&log, HandoffId::random(), rules(), writers).map(Staging::clean)
    });
    sleep(Duration::from_millis(300));
    assert!(!second.is_finished(), "both have it");
    let killed = Instant::now();
    child.kill().unwrap();
    child.wait().unwrap();
    second.join().unwrap().unwrap().unwrap();
    assert!(killed.elapsed() < Duration::from_secs(5));
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(names.len(), 1);
}
