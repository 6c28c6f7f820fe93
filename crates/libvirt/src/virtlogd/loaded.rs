//! Which configuration a running virtlogd has loaded.
//!
//! It reads its file when it starts, and when it executes itself again. Right after
//! either it writes its pid file, and keeps that open: so the pid file's time says when
//! the configuration was loaded, by the same clock as the time at which the
//! configuration's inode changed last.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};

use super::options::{Options, options};
use super::view::{Changed, View};
use super::{NAME, Virtlogd, name_of, writable_files};
use crate::virtlogd_conf::VIRTLOGD_CONF;

/// Where the system's virtlogd listens, by which it is known from those in containers.
const SOCKETS: [&str; 2] = [
    "/run/libvirt/virtlogd-sock",
    "/var/run/libvirt/virtlogd-sock",
];

/// The configuration file of a virtlogd, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Where it is, by the path that virtlogd has for it.
    pub path: PathBuf,
    /// What it says; nothing where there is none, which virtlogd takes for an empty one
    /// unless it was named.
    pub text: Option<Vec<u8>>,
    /// Whether virtlogd may have loaded something else: the file changed since, or that
    /// cannot be told.
    pub in_doubt: bool,
}

/// Where distributions keep the arguments that systemd starts virtlogd with.
const SERVICE_FILES: [&str; 2] = ["/etc/default/virtlogd", "/etc/sysconfig/virtlogd"];

impl Configuration {
    /// The file that the system's virtlogd would load that is started next.
    #[must_use]
    pub fn of_next_start() -> PathBuf {
        let texts = SERVICE_FILES.iter().filter_map(|path| fs::read(path).ok());
        let mut named = texts.filter_map(|text| named_by_service(&String::from_utf8_lossy(&text)));
        named.next().unwrap_or_else(|| PathBuf::from(VIRTLOGD_CONF))
    }

    /// What a virtlogd would load that is started now. What cannot be read is in doubt.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let text = fs::read(path);
        let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        Self {
            path: path.to_owned(),
            in_doubt: text.as_ref().is_err_and(|e| !missing(e)),
            text: text.ok(),
        }
    }
}

