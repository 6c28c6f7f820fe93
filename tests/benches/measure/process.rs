//! What the kernel says of a process: for measurements of memory, processor time and wakeups.

use std::fs;
use std::path::Path;

use super::Fallible;

/// The number in the field `name` of `status` in the folder `proc` of a process or a thread; of
/// memory it is in KiB.
pub(crate) fn field(proc: &Path, name: &str) -> Fallible<u64> {
    let status = fs::read_to_string(proc.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    Ok(word.ok_or_else(|| format!("no {name}"))?.parse()?)
}
