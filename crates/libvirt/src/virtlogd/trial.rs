//! Finds out by trial whether virtlogd could execute itself again.
//!
//! virtlogd reads its configuration anew when it does, with a parser that is its own,
//! in an image that an upgrade may have replaced, and ends if anything displeases it.
//! So the very image is started with the very arguments and environment, where it
//! touches nothing of the real one's: in virtlogd's mount namespace, but with a private
//! one on top in which a tmpfs lies over the folder of its sockets, pid file and state.
//! Once it is ready it is made to execute itself again, as the real one would be.
//!
//! The tools that this takes (util-linux, a shell, `env`) execute one another, so that
//! all of it is one process: our child, which ends with us and is always reaped.
//!
//! Must not know: logs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use tracing::debug;

use super::{catches, proc_of};

/// A trial start is ready within a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// After so many seconds without a client virtlogd ends by itself: should nobody be
/// there to end the trial.
const SECONDS: &str = "60";

const LOOK: Duration = Duration::from_millis(5);

/// So much of what it says is read; the rest is let through.
const MOST_SAID: usize = 16 << 10;

/// So much of it is told.
const MOST_TOLD: usize = 300;

/// Where the tools are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Puts a tmpfs over each folder before the word `--`, and executes what follows it.
const COVER: &str = "while [ \"$1\" != -- ]; do \
    mount -t tmpfs -o mode=755,size=4m logchain-trial \"$1\" || exit 125; shift; \
    done; shift; exec \"$@\"";

/// Variables that tie the real one to systemd, or say where it logs.
const NOT_FOR_TRIAL: [&str; 10] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "JOURNAL_STREAM",
    "LIBVIRT_DEBUG",
    "LIBVIRT_LOG_FILTERS",
    "LIBVIRT_LOG_OUTPUTS",
];

/// What is started.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// The process that would execute itself again.
    pub(super) pid: Pid,
    /// Its program's name, as it was started with.
    pub(super) name: OsString,
    /// Its arguments.
    pub(super) args: Vec<OsString>,
    /// Its environment, `NAME=VALUE` each.
    pub(super) environment: Vec<OsString>,
    /// Where it has what must not be touched.
    pub(super) run: Run,
}

/// Where a virtlogd has its sockets, pid file and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// The system's: in these folders.
    Folders(Vec<PathBuf>),
    /// One user's: beneath `XDG_RUNTIME_DIR`.
    Session,
}

/// How a trial ended that did not go well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It ended, with what it said last.
    Ended(String),
    /// It could not be made, or came to no end, and why.
    NotMade(String),
}

/// Starts the image, makes it execute itself again, and ends it. Blocks for twice
/// [`PATIENCE`] at the most.
pub(super) fn run(image: &Image) -> Result<(), Bad> {
    let private = match image.run {
        Run::Folders(_) => None,
        Run::Session => Some(Private::make().map_err(|e| not_made(&e))?),
    };
    let mut trial = Trial::start(command(image, private.as_ref().map(|p| p.0.as_path())))?;
    let pid = trial.pid;
    trial.wait_until("start", || listens(pid))?;
    let before = traces(image, pid);
    kill_process(pid, Signal::USR1).map_err(|e| not_made(&e.into()))?;
    trial.wait_until("execute itself again", || {
        listens(pid) && traces(image, pid) != before
    })
}

fn not_made(e: &io::Error) -> Bad {
    Bad::NotMade(e.to_string())
}

/// The command, none of whose words goes through a shell as text.
fn command(image: &Image, private: Option<&Path>) -> Command {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |word: &dyn AsRef<OsStr>| words.push(word.as_ref().to_owned());
    // It ends with this thread, which waits for it.
    for word in ["setpriv", "--pdeathsig", "KILL"] {
        add(&word);
    }
    if let Run::Folders(folders) = &image.run {
        let pid = image.pid.as_raw_nonzero().to_string();
        for word in ["nsenter", "--target", &pid, "--mount", "--root", "--wd"] {
            add(&word);
        }
        for word in ["unshare", "--mount", "sh", "-c", COVER, "sh"] {
            add(&word);
        }
        for folder in folders {
            add(folder);
        }
        add(&"--");
    }
    for word in ["env", "-i"] {
        add(&word);
    }
    for variable in image.environment.iter().filter(|v| is_for_trial(v)) {
        if private.is_none() || name_of(variable) != b"XDG_RUNTIME_DIR" {
            add(variable);
        }
    }
    if let Some(private) = private {
        let mut variable = OsString::from("XDG_RUNTIME_DIR=");
        variable.push(private);
        add(&variable);
    }
    // Of higher rank than the configuration: nothing reaches the real log.
    add(&"LIBVIRT_LOG_OUTPUTS=3:stderr");
    add(&image.name);
    for word in ["--timeout", SECONDS] {
        add(&word);
    }
    for arg in &image.args {
        add(arg);
    }
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).env_clear().env("PATH", PATH);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    command
}

fn name_of(variable: &OsStr) -> &[u8] {
    let bytes = variable.as_encoded_bytes();
    bytes.split(|b| *b == b'=').next().unwrap_or_default()
}

/// `env` takes a word without `=` for the program.
fn is_for_trial(variable: &OsStr) -> bool {
    let name = name_of(variable);
    let is_one = !name.is_empty() && name.len() < variable.len();
    is_one && !NOT_FOR_TRIAL.iter().any(|not| not.as_bytes() == name)
}

/// Whether it has set its handlers, which it does once it listens.
fn listens(pid: Pid) -> bool {
    let status = fs::read(proc_of(pid).join("status")).unwrap_or_default();
    catches(&String::from_utf8_lossy(&status), Signal::USR1)
}

