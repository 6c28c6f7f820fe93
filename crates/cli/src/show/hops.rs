//! The hosts that a VM was on.

use std::io::{self, Write};

use logchain_core::chain::LogChain;
use logchain_core::offsets::Offsets;
use serde_json::json;

use crate::args::{Format, Show};
use crate::exit::Exit;

pub(super) fn show(args: &Show, chain: &LogChain) -> anyhow::Result<Exit> {
    let offsets = Offsets::of(chain)?;
    let end = offsets.layout(u64::MAX)?.end();
    let hops = offsets.ledger().hops();
    let mut out = io::stdout().lock();
    if hops.is_empty() && args.format == Format::Text {
        let path = chain.path();
        eprintln!(
            "logchain: no migration is recorded beside {}",
            path.display()
        );
    }
    let ends = hops.iter().skip(1).map(|h| h.start).chain([end]);
    for (hop, end) in hops.iter().zip(ends) {
        match args.format {
            Format::Text => {
                let since = hop.since.map_or_else(|| "the beginning".to_owned(), utc);
                let (host, start) = (printable(&hop.host), hop.start);
                writeln!(out, "{host}\tsince {since}\tbytes {start} to {end}")?;
            }
            Format::Json => {
                let hop = json!({
                    "host": hop.host,
                    "since": hop.since,
                    "start": hop.start,
                    "end": end,
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

/// Seconds since 1970 as `2026-08-01 12:00:00 UTC`.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of the year 0, so that a leap day is a year's last.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    #[test]
    fn times() {
        assert_eq!(super::utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(super::utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(super::utc(1_798_761_599), "2026-12-31 23:59:59 UTC");
        assert_eq!(super::utc(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }
}
