//! What the process ends with.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use logchain_core::sentence;

use crate::args::Format;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: failed, or not all of it was done; `migrate`: the guest did not migrate.
    Failed,
    /// 2: bad usage, nothing was done.
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
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A failure that people have heard of already, or that is no plain one.
#[derive(Debug)]
pub struct Ended {
    pub exit: Exit,
    pub reason: String,
    /// Whether people have heard of it.
    pub told: bool,
}

impl Ended {
    /// Each reason was told when it was known; done where there is none.
    pub fn told(exit: Exit, reasons: &[String]) -> anyhow::Result<Exit> {
        if reasons.is_empty() {
            return Ok(Exit::Done);
        }
        let reason = reasons.join("; ");
        let told = true;
        Err(Self { exit, reason, told }.into())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Ended {}

/// Runs a command to its end.
pub fn run(command: impl Future<Output = anyhow::Result<Exit>>, format: Format) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(command);
            // A libvirt call that hangs must not keep the process.
            runtime.shutdown_timeout(std::time::Duration::from_millis(100));
            result
        }
        Err(e) => Err(e.into()),
    };
    status(result, format)
}

/// Says what went wrong, if anything did.
pub fn status(result: anyhow::Result<Exit>, format: Format) -> ExitCode {
    let error = match result {
        Ok(exit) => return exit.into(),
        Err(error) => error,
    };
    let sentence = sentence(error.as_ref());
    let ended = error.downcast_ref::<Ended>();
    if !ended.is_some_and(|e| e.told) {
        // Nobody may be there to read it any more.
        let _ = writeln!(std::io::stderr(), "logchain: {sentence}");
    }
    if format == Format::Json {
        tell_programs(&sentence);
    }
    match ended {
        Some(ended) => ended.exit,
        None if error.is::<Usage>() => Exit::Usage,
        None => Exit::Failed,
    }
    .into()
}

/// The last line for programs, of whatever failed.
pub fn tell_programs(reason: &str) {
    let event = serde_json::json!({ "event": "error", "reason": reason });
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{event}");
    let _ = out.flush();
}
