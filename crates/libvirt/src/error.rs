//! What can go wrong, named by what the caller can do about it.

use std::time::Duration;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, with the host and the domain it happened at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host does not know the domain.
    #[error(
        "there is no domain {domain} at {uri}; `virsh -c {uri} list --all` shows those that are there"
    )]
    NoDomain {
        /// As it was asked for.
        domain: String,
        /// The host.
        uri: String,
    },
    /// No answer within the time that was given.
    #[error(
        "{uri} did not {action} within {} s; see whether libvirtd runs there and the network reaches it",
        limit.as_secs_f32()
    )]
    NoAnswer {
        /// What was tried.
        action: String,
        /// The host.
        uri: String,
        /// How long was waited.
        limit: Duration,
    },
    /// No connection could be made.
    #[error("cannot connect to {uri}: {message}")]
    Connect {
        /// The host, or what was given in its place.
        uri: String,
        /// libvirt's words.
        message: String,
    },
    /// The connection broke: what was tried may or may not have happened.
    #[error("lost the connection to {uri} while trying to {action}: {message}")]
    Lost {
        /// What was tried.
        action: String,
        /// The host.
        uri: String,
        /// libvirt's words.
        message: String,
    },
    /// The host's driver cannot do it at all.
    #[error("{uri} cannot {action}: {message}")]
    Unsupported {
        /// What was tried.
        action: String,
        /// The host.
        uri: String,
        /// libvirt's words.
        message: String,
    },
    /// Not allowed to this user.
    #[error("{uri} does not let this user {action}: {message}")]
    Denied {
        /// What was tried.
        action: String,
        /// The host.
        uri: String,
        /// libvirt's words.
        message: String,
    },
    /// A job was cancelled, by us or by somebody else.
    #[error("cancelled while trying to {action} at {uri}: {message}")]
    Cancelled {
        /// What was tried.
        action: String,
        /// The host.
        uri: String,
        /// libvirt's words.
        message: String,
    },
    /// The domain runs, and this may be done only to one that does not.
    #[error("{domain} at {uri} is {state}; it must be shut off to {action}")]
    StillActive {
        /// What was tried.
        action: String,
        /// The domain.
        domain: String,
        /// The host.
        uri: String,
        /// What it is instead.
        state: &'static str,
    },
    /// Options that do not go together, or a value that libvirt cannot take.
    #[error("{0}")]
    BadRequest(String),
    /// The domain's XML is broken, or hostile.
    #[error("the XML of the domain cannot be used: {0}")]
    BadXml(String),
    /// What was waited for did not happen in time.
    #[error("{domain} at {uri}: {what} did not happen within {} s", limit.as_secs_f32())]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// The domain.
        domain: String,
        /// The host.
        uri: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Anything else that libvirt answered.
    #[error("cannot {action} at {uri}: {message}")]
    Failed {
        /// What was tried.
        action: String,
        /// The host.
        uri: String,
        /// libvirt's words.
        message: String,
    },
    /// This machine gave no thread for a call, or the call ended without an answer.
    #[error("cannot {action}: {message}")]
    Machine {
        /// What was tried.
        action: String,
        /// What happened instead.
        message: String,
    },
}
