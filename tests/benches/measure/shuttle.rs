//! One guest that goes to and fro between two hosts, booted once. Before each
//! migration its log is made what it is to be: a history of a given size, and
//! behind it what the guest prints on that host.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logchain_tests::{Guest, GuestOn, Host, Lab, Output, Ticks};

use super::Fallible;
use super::agents::{Agents, Meeting};
use super::pool::Pool;

/// Far more than any of it takes.
const LIMIT: Duration = Duration::from_secs(300);

/// Lines that it prints on a host before it leaves.
const LINES: u64 = 200;

/// Lines that it prints while agents come to rest: each takes a millisecond.
const SETTLED: u64 = 1500;

const NAME: &str = "vm";

/// The last words of every history that is laid.
const MARK: &str = "the end of what the guest printed long ago\n";

/// What kind of guest, and on what line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scene {
    /// Its memory lies in huge pages.
    pub(crate) huge: bool,
    /// It writes to so many MiB of it all the time.
    pub(crate) dirty: u32,
    /// What a host can send, in Mbit/s; `None`: as much as the machine can.
    pub(crate) mbit: Option<u64>,
    /// The hosts have certificates, by which agents know each other.
    pub(crate) tls: bool,
}

pub(crate) struct Shuttle {
    lab: Lab,
    at: usize,
    /// What its memory lies in; goes back after the lab.
    _pool: Option<Pool>,
}

impl Shuttle {
    /// Two hosts, and the guest on the first. Nothing is rolled over while it is
    /// measured.
    pub(crate) fn start(scene: &Scene) -> Fallible<Self> {
        let guest = Guest::new(NAME).dirty(scene.dirty);
        let guest = match scene.huge {
            true => guest.huge_pages(),
            false => guest,
        };
        // It is on two hosts at once for a while.
        let pool = scene.huge.then(|| Pool::add(2 * Guest::MIB / 2 + 8));
        let pool = pool.transpose()?;
        let lab = Lab::builder().hosts(2).virtlogd(0, 3);
        let lab = match scene.tls {
            true => lab.tls(),
            false => lab,
        };
        let lab = lab.start()?;
        let guest = lab.host(0).define(&guest)?;
        guest.start()?;
        if let Some(mbit) = scene.mbit {
            for host in lab.hosts() {
                host.slow_network(mbit)?;
            }
        }
        guest.wait_for_tick(LINES)?;
        Ok(Self {
            lab,
            at: 0,
            _pool: pool,
        })
    }

    /// Where it is.
    pub(crate) fn from(&self) -> &Host {
        self.lab.host(self.at)
    }

    /// Starts agents on both hosts, and lets them come to rest.
    pub(crate) fn agents(&self, meeting: Meeting) -> Fallible<Agents> {
        let agents = Agents::start(&self.lab, meeting)?;
        self.guest().wait_for_more_ticks(SETTLED)?;
        Ok(agents)
    }

    /// Where it goes next.
    pub(crate) fn to(&self) -> &Host {
        self.lab.host(1 - self.at)
    }

    pub(crate) fn guest(&self) -> GuestOn {
        self.from().guest(NAME)
    }

    /// A host's files of the log: the base, then those rotated, newest first.
    pub(crate) fn files(host: &Host) -> Vec<PathBuf> {
        let base = host.path(host.log_path(NAME));
        let rotated = |n| {
            let mut name = base.as_os_str().to_owned();
            name.push(format!(".{n}"));
            name.into()
        };
        let mut files = vec![base.clone()];
        files.extend((0..4).map(rotated));
        files
    }

    /// Makes the log on this host a history of `mib` MiB and what the guest prints
    /// from its arrival on, and the other host one that it has never been on.
    pub(crate) fn lay(&self, mib: u64) -> Fallible<()> {
        let (from, to) = (self.from(), self.to());
        clear(to, &[])?;
        clear(from, &["console.log"])?;
        let history = from.path(format!("/var/log/history-{mib}"));
        if !history.exists() {
            make(&history, mib)?;
        }
        let rotated = Self::files(from).swap_remove(1);
        // One file of many names: 1 GiB is laid at once. Nobody writes to it.
        fs::hard_link(&history, rotated)?;
        self.guest().wait_for_more_ticks(LINES)?;
        Ok(())
    }

    /// `logchain migrate`, to its end.
    pub(crate) fn by_logchain(&self) -> Fallible<Output> {
        self.migrate(&["logchain", "migrate"])
    }

    /// `virsh migrate`, to its end.
    pub(crate) fn by_virsh(&self) -> Fallible<Output> {
        self.migrate(&["virsh", "migrate"])
    }

    fn migrate(&self, command: &[&str]) -> Fallible<Output> {
        let uri = self.to().uri();
        let way = ["--live", "--p2p", "--persistent", NAME, &uri];
        let command = self.from().command(command).args(way);
        Ok(command.limit(LIMIT).run()?.checked()?)
    }

    /// Waits until libvirt says that it is over at the source.
    pub(crate) fn until_shut_off(&self) -> Fallible<()> {
        let guest = self.guest();
        let shut_off = || Ok((guest.state()?.as_deref() == Some("shut off")).then_some(()));
        Ok(self
            .from()
            .until("the source to be shut off", LIMIT, shut_off)?)
    }

    /// The guest is at the other host, and prints there.
    pub(crate) fn arrived(&mut self) -> Fallible<()> {
        self.to().guest(NAME).wait_for_more_ticks(50)?;
        self.at = 1 - self.at;
        Ok(())
    }

    /// Every line since its last arrival but one is there, once, in order.
    pub(crate) fn check(&self) -> Fallible<()> {
        let show = ["logchain", "show", "-n", "4M", NAME];
        let text = self.from().run(show)?.checked()?.stdout;
        let mark = MARK.as_bytes();
        let end = text.windows(mark.len()).rposition(|w| w == mark);
        let own = end.and_then(|at| text.get(at + mark.len()..));
        Ticks::check(own.ok_or("the end of the history is not there")?)?;
        Ok(())
    }
}

/// Removes what lies in the folder of the log, but for `kept`.
fn clear(host: &Host, kept: &[&str]) -> Fallible<()> {
    let base = host.path(host.log_path(NAME));
    for entry in fs::read_dir(base.parent().unwrap_or(&base))? {
        let entry = entry?;
        if kept.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn make(path: &Path, mib: u64) -> Fallible<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let (mut written, mut line) = (0, 0_u64);
    let bytes = mib << 20;
    while written + 200 < bytes {
        line += 1;
        let text = format!("older line {line:010} of what the guest printed long ago\n");
        file.write_all(text.as_bytes())?;
        written += text.len() as u64;
    }
    file.write_all(MARK.as_bytes())?;
    // On disk before anything is measured.
    file.into_inner()?.sync_all()?;
    Ok(())
}
