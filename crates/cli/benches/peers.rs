//! logchain as a process, beside the programs that one would use without it.
//!
//! `cargo bench -p logchain --bench peers`, or `-- show` or `-- carry` for a part. It prints the
//! rows of the table in `docs/src/performance.md`. Ours and theirs take turns, so that a busy
//! moment meets both; *ratio* is the median of the ratios of the turns.
//!
//! The goals: a tail in no more than twice the time of `tail -c`, the whole log at no less than
//! 0.9 times the speed of `cat`.
//!
//! A log is carried without a hypervisor: libvirt's test driver, in the process itself, has the
//! domain. Whoever is root carries it as `nobody`, who may have limits of rotation of his own.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LOGCHAIN: &str = env!("CARGO_BIN_EXE_logchain");
const MIB: u64 = 1 << 20;
const UUID: &str = "6a1f8f5e-3c1d-4f55-9e0f-2b9d1c7a4e10";

/// Its id on Linux.
const NOBODY: u32 = 65534;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// One turn: how long it took.
type Turn<'a> = &'a dyn Fn() -> Outcome<Duration>;

fn main() -> Outcome {
    let args: Vec<_> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts it too, without this.
    if !args.iter().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let parts: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| *p == part);
    println!("| task | logchain | peer | ratio |\n| --- | --- | --- | --- |");
    if is_wanted("show") {
        tails()?;
        wholes()?;
    }
    if is_wanted("carry") {
        carries()?;
    }
    Ok(())
}

/// The end of a log, which lies in its base file or goes back into a rotated one.
fn tails() -> Outcome {
    let folder = tempfile::tempdir()?;
    let text = lines(MIB);
    let huge = chain(folder.path(), "huge.log", |file, _| {
        // Holes, but for the end.
        file.set_len(2 << 30)?;
        file.write_all_at(&text, (2 << 30) - MIB)
    })?;
    let rolled = chain(folder.path(), "rolled.log", |mut file, is_base| {
        // As virtlogd leaves it soon after a rollover.
        let end = if is_base { 4 << 10 } else { text.len() };
        file.write_all(text.get(..end).unwrap_or_default())
    })?;
    for (show, tail, what) in [
        (["-n", "100K"], ["-c", "102400"], "the last 100 KiB"),
        (["--lines", "100"], ["-n", "100"], "the last 100 lines"),
    ] {
        let base = huge.last().ok_or("no base")?;
        let ours = || read(Command::new(LOGCHAIN).arg("show").args(show).arg(base));
        let theirs = || read(Command::new("tail").args(tail).arg(base));
        let task = format!("{what} of 10 GiB, all in the base file");
        compare(&task, 300, &ours, &format!("`tail {}`", tail[0]), &theirs)?;

        let [.., newest, base] = rolled.as_slice() else {
            return Err("no base".into());
        };
        let ours = || read(Command::new(LOGCHAIN).arg("show").args(show).arg(base));
        let pipe = format!("cat \"$0\" \"$1\" | tail {} {}", tail[0], tail[1]);
        let theirs = || read(Command::new("sh").args(["-c", &pipe]).args([newest, base]));
        let task = format!("{what}, most in a rotated file");
        let name = format!("`cat` of both `\\| tail {}`", tail[0]);
        compare(&task, 300, &ours, &name, &theirs)?;
    }
    Ok(())
}

/// All of a log.
fn wholes() -> Outcome {
    let folder = tempfile::tempdir()?;
    let text = lines(MIB);
    let whole = chain(folder.path(), "whole.log", |mut file, _| {
        (0..205).try_for_each(|_| file.write_all(&text))
    })?;
    let base = whole.last().ok_or("no base")?;
    let ours = || {
        let mut command = Command::new(LOGCHAIN);
        command.args(["show", "-n", "all"]).arg(base);
        command
    };
    let theirs = || {
        let mut command = Command::new("cat");
        command.args(&whole);
        command
    };
    let task = "all of 1 GiB into a pipe";
    compare(task, 9, &|| read(&mut ours()), "`cat`", &|| {
        read(&mut theirs())
    })?;
    let out = folder.path().join("out");
    let write = |mut command: Command| {
        // A new one each time: one that is cut short costs whoever is next.
        let _ = fs::remove_file(&out);
        let began = Instant::now();
        ended(command.stdout(File::create(&out)?).status()?)?;
        let took = began.elapsed();
        // Written back now, not while the other one is measured.
        File::open(&out)?.sync_all()?;
        Ok(took)
    };
    let task = "all of 1 GiB into a file";
    compare(task, 9, &|| write(ours()), "`cat`", &|| write(theirs()))
}

/// A log of 64 MiB from one folder to another, synced, by both halves of a handoff.
fn carries() -> Outcome {
    let world = World::new()?;
    let ours = || world.by_logchain();
    let cp = || world.by("cp -p src/console.log* dst/ && sync dst/* dst");
    let task = "carry 64 MiB over `file://`, `offer` and `adopt` together";
    compare(task, 15, &ours, "`cp`, `sync`", &cp)?;
    if Command::new("rsync").arg("--version").output().is_err() {
        eprintln!("rsync is not installed: left out");
        return Ok(());
    }
    let rsync = || world.by("rsync -a --fsync src/console.log* dst/");
    compare(task, 15, &ours, "`rsync --fsync`", &rsync)
}

/// Two hosts that are two folders.
struct World {
    folder: tempfile::TempDir,
    user: Option<u32>,
}

