use super::{InvalidKey, MAX_OBJECT};
use crate::ids::InvalidId;

/// Why a transport did not do as asked, named by outcome.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such object.
    #[error("{transport} has no {key}")]
    NotFound {
        /// The transport.
        transport: String,
        /// The object.
        key: String,
    },
    /// The object is there already; nothing is ever overwritten.
    #[error("{transport} has {key} already")]
    AlreadyExists {
        /// The transport.
        transport: String,
        /// The object.
        key: String,
    },
    /// A range that the object does not have.
    #[error("{transport}: {key} has no such range")]
    BadRange {
        /// The transport.
        transport: String,
        /// The object.
        key: String,
    },
    /// More bytes than an object may have.
    #[error("{key} would be larger than {MAX_OBJECT} bytes")]
    TooLarge {
        /// The object.
        key: String,
    },
    /// The other side does not answer, for now.
    #[error("{transport} cannot be reached: {reason}")]
    Unreachable {
        /// The transport.
        transport: String,
        /// Why.
        reason: String,
    },
    /// The other side is there and does not come to an end.
    #[error("{transport} gives no answer: {reason}")]
    Timeout {
        /// The transport.
        transport: String,
        /// What was waited for, and how long.
        reason: String,
    },
    /// The other side refuses.
    #[error("{transport} refuses: {reason}")]
    Denied {
        /// The transport.
        transport: String,
        /// Why.
        reason: String,
    },
    /// There is no room.
    #[error("{transport} is full: {reason}")]
    Full {
        /// The transport.
        transport: String,
        /// What was said.
        reason: String,
    },
    /// What came is not what can have been put.
    #[error("{transport} gave something unusable: {reason}")]
    Corrupt {
        /// The transport.
        transport: String,
        /// What is wrong.
        reason: String,
    },
    /// Not a key.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// Anything else.
    #[error("{transport}: {reason}")]
    Other {
        /// The transport.
        transport: String,
        /// What was said.
        reason: String,
    },
}

/// What can be done about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The same call may succeed later.
    Retry,
    /// An operator has to mend something first.
    Fix,
    /// It should not happen: report it.
    Report,
}

impl Error {
    /// What can be done about it.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => Advice::Retry,
            Self::Denied { .. }
            | Self::Full { .. }
            | Self::NotFound { .. }
            | Self::Other { .. } => Advice::Fix,
            _ => Advice::Report,
        }
    }
}

impl From<InvalidId> for Error {
    fn from(error: InvalidId) -> Self {
        Self::InvalidKey(error.into())
    }
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;
