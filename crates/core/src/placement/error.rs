use std::io;
use std::path::{Path, PathBuf};

use crate::{chain, folder, offsets, versioned};

/// Why history could not be staged or placed. The source still has all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder's answer.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The chain could not be listed.
    #[error(transparent)]
    Chain(#[from] chain::Error),
    /// A journal or a record could not be read or written.
    #[error(transparent)]
    Record(#[from] versioned::Error),
    /// The system's answer.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process holds the chain.
    #[error("another logchain process works on this log (it holds {}); try again when it is done", .path.display())]
    Busy {
        /// The locked folder.
        path: PathBuf,
    },
    /// The log was appended to behind bytes that are part of the history.
    #[error(
        "{} begins with {bytes} bytes of an earlier stay of this VM, which the history holds too; \
         nothing was placed, so that nothing is doubled", .path.display()
    )]
    StaleBase {
        /// The base file.
        path: PathBuf,
        /// How many bytes.
        bytes: u64,
    },
    /// The writer of the log could not rename or remove what would be placed.
    #[error(
        "nothing was placed in {}, because the log's writer could not rename or remove it \
         there, and the VM would not start then: {why}", .path.display()
    )]
    Stuck {
        /// The folder of the log.
        path: PathBuf,
        /// Why it could not, and what the reader can do.
        why: String,
    },
    /// Rollovers came faster than the names could be put right.
    #[error("the rotated files of {} keep changing; the history stays staged and can be placed later", .path.display())]
    Unsettled {
        /// The base file.
        path: PathBuf,
    },
    /// Placing was asked for before the history was sealed.
    #[error("the history is not complete yet")]
    NotSealed,
    /// Discarding was asked for after the history was sealed.
    #[error("the history is complete already and can only be placed")]
    Sealed,
}

impl From<offsets::Error> for Error {
    fn from(error: offsets::Error) -> Self {
        match error {
            offsets::Error::Chain(error) => Self::Chain(error),
            offsets::Error::Record(error) => Self::Record(error),
        }
    }
}

impl Error {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;
