//! A lab from its start to its end.
//!
//! One process, the *switch*, is process 1 of a process namespace in which all
//! hosts are, each again with namespaces of its own. The switch reads a pipe from
//! the owner; when the pipe ends, however the owner ended, it ends, and the kernel
//! ends everything in the namespace with it: processes, mounts, network. No name is
//! given to any of it, so nothing is left to be collected.
//!
//! ```text
//! owner ── pipe ──► switch (process 1, bridge) ─┬─► h1 (process 1) ─ virtlogd, libvirtd, sshd, QEMU
//!   └──── nsenter: commands ────────────────────┴─► h2 …
//! ```

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::boot::boot_files;
use crate::command::PATH;
use crate::error::{LabError, Result, io_error};
use crate::host::config::{HostPlan, certify, introduce, write};
use crate::host::{Host, tail};
use crate::place::logchain_bin;
use crate::serial::Turn;
use crate::state::StateFolder;
use crate::wait::{pause, until};

const SWITCH: &str = include_str!("lab/switch.sh");
const HOST: &str = include_str!("host/host.sh");
const INIT: &str = include_str!("host/init.sh");

/// How long a thread waits for another's lab to end.
const TURN_LIMIT: Duration = Duration::from_secs(900);

/// What a lab is to be.
#[derive(Debug, Clone)]
#[must_use = "a lab is there once it is started"]
pub struct LabBuilder {
    hosts: usize,
    max_size: u64,
    max_backups: u32,
    stdio: &'static str,
    shared: bool,
    tls: bool,
    binary: Option<PathBuf>,
    sees: Vec<PathBuf>,
}

impl LabBuilder {
    /// How many hosts, 2 unless set.
    pub fn hosts(mut self, hosts: usize) -> LabBuilder {
        self.hosts = hosts;
        self
    }

    /// virtlogd's bounds on every host: bytes a file, rotated files kept. libvirt's
    /// own unless set: 2 MiB, 3.
    pub fn virtlogd(mut self, max_size: u64, max_backups: u32) -> LabBuilder {
        self.max_size = max_size;
        self.max_backups = max_backups;
        self
    }

    /// Who writes guests' logs on every host, as qemu.conf's `stdio_handler` names it:
    /// `logd` unless set.
    pub fn stdio_handler(mut self, handler: &'static str) -> LabBuilder {
        self.stdio = handler;
        self
    }

    /// All hosts have one folder of console logs, as on shared storage.
    pub fn shared_logs(mut self) -> LabBuilder {
        self.shared = true;
        self
    }

    /// QEMU has certificates on every host, for migrations with TLS.
    pub fn tls(mut self) -> LabBuilder {
        self.tls = true;
        self
    }

    /// What the hosts run as `logchain`: [`logchain_bin`] unless set.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> LabBuilder {
        self.binary = Some(path.into());
        self
    }

    /// Every host sees this folder of the machine at its own path, also where that lies beneath
    /// what a host has of its own.
    pub fn sees(mut self, folder: impl Into<PathBuf>) -> LabBuilder {
        self.sees.push(folder.into());
        self
    }

    /// Starts it, and waits until every libvirtd answers.
    ///
    /// # Errors
    /// [`LabError::NeedsRoot`], [`LabError::Missing`], and whatever keeps a daemon
    /// from starting, with its last words.
    pub fn start(self) -> Result<Lab> {
        check_machine()?;
        let turn = Turn::take(TURN_LIMIT)?;
        let boot = boot_files()?;
        // A lab without the binary serves those who test the lab itself.
        let binary = self.binary.or_else(|| logchain_bin().ok());
        let folder = StateFolder::create()?;
        let state = folder.path().to_owned();
        let known: Vec<_> = (1..=self.hosts)
            .map(|n| {
                let name = format!("h{n}");
                (state.join(&name), name, format!("192.0.2.{n}"))
            })
            .collect();
        if self.shared {
            let shared = state.join("shared");
            fs::create_dir(&shared).map_err(io_error("create", &shared))?;
        }
        for (state, name, address) in &known {
            let plan = HostPlan {
                name,
                address,
                max_size: self.max_size,
                max_backups: self.max_backups,
                stdio: self.stdio,
                tls: self.tls,
                boot: &boot,
                binary: binary.as_deref(),
                sees: &self.sees,
            };
            write(state, &plan)?;
        }
        introduce(&known)?;
        if self.tls {
            certify(&state, &known)?;
        }

        let mut lab = Lab {
            hosts: Vec::new(),
            switch: Switch::start(&state, known.iter().map(|(_, name, _)| name))?,
            alive: Arc::new(AtomicBool::new(true)),
            folder,
            _turn: turn,
        };
        let everywhere: Vec<_> = known.iter().map(|(state, ..)| state.clone()).collect();
        for (state, name, address) in &known {
            let host = until(
                &format!("{name} to come up"),
                Duration::from_secs(20),
                || {
                    lab.switch.check(&lab.folder, state)?;
                    Host::attach(name, address, state, &everywhere, &lab.alive)
                },
            );
            let host = host.map_err(|e| add_tail(e, &state.join("init.log")))?;
            lab.hosts.push(host);
        }
        std::thread::scope(|scope| {
            let starting: Vec<_> = lab
                .hosts
                .iter()
                .map(|host| scope.spawn(|| host.start_daemons()))
                .collect();
            starting.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        Ok(lab)
    }
}

/// Hypervisors side by side, for as long as this value lives.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    switch: Switch,
    alive: Arc<AtomicBool>,
    folder: StateFolder,
    _turn: Turn,
}

