//! Where shown bytes go: as they are, made safe for a terminal, or as JSON.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use anyhow::Context;
use logchain_core::escape::Escaper;
use serde_json::json;

use super::json::text;
use crate::args::{Format, Show};

/// Where bytes go.
pub enum Out {
    /// Past the standard output's own buffer, which looks for lines to flush.
    Raw(File),
    Escaped(Box<Escaper>),
    Json(io::Stdout),
}

impl Out {
    pub fn new(args: &Show) -> anyhow::Result<Self> {
        let plain = args.raw || !io::stdout().is_terminal();
        Ok(match args.format {
            Format::Json => Self::Json(io::stdout()),
            Format::Text if plain => {
                Self::Raw(File::from(io::stdout().as_fd().try_clone_to_owned()?))
            }
            Format::Text => Self::Escaped(Box::default()),
        })
    }

    pub fn push(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Raw(file) => Ok(file.write_all(bytes)?),
            Self::Escaped(escaper) => {
                let mut safe = Vec::new();
                escaper.push(bytes, &mut safe);
                Ok(io::stdout().write_all(&safe)?)
            }
            Self::Json(_) if bytes.is_empty() => Ok(()),
            Self::Json(out) => {
                let (encoding, content) = text(bytes);
                let next = offset.saturating_add(bytes.len() as u64);
                let piece = json!({
                    "offset": offset, "next": next, "encoding": encoding, "content": content,
                });
                Ok(writeln!(out, "{piece}")?)
            }
        }
    }

    pub fn missing(&mut self, next: u64, size: Option<u64>) -> anyhow::Result<()> {
        if let Self::Json(out) = self {
            let piece = json!({ "missing": size, "next": next });
            return Ok(writeln!(out, "{piece}")?);
        }
        self.flush()?;
        let many = size.map_or_else(|| "some bytes are".to_owned(), |s| format!("{s} bytes are"));
        eprintln!("logchain: {many} missing before offset {next}");
        Ok(())
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        io::stdout().flush().context("cannot write")
    }

    pub fn finish(&mut self) -> anyhow::Result<()> {
        if let Self::Escaped(escaper) = self {
            let mut safe = Vec::new();
            std::mem::take(&mut **escaper).finish(&mut safe);
            io::stdout().write_all(&safe)?;
        }
        self.flush()
    }

    /// Whether nobody reads what is written: a follower that waits for a log
    /// that is silent would never notice.
    pub fn is_closed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let out = io::stdout();
        let mut fds = [PollFd::new(&out, PollFlags::empty())];
        let ready = poll(&mut fds, Some(&rustix::event::Timespec::default()));
        let [fd] = fds;
        ready.is_ok_and(|n| n > 0) && fd.revents().intersects(PollFlags::ERR | PollFlags::NVAL)
    }
}
