//! What can go wrong in the lab, said so that the reader of a failed test run
//! knows what was waited for and what the daemons said.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// The lab's results.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Why the lab could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The process is not root's.
    #[error(
        "the lab needs root, for it makes network and mount namespaces: run this as root, for example with sudo"
    )]
    NeedsRoot,
    /// A program, a file or a right is not there.
    #[error("{what} is missing: {hint}")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A command came to an end that it should not have come to.
    #[error("`{command}` on {host}: {status}{}", said(stderr))]
    Failed {
        /// Where it ran.
        host: String,
        /// Its arguments, as one line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// A wait had no end within its bound.
    #[error("waited {} s in vain: {what}{context}", limit.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// The last words of those who know, each on a line of its own.
        context: String,
    },
    /// The lab's machinery ended on its own.
    #[error("the lab came to an end by itself{context}")]
    Ended {
        /// The last words of those who know.
        context: String,
    },
    /// [`crate::interrupt_flag`] is set.
    #[error("interrupted")]
    Interrupted,
}

fn said(stderr: &str) -> String {
    match stderr.trim_end() {
        "" => String::new(),
        text => format!("\n{text}"),
    }
}

/// For `map_err`: the system's answer with what was tried.
pub(crate) fn io_error(
    action: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(io::Error) -> LabError {
    let path = path.as_ref().to_owned();
    move |source| LabError::Io {
        action,
        path,
        source,
    }
}
