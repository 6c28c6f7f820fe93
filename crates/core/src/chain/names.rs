//! What a name beside a base file means for its chain: pure.
//!
//! A rotation leaves more kinds of names than are read here. Whatever looks like
//! one of them and is not read is told from a neighbour that has nothing to do
//! with the log, so that no part of a log is passed over in silence, and no
//! neighbour raises an alarm.
//!
//! Must not know: folders, or what is in a file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::dates::Date;
use super::{Compression, Part, RotatedName};

/// What a name means for the chain of a base file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A rotated file with a number.
    Numbered(RotatedName),
    /// A rotated file with a date.
    Dated {
        date: Date,
        compression: Option<Compression>,
    },
    /// It looks rotated, in a way that is not read.
    Unread,
    /// A rotated file of another log, whose own name looks like a rotated file's.
    RotatedOf(OsString),
    /// The record that logchain keeps beside such another log.
    RecordOf(OsString),
}

/// Suffixes of compressors and ciphers that are not read.
const UNREAD_PACKED: [&[u8]; 19] = [
    b".bz2", b".lz4", b".lzo", b".lz", b".lzma", b".Z", b".z", b".GZ", b".zip", b".7z", b".br",
    b".tgz", b".sz", b".rz", b".zz", b".gpg", b".age", b".enc", b".rar",
];

/// What people and editors put behind a name to keep an old version.
const KEPT: [&[u8]; 9] = [
    b".old",
    b".bak",
    b".orig",
    b".save",
    b".prev",
    b".previous",
    b".backup",
    b".rotated",
    b"-old",
];

/// What follows the name of a VM rather than that of a rotated file: a VM may be
/// called `web.1`, and `web.1.xml` beside the log `web` is no part of that.
const OTHER_FILES: [&[u8]; 20] = [
    b"log",
    b"logchain",
    b"lock",
    b"pid",
    b"sock",
    b"socket",
    b"monitor",
    b"xml",
    b"img",
    b"qcow2",
    b"raw",
    b"iso",
    b"vmdk",
    b"fd",
    b"nvram",
    b"json",
    b"conf",
    b"cfg",
    b"yaml",
    b"yml",
];

/// The longest suffix behind a number or a date that counts as one.
const SUFFIX_MAX: usize = 16;

/// Whether `name` begins as a name does that means something for the chain of `base`: of a
/// thousand names in a folder only these are looked at.
pub(super) fn may_mean(base: &OsStr, name: &OsStr) -> bool {
    let (base, name) = (base.as_bytes(), name.as_bytes());
    let stem = extension_at(base).and_then(|at| base.get(..at));
    let of_record = name.strip_prefix(b".").unwrap_or_default();
    name.starts_with(stem.unwrap_or(base)) || of_record.starts_with(base)
}

/// What `name` means for the chain of `base`; `None`: nothing.
pub(super) fn meaning(base: &OsStr, name: &OsStr) -> Option<Meaning> {
    if let Some(numbered) = RotatedName::parse(base, name) {
        return Some(Meaning::Numbered(numbered));
    }
    let (base, name) = (base.as_bytes(), name.as_bytes());
    let Some(rest) = name.strip_prefix(base) else {
        return hidden(base, name).or_else(|| date_before_extension(base, name));
    };
    let (plain, compression) = Compression::strip(rest);
    if let Some(date) = Date::parse(plain) {
        return Some(Meaning::Dated { date, compression });
    }
    if let Some(length) = another(rest) {
        let length = base.len().saturating_add(length);
        let name = name.get(..length).unwrap_or_default();
        return Some(Meaning::RotatedOf(OsString::from_vec(name.to_owned())));
    }
    (looks_rotated(rest) || has_odd_date(base, rest)).then_some(Meaning::Unread)
}

/// Which part of the chain of `base` the file `name` is, and how it is compressed; `None`: it is
/// no part that is read.
pub(crate) fn part_of(base: &OsStr, name: &OsStr) -> Option<(Part, Option<Compression>)> {
    if name == base {
        return Some((Part::Base, None));
    }
    match meaning(base, name)? {
        Meaning::Numbered(numbered) => Some((Part::Number(numbered.number), numbered.compression)),
        Meaning::Dated { date, compression } => Some((Part::Date(date), compression)),
        Meaning::Unread | Meaning::RotatedOf(_) | Meaning::RecordOf(_) => None,
    }
}

/// Digits that a date has at least: fewer may be the number of another VM, as in `web-2`.
const DATE_DIGITS: usize = 6;

