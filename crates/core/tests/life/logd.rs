//! Writes a log as virtlogd does, by the rules of libvirt's rotating files: a
//! file that is full is rolled over; the cut comes behind a newline if one lies
//! in the last 80 bytes before the limit; with no backups the file is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How far back a newline is looked for.
const SLACK: usize = 80;

pub(crate) struct Logd {
    base: PathBuf,
    file: File,
    size: u64,
    pub(crate) max_size: u64,
    pub(crate) max_backups: u32,
    pub(crate) rollovers: u32,
}

impl Logd {
    /// Opens a log as at the start of a VM, or at the arrival of one.
    pub(crate) fn open(
        base: &Path,
        append: bool,
        max_size: u64,
        max_backups: u32,
    ) -> io::Result<Self> {
        if !append {
            let _ = fs::remove_file(base);
            for n in 0..max_backups {
                let _ = fs::remove_file(numbered(base, n));
            }
        }
        let file = OpenOptions::new().append(true).create(true).open(base)?;
        let size = file.metadata()?.len();
        Ok(Self {
            base: base.to_owned(),
            file,
            size,
            max_size,
            max_backups,
            rollovers: 0,
        })
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room =
                usize::try_from(self.max_size.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let mut now = bytes.len();
            let full = now > room;
            if full {
                now = room;
                let from = now.saturating_sub(SLACK);
                if let Some(at) = bytes[from..now].iter().rposition(|b| *b == b'\n') {
                    now = from + at + 1;
                }
            }
            let (head, rest) = bytes.split_at(now);
            self.file.write_all(head)?;
            self.size += head.len() as u64;
            bytes = rest;
            if full {
                self.roll_over()?;
            }
        }
        Ok(())
    }

    /// What logrotate's `copytruncate` does under it. Its own idea of the size stays.
    pub(crate) fn copy_and_truncate(&mut self) -> io::Result<()> {
        for n in (1..self.max_backups).rev() {
            let (from, to) = (numbered(&self.base, n - 1), numbered(&self.base, n));
            rename(&from, &to)?;
            rename(&packed(&from), &packed(&to))?;
        }
        fs::copy(&self.base, numbered(&self.base, 0))?;
        self.file.set_len(0)
    }

    pub(crate) fn roll_over(&mut self) -> io::Result<()> {
        if self.max_backups == 0 {
            fs::remove_file(&self.base)?;
        } else {
            for n in (0..self.max_backups).rev() {
                let from = n
                    .checked_sub(1)
                    .map_or(self.base.clone(), |n| numbered(&self.base, n));
                rename(&from, &numbered(&self.base, n))?;
                // As whoever compressed it would: virtlogd leaves such a file behind.
                rename(&packed(&from), &packed(&numbered(&self.base, n)))?;
            }
        }
        let mut new = OpenOptions::new();
        self.file = new.append(true).create_new(true).open(&self.base)?;
        self.size = 0;
        self.rollovers += 1;
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "as virtlogd does")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

pub(crate) fn numbered(base: &Path, number: u32) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn packed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".zst");
    name.into()
}
