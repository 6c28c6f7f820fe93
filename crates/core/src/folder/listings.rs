//! One listing of a folder for many who look at it in turn: a thousand logs may lie in one folder,
//! and each look at one of them would list all of it.
//!
//! Must not know: what the names mean.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, StatxFlags, StatxTimestamp, statx};

thread_local! {
    /// The last folder that was listed, while listings are kept.
    static KEPT: RefCell<Option<Option<Kept>>> = const { RefCell::new(None) };
}

/// The system sets times of files once a tick, which is 10 ms at most. A folder that was changed
/// less than this ago may change again and show the same time.
const TICK: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Kept {
    version: Version,
    names: Rc<[OsString]>,
}

/// A folder at one moment: each change of its names changes its times.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    device: (u32, u32),
    ino: u64,
    changed: (i64, u32),
    modified: (i64, u32),
}

impl Version {
    /// `None`: a change that follows may not be seen by the times.
    pub(super) fn of(folder: impl AsFd) -> Option<Self> {
        let wanted = StatxFlags::INO | StatxFlags::CTIME | StatxFlags::MTIME;
        let stat = statx(folder, "", AtFlags::EMPTY_PATH, wanted).ok()?;
        let time = |time: StatxTimestamp| (time.tv_sec, time.tv_nsec);
        let version = Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            changed: time(stat.stx_ctime),
            modified: time(stat.stx_mtime),
        };
        let (seconds, nanos) = version.changed.max(version.modified);
        let last = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))?;
        let last = last.checked_add(Duration::from_nanos(nanos.into()))?;
        // A time to come says nothing.
        let age = SystemTime::now().duration_since(last).ok()?;
        (age >= TICK).then_some(version)
    }
}

/// While `work` runs on this thread, a folder that has not changed since it was listed is not
/// listed again. Of a folder that changed, and of one that other hosts share, nothing is kept.
pub fn with_listings_kept<T>(work: impl FnOnce() -> T) -> T {
    struct End(Option<Option<Kept>>);
    impl Drop for End {
        fn drop(&mut self) {
            KEPT.set(self.0.take());
        }
    }
    let _end = End(KEPT.replace(Some(None)));
    work()
}

/// Whether listings are kept just now.
pub(super) fn are_kept() -> bool {
    KEPT.with_borrow(Option::is_some)
}

/// The names of this folder, where they are known.
pub(super) fn kept(version: Version) -> Option<Rc<[OsString]>> {
    KEPT.with_borrow(|kept| {
        let kept = kept.as_ref()?.as_ref()?;
        (kept.version == version).then(|| Rc::clone(&kept.names))
    })
}

/// These are the names of a folder.
pub(super) fn keep(version: Version, names: Rc<[OsString]>) {
    KEPT.with_borrow_mut(|kept| {
        if let Some(kept) = kept {
            *kept = Some(Kept { version, names });
        }
    });
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Folder;
    use super::*;
    use crate::pause::pause;

    fn names(folder: &Folder) -> Vec<OsString> {
        let mut names = folder.names().unwrap();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_listed_again_once_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        fs::write(dir.path().join("one"), "").unwrap();
        let is_known = || Version::of(&folder.fd).is_some_and(|version| kept(version).is_some());
        with_listings_kept(|| {
            assert_eq!(names(&folder), ["one"]);
            pause(TICK * 2);
            assert_eq!(names(&folder), ["one"]);
            assert!(is_known());
            assert_eq!(names(&folder), ["one"]);
            for round in 0..20 {
                let name = format!("two{round}");
                fs::write(dir.path().join(&name), "").unwrap();
                assert!(names(&folder).contains(&OsString::from(name)));
            }
            pause(TICK * 2);
            assert_eq!(names(&folder).len(), 21);
            assert!(is_known());
        });
        assert!(!is_known());
    }
}
