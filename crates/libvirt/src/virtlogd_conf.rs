//! How far logs are rolled over on this host: virtlogd.conf, and whether QEMU
//! writes the logs itself, which qemu.conf says.
//!
//! [`limits`], [`cleaner`] and [`stdio_handler`] are pure; [`read_limits`] and
//! [`read_stdio_handler`] read the files of this machine. Must not know: logs.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where libvirt keeps it.
pub const VIRTLOGD_CONF: &str = "/etc/libvirt/virtlogd.conf";
/// Where libvirt keeps it.
pub const QEMU_CONF: &str = "/etc/libvirt/qemu.conf";

/// virtlogd's own bound on `max_backups`: above it, it opens no log.
/// Source: libvirt 9.0.0, `src/util/virrotatingfile.c`.
pub const MAX_BACKUPS: u32 = 32;

/// Where virtlogd keeps logs, where its file does not say.
const LOG_ROOT: &str = "/var/log/libvirt";

/// How virtlogd rolls a log over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// At how many bytes; `None`: never.
    pub max_size: Option<u64>,
    /// How many rotated files it keeps.
    pub max_backups: u32,
}

impl Default for LogLimits {
    /// What virtlogd takes where its file says nothing: 2 MiB and 3.
    fn default() -> Self {
        Self {
            max_size: Some(2 << 20),
            max_backups: 3,
        }
    }
}

/// What virtlogd removes beside the rotation, once a day, where `max_age_days` is set
/// (libvirt 9.1 and newer). Source: libvirt, `src/logging/log_cleaner.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaner {
    /// The folder that it goes through, with the folders in it.
    pub log_root: PathBuf,
    /// It removes every rotated file with a number above, also of a log that is being
    /// written. virtlogd itself numbers to one below.
    pub max_backups: u32,
}

impl Cleaner {
    /// Whether it removes the file `name` from a folder that it goes through.
    #[must_use]
    pub fn removes(&self, name: &OsStr) -> bool {
        let number = name.to_str().and_then(|name| name.rsplit_once(".log."));
        let number = number.map(|(_, number)| number);
        let digits = number.filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        // One that it cannot read as a number it leaves alone.
        let number = digits.and_then(|digits| digits.parse::<i32>().ok());
        number.is_some_and(|number| i64::from(number) > i64::from(self.max_backups))
    }

    /// Whether it comes to the rotated files of the log at `path`, whose folder is
    /// looked at with its links resolved, as it does. Blocks as the file system does.
    #[must_use]
    pub fn reaches(&self, path: &Path) -> bool {
        if path.extension().is_none_or(|ending| ending != "log") {
            return false;
        }
        let resolved = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = resolved(path.parent().unwrap_or(Path::new("/")));
        let root = resolved(&self.log_root);
        if folder == root || folder.parent() == Some(&root) {
            return true;
        }
        let inside = fs::read_dir(&root).into_iter().flatten().flatten();
        let mut links = inside.filter(|e| e.file_type().is_ok_and(|t| t.is_symlink()));
        links.any(|link| resolved(&link.path()) == folder)
    }
}

/// Who writes the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StdioHandler {
    /// virtlogd, which rolls them over.
    #[default]
    Logd,
    /// QEMU itself: nothing rolls them over.
    File,
}

/// What a file says, with a note where it could not be read as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// What holds.
    pub value: T,
    /// Why it is the default, where that is not what the file says.
    pub note: Option<String>,
}

/// The limits in the text of a virtlogd.conf.
#[must_use]
pub fn limits(text: &str) -> Setting<LogLimits> {
    let defaults = LogLimits::default();
    let mut note = None;
    let mut number = |key: &str, default: u64| match last(text, key) {
        None => default,
        Some(value) => value.parse().unwrap_or_else(|_| {
            note = Some(format!("{key} = {value} is no number; taking {default}"));
            default
        }),
    };
    let size = number("max_size", defaults.max_size.unwrap_or_default());
    let backups = number("max_backups", u64::from(defaults.max_backups));
    let value = LogLimits {
        max_size: (size > 0).then_some(size),
        max_backups: u32::try_from(backups).unwrap_or(u32::MAX),
    };
    Setting { value, note }
}

/// What virtlogd removes beside the rotation, by the text of a virtlogd.conf; `None`:
/// nothing.
#[must_use]
pub fn cleaner(text: &str) -> Option<Cleaner> {
    let days = last(text, "max_age_days")?;
    // One that is no number, virtlogd does not start with.
    if days.parse::<u64>().is_ok_and(|days| days == 0) {
        return None;
    }
    let log_root = last(text, "log_root").map_or(LOG_ROOT, unquoted);
    Some(Cleaner {
        log_root: PathBuf::from(log_root),
        max_backups: limits(text).value.max_backups,
    })
}

/// Who writes the files, by the text of a qemu.conf.
#[must_use]
pub fn stdio_handler(text: &str) -> Setting<StdioHandler> {
    let (value, note) = match last(text, "stdio_handler").map(unquoted) {
        None | Some("logd") => (StdioHandler::Logd, None),
        Some("file") => (StdioHandler::File, None),
        Some(other) => {
            let note = format!("stdio_handler = {other:?} is not known here; taking \"logd\"");
            (StdioHandler::Logd, Some(note))
        }
    };
    Setting { value, note }
}

/// Reads [`limits`] from this machine's file. One that is not there says nothing.
/// Blocks for as long as the file system does.
#[must_use]
pub fn read_limits(path: &Path) -> Setting<LogLimits> {
    read(path, limits)
}

/// Reads [`stdio_handler`] from this machine's file, as [`read_limits`] does.
#[must_use]
pub fn read_stdio_handler(path: &Path) -> Setting<StdioHandler> {
    read(path, stdio_handler)
}

