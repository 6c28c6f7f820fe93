//! The command line that a virtlogd was started with: pure.
//!
//! virtlogd executes itself again with the very arguments that it was started with,
//! so they say which configuration it reads then. A trial start needs the same ones,
//! but for those that would make it leave our hands or touch the real pid file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// virtlogd's long options, and whether each takes a value.
/// Source: libvirt 9.0.0, `src/logging/log_daemon.c`.
const LONG: [(&[u8], Kind); 7] = [
    (b"verbose", Kind::Flag),
    (b"daemon", Kind::Daemon),
    (b"config", Kind::Config),
    (b"timeout", Kind::Value),
    (b"pid-file", Kind::PidFile),
    (b"version", Kind::Flag),
    (b"help", Kind::Flag),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flag,
    Value,
    Daemon,
    Config,
    PidFile,
}

impl Kind {
    fn of_short(letter: u8) -> Self {
        match letter {
            b'd' => Self::Daemon,
            b'f' => Self::Config,
            b'p' => Self::PidFile,
            b't' => Self::Value,
            _ => Self::Flag,
        }
    }

    /// getopt_long takes any beginning of a name that no other name has.
    fn of_long(name: &[u8]) -> Self {
        let mut fits = LONG.iter().filter(|(long, _)| long.starts_with(name));
        match (fits.next(), fits.next()) {
            (Some((_, kind)), None) => *kind,
            _ => Self::Flag,
        }
    }

    fn takes_value(self) -> bool {
        matches!(self, Self::Value | Self::Config | Self::PidFile)
    }

    /// Whether a trial start is to have it too.
    fn is_for_trial(self) -> bool {
        !matches!(self, Self::Daemon | Self::PidFile)
    }
}

/// What the arguments say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// The configuration file, where one is named.
    pub(super) config: Option<PathBuf>,
    /// The arguments after the program's name, without `--daemon` and `--pid-file`.
    pub(super) for_trial: Vec<OsString>,
}

/// Reads the arguments that follow the program's name, as getopt_long does.
pub(super) fn options(args: &[OsString]) -> Options {
    let mut found = Options::default();
    let mut args = args.iter().map(OsString::as_os_str);
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            found.for_trial.push(arg.to_owned());
            found.for_trial.extend(args.by_ref().map(OsStr::to_owned));
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            let mut parts = long.splitn(2, |b| *b == b'=');
            let kind = Kind::of_long(parts.next().unwrap_or_default());
            let inline = parts.next();
            let value = match inline {
                Some(value) => Some(OsStr::from_bytes(value)),
                None if kind.takes_value() => args.next(),
                None => None,
            };
            found.keep(kind, arg, value.filter(|_| inline.is_none()));
            found.note(kind, value);
        } else if let Some(letters) = bytes.strip_prefix(b"-").filter(|l| !l.is_empty()) {
            found.read_letters(letters, &mut args);
        } else {
            found.for_trial.push(arg.to_owned());
        }
    }
    found
}

impl Options {
    /// Several one-letter options may share an argument: `-vf /x.conf`, `-f/x.conf`.
    fn read_letters<'a>(&mut self, letters: &'a [u8], args: &mut impl Iterator<Item = &'a OsStr>) {
        for (at, letter) in letters.iter().enumerate() {
            let kind = Kind::of_short(*letter);
            let option = OsString::from_vec(vec![b'-', *letter]);
            if !kind.takes_value() {
                self.keep(kind, &option, None);
                continue;
            }
            let rest = letters.get(at.saturating_add(1)..).unwrap_or_default();
            let value = if rest.is_empty() {
                args.next()
            } else {
                Some(OsStr::from_bytes(rest))
            };
            self.keep(kind, &option, value);
            self.note(kind, value);
            return;
        }
    }

    fn keep(&mut self, kind: Kind, option: &OsStr, value: Option<&OsStr>) {
        if kind.is_for_trial() {
            self.for_trial.push(option.to_owned());
            self.for_trial.extend(value.map(OsStr::to_owned));
        }
    }

    /// Of several configuration files the last one counts.
    fn note(&mut self, kind: Kind, value: Option<&OsStr>) {
        if kind == Kind::Config
            && let Some(value) = value
        {
            self.config = Some(PathBuf::from(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_as_getopt_long_reads_them() {
        for (args, config, for_trial) in [
            ("", None, ""),
            ("--daemon", None, ""),
            ("-d -p /run/x.pid", None, ""),
            ("-dp/run/x.pid -v", None, "-v"),
            (
                "--pid-file=/x --config /a.conf",
                Some("/a.conf"),
                "--config /a.conf",
            ),
            (
                "--conf=/a.conf -f /b.conf",
                Some("/b.conf"),
                "--conf=/a.conf -f /b.conf",
            ),
            ("-dvf/c.conf", Some("/c.conf"), "-v -f /c.conf"),
            // Not clear which one is meant: virtlogd is left to say so.
            ("--ver", None, "--ver"),
            ("-t 30 --timeout=5 --da", None, "-t 30 --timeout=5"),
            ("-- -f /x", None, "-- -f /x"),
            ("--config", None, "--config"),
        ] {
            let words = |text: &str| -> Vec<OsString> {
                text.split_whitespace().map(OsString::from).collect()
            };
            let want = Options {
                config: config.map(PathBuf::from),
                for_trial: words(for_trial),
            };
            assert_eq!(options(&words(args)), want, "{args}");
        }
    }
}
