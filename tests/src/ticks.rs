//! The oracle: does a console log hold every line that the guest printed, once,
//! in order, none torn?
//!
//! The guest prints `LC`, a counter of ten digits from 1 on, a text that is the
//! same in every line and has no character twice in a row, and `end`; its terminal
//! makes the line feed CR LF. So any byte that is lost, doubled or out of place
//! changes a line.

use std::fmt;

/// The first line's counter.
const FIRST: u64 = 1;
const HEAD: &[u8] = b"LC ";
const TEXT: &[u8] = b" abcdefghijklmnopqrstuvwxyz0123456789 end\r\n";
const DIGITS: usize = 10;
const LENGTH: usize = HEAD.len() + DIGITS + TEXT.len();

/// The guest's lines.
#[derive(Debug, Clone, Copy)]
pub enum Ticks {}

/// What a log holds that is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickReport {
    /// The first whole line's counter.
    pub first: u64,
    /// The last whole line's counter.
    pub last: u64,
    /// How many whole lines.
    pub count: u64,
    /// Bytes before the first whole line: what the kernel says as it boots, or the
    /// end of a line whose beginning was rotated away.
    pub before: usize,
    /// Bytes after the last whole line: the beginning of the next.
    pub after: usize,
}

impl fmt::Display for TickReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            first, last, count, ..
        } = self;
        write!(
            f,
            "{count} lines ({first} to {last}), all there, once, in order"
        )
    }
}

/// The first thing that is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TickError {
    /// No whole line.
    #[error("no line of the guest in {bytes} bytes: {near}")]
    None {
        /// How much was looked at.
        bytes: usize,
        /// Where it begins, escaped.
        near: String,
    },
    /// The log should begin with the guest's first line and does not, or begins
    /// with what cannot stand before its first line.
    #[error("the start is lost: the first whole line is {first}, at byte {offset}: {near}")]
    Start {
        /// The first whole line's counter.
        first: u64,
        /// Where it is.
        offset: usize,
        /// What is around it, escaped.
        near: String,
    },
    /// Lines are missing.
    #[error("lines {from} to {to} are missing at byte {offset}: {near}")]
    Missing {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
        /// Where they should be.
        offset: usize,
        /// What is around it, escaped.
        near: String,
    },
    /// A line comes again, or comes late.
    #[error("line {found} stands where {expected} should, at byte {offset}: {near}")]
    Again {
        /// The line that is there.
        found: u64,
        /// The line that should be.
        expected: u64,
        /// Where.
        offset: usize,
        /// What is around it, escaped.
        near: String,
    },
    /// The guest's own kernel crashed, and says so where the line should be. An emulated
    /// processor can lose a write to memory while QEMU migrates it: the write falls between the
    /// look at a page's dirty bit and the page's copying. The log is as the guest printed it.
    #[error(
        "instead of line {expected} the guest's kernel says at byte {offset} that it crashed: {near}"
    )]
    Crashed {
        /// The line that should be there.
        expected: u64,
        /// Where its kernel's words begin.
        offset: usize,
        /// What they are, escaped.
        near: String,
    },
    /// A line is not whole, or something stands between the lines.
    #[error("line {expected} is torn at byte {offset}{}: {near}", next_words(*next))]
    Torn {
        /// The line that should be there.
        expected: u64,
        /// Where it should begin.
        offset: usize,
        /// The next whole line's counter, if there is one.
        next: Option<u64>,
        /// What is around it, escaped.
        near: String,
    },
}

fn next_words(next: Option<u64>) -> String {
    next.map_or_else(
        || ", no whole line follows".to_owned(),
        |next| format!(", the next whole line is {next}"),
    )
}

impl Ticks {
    /// The line with this counter, as it is in a log.
    #[must_use]
    pub fn line(counter: u64) -> Vec<u8> {
        let mut line = HEAD.to_vec();
        line.extend_from_slice(format!("{counter:0DIGITS$}").as_bytes());
        line.extend_from_slice(TEXT);
        line
    }

