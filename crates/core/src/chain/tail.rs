//! The end of a log, or all of it, in one call: what a program reads that wants to
//! show it.
//!
//! Must not know: offsets in the VM's stream.

use std::fmt;
use std::io::{self, Read};

use super::{Gap, LogChain, Reader, Remark, Result, Snapshot};

/// How much of a log's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// All of it.
    All,
    /// So many bytes, or all where it has fewer.
    Bytes(u64),
    /// So many lines, or all where it has fewer. A last line without a newline counts.
    Lines(u64),
}

/// The end of a log as it was at one moment: a [`Read`].
///
/// It keeps the files open that it has yet to read, so a rollover takes nothing away
/// from it. As with every [`Reader`], an error ends it, and [`super::Error`] says how to
/// get at the cause.
pub struct Tail {
    reader: Reader<'static>,
    remarks: Vec<Remark>,
    gaps: Vec<Gap>,
}

impl Tail {
    pub(crate) fn of(snapshot: Snapshot, amount: Amount) -> Result<Self> {
        Ok(Self {
            remarks: snapshot.remarks().to_vec(),
            gaps: snapshot.gaps().to_vec(),
            reader: snapshot.into_tail(amount)?,
        })
    }

    /// What was not read, and where the order of the files is in doubt.
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// Numbers that are missing among the rotated files, newest first. What lies before
    /// and behind a gap is read as if nothing were missing.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("remarks", &self.remarks)
            .field("gaps", &self.gaps)
            .finish_non_exhaustive()
    }
}

impl LogChain {
    /// The end of the log as it is now, across its files.
    ///
    /// Only what is asked for is read, but for lines, which are read twice to find where
    /// they begin, and for a compressed file, which has to be decompressed to know how
    /// long it is.
    ///
    /// # Errors
    /// As [`LogChain::snapshot`]; [`Error::Damaged`](super::Error::Damaged) where a
    /// compressed file is cut short.
    ///
    /// ```
    /// use std::io::Read;
    /// use logchain_core::{Amount, LogChain, NumberingChoice};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("console.log");
    /// std::fs::write(path.with_file_name("console.log.0"), "one\ntwo\nth")?;
    /// std::fs::write(&path, "ree\nfour\n")?;
    ///
    /// let chain = LogChain::open(&path, NumberingChoice::Auto)?;
    /// let mut tail = chain.tail(Amount::Lines(2))?;
    /// let mut text = String::new();
    /// tail.read_to_string(&mut text)?;
    /// assert_eq!(text, "three\nfour\n");
    /// for remark in tail.remarks() {
    ///     eprintln!("{remark}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn tail(&self, amount: Amount) -> Result<Tail> {
        Tail::of(self.snapshot()?, amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::NumberingChoice;

    /// Oldest first: nine bytes compressed, then plain ones.
    fn chain(folder: &std::path::Path) -> LogChain {
        let old = zstd::encode_all(&b"one\ntwo\nt"[..], 0).unwrap();
        std::fs::write(folder.join("l.1.zst"), old).unwrap();
        std::fs::write(folder.join("l.0"), "hree\nfo").unwrap();
        std::fs::write(folder.join("l"), "ur\nfive").unwrap();
        LogChain::open(&folder.join("l"), NumberingChoice::FromZero).unwrap()
    }

    fn text(mut tail: Tail) -> String {
        let mut text = String::new();
        tail.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn each_amount_is_what_a_snapshot_gives() {
        let folder = tempfile::tempdir().unwrap();
        let chain = chain(folder.path());
        let all = "one\ntwo\nthree\nfour\nfive";
        assert_eq!(text(chain.tail(Amount::All).unwrap()), all);
        for bytes in 0..=all.len() + 1 {
            let tail = text(chain.tail(Amount::Bytes(bytes as u64)).unwrap());
            assert_eq!(tail, all[all.len().saturating_sub(bytes)..]);
        }
        for (lines, tail) in [(0, ""), (1, "five"), (3, "three\nfour\nfive"), (9, all)] {
            assert_eq!(text(chain.tail(Amount::Lines(lines)).unwrap()), tail);
        }
    }

    #[test]
    fn a_tail_outlives_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let tail = chain(folder.path()).tail(Amount::All).unwrap();
        for name in ["l", "l.0", "l.1.zst"] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        assert_eq!(text(tail), "one\ntwo\nthree\nfour\nfive");
    }
}
