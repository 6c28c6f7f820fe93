//! What the process ends with.

use std::fmt;
use std::process::ExitCode;

use crate::args::{Cli, Command, Transport};

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
pub(crate) fn run(cli: Cli) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(dispatch(cli));
            // A libvirt call that hangs must not keep the process.
            runtime.shutdown_timeout(std::time::Duration::from_millis(100));
            result
        }
        Err(e) => Err(e.into()),
    };
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

async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Migrate(args) => crate::migrate::run(*args).await,
        Command::Show(args) => crate::show::run(args).await,
        Command::Offer(args) => crate::offer::run(args).await,
        Command::Adopt(args) => crate::adopt::run(args).await,
        Command::Transport(Transport::Serve { spool }) => crate::serve::run(&spool).await,
    }
}
