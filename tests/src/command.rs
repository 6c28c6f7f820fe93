//! Commands on a host: run to their end within a bound, or started and held.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{LabError, Result, io_error};
use crate::host::Host;
use crate::wait::{check_interrupt, pause};

/// For commands that say nothing else. A migration takes seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// More output of one command than this is not kept.
const MOST_OUTPUT: usize = 256 * 1024 * 1024;
/// The hosts' PATH; `logchain` is in its first folder.
pub(crate) const PATH: &str =
    "/run/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command for a host, not yet started. Its environment is a login's, nothing
/// of this process's; its folder is `/`.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is run or spawned"]
pub struct HostCommand {
    host: Host,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
    limit: Duration,
    files: bool,
}

impl HostCommand {
    pub(crate) fn new(host: &Host, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        HostCommand {
            host: host.clone(),
            args: args.into_iter().map(|a| a.as_ref().to_owned()).collect(),
            env: Vec::new(),
            input: None,
            limit: LIMIT,
            files: true,
        }
    }

    /// It sees this machine's files instead of the host's: for a program that lies
    /// where the host has something else, and only needs the host's network.
    pub fn with_this_machines_files(mut self) -> Self {
        self.files = false;
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What it reads on standard input; nothing unless set.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// How long [`HostCommand::run`] waits for its end, 60 s unless set.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`LabError::Timeout`] (it is killed then), [`LabError::Interrupted`],
    /// [`LabError::Io`]. How it ended is no error here: see [`Output::checked`].
    pub fn run(self) -> Result<Output> {
        let limit = self.limit;
        self.spawn()?.wait(limit)
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`LabError::Io`], [`LabError::Ended`] where the host is no more.
    pub fn spawn(self) -> Result<Running> {
        let pid = self.host.init_pid()?.to_string();
        let line = line(&self.args);
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid]);
        if self.files {
            command.args(["--mount", "--uts", "--ipc"]);
        }
        command
            .args(["--net", "--pid", "--"])
            .args(&self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("USER", "root")
            .env("LANG", "C.UTF-8")
            .envs(self.env)
            .stdin(match self.input {
                Some(_) => Stdio::piped(),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's Ctrl-C is for the owner, who then decides.
            .process_group(0);
        let mut child = command.spawn().map_err(io_error("run", "nsenter"))?;
        if let (Some(mut stdin), Some(bytes)) = (child.stdin.take(), self.input) {
            // It may close its input early: that is its affair.
            std::thread::spawn(move || {
                let _ = stdin.write_all(&bytes);
            });
        }
        Ok(Running {
            stdout: Gathered::of(child.stdout.take()),
            stderr: Gathered::of(child.stderr.take()),
            child,
            started: Instant::now(),
            host: self.host,
            line,
        })
    }
}

/// How a command ended, and all it said.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output, exactly.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, exactly.
    pub stderr: Vec<u8>,
    /// From its start to its end.
    pub took: Duration,
    host: String,
    line: String,
}

impl Output {
    /// Its exit status; none if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Itself, if the status is 0.
    ///
    /// # Errors
    /// [`LabError::Failed`] with what it said.
    pub fn checked(self) -> Result<Output> {
        if self.status.success() {
            return Ok(self);
        }
        Err(LabError::Failed {
            stderr: self.err(),
            host: self.host,
            command: self.line,
            status: self.status,
        })
    }
}

/// A command that runs on a host. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Running {
    host: Host,
    child: Child,
    stdout: Gathered,
    stderr: Gathered,
    started: Instant,
    line: String,
}

