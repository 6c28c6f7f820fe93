//! With which other hosts a domain's QEMU and the libvirt daemon have connections now.
//!
//! Nothing in libvirt names the other host of a migration. But while one runs, its connections
//! are there: QEMU's own, which carries the memory (unless it is tunnelled), and that of the
//! source's daemon to the destination's, where the daemon itself drives the migration. Both are
//! seen in `/proc`, by root.
//!
//! An address is a hint of whom to ask, in the order in which it is likely; no proof. QEMU has
//! connections to storage, to terminals and to screens as well.
//!
//! Must not know: what is asked.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Where libvirt's driver keeps the numbers of its processes.
const PID_FILES: &str = "/run/libvirt/qemu";

/// The ports at which a destination waits for memory and disks, unless qemu.conf says otherwise.
const MIGRATION_PORTS: std::ops::RangeInclusive<u16> = 49152..=49215;

/// The ports at which libvirt's daemons listen: TCP and TLS.
const DAEMON_PORTS: [u16; 2] = [16509, 16514];

/// The names of the daemons that drive migrations.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// Connections read at most of one process: what is more is no hypervisor's.
const MOST: usize = 100_000;

/// A connection of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// Which way a domain migrates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It leaves this host.
    Out,
    /// It comes to this host.
    In,
}

/// What says that an address is that of the other host, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trace {
    /// QEMU has the connection that carries the memory. Whoever is at its other end has the whole
    /// domain.
    Memory,
    /// QEMU has some connection there, and the daemon has one too.
    Both,
    /// The daemon has one, as each of its clients does: it says nothing of this domain.
    Daemon,
}

/// As [`traces`], without what they are worth.
#[must_use]
pub fn peers(name: &str, domain: Uuid, direction: Direction) -> Vec<IpAddr> {
    let traces = traces(name, domain, direction).into_iter();
    traces.map(|(address, _)| address).collect()
}

/// The other hosts that a domain may migrate to or come from now: the likeliest first, each
/// once. Blocks on files. Where `/proc` does not tell, there are none.
#[must_use]
pub fn traces(name: &str, domain: Uuid, direction: Direction) -> Vec<(IpAddr, Trace)> {
    let qemu = qemu_of(name, domain)
        .and_then(|pid| links(pid).ok())
        .unwrap_or_default();
    let mut daemon = Vec::new();
    for pid in processes(&DAEMONS) {
        daemon.extend(links(pid).unwrap_or_default());
    }
    rank(&qemu, &daemon, direction)
}

/// Pure: the addresses in the order in which they are likely.
fn rank(qemu: &[Link], daemon: &[Link], direction: Direction) -> Vec<(IpAddr, Trace)> {
    // The destination is the one that listens.
    let listens = |link: &Link| match direction {
        Direction::Out => link.remote.port(),
        Direction::In => link.local.port(),
    };
    let talks = |link: &Link| DAEMON_PORTS.contains(&listens(link));
    let migrates = |link: &Link| MIGRATION_PORTS.contains(&listens(link));
    let address = |link: &Link| link.remote.ip();
    let daemons: Vec<IpAddr> = daemon.iter().filter(|l| talks(l)).map(address).collect();
    let certain = qemu.iter().filter(|l| migrates(l)).map(address);
    let both = qemu.iter().map(address).filter(|a| daemons.contains(a));
    let mut seen = HashSet::new();
    let daemon = daemons.iter().map(|address| (*address, Trace::Daemon));
    certain
        .map(|address| (address, Trace::Memory))
        .chain(both.map(|address| (address, Trace::Both)))
        .chain(daemon)
        .filter(|(address, _)| !address.is_loopback() && !address.is_unspecified())
        .filter(|(address, _)| seen.insert(*address))
        .collect()
}

/// The process of a domain that runs here: its number, and when it was started. No other one has
/// both until this host is started anew. Blocks on files.
#[must_use]
pub fn process_of(name: &str, domain: Uuid) -> Option<String> {
    let pid = qemu_of(name, domain)?;
    let stat = fs::read_to_string(process(pid).join("stat")).ok()?;
    let started = started(&stat)?;
    Some(format!("{pid} {started}"))
}

