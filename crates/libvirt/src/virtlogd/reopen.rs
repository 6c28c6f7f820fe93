//! What would make virtlogd end, or lose a log, when it executes itself again, as far
//! as it can be seen from outside without starting anything: cheap, and looked at once
//! more right before the signal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::trial::{Bad, Image, Run};
use super::{NotAsked, Virtlogd, living, options, trial, writable_files};
use crate::virtlogd_conf::{MAX_BACKUPS, limits};

/// What it writes before it executes itself again: where it could not, it ends.
/// Source: libvirt 9.0.0, `src/logging/log_daemon.c`.
const STATE: &str = "virtlogd-restart-exec.json";

/// So much has to be free for it; it takes some hundred bytes for each log.
const STATE_BYTES: u64 = 256 << 10;

/// Descriptors that the new image may need beside those that it gets.
const MORE_FILES: u64 = 16;

/// The end of the name of its socket.
const SOCKET: &str = "/libvirt/virtlogd-sock";

impl Virtlogd {
    /// Whether it could open its logs anew and go on: its program, its configuration,
    /// every log that it writes, `others` that it may have by a path of which only
    /// libvirt knows, and where it puts down what it has to remember. `renamed` is a
    /// log whose base will have gone by then. Nothing is started; see
    /// [`Virtlogd::try_start`].
    ///
    /// # Errors
    /// [`NotAsked`], with what to mend.
    pub fn could_reopen(&self, renamed: &Path, others: &[PathBuf]) -> Result<(), NotAsked> {
        let pid = self.number();
        let gone = |_| NotAsked::Gone { pid };
        let link = fs::read_link(self.proc("exe")).map_err(gone)?;
        let program = living(link);
        // What was replaced by an update is started as it is now.
        if !self.in_its_files(&program).is_file() {
            return Err(NotAsked::NoProgram { pid, program });
        }
        self.could_open_more()?;
        self.takes_its_logs()?;
        let view = self.view().map_err(gone)?;
        let written = writable_files(self.pid).map_err(gone)?;
        let paths = written.iter().map(|file| &file.path).chain(others);
        for path in paths {
            let folder = path.parent().unwrap_or(Path::new("/"));
            if !self.in_its_files(folder).is_dir() {
                let path = folder.to_owned();
                return Err(NotAsked::NoFolder { pid, path });
            }
            if let Some(why) = view.cannot_append(path) {
                let path = path.to_owned();
                return Err(NotAsked::NotOpened { pid, path, why });
            }
        }
        if let Some(why) = view.cannot_make(renamed) {
            let path = renamed.to_owned();
            return Err(NotAsked::NotOpened { pid, path, why });
        }
        let folder = self.state_folder();
        let path = folder.join(STATE);
        // One that was left by a crash is written over.
        let why = view.cannot_append(&path);
        let why = why.or_else(|| view.has_no_room(&folder, STATE_BYTES));
        // A user's virtlogd makes the folder.
        let is_made = self.user() != Some(0) && !self.in_its_files(&folder).exists();
        if let Some(why) = why.filter(|_| !is_made) {
            return Err(NotAsked::NoState { pid, path, why });
        }
        Ok(())
    }

    /// A limit that was lowered since leaves too few descriptors.
    fn could_open_more(&self) -> Result<(), NotAsked> {
        let pid = self.number();
        let gone = |_| NotAsked::Gone { pid };
        let open = fs::read_dir(self.proc("fd")).map_err(gone)?.count();
        let open = u64::try_from(open).unwrap_or(u64::MAX);
        let limit = open_limit(&self.read("limits").map_err(gone)?);
        match limit {
            Some(limit) if open.saturating_add(MORE_FILES) > limit => {
                Err(NotAsked::TooManyFiles { pid, open, limit })
            }
            _ => Ok(()),
        }
    }

    /// virtlogd starts with any number of backups, and opens no log with too many.
    fn takes_its_logs(&self) -> Result<(), NotAsked> {
        let pid = self.number();
        let found = self.configuration();
        let found = found.map_err(|e| NotAsked::Failed {
            pid,
            what: e.to_string(),
        })?;
        let text = found.text.unwrap_or_default();
        let limits = limits(&String::from_utf8_lossy(&text)).value;
        if limits.max_backups > MAX_BACKUPS {
            return Err(NotAsked::TooManyBackups {
                pid,
                path: found.path,
                most: MAX_BACKUPS,
            });
        }
        Ok(())
    }

