//! Where a read begins: pure, from the lengths of a chain's files, oldest
//! first, to a file and a place in it.
//!
//! How long a compressed file is in the stream is known only once it was
//! decompressed, which costs. So a plan asks for a file's length only if the
//! answer depends on it; whoever asked measures that file and plans again.
//!
//! Must not know: files, I/O.

/// A place in the stream: a file by its index (oldest is 0) and a byte in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) file: usize,
    pub(super) skip: u64,
}

impl Start {
    /// The first byte of the oldest file.
    pub(super) const FIRST: Self = Self { file: 0, skip: 0 };
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Read from here to the end.
    From(Start),
    /// Find out the length of this file, then plan again.
    Measure(usize),
}

/// Where the last `budget` bytes begin. All of the stream where it has fewer.
pub(super) fn tail(lengths: &[Option<u64>], budget: u64) -> Plan {
    let mut left = budget;
    for (file, length) in lengths.iter().enumerate().rev() {
        if left == 0 {
            // The file before this one is not touched, however it is stored.
            return Plan::From(Start {
                file: file.saturating_add(1),
                skip: 0,
            });
        }
        let Some(length) = *length else {
            return Plan::Measure(file);
        };
        match length.checked_sub(left) {
            Some(skip) => return Plan::From(Start { file, skip }),
            None => left = left.saturating_sub(length),
        }
    }
    Plan::From(Start { file: 0, skip: 0 })
}

/// Where the stream goes on behind its first `bytes` bytes. Its end where it has fewer.
pub(super) fn skip(lengths: &[Option<u64>], bytes: u64) -> Plan {
    let mut left = bytes;
    for (file, length) in lengths.iter().enumerate() {
        if left == 0 {
            return Plan::From(Start { file, skip: 0 });
        }
        let Some(length) = *length else {
            return Plan::Measure(file);
        };
        if left < length {
            return Plan::From(Start { file, skip: left });
        }
        left = left.saturating_sub(length);
    }
    Plan::From(Start {
        file: lengths.len(),
        skip: 0,
    })
}

/// Looks for the beginning of the last lines, from the end of the stream to its
/// beginning. A newline that is the stream's last byte ends the last line and
/// begins none.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineSearch {
    /// Newlines still to be passed.
    left: u64,
    /// Nothing of the stream was seen yet.
    at_end: bool,
}

impl LineSearch {
    /// Looks for the beginning of the last `lines` lines, which must not be 0:
    /// nothing begins nowhere.
    pub(super) fn new(lines: std::num::NonZeroU64) -> Self {
        Self {
            left: lines.get(),
            at_end: true,
        }
    }

    /// Goes through the block before the one seen last. Gives the index in it
    /// at which the lines begin, or `None` where they begin before it.
    pub(super) fn block(&mut self, block: &[u8]) -> Option<usize> {
        let end = block.len();
        let own = match block.split_last() {
            None => return None,
            Some((b'\n', rest)) if self.at_end => rest,
            Some(_) => block,
        };
        self.at_end = false;
        let mut upto = own;
        while let Some(at) = upto.iter().rposition(|b| *b == b'\n') {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                return Some(at.saturating_add(1).min(end));
            }
            upto = upto.get(..at).unwrap_or_default();
        }
        None
    }

    /// As [`LineSearch::block`] for a whole file that was counted from its
    /// front. Gives the newline, counted from 1, after which the lines begin.
    pub(super) fn counted(&mut self, file: Counted) -> Option<u64> {
        if file.length == 0 {
            return None;
        }
        let closing = self.at_end && file.ends_with_newline;
        let newlines = file.newlines.saturating_sub(u64::from(closing));
        self.at_end = false;
        match newlines.checked_sub(self.left) {
            Some(before) => Some(before.saturating_add(1)),
            None => {
                self.left = self.left.saturating_sub(newlines);
                None
            }
        }
    }
}

/// What one pass over a file tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Its length in the stream.
    pub(super) length: u64,
    /// How many newlines are in it.
    pub(super) newlines: u64,
    /// Whether its last byte is one.
    pub(super) ends_with_newline: bool,
}