/// When a process was started, by the kernel's line about it.
fn started(stat: &str) -> Option<u64> {
    // Its name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// The process of a domain, by libvirt's own file. One whose command line does not name the
/// domain's UUID is another one's.
fn qemu_of(name: &str, domain: Uuid) -> Option<u32> {
    // A name with a slash in it is none that libvirt takes.
    if name.contains('/') {
        return None;
    }
    let file = Path::new(PID_FILES).join(format!("{name}.pid"));
    let pid = fs::read_to_string(file).ok()?.trim().parse::<u32>().ok()?;
    let command = fs::read(process(pid).join("cmdline")).ok()?;
    let uuid = domain.to_string();
    let mut words = command.split(|byte| *byte == 0);
    let named = words.any(|word| word == uuid.as_bytes());
    named.then_some(pid)
}

/// The processes of one of these names.
fn processes(names: &[&str]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let numbers = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    numbers
        .filter(|pid| {
            let name = fs::read_to_string(process(*pid).join("comm"));
            name.is_ok_and(|name| names.contains(&name.trim()))
        })
        .filter(|pid| is_on_this_network(*pid))
        .collect()
}

/// Whether a process has this one's network. A daemon in a container has another: its addresses
/// are not this host's.
fn is_on_this_network(pid: u32) -> bool {
    let network = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    network(&process(pid)) == network(Path::new("/proc/self"))
}

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// The TCP connections of a process.
fn links(pid: u32) -> io::Result<Vec<Link>> {
    let process = process(pid);
    let mut sockets = HashSet::new();
    for entry in fs::read_dir(process.join("fd"))?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|t| t.strip_suffix(']'));
        sockets.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    let mut links = Vec::new();
    for table in ["net/tcp", "net/tcp6"] {
        // Without IPv6 there is no such file.
        let table = fs::read_to_string(process.join(table)).unwrap_or_default();
        let found = table.lines().take(MOST).filter_map(established);
        links.extend(
            found
                .filter(|(_, inode)| sockets.contains(inode))
                .map(|(link, _)| link),
        );
    }
    Ok(links)
}

/// A line of the kernel's table, where it is a connection that stands, and its inode.
fn established(line: &str) -> Option<(Link, u64)> {
    let mut words = line.split_whitespace().skip(1);
    let local = socket(words.next()?)?;
    let remote = socket(words.next()?)?;
    // 01 is ESTABLISHED.
    if words.next()? != "01" {
        return None;
    }
    let inode = words.nth(5)?.parse().ok()?;
    Some((Link { local, remote }, inode))
}

/// An end as the kernel prints it: the address in words of this machine's byte order, the port
/// as a number.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = address.get(at.checked_mul(8)?..)?.get(..8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = Vec::with_capacity(16);
            for at in 0..4 {
                bytes.extend(word(at)?);
            }
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn link(local: &str, remote: &str) -> Link {
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        Link { local, remote }
    }

    #[test]
    fn the_connection_of_the_memory_comes_first() {
        let qemu = [
            // Storage, a screen, the migration.
            link("192.0.2.1:40000", "192.0.2.9:6789"),
            link("192.0.2.1:5900", "192.0.2.7:50000"),
            link("192.0.2.1:40002", "198.51.100.2:49152"),
        ];
        let daemon = [
            link("192.0.2.1:40001", "192.0.2.3:16509"),
            link("192.0.2.1:16514", "192.0.2.4:40000"),
            link("192.0.2.1:40009", "192.0.2.8:22"),
            link("127.0.0.1:16509", "127.0.0.1:40000"),
        ];
        let text = |found: Vec<(IpAddr, Trace)>| {
            let found = found.iter().map(|(a, trace)| format!("{a} {trace:?}"));
            found.collect::<Vec<_>>()
        };
        let out = rank(&qemu, &daemon, Direction::Out);
        assert_eq!(text(out), ["198.51.100.2 Memory", "192.0.2.3 Daemon"]);
        // Its ports were chosen by hand: both have a connection to the same host.
        let other = [
            link("192.0.2.1:40000", "192.0.2.9:6789"),
            link("192.0.2.1:5000", "192.0.2.4:40002"),
        ];
        let two = [daemon[1], link("192.0.2.1:16514", "192.0.2.5:40000")];
        let into = rank(&other, &two, Direction::In);
        assert_eq!(text(into), ["192.0.2.4 Both", "192.0.2.5 Daemon"]);
        assert!(rank(&[], &[], Direction::In).is_empty());
    }

    #[test]
    fn a_connection_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let ours = TcpStream::connect(there).unwrap();
        let _accepted = listener.accept().unwrap();
        let found = links(std::process::id()).unwrap();
        let want = Link {
            local: ours.local_addr().unwrap(),
            remote: there,
        };
        assert!(found.contains(&want), "{found:?}");
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 1 1 0 0 1 1 0 0 20 0 1 0 4711 1 1";
        assert_eq!(started(stat), Some(4711));
        assert_eq!(started("7 (a S 1"), None);
        let line = "   0: 010200C0:9C40 020200C0:C000 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 20 4 0 10 -1";
        let (found, inode) = established(line).unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(found, link("192.0.2.1:40000", "192.0.2.2:49152"));
        }
        assert_eq!(inode, 4711);
        for line in [
            "",
            "0:",
            "0: x y 01",
            "0: 010200C0:9C40 020200C0:C000 0A 0 0 0 0 0 1",
        ] {
            assert!(established(line).is_none(), "{line}");
        }
    }
}
