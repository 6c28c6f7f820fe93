//! `logchain show`: a chain as one stream.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

mod boots;
mod holes;
mod hops;
mod json;
pub mod out;
pub mod remote;
mod spool;
mod stream;

use anyhow::Context;
use logchain_core::chain::{self, LogChain, NumberingChoice, Snapshot, decompressed};
use logchain_core::escape::Escaper;
use rustix::fs::copy_file_range;

use crate::args::{Amount, DEFAULT_BYTES, Format, Show, Which};
use crate::exit::{Exit, Usage};

/// As cat has it: larger ones leave the processor's cache.
const BLOCK: usize = 128 * 1024;

/// A chain to show, and what is known of it.
pub struct Subject {
    pub path: PathBuf,
    pub numbering: NumberingChoice,
    pub domain: Option<(String, String)>,
    pub console: Option<String>,
}

impl Subject {
    /// What has a slash in it is a path; anything else is a domain, where it is known as one.
    pub fn of_path(log: &Which) -> Result<Option<Self>, Usage> {
        if !log.what.contains('/') {
            return Ok(None);
        }
        if log.console.is_some() {
            return Err(Usage(
                "--console goes with a domain, not with a path".to_owned(),
            ));
        }
        Ok(Some(Self::at(PathBuf::from(&log.what), log)))
    }

    /// The file of that name in the current folder, for what is no domain's name.
    pub fn of_file(log: &Which) -> Option<Self> {
        // A console is a domain's.
        let path = Path::new(".").join(&log.what);
        let is_file = log.console.is_none() && path.is_file();
        is_file.then(|| Self::at(path, log))
    }

    fn at(path: PathBuf, log: &Which) -> Self {
        Self {
            path,
            numbering: log.numbering,
            domain: None,
            console: None,
        }
    }
}

/// Blocks.
pub fn run(args: &Show, subject: &Subject, chain: LogChain) -> anyhow::Result<Exit> {
    let shown = if args.hops {
        hops::show(args, &chain)
    } else if args.list_boots {
        boots::list(args, &chain)
    } else if let Some(boot) = args.boot {
        boots::show(args, boot, subject, chain)
    } else if args.from.is_some() || args.follow {
        stream::show(args, subject, chain)
    } else {
        plain(args, subject, &chain).map(|()| Exit::Done)
    };
    match shown {
        // A pager that was closed has seen enough.
        Err(e) if is_broken_pipe(&e) => Ok(Exit::Done),
        shown => shown,
    }
}

fn plain(args: &Show, subject: &Subject, chain: &LogChain) -> anyhow::Result<()> {
    let snapshot = chain.snapshot()?;
    say_remarks(subject, &snapshot);
    match args.format {
        Format::Text if args.raw || !io::stdout().is_terminal() => match (args.lines, args.bytes) {
            (None, Some(Amount::All)) => copy_all(snapshot),
            _ => copy(reader(args, &snapshot)?),
        },
        Format::Text => escape(reader(args, &snapshot)?, &mut io::stdout().lock()),
        Format::Json => {
            let shown = json::Shown::of(subject, chain, &snapshot);
            shown.write(|| reader(args, &snapshot), &mut io::stdout().lock())
        }
    }
}

/// What of the log is missing, is not read, or is in doubt.
fn say_remarks(subject: &Subject, snapshot: &Snapshot) {
    for remark in snapshot.remarks() {
        eprintln!("logchain: {}: {remark}", subject.path.display());
    }
    for gap in snapshot.gaps() {
        let sentence = gap_sentence(&subject.path, gap.first, gap.last);
        eprintln!("logchain: {sentence}");
    }
}

fn gap_sentence(path: &Path, first: u32, last: u32) -> String {
    let base = path.display();
    let missing = if first == last {
        format!("{base}.{first}")
    } else {
        format!("{base}.{first} to .{last}")
    };
    format!("{missing} missing: older history follows after a gap")
}

fn reader<'a>(args: &Show, snapshot: &'a Snapshot) -> anyhow::Result<Box<dyn Read + 'a>> {
    Ok(match (args.lines, args.bytes) {
        (Some(lines), _) => Box::new(snapshot.tail_lines(lines)?),
        (None, Some(Amount::All)) => Box::new(snapshot.read_all()?),
        (None, Some(Amount::Bytes(bytes))) => Box::new(snapshot.tail(bytes)?),
        (None, None) => Box::new(snapshot.tail(DEFAULT_BYTES)?),
    })
}

pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn each_block(
    mut reader: impl Read,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let n = match reader.read(&mut block) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read.context("cannot read the log")?,
        };
        match block.get(..n).filter(|b| !b.is_empty()) {
            Some(bytes) => take(bytes)?,
            None => return Ok(()),
        }
    }
}

/// The standard output, past its own buffer, which looks for lines to flush.
fn plain_output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

fn copy(reader: impl Read) -> anyhow::Result<()> {
    let mut out = plain_output()?;
    each_block(reader, |bytes| written(out.write_all(bytes)))
}

fn written(written: io::Result<()>) -> anyhow::Result<()> {
    written.context("cannot write to standard output")
}

/// Copies whole files; into a file the system does it, as for `cat`, and holes stay
/// holes there.
fn copy_all(snapshot: Snapshot) -> anyhow::Result<()> {
    let mut out = plain_output()?;
    let fit_for_holes = holes::fit(&mut out);
    for file in snapshot.into_files() {
        if file.compression().is_some() {
            each_block(decompressed(file)?, |bytes| written(out.write_all(bytes)))?;
            continue;
        }
        let (path, size) = (file.path().to_owned(), file.size());
        let mut file = file.into_file();
        let mut at = 0;
        while at < size {
            let run = if fit_for_holes {
                holes::next(&mut file, at, size).context("cannot read the log")?
            } else {
                holes::Run {
                    hole: 0,
                    data: size,
                }
            };
            if run.hole > 0 {
                written(holes::leave(&mut out, run.hole))?;
            }
            let left = copy_data(&file, run.data, &mut out)?;
            // Behind the end of a file that was cut there are no holes.
            let cut = run.hole > 0 && file.metadata().map_or(true, |m| m.len() < size);
            if left > 0 || cut {
                return Err(chain::Error::Shrunk { path }.into());
            }
            at = at.saturating_add(run.hole).saturating_add(run.data);
        }
    }
    Ok(())
}

/// Copies `len` bytes from where `file` stands; says how many of them are not there.
fn copy_data(file: &File, len: u64, out: &mut File) -> anyhow::Result<u64> {
    let mut rest = file.take(len);
    while rest.limit() > 0
        && let Ok(copied @ 1..) = copy_file_range(
            rest.get_ref(),
            None,
            &*out,
            None,
            usize::try_from(rest.limit()).unwrap_or(usize::MAX),
        )
    {
        rest.set_limit(rest.limit().saturating_sub(copied as u64));
    }
    // What it will not do is written by hand, and says what is wrong if anything is.
    if rest.limit() > 0 {
        each_block(&mut rest, |bytes| written(out.write_all(bytes)))?;
    }
    Ok(rest.limit())
}

fn escape(reader: impl Read, out: &mut impl Write) -> anyhow::Result<()> {
    let mut escaper = Escaper::default();
    let mut safe = Vec::new();
    each_block(reader, |bytes| {
        safe.clear();
        escaper.push(bytes, &mut safe);
        Ok(out.write_all(&safe)?)
    })?;
    safe.clear();
    escaper.finish(&mut safe);
    out.write_all(&safe)?;
    Ok(out.flush()?)
}