/// What executing itself again changes: where the kernel put things in its memory,
/// and its pid file, which it writes anew.
fn traces(image: &Image, pid: Pid) -> (Vec<u8>, Option<(i64, i64)>) {
    let auxv = fs::read(proc_of(pid).join("auxv")).unwrap_or_default();
    let pid_file = match &image.run {
        Run::Folders(folders) => folders.first().and_then(|run| {
            let run = run.strip_prefix("/").unwrap_or(run);
            let file = proc_of(pid).join("root").join(run).join("virtlogd.pid");
            fs::symlink_metadata(file).ok()
        }),
        Run::Session => None,
    };
    let written = pid_file.map(|file| (file.mtime(), file.mtime_nsec()));
    (auxv, written)
}

/// A folder for a trial of one user's virtlogd, gone when this is dropped.
struct Private(PathBuf);

impl Private {
    fn make() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unique = since.map_or(0, |since| since.subsec_nanos());
        let name = format!("logchain-trial-{}-{unique}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Fails where it exists, so that nobody can have prepared it.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What is left lies in a folder for temporary files.
        if let Err(error) = fs::remove_dir_all(&self.0) {
            debug!(folder = %self.0.display(), %error, "an empty folder of a trial stays");
        }
    }
}

/// The process of a trial; ended and reaped when this is dropped.
struct Trial {
    pid: Pid,
    child: Child,
    said: Option<thread::JoinHandle<Vec<u8>>>,
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Where these fail it has ended, and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Trial {
    fn start(mut command: Command) -> Result<Self, Bad> {
        let child = command.spawn().map_err(|e| {
            let program = command.get_program().display();
            Bad::NotMade(format!("cannot start {program}: {e}"))
        })?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let mut trial = Self {
            pid: pid.unwrap_or(Pid::INIT),
            child,
            said: None,
        };
        if trial.pid == Pid::INIT {
            return Err(Bad::NotMade("it got no number".to_owned()));
        }
        if let Some(errors) = trial.child.stderr.take() {
            // A full pipe would stop it.
            trial.said = Some(thread::spawn(move || read_some(errors)));
        }
        Ok(trial)
    }

    fn wait_until(&mut self, what: &str, mut done: impl FnMut() -> bool) -> Result<(), Bad> {
        let end = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait().map_err(|e| not_made(&e))?;
            if let Some(status) = ended {
                let said = self.said.take().and_then(|said| said.join().ok());
                let said = told(&said.unwrap_or_default());
                let said = said.unwrap_or_else(|| format!("it said nothing ({status})"));
                return Err(match is_of_tool(&said) {
                    true => Bad::NotMade(said),
                    false => Bad::Ended(said),
                });
            }
            if done() {
                return Ok(());
            }
            if Instant::now() > end {
                let seconds = PATIENCE.as_secs();
                let why = format!("it did not {what} within {seconds} s");
                return Err(Bad::NotMade(why));
            }
            #[expect(clippy::disallowed_methods, reason = "callers know that this blocks")]
            thread::sleep(LOOK);
        }
    }
}

fn read_some(mut from: impl Read) -> Vec<u8> {
    let mut said = Vec::new();
    let most = u64::try_from(MOST_SAID).unwrap_or(u64::MAX);
    // What cannot be read was not said.
    let _ = from.by_ref().take(most).read_to_end(&mut said);
    let _ = io::copy(&mut from, &mut io::sink());
    said
}

/// Pure: whether one of the tools said so, not the program that they were to start.
fn is_of_tool(said: &str) -> bool {
    let tools = ["setpriv", "nsenter", "unshare", "sh", "mount"];
    let by = said.split(':').next().unwrap_or_default();
    tools.contains(&by)
}

/// Pure: the last error that it told of, else its last words, fit for a terminal.
fn told(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    let lines = || said.lines().rev().map(str::trim).filter(|l| !l.is_empty());
    let error = lines().find_map(|line| {
        // "2026-11-27 14:15:39.464+0000: 10159: error : main:710 : …"
        let (_, rest) = line.split_once(": error : ")?;
        Some(rest.split_once(" : ").map_or(rest, |(_, said)| said))
    });
    let line = error.or_else(|| lines().next())?;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    Some(line.chars().map(clean).take(MOST_TOLD).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told_and_nothing_that_a_terminal_obeys() {
        let said = b"2026-11-27 14:15:39.464+0000: 10159: info : libvirt version: 9.0.0\n\
            2026-11-27 14:15:39.464+0000: 10159: error : main:710 : Can't load \x1b[31mfile\n";
        assert_eq!(told(said).unwrap(), "Can't load  [31mfile");
        assert_eq!(told(b"sh: 1: no\nlast words\n\n").unwrap(), "last words");
        assert_eq!(told(b"\n \n"), None);
        assert!(is_of_tool(
            "nsenter: cannot open /proc/7/ns/mnt: Permission denied"
        ));
        assert!(!is_of_tool("env: 'virtlogd': No such file or directory"));
        assert_eq!(told(&[b'x'; 9000]).unwrap().len(), MOST_TOLD);
    }

    #[test]
    fn the_real_ones_ties_are_not_for_a_trial() {
        for (variable, wanted) in [
            ("PATH=/x", true),
            ("XDG_CONFIG_HOME=/a=b", true),
            ("EMPTY=", true),
            ("LISTEN_FDS=2", false),
            ("LIBVIRT_LOG_OUTPUTS=1:syslog:virtlogd", false),
            ("no variable", false),
            ("=x", false),
        ] {
            assert_eq!(is_for_trial(OsStr::new(variable)), wanted, "{variable}");
        }
    }
}