    /// The folder above that of its sockets: where the system's has its pid file, too.
    fn run_folder(&self) -> Option<PathBuf> {
        let sockets = self.read("net/unix").ok()?;
        let fds = fs::read_dir(self.proc("fd")).ok()?;
        let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        let own: Vec<String> = links
            .filter_map(|link| Some(socket_number(link.to_str()?)?.to_owned()))
            .collect();
        let mut folders = sockets.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(6);
            let (number, path) = (words.next()?, words.next()?);
            own.iter().any(|o| o == number).then_some(())?;
            path.strip_suffix(SOCKET).map(PathBuf::from)
        });
        folders.find(|folder| folder.is_absolute())
    }

    fn state_folder(&self) -> PathBuf {
        let run = self.run_folder();
        match self.user() {
            Some(0) | None => run.unwrap_or_else(|| PathBuf::from("/run")),
            Some(user) => {
                let run = run.unwrap_or_else(|| PathBuf::from(format!("/run/user/{user}")));
                run.join("libvirt")
            }
        }
    }

    /// Starts the program that it would execute, with its arguments and its
    /// configuration, beside it and apart from it, and has that execute itself again.
    /// Whatever comes of it, the trial has ended when this returns; it takes some
    /// tenths of a second, 20 s at the most.
    ///
    /// # Errors
    /// [`NotAsked::WouldEnd`] with what the program said; [`NotAsked::NotTried`].
    pub fn try_start(&self) -> Result<(), NotAsked> {
        let pid = self.number();
        let not_tried = |e: io::Error| NotAsked::NotTried {
            pid,
            why: e.to_string(),
        };
        let image = self.image().map_err(not_tried)?;
        trial::run(&image).map_err(|bad| match bad {
            Bad::Ended(said) => {
                // Where it says which file displeases it, that is the one to mend.
                let path = self.configuration_path().map(|(path, _)| path).ok();
                let named = |path: &PathBuf| said.contains(&*path.to_string_lossy());
                let path = path.filter(named);
                NotAsked::WouldEnd { pid, path, said }
            }
            Bad::NotMade(why) => NotAsked::NotTried { pid, why },
        })
    }

    fn image(&self) -> io::Result<Image> {
        let own = fs::read_link("/proc/self/ns/user")?;
        if fs::read_link(self.proc("ns/user"))? != own {
            return Err(io::Error::other("it runs in a user namespace of its own"));
        }
        let run = match self.user() {
            Some(0) => {
                // Resolved there: a link to a folder is covered with that.
                let mut folders = vec![self.run_folder().unwrap_or_else(|| "/run".into())];
                for folder in ["/run", "/var/run"].map(PathBuf::from) {
                    let there = fs::symlink_metadata(self.in_its_files(&folder));
                    if there.is_ok_and(|m| m.is_dir()) && !folders.contains(&folder) {
                        folders.push(folder);
                    }
                }
                Run::Folders(folders)
            }
            Some(user) if user == rustix::process::geteuid().as_raw() => Run::Session,
            _ => {
                return Err(io::Error::other(
                    "it is another user's; run this as that user",
                ));
            }
        };
        let (name, args) = self.arguments()?;
        Ok(Image {
            pid: self.pid,
            name,
            args: options::options(&args).for_trial,
            environment: self.environment()?,
            run,
        })
    }
}

/// Pure: the number in what the kernel says of a socket's descriptor.
fn socket_number(link: &str) -> Option<&str> {
    link.strip_prefix("socket:[")?.strip_suffix(']')
}

/// Pure: how many files a process may have open, by its `/proc/*/limits`; `None`:
/// any number, or it is not said.
fn open_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"));
    line?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        assert_eq!(socket_number("socket:[129447]"), Some("129447"));
        assert_eq!(socket_number("pipe:[1]"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        assert_eq!(open_limit(limits), Some(1024));
        let any = "Max open files            unlimited            unlimited            files\n";
        assert_eq!((open_limit(any), open_limit("")), (None, None));
    }
}
