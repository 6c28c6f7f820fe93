//! What a log holds of the lines that a guest numbers, however it is damaged.

use std::fmt;

use logchain_tests::Ticks;

/// More runs than these are not listed.
const LISTED: usize = 4;

/// Runs of lines without a gap, in the order in which they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines(Vec<(u64, u64)>);

impl Lines {
    /// Of a log.
    pub(crate) fn of(log: &[u8]) -> Self {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for line in log.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(number) = number(line) else {
                continue;
            };
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        Lines(runs)
    }

    /// Whether it is everything since one boot.
    pub(crate) fn whole(&self) -> bool {
        matches!(self.0.as_slice(), [(1, _)])
    }

    /// Whether it is everything of so many boots, each from its first line on.
    pub(crate) fn boots(&self, count: usize) -> bool {
        self.0.len() == count && self.0.iter().all(|(first, _)| *first == 1)
    }

    /// The number of the last line; 0 if there is none.
    pub(crate) fn last(&self) -> u64 {
        self.0.last().map_or(0, |(_, last)| *last)
    }

    /// Each run from its first line to its last.
    pub(crate) fn runs(&self) -> &[(u64, u64)] {
        &self.0
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "no line");
        }
        for (at, (first, last)) in self.0.iter().take(LISTED).enumerate() {
            let and = if at == 0 { "" } else { ", " };
            write!(f, "{and}{first}–{last}")?;
        }
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more runs"),
        }
    }
}

/// The number of a line that is whole.
fn number(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(b"LC ")?.get(..10)?;
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (Ticks::line(number).strip_suffix(b"\r\n") == Some(line)
        || Ticks::line(number).strip_suffix(b"\n") == Some(line))
    .then_some(number)
}

#[cfg(test)]
mod tests {
    use super::Lines;
    use logchain_tests::Ticks;

    fn log(numbers: &[u64]) -> Vec<u8> {
        let lines = numbers.iter().flat_map(|number| Ticks::line(*number));
        b"kernel\r\n".iter().copied().chain(lines).collect()
    }

    #[test]
    fn a_log_is_told_by_its_runs() {
        let whole = Lines::of(&log(&[1, 2, 3]));
        assert!(whole.whole() && whole.boots(1));
        assert_eq!((whole.to_string().as_str(), whole.last()), ("1–3", 3));
        let end = Lines::of(&log(&[7, 8]));
        assert!(!end.whole() && !end.boots(1));
        let boots = Lines::of(&log(&[1, 2, 1, 2, 3]));
        assert!(boots.boots(2) && !boots.boots(1) && !boots.whole());
        let gap = Lines::of(&log(&[1, 2, 4, 5, 1]));
        assert_eq!(gap.to_string(), "1–2, 4–5, 1–1");
        assert!(!gap.whole());
        let doubled = Lines::of(&log(&[1, 2, 2, 3]));
        assert_eq!(doubled.runs(), [(1, 2), (2, 3)]);
        assert_eq!(Lines::of(b"nothing").to_string(), "no line");
        let many = Lines::of(&log(&[1, 3, 5, 7, 9, 11]));
        assert_eq!(many.to_string(), "1–1, 3–3, 5–5, 7–7 and 2 more runs");
        // A torn line ends a run: the next one does not go on where it ended.
        let mut torn = log(&[1, 2]);
        torn.extend_from_slice(&Ticks::line(3)[..20]);
        torn.extend_from_slice(&log(&[4]));
        assert_eq!(Lines::of(&torn).to_string(), "1–2, 4–4");
    }
}
