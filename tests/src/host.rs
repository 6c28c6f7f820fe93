//! One hypervisor: its daemons, its folders as this process sees them, and the
//! faults that tests put upon it.

pub(crate) mod config;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::command::{HostCommand, Output, Running};
use crate::error::{LabError, Result, io_error};
use crate::guest::{Guest, GuestOn};
use crate::wait::until;

/// A handle on a host of a lab; copies are handles on the same host, and of no
/// use once the lab is dropped.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    address: String,
    state: PathBuf,
    /// The host's process 1 as this process sees it, and when it was born.
    init: (u32, String),
    root: PathBuf,
    alive: Arc<AtomicBool>,
    /// The state folders of all hosts of the lab.
    everywhere: Vec<PathBuf>,
}

/// One file of a console log, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Its name in the log's folder.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Host {
    /// A handle on the host whose process 1 wrote its number into `state`.
    pub(crate) fn attach(
        name: &str,
        address: &str,
        state: &Path,
        everywhere: &[PathBuf],
        alive: &Arc<AtomicBool>,
    ) -> Result<Option<Host>> {
        let Ok(pid) = fs::read_to_string(state.join("pid")) else {
            return Ok(None);
        };
        let pid = pid.trim().parse().unwrap_or(0);
        let Some(born) = birth(pid) else {
            return Ok(None);
        };
        Ok(Some(Host(Arc::new(Inner {
            name: name.to_owned(),
            address: address.to_owned(),
            state: state.to_owned(),
            init: (pid, born),
            root: PathBuf::from(format!("/proc/{pid}/root")),
            alive: Arc::clone(alive),
            everywhere: everywhere.to_vec(),
        }))))
    }

    /// Its name, which the other hosts reach it by: `h1`, `h2`, …
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address in the lab.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// How libvirt reaches it from the other hosts.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("qemu+tcp://{}/system", self.0.name)
    }

    /// The path by which this process sees the host's `/`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// The path by which this process sees the host's `path`.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A program on this machine that runs `name` on the host, with whatever
    /// arguments, input and output it is given: for code that starts programs
    /// itself and is to be tested as if it ran there. It goes with the lab.
    ///
    /// # Errors
    /// [`LabError::Ended`] where the host is no more, [`LabError::Io`].
    pub fn stand_in(&self, name: &str) -> Result<PathBuf> {
        let pid = self.init_pid()?;
        let folder = self.path("/tmp/stand-ins");
        let path = folder.join(name);
        let script = format!(
            "#!/bin/sh\nexport PATH={} HOME=/root USER=root\n\
             exec nsenter --target {pid} --mount --uts --ipc --net --pid -- {name} \"$@\"\n",
            crate::command::PATH,
        );
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        fs::write(&path, script).map_err(io_error("write", &path))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, mode).map_err(io_error("change the mode of", &path))?;
        Ok(path)
    }

    /// A command for this host.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> HostCommand {
        HostCommand::new(self, args)
    }

    /// Runs a command to its end, within 60 s.
    ///
    /// # Errors
    /// As [`HostCommand::run`].
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
        self.command(args).run()
    }

    /// Starts a command.
    ///
    /// # Errors
    /// As [`HostCommand::spawn`].
    pub fn spawn(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Running> {
        self.command(args).spawn()
    }

    /// Asks `probe` every 20 ms until it has something; the error says `what` was
    /// waited for and what this host's daemons said last.
    ///
    /// # Errors
    /// [`LabError::Timeout`], [`LabError::Interrupted`], and what `probe` fails with.
    pub fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        until(&format!("{what} on {}", self.name()), limit, probe).map_err(|e| self.explain(e))
    }

    /// Defines a guest here, and makes the folder of its log on every host of the
    /// lab, as an orchestrator does before a migration.
    ///
    /// # Errors
    /// [`LabError::Failed`] with libvirt's words, [`LabError::Io`].
    pub fn define(&self, guest: &Guest) -> Result<GuestOn> {
        self.make_log_folders(guest)?;
        self.command(["virsh", "--quiet", "define", "/dev/stdin"])
            .input(guest.xml())
            .run()?
            .checked()?;
        Ok(self.guest(guest.name()))
    }

    /// Starts a guest that is gone once it stops, its log's folders made as by
    /// [`Host::define`].
    ///
    /// # Errors
    /// As there.
    pub fn create(&self, guest: &Guest) -> Result<GuestOn> {
        self.make_log_folders(guest)?;
        self.command(["virsh", "--quiet", "create", "/dev/stdin"])
            .input(guest.xml())
            .run()?
            .checked()?;
        Ok(self.guest(guest.name()))
    }

    fn make_log_folders(&self, guest: &Guest) -> Result<()> {
        let Some(folder) = guest.log_folder() else {
            return Ok(());
        };
        let inside = folder.strip_prefix("/var/log/lab").unwrap_or(&folder);
        for state in &self.0.everywhere {
            // One that all hosts share hides their own.
            let shared = state.with_file_name("shared");
            let logs = match shared.is_dir() {
                true => shared,
                false => state.join("var/log/lab"),
            };
            let folder = logs.join(inside);
            fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        }
        Ok(())
    }

    /// Starts a domain that is defined here.
    ///
    /// # Errors
    /// [`LabError::Failed`] with libvirt's words.
    pub fn start(&self, name: &str) -> Result<()> {
        self.guest(name).start()
    }

    /// The guest of that name, seen from this host.
    #[must_use]
    pub fn guest(&self, name: &str) -> GuestOn {
        GuestOn::new(self, name)
    }

    /// Where the guest's log lies, as the host sees it.
    #[must_use]
    pub fn log_path(&self, guest: &str) -> PathBuf {
        crate::guest::log_path(guest)
    }

    /// The base file and the rotated files beside it, oldest first. Not one
    /// moment's state while virtlogd rolls over.
    ///
    /// # Errors
    /// [`LabError::Io`]; a folder that is not there holds no files.
    pub fn read_log_files(&self, guest: &str) -> Result<Vec<LogFile>> {
        let base = self.path(self.log_path(guest));
        let folder = base.parent().unwrap_or(&base);
        let entries = match fs::read_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_error("list", folder))?,
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let age = match name.strip_prefix("console.log") {
                Some("") => 0,
                Some(rest) => match rest.strip_prefix('.').map(str::parse::<u32>) {
                    Some(Ok(number)) => u64::from(number) + 1,
                    _ => continue,
                },
                None => continue,
            };
            match fs::read(entry.path()) {
                Ok(bytes) => found.push((age, LogFile { name, bytes })),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io_error("read", entry.path())(e)),
            }
        }
        found.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        Ok(found.into_iter().map(|(_, file)| file).collect())
    }

    /// Starts virtlogd, libvirtd and sshd, and waits until libvirtd answers.
    pub(crate) fn start_daemons(&self) -> Result<()> {
        self.start_virtlogd()?;
        self.start_sshd()?;
        self.start_libvirtd()
    }

    /// Ends sshd and every session it has: nobody reaches this host by ssh.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn stop_sshd(&self) -> Result<()> {
        self.end_daemon("sshd", "KILL")
    }

    /// Starts sshd again.
    ///
    /// # Errors
    /// [`LabError::Failed`].
    pub fn start_sshd(&self) -> Result<()> {
        // By its whole path, as sshd wants it: it starts itself anew for a session.
        self.run([
            "/usr/sbin/sshd",
            "-f",
            config::SSHD_CONFIG,
            "-E",
            "/var/log/sshd.log",
        ])?
        .checked()?;
        Ok(())
    }

    /// Asks libvirtd to end; its guests stay.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn stop_libvirtd(&self) -> Result<()> {
        self.end_daemon("libvirtd", "TERM")
    }

    /// Kills libvirtd, as a crash would; its guests stay.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn kill_libvirtd(&self) -> Result<()> {
        self.end_daemon("libvirtd", "KILL")
    }

    /// Starts libvirtd, and waits until it answers.
    ///
    /// # Errors
    /// [`LabError::Failed`], [`LabError::Timeout`].
    pub fn start_libvirtd(&self) -> Result<()> {
        self.run(["libvirtd", "--daemon", "--listen"])
            .and_then(Output::checked)
            .map_err(|e| self.explain(e))?;
        self.until("libvirtd to answer", Duration::from_secs(30), || {
            let output = self.run(["virsh", "-c", "qemu:///system", "list", "--name"])?;
            Ok(output.status.success().then_some(()))
        })
    }

    /// Sends a signal ("KILL", "STOP", "USR1", …) to every process of this host whose
    /// command has this name; gives how many there were.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub fn signal(&self, name: &str, signal: &str) -> Result<usize> {
        let pids = self.processes(name)?;
        if !pids.is_empty() {
            let kill = ["kill".to_owned(), format!("-{signal}")];
            // One that ended by itself meanwhile makes kill fail, which is well.
            self.run(kill.into_iter().chain(pids.iter().map(u32::to_string)))?;
        }
        Ok(pids.len())
    }

    /// Kills virtlogd, as a crash would: what guests print is lost from then on.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn kill_virtlogd(&self) -> Result<()> {
        self.end_daemon("virtlogd", "KILL")
    }

    /// Starts virtlogd.
    ///
    /// # Errors
    /// [`LabError::Failed`].
    pub fn start_virtlogd(&self) -> Result<()> {
        self.run(["virtlogd", "--daemon"])?.checked()?;
        Ok(())
    }

    /// Cuts this host off from all others: nothing comes and nothing goes, and nobody
    /// is told.
    ///
    /// # Errors
    /// [`LabError::Failed`].
    pub fn cut_network(&self) -> Result<()> {
        self.run(["ip", "link", "set", "eth0", "down"])?.checked()?;
        Ok(())
    }

    /// Lets this host send no more than so many Mbit/s to the others.
    ///
    /// # Errors
    /// [`LabError::Failed`].
    pub fn slow_network(&self, mbit: u64) -> Result<()> {
        let rate = format!("{mbit}mbit");
        let shape = "tc qdisc add dev eth0 root tbf burst 256k latency 50ms rate";
        self.run(shape.split(' ').chain([rate.as_str()]))?
            .checked()?;
        Ok(())
    }

    /// Undoes [`Host::cut_network`].
    ///
    /// # Errors
    /// [`LabError::Failed`].
    pub fn mend_network(&self) -> Result<()> {
        self.run(["ip", "link", "set", "eth0", "up"])?.checked()?;
        Ok(())
    }

    /// Puts a disk of its own of so many KiB where `folder` is, empty.
    ///
    /// # Errors
    /// [`LabError::Failed`].
    pub fn small_disk(&self, folder: &str, kib: u64) -> Result<()> {
        let size = format!("size={kib}k,mode=755");
        self.run(["mkdir", "-p", folder])?.checked()?;
        self.run(["mount", "-t", "tmpfs", "-o", &size, "small", folder])?
            .checked()?;
        Ok(())
    }

    /// Gives such a disk another size.
    ///
    /// # Errors
    /// [`LabError::Failed`].
    pub fn resize_disk(&self, folder: &str, kib: u64) -> Result<()> {
        let size = format!("remount,size={kib}k");
        self.run(["mount", "-o", &size, folder])?.checked()?;
        Ok(())
    }

    /// Makes this host refuse guests that come by migration, or take them again.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn refuse_migrations(&self, refuse: bool) -> Result<()> {
        let hook = self.0.state.join("etc/libvirt/hooks/qemu");
        // libvirtd looks for the hook when it starts only: the file is always
        // there, and asks for this one.
        let flag = hook.with_file_name("refuse");
        if refuse {
            fs::write(&flag, "").map_err(io_error("write", &flag))
        } else {
            match fs::remove_file(&flag) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &flag)(e)),
                _ => Ok(()),
            }
        }
    }

    /// Removes a folder of the host with all that is in it, as Nova does with an
    /// instance's after a migration.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn remove_folder(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = self.path(path);
        fs::remove_dir_all(&path).map_err(io_error("remove", &path))
    }

    /// The processes of this host whose command has this name, by their numbers
    /// inside it.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn processes(&self, name: &str) -> Result<Vec<u32>> {
        let proc = self.path("/proc");
        let entries = fs::read_dir(&proc).map_err(io_error("list", &proc))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            // A process that ends meanwhile is none.
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if comm.trim_end() == name {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn end_daemon(&self, name: &str, signal: &str) -> Result<()> {
        self.until(&format!("{name} to end"), Duration::from_secs(20), || {
            let pids = self.processes(name)?;
            if pids.is_empty() {
                return Ok(Some(()));
            }
            let pids = pids.iter().map(u32::to_string);
            let kill = ["kill".to_owned(), format!("-{signal}")];
            // One that ended by itself makes kill fail, which is well.
            self.run(kill.into_iter().chain(pids))?;
            Ok(None)
        })
    }

    /// Process 1 of this host, if it is still the one that it was.
    pub(crate) fn init_pid(&self) -> Result<u32> {
        let (pid, born) = &self.0.init;
        if self.0.alive.load(Ordering::Relaxed) && birth(*pid).as_ref() == Some(born) {
            return Ok(*pid);
        }
        Err(LabError::Ended {
            context: format!(": {} is no more{}", self.0.name, self.last_words()),
        })
    }

    /// Adds what the daemons said last to an error that a wait ended with.
    pub(crate) fn explain(&self, error: LabError) -> LabError {
        match error {
            LabError::Timeout {
                what,
                limit,
                context,
            } if !context.contains(DAEMON_MARK) => LabError::Timeout {
                what,
                limit,
                context: context + &self.last_words(),
            },
            other => other,
        }
    }

    fn last_words(&self) -> String {
        let mut words = String::new();
        for log in [
            "init.log",
            "var/log/libvirt/libvirtd.log",
            "var/log/libvirt/virtlogd.log",
            "var/log/sshd.log",
        ] {
            let tail = tail(&self.0.state.join(log), 8);
            if !tail.is_empty() {
                words += &format!("\n{DAEMON_MARK} {}'s {log}:{tail}", self.0.name);
            }
        }
        words
    }
}

const DAEMON_MARK: &str = "--";

/// The last lines of a file, each after a line feed; nothing where it cannot be read.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))?;
        file.take(16 * 1024).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let last: Vec<&str> = text.lines().rev().take(lines).collect();
    last.iter()
        .rev()
        .map(|line| format!("\n  {line}"))
        .collect()
}

/// When a process was born: with its number, it names it for good.
fn birth(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}