impl Lab {
    /// A lab of so many hosts, all else as libvirt has it.
    ///
    /// # Errors
    /// As [`LabBuilder::start`].
    pub fn start(hosts: usize) -> Result<Lab> {
        Lab::builder().hosts(hosts).start()
    }

    /// A lab to describe.
    pub fn builder() -> LabBuilder {
        LabBuilder {
            hosts: 2,
            max_size: 2 * 1024 * 1024,
            max_backups: 3,
            stdio: "logd",
            shared: false,
            tls: false,
            binary: None,
            sees: Vec::new(),
        }
    }

    /// The host of that number, from 0: `h1` is 0.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "a test that names a host it did not ask for is wrong"
    )]
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    /// All hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Where all that it writes lies; see [`crate::leftovers`].
    #[must_use]
    pub fn state(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Relaxed);
        self.switch.end();
        // The switch removes the folder, unless it was killed itself.
        if !keeps() {
            let _ = fs::remove_dir_all(self.folder.path());
        }
    }
}

/// The process that everything of a lab ends with.
#[derive(Debug)]
struct Switch {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Switch {
    fn start<'a>(state: &Path, hosts: impl Iterator<Item = &'a String>) -> Result<Switch> {
        for (name, text) in [("switch.sh", SWITCH), ("host.sh", HOST), ("init.sh", INIT)] {
            let path = state.join(name);
            fs::write(&path, text).map_err(io_error("write", &path))?;
        }
        if keeps() {
            let path = state.join("keep");
            fs::write(&path, "").map_err(io_error("write", &path))?;
        }
        let log = state.join("switch.log");
        let log = fs::File::create(&log).map_err(io_error("create", &log))?;
        let both = log.try_clone().map_err(io_error("open", state))?;
        let mut child = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--ipc", "--pid", "--fork"])
            .args(["--kill-child=KILL", "--", "sh"])
            .arg(state.join("switch.sh"))
            .arg(state)
            .arg(if keeps() { "keep" } else { "remove" })
            .args(hosts)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(both)
            // A terminal's Ctrl-C is for the owner, who then ends this.
            .process_group(0)
            .spawn()
            .map_err(io_error("run", "unshare"))?;
        let pipe = child.stdin.take();
        Ok(Switch { child, pipe })
    }

    /// Fails if it, or the beginning of the host with the folder `host`, has failed.
    fn check(&mut self, folder: &StateFolder, host: &Path) -> Result<()> {
        let ended = self
            .child
            .try_wait()
            .map_err(io_error("wait for", "unshare"))?;
        if ended.is_none() && !host.join("failed").exists() {
            return Ok(());
        }
        Err(LabError::Ended {
            context: format!(
                " before it was up (does this machine let root make namespaces and a bridge?):{}{}",
                tail(&folder.path().join("switch.log"), 8),
                tail(&host.join("init.log"), 8)
            ),
        })
    }

    /// Ends everything, and waits for it: at most 10 s, then by force.
    fn end(&mut self) {
        drop(self.pipe.take());
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if started.elapsed() > Duration::from_secs(10) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            pause(Duration::from_millis(5));
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.end();
    }
}

fn keeps() -> bool {
    std::env::var_os("LOGCHAIN_LAB_KEEP").is_some_and(|value| value == "1")
}

fn add_tail(error: LabError, log: &Path) -> LabError {
    match error {
        LabError::Timeout {
            what,
            limit,
            context,
        } => LabError::Timeout {
            what,
            limit,
            context: context + &tail(log, 8),
        },
        other => other,
    }
}

/// Root, and every program that a lab is made of.
fn check_machine() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NeedsRoot);
    }
    for program in [
        "unshare",
        "nsenter",
        "ip",
        "ssh-keygen",
        "sshd",
        "virtlogd",
        "libvirtd",
        "virsh",
        "qemu-system-x86_64",
        "gcc",
    ] {
        let there = PATH
            .split(':')
            .any(|folder| Path::new(folder).join(program).is_file());
        if !there {
            return Err(LabError::Missing {
                what: format!("the program {program}"),
                hint: "`cargo xtask test` installs what the lab needs".to_owned(),
            });
        }
    }
    Ok(())
}
