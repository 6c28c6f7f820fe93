//! Values of options, read from text: sizes, times, names, paths.

use std::path::PathBuf;
use std::time::Duration;

use logchain_core::ids::ConsoleName;
use logchain_core::quantity;

use super::Amount;

/// libvirt takes an empty name for one that is not there.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the name is empty".to_owned());
    }
    Ok(text.to_owned())
}

/// A size, or all there is.
pub(super) fn amount(text: &str) -> Result<Amount, String> {
    if text == "all" {
        return Ok(Amount::All);
    }
    size(text)
        .map(Amount::Bytes)
        .map_err(|why| format!("{why}, or all"))
}

/// A number of bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    quantity::size(text).map_err(str::to_owned)
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.ok_or_else(|| "give a number of seconds".to_owned())
}

/// A time of at least a second.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    quantity::duration(text).map_err(str::to_owned)
}

pub(super) fn console_path(text: &str) -> Result<(ConsoleName, PathBuf), String> {
    match console_maybe_path(text)? {
        (name, Some(path)) => Ok((name, path)),
        _ => Err("give it as serial0=/path/of/console.log".to_owned()),
    }
}

pub(super) fn console_maybe_path(text: &str) -> Result<(ConsoleName, Option<PathBuf>), String> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) => (name, Some(PathBuf::from(path))),
        None => (text, None),
    };
    if path.as_ref().is_some_and(|p| !p.is_absolute()) {
        return Err(
            "give the log's path from the root, as serial0=/path/of/console.log".to_owned(),
        );
    }
    let name = name.parse::<ConsoleName>().map_err(|e| e.to_string())?;
    Ok((name, path))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command, reason};
    use super::*;

    #[test]
    fn sizes_are_read_as_virsh_reads_them() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("7b", Some(7)),
            ("7 bytes", Some(7)),
            ("1k", Some(1 << 10)),
            ("1K", Some(1 << 10)),
            ("1KiB", Some(1 << 10)),
            ("1kib", Some(1 << 10)),
            ("1KB", Some(1000)),
            ("2MiB", Some(2 << 20)),
            ("2 MiB", Some(2 << 20)),
            ("2MB", Some(2_000_000)),
            ("3G", Some(3 << 30)),
            ("1TiB", Some(1 << 40)),
            ("", None),
            ("K", None),
            ("iB", None),
            ("1iB", None),
            ("1Kib2", None),
            ("1X", None),
            ("-1", None),
            ("1.5M", None),
            ("99999999999999999999", None),
            ("99999999999P", None),
            ("many", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text:?}");
            assert_eq!(amount(text).ok(), bytes.map(Amount::Bytes), "{text:?}");
        }
        assert_eq!(amount("all"), Ok(Amount::All));
        let words = ["logchain", "show", "-n", "1.5M", "x"];
        let said = reason(&Cli::try_parse_from(words).unwrap_err().to_string());
        assert!(said.ends_with("as 4096, 100K or 1MiB, or all"), "{said}");
        let keep = [
            "logchain",
            "stream",
            "--transport",
            "file:///f",
            "--keep",
            "1GiB",
            "x",
        ];
        assert!(Cli::try_parse_from(keep).is_ok());
        let cache = [
            "logchain",
            "migrate",
            "--comp-xbzrle-cache",
            "64MiB",
            "x",
            "y",
        ];
        let Command::Migrate(args) = Cli::try_parse_from(cache).unwrap().command else {
            panic!("another command");
        };
        assert_eq!(args.memory.comp_xbzrle_cache, Some(64 << 20));
    }

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("5m", Some(300)),
            ("1h", Some(3600)),
            ("1d", Some(86400)),
            ("0", None),
            ("", None),
            ("m", None),
            ("-1s", None),
            ("1.5m", None),
            ("99999999999999999999h", None),
            ("9999999d", None),
        ] {
            let want = seconds.map(Duration::from_secs);
            assert_eq!(duration(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn an_empty_name_is_said_to_be_empty() {
        for line in ["migrate", "offer", "adopt", "show"] {
            let rest = if line == "migrate" { &["x"][..] } else { &[] };
            let words = [&["logchain", line, ""][..], rest].concat();
            let said = Cli::try_parse_from(words).unwrap_err().to_string();
            let said = reason(&said);
            assert!(said.ends_with("the name is empty"), "{said}");
            assert!(said.starts_with("invalid value"), "{said}");
        }
    }
}
