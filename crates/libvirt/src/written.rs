//! Which file a running guest's log is really written to.
//!
//! virtlogd (with `stdio_handler = "file"`: QEMU) keeps writing the file that it
//! opened, whatever becomes of its name. Removed or renamed under it, the log is
//! found by nobody who looks at the path, though every byte of it is there: the
//! kernel shows it as a descriptor of that process.
//!
//! Deciding is pure ([`decide`]); [`Open`] is what /proc says.
//!
//! Must not know: libvirt, records, how a chain is read.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::virtlogd::{flags, is_writable};

/// Device and inode number: which file it is, as long as somebody has it open.
pub type Inode = (u64, u64);

/// A process that may write console logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// virtlogd: all logs of its host.
    Virtlogd,
    /// QEMU: with `stdio_handler = "file"` its own.
    Qemu,
}

/// A regular file that such a process has open for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Number of the process.
    pub process: i32,
    /// Number of the descriptor.
    pub fd: i32,
    /// What the process is.
    pub kind: Kind,
    /// Where the file lies now, or lay until it was removed, as that process sees it.
    pub path: PathBuf,
    /// Whether it was removed.
    pub removed: bool,
    /// Which file.
    pub inode: Inode,
}

/// What is known of one log.
#[derive(Clone, Debug)]
pub struct Log<'a> {
    /// Its path, as libvirt has it.
    pub path: &'a Path,
    /// The base file, where there is one.
    pub base: Option<Inode>,
    /// Rotated files of its chain.
    pub rotated: &'a [Inode],
    /// Paths of the other console logs on this host.
    pub others: &'a [PathBuf],
    /// Whether each of the other running guests' logs is known to have a writer: only
    /// then is a descriptor that explains nothing else this log's.
    pub is_only_one_without_writer: bool,
}

/// Who writes a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// Somebody writes the file at its path.
    AtItsPath,
    /// This one is written, and nobody who looks at the path sees it.
    Hidden(Descriptor),
    /// Several could be it.
    Doubtful(Vec<Descriptor>),
    /// Nobody who can be seen writes it.
    ByNobody,
}

/// Pure: which of the open files is the log's. The paths of `open` and of the log are
/// compared as they stand: see [`Open::of`] for folders that have two.
#[must_use]
pub fn decide(log: &Log<'_>, open: &[Descriptor]) -> Written {
    if open.iter().any(|d| log.base == Some(d.inode)) {
        return Written::AtItsPath;
    }
    let removed = |d: &&Descriptor| d.removed && d.path == log.path;
    let chain = |d: &&Descriptor| !d.removed && log.rotated.contains(&d.inode);
    let derived = |d: &&Descriptor| {
        let same_folder = d.path.parent() == log.path.parent();
        same_folder && is_derived(d.path.file_name(), log.path) && !log.is_of_another(&d.path)
    };
    let unexplained = |d: &&Descriptor| {
        log.is_only_one_without_writer
            && d.kind == Kind::Virtlogd
            && !is_no_console(&d.path)
            && !log.is_of_another(&d.path)
    };
    let rules: [&dyn Fn(&&Descriptor) -> bool; 4] = [&removed, &chain, &derived, &unexplained];
    for rule in rules {
        let mut found: Vec<Descriptor> = open.iter().filter(rule).cloned().collect();
        // One file may be open twice, by QEMU and its helper.
        found.sort_by_key(|d| d.inode);
        found.dedup_by_key(|d| d.inode);
        if found.len() > 1 {
            return Written::Doubtful(found);
        }
        if let Some(found) = found.pop() {
            return Written::Hidden(found);
        }
    }
    Written::ByNobody
}

impl Log<'_> {
    /// Whether a path is another console's log, or one of its rotated files.
    fn is_of_another(&self, path: &Path) -> bool {
        self.others.iter().any(|other| {
            let longer = other.as_os_str().len() > self.path.as_os_str().len();
            let its = other.parent() == path.parent() && is_derived(path.file_name(), other);
            path == other || (its && (longer || other.parent() != self.path.parent()))
        })
    }
}

