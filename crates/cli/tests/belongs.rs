//! Which files belong to a log, and in which order: what `show` and `verify` print of it.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

type Outcome = Result<(), Box<dyn Error>>;

struct Bed(tempfile::TempDir);

impl Bed {
    fn new() -> Result<Self, Box<dyn Error>> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file that was last written so many seconds ago.
    fn write(&self, name: &str, content: impl AsRef<[u8]>, age: u64) -> Outcome {
        fs::write(self.at(name), content)?;
        let time = SystemTime::now() - Duration::from_secs(age);
        Ok(File::open(self.at(name))?.set_modified(time)?)
    }

    fn run(&self, args: &[&str], log: &str) -> Result<Output, Box<dyn Error>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logchain"));
        Ok(command.args(args).arg(self.at(log)).output()?)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks what `show` prints in each way, and that it and `verify`, which never says
/// whole, tell `why`.
fn check(bed: &Bed, log: &str, expected: &str, why: &[&str]) -> Outcome {
    for args in [
        &["show", "-n", "all"][..],
        &["show"],
        &["show", "--lines", "1000"],
        &["show", "--from", "0", "-n", "all"],
    ] {
        let output = bed.run(args, log)?;
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert_eq!(text(&output.stdout), expected, "{args:?}");
        for why in why {
            assert!(text(&output.stderr).contains(why), "{args:?}: {output:?}");
        }
    }
    let output = bed.run(&["verify"], log)?;
    let said = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(i32::from(!why.is_empty())),
        "{said}"
    );
    assert_eq!(said.contains("is whole"), why.is_empty(), "{said}");
    for why in why {
        assert!(said.contains(why), "{said}");
    }
    Ok(())
}

fn gzip(content: &str, folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    packed("gzip", content, folder)
}

fn packed(program: &str, content: &str, folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let plain = folder.join("plain");
    fs::write(&plain, content)?;
    let output = Command::new(program).arg("-c").arg(&plain).output()?;
    fs::remove_file(plain)?;
    Ok(output.stdout)
}

#[test]
fn two_rotations_on_one_log_are_read_in_the_order_of_writing() -> Outcome {
    let bed = Bed::new()?;
    bed.write("c.log.2.gz", gzip("A\n", bed.0.path())?, 400)?;
    bed.write("c.log.0", "B\n", 300)?;
    bed.write("c.log.1", "D\n", 200)?;
    bed.write("c.log", "E\n", 100)?;
    let why = ["by its name c.log.1 is older than c.log.0, but it was written after that"];
    check(&bed, "c.log", "A\nB\nD\nE\n", &why)
}

#[test]
fn dates_and_xz_are_read() -> Outcome {
    let bed = Bed::new()?;
    let xz = packed("xz", "1\n", bed.0.path())?;
    bed.write("c.log-20261018.xz", xz, 900)?;
    bed.write("c.log-20261101.gz", gzip("2\n", bed.0.path())?, 800)?;
    bed.write("c.log-20261120", "3\n", 700)?;
    bed.write("c.log", "4\n", 100)?;
    check(&bed, "c.log", "1\n2\n3\n4\n", &[])
}

#[test]
fn what_looks_rotated_and_is_not_read_is_named() -> Outcome {
    let bed = Bed::new()?;
    bed.write("c.log.1.bz2", "x", 500)?;
    bed.write("c.log.old", "x", 500)?;
    bed.write("c.log.0.gz", gzip("1\n", bed.0.path())?, 400)?;
    bed.write("c.log.0", "1\n", 400)?;
    bed.write("c.log", "2\n", 100)?;
    // Neighbours that have nothing to do with it.
    for name in ["c.log10", "c.log.pid", "c", "xc.log.0"] {
        bed.write(name, "x", 100)?;
    }
    let unread = |name: &str| format!("{name} looks like a rotated file and is not read");
    let (bz2, old) = (unread("c.log.1.bz2"), unread("c.log.old"));
    let why = [
        &bz2[..],
        &old,
        "c.log.0.gz is not read, since another file has its number",
    ];
    check(&bed, "c.log", "1\n2\n", &why)
}

/// Longer than the kernel's tick, from which files have their times.
#[expect(clippy::disallowed_methods, reason = "no async code runs in this test")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn a_log_beside_a_log_is_not_part_of_it() -> Outcome {
    let bed = Bed::new()?;
    let append = |name: &str| {
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true).open(bed.at(name))
    };
    let mut other = append("web.1")?;
    other.write_all(b"other's\n")?;
    pause();
    append("web")?.write_all(b"web's\n")?;
    pause();
    other.write_all(b"other's, later\n")?;
    let why =
        ["web.1 is not read as part of this log: it was written after the base file was begun"];
    check(&bed, "web", "web's\n", &why)?;
    check(&bed, "web.1", "other's\nother's, later\n", &[])
}
