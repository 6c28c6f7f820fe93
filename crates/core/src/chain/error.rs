//! What can go wrong with a chain.

use std::io;
use std::path::PathBuf;

use super::Compression;
use crate::folder;

/// Why a chain could not be opened or read.
///
/// The readers of a [`Snapshot`](super::Snapshot) hand it on inside an
/// [`io::Error`]: `io_error.downcast::<chain::Error>()` brings it back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder's answer: a folder that is not there, a base that is a link.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// There is no such log.
    #[error("there is no console log {}, nor any rotated file of it", .path.display())]
    NotFound {
        /// Where the base file would be.
        path: PathBuf,
    },
    /// The files never held still long enough to be opened together.
    #[error("the rotated files of {} were renamed faster than they could be opened; try again", .path.display())]
    Unsettled {
        /// The base file.
        path: PathBuf,
    },
    /// Two names of the chain are one file, so its bytes would count twice.
    #[error("{} and {} are the same file; remove one of the two names", .path.display(), .other.display())]
    SameFile {
        /// The newer name.
        path: PathBuf,
        /// The older name.
        other: PathBuf,
    },
    /// More files than are ever opened at once.
    #[error("{} has {count} rotated files, more than {most}; join or remove old ones", .path.display())]
    TooManyFiles {
        /// The base file.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// How many are opened at most.
        most: usize,
    },
    /// A file lost bytes between the snapshot and the read.
    #[error("{} was cut short while it was read; read it again", .path.display())]
    Shrunk {
        /// The file, as it was called at the snapshot.
        path: PathBuf,
    },
    /// A compressed file does not hold what its format promises.
    #[error("{} is cut short or damaged ({compression}: {source}); remove it to read without it", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its format.
        compression: Compression,
        /// What the decoder said.
        source: io::Error,
    },
    /// A compressed file holds more than is ever read from one.
    #[error("{} holds more than {limit} bytes uncompressed; remove it to read without it", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How many bytes are read from a compressed file at most.
        limit: u64,
    },
    /// The system's answer to a read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// Whether the log, or the folder it would lie in, is not there at all.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::Folder(folder::Error::NotFound { .. })
        )
    }
}

impl Error {
    /// Our own readers put the cause into an I/O error.
    pub(crate) fn of_io(error: io::Error, path: PathBuf) -> Self {
        match error.downcast() {
            Ok(own) => own,
            Err(source) => Self::Read { path, source },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::NotFound { .. } | Error::Folder(folder::Error::NotFound { .. }) => {
                io::ErrorKind::NotFound
            }
            Error::Shrunk { .. } => io::ErrorKind::UnexpectedEof,
            Error::Damaged { .. } | Error::TooLarge { .. } => io::ErrorKind::InvalidData,
            Error::Read { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;
