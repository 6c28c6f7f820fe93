//! Why a job failed.

use logchain_core::{chain, folder, ids, record, transport};
use logchain_transport_s3::BadUrl;
use logchain_transport_ssh::BadTarget;

/// Why a job failed. Its sentence names what the reader can do, where there is something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was asked for cannot be meant: mend it, and ask again. Nothing was begun.
    #[error("{0}")]
    Usage(String),
    /// What was asked for cannot be had here as things stand. Nothing was begun.
    #[error("{0}")]
    Refused(String),
    /// libvirt's answer.
    #[error(transparent)]
    Libvirt(#[from] logchain_libvirt::Error),
    /// A log could not be opened or read.
    #[error(transparent)]
    Chain(#[from] chain::Error),
    /// The folder of a log could not be opened.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The record beside a log could not be read.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// A transport's answer: [`transport::Error::advice`] tells what to do.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// No console can have this name.
    #[error(transparent)]
    Name(#[from] ids::InvalidId),
    /// A part of the program ended by itself: report it.
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<BadTarget> for Error {
    fn from(error: BadTarget) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<BadUrl> for Error {
    fn from(error: BadUrl) -> Self {
        Self::Usage(error.to_string())
    }
}
