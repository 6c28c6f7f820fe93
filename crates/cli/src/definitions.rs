//! Whose the files beside a log are, for the program that is not linked to libvirt:
//! which of them the definitions of libvirt's guests name, as they lie on disk, and
//! which of them virtlogd has open, as /proc tells it. Both tell it to root alone.
//!
//! Must not know: libvirt's library.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use logchain_core::chain::{LogChain, Ownership};

/// Where the system's virtlogd says which process it is.
const PID_FILE: &str = "/run/virtlogd.pid";

/// Definitions of running guests, and of all that are defined.
const DEFINITIONS: [&str; 2] = ["/run/libvirt/qemu", "/etc/libvirt/qemu"];

/// How much of one definition is read. Most have some kilobytes.
const DEFINITION: u64 = 1 << 20;

/// What is known of the files beside the log of `chain`.
pub(crate) fn ownership(chain: &LogChain) -> Ownership {
    known(chain, Path::new(PID_FILE), &DEFINITIONS.map(Path::new))
}

fn known(chain: &LogChain, pid_file: &Path, definitions: &[&Path]) -> Ownership {
    let mut known = Ownership::default();
    let there = |path: &&Path| path.exists();
    if !pid_file.exists() && !definitions.iter().any(there) {
        return known;
    }
    let Ok(listing) = chain.listing() else {
        return known;
    };
    let path = chain.path();
    let mut doubtful: Vec<&OsStr> = listing.unproven().collect();
    if doubtful.is_empty() {
        return known;
    }
    let named = named(definitions, &path, &doubtful);
    doubtful.retain(|name| !named.contains(name));
    for name in named {
        known.named_by_another(name.to_owned());
    }
    // It writes to one file of a log at a time: two that it has open are two logs.
    if let Some(open) = open_files(pid_file)
        && is_one_of(&open, &path)
    {
        for name in doubtful {
            if is_one_of(&open, &path.with_file_name(name)) {
                known.written_by_another(name.to_owned());
            }
        }
    }
    known
}

/// Those of `names` beside `log` that a guest's definition gives as the path of a log.
fn named<'a>(definitions: &[&Path], log: &Path, names: &[&'a OsStr]) -> Vec<&'a OsStr> {
    let folder = identity(
        log.parent()
            .filter(|p| *p != Path::new(""))
            .unwrap_or(Path::new(".")),
    );
    let mut named: Vec<&OsStr> = Vec::new();
    let files = definitions
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok());
    for entry in files.flatten().flatten() {
        let path = entry.path();
        if path.extension() != Some(OsStr::new("xml")) {
            continue;
        }
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|f| f.take(DEFINITION).read_to_end(&mut text));
        if read.is_err() {
            continue;
        }
        for name in names {
            let is_there = |path: &PathBuf| path.parent().and_then(identity) == folder;
            if folder.is_some()
                && !named.contains(name)
                && paths_to(&text, name).iter().any(is_there)
            {
                named.push(name);
            }
        }
    }
    named
}

/// The paths, in quotes, that end in the file name `name`. One with characters that XML
/// writes otherwise is not found: libvirt itself tells of it where it is asked.
fn paths_to(text: &[u8], name: &OsStr) -> Vec<PathBuf> {
    let name = name.as_bytes();
    let is_quote = |b: &u8| matches!(b, b'\'' | b'"');
    let quoted = text.split(is_quote).filter(|part| {
        let folder = part.strip_suffix(name);
        part.starts_with(b"/") && folder.is_some_and(|folder| folder.ends_with(b"/"))
    });
    quoted
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .collect()
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn is_one_of(open: &[(u64, u64)], path: &Path) -> bool {
    let file = fs::symlink_metadata(path);
    file.is_ok_and(|file| open.contains(&(file.dev(), file.ino())))
}

/// Every file that the process has open which wrote `pid_file`; `None` where we may not
/// know.
fn open_files(pid_file: &Path) -> Option<Vec<(u64, u64)>> {
    let pid: u32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let files = entries.filter_map(|entry| {
        let file = fs::metadata(entry.ok()?.path()).ok()?;
        file.is_file().then(|| (file.dev(), file.ino()))
    });
    Some(files.collect())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use logchain_core::chain::NumberingChoice;

    use super::*;

    struct Bed(tempfile::TempDir);

    impl Bed {
        /// `web.1` was last written long before `web` was begun: times tell nothing.
        fn new() -> Self {
            let bed = Self(tempfile::tempdir().unwrap());
            fs::write(bed.at("web.1"), "idle").unwrap();
            let file = File::open(bed.at("web.1")).unwrap();
            let long_ago = SystemTime::now() - Duration::from_secs(1000);
            file.set_modified(long_ago).unwrap();
            fs::create_dir(bed.at("definitions")).unwrap();
            bed
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn append(&self, name: &str) -> File {
            let mut options = fs::OpenOptions::new();
            options
                .append(true)
                .create(true)
                .open(self.at(name))
                .unwrap()
        }

        fn define(&self, log: &Path) {
            let xml = format!(
                "<serial type='pty'><log file='{}'/></serial>",
                log.display()
            );
            fs::write(self.at("definitions/vm2.xml"), xml).unwrap();
        }

        fn known(&self) -> Ownership {
            let chain = LogChain::open(&self.at("web"), NumberingChoice::FromZero).unwrap();
            known(&chain, &self.at("pid"), &[&self.at("definitions")])
        }
    }

    #[test]
    fn two_files_that_one_process_has_open_are_two_logs() {
        let bed = Bed::new();
        let _other = bed.append("web.1");
        fs::write(bed.at("pid"), format!("{}\n", std::process::id())).unwrap();
        fs::write(bed.at("web"), "").unwrap();
        // One that is written alone may have been renamed under its writer.
        assert_eq!(bed.known(), Ownership::default());
        let _base = bed.append("web");
        let mut expected = Ownership::default();
        expected.written_by_another("web.1".into());
        assert_eq!(bed.known(), expected);
    }

    #[test]
    fn a_file_that_a_definition_names_is_another_log() {
        let bed = Bed::new();
        fs::write(bed.at("web"), "").unwrap();
        for elsewhere in [bed.at("definitions/web.1"), bed.at("xweb.1"), bed.at("web")] {
            bed.define(&elsewhere);
            assert_eq!(bed.known(), Ownership::default(), "{elsewhere:?}");
        }
        // Whatever path leads there.
        let mut expected = Ownership::default();
        expected.named_by_another("web.1".into());
        for path in [bed.at("web.1"), bed.at("definitions/../web.1")] {
            bed.define(&path);
            assert_eq!(bed.known(), expected, "{path:?}");
        }
    }
}
