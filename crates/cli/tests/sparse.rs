//! A hole in a log stays one in the file that the log is shown into; through a pipe it
//! is the NULs that it stands for.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

const LOGCHAIN: &str = env!("CARGO_BIN_EXE_logchain");

/// Text, a hole of `hole` bytes, text; and a hole of as many at the end of the file
/// before it.
fn sparse_log(folder: &Path, hole: u64) -> std::io::Result<PathBuf> {
    let mut older = File::create(folder.join("console.log.0"))?;
    older.write_all(b"oldest\n")?;
    older.set_len(7 + hole)?;
    let log = folder.join("console.log");
    let mut base = File::create(&log)?;
    base.write_all(b"first\n")?;
    base.seek(SeekFrom::Start(6 + hole))?;
    base.write_all(b"last\n")?;
    Ok(log)
}

fn show(log: &Path, out: impl Into<Stdio>) -> Command {
    let mut show = Command::new(LOGCHAIN);
    show.args(["show", "-n", "all"]).arg(log).stdout(out);
    show
}

fn at(file: &File, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![1; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

#[test]
fn holes_stay_holes_in_a_file() -> Outcome {
    const HOLE: u64 = 3 << 30;
    let folder = tempfile::tempdir()?;
    let log = sparse_log(folder.path(), HOLE)?;
    let shown = folder.path().join("shown");
    let status = show(&log, File::create(&shown)?).status()?;
    assert!(status.success());
    let file = File::open(&shown)?;
    let stat = file.metadata()?;
    assert_eq!(stat.len(), 7 + HOLE + 6 + HOLE + 5);
    assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
    assert_eq!(at(&file, 0, 9)?, b"oldest\n\0\0");
    assert_eq!(at(&file, 7 + HOLE - 2, 10)?, b"\0\0first\n\0\0");
    assert_eq!(at(&file, stat.len() - 7, 7)?, b"\0\0last\n");
    Ok(())
}

#[test]
fn elsewhere_holes_are_the_nuls_that_they_stand_for() -> Outcome {
    const HOLE: u64 = 300_000;
    let folder = tempfile::tempdir()?;
    let log = sparse_log(folder.path(), HOLE)?;
    let nuls = vec![0; usize::try_from(HOLE)?];
    let all = [&b"oldest\n"[..], &nuls, b"first\n", &nuls, b"last\n"].concat();

    let mut child = show(&log, Stdio::piped()).spawn()?;
    let mut piped = Vec::new();
    child
        .stdout
        .take()
        .ok_or("no pipe")?
        .read_to_end(&mut piped)?;
    assert!(child.wait()?.success() && piped == all);

    // Behind what is there.
    let shown = folder.path().join("shown");
    fs::write(&shown, "before\n")?;
    let append = OpenOptions::new().append(true).open(&shown)?;
    assert!(show(&log, append).status()?.success());
    assert!(fs::read(&shown)? == [&b"before\n"[..], &all].concat());

    // Over what is there: no old byte is seen through a hole.
    fs::write(&shown, vec![b'x'; all.len() + 3])?;
    let over = OpenOptions::new().write(true).open(&shown)?;
    assert!(show(&log, over).status()?.success());
    assert!(fs::read(&shown)? == [&all[..], b"xxx"].concat());

    // One after the other into the same file, as a script does.
    let mut together = File::create(&shown)?;
    together.write_all(b"head\n")?;
    assert!(show(&log, together.try_clone()?).status()?.success());
    together.write_all(b"tail\n")?;
    assert!(fs::read(&shown)? == [&b"head\n"[..], &all, b"tail\n"].concat());
    Ok(())
}
