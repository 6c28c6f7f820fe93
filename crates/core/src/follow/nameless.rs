//! A log whose file has lost its name: removed, or renamed, while its writer goes on
//! writing it. Whoever found it gives the open file; it is the newest of the chain
//! until it has no writer any more, whatever lies at the log's path meanwhile.
//!
//! Must not know: how such a file is found.

use std::fs::File;

use super::held::{Held, Source};
use super::{Error, Follower, Result, Writer, Writers};
use crate::chain::{self, LogChain};
use crate::folder::stat_open;

impl Follower {
    /// As [`Follower::begin`], where the chain is really written to `newest`, open for
    /// reading: it comes behind the rotated files, and before what somebody put at the
    /// path of the base. There need not be any file of that name.
    ///
    /// # Errors
    /// The chain's; [`Error::Read`] where `newest` cannot be looked at.
    pub fn begin_with(chain: &LogChain, newest: File) -> Result<Self> {
        let name = chain.base_name().to_owned();
        let stat = stat_open(&newest).map_err(|source| Error::Read {
            name: name.clone(),
            source,
        })?;
        // Renamed within the chain it is written on under a number, as no rotated file is.
        let mut ownership = chain.ownership().clone();
        ownership.ours([stat.id]);
        let chain = chain.try_clone()?.owned(ownership)?;
        let mut follower = match Self::begin(&chain) {
            Ok(follower) => follower,
            Err(Error::Chain(chain::Error::NotFound { .. })) => Self::empty(chain),
            Err(e) => return Err(e),
        };
        if follower.held.back().is_some_and(|h| h.id == stat.id) {
            return Ok(follower); // it has its name back
        }
        // Once `newest` has no writer any more, what is at the base's path is found there.
        follower
            .held
            .retain(|held| held.id != stat.id && held.name != name);
        follower.held.push_back(Held::plain(name, stat.id, newest)?);
        follower.nameless = Some(stat.id);
        Ok(follower)
    }

    /// Says that the newest file has lost its name: what lies at the path of the base is
    /// another file, which comes behind this one once nobody writes this one any more.
    pub(crate) fn with_nameless_newest(mut self) -> Self {
        self.nameless = self.held.back().map(|held| held.id);
        self
    }

    fn empty(chain: LogChain) -> Self {
        Self {
            chain,
            remarks: Vec::new(),
            held: std::collections::VecDeque::new(),
            seen: Vec::new(),
            moved: Vec::new(),
            offset: 0,
            missed: Vec::new(),
            nameless: None,
        }
    }

    /// Whether the newest file is one without its name, and somebody writes it: then
    /// nothing newer is to be read.
    pub(super) fn writes_nameless(&self, writers: &dyn Writers) -> bool {
        let newest = self.held.back().filter(|h| Some(h.id) == self.nameless);
        match newest.map(|held| &held.source) {
            Some(Source::Plain(file)) => writers.writer(file) == Writer::Some,
            _ => false,
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "renames as an operator and virtlogd make them"
)]
mod tests {
    use super::*;
    use crate::chain::NumberingChoice;
    use crate::follow::NoWriters;
    use crate::testing::FakeWriters;
    use std::io::Write;
    use std::path::Path;

    fn chain(path: &Path) -> LogChain {
        LogChain::open(path, NumberingChoice::FromZero).unwrap()
    }

    fn all(follower: &mut Follower) -> String {
        let mut all = Vec::new();
        while let Some(piece) = follower.next(1024, true).unwrap() {
            all.extend(piece.bytes);
        }
        String::from_utf8(all).unwrap()
    }

    /// `hide` takes the base from its name; the log goes on, is rolled over, goes on.
    fn whole_life(hide: impl Fn(&Path, &dyn Fn(&str) -> std::path::PathBuf), touched: &str) {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("console.log");
        let numbered = |n: &str| folder.path().join(format!("console.log.{n}"));
        std::fs::write(numbered("0"), "old ").unwrap();
        let mut writer = File::create(&base).unwrap();
        writer.write_all(b"one ").unwrap();
        let id = stat_open(&writer).unwrap().id;
        let newest = File::open(&base).unwrap();
        hide(&base, &numbered);
        let mut follower = Follower::begin_with(&chain(&base), newest).unwrap();
        assert_eq!(all(&mut follower), "old one ");
        // Still written: nothing that has its name is read.
        let busy = FakeWriters::Only(id);
        writer.write_all(b"two ").unwrap();
        follower.refresh(&busy).unwrap();
        assert_eq!(all(&mut follower), "two ");
        assert_eq!(follower.written(&busy).unwrap(), Writer::Some);
        // A rollover, by names.
        writer.write_all(b"three ").unwrap();
        drop(writer);
        for n in ["1", "0"] {
            let next = (n.parse::<u32>().unwrap() + 1).to_string();
            let _ = std::fs::rename(numbered(n), numbered(&next));
        }
        let _ = std::fs::rename(&base, numbered("0"));
        std::fs::write(&base, "four").unwrap();
        let nobody = NoWriters;
        follower.refresh(&nobody).unwrap();
        assert_eq!(all(&mut follower), format!("three {touched}four"));
        assert_eq!(follower.missed(), []);
        assert_eq!(follower.drained(&nobody).unwrap(), Writer::None);
    }

    #[test]
    fn a_removed_log_is_followed_until_it_has_a_name_again() {
        whole_life(|base, _| std::fs::remove_file(base).unwrap(), "");
    }

    #[test]
    fn what_somebody_put_in_its_place_comes_behind_it() {
        let replace = |base: &Path, _: &dyn Fn(&str) -> std::path::PathBuf| {
            std::fs::rename(base, base.with_extension("old")).unwrap();
            std::fs::write(base, "touched ").unwrap();
        };
        whole_life(replace, "touched ");
        let empty = |base: &Path, _: &dyn Fn(&str) -> std::path::PathBuf| {
            std::fs::remove_file(base).unwrap();
            File::create(base).unwrap();
        };
        whole_life(empty, "");
    }

    /// Renamed to a number of the chain it is there twice, by name and by descriptor.
    #[test]
    fn renamed_within_its_chain_it_comes_once_and_last() {
        let rename = |base: &Path, numbered: &dyn Fn(&str) -> std::path::PathBuf| {
            std::fs::rename(base, numbered("1")).unwrap();
        };
        whole_life(rename, "");
        let and_touch = |base: &Path, numbered: &dyn Fn(&str) -> std::path::PathBuf| {
            std::fs::rename(base, numbered("1")).unwrap();
            std::fs::write(base, "touched ").unwrap();
        };
        whole_life(and_touch, "touched ");
    }

    #[test]
    fn without_any_name_left_it_is_the_whole_chain() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("console.log");
        std::fs::write(&base, "all of it").unwrap();
        let newest = File::open(&base).unwrap();
        std::fs::remove_file(&base).unwrap();
        let mut follower = Follower::begin_with(&chain(&base), newest).unwrap();
        assert_eq!(all(&mut follower), "all of it");
        let nobody = NoWriters;
        follower.refresh(&nobody).unwrap();
        assert_eq!(follower.drained(&nobody).unwrap(), Writer::None);
        assert_eq!(follower.offset(), 9);
    }

    #[test]
    fn a_base_that_has_its_name_is_the_base() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("console.log");
        std::fs::write(&base, "here").unwrap();
        let newest = File::open(&base).unwrap();
        let mut follower = Follower::begin_with(&chain(&base), newest).unwrap();
        assert_eq!(all(&mut follower), "here");
        assert_eq!(follower.held().count(), 1);
    }
}
