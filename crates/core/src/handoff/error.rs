//! Why a half of a handoff fails: the cause as it was told, until it becomes the sentence of
//! an outcome.

use std::borrow::Cow;
use std::io;

use super::Damaged;
use crate::{BoxError, archive, chain, folder, follow, placement, record, transport};

/// Why a handoff, or a question about one, failed. The history is whole at the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transport's answer: [`transport::Error::advice`] tells what to do.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// An object of the handoff cannot be used.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The stream, in which pieces lie, cannot be read.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The folder's answer.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The files of the log cannot be listed.
    #[error(transparent)]
    Chain(#[from] chain::Error),
    /// The files of the log cannot be held or read.
    #[error(transparent)]
    Follow(#[from] follow::Error),
    /// The record beside the log cannot be read or written.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// History cannot be staged or placed.
    #[error(transparent)]
    Placement(#[from] placement::Error),
    /// The system has no thread to give: try again with fewer handoffs at once.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// Where the log lies here cannot be found out.
    #[error(transparent)]
    Destination(BoxError),
    /// The handoff was withdrawn: the log stays at the source.
    #[error("the handoff was withdrawn: the log stays")]
    Aborted,
    /// This half or the other gave up, in its own words.
    #[error("{0}")]
    GaveUp(Cow<'static, str>),
}

impl Error {
    pub(super) fn gave_up(why: impl Into<Cow<'static, str>>) -> Self {
        Self::GaveUp(why.into())
    }
}

/// Result of this module.
pub(super) type Result<T> = std::result::Result<T, Error>;