/// Whether a name is that of `base` with something behind it: `console.log.1`,
/// `console.log-20261127`, `console.log.old`.
fn is_derived(name: Option<&OsStr>, base: &Path) -> bool {
    let behind = name
        .zip(base.file_name())
        .and_then(|(name, base)| name.as_bytes().strip_prefix(base.as_bytes()));
    behind.is_some_and(|behind| matches!(behind.first(), Some(b'.' | b'-' | b'_' | b'~')))
}

/// What virtlogd has open for writing besides console logs: its own files, and what the
/// QEMUs say on their standard error, in `…/libvirt/qemu/<domain>.log`.
fn is_no_console(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    let extension = path.extension().and_then(OsStr::to_str);
    let own = path
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"virtlogd"));
    own || extension == Some("pid")
        || path.starts_with("/run")
        || path.starts_with("/var/run")
        || path.starts_with("/dev")
        || (folder == Some(OsStr::new("qemu")) && path.components().any(is_libvirt))
}

fn is_libvirt(component: std::path::Component<'_>) -> bool {
    component.as_os_str() == "libvirt"
}

/// What the processes of libvirt's on this host have open for writing. Of other users'
/// processes only root sees that.
pub struct Open {
    processes: Vec<Process>,
}

struct Process {
    /// Its root, as we reach it.
    root: PathBuf,
    /// Whether a path means the same to it as to us.
    same_files: bool,
    open: Vec<Descriptor>,
}

impl Open {
    /// Looks once, for all logs of the host.
    pub fn look() -> io::Result<Self> {
        let namespace = fs::read_link("/proc/self/ns/mnt").ok();
        let mut all = Vec::new();
        for (pid, kind) in processes()? {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            // It may not be looked at, or has ended.
            let Ok(open) = open_for_writing(&proc, kind, None) else {
                continue;
            };
            let its = fs::read_link(proc.join("ns/mnt")).ok();
            all.push(Process {
                same_files: its.is_some() && its == namespace,
                root: proc.join("root"),
                open: open
                    .into_iter()
                    .filter_map(|(fd, _)| Descriptor::look(&proc, (pid, fd), kind))
                    .collect(),
            });
        }
        Ok(Self { processes: all })
    }

    /// Descriptors of the processes that see the folder of `path` as we do; `None` where
    /// there is no such process. One that has another path to the folder is told as if it
    /// had ours.
    #[must_use]
    pub fn of(&self, path: &Path) -> Option<Vec<Descriptor>> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let ours = inode(folder);
        let mut found = None;
        for process in &self.processes {
            let there = |path: &Path| {
                let beneath = path.strip_prefix("/").unwrap_or(path);
                inode(&process.root.join(beneath))
            };
            if !process.same_files && (ours.is_none() || there(folder) != ours) {
                continue;
            }
            let found = found.get_or_insert_with(Vec::new);
            for descriptor in &process.open {
                let mut descriptor = descriptor.clone();
                let parent = descriptor.path.parent().unwrap_or(Path::new("/"));
                if parent != folder
                    && ours.is_some()
                    && there(parent) == ours
                    && let Some(name) = descriptor.path.file_name()
                {
                    descriptor.path = folder.join(name);
                }
                found.push(descriptor);
            }
        }
        found
    }
}

impl Descriptor {
    /// `None`: it was closed meanwhile, or is no regular file.
    fn look(proc: &Path, (process, fd): (i32, i32), kind: Kind) -> Option<Self> {
        let link = proc.join("fd").join(fd.to_string());
        let text = fs::read_link(&link).ok()?;
        let stat = fs::metadata(&link).ok().filter(fs::Metadata::is_file)?;
        let (path, removed) = living(text, stat.nlink());
        Some(Self {
            process,
            fd,
            kind,
            path,
            removed,
            inode: (stat.dev(), stat.ino()),
        })
    }
}