impl World {
    fn new() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let is_root = rustix::process::geteuid().is_root();
        let user = is_root.then_some(NOBODY);
        let world = Self { folder, user };
        let at = |name: &str| world.folder.path().join(name);
        fs::create_dir_all(at("src"))?;
        fs::create_dir_all(at("config/libvirt"))?;
        fs::write(
            at("config/libvirt/virtlogd.conf"),
            "max_size = 16777216\nmax_backups = 5\n",
        )?;
        let log = at("dst/console.log");
        let domain = format!(
            "<node><domain type='test'><name>vm1</name><uuid>{UUID}</uuid>\
             <memory>8192</memory><os><type>hvm</type></os><devices><serial type='pty'>\
             <log file='{}' append='on'/><target port='0'/><alias name='serial0'/></serial>\
             </devices></domain></node>",
            log.display()
        );
        fs::write(at("node.xml"), domain)?;
        let text = lines(16 * MIB);
        for name in [
            "console.log.2",
            "console.log.1",
            "console.log.0",
            "console.log",
        ] {
            fs::write(at("src").join(name), &text)?;
        }
        world.reset()?;
        Ok(world)
    }

    /// As it was before anything was carried.
    fn reset(&self) -> Outcome {
        let at = |name: &str| self.folder.path().join(name);
        for name in ["dst", "spool", "state-src", "state-dst"] {
            let _ = fs::remove_dir_all(at(name));
            fs::create_dir(at(name))?;
        }
        let _ = fs::remove_file(at("src/.console.log.logchain"));
        if let Some(user) = self.user {
            let mut left = vec![self.folder.path().to_owned()];
            while let Some(path) = left.pop() {
                chown(&path, Some(user), Some(user))?;
                if path.is_dir() {
                    left.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
                }
            }
        }
        // What was written before is not synced at the cost of what is measured.
        rustix::fs::sync();
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let home = self.folder.path();
        command.current_dir(home).env("HOME", home);
        command.env("XDG_CONFIG_HOME", home.join("config"));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn by_logchain(&self) -> Outcome<Duration> {
        self.reset()?;
        File::create(self.folder.path().join("dst/console.log"))?;
        let here = self.folder.path().display().to_string();
        let transport = format!("file://{here}/spool");
        let console = format!("serial0={here}/src/console.log");
        let began = Instant::now();
        let mut offer = self
            .command(LOGCHAIN)
            .args(["offer", "-c", "test:///default", "--transport", &transport])
            .args(["--state", "state-src", "--console", &console, UUID])
            .spawn()?;
        let mut adopt = self
            .command(LOGCHAIN)
            .args(["adopt", "-c", &format!("test://{here}/node.xml")])
            .args(["--transport", &transport, "--state", "state-dst", UUID])
            .spawn()?;
        ended(offer.wait()?)?;
        ended(adopt.wait()?)?;
        let took = began.elapsed();
        self.check()?;
        Ok(took)
    }

    fn by(&self, script: &str) -> Outcome<Duration> {
        self.reset()?;
        let began = Instant::now();
        ended(self.command("sh").args(["-c", script]).status()?)?;
        let took = began.elapsed();
        self.check()?;
        Ok(took)
    }

    /// All of it is there.
    fn check(&self) -> Outcome {
        let mut bytes = 0;
        for entry in fs::read_dir(self.folder.path().join("dst"))? {
            let entry = entry?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(b"console.log")
            {
                bytes += entry.metadata()?.len();
            }
        }
        match bytes {
            bytes if bytes == 64 * MIB => Ok(()),
            bytes => Err(format!("{bytes} bytes arrived").into()),
        }
    }
}

/// Five files, the oldest first. `fill` is told whether it is the base.
fn chain(
    folder: &Path,
    name: &str,
    fill: impl Fn(&File, bool) -> std::io::Result<()>,
) -> Outcome<Vec<PathBuf>> {
    let rotated = (0..4).rev().map(|n| folder.join(format!("{name}.{n}")));
    let files: Vec<_> = rotated.chain([folder.join(name)]).collect();
    for path in &files {
        fill(&File::create(path)?, files.last() == Some(path))?;
    }
    Ok(files)
}

/// Console text: numbered lines.
fn lines(size: u64) -> Vec<u8> {
    let mut text = Vec::new();
    let mut number = 0_u64;
    while (text.len() as u64) < size {
        let line = format!("[{number:12}] systemd[1]: started unit {}\n", number % 977);
        text.extend_from_slice(line.as_bytes());
        number += 1;
    }
    text.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    text
}

/// Reads what it writes, as a program that wants it would.
fn read(command: &mut Command) -> Outcome<Duration> {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut out = child.stdout.take().ok_or("no output")?;
    let mut block = vec![0; 1 << 20];
    while out.read(&mut block)? > 0 {}
    ended(child.wait()?)?;
    Ok(began.elapsed())
}

fn ended(status: std::process::ExitStatus) -> Outcome {
    match status.success() {
        true => Ok(()),
        false => Err(format!("it ended with {status}").into()),
    }
}

fn compare(task: &str, rounds: usize, ours: Turn<'_>, peer: &str, theirs: Turn<'_>) -> Outcome {
    let (mut times, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first turn fills the caches.
    for round in 0..=rounds {
        let (a, b) = (ours()?.as_secs_f64(), theirs()?.as_secs_f64());
        if round > 0 {
            times.push(a);
            beside.push(b);
            ratios.push(a / b);
        }
    }
    let (took, other) = (median(&mut times) * 1e3, median(&mut beside) * 1e3);
    println!(
        "| {task} | {took:.1} ms | {peer}: {other:.1} ms | {:.2} |",
        median(&mut ratios)
    );
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
