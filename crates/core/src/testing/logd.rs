//! virtlogd as it writes one log, by the rules of libvirt's rotating files: a file that is full
//! is rolled over; the cut comes behind a newline if one lies in the last 80 bytes before the
//! limit; with no backups the file is removed.
//!
//! A rollover is a list of system calls. Done one by one, anything can happen between two.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::folder::stat_open;

/// How far back a newline is looked for, in bytes.
const SLACK: u64 = 80;

/// One system call.
#[derive(Debug)]
enum Call {
    /// The guest's bytes that fill the base.
    Fill(String),
    Rename(PathBuf, PathBuf),
    Unlink,
    Open {
        /// It fails where somebody else made a base.
        new: bool,
    },
    /// It is held up.
    Nothing,
}

/// virtlogd with one log.
#[derive(Debug)]
pub struct Logd {
    base: PathBuf,
    max_size: u64,
    max_backups: u32,
    line: Option<fn(usize) -> String>,
    file: Option<File>,
    /// What it takes the base's size to be.
    size: u64,
    lines: usize,
    calls: VecDeque<Call>,
    rollovers: u32,
    wrote: Vec<String>,
}

impl Logd {
    /// For a log that it does not write yet.
    #[must_use]
    pub fn new(base: &Path, max_size: u64, max_backups: u32) -> Self {
        Self {
            base: base.to_owned(),
            max_size,
            max_backups,
            line: None,
            file: None,
            size: 0,
            lines: 0,
            calls: VecDeque::new(),
            rollovers: 0,
            wrote: Vec::new(),
        }
    }

    /// What the guest prints as its line of this number, counted from zero. One is the first
    /// thing in every new base; without this nothing is.
    #[must_use]
    pub fn with_lines(mut self, line: fn(usize) -> String) -> Self {
        self.line = Some(line);
        self
    }

    /// As if it had written these files before, oldest first.
    #[must_use]
    pub fn with_wrote(mut self, files: Vec<String>) -> Self {
        self.wrote = files;
        self
    }

    /// What libvirt does at the start or the arrival of a guest whose log has `append='off'`.
    pub fn wipe(&self) {
        let _ = fs::remove_file(&self.base);
        for n in 0..self.max_backups {
            let _ = fs::remove_file(numbered(&self.base, n));
        }
    }

