//! Dates in the names of rotated files, as logrotate's `dateext` writes them: pure.
//!
//! Must not know: what else is in a name.

use jiff::Timestamp;

/// A point in time that a file's name gives, precise to the second. Ordered: the
/// greater, the newer.
///
/// Only for putting files of one folder in order: no time zone is known, and what
/// the name does not say (an hour, a minute) counts as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date(u64);

/// What may stand between a name and its date.
const BEFORE: [u8; 3] = *b"-._";

/// What may stand between the parts of a date.
const BETWEEN: [u8; 5] = *b"-._:T";

/// Years that count as years. Seconds since 1970 have ten digits as well as
/// `YYYYMMDDHH` has; with these years the two are told apart until 2033.
const YEARS: std::ops::RangeInclusive<u64> = 2000..=2199;

/// Seconds since 1970 that count as such: 2001 to 2099.
const SECONDS: std::ops::RangeInclusive<u64> = 1_000_000_000..=4_099_680_000;

impl Date {
    /// Reads what follows the base's name, its separator included: `-20261120`,
    /// `-2026112013`, `-20261120-134500`, `-2026-11-20`, `.20261120`, or the ten
    /// digits of `%s`.
    #[must_use]
    pub fn parse(rest: &[u8]) -> Option<Self> {
        let (first, body) = rest.split_first()?;
        if !BEFORE.contains(first) {
            return None;
        }
        let groups: Vec<&[u8]> = body.split(|b| BETWEEN.contains(b)).collect();
        let digits = |group: &&[u8]| !group.is_empty() && group.iter().all(u8::is_ascii_digit);
        if !groups.iter().all(digits) {
            return None;
        }
        let lengths: Vec<usize> = groups.iter().map(|g| g.len()).collect();
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
        match lengths.as_slice() {
            [8 | 10 | 12 | 14] | [8, 2 | 4 | 6] | [8, 2, 2] | [8, 2, 2, 2] => {}
            [4, 2, 2] | [4, 2, 2, 2 | 4 | 6] | [4, 2, 2, 2, 2] | [4, 2, 2, 2, 2, 2] => {}
            // A date with the seconds behind it: `%Y%m%d-%s`.
            [8, 10] | [4, 2, 2, 10] => return Self::of_seconds(number(groups.last()?)?),
            _ => return None,
        }
        let all = groups.concat();
        let civil = Self::of_digits(&all);
        match (civil, all.len()) {
            (None, 10) if groups.len() == 1 => Self::of_seconds(number(&all)?),
            (civil, _) => civil,
        }
    }

    /// `YYYYMMDD` and what of `HHMMSS` is there.
    fn of_digits(digits: &[u8]) -> Option<Self> {
        let part = |from: usize, to: usize| -> Option<u64> {
            match digits.get(from..to) {
                Some(part) => std::str::from_utf8(part).ok()?.parse().ok(),
                None => Some(0),
            }
        };
        let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
        let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
        let valid = YEARS.contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        valid.then(|| Self::of(year, [month, day, hour, minute, second]))
    }

    fn of(year: u64, rest: [u64; 5]) -> Self {
        let number = |number: u64, part: u64| number.saturating_mul(100).saturating_add(part);
        Self(rest.into_iter().fold(year, number))
    }

    /// As it reads in UTC.
    fn of_seconds(seconds: u64) -> Option<Self> {
        if !SECONDS.contains(&seconds) {
            return None;
        }
        let time = Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
        let digits = time.strftime("%Y%m%d%H%M%S").to_string();
        digits.parse().ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Option<u64> {
        Date::parse(rest.as_bytes()).map(|date| date.0)
    }

    #[test]
    fn dates_that_logrotate_writes() {
        for (rest, date) in [
            ("-20261120", 20_261_120_000_000),
            (".20261120", 20_261_120_000_000),
            ("_20261120", 20_261_120_000_000),
            ("-2026112013", 20_261_120_130_000),
            ("-20261120-13", 20_261_120_130_000),
            ("-202611201345", 20_261_120_134_500),
            ("-20261120134507", 20_261_120_134_507),
            ("-20261120-134507", 20_261_120_134_507),
            ("-20261120T134507", 20_261_120_134_507),
            ("-2026-11-20", 20_261_120_000_000),
            ("-2026-11-20_13-45-07", 20_261_120_134_507),
            ("-1700000000", 20_231_114_221_320),
            (".1700000000", 20_231_114_221_320),
            ("-20231114-1700000000", 20_231_114_221_320),
            ("-1709164800", 20_240_229_000_000),
            ("-1735689599", 20_241_231_235_959),
            ("-1735689600", 20_250_101_000_000),
        ] {
            assert_eq!(parse(rest), Some(date), "{rest}");
        }
    }

    #[test]
    fn what_is_no_date() {
        for rest in [
            "",
            "-",
            "20261120",
            "-1",
            ".1000001",
            "-2026",
            "-202611",
            "-20261320",
            "-20261100",
            "-20261132",
            "-19991231",
            "-22001231",
            "-99999999",
            "-0000000001",
            "-20261120-",
            "-20261120--13",
            "-20261120-1",
            "-20261120a",
            "-2026-1120",
            "+20261120",
            "-4294967296",
        ] {
            assert_eq!(parse(rest), None, "{rest}");
        }
    }
}
