//! Child processes and signals: a signal sets a flag, everything that waits
//! looks at it, and the stack unwinds, so that whatever is on it cleans up.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use logchain_tests::{LabError, interrupt_flag};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// From here on Ctrl-C and its kin end what is under way in order; a second one
/// ends it at once.
pub(crate) fn catch_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, interrupt_flag())
            .and_then(|_| signal_hook::flag::register(signal, interrupt_flag()))
            .context("cannot catch signals")?;
    }
    Ok(())
}

pub(crate) fn interrupted() -> bool {
    interrupt_flag().load(Ordering::Relaxed)
}

pub(crate) fn was_interrupted(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LabError::Interrupted)) || interrupted()
}

/// Runs a command that shares this terminal, to its end. A signal is handed on.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    let status = wait(
        command
            .spawn()
            .with_context(|| format!("cannot run {line}"))?,
        OnSignal::Pass,
    )?;
    if !status.success() {
        bail!("`{line}`: {status}");
    }
    Ok(())
}

/// Runs a command that must not be cut short: a signal takes effect once it has
/// ended by itself.
pub(crate) fn run_whole(command: &mut Command) -> Result<()> {
    let line = line(command);
    // Apart from the terminal's Ctrl-C.
    command.stdin(Stdio::null()).process_group(0);
    let child = command
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    let status = wait(child, OnSignal::Finish)?;
    if !status.success() {
        bail!("`{line}`: {status}");
    }
    Ok(())
}

/// The cargo that started this program, or the one in PATH.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Whether a program is there and answers.
pub(crate) fn answers(program: impl AsRef<OsStr>, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OnSignal {
    Pass,
    Finish,
}

fn wait(mut child: Child, on_signal: OnSignal) -> Result<ExitStatus> {
    let mut signalled: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a command")? {
            return if interrupted() {
                Err(LabError::Interrupted.into())
            } else {
                Ok(status)
            };
        }
        match signalled {
            None if interrupted() => {
                signalled = Some(Instant::now());
                match on_signal {
                    OnSignal::Finish => eprintln!("\nfinishing the installation first"),
                    // It may have had the terminal's already, and be gone.
                    OnSignal::Pass => {
                        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
                    }
                }
            }
            Some(when)
                if on_signal == OnSignal::Pass && when.elapsed() > Duration::from_secs(20) =>
            {
                let _ = child.kill();
            }
            _ => {}
        }
        pause(Duration::from_millis(20));
    }
}

pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing here is asynchronous: the thread may block"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