    /// Checks a log of which the start may be rotated away: before its first whole
    /// line may stand what a kernel says, if that line is the guest's first, or else
    /// the end of the line before; after its last one, the beginning of the next.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(bytes: &[u8]) -> Result<TickReport, TickError> {
        let Some((first, before)) = find(bytes, 0) else {
            return Err(TickError::None {
                bytes: bytes.len(),
                near: near(bytes, 0),
            });
        };
        let prefix = part(bytes, 0, before);
        let starts_well = match first {
            FIRST => !contains(prefix, HEAD),
            _ => Self::line(first - 1).ends_with(prefix) && prefix.len() < LENGTH,
        };
        if !starts_well {
            return Err(TickError::Start {
                first,
                offset: before,
                near: near(bytes, before),
            });
        }
        let mut expected = first;
        let mut at = before;
        loop {
            let line = Self::line(expected);
            let rest = part(bytes, at, bytes.len());
            if rest.starts_with(&line) {
                expected += 1;
                at += LENGTH;
            } else if line.starts_with(rest) {
                return Ok(TickReport {
                    first,
                    last: expected - 1,
                    count: expected - first,
                    before,
                    after: rest.len(),
                });
            } else {
                return Err(wrong(bytes, at, expected));
            }
        }
    }

    /// Checks a log that must hold everything since the guest's boot.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_from_boot(bytes: &[u8]) -> Result<TickReport, TickError> {
        let report = Self::check(bytes)?;
        if report.first != FIRST {
            return Err(TickError::Start {
                first: report.first,
                offset: report.before,
                near: near(bytes, report.before),
            });
        }
        Ok(report)
    }

    /// The counter of the last whole line.
    #[must_use]
    pub fn last(bytes: &[u8]) -> Option<u64> {
        (0..bytes.len().saturating_sub(LENGTH - 1))
            .rev()
            .find_map(|at| counter_at(bytes, at))
    }

    /// How many whole lines there are, whatever else is wrong.
    #[must_use]
    pub fn count(bytes: &[u8]) -> u64 {
        let (mut count, mut at) = (0, 0);
        while let Some((_, found)) = find(bytes, at) {
            count += 1;
            at = found + LENGTH;
        }
        count
    }
}

fn wrong(bytes: &[u8], offset: usize, expected: u64) -> TickError {
    let near = near(bytes, offset);
    match counter_at(bytes, offset) {
        Some(found) if found > expected => TickError::Missing {
            from: expected,
            to: found - 1,
            offset,
            near,
        },
        Some(found) => TickError::Again {
            found,
            expected,
            offset,
            near,
        },
        None if is_crash(bytes, offset) => TickError::Crashed {
            expected,
            offset,
            near,
        },
        None => TickError::Torn {
            expected,
            offset,
            next: find(bytes, offset).map(|(counter, _)| counter),
            near,
        },
    }
}

/// Whether the kernel reports its own end there.
fn is_crash(bytes: &[u8], offset: usize) -> bool {
    let line = bytes.get(offset..).unwrap_or_default();
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let said = [
        "BUG: ",
        "Oops",
        "Kernel panic",
        "general protection fault",
        "invalid opcode",
        "double fault",
        "divide error",
    ];
    line.starts_with('[') && said.iter().any(|words| line.contains(words))
}

/// The first whole line at or after `from`: its counter, and where it begins.
fn find(bytes: &[u8], from: usize) -> Option<(u64, usize)> {
    (from..bytes.len().saturating_sub(LENGTH - 1))
        .find_map(|at| counter_at(bytes, at).map(|counter| (counter, at)))
}

/// The counter of the whole line that begins at `at`, if one does.
fn counter_at(bytes: &[u8], at: usize) -> Option<u64> {
    let rest = bytes.get(at..at + LENGTH)?.strip_prefix(HEAD)?;
    let digits = rest.strip_suffix(TEXT)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn part(bytes: &[u8], from: usize, to: usize) -> &[u8] {
    bytes.get(from..to).unwrap_or_default()
}

/// What is around `offset`, escaped, the place itself marked.
fn near(bytes: &[u8], offset: usize) -> String {
    let from = offset.saturating_sub(LENGTH + 10);
    let to = (offset + 2 * LENGTH).min(bytes.len());
    format!(
        "…{} >>> {}…",
        part(bytes, from, offset).escape_ascii(),
        part(bytes, offset, to).escape_ascii()
    )
}

#[cfg(test)]
mod tests;
