//! Pure: which logs an event in a folder concerns. A thousand logs may lie in one folder,
//! and what happens to one of them must not make anybody look at the others.
//!
//! Must not know: how events come.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Which log, as long as this process holds it.
pub(super) type Key = u64;

/// A watched folder, by the number the system gave the watch.
pub(super) type Watch = i32;

/// The names for which a log is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// The base, and whatever a rotation calls a file of it.
    Log(OsString),
    /// Just this name.
    Name(OsString),
}

/// Who is interested in what.
#[derive(Debug, Default)]
pub(super) struct Table {
    folders: HashMap<Watch, Interests>,
    watches: HashMap<Key, Vec<Watch>>,
}

#[derive(Debug, Default)]
struct Interests {
    logs: HashMap<OsString, Vec<Key>>,
    names: HashMap<OsString, Vec<Key>>,
}

impl Table {
    /// `key` wants to hear of this. Said twice, it is the same as once.
    pub(super) fn add(&mut self, watch: Watch, key: Key, interest: Interest) {
        let folder = self.folders.entry(watch).or_default();
        let keys = match interest {
            Interest::Log(base) => folder.logs.entry(base).or_default(),
            Interest::Name(name) => folder.names.entry(name).or_default(),
        };
        if !keys.contains(&key) {
            keys.push(key);
        }
        let watches = self.watches.entry(key).or_default();
        if !watches.contains(&watch) {
            watches.push(watch);
        }
    }

    /// `key` wants to hear of nothing any more. Gives the watches that nobody needs now.
    pub(super) fn remove(&mut self, key: Key) -> Vec<Watch> {
        let watches = self.watches.remove(&key).unwrap_or_default();
        let left = watches.into_iter().filter(|watch| {
            let Some(folder) = self.folders.get_mut(watch) else {
                return false;
            };
            for keys in [&mut folder.logs, &mut folder.names] {
                keys.retain(|_, keys| {
                    keys.retain(|other| *other != key);
                    !keys.is_empty()
                });
            }
            let unused = folder.logs.is_empty() && folder.names.is_empty();
            if unused {
                self.folders.remove(watch);
            }
            unused
        });
        left.collect()
    }

    /// Whose the name is, in a watched folder.
    pub(super) fn of_name(&self, watch: Watch, name: &OsStr) -> Vec<Key> {
        let Some(folder) = self.folders.get(&watch) else {
            return Vec::new();
        };
        let exact = folder.names.get(name).into_iter();
        let logs = bases(name).filter_map(|base| folder.logs.get(base));
        exact.chain(logs).flatten().copied().collect()
    }

    /// All that are interested in a watched folder.
    pub(super) fn of_folder(&self, watch: Watch) -> Vec<Key> {
        let Some(folder) = self.folders.get(&watch) else {
            return Vec::new();
        };
        let keys = folder.logs.values().chain(folder.names.values());
        keys.flatten().copied().collect()
    }
}

/// What the base may be called of which this is a file: the name itself, and every
/// beginning of it behind which a suffix of a rotation can stand.
fn bases(name: &OsStr) -> impl Iterator<Item = &OsStr> {
    let bytes = name.as_bytes();
    let ends = bytes.iter().enumerate().skip(1);
    let ends = ends.filter(|(_, byte)| matches!(byte, b'.' | b'-' | b'_' | b'~'));
    let cut = ends.filter_map(|(at, _)| bytes.get(..at).map(OsStr::from_bytes));
    std::iter::once(name).chain(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(base: &str) -> Interest {
        Interest::Log(base.into())
    }

    #[test]
    fn an_event_concerns_the_logs_of_its_name_alone() {
        let mut table = Table::default();
        for key in 0..1000 {
            table.add(1, key, log(&format!("vm-{key}.log")));
        }
        table.add(1, 7, Interest::Name(".vm-7.log.logchain".into()));
        let of = |table: &Table, name: &str| table.of_name(1, OsStr::new(name));
        for name in [
            "vm-7.log",
            "vm-7.log.0",
            "vm-7.log.12.gz",
            "vm-7.log-20261120.zst",
            "vm-7.log~",
            ".vm-7.log.logchain",
        ] {
            assert_eq!(of(&table, name), [7], "{name}");
        }
        for name in [
            "vm-7",
            "vm-7.xml",
            "vm-7.logs",
            ".vm-7.log.logchain.new",
            ".vm-8.log.logchain",
            "other",
            "",
        ] {
            assert_eq!(of(&table, name), [] as [Key; 0], "{name}");
        }
        assert_eq!(table.of_name(2, OsStr::new("vm-7.log")), [] as [Key; 0]);
        assert_eq!(table.of_folder(1).len(), 1001);
    }

    #[test]
    fn a_watch_goes_with_the_last_who_needs_it() {
        let mut table = Table::default();
        // A log of one guest may be called as a rotated file of another's.
        table.add(1, 1, log("web"));
        table.add(1, 2, log("web.1"));
        table.add(2, 2, Interest::Name("folder".into()));
        table.add(2, 2, Interest::Name("folder".into()));
        assert_eq!(table.of_name(1, OsStr::new("web.1")), [2, 1]);
        assert_eq!(table.remove(2), [2]);
        assert_eq!(table.of_name(1, OsStr::new("web.1")), [1]);
        assert_eq!(table.remove(2), [] as [Watch; 0]);
        assert_eq!(table.remove(1), [1]);
        assert_eq!(table.of_folder(1), [] as [Key; 0]);
    }
}