    /// Opens the base, whether there is one or not, and appends to it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(&mut self) -> io::Result<()> {
        self.open_base(false)
    }

    fn open_base(&mut self, new: bool) -> io::Result<()> {
        let mut open = OpenOptions::new();
        let open = open.append(true).create(true).create_new(new);
        let file = open.open(&self.base)?;
        if !self.holds(&file) {
            let found = fs::read(&self.base)?;
            self.wrote.push(String::from_utf8_lossy(&found).into());
        }
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// It ends: nobody writes the log.
    pub fn end(&mut self) {
        self.file = None;
    }

    /// Whether it writes the log.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Whether it has this very file open for writing.
    #[must_use]
    pub fn holds(&self, file: &File) -> bool {
        let id = |file| stat_open(file).unwrap().id;
        self.file.as_ref().is_some_and(|own| id(own) == id(file))
    }

    /// What it wrote, and what the files held that it went on with, oldest first; the last is
    /// the base.
    #[must_use]
    pub fn wrote(&self) -> &[String] {
        &self.wrote
    }

    /// How often it rolled over.
    #[must_use]
    pub fn rollovers(&self) -> u32 {
        self.rollovers
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        if let Some(last) = self.wrote.last_mut() {
            last.push_str(&String::from_utf8_lossy(bytes));
        }
        Ok(())
    }

    /// Writes what the guest prints, and rolls over whenever the base is full. Does nothing
    /// where it does not write the log.
    ///
    /// # Errors
    /// The system's, and one where somebody else made a base during a rollover.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && self.is_open() {
            let room = self.max_size.saturating_sub(self.size);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let full = bytes.len() > room;
            let (mut head, _) = bytes.split_at(bytes.len().min(room));
            if full {
                let from = head.len().saturating_sub(usize::try_from(SLACK).unwrap());
                let newline = |(at, byte): &(usize, &u8)| *at >= from && **byte == b'\n';
                if let Some((at, _)) = head.iter().enumerate().rfind(newline) {
                    head = head.split_at(at + 1).0;
                }
            }
            self.append(head)?;
            bytes = bytes.split_at(head.len()).1;
            if full {
                self.roll_over()?;
            }
        }
        Ok(())
    }

    /// Writes the guest's next line into the base, full or not.
    pub fn write_line(&mut self) {
        if let Some(line) = self.line {
            let line = line(self.lines);
            self.append(line.as_bytes()).unwrap();
            self.lines += 1;
        }
    }

    /// What logrotate's `copytruncate` does under it. Its own idea of the size stays.
    ///
    /// # Errors
    /// The system's.
    pub fn copy_and_truncate(&mut self) -> io::Result<()> {
        for n in (1..self.max_backups).rev() {
            rename(&numbered(&self.base, n - 1), &numbered(&self.base, n))?;
        }
        fs::copy(&self.base, numbered(&self.base, 0))?;
        self.file.as_ref().map_or(Ok(()), |file| file.set_len(0))
    }

    /// A whole rollover.
    ///
    /// # Errors
    /// The system's, and one where somebody else made a base meanwhile.
    pub fn roll_over(&mut self) -> io::Result<()> {
        self.finish();
        self.queue_rollover(true);
        while let Some(call) = self.calls.pop_front() {
            self.call(call)?;
        }
        Ok(())
    }

    /// Begins a rollover, after the end of one that is under way. Its calls are made by
    /// [`Logd::step`].
    pub fn begin_rollover(&mut self) {
        self.finish();
        if self.is_open() {
            self.queue_rollover(false);
        }
    }

    /// As [`Logd::begin_rollover`], of a base that the guest fills up before.
    pub fn fill_and_begin_rollover(&mut self) {
        self.finish();
        if self.is_open() {
            let missing = self.full().saturating_sub(self.size);
            if missing > 0 {
                let fill = ".".repeat(usize::try_from(missing).unwrap());
                self.calls.push_back(Call::Fill(fill));
            }
            self.queue_rollover(false);
        }
    }

    fn queue_rollover(&mut self, new: bool) {
        for n in (0..self.max_backups).rev() {
            let from = n.checked_sub(1);
            let from = from.map_or_else(|| self.base.clone(), |n| numbered(&self.base, n));
            let to = numbered(&self.base, n);
            self.calls.push_back(Call::Rename(from, to));
        }
        if self.max_backups == 0 {
            self.calls.push_back(Call::Unlink);
        }
        self.calls.push_back(Call::Open { new });
    }

    /// It rolls over no base that is smaller, in bytes.
    fn full(&self) -> u64 {
        self.max_size.saturating_sub(SLACK)
    }

    /// How many calls [`Logd::fill_and_begin_rollover`] needs where the base holds one line.
    #[must_use]
    pub fn rollover_len(&self) -> usize {
        let line = self.line.map_or(0, |line| line(0).len());
        let fills = self.full() > line as u64;
        self.max_backups as usize + 1 + usize::from(fills)
    }

    /// Whether a rollover is under way.
    #[must_use]
    pub fn is_rolling_over(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The next [`Logd::step`] does nothing.
    pub fn hold_up(&mut self) {
        self.calls.push_front(Call::Nothing);
    }

    /// The next call of a rollover, whether it succeeds or not. Says whether there was one.
    pub fn step(&mut self) -> bool {
        let Some(call) = self.calls.pop_front() else {
            return false;
        };
        self.call(call).unwrap();
        true
    }

    /// So many calls, or as many as there are.
    pub fn steps(&mut self, count: usize) {
        for _ in 0..count {
            if !self.step() {
                return;
            }
        }
    }

    /// All that is left of a rollover.
    pub fn finish(&mut self) {
        while self.step() {}
    }

    fn call(&mut self, call: Call) -> io::Result<()> {
        match call {
            Call::Fill(bytes) => self.append(bytes.as_bytes()),
            Call::Rename(from, to) => rename(&from, &to),
            Call::Unlink => not_found_is_fine(fs::remove_file(&self.base)),
            Call::Open { new } => {
                self.open_base(new)?;
                self.rollovers += 1;
                self.write_line();
                Ok(())
            }
            Call::Nothing => Ok(()),
        }
    }
}

fn not_found_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// With the compressed file beside it, as whoever compressed it would: virtlogd leaves such a
/// file behind.
#[expect(clippy::disallowed_methods, reason = "as virtlogd does")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    not_found_is_fine(fs::rename(from, to))?;
    not_found_is_fine(fs::rename(packed(from), packed(to)))
}

/// The name of a rotated file of this number, counted from zero.
#[must_use]
pub fn numbered(base: &Path, number: u32) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn packed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".zst");
    name.into()
}
