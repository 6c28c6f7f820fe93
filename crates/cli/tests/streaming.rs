//! Real `logchain stream` processes, killed at random times while the log grows
//! and rolls over: what `logchain show --transport` gives has every byte once.

#![expect(
    clippy::disallowed_methods,
    reason = "nothing here is asynchronous; it plays virtlogd, and takes the store away"
)]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use uuid::Uuid;

type Fallible<T> = Result<T, Box<dyn Error>>;

const LOGCHAIN: &str = env!("CARGO_BIN_EXE_logchain");

/// However busy the machine is, something comes within this time.
const LIMIT: Duration = Duration::from_secs(60);

struct Bed {
    folder: tempfile::TempDir,
    uuid: String,
    log: File,
    written: Vec<u8>,
}

impl Bed {
    fn new() -> Fallible<Self> {
        let folder = tempfile::tempdir()?;
        let log = File::create(folder.path().join("console.log"))?;
        Ok(Self {
            folder,
            uuid: Uuid::new_v4().to_string(),
            log,
            written: Vec::new(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        format!("file://{}", self.path("store").display())
    }

    fn print(&mut self, lines: usize) -> Fallible<()> {
        for _ in 0..lines {
            let line = format!("line {}\n", self.written.len());
            self.log.write_all(line.as_bytes())?;
            self.written.extend_from_slice(line.as_bytes());
        }
        Ok(())
    }

    fn roll_over(&mut self) -> Fallible<()> {
        for (from, to) in [(".1", ".2"), (".0", ".1"), ("", ".0")] {
            let path = |ending| self.path(&format!("console.log{ending}"));
            if path(from).exists() {
                fs::rename(path(from), path(to))?;
            }
        }
        self.log = File::create(self.path("console.log"))?;
        Ok(())
    }

    fn stream(&self, more: &[&str]) -> Fallible<Child> {
        let child = Command::new(LOGCHAIN)
            .args(["stream", "--transport", &self.url(), "--delay", "0.02"])
            .args(["--uuid", &self.uuid])
            .args(more)
            .arg(self.path("console.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(child)
    }

    fn show(&self, args: &[&str]) -> Fallible<Output> {
        let output = Command::new(LOGCHAIN)
            .args(["show", "--transport", &self.url()])
            .args(args)
            .arg(&self.uuid)
            .output()?;
        Ok(output)
    }

    fn shown(&self, args: &[&str]) -> Fallible<Vec<u8>> {
        let output = self.show(args)?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(output.stdout)
    }
}

/// Ends it as an operator does, and gives what it said.
fn end(child: Child) -> Fallible<Output> {
    let id = child.id().to_string();
    Command::new("kill").args(["-INT", &id]).status()?;
    Ok(child.wait_with_output()?)
}

fn until(what: &str, mut done: impl FnMut() -> Fallible<bool>) -> Fallible<()> {
    let deadline = Instant::now() + LIMIT;
    while !done()? {
        if Instant::now() > deadline {
            return Err(format!("{what} took too long").into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn killed_over_and_over_it_loses_and_doubles_nothing() -> Fallible<()> {
    let mut bed = Bed::new()?;
    let mut kills = 0;
    for round in 0_u64..30 {
        let mut child = bed.stream(&[])?;
        for _ in 0..4 {
            bed.print(200)?;
            sleep(Duration::from_millis(round * 7 % 40));
        }
        // Seldom enough that a streamer comes by before anything is dropped.
        if round % 5 == 4 {
            bed.roll_over()?;
            bed.print(1)?;
        }
        child.kill()?;
        child.wait()?;
        kills += 1;
        if round % 3 == 0 {
            let ended = bed.stream(&["--once"])?.wait_with_output()?;
            assert!(ended.status.success(), "{ended:?}");
            assert_eq!(bed.shown(&["-n", "all"])?, bed.written);
        }
    }
    let ended = bed.stream(&["--once"])?.wait_with_output()?;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(bed.shown(&["-n", "all"])?, bed.written);
    println!(
        "{kills} kills, {} bytes, each of them once",
        bed.written.len()
    );
    Ok(())
}

#[test]
fn it_is_shown_by_tail_lines_offset_and_as_it_grows() -> Fallible<()> {
    let mut bed = Bed::new()?;
    bed.print(20_000)?;
    let nothing = bed.show(&[])?;
    assert_eq!(nothing.status.code(), Some(1));
    let mut child = bed.stream(&[])?;
    let whole = bed.written.clone();
    until("all to be put", || {
        Ok(bed.shown(&["-n", "all"]).is_ok_and(|shown| shown == whole))
    })?;
    assert_eq!(bed.shown(&[])?, whole[whole.len() - 102_400..]);
    assert_eq!(bed.shown(&["-n", "10"])?, whole[whole.len() - 10..]);
    let lines = |n: usize| {
        let text = String::from_utf8_lossy(&whole).into_owned();
        let all: Vec<&str> = text.split_inclusive('\n').collect();
        all[all.len().saturating_sub(n)..].concat().into_bytes()
    };
    for n in [0, 1, 3, 9000, 19_999, 20_000, 30_000] {
        assert_eq!(bed.shown(&["--lines", &n.to_string()])?, lines(n), "{n}");
    }
    assert_eq!(bed.shown(&["--from", "5", "-n", "10"])?, whole[5..15]);
    let beyond = bed.show(&["--from", "99999999"])?;
    assert_eq!(beyond.status.code(), Some(1), "{beyond:?}");
    let json = bed.shown(&["--format", "json", "-n", "7"])?;
    let json: serde_json::Value = serde_json::from_slice(&json)?;
    assert_eq!(
        json["content"],
        String::from_utf8_lossy(&whole[whole.len() - 7..]).as_ref()
    );
    assert_eq!(json["next"], whole.len());

    // A follower, over a restart of the streamer and a rollover.
    let out = bed.path("followed");
    let mut follower = Command::new(LOGCHAIN)
        .args([
            "show",
            "-f",
            "--from",
            "0",
            "--transport",
            &bed.url(),
            &bed.uuid,
        ])
        .stdout(File::create(&out)?)
        .spawn()?;
    bed.print(100)?;
    bed.roll_over()?;
    child.kill()?;
    child.wait()?;
    bed.print(100)?;
    let child = bed.stream(&[])?;
    let whole = bed.written.clone();
    let followed = until("all to be followed", || Ok(fs::read(&out)? == whole));
    follower.kill()?;
    follower.wait()?;
    followed?;
    let ended = end(child)?;
    assert!(ended.status.success(), "{ended:?}");
    Ok(())
}

#[test]
fn a_store_that_is_away_for_a_while_costs_nothing() -> Fallible<()> {
    let mut bed = Bed::new()?;
    bed.print(100)?;
    let ended = bed.stream(&["--once"])?.wait_with_output()?;
    assert!(ended.status.success(), "{ended:?}");
    let child = bed.stream(&[])?;
    // Nothing can be put: a file lies where the stream's folder was.
    let store = stream_folder(&bed.path("store"))?;
    let aside = bed.path("aside");
    exchange(&store, &aside)?;
    fs::write(&store, "")?;
    for _ in 0..6 {
        // More rollovers than the rotation keeps: the streamer holds them open.
        bed.print(100)?;
        sleep(Duration::from_millis(300));
        bed.roll_over()?;
    }
    bed.print(1)?;
    fs::remove_file(&store)?;
    exchange(&aside, &store)?;
    until("all to be put", || {
        Ok(bed.shown(&["-n", "all"])? == bed.written)
    })?;
    let ended = end(child)?;
    assert!(ended.status.success(), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        said.contains("tried again") && said.contains("put again"),
        "{said}"
    );
    Ok(())
}

fn stream_folder(store: &Path) -> Fallible<PathBuf> {
    let mut at = store.join("v1");
    for _ in 0..3 {
        let entry = fs::read_dir(&at)?.next().ok_or("an empty store")??;
        at = entry.path();
    }
    Ok(at)
}

fn exchange(from: &Path, to: &Path) -> Fallible<()> {
    Ok(fs::rename(from, to)?)
}

#[test]
fn what_is_not_known_is_asked_for() -> Fallible<()> {
    let bed = Bed::new()?;
    let log = bed.path("console.log");
    let run = |args: &[&str]| Command::new(LOGCHAIN).args(args).arg(&log).output();
    let nobody = run(&["stream", "--once", "--transport", &bed.url()])?;
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("--uuid"));
    let nowhere = run(&["stream", "--once"])?;
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
    let path = run(&["show", "--transport", &bed.url()])?;
    assert_eq!(path.status.code(), Some(2), "{path:?}");
    Ok(())
}