/// What follows the name of a log is digits and what stands between the parts of a date, in
/// an order that is not read: `-27112026`, `-26-11-01`, `-2026W44`. Behind an extension
/// (`console.log-1`) one digit is enough, since no VM is called so.
fn has_odd_date(base: &[u8], rest: &[u8]) -> bool {
    let plain = unpacked(rest);
    let plain = plain.strip_suffix(b".log").unwrap_or(plain);
    let least = if extension_at(base).is_some() {
        1
    } else {
        DATE_DIGITS
    };
    is_dated(plain, least)
}

/// Whether it begins as the date of a rotated file does and has nothing else in it.
fn is_dated(rest: &[u8], least: usize) -> bool {
    let between = |b: &u8| matches!(b, b'-' | b'.' | b'_' | b':' | b'+' | b'T' | b'W' | b'Z');
    let digits = rest.iter().filter(|b| b.is_ascii_digit()).count();
    matches!(rest, [b'-' | b'.' | b'_', first, ..] if first.is_ascii_digit())
        && digits >= least
        && rest.iter().all(|b| b.is_ascii_digit() || between(b))
}

/// `.web.1.logchain`: the record of a log `web.1`.
fn hidden(base: &[u8], name: &[u8]) -> Option<Meaning> {
    let log = name.strip_prefix(b".")?.strip_suffix(b".logchain")?;
    let rest = log.strip_prefix(base)?;
    let looks_rotated = number(rest) == Some(rest.len()) || Date::parse(rest).is_some();
    looks_rotated.then(|| Meaning::RecordOf(OsString::from_vec(log.to_owned())))
}

/// `console-20261120.log` for `console.log`: logrotate's `extension`. Not `console.1.log`,
/// which is as well the log of a VM that is called so.
fn date_before_extension(base: &[u8], name: &[u8]) -> Option<Meaning> {
    let (stem, extension) = base.split_at(extension_at(base)?);
    let rest = unpacked(name.strip_prefix(stem)?);
    let date = rest.strip_suffix(extension)?;
    is_dated(date, DATE_DIGITS).then_some(Meaning::Unread)
}

/// Where the extension of `base` begins, its dot included.
fn extension_at(base: &[u8]) -> Option<usize> {
    base.iter().rposition(|b| *b == b'.').filter(|at| *at > 0)
}

/// Without the suffix of any compressor.
fn unpacked(name: &[u8]) -> &[u8] {
    let (plain, compression) = Compression::strip(name);
    if compression.is_some() {
        return plain;
    }
    let stripped = UNREAD_PACKED.iter().find_map(|s| name.strip_suffix(*s));
    stripped.unwrap_or(name)
}

/// How long the dot and the digits are that `rest` begins with.
fn number(rest: &[u8]) -> Option<usize> {
    let digits = rest.strip_prefix(b".")?;
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    (count > 0).then(|| count.saturating_add(1))
}

/// How long the number or date is that `rest` begins with.
fn place(rest: &[u8]) -> Option<usize> {
    // The longest date, so that `-20261120-1345` is one, not a date and a suffix.
    let dated = (2..=rest.len().min(24)).rev();
    let dated = dated
        .filter(|length| rest.get(..*length).and_then(Date::parse).is_some())
        .max();
    dated.max(number(rest))
}

/// Where `rest` is a rotated file of another log (`.1.0`, `.1.2.gz`,
/// `.1-20261120`): how long that log's own part is.
fn another(rest: &[u8]) -> Option<usize> {
    let length = number(rest)?;
    if Date::parse(rest.get(..length)?).is_some() {
        return None; // a date and a counter
    }
    let (tail, _) = Compression::strip(rest.get(length..)?);
    let rotated = number(tail) == Some(tail.len()) || Date::parse(tail).is_some();
    (rotated && !tail.is_empty()).then_some(length)
}

fn looks_rotated(rest: &[u8]) -> bool {
    if rest == b"~" || (rest.starts_with(b".~") && rest.ends_with(b"~")) {
        return true;
    }
    let plain = unpacked(rest);
    if KEPT.contains(&plain) || (plain.is_empty() && !rest.is_empty()) {
        return true;
    }
    let Some(length) = place(rest) else {
        return false;
    };
    let tail = rest.get(length..).unwrap_or_default();
    match tail.split_first() {
        // A number that no rotation writes: leading zeros, or far too great.
        None | Some((b'~', [])) => true,
        Some((b'.' | b'-' | b'_', suffix)) => is_suffix(suffix),
        Some(_) => false,
    }
}

