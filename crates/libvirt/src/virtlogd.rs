//! The very process that has a log open for writing, and virtlogd's own way to open
//! its logs anew.
//!
//! Several virtlogds may run on a machine, in namespaces or one for each user: the
//! one that counts is the one that has the file open. SIGUSR1 makes it execute
//! itself again and open each log by its path (`systemctl reload virtlogd`). A
//! virtlogd that has not set its handlers yet would be ended by the same signal, and
//! every guest's log with it: so it is sent only where /proc says that it is caught.
//!
//! What would make it end then is looked for first: by a trial ([`Virtlogd::try_start`]),
//! and in all that it would open ([`Virtlogd::could_reopen`]).
//!
//! Must not know: what is rotated, and why.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

pub use loaded::Configuration;

mod loaded;
mod options;
mod reopen;
mod trial;
mod view;

/// What the kernel calls its process.
const NAME: &str = "virtlogd";

/// Who writes a file.
#[derive(Debug)]
pub enum Writer {
    /// One virtlogd, and nobody else.
    Virtlogd(Virtlogd),
    /// Somebody else: the names and numbers of all who do.
    Others(Vec<String>),
    /// Nobody who can be seen.
    Nobody,
}

/// Why virtlogd is not asked to open its logs anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAsked {
    /// It ended.
    #[error("virtlogd (process {pid}) is gone")]
    Gone {
        /// Its number.
        pid: i32,
    },
    /// It does not catch the signal now, which would end it.
    #[error("virtlogd (process {pid}) does not listen for SIGUSR1 now; try again")]
    Deaf {
        /// Its number.
        pid: i32,
    },
    /// It could not execute itself again, and would end.
    #[error(
        "the program of virtlogd (process {pid}) is not at {} any more; it cannot start itself \
         anew: install it again", .program.display()
    )]
    NoProgram {
        /// Its number.
        pid: i32,
        /// Where its program was.
        program: PathBuf,
    },
    /// It would open another file.
    #[error("virtlogd (process {pid}) sees another folder at {}", .path.display())]
    Elsewhere {
        /// Its number.
        pid: i32,
        /// The folder.
        path: PathBuf,
    },
    /// It writes a log that it could not open anew, and would end.
    #[error(
        "virtlogd (process {pid}) writes a log in {}, which is gone: it would end if it started \
         itself anew; make the folder again", .path.display()
    )]
    NoFolder {
        /// Its number.
        pid: i32,
        /// The folder.
        path: PathBuf,
    },
    /// It writes a log that it could not open anew, and would end.
    #[error(
        "virtlogd (process {pid}) could not open {} anew: {why}; it would end if it started \
         itself anew, and every guest's log with it: mend that first", .path.display()
    )]
    NotOpened {
        /// Its number.
        pid: i32,
        /// The log, or what else it has open for writing.
        path: PathBuf,
        /// Why, in words.
        why: String,
    },
    /// It could not put down what it has to remember, and would end.
    #[error(
        "virtlogd (process {pid}) could not write {}, without which it ends when it starts \
         itself anew: {why}; mend that first", .path.display()
    )]
    NoState {
        /// Its number.
        pid: i32,
        /// The file.
        path: PathBuf,
        /// Why, in words.
        why: String,
    },
    /// It could not open its logs, and would end.
    #[error(
        "virtlogd (process {pid}) has {open} files open and may have {limit}: too few to start \
         itself anew; raise its limit (LimitNOFILE of its unit, or prlimit)"
    )]
    TooManyFiles {
        /// Its number.
        pid: i32,
        /// How many it has open.
        open: u64,
        /// How many it may have open.
        limit: u64,
    },
    /// It would open no log with its configuration as it is now, and end.
    #[error(
        "{} has a max_backups above {most}, with which virtlogd (process {pid}) opens no log: it \
         would end if it started itself anew; lower it", .path.display()
    )]
    TooManyBackups {
        /// Its number.
        pid: i32,
        /// The configuration file.
        path: PathBuf,
        /// How many virtlogd takes.
        most: u32,
    },
    /// Its program does not start with its configuration as it is now.
    #[error(
        "virtlogd (process {pid}) would end if it started itself anew, and every guest's log \
         with it: its program, started on trial, said \"{said}\"; mend {}, then try again",
        .path.as_deref().unwrap_or(Path::new("that")).display()
    )]
    WouldEnd {
        /// Its number.
        pid: i32,
        /// The configuration file, where the program named it.
        path: Option<PathBuf>,
        /// What the program said last.
        said: String,
    },
    /// Whether it would start could not be found out.
    #[error(
        "cannot try whether virtlogd (process {pid}) could start itself anew, without which it \
         is not asked: {why}"
    )]
    NotTried {
        /// Its number.
        pid: i32,
        /// Why, in words.
        why: String,
    },
    /// The system's answer.
    #[error("cannot ask virtlogd (process {pid}): {what}")]
    Failed {
        /// Its number.
        pid: i32,
        /// In words.
        what: String,
    },
}

