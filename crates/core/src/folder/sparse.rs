//! Writing without what is nothing but NULs: a console log that was truncated while its
//! writer kept its place has a hole, and what is copied from it should have one too.
//!
//! A hole is as long as the NULs were: offsets do not change, and whoever reads gets
//! the same bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::fault;

/// What file systems allocate at least: a smaller hole saves nothing.
const GRAIN: usize = 4096;

const NULS: [u8; GRAIN] = [0; GRAIN];

/// Writes `bytes` at `at`, which is the end of the file, grains of NULs as holes.
/// Afterwards the file is as long as if all had been written.
///
/// # Errors
/// The system's answer. How much was written is not known then.
pub(crate) fn write_at_end(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    fault::torn_point(bytes, |bytes| {
        let mut open_end = None;
        for run in Runs::of(at, bytes) {
            open_end = match run {
                Run::Data { at, bytes } => {
                    fault::blocks(bytes).try_fold(at, |at, block| {
                        file.write_all_at(block, at)?;
                        Ok::<_, io::Error>(at.saturating_add(block.len() as u64))
                    })?;
                    None
                }
                Run::Hole { at, len } => Some((at, len)),
            };
        }
        open_end.map_or(Ok(()), |(at, len)| lengthen(file, at, len))
    })
}

/// A hole at the end of a file of `at` bytes.
fn lengthen(file: &File, at: u64, len: u64) -> io::Result<()> {
    if file.set_len(at.saturating_add(len)).is_ok() {
        return Ok(());
    }
    // Not every file system does that; NULs it takes.
    let mut done = 0;
    while done < len {
        let now = len.saturating_sub(done).min(GRAIN as u64);
        let nuls = NULS.get(..usize::try_from(now).unwrap_or(GRAIN));
        file.write_all_at(nuls.unwrap_or(&NULS), at.saturating_add(done))?;
        done = done.saturating_add(now);
    }
    Ok(())
}

/// How many of `bytes` at `at` take room on disk.
pub(crate) fn data(at: u64, bytes: &[u8]) -> u64 {
    Runs::of(at, bytes).fold(0, |sum, run| match run {
        Run::Data { bytes, .. } => sum.saturating_add(bytes.len() as u64),
        Run::Hole { .. } => sum,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Run<'a> {
    Data { at: u64, bytes: &'a [u8] },
    Hole { at: u64, len: u64 },
}

/// Bytes in runs that lie one behind the other: data, and grains of NULs.
struct Runs<'a> {
    at: u64,
    rest: &'a [u8],
}

impl<'a> Runs<'a> {
    fn of(at: u64, bytes: &'a [u8]) -> Self {
        Self { at, rest: bytes }
    }

    /// The length of the run that begins here, and whether it is a hole. Grains are
    /// those of the file: the first one may be short.
    fn first(&self) -> (usize, bool) {
        let into = usize::try_from(self.at % GRAIN as u64).unwrap_or(0);
        let head = if into == 0 {
            0
        } else {
            GRAIN.saturating_sub(into)
        };
        let (head, grains) = self.rest.split_at_checked(head).unwrap_or((self.rest, &[]));
        // A short one as well: behind the end of a file is nothing but NULs.
        let is_hole = |grain: &&[u8]| NULS.starts_with(grain);
        let head = Some(head).filter(|head| !head.is_empty());
        let mut grains = head.into_iter().chain(grains.chunks(GRAIN)).peekable();
        let hole = grains.peek().is_some_and(is_hole);
        let same = grains.take_while(|grain| is_hole(grain) == hole);
        let len = same.fold(0_usize, |len, grain| len.saturating_add(grain.len()));
        (len, hole)
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let (len, hole) = self.first();
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        if bytes.is_empty() {
            return None;
        }
        let (at, len) = (self.at, len as u64);
        (self.at, self.rest) = (at.saturating_add(len), rest);
        Some(if hole {
            Run::Hole { at, len }
        } else {
            Run::Data { at, bytes }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::folder::stat_open;

    #[test]
    fn nuls_take_no_room_and_are_read_back() {
        let file = tempfile::tempfile().unwrap();
        let nuls = vec![0; 1 << 20];
        let mut at = 0;
        write_at_end(&file, at, b"begin").unwrap();
        at += 5;
        for _ in 0..300 {
            assert_eq!(data(at, &nuls), 0);
            write_at_end(&file, at, &nuls).unwrap();
            at += nuls.len() as u64;
        }
        // An end that is a hole is there as well.
        assert_eq!(stat_open(&file).unwrap().size, at);
        write_at_end(&file, at, b"end").unwrap();
        let stat = stat_open(&file).unwrap();
        assert_eq!(stat.size, at + 3);
        assert!(stat.allocated < 1 << 20, "{} allocated", stat.allocated);
        let mut end = [1; 6];
        file.read_exact_at(&mut end, at - 3).unwrap();
        assert_eq!(&end, b"\0\0\0end");
    }

    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let piece = prop_oneof![
            (0_usize..20_000).prop_map(|n| vec![0; n]),
            (0_usize..9_000).prop_map(|n| vec![b'x'; n]),
            (0_usize..3).prop_map(|n| vec![0; n * GRAIN]),
        ];
        prop::collection::vec(piece, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_file_holds_just_what_was_written(pieces in pieces()) {
            let file = tempfile::tempfile().unwrap();
            let mut all = Vec::new();
            for piece in &pieces {
                write_at_end(&file, all.len() as u64, piece).unwrap();
                all.extend_from_slice(piece);
                prop_assert_eq!(stat_open(&file).unwrap().size, all.len() as u64);
            }
            let mut read = vec![1; all.len()];
            file.read_exact_at(&mut read, 0).unwrap();
            prop_assert!(read == all);
        }
    }
}