impl Virtlogd {
    /// The one that writes the logs of this host's libvirt (for an ordinary user: of
    /// the user's own); `None` where none runs. Blocks for as long as /proc takes.
    ///
    /// # Errors
    /// Also where there are several, and which one it is cannot be told.
    pub fn of_host() -> io::Result<Option<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|n| n.parse::<i32>().ok());
            let Some(pid) = pid.and_then(Pid::from_raw).filter(|p| name_of(*p) == NAME) else {
                continue;
            };
            let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue; // ended meanwhile
            };
            let one = Self { pid, held };
            if name_of(pid) == NAME && one.user() == Some(geteuid().as_raw()) && one.is_ours() {
                found.push(one);
            }
        }
        match (found.pop(), found.is_empty()) {
            (one, true) => Ok(one),
            (_, false) => Err(io::Error::other(
                "several virtlogd listen for this host's libvirt",
            )),
        }
    }

    /// Whether libvirt here speaks with it: it sees the very socket that is here. A
    /// trial start (see [`Virtlogd::try_start`]) has one of its own in the same place.
    fn is_ours(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let id = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        if !geteuid().is_root() {
            return true;
        }
        let here = SOCKETS.iter().find_map(|path| id(Path::new(path)));
        let there = SOCKETS
            .iter()
            .find_map(|path| id(&self.in_its_files(Path::new(path))));
        here.is_some() && here == there
    }

    /// The effective user.
    pub(super) fn user(&self) -> Option<u32> {
        let status = self.read("status").ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Its program's name as it was started with, and its arguments.
    pub(super) fn arguments(&self) -> io::Result<(OsString, Vec<OsString>)> {
        let mut words = words(fs::read(self.proc("cmdline"))?).into_iter();
        let name = words.next();
        let name = name.ok_or_else(|| io::Error::other("it has no arguments"))?;
        Ok((name, words.collect()))
    }

    /// Its environment, `NAME=VALUE` each.
    pub(super) fn environment(&self) -> io::Result<Vec<OsString>> {
        Ok(words(fs::read(self.proc("environ"))?))
    }

    /// Where its configuration file is, and whether it was named.
    pub(super) fn configuration_path(&self) -> io::Result<(PathBuf, bool)> {
        let (_, args) = self.arguments()?;
        let Options { config, .. } = options(&args);
        if let Some(path) = config {
            let folder = if path.is_absolute() {
                PathBuf::new()
            } else {
                fs::read_link(self.proc("cwd"))?
            };
            return Ok((folder.join(path), true));
        }
        if self.user() == Some(0) {
            return Ok((PathBuf::from(VIRTLOGD_CONF), false));
        }
        let environment = self.environment()?;
        let value = |name: &str| {
            let value = environment.iter().find_map(|variable| {
                let value = variable.as_encoded_bytes().strip_prefix(name.as_bytes())?;
                Some(PathBuf::from(OsString::from_vec(value.to_vec())))
            });
            value.filter(|value| value.is_absolute())
        };
        let folder = value("XDG_CONFIG_HOME=").or_else(|| Some(value("HOME=")?.join(".config")));
        let folder = folder.ok_or_else(|| io::Error::other("it has no home folder"))?;
        Ok((folder.join("libvirt/virtlogd.conf"), false))
    }

    /// The configuration that it was started with, as the file is now.
    pub fn configuration(&self) -> io::Result<Configuration> {
        let (path, is_named) = self.configuration_path()?;
        let view = self.view()?;
        let loaded = self.loaded();
        let (text, changed) = match view.read(&path) {
            Ok((text, changed)) => (Some(text), changed),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !is_named => {
                // Removed since, maybe: then its folder changed.
                let folder = path.parent().unwrap_or(Path::new("/"));
                let changed = view.changed(folder);
                (None, changed.unwrap_or(Changed::seconds(0)))
            }
            Err(e) => {
                let what = format!("cannot read {}: {e}", path.display());
                return Err(io::Error::new(e.kind(), what));
            }
        };
        Ok(Configuration {
            path,
            text,
            in_doubt: loaded.is_none_or(|loaded| changed > loaded),
        })
    }

    /// When it loaded its configuration, to the second where only its start is known.
    fn loaded(&self) -> Option<Changed> {
        let files = writable_files(self.pid).unwrap_or_default();
        let pid_file = files.iter().find(|file| {
            file.path.extension().is_some_and(|e| e == "pid") && file.found.len() < 64
        });
        if let Some(file) = pid_file {
            return Some(Changed::written(&file.found));
        }
        let ticks = start_ticks(&fs::read_to_string(self.proc("stat")).ok()?)?;
        let booted = boot_second(&fs::read_to_string("/proc/stat").ok()?)?;
        let each = rustix::param::clock_ticks_per_second();
        Some(Changed::seconds(
            booted.saturating_add(ticks.checked_div(each)?),
        ))
    }

    /// The files as it sees them.
    pub(super) fn view(&self) -> io::Result<View> {
        View::of(&self.proc("root"))
    }
}

/// Pure: the configuration file that the arguments of a service name.
fn named_by_service(text: &str) -> Option<PathBuf> {
    let set = |line: &'_ str| -> Option<String> {
        let value = line.trim().strip_prefix("VIRTLOGD_ARGS=")?;
        Some(value.trim_matches(['"', '\'']).to_owned())
    };
    let args = text.lines().filter_map(set).next_back()?;
    let args: Vec<OsString> = args.split_whitespace().map(OsString::from).collect();
    options(&args).config
}

/// Pure: words that are ended by NUL each.
fn words(bytes: Vec<u8>) -> Vec<OsString> {
    let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if text.is_empty() {
        return Vec::new();
    }
    let words = text.split(|b| *b == 0);
    words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// Pure: when a process started, in ticks since the boot, by its `/proc/*/stat`.
fn start_ticks(stat: &str) -> Option<u64> {
    // The command's name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Pure: when the machine was booted, in seconds since 1970, by `/proc/stat`.
fn boot_second(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|l| l.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        assert_eq!(words(b"a\0b c\0\0".to_vec()), ["a", "b c", ""]);
        assert_eq!(words(Vec::new()), Vec::<OsString>::new());
        let service = "#VIRTLOGD_ARGS=-f /x\nVIRTLOGD_ARGS=\"--verbose --config /y.conf\"\n";
        assert_eq!(named_by_service(service), Some(PathBuf::from("/y.conf")));
        assert_eq!(named_by_service("VIRTLOGD_ARGS=\n"), None);
        let stat = format!("7 (a) b) S {} 4711 0", ["1"; 18].join(" "));
        assert_eq!(start_ticks(&stat), Some(4711));
        assert_eq!(start_ticks("7 (a"), None);
        assert_eq!(
            boot_second("cpu 1\nbtime 1790000000\n"),
            Some(1_790_000_000)
        );
    }
}