impl Running {
    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn is_running(&mut self) -> Result<bool> {
        let ended = self
            .child
            .try_wait()
            .map_err(io_error("wait for", &self.line))?;
        Ok(ended.is_none())
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.bytes()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> Vec<u8> {
        self.stderr.bytes()
    }

    /// Sends a signal to the command itself (not to processes it started): INT for
    /// what Ctrl-C does, STOP and CONT for a program that hangs for a while.
    ///
    /// # Errors
    /// [`LabError::Timeout`] where it has not come to life, [`LabError::Io`] where
    /// it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = crate::until("the command to start", Duration::from_secs(5), || {
            Ok(self.inner_pid())
        })?;
        let sent = kill_process(pid, signal);
        sent.map_err(|e| io_error("signal", &self.line)(e.into()))?;
        // nsenter stands still with what it waits for, and lets it go on when it does itself.
        if signal == Signal::STOP {
            return crate::until("the command to stand still", Duration::from_secs(5), || {
                Ok(self.outer_stands_still().then_some(()))
            });
        }
        if signal == Signal::CONT {
            self.continue_outer();
        }
        Ok(())
    }

    fn outer_stands_still(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        stat.is_ok_and(|stat| stat.contains(") T "))
    }

    fn continue_outer(&self) {
        let outer = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // One that has ended needs nothing.
        let _ = outer.map(|outer| kill_process(outer, Signal::CONT));
    }

    /// The process inside the host: the one that nsenter waits for, once it has
    /// become the command.
    fn inner_pid(&self) -> Option<Pid> {
        let outer = self.child.id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        let pid = children.split_whitespace().next()?;
        let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
        let raw = pid.parse().ok()?;
        if name.starts_with(b"nsenter") {
            return None;
        }
        Pid::from_raw(raw)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`LabError::Timeout`] and [`LabError::Interrupted`]: it is killed then.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let started = Instant::now();
        let mut step = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = self
                .child
                .try_wait()
                .map_err(io_error("wait for", &self.line))?
            {
                break status;
            }
            check_interrupt()?;
            if started.elapsed() >= limit {
                return Err(self.host.explain(LabError::Timeout {
                    what: format!("`{}` on {} to end", self.line, self.host.name()),
                    limit,
                    context: self.last_words(),
                }));
            }
            pause(step);
            step = (step * 2).min(Duration::from_millis(20));
        };
        let took = self.started.elapsed();
        self.stdout.finish();
        self.stderr.finish();
        Ok(Output {
            status,
            stdout: self.stdout.bytes(),
            stderr: self.stderr.bytes(),
            took,
            host: self.host.name().to_owned(),
            line: std::mem::take(&mut self.line),
        })
    }

    /// Kills it, and gives what it said until then.
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub fn kill(mut self) -> Result<Output> {
        self.end();
        self.wait(Duration::from_secs(10))
    }

    /// Kills what runs inside, and waits until nsenter has followed it.
    fn end(&mut self) {
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            self.continue_outer();
            if let Some(pid) = self.inner_pid() {
                // What has ended already is what was wanted.
                let _ = kill_process(pid, Signal::KILL);
            } else if started.elapsed() > Duration::from_secs(5) {
                // It hangs between being nsenter and being the command.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            pause(Duration::from_millis(2));
        }
    }

    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr()).into_owned();
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        tail.iter()
            .rev()
            .map(|line| format!("\n  {line}"))
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Bytes that a thread of its own reads from a pipe.
#[derive(Debug)]
pub(crate) struct Gathered {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Gathered {
    pub(crate) fn of(pipe: Option<impl Read + Send + 'static>) -> Gathered {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let thread = pipe.map(|mut pipe| {
            std::thread::spawn(move || {
                let mut block = vec![0; 64 * 1024];
                while let Ok(n @ 1..) = pipe.read(&mut block) {
                    let mut bytes = into.lock().unwrap_or_else(PoisonError::into_inner);
                    if bytes.len() < MOST_OUTPUT {
                        bytes.extend_from_slice(block.get(..n).unwrap_or_default());
                    }
                }
            })
        });
        Gathered { bytes, thread }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for the pipe's end, but not for ever: a process that the command
    /// left behind may hold it open.
    pub(crate) fn finish(&mut self) {
        let started = Instant::now();
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && started.elapsed() < Duration::from_secs(2) {
                pause(Duration::from_millis(1));
            }
        }
    }
}

fn line(args: &[OsString]) -> String {
    let words: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
    words.join(" ")
}
