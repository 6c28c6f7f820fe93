//! Sizes and durations as people write them: `10MiB`, `90s`.
//!
//! Pure. A command's options and a configuration file are read by the same functions, so that
//! one spelling means the same everywhere.
//!
//! Must not know: what is measured.
//!
//! ```
//! use std::time::Duration;
//! use logchain_core::quantity;
//!
//! assert_eq!(quantity::size("10MiB"), Ok(10 << 20));
//! assert_eq!(quantity::size_text(10 << 20), "10MiB");
//! assert_eq!(quantity::duration("5m"), Ok(Duration::from_secs(300)));
//! assert_eq!(quantity::duration_text(Duration::from_secs(300)), "5m");
//! ```

use std::time::Duration;

/// The units of a duration, the longest last.
const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400)];

/// Powers of 1024, or of 1000, the smallest first.
const POWERS: [&str; 6] = ["", "k", "m", "g", "t", "p"];

/// Reads a number of bytes, with virsh's suffixes: K and KiB are 1024 bytes, KB is 1000.
///
/// # Errors
/// A sentence that says how a size is written.
pub fn size(text: &str) -> Result<u64, &'static str> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, suffix) = text.split_at(end.unwrap_or(text.len()));
    let suffix = suffix.trim_start().to_ascii_lowercase();
    let (unit, base) = match suffix.as_str() {
        "" | "b" | "byte" | "bytes" => ("", 1_u64),
        other => match other.strip_suffix("ib") {
            Some(unit) => (unit, 1024),
            None => match other.strip_suffix('b') {
                Some(unit) => (unit, 1000),
                None => (other, 1024),
            },
        },
    };
    let power = POWERS.iter().position(|u| *u == unit);
    let factor = power.and_then(|power| base.checked_pow(u32::try_from(power).ok()?));
    let number = digits.parse::<u64>().ok();
    let bytes = number
        .zip(factor.filter(|_| (base == 1) == unit.is_empty()))
        .and_then(|(number, factor)| number.checked_mul(factor));
    bytes.ok_or("give a number of bytes, as 4096, 100K or 1MiB")
}

/// Writes a size so that [`size`] reads the same one, in the largest unit that has no remainder.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    let mut number = bytes;
    let mut unit = 0;
    while number > 0 && number.is_multiple_of(1024) && unit + 1 < POWERS.len() {
        number /= 1024;
        unit += 1;
    }
    match POWERS.get(unit) {
        Some(power) if unit > 0 => format!("{number}{}iB", power.to_uppercase()),
        _ => bytes.to_string(),
    }
}

/// Reads a duration: a number with `s`, `m`, `h` or `d`, or a number of seconds. It is at least a
/// second, because whoever is asked more often is asked all the time, and at most 366 days.
///
/// # Errors
/// A sentence that says how a duration is written.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    let found = UNITS
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (number, unit) = found.unwrap_or((text, 1));
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .filter(|seconds| (1..=366 * 86400).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or("give a duration, as 90, 90s, 5m or 1h")
}

/// Writes a duration so that [`duration`] reads the same one; what is below a second is left out.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let fits = |(_, unit): &&(&str, u64)| seconds > 0 && seconds.is_multiple_of(*unit);
    let largest = UNITS.iter().rev().find(fits);
    largest.map_or_else(
        || format!("{seconds}s"),
        |(name, unit)| format!("{}{name}", seconds / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for bytes in [
            0,
            1,
            1000,
            1024,
            1536,
            1 << 20,
            3 << 30,
            (1 << 20) + 1,
            u64::MAX,
        ] {
            assert_eq!(size(&size_text(bytes)), Ok(bytes));
        }
        for seconds in [1, 59, 60, 61, 3600, 86400, 90000] {
            let duration_of = Duration::from_secs(seconds);
            assert_eq!(duration(&duration_text(duration_of)), Ok(duration_of));
        }
        assert_eq!(size_text(10 << 20), "10MiB");
        assert_eq!(duration_text(Duration::from_secs(7200)), "2h");
    }
}
