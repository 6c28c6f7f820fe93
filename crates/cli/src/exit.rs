//! What the process ends with.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use crate::args::Format;

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

/// A failure that people have heard of already, or that is no plain one.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) reason: String,
    /// Whether people have heard of it.
    pub(crate) told: bool,
}

impl Ended {
    /// Each reason was told when it was known; done where there is none.
    pub(crate) fn told(exit: Exit, reasons: &[String]) -> anyhow::Result<Exit> {
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
pub(crate) fn run(command: impl Future<Output = anyhow::Result<Exit>>, format: Format) -> ExitCode {
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
pub(crate) fn status(result: anyhow::Result<Exit>, format: Format) -> ExitCode {
    let error = match result {
        Ok(exit) => return exit.into(),
        Err(error) => error,
    };
    let sentence = sentence(&error);
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
pub(crate) fn tell_programs(reason: &str) {
    let event = serde_json::json!({ "event": "error", "reason": reason });
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{event}");
    let _ = out.flush();
}

/// An error and its causes, on one line, without those that it names itself.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence.push_str(": ");
            sentence.push_str(&cause);
        }
    }
    // libvirt hands on what QEMU said, line by line.
    let lines = sentence.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug)]
    struct Names(io::Error);

    impl fmt::Display for Names {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "cannot open /x: {}", self.0)
        }
    }

    impl std::error::Error for Names {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_cause_that_is_named_is_not_named_again() {
        let denied = || io::Error::from_raw_os_error(13);
        let twice = anyhow::Error::new(Names(denied())).context("h2");
        assert_eq!(
            sentence(&twice),
            "h2: cannot open /x: Permission denied (os error 13)"
        );
        let plain = anyhow::Error::new(denied()).context("cannot write");
        assert_eq!(
            sentence(&plain),
            "cannot write: Permission denied (os error 13)"
        );
        let lines = anyhow::anyhow!("qemu said: one\n two\n\n");
        assert_eq!(sentence(&lines), "qemu said: one; two");
    }
}
