//! How far logs are rolled over on this host: virtlogd.conf, and whether QEMU
//! writes the logs itself, which qemu.conf says.
//!
//! [`limits`] and [`stdio_handler`] are pure; [`read_limits`] and
//! [`read_stdio_handler`] read the files of this machine. Must not know: logs.

use std::io;
use std::path::Path;

/// Where libvirt keeps it.
pub const VIRTLOGD_CONF: &str = "/etc/libvirt/virtlogd.conf";
/// Where libvirt keeps it.
pub const QEMU_CONF: &str = "/etc/libvirt/qemu.conf";

/// virtlogd's own bound on `max_backups`.
const MAX_BACKUPS: u32 = 32;

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
pub struct Found<T> {
    /// What holds.
    pub value: T,
    /// Why it is the default, where that is not what the file says.
    pub note: Option<String>,
}

/// The limits in the text of a virtlogd.conf.
#[must_use]
pub fn limits(text: &str) -> Found<LogLimits> {
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
        max_backups: u32::try_from(backups).map_or(MAX_BACKUPS, |n| n.min(MAX_BACKUPS)),
    };
    Found { value, note }
}

/// Who writes the files, by the text of a qemu.conf.
#[must_use]
pub fn stdio_handler(text: &str) -> Found<StdioHandler> {
    let (value, note) = match last(text, "stdio_handler").map(unquoted) {
        None | Some("logd") => (StdioHandler::Logd, None),
        Some("file") => (StdioHandler::File, None),
        Some(other) => {
            let note = format!("stdio_handler = {other:?} is not known here; taking \"logd\"");
            (StdioHandler::Logd, Some(note))
        }
    };
    Found { value, note }
}

/// Reads [`limits`] from this machine's file. One that is not there says nothing.
/// Blocks for as long as the file system does.
#[must_use]
pub fn read_limits(path: &Path) -> Found<LogLimits> {
    read(path, limits)
}

/// Reads [`stdio_handler`] from this machine's file, as [`read_limits`] does.
#[must_use]
pub fn read_stdio_handler(path: &Path) -> Found<StdioHandler> {
    read(path, stdio_handler)
}

fn read<T: Default>(path: &Path, parse: impl Fn(&str) -> Found<T>) -> Found<T> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let found = parse(&String::from_utf8_lossy(&bytes));
            let note = found.note.map(|note| format!("{}: {note}", path.display()));
            Found { note, ..found }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => parse(""),
        Err(e) => Found {
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
            ("max_backups = 99\n", Some(2 * MIB), 32, false),
            ("max_backups = 99999999999\n", Some(2 * MIB), 32, false),
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
