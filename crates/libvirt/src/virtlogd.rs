//! The very process that has a log open for writing, and virtlogd's own way to open
//! its logs anew.
//!
//! Several virtlogds may run on a machine, in namespaces or one for each user: the
//! one that counts is the one that has the file open. SIGUSR1 makes it execute
//! itself again and open each log by its path (`systemctl reload virtlogd`). A
//! virtlogd that has not set its handlers yet would be ended by the same signal, and
//! every guest's log with it: so it is sent only where /proc says that it is caught.
//!
//! Must not know: what is rotated, and why.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

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
///
/// # Errors
/// What reading /proc gives.
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

    /// Asks it to open all its logs anew, by path; `path` is that of one of them.
    ///
    /// # Errors
    /// [`NotAsked`]: nothing was sent.
    pub fn reopen_logs(&self, path: &Path) -> Result<(), NotAsked> {
        let pid = self.number();
        let failed = |e: io::Error| NotAsked::Failed {
            pid,
            what: e.to_string(),
        };
        self.sees(path)?;
        self.would_come_back()?;
        let status = self.read("status").map_err(|_| NotAsked::Gone { pid })?;
        if !catches(&status, Signal::USR1) {
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

    /// Whether it could start itself anew: its program is there, and the folders of
    /// all that it writes. It does not survive a log that it cannot open.
    ///
    /// # Errors
    /// [`NotAsked::NoProgram`], [`NotAsked::NoFolder`], [`NotAsked::Gone`].
    pub fn would_come_back(&self) -> Result<(), NotAsked> {
        let pid = self.number();
        let link = fs::read_link(self.proc("exe"));
        let program = living(link.map_err(|_| NotAsked::Gone { pid })?);
        // What was replaced by an update is started as it is now.
        if !self.in_its_files(&program).is_file() {
            return Err(NotAsked::NoProgram { pid, program });
        }
        for path in written_by(self.pid).map_err(|_| NotAsked::Gone { pid })? {
            let path = path.parent().unwrap_or(Path::new("/")).to_owned();
            if !self.in_its_files(&path).is_dir() {
                return Err(NotAsked::NoFolder { pid, path });
            }
        }
        Ok(())
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

/// The regular files that a process has open for writing, by the paths they have now.
fn written_by(pid: Pid) -> io::Result<Vec<PathBuf>> {
    let proc = proc_of(pid);
    let mut paths = Vec::new();
    for entry in fs::read_dir(proc.join("fd"))? {
        let name = entry?.file_name();
        let fd = proc.join("fd").join(&name);
        let info = fs::read_to_string(proc.join("fdinfo").join(&name)).unwrap_or_default();
        if is_writable(&info) && fs::metadata(&fd).is_ok_and(|m| m.is_file()) {
            paths.extend(fs::read_link(&fd).ok().map(living));
        }
    }
    Ok(paths)
}

/// Pure: the path that a file had, from what the kernel says of one that is gone.
fn living(path: PathBuf) -> PathBuf {
    let text = path
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"));
    text.map(PathBuf::from).unwrap_or(path)
}

/// Pure: whether a descriptor can be written to, by its text in `/proc/*/fdinfo`.
fn is_writable(info: &str) -> bool {
    let flags = info.lines().find_map(|l| l.strip_prefix("flags:"));
    let flags = flags.and_then(|f| u32::from_str_radix(f.trim(), 8).ok());
    // The access mode: 0 is reading only.
    flags.is_some_and(|flags| flags & 0o3 != 0)
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
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    #[test]
    fn descriptors_and_signals_are_read() {
        assert!(is_writable("pos:\t0\nflags:\t0100001\nmnt_id:\t9\n"));
        assert!(is_writable("pos:\t0\nflags:\t02102002\n"));
        assert!(!is_writable("pos:\t0\nflags:\t0100000\n"));
        assert!(!is_writable("") && !is_writable("flags:\tx\n"));
        let status = "Name:\tx\nState:\tS (sleeping)\nSigCgt:\t0000000000000200\n";
        assert!(catches(status, Signal::USR1) && !catches(status, Signal::USR2));
        assert!(!catches("", Signal::USR1));
        assert_eq!((state(status), state("")), (Some('S'), None));
    }

    /// A process of that name that appends to the file until it is killed.
    fn stand_in(folder: &Path, log: &Path, script: &str) -> Child {
        let program = folder.join(NAME);
        if !program.exists() {
            fs::copy("/bin/bash", &program).unwrap();
        }
        let append = fs::OpenOptions::new().append(true).open(log).unwrap();
        let mut command = Command::new(program);
        command.args(["--norc", "-c", script]);
        let child = command.stdin(Stdio::piped()).stdout(append).spawn();
        child.unwrap()
    }

    fn wait(mut done: impl FnMut() -> bool) {
        for _ in 0..400 {
            if done() {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "no runtime is here")]
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("it did not come to that");
    }

    #[test]
    fn the_one_that_writes_is_found_and_asked() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        fs::write(&log, "").unwrap();
        let file = File::open(&log).unwrap();
        assert!(matches!(writer_of(&file).unwrap(), Writer::Nobody));

        let script =
            "trap 'echo asked' USR1; while read -r -t 0.05 x || [ $? -gt 128 ]; do :; done";
        let mut child = stand_in(folder.path(), &log, script);
        let Writer::Virtlogd(found) = ({
            wait(|| matches!(writer_of(&file), Ok(Writer::Virtlogd(_))));
            writer_of(&file).unwrap()
        }) else {
            panic!("not found")
        };
        assert_eq!(found.number(), i32::try_from(child.id()).unwrap());
        wait(|| found.writes(&file) == Ok(true));
        found.reopen_logs(&log).unwrap();
        wait(|| fs::read(&log).unwrap() == b"asked\n");
        // Its program is gone: it could not start itself anew.
        let program = folder.path().join(NAME);
        fs::remove_file(&program).unwrap();
        let error = found.reopen_logs(&log).unwrap_err();
        assert!(matches!(error, NotAsked::NoProgram { .. }), "{error}");
        fs::copy("/bin/bash", &program).unwrap();
        found.would_come_back().unwrap();
        // Another one writes too: nobody is asked.
        let other = fs::OpenOptions::new().append(true).open(&log).unwrap();
        let Writer::Others(who) = writer_of(&file).unwrap() else {
            panic!("two write")
        };
        assert_eq!(who.len(), 2, "{who:?}");
        drop(other);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(
            found.writes(&file),
            Err(NotAsked::Gone {
                pid: found.number()
            })
        );
        assert!(matches!(writer_of(&file).unwrap(), Writer::Nobody));
    }

    #[test]
    fn one_that_could_not_open_its_log_again_is_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let logs = tempfile::tempdir().unwrap();
        let log = logs.path().join("console.log");
        fs::write(&log, "").unwrap();
        let file = File::open(&log).unwrap();
        let mut child = stand_in(folder.path(), &log, "trap : USR1; read -r x");
        wait(|| matches!(writer_of(&file), Ok(Writer::Virtlogd(_))));
        let Writer::Virtlogd(found) = writer_of(&file).unwrap() else {
            panic!("not found")
        };
        found.would_come_back().unwrap();
        fs::remove_file(&log).unwrap();
        // It would make a new one.
        found.would_come_back().unwrap();
        drop(logs);
        let error = found.would_come_back().unwrap_err();
        assert!(matches!(error, NotAsked::NoFolder { .. }), "{error}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn one_that_the_signal_would_end_is_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        fs::write(&log, "").unwrap();
        let file = File::open(&log).unwrap();
        let mut child = stand_in(folder.path(), &log, "read -r x");
        wait(|| matches!(writer_of(&file), Ok(Writer::Virtlogd(_))));
        let Writer::Virtlogd(found) = writer_of(&file).unwrap() else {
            panic!("not found")
        };
        assert_eq!(found.writes(&file), Ok(false));
        let error = found.reopen_logs(&log).unwrap_err();
        assert!(matches!(error, NotAsked::Deaf { .. }), "{error}");
        let elsewhere = found.sees(Path::new("/no/such/folder/x"));
        assert!(matches!(elsewhere, Err(NotAsked::Elsewhere { .. })));
        assert!(child.try_wait().unwrap().is_none());
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