/// A process of virtlogd's, held: its number is never another's.
pub struct Virtlogd {
    pid: Pid,
    held: OwnedFd,
}

impl fmt::Debug for Virtlogd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Virtlogd").field(&self.number()).finish()
    }
}

/// Who has `file` open for writing. Of other users' processes only root sees that.
/// Blocks for as long as /proc takes.
pub fn writer_of(file: &File) -> io::Result<Writer> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|n| n.parse::<i32>().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // One that ends meanwhile is none; one that may not be looked at is not seen.
        if writes(pid, file).unwrap_or(false) {
            found.push(pid);
        }
    }
    if let [pid] = found.as_slice()
        && name_of(*pid) == NAME
        && let Ok(held) = pidfd_open(*pid, PidfdFlags::empty())
    {
        // Looked at again, now that it is held.
        if name_of(*pid) == NAME && writes(*pid, file).unwrap_or(false) {
            return Ok(Writer::Virtlogd(Virtlogd { pid: *pid, held }));
        }
    }
    if found.is_empty() {
        return Ok(Writer::Nobody);
    }
    let told = |pid: &Pid| format!("{} (process {})", name_of(*pid), pid.as_raw_nonzero());
    Ok(Writer::Others(found.iter().map(told).collect()))
}

impl Virtlogd {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it has `file` open for writing and could be asked again.
    ///
    /// # Errors
    /// [`NotAsked::Gone`].
    pub fn writes(&self, file: &File) -> Result<bool, NotAsked> {
        let gone = |_| NotAsked::Gone { pid: self.number() };
        let status = self.read("status").map_err(gone)?;
        // Ended, and not collected yet.
        if state(&status) == Some('Z') || name_of(self.pid) != NAME {
            return Err(NotAsked::Gone { pid: self.number() });
        }
        Ok(catches(&status, Signal::USR1) && writes(self.pid, file).unwrap_or(false))
    }

    /// Asks it to open all its logs anew, by path; `path` is that of one of them, whose
    /// base was renamed, and `others` as for [`Virtlogd::could_reopen`].
    ///
    /// # Errors
    /// [`NotAsked`]: nothing was sent.
    pub fn reopen_logs(&self, path: &Path, others: &[PathBuf]) -> Result<(), NotAsked> {
        let pid = self.number();
        let failed = |e: io::Error| NotAsked::Failed {
            pid,
            what: e.to_string(),
        };
        self.sees(path)?;
        self.could_reopen(path, others)?;
        let status = self.read("status").map_err(|_| NotAsked::Gone { pid })?;
        // One that is stopped would act on it at some other time.
        if !catches(&status, Signal::USR1) || matches!(state(&status), Some('T' | 't')) {
            return Err(NotAsked::Deaf { pid });
        }
        match pidfd_send_signal(&self.held, Signal::USR1) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::SRCH) => Err(NotAsked::Gone { pid }),
            Err(e) => Err(failed(e.into())),
        }
    }

    /// Whether the folder of `path` is the same for it as for us.
    ///
    /// # Errors
    /// [`NotAsked::Elsewhere`].
    pub fn sees(&self, path: &Path) -> Result<(), NotAsked> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let id = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino()));
        let there = self.in_its_files(folder);
        match (id(folder), id(&there)) {
            (Ok(ours), Ok(its)) if ours == its => Ok(()),
            _ => Err(NotAsked::Elsewhere {
                pid: self.number(),
                path: folder.to_owned(),
            }),
        }
    }

    fn in_its_files(&self, path: &Path) -> PathBuf {
        self.proc("root")
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    fn proc(&self, name: &str) -> PathBuf {
        proc_of(self.pid).join(name)
    }

    fn read(&self, name: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.proc(name))?).into_owned())
    }
}

