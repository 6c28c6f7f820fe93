//! What `logchain show` reads and takes, whatever the size of a log.

use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// More than a pipe holds: a writer of this much cannot have ended.
const HELD_BACK: u64 = 128 * KIB;

type Outcome = Result<(), Box<dyn Error>>;

/// Files that are holes but for their last bytes, oldest first; then the base.
fn sparse(folder: &Path, sizes: &[u64]) -> Result<PathBuf, Box<dyn Error>> {
    let base = folder.join("console.log");
    for (index, size) in sizes.iter().enumerate() {
        let path = match sizes.len() - 1 - index {
            0 => base.clone(),
            number => folder.join(format!("console.log.{}", number - 1)),
        };
        let file = File::create(path)?;
        file.set_len(*size)?;
        let end = vec![b'0' + u8::try_from(index)?; usize::try_from(256 * KIB.min(*size / 256))?];
        file.write_all_at(&end, size - end.len() as u64)?;
    }
    Ok(base)
}

/// `logchain show`, its output in our hands.
struct Show {
    child: Child,
    out: ChildStdout,
}

impl Show {
    fn start(log: &Path, amount: &str) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_logchain"))
            .args(["show", "-n", amount])
            .arg(log)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        Ok(Self { child, out })
    }

    /// Reads so many bytes.
    fn skip(&mut self, bytes: u64) -> Outcome {
        let read = std::io::copy(&mut (&mut self.out).take(bytes), &mut std::io::sink())?;
        assert_eq!(read, bytes, "the output ended early");
        Ok(())
    }

    /// Reads to the end.
    fn rest(&mut self) -> std::io::Result<u64> {
        std::io::copy(&mut self.out, &mut std::io::sink())
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join(name)
    }

    fn told(&self, file: &str, what: &str) -> Result<String, Box<dyn Error>> {
        let text = fs::read_to_string(self.file(file))?;
        let line = text.lines().find_map(|l| l.strip_prefix(what));
        let value = line.and_then(|l| l.strip_prefix(':'));
        Ok(value
            .ok_or_else(|| format!("no {what} in {text}"))?
            .trim()
            .to_owned())
    }

    fn number(&self, file: &str, what: &str) -> Result<u64, Box<dyn Error>> {
        let told = self.told(file, what)?;
        Ok(told.split(' ').next().unwrap_or_default().parse()?)
    }

    fn end(mut self) -> Outcome {
        self.rest()?;
        assert!(self.child.wait()?.success());
        Ok(())
    }
}

/// 10 GiB in five files; only what is shown is read.
#[test]
fn a_tail_reads_no_more_than_it_shows() -> Outcome {
    let folder = tempfile::tempdir()?;
    // A base so small that the tail reaches into the file before it.
    let log = sparse(
        folder.path(),
        &[2 * GIB, 2 * GIB, 2 * GIB, 4 * GIB, 40 * KIB],
    )?;
    let read = |asked: u64| -> Result<u64, Box<dyn Error>> {
        let mut show = Show::start(&log, &format!("{asked}K"))?;
        assert_eq!(show.rest()?, asked * KIB);
        // It has read all by now, ended or not: it is ours until it is waited for.
        let read = show.number("io", "rchar")?;
        show.end()?;
        Ok(read)
    };
    // Starting it reads too: its libraries' headers.
    let (start, tail) = (read(0)?, read(100)?);
    assert!(start < 16 * KIB, "{start} bytes read for nothing");
    assert_eq!(tail - start, 100 * KIB);
    Ok(())
}

#[test]
fn a_whole_chain_takes_little_memory() -> Outcome {
    let folder = tempfile::tempdir()?;
    let sizes = [256 * MIB; 4];
    let log = sparse(folder.path(), &sizes)?;
    let mut show = Show::start(&log, "all")?;
    show.skip(sizes.iter().sum::<u64>() - HELD_BACK)?;
    let peak = show.number("status", "VmHWM")?;
    show.end()?;
    assert!(peak < 16 * 1024, "{peak} KiB at its peak");
    Ok(())
}
