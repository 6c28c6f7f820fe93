//! The hosts that a VM was on.

use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use logchain_core::chain::LogChain;
use logchain_core::offsets::Offsets;
use logchain_core::stream::{Hop, StreamOffset};
use serde_json::json;

use crate::args::{Format, Show};
use crate::exit::Exit;

pub(super) fn show(args: &Show, chain: &LogChain) -> anyhow::Result<Exit> {
    let offsets = Offsets::of(chain)?;
    let end = offsets.end()?;
    print(args.format, &chain.path(), offsets.ledger().hops(), end)
}

/// Prints the hosts of the VM whose log is at `path` and ends at `end`.
pub(super) fn print(
    format: Format,
    path: &Path,
    hops: &[Hop],
    end: StreamOffset,
) -> anyhow::Result<Exit> {
    let mut out = io::stdout().lock();
    if hops.is_empty() && format == Format::Text {
        eprintln!(
            "logchain: no migration is recorded beside {}",
            path.display()
        );
    }
    let ends = hops.iter().skip(1).map(|h| h.start).chain([end]);
    for (hop, end) in hops.iter().zip(ends) {
        match format {
            Format::Text => {
                let since = hop.since.map_or_else(|| "the beginning".to_owned(), utc);
                let (host, start) = (printable(&hop.host), hop.start);
                writeln!(out, "{host}\tsince {since}\tbytes {start} to {end}")?;
            }
            Format::Json => {
                let hop = json!({
                    "host": hop.host,
                    "since": hop.since.map(Timestamp::as_second),
                    "start": hop.start.get(),
                    "end": end.get(),
                });
                writeln!(out, "{hop}")?;
            }
        }
    }
    Ok(Exit::Done)
}

/// A name that came from another host.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).collect()
}

pub(super) fn utc(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let utc = |seconds| utc(Timestamp::constant(seconds, 0));
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }
}
