//! Why a job failed.

use std::io;

use logchain_core::placement::roll::RollError;
use logchain_core::reap::files;
use logchain_core::{
    archive, chain, folder, handoff, holds, ids, outbox, placement, record, sentence, transport,
};
use logchain_libvirt::virtlogd::NotAsked;
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
    /// The caller asked the job to end. The sentence says how things are left.
    #[error("{0}")]
    Interrupted(String),
    /// The domain was not migrated.
    #[error("{0}")]
    NotMigrated(String),
    /// The domain left, or may have left, and nobody can say that its log went with it.
    #[error("{0}")]
    NotCarried(String),
    /// The other half of a handoff failed, or cannot be reached. The sentence names its host.
    #[error("{0}")]
    OtherHalf(String),
    /// A log cannot be handed over, or not now.
    #[error("{0}")]
    Handoff(String),
    /// A half of a handoff failed on this host.
    #[error(transparent)]
    Half(#[from] handoff::Error),
    /// libvirt's answer.
    #[error(transparent)]
    Libvirt(#[from] logchain_libvirt::Error),
    /// virtlogd cannot be asked, or was asked in vain.
    #[error(transparent)]
    Virtlogd(#[from] NotAsked),
    /// A log could not be opened or read.
    #[error(transparent)]
    Chain(#[from] chain::Error),
    /// A log could not be read by offsets.
    #[error(transparent)]
    Offsets(#[from] logchain_core::OffsetError),
    /// The folder of a log could not be opened.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// A record or a note could not be read or written.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// What lies beside a log could not be looked at or changed.
    #[error(transparent)]
    Placement(#[from] placement::Error),
    /// A log could not be rotated.
    #[error(transparent)]
    Roll(#[from] RollError),
    /// A log could not be held.
    #[error(transparent)]
    Holds(#[from] holds::Error),
    /// The outbox could not be read or written.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    /// The files of a log that was handed over could not be removed.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// A log could not be streamed.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// A transport's answer: [`transport::Error::advice`] tells what to do.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// No console can have this name.
    #[error(transparent)]
    Name(#[from] ids::InvalidId),
    /// The system's answer.
    #[error("{action}: {source}")]
    Io {
        /// What could not be done, as "cannot create /x".
        action: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Another failure, and what it means here.
    #[error("{meaning}: {source}")]
    Because {
        /// What it means.
        meaning: String,
        /// The failure.
        source: Box<Error>,
    },
    /// A part of the program ended by itself: report it.
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The failure and its causes in one line, for an event or a log.
    #[must_use]
    pub fn sentence(&self) -> String {
        sentence(self)
    }

    /// Whether libvirt here knows no such domain.
    #[must_use]
    pub fn is_no_domain(&self) -> bool {
        matches!(
            self,
            Self::Libvirt(logchain_libvirt::Error::NoDomain { .. })
        )
    }

    /// Whether libvirt here cannot be asked.
    #[must_use]
    pub fn is_no_libvirt(&self) -> bool {
        use logchain_libvirt::Error::{Connect, NoAnswer};
        matches!(self, Self::Libvirt(Connect { .. } | NoAnswer { .. }))
    }

    /// What this failure means here.
    pub(crate) fn meaning(self, meaning: impl Into<String>) -> Self {
        Self::Because {
            meaning: meaning.into(),
            source: Box::new(self),
        }
    }
}

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
