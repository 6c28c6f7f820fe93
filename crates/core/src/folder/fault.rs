//! The seam at which tests kill us and let virtlogd run: every call that changes
//! something on disk passes [`point`] first, every look [`look`], every wait
//! [`pause`]. Outside this crate's own tests all of them do nothing.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use rustix::io::Errno;

#[cfg(test)]
pub(crate) use seam::{Other, arm, disarm, refuse_noreplace, refuse_owner};
pub(crate) use seam::{look, noreplace, owner, pause, point};

/// Writes all of `bytes`. A death in here leaves half of them.
pub(crate) fn write_all(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    torn_point(bytes, |bytes| write_in_blocks(file, bytes))
}

/// A [`point`] before `write`, which gets half of `bytes` where a test dies in it.
pub(crate) fn torn_point(
    bytes: &[u8],
    write: impl FnOnce(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let Err(e) = point() else {
        return write(bytes);
    };
    if seam::torn() {
        write(bytes.get(..bytes.len() / 2).unwrap_or_default())?;
    }
    Err(e.into())
}

/// Larger writes have the page cache take larger blocks of memory. A virtual machine
/// may have given those back to its host, and gets them page by page: measured at
/// five times the time. Smaller blocks are no slower anywhere else.
const BLOCK: usize = 64 << 10;

pub(crate) fn write_in_blocks(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    blocks(bytes).try_for_each(|block| file.write_all(block))
}

/// What is written at a time.
pub(crate) fn blocks(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(BLOCK)
}

/// Makes a file's bytes durable.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    point()?;
    file.sync_all()
}

#[cfg(not(test))]
mod seam {
    use super::{Duration, Errno};

    #[expect(clippy::unnecessary_wraps, reason = "tests fail here")]
    #[inline]
    pub(crate) fn point() -> Result<(), Errno> {
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "tests fail here")]
    #[inline]
    pub(crate) fn noreplace() -> Result<(), Errno> {
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "tests fail here")]
    #[inline]
    pub(crate) fn owner() -> Result<(), Errno> {
        Ok(())
    }

    #[inline]
    pub(crate) fn look() {}

    #[inline]
    pub(crate) fn pause(_: Duration) -> bool {
        false
    }

    #[inline]
    pub(super) fn torn() -> bool {
        false
    }
}

#[cfg(test)]
mod seam {
    use std::cell::{Cell, RefCell};

    use super::{Duration, Errno};

    /// What the other process does, given the number of calls so far and
    /// whether time passes.
    pub(crate) type Other = Box<dyn FnMut(u64, bool)>;

    #[derive(Default)]
    struct Seam {
        on: bool,
        changes: u64,
        calls: u64,
        die_at: Option<u64>,
        other: Option<Other>,
    }

    thread_local! {
        static SEAM: RefCell<Seam> = RefCell::default();
        static REFUSES_NOREPLACE: Cell<bool> = const { Cell::new(false) };
        static REFUSES_OWNER: Cell<bool> = const { Cell::new(false) };
    }

    /// From now on, in this thread, the file system renames only with the risk of
    /// overwriting, as NFS does.
    pub(crate) fn refuse_noreplace(refuses: bool) {
        REFUSES_NOREPLACE.set(refuses);
    }

    pub(crate) fn noreplace() -> Result<(), Errno> {
        if REFUSES_NOREPLACE.get() {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    /// From now on, in this thread, no owner can be given away, as without CAP_CHOWN.
    pub(crate) fn refuse_owner(refuses: bool) {
        REFUSES_OWNER.set(refuses);
    }

    pub(crate) fn owner() -> Result<(), Errno> {
        if REFUSES_OWNER.get() {
            return Err(Errno::PERM);
        }
        Ok(())
    }

    /// From now on calls are counted in this thread; the change number `die_at`
    /// (from 0) and all after it have no effect, and `other` runs before each call.
    pub(crate) fn arm(die_at: Option<u64>, other: Option<Other>) {
        SEAM.with_borrow_mut(|s| {
            *s = Seam {
                on: true,
                die_at,
                other,
                ..Seam::default()
            }
        });
    }

    /// Ends it; gives the number of changes and of calls.
    pub(crate) fn disarm() -> (u64, u64) {
        SEAM.with_borrow_mut(|s| {
            let counts = (s.changes, s.calls);
            *s = Seam::default();
            counts
        })
    }

    fn dead(s: &Seam) -> bool {
        s.die_at.is_some_and(|at| s.changes > at)
    }

    fn call(time_passes: bool) {
        let (other, calls) = SEAM.with_borrow_mut(|s| {
            s.calls += 1;
            // Whoever is dead sees nothing of what others do.
            let other = if dead(s) { None } else { s.other.take() };
            (other, s.calls - 1)
        });
        if let Some(mut other) = other {
            other(calls, time_passes);
            SEAM.with_borrow_mut(|s| s.other = Some(other));
        }
    }

    pub(crate) fn point() -> Result<(), Errno> {
        if !SEAM.with_borrow(|s| s.on) {
            return Ok(());
        }
        call(false);
        SEAM.with_borrow_mut(|s| {
            s.changes += 1;
            if dead(s) { Err(Errno::IO) } else { Ok(()) }
        })
    }

    pub(crate) fn look() {
        if SEAM.with_borrow(|s| s.on) {
            call(false);
        }
    }

    pub(crate) fn pause(_: Duration) -> bool {
        let on = SEAM.with_borrow(|s| s.on);
        if on {
            call(true);
        }
        on
    }

    /// Whether the write that just failed was the one we died in.
    pub(super) fn torn() -> bool {
        SEAM.with_borrow(|s| s.die_at.is_some_and(|at| s.changes == at + 1))
    }
}