/// Whether this is how a file was packed or kept, rather than the kind of another file.
fn is_suffix(suffix: &[u8]) -> bool {
    let words = || suffix.split(|b| *b == b'.');
    let alphanumeric = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_alphanumeric);
    suffix.len() <= SUFFIX_MAX
        && words().all(alphanumeric)
        && !words().any(|word| OTHER_FILES.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(base: &str, name: &str) -> Option<Meaning> {
        let found = meaning(OsStr::new(base), OsStr::new(name));
        assert!(found.is_none() || may_mean(OsStr::new(base), OsStr::new(name)));
        found
    }

    #[test]
    fn dated_files_are_read() {
        for (name, compression) in [
            ("console.log-20261120", None),
            ("console.log-20261101.gz", Some(Compression::Gzip)),
            ("console.log-2026-11-01.zst", Some(Compression::Zstd)),
            ("console.log.20261101.xz", Some(Compression::Xz)),
            ("console.log-20261101-134500", None),
            ("console.log-1795786000", None),
        ] {
            let found = of("console.log", name);
            let Some(Meaning::Dated {
                compression: found, ..
            }) = found
            else {
                panic!("{name}: {found:?}");
            };
            assert_eq!(found, compression, "{name}");
        }
    }

    #[test]
    fn what_looks_rotated_and_is_not_read() {
        for name in [
            "console.log.2.bz2",
            "console.log.2.lz4",
            "console.log.2.Z",
            "console.log.2.GZ",
            "console.log.0.gz.gz",
            "console.log.0.zst.gz",
            "console.log.1.foo",
            "console.log.1.tmp",
            "console.log.1-old",
            "console.log.1~",
            "console.log.~1~",
            "console.log.01",
            "console.log.007.gz",
            "console.log.1000001",
            "console.log.99999999999999999999999999",
            "console.log.old",
            "console.log.old.gz",
            "console.log.bak",
            "console.log-old",
            "console.log~",
            "console.log.gz",
            "console.log.xz",
            "console.log.bz2",
            "console.log-20261120.bz2",
            "console.log-20261120.1",
            "console.log-20261120-1",
            "console.log-20261120.old",
            "console-20261120.log",
            "console-20261120.log.gz",
            "console-2026-11-20.log.bz2",
            "console-27112026.log",
            "console.log-27112026",
            "console.log-01112026.gz",
            "console.log-1",
            "console.log_1.gz",
            "console.log-26-11-01",
            "console.log-202611",
            "console.log-20261301",
            "console.log-2026W44",
            "console.log.2026-11-01T12:00:00Z",
            "console.log.1.log",
        ] {
            assert_eq!(of("console.log", name), Some(Meaning::Unread), "{name}");
        }
    }

    #[test]
    fn neighbours_raise_no_alarm() {
        for (base, name) in [
            ("vm1", "vm1.console.log"),
            ("vm1", "vm10"),
            ("vm1", "vm10.log"),
            ("vm1", "vm1-2"),
            ("vm1", "vm1-2.log"),
            ("vm1", "vm1_old"),
            ("vm1", "vm1.1.log"),
            ("vm1", "vm1.1.xml"),
            ("vm1", "vm1.log"),
            ("vm1", "vm1.qcow2"),
            ("web", "web-1"),
            ("web", "web-db.log"),
            ("web", "webby.old"),
            ("console.log", "console.log"),
            ("console.log", "console.log."),
            ("console.log", "console.log..0"),
            ("console.log", "console.log.+1"),
            ("console.log", "console.log. 1"),
            ("console.log", "console.log0"),
            ("console.log", "console.log.lock"),
            ("console.log", "console.log.1.logchain"),
            ("console.log", ".console.log.logchain"),
            ("console.log", ".console.log.logchain.d"),
            ("console.log", "console.1.log"),
            ("console.log", "console-debug.log"),
            ("console.log", "other.log.1"),
            ("console.log", "disk"),
            ("console.log", ""),
        ] {
            assert_eq!(of(base, name), None, "{name} beside {base}");
        }
        let odd = OsStr::from_bytes(b"console.log.1.\xff");
        assert_eq!(meaning(OsStr::new("console.log"), odd), None);
    }

    #[test]
    fn files_of_a_log_whose_name_looks_rotated() {
        let web_1 = || OsString::from("web.1");
        for name in ["web.1.0", "web.1.1", "web.1.2.gz", "web.1-20261120"] {
            assert_eq!(of("web", name), Some(Meaning::RotatedOf(web_1())), "{name}");
        }
        assert_eq!(
            of("web", ".web.1.logchain"),
            Some(Meaning::RecordOf(web_1()))
        );
        for name in [".web.logchain", ".web.x.logchain", ".web.1.0.logchain"] {
            assert_eq!(of("web", name), None, "{name}");
        }
        // Seen from that log, they are its own.
        assert!(matches!(of("web.1", "web.1.0"), Some(Meaning::Numbered(_))));
    }
}
