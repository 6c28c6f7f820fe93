//! How the files of a chain are named: pure, from names to numbers and back.
//!
//! Must not know: folders, or what is in a file.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

/// The greatest number that counts as one of a rotated file. virtlogd keeps 32
/// files at most; a date such as `console.log.20260801` is read as a date.
pub const MAX_NUMBER: u32 = 1_000_000;

/// Where the numbers of a chain begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numbering {
    /// `console.log`, `.0`, `.1` …: virtlogd's.
    FromZero,
    /// `console.log`, `.1`, `.2` …: logrotate's.
    FromOne,
}

impl Numbering {
    /// The number of the newest rotated file: 0 or 1.
    #[must_use]
    pub fn first(self) -> u32 {
        match self {
            Self::FromZero => 0,
            Self::FromOne => 1,
        }
    }
}

impl fmt::Display for Numbering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FromZero => "from-zero",
            Self::FromOne => "from-one",
        })
    }
}

/// Which numbering was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NumberingChoice {
    /// By what is there: see [`NumberingChoice::resolve`].
    #[default]
    Auto,
    /// [`Numbering::FromZero`].
    FromZero,
    /// [`Numbering::FromOne`].
    FromOne,
}

impl NumberingChoice {
    /// The numbering of a chain whose rotated files have these numbers.
    ///
    /// `Auto`: a `.0` says from zero; without one a `.1` says from one; where
    /// neither is there, from zero, since virtlogd is what makes the next file.
    #[must_use]
    pub fn resolve(self, numbers: impl IntoIterator<Item = u32>) -> Numbering {
        match self {
            Self::FromZero => Numbering::FromZero,
            Self::FromOne => Numbering::FromOne,
            Self::Auto => match numbers.into_iter().min() {
                Some(1) => Numbering::FromOne,
                _ => Numbering::FromZero,
            },
        }
    }
}

impl From<Numbering> for NumberingChoice {
    fn from(numbering: Numbering) -> Self {
        match numbering {
            Numbering::FromZero => Self::FromZero,
            Numbering::FromOne => Self::FromOne,
        }
    }
}

impl fmt::Display for NumberingChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::FromZero => "from-zero",
            Self::FromOne => "from-one",
        })
    }
}

/// A word that names no numbering.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown numbering {0:?}: use auto, from-zero or from-one")]
pub struct UnknownNumbering(pub String);

impl FromStr for NumberingChoice {
    type Err = UnknownNumbering;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "from-zero" => Ok(Self::FromZero),
            "from-one" => Ok(Self::FromOne),
            other => Err(UnknownNumbering(other.to_owned())),
        }
    }
}

/// How a rotated file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
    /// `.xz`
    Xz,
}

impl Compression {
    /// All that are read.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Zstd, Self::Xz];

    /// Takes the suffix from the end of a name, where it has one that is read.
    #[must_use]
    pub(crate) fn strip(name: &[u8]) -> (&[u8], Option<Self>) {
        let stripped = Self::ALL.into_iter().find_map(|compression| {
            let plain = name.strip_suffix(compression.suffix().as_bytes())?;
            Some((plain, Some(compression)))
        });
        stripped.unwrap_or((name, None))
    }

    /// The end of the file's name, with its dot.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Xz => ".xz",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        })
    }
}

/// What the name of a rotated file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RotatedName {
    /// Its number: the greater, the older.
    pub number: u32,
    /// How it is compressed, if it is.
    pub compression: Option<Compression>,
}

impl RotatedName {
    /// Reads `name` as one of a rotated file of `base`; `None` where it is
    /// anything else.
    ///
    /// Only what a rotation writes counts: no sign, no leading zero, no number
    /// beyond [`MAX_NUMBER`], at most one suffix.
    #[must_use]
    pub fn parse(base: &OsStr, name: &OsStr) -> Option<Self> {
        let rest = name
            .as_bytes()
            .strip_prefix(base.as_bytes())?
            .strip_prefix(b".")?;
        let (digits, compression) = Compression::strip(rest);
        let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let leading_zero = digits.len() > 1 && digits.starts_with(b"0");
        if !plain || leading_zero {
            return None;
        }
        let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (number <= MAX_NUMBER).then_some(Self {
            number,
            compression,
        })
    }
}

