//! What goes wrong in a log's folder, with the path and with what the reader can do.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

/// A failure in a log's folder, with the path it happened at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing lies under this name.
    #[error("{} does not exist", .path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A name that was to be created is taken.
    #[error("{} exists already", .path.display())]
    AlreadyExists {
        /// The path.
        path: PathBuf,
    },
    /// A link, a folder, a FIFO, a device: not a log.
    #[error("{} is {what}, not a regular file; a console log must be a regular file", .path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What it is, with its article.
        what: &'static str,
    },
    /// A link or a file where a folder belongs.
    #[error("{} is not a folder", .path.display())]
    NotFolder {
        /// The path.
        path: PathBuf,
    },
    /// The file system renames only with the risk of overwriting.
    #[error(
        "cannot rename to {} without the risk of overwriting another file: its file system \
         (NFS, for one) has no such call", .path.display()
    )]
    MayOverwrite {
        /// The new name.
        path: PathBuf,
    },
    /// Too little is free on the file system, or would be then.
    #[error(
        "{bytes} bytes more in {} would leave too little room for what else is written there \
         ({free} bytes are free, {keep} stay free): make room", .path.display()
    )]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// What was to be written.
        bytes: u64,
        /// What is free.
        free: u64,
        /// What has to stay free.
        keep: u64,
    },
    /// A name that leads out of the folder, or none at all.
    #[error("{name:?} is not the name of a file in {}", .folder.display())]
    BadName {
        /// The folder.
        folder: PathBuf,
        /// The name.
        name: OsString,
    },
    /// Anything else that the system answered.
    #[error("cannot {action} {}: {source}{}", .path.display(), hint(.source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// Whether the caller may not do this here: for lack of rights, or because
    /// nobody may write.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        matches!(
            source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
    }
}

/// What the reader can do, where the system does not say.
fn hint(source: &io::Error) -> &'static str {
    match Errno::from_io_error(source) {
        Some(Errno::MFILE) => {
            "; every file of a log is held open: raise this process's limit of open files"
        }
        Some(Errno::NFILE) => "; raise fs.file-max",
        Some(Errno::NAMETOOLONG) => {
            "; with a number behind it the log's name is longer than a file system takes: give \
             the log a shorter one"
        }
        _ => "",
    }
}

pub(super) fn io_error(action: &'static str, path: PathBuf, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::NotFound { path },
        Errno::EXIST => Error::AlreadyExists { path },
        Errno::NOTDIR => Error::NotFolder { path },
        errno => Error::Io {
            action,
            path,
            source: errno.into(),
        },
    }
}
