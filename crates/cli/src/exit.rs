//! What the process ends with.

use std::fmt;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 1: failed, nothing changed.
    Failed,
    /// 2: bad usage, nothing changed.
    Usage,
    /// 3: migrated, but the log was not (fully) carried.
    NotCarried,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotCarried => 3,
        })
    }
}

/// A mistake in what was asked for: status 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Runs a command to its end.
pub(crate) fn run(command: impl Future<Output = anyhow::Result<Exit>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    status(match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(command);
            // A libvirt call that hangs must not keep the process.
            runtime.shutdown_timeout(std::time::Duration::from_millis(100));
            result
        }
        Err(e) => Err(e.into()),
    })
}

/// Says what went wrong, if anything did.
pub(crate) fn status(result: anyhow::Result<Exit>) -> ExitCode {
    let exit = result.unwrap_or_else(|e| {
        eprintln!("logchain: {e:#}");
        if e.is::<Usage>() {
            Exit::Usage
        } else {
            Exit::Failed
        }
    });
    exit.into()
}
