//! What the kernel says of a process: for measurements of memory, processor time and wakeups.

use std::fs;
use std::path::Path;

use super::Fallible;

/// The field `name` of `status` in the folder `proc` of a process, in KiB.
pub(crate) fn kib(proc: &Path, name: &str) -> Fallible<u64> {
    let status = fs::read_to_string(proc.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    Ok(word.ok_or_else(|| format!("no {name}"))?.parse()?)
}
