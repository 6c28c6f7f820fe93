//! Huge pages of this machine for guests' memory, as long as something is measured.
//!
//! A guest in them has its memory at once and always of the same kind. Ordinary pages
//! are quick or slow to get as the machine has them at hand: where it is itself a guest
//! whose free pages go back to its host, five times as slow.

use std::fs;

use super::Fallible;

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Pages of 2 MiB that were added. Dropped, they go back.
pub(crate) struct Pool {
    before: u64,
}

impl Pool {
    /// Adds so many.
    pub(crate) fn add(pages: u64) -> Fallible<Self> {
        let before = read()?;
        let pool = Self { before };
        write(before + pages)?;
        let there = read()?;
        if there < before + pages {
            return Err(format!("the kernel has {there} huge pages for {}", before + pages).into());
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Err(e) = write(self.before) {
            eprintln!("huge pages stay as they are: {e}");
        }
    }
}

fn read() -> Fallible<u64> {
    let text = fs::read_to_string(POOL).map_err(|e| format!("{POOL}: {e}"))?;
    Ok(text.trim().parse()?)
}

fn write(pages: u64) -> Fallible<()> {
    let written = fs::write(POOL, pages.to_string());
    Ok(written.map_err(|e| format!("{POOL}: {e}"))?)
}