fn read<T: Default>(path: &Path, parse: impl Fn(&str) -> Setting<T>) -> Setting<T> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let found = parse(&String::from_utf8_lossy(&bytes));
            let note = found.note.map(|note| format!("{}: {note}", path.display()));
            Setting { note, ..found }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => parse(""),
        Err(e) => Setting {
            value: T::default(),
            note: Some(format!(
                "cannot read {}: {e}; taking defaults",
                path.display()
            )),
        },
    }
}

/// The value of `key`, as written; of several the last, as libvirt takes it.
fn last<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| without_comment(value).trim())
        })
        .next_back()
}

/// A `#` within quotes is none.
fn without_comment(value: &str) -> &str {
    let mut quote = None;
    for (at, c) in value.char_indices() {
        match (quote, c) {
            (None, '#') => return value.get(..at).unwrap_or(value),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    value
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
        {
            return inner;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn limits_as_virtlogd_takes_them() {
        for (text, size, backups, noted) in [
            ("", Some(2 * MIB), 3, false),
            (
                "#max_size = 5\n # max_backups = 7\n",
                Some(2 * MIB),
                3,
                false,
            ),
            (
                "max_size = 2097152\nmax_backups = 3\n",
                Some(2 * MIB),
                3,
                false,
            ),
            (
                "max_size=65536 # small\n\tmax_backups\t=\t5",
                Some(65536),
                5,
                false,
            ),
            ("max_size = 0\n", None, 3, false),
            ("max_backups = 0\n", Some(2 * MIB), 0, false),
            ("max_backups = 99\n", Some(2 * MIB), 99, false),
            (
                "max_backups = 99999999999\n",
                Some(2 * MIB),
                u32::MAX,
                false,
            ),
            ("max_size = 1\nmax_size = 7\n", Some(7), 3, false),
            ("max_size = many\n", Some(2 * MIB), 3, true),
            ("max_size = -1\n", Some(2 * MIB), 3, true),
            ("max_sizes = 1\nmy_max_size = 1\n", Some(2 * MIB), 3, false),
            (
                "log_filters=\"3:remote 4:event # max_size = 1\"\n",
                Some(2 * MIB),
                3,
                false,
            ),
        ] {
            let found = limits(text);
            let want = LogLimits {
                max_size: size,
                max_backups: backups,
            };
            assert_eq!(found.value, want, "{text:?}");
            assert_eq!(found.note.is_some(), noted, "{text:?}: {:?}", found.note);
        }
    }

    #[test]
    fn what_the_cleaner_removes() {
        assert_eq!(cleaner("max_backups = 3\nlog_root = \"/x\"\n"), None);
        assert_eq!(cleaner("max_age_days = 0\n#max_age_days = 3\n"), None);
        let found = cleaner("max_age_days = 7\nmax_backups = 2\n").unwrap();
        let root = Path::new("/var/log/libvirt");
        assert_eq!((found.log_root.as_path(), found.max_backups), (root, 2));
        for (name, goes) in [
            ("c.log", false),
            ("c.log.1", false),
            // virtlogd never makes this one, and the cleaner leaves it.
            ("c.log.2", false),
            ("c.log.3", true),
            ("c.log.0007", true),
            ("c.log.3.gz", false),
            ("c.log.99999999999", false),
            ("c.txt.3", false),
            (".c.log.logchain", false),
        ] {
            assert_eq!(found.removes(OsStr::new(name)), goes, "{name}");
        }
    }

    #[test]
    fn the_cleaner_goes_one_folder_deep_and_follows_links() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        for path in [root.join("qemu/deep"), other.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        std::os::unix::fs::symlink(&other, root.join("link")).unwrap();
        let text = format!("max_age_days = 1\nlog_root = \"{}\"\n", root.display());
        let cleaner = cleaner(&text).unwrap();
        for (path, comes) in [
            (root.join("a.log"), true),
            (root.join("qemu/a.log"), true),
            (root.join("qemu/a.txt"), false),
            (root.join("qemu/deep/a.log"), false),
            (other.join("a.log"), true),
            (folder.path().join("a.log"), false),
        ] {
            assert_eq!(cleaner.reaches(&path), comes, "{}", path.display());
        }
    }

    #[test]
    fn who_writes_the_files() {
        use StdioHandler::{File, Logd};
        for (text, want, noted) in [
            ("", Logd, false),
            ("#stdio_handler = \"file\"\n", Logd, false),
            ("stdio_handler = \"logd\"\n", Logd, false),
            ("stdio_handler = \"file\" # for a test\n", File, false),
            ("stdio_handler='file'\n", File, false),
            ("stdio_handler = \"pipe\"\n", Logd, true),
        ] {
            let found = stdio_handler(text);
            assert_eq!(
                (found.value, found.note.is_some()),
                (want, noted),
                "{text:?}"
            );
        }
    }

    #[test]
    fn files_that_are_missing_or_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read_limits(&folder.path().join("virtlogd.conf"));
        assert_eq!((missing.value, missing.note), (LogLimits::default(), None));

        let unreadable = read_limits(folder.path());
        assert_eq!(unreadable.value, LogLimits::default());
        assert!(unreadable.note.unwrap().starts_with("cannot read "));

        let file = folder.path().join("real.conf");
        std::fs::write(&file, b"max_size = 10\n# \xff\nmax_backups = x\n").unwrap();
        let found = read_limits(&file);
        assert_eq!(found.value.max_size, Some(10));
        assert_eq!(
            found.note.unwrap(),
            format!("{}: max_backups = x is no number; taking 3", file.display())
        );
    }
}
