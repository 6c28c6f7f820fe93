//! What `soak` is made of: chance, faults, and the ledger of what was printed.

use std::fmt::Write as _;
use std::time::Duration;

use logchain_tests::{Host, Running, Signal, Ticks};

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// virtlogd's limits on each host: a flood fills a file, and all files hold what a
/// guest prints in some hundred hops.
pub(crate) const FILE: u64 = 1 << 20;
pub(crate) const BACKUPS: u32 = 32;

/// Numbers that a seed decides (splitmix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).unwrap_or(0)
    }

    pub(crate) fn shuffled<T: Clone>(&mut self, all: &[T]) -> Vec<T> {
        let mut all = all.to_vec();
        for last in (1..all.len()).rev() {
            let other = self.below(last + 1);
            all.swap(last, other);
        }
        all
    }
}

/// What goes wrong in a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    KillSource,
    KillDestination,
    ReloadSource,
    ReloadDestination,
    CutSsh,
    StopSshd,
    KillLibvirtd,
    Cancel,
    FullSpool,
    Rotate,
    Plain,
}

impl Fault {
    pub(crate) const ALL: &[Self] = &[
        Self::None,
        Self::KillSource,
        Self::KillDestination,
        Self::ReloadSource,
        Self::ReloadDestination,
        Self::CutSsh,
        Self::StopSshd,
        Self::KillLibvirtd,
        Self::Cancel,
        Self::FullSpool,
        Self::Rotate,
        Self::Plain,
    ];

    pub(crate) fn words(self, from: &Host, to: &Host) -> String {
        let (from, to) = (from.name(), to.name());
        match self {
            Self::None => "no fault".to_owned(),
            Self::KillSource => format!("logchain killed on {from}"),
            Self::KillDestination => format!("logchain killed on {to}"),
            Self::ReloadSource => format!("virtlogd executes itself again on {from}"),
            Self::ReloadDestination => format!("virtlogd executes itself again on {to}"),
            Self::CutSsh => format!("every ssh killed on {from}"),
            Self::StopSshd => format!("sshd and its sessions killed on {to}"),
            Self::KillLibvirtd => format!("libvirtd killed on {to} and started again"),
            Self::Cancel => "Ctrl-C".to_owned(),
            Self::FullSpool => format!("the spool on {to} is full"),
            Self::Rotate => format!("logchain rotate on {from}"),
            Self::Plain => "plain virsh migrate, then logchain offer".to_owned(),
        }
    }

    /// Whether it comes while the migration is under way.
    pub(crate) fn has_moment(self) -> bool {
        !matches!(self, Self::None | Self::FullSpool | Self::Plain)
    }

    /// What is wrong before it begins.
    pub(crate) fn prepare(self, to: &Host) -> Fallible<()> {
        if self == Self::FullSpool {
            let spool = "/var/lib/logchain/spool";
            to.run(["mkdir", "-p", spool])?.checked()?;
            let small = ["mount", "-t", "tmpfs", "-o", "size=16k", "small", spool];
            to.run(small)?.checked()?;
        }
        Ok(())
    }

    /// It comes, now.
    pub(crate) fn strike(self, running: &mut Running, from: &Host, to: &Host) -> Fallible<()> {
        // As the system cuts the name of the program that works.
        let program = "logchain-libvir";
        match self {
            Self::None | Self::FullSpool | Self::Plain => {}
            Self::KillSource => kill(from, program, "KILL")?,
            Self::KillDestination => kill(to, program, "KILL")?,
            Self::ReloadSource => kill(from, "virtlogd", "USR1")?,
            Self::ReloadDestination => kill(to, "virtlogd", "USR1")?,
            Self::CutSsh => kill(from, "ssh", "KILL")?,
            Self::StopSshd => to.stop_sshd()?,
            Self::KillLibvirtd => {
                to.kill_libvirtd()?;
                to.start_libvirtd()?;
            }
            // It may be over already.
            Self::Cancel => drop(running.signal(Signal::INT)),
            Self::Rotate => {
                let output = from.run(["logchain", "rotate", "vm"])?;
                let said = [output.out(), output.err()].concat();
                println!("  rotate ended with {:?}: {}", output.code(), said.trim());
            }
        }
        Ok(())
    }

    /// The operator puts right what was wrong.
    pub(crate) fn mend(self, to: &Host) -> Fallible<()> {
        match self {
            Self::StopSshd => to.start_sshd()?,
            Self::FullSpool => {
                to.run(["umount", "-l", "/var/lib/logchain/spool"])?
                    .checked()?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Signals what has this name on a host, if anything has.
fn kill(host: &Host, name: &str, signal: &str) -> Fallible<()> {
    let pids = host.processes(name)?;
    println!("  {} of {name} on {} get {signal}", pids.len(), host.name());
    if !pids.is_empty() {
        let pids = pids.iter().map(u32::to_string);
        let kill = ["kill".to_owned(), format!("-{signal}")];
        // One may have ended meanwhile.
        host.run(kill.into_iter().chain(pids))?;
    }
    Ok(())
}

/// What the guest has printed, as far as it was seen: each log that is added must
/// begin where an earlier one was, and have every line once and in order.
#[derive(Default)]
pub(crate) struct Ledger {
    last: u64,
    /// The first line that the rotation still keeps.
    first: u64,
}

impl Ledger {
    pub(crate) fn add(&mut self, text: &[u8]) -> Fallible<String> {
        let report = Ticks::check(text)?;
        let mut told = format!("lines {} to {}", report.first, report.last);
        let kept = u64::from(BACKUPS - 1) * FILE;
        if report.first > 1 && (text.len() as u64) < kept {
            return Err(format!("{told} only, in {} bytes", text.len()).into());
        }
        if report.first > self.last + 1 || report.last < self.last {
            return Err(format!("{told}, but there were lines up to {}", self.last).into());
        }
        (self.first, self.last) = (report.first, report.last);
        let _ = write!(told, ", {} bytes", text.len());
        Ok(told)
    }

    pub(crate) fn verdict(&self) -> String {
        let kept = match self.first {
            1 => "all there".to_owned(),
            first => format!("all seen there, those before {first} dropped by the rotation since"),
        };
        format!("{} lines, {kept}, once, in order", self.last)
    }
}

#[expect(clippy::disallowed_methods, reason = "a moment is what is tried")]
pub(crate) fn rest(time: Duration) {
    std::thread::sleep(time);
}