impl Counted {
    /// Counts the next bytes of the file.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        let newlines = bytes.iter().filter(|b| **b == b'\n').count();
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.newlines = self.newlines.saturating_add(newlines as u64);
        self.ends_with_newline = *last == b'\n';
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(file: usize, skip: u64) -> Plan {
        Plan::From(Start { file, skip })
    }

    #[test]
    fn a_file_is_measured_only_if_the_answer_depends_on_it() {
        // Oldest first: compressed, 10 bytes, compressed, 6 bytes.
        let mut lengths = [None, Some(10), None, Some(6)];
        assert_eq!(tail(&lengths, 0), at(4, 0));
        assert_eq!(tail(&lengths, 5), at(3, 1));
        assert_eq!(tail(&lengths, 6), at(3, 0));
        assert_eq!(tail(&lengths, 7), Plan::Measure(2));
        lengths[2] = Some(3);
        assert_eq!(tail(&lengths, 7), at(2, 2));
        assert_eq!(tail(&lengths, 19), at(1, 0));
        assert_eq!(tail(&lengths, 20), Plan::Measure(0));
        lengths[0] = Some(0);
        assert_eq!(tail(&lengths, 20), at(0, 0));
        assert_eq!(tail(&lengths, u64::MAX), at(0, 0));
        assert_eq!(tail(&[], 5), at(0, 0));
    }

    #[test]
    fn an_offset_measures_only_what_lies_before_it() {
        let lengths = [Some(10), None, Some(6)];
        assert_eq!(skip(&lengths, 0), at(0, 0));
        assert_eq!(skip(&lengths, 9), at(0, 9));
        assert_eq!(skip(&lengths, 10), at(1, 0));
        assert_eq!(skip(&lengths, 11), Plan::Measure(1));
        assert_eq!(skip(&[Some(2), Some(0), Some(3)], 5), at(3, 0));
        assert_eq!(skip(&[Some(2)], u64::MAX), at(1, 0));
    }

    proptest! {
        #[test]
        fn a_tail_has_the_asked_length(
            lengths in proptest::collection::vec(0..50_u64, 0..8), budget in 0..300_u64,
        ) {
            let known: Vec<_> = lengths.iter().copied().map(Some).collect();
            let total: u64 = lengths.iter().sum();
            let Plan::From(start) = tail(&known, budget) else { panic!("all lengths are known") };
            let rest: u64 = lengths[start.file..].iter().sum();
            prop_assert_eq!(rest - start.skip, budget.min(total));

            let Plan::From(start) = skip(&known, budget) else { panic!("likewise") };
            let before: u64 = lengths[..start.file].iter().sum();
            prop_assert_eq!(before + start.skip, budget.min(total));
        }

        /// Whether a file is searched backwards in blocks or counted from its
        /// front, the lines begin at the same byte.
        #[test]
        fn lines_are_found_the_same_way_round(
            files in proptest::collection::vec("[ab\n]{0,12}", 1..5),
            block in 1..5_usize,
            lines in 1..12_u64,
        ) {
            let lines = std::num::NonZeroU64::new(lines).unwrap();
            let (mut backwards, mut counting) = (LineSearch::new(lines), LineSearch::new(lines));
            for file in files.iter().rev().map(String::as_bytes) {
                let mut end = file.len();
                let mut found = None;
                while end > 0 && found.is_none() {
                    let start = end.saturating_sub(block);
                    found = backwards.block(&file[start..end]).map(|at| start + at);
                    end = start;
                }
                let mut counted = Counted::default();
                file.chunks(block).for_each(|c| counted.add(c));
                let newline = counting.counted(counted);
                let after = newline.map(|n| {
                    let nth = usize::try_from(n - 1).unwrap();
                    file.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(nth).unwrap().0 + 1
                });
                prop_assert_eq!(found, after);
                if found.is_some() {
                    break;
                }
            }
        }
    }
}