impl Descriptor {
    /// The very file, open for reading only.
    ///
    /// # Errors
    /// The system's answer; [`io::ErrorKind::NotFound`] where the process has closed it, or
    /// has another file under that number by now.
    pub fn open(&self) -> io::Result<File> {
        let file = File::open(format!("/proc/{}/fd/{}", self.process, self.fd))?;
        let stat = file.metadata()?;
        if (stat.dev(), stat.ino()) != self.inode {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(file)
    }
}

/// Whether virtlogd or a QEMU on this host has `file` open for writing. Asks no file
/// system but /proc unless one seems to.
pub(crate) fn is_written_here(file: &File) -> bool {
    let Ok(wanted) = file.metadata() else {
        return false;
    };
    let wanted = (wanted.dev(), wanted.ino());
    processes()
        .unwrap_or_default()
        .into_iter()
        .any(|(pid, kind)| {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            let open = open_for_writing(&proc, kind, Some(wanted.1)).unwrap_or_default();
            let mut open = open
                .into_iter()
                .map(|(fd, _)| proc.join("fd").join(fd.to_string()));
            open.any(|fd| inode(&fd) == Some(wanted))
        })
}

/// Every process that may write console logs.
fn processes() -> io::Result<Vec<(i32, Kind)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let pid = entry.file_name().to_str().and_then(|n| n.parse().ok());
        // One that ends meanwhile is none.
        let comm = pid.and_then(|pid: i32| fs::read(format!("/proc/{pid}/comm")).ok());
        if let Some((pid, kind)) = pid.zip(comm.as_deref().and_then(kind_of)) {
            found.push((pid, kind));
        }
    }
    Ok(found)
}

/// Pure: by the name that the kernel has for a process.
fn kind_of(comm: &[u8]) -> Option<Kind> {
    if comm.trim_ascii_end() == b"virtlogd" {
        return Some(Kind::Virtlogd);
    }
    comm.starts_with(b"qemu").then_some(Kind::Qemu)
}

/// The descriptors through which a process may write console logs, and their inode
/// numbers; with `wanted` only those of that number.
fn open_for_writing(
    proc: &Path,
    kind: Kind,
    wanted: Option<u64>,
) -> io::Result<Vec<(i32, Option<u64>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc.join("fdinfo"))? {
        let Ok(entry) = entry else { continue };
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let fd = entry.file_name().to_str().and_then(|n| n.parse().ok());
        let ino = field(&info, "ino:").and_then(|ino| ino.parse().ok());
        // Kernels before 5.14 do not tell the number.
        let other = wanted.is_some() && ino.is_some() && ino != wanted;
        if let Some(fd) = fd.filter(|_| may_be_log(kind, &info) && !other) {
            found.push((fd, ino));
        }
    }
    Ok(found)
}

/// Pure: whether a descriptor is open as a console log is. virtlogd opens each of them to
/// append and to be closed on exec (libvirt's `virRotatingFileWriterEntryNew`); what it
/// inherited from whoever started it, a lock say, is none.
fn may_be_log(kind: Kind, info: &str) -> bool {
    let as_virtlogd = (OFlags::APPEND | OFlags::CLOEXEC).bits();
    let needed = match kind {
        Kind::Virtlogd => as_virtlogd,
        Kind::Qemu => 0,
    };
    is_writable(info) && flags(info).is_some_and(|flags| flags & needed == needed)
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.map(str::trim)
}

/// Pure: the path that a file has or had, and whether it was removed, from what the
/// kernel says. A file may really be called `x (deleted)`: it has a name then.
fn living(text: PathBuf, names: u64) -> (PathBuf, bool) {
    const REMOVED: &[u8] = b" (deleted)";
    match text.as_os_str().as_bytes().strip_suffix(REMOVED) {
        // With a name left elsewhere (a hard link) it is gone from this path all the same.
        Some(path) if names == 0 || !text.exists() => {
            (PathBuf::from(OsString::from_vec(path.to_vec())), true)
        }
        _ => (text, false),
    }
}

/// Which file lies at a path now.
#[must_use]
pub fn inode(path: &Path) -> Option<Inode> {
    let stat = fs::metadata(path).ok()?;
    Some((stat.dev(), stat.ino()))
}

#[cfg(test)]
mod tests;
