//! What measurements of migrations share: a guest that goes to and fro, looks at
//! files while it does, and rows that a later run goes on with.

pub(crate) mod agents;
pub(crate) mod looks;
pub(crate) mod pool;
pub(crate) mod rows;
pub(crate) mod shuttle;

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// The value behind `name` on the command line, if it is there.
pub(crate) fn option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)
}

/// The same as a number.
pub(crate) fn number(name: &str, default: u64) -> Fallible<u64> {
    match option(name) {
        Some(text) => Ok(text.parse().map_err(|e| format!("{name} {text}: {e}"))?),
        None => Ok(default),
    }
}

/// The share of `part` hundredths of what is sorted.
pub(crate) fn at<T: Copy + Default>(sorted: &[T], part: usize) -> T {
    let last = sorted.len().saturating_sub(1);
    let index = (last * part).div_ceil(100);
    sorted.get(index).copied().unwrap_or_default()
}