fn proc_of(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()))
}

fn name_of(pid: Pid) -> String {
    let comm = fs::read(proc_of(pid).join("comm")).unwrap_or_default();
    let comm = String::from_utf8_lossy(&comm);
    comm.trim_end()
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// Whether the process has `file` open for writing.
fn writes(pid: Pid, file: &File) -> io::Result<bool> {
    let wanted = file.metadata()?;
    let proc = proc_of(pid);
    for entry in fs::read_dir(proc.join("fd"))? {
        let name = entry?.file_name();
        let there = match fs::metadata(proc.join("fd").join(&name)) {
            Ok(there) => there,
            // Closed meanwhile.
            Err(_) => continue,
        };
        if (there.dev(), there.ino()) != (wanted.dev(), wanted.ino()) {
            continue;
        }
        let info = fs::read_to_string(proc.join("fdinfo").join(&name)).unwrap_or_default();
        if is_writable(&info) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A regular file that a process has open for writing, beside its output.
struct Writable {
    /// The path that it has now, or had last.
    path: PathBuf,
    found: fs::Metadata,
}

fn writable_files(pid: Pid) -> io::Result<Vec<Writable>> {
    let proc = proc_of(pid);
    let mut files = Vec::new();
    for entry in fs::read_dir(proc.join("fd"))? {
        let name = entry?.file_name();
        // Its output is handed on as it is, and not opened anew.
        if ["0", "1", "2"].iter().any(|standard| name == *standard) {
            continue;
        }
        let fd = proc.join("fd").join(&name);
        let info = fs::read_to_string(proc.join("fdinfo").join(&name)).unwrap_or_default();
        // What was closed meanwhile is none.
        if is_writable(&info)
            && let Ok(found) = fs::metadata(&fd)
            && found.is_file()
            && let Ok(path) = fs::read_link(&fd)
        {
            let path = living(path);
            files.push(Writable { path, found });
        }
    }
    Ok(files)
}

/// Pure: the path that a file had, from what the kernel says of one that is gone.
fn living(path: PathBuf) -> PathBuf {
    let text = path
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"));
    text.map(PathBuf::from).unwrap_or(path)
}

/// Pure: whether a descriptor can be written to, by its text in `/proc/*/fdinfo`.
pub(crate) fn is_writable(info: &str) -> bool {
    // The access mode: 0 is reading only.
    flags(info).is_some_and(|flags| flags & 0o3 != 0)
}

/// Pure: the flags of a descriptor as `open` takes them, by its text in `/proc/*/fdinfo`.
pub(crate) fn flags(info: &str) -> Option<u32> {
    let flags = info.lines().find_map(|l| l.strip_prefix("flags:"))?;
    u32::from_str_radix(flags.trim(), 8).ok()
}

/// Pure: whether a process catches a signal, by its `/proc/*/status`.
fn catches(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    let bit = u32::try_from(signal.as_raw().saturating_sub(1)).ok();
    let shifted = mask.zip(bit).and_then(|(mask, bit)| mask.checked_shr(bit));
    shifted.is_some_and(|mask| mask & 1 == 1)
}

/// Pure: the state of a process, by its `/proc/*/status`.
fn state(status: &str) -> Option<char> {
    let state = status.lines().find_map(|l| l.strip_prefix("State:"))?;
    state.trim().chars().next()
}

#[cfg(test)]
mod tests;