/// The name of the rotated file `number` of `base`, not compressed.
#[must_use]
pub fn rotated_name(base: &OsStr, number: u32) -> OsString {
    let mut name = base.to_owned();
    name.push(format!(".{number}"));
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(name: &str) -> Option<(u32, Option<Compression>)> {
        RotatedName::parse(OsStr::new("console.log"), OsStr::new(name))
            .map(|n| (n.number, n.compression))
    }

    #[test]
    fn names_of_rotated_files() {
        assert_eq!(parse("console.log.0"), Some((0, None)));
        assert_eq!(parse("console.log.17"), Some((17, None)));
        assert_eq!(
            parse("console.log.1.gz"),
            Some((1, Some(Compression::Gzip)))
        );
        assert_eq!(
            parse("console.log.2.zst"),
            Some((2, Some(Compression::Zstd)))
        );
        assert_eq!(parse("console.log.2.xz"), Some((2, Some(Compression::Xz))));
        assert_eq!(parse("console.log.1000000"), Some((1_000_000, None)));
    }

    #[test]
    fn names_of_anything_else() {
        for name in [
            "console.log",
            "console.log.",
            "console.log..0",
            "console.log.01",
            "console.log.00",
            "console.log.+1",
            "console.log.-1",
            "console.log. 1",
            "console.log.1 ",
            "console.log.0.gz.gz",
            "console.log.0.zst.gz",
            "console.log.0.bz2",
            "console.log.gz",
            "console.log..gz",
            "console.log.0.GZ",
            "console.log.1000001",
            "console.log.20260801",
            "console.log.4294967296",
            "console.log.99999999999999999999999999",
            "console.log.\u{0661}",
            "console.log0",
            "console.log-0",
            "xconsole.log.0",
            "other.log.0",
            "",
        ] {
            assert_eq!(parse(name), None, "{name:?}");
        }
        assert_eq!(
            RotatedName::parse(OsStr::new("a"), OsStr::from_bytes(b"a.\xff")),
            None
        );
    }

    #[test]
    fn a_base_that_looks_like_a_rotated_file() {
        let base = OsStr::new("console.log.1");
        let name = RotatedName {
            number: 0,
            compression: None,
        };
        assert_eq!(
            RotatedName::parse(base, OsStr::new("console.log.1.0")),
            Some(name)
        );
        assert_eq!(RotatedName::parse(base, base), None);
    }

    #[test]
    fn auto_goes_by_the_lowest_number() {
        let auto = |numbers: &[u32]| NumberingChoice::Auto.resolve(numbers.iter().copied());
        assert_eq!(auto(&[]), Numbering::FromZero);
        assert_eq!(auto(&[1, 0]), Numbering::FromZero);
        assert_eq!(auto(&[2, 1]), Numbering::FromOne);
        assert_eq!(auto(&[2, 3]), Numbering::FromZero);
        assert_eq!(NumberingChoice::FromOne.resolve([0]), Numbering::FromOne);
        assert_eq!(NumberingChoice::FromZero.resolve([1]), Numbering::FromZero);
    }

    #[test]
    fn choices_read_back_as_written() {
        for choice in [
            NumberingChoice::Auto,
            NumberingChoice::FromZero,
            NumberingChoice::FromOne,
        ] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let error = "zero".parse::<NumberingChoice>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown numbering \"zero\": use auto, from-zero or from-one"
        );
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_its_number(
            base in proptest::collection::vec(any::<u8>(), 1..20),
            number in 0..=MAX_NUMBER,
            compression in prop_oneof![
                Just(None), proptest::sample::select(&Compression::ALL).prop_map(Some)
            ],
        ) {
            let base = OsStr::from_bytes(&base);
            let mut name = rotated_name(base, number);
            name.push(compression.map_or("", Compression::suffix));
            prop_assert_eq!(
                RotatedName::parse(base, &name),
                Some(RotatedName { number, compression })
            );
        }

        #[test]
        fn a_parsed_name_is_the_one_a_rotation_writes(rest in "[0-9+-]{0,4}(\\.gz|\\.zst|\\.xz|\\.){0,2}") {
            let base = OsStr::new("b");
            let name = OsString::from(format!("b.{rest}"));
            if let Some(parsed) = RotatedName::parse(base, &name) {
                let mut again = rotated_name(base, parsed.number);
                again.push(parsed.compression.map_or("", Compression::suffix));
                prop_assert_eq!(again, name);
            }
        }
    }
}
