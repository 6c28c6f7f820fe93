//! The command line: virsh's names where virsh has one.

pub mod migrate;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use logchain_core::chain::NumberingChoice;
use logchain_core::ids::{ConsoleName, HandoffId};
use tracing_subscriber::filter::Targets;
use uuid::Uuid;

pub use migrate::Migrate;

use crate::{exit, logging};

/// What `show` gives unless told otherwise: as much as Nova's console output.
pub const DEFAULT_BYTES: u64 = 100 * 1024;

/// What logchain is called at the destination unless told otherwise.
pub const DEFAULT_REMOTE: &str = "logchain";

/// Where a host's state lies unless told otherwise.
pub const STATE: &str = "/var/lib/logchain";

const EXIT_CODES: &str = "\
Exit status:
  0  done
  1  failed, or `verify` found something wrong; `migrate`: the guest did not migrate
  2  bad usage; nothing was done
  3  the guest migrated, but its log was not (fully) carried

With status 1 a part may be done: the other logs or domains of the same command.";

#[derive(Debug, Parser)]
#[command(name = "logchain", version, about, after_help = EXIT_CODES, propagate_version = true)]
/// Make a VM's serial-console log follow the VM through libvirt live migration.
pub struct Cli {
    /// Log what the parts of the program do, for whoever looks for a fault: error, warn, info,
    /// debug or trace, or by part, for example info,logchain_core=debug. The log goes to standard
    /// error, or to the journal if systemd started the program.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "LOGCHAIN_LOG",
        default_value = "warn"
    )]
    pub log_level: Targets,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Migrate a domain as `virsh migrate` does, and its console logs with it.
    Migrate(Box<Migrate>),
    /// Print a console log and its rotated files as one.
    Show(Show),
    /// Check whether a console log and its rotated files are whole.
    Verify(Verify),
    /// Copy a console log into a transport as it grows, so that it can be read there when the
    /// host or the VM is gone.
    Stream(Stream),
    /// Hand over the log of a domain that has left this host (the source's half).
    Offer(Offer),
    /// Take in the log of a domain that has come to this host (the destination's half).
    Adopt(Adopt),
    /// Undefine domains that left this host, once their new place is confirmed, and remove the
    /// log files that they handed over.
    Reap(Reap),
    /// Rotate the log of a running domain now, the way virtlogd does it.
    Rotate(Rotate),
    /// List every handoff on this host: its state, what it waits for, and what to do.
    Status(Status),
    /// Check a transport, or serve a spool folder to the other host.
    #[command(subcommand)]
    Transport(Transport),
}

#[derive(Clone, Debug, Args)]
pub struct Connect {
    /// URI of the hypervisor to connect to [default: libvirt's own].
    #[arg(short = 'c', long = "connect", value_name = "URI")]
    pub uri: Option<String>,
}

/// Where this host's state lies.
#[derive(Clone, Debug, Args)]
pub struct State {
    /// Folder in which logchain keeps this host's state.
    #[arg(
        long = "state",
        value_name = "FOLDER",
        default_value = STATE,
        env = "LOGCHAIN_STATE"
    )]
    pub folder: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct Carry {
    /// Where to put the pieces of the log: ssh://user@host:port/spool, file:///folder, or an
    /// object store: s3://bucket/prefix, gs://, az://.
    #[arg(long, value_name = "URL", env = "LOGCHAIN_TRANSPORT")]
    pub transport: Option<String>,

    /// Name or path of the logchain program that ssh starts at the destination.
    #[arg(
        long,
        value_name = "PROGRAM",
        default_value = DEFAULT_REMOTE,
        env = "LOGCHAIN_REMOTE"
    )]
    pub remote_logchain: String,

    /// Leave the log behind after this many seconds without progress.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub patience: Duration,
}

/// Which log.
#[derive(Debug, Args)]
pub struct Which {
    #[command(flatten)]
    pub connect: Connect,
    /// Whether the newest rotated file has the number 0 or 1.
    #[arg(long, value_name = "auto|from-zero|from-one", default_value = "auto")]
    pub numbering: NumberingChoice,
    /// Console of the domain, for example serial0 [default: the first one].
    #[arg(long, value_name = "NAME")]
    pub console: Option<String>,
    /// Domain name or UUID, or path of a console log. A name with a slash is a path. A name
    /// without one is a path only if libvirt knows no such domain and the file exists.
    #[arg(value_name = "DOMAIN|PATH", value_parser = name)]
    pub what: String,
}

#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    pub log: Which,
    /// Print this many bytes from the end: 4096, 100K or 1MiB (1024), 1KB (1000), or all
    /// [default: 100K].
    #[arg(short = 'n', long = "bytes", value_name = "BYTES|all", value_parser = amount, conflicts_with = "lines")]
    pub bytes: Option<Amount>,
    /// Print this many lines from the end.
    #[arg(long, value_name = "N")]
    pub lines: Option<u64>,
    /// Print from this offset in the VM's stream on, at most as many bytes as -n says.
    #[arg(long, value_name = "OFFSET", value_parser = size, conflicts_with = "lines")]
    pub from: Option<u64>,
    /// Keep printing as the log grows, over rollovers and migrations, until interrupted.
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Read what `logchain stream` put into this transport instead of this host's files. DOMAIN
    /// is then a UUID, or a name that is known here or there.
    #[arg(long, value_name = "URL", conflicts_with = "hops")]
    pub transport: Option<String>,
    /// Print the hosts that the VM was on instead of its log.
    #[arg(long, conflicts_with_all = ["bytes", "lines", "from", "follow", "raw"])]
    pub hops: bool,
    /// Print the guest's bytes unchanged on a terminal too, where they are escaped otherwise.
    #[arg(long)]
    pub raw: bool,
    /// Print plain text, or one JSON object; with --follow, one object a line.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    pub log: Which,
    /// Repair what can be repaired: finish or undo an interrupted handoff, close gaps in the
    /// numbers, set a damaged record aside.
    #[arg(long)]
    pub repair: bool,
    /// Print sentences, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Stream {
    #[command(flatten)]
    pub log: Which,
    /// Where to put the log: s3://bucket/prefix, gs://, az://, file:///folder, or
    /// ssh://user@host:port/spool.
    #[arg(long, value_name = "URL", env = "LOGCHAIN_TRANSPORT")]
    pub transport: String,
    /// Name or path of the logchain program on the spool's host (ssh only).
    #[arg(long, value_name = "PROGRAM", env = "LOGCHAIN_REMOTE")]
    pub remote_logchain: Option<String>,
    /// Put each byte after this many seconds at the latest.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub delay: Duration,
    /// How much of the log to keep there: 500M, 1GiB (1024 MiB), 1GB (1000 MB), or all.
    #[arg(long, value_name = "BYTES|all", default_value = "1G", value_parser = amount)]
    pub keep: Amount,
    /// Stay when the domain leaves this host, and wait for it while it is not here.
    #[arg(long)]
    pub wait: bool,
    /// Put what the log has now, and exit.
    #[arg(long, conflicts_with = "wait")]
    pub once: bool,
    /// If the history has not come here with the VM, leave a gap instead of waiting for it.
    #[arg(long)]
    pub leave_gap: bool,
    /// UUID of the domain, if PATH is given and logchain has no record of its domain.
    #[arg(long, value_name = "UUID")]
    pub uuid: Option<Uuid>,
    /// Print what happens as sentences, or as one JSON object a line.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Offer {
    #[command(flatten)]
    pub connect: Connect,
    #[command(flatten)]
    pub carry: Carry,
    #[command(flatten)]
    pub state: State,
    /// A console and the path of its log, for a domain that libvirt here no longer knows.
    #[arg(long = "console", value_name = "NAME=PATH", value_parser = console_path)]
    pub consoles: Vec<(ConsoleName, PathBuf)>,
    /// Print what happens as sentences, or as one JSON object a line.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Domain name or UUID.
    #[arg(value_parser = name)]
    pub domain: String,
}

#[derive(Debug, Args)]
pub struct Adopt {
    #[command(flatten)]
    pub connect: Connect,
    #[command(flatten)]
    pub state: State,
    /// Where the pieces of the log are: file:///folder, ssh://user@host:port/spool, or an
    /// object store: s3://bucket/prefix, gs://, az://.
    #[arg(long, value_name = "URL", env = "LOGCHAIN_TRANSPORT")]
    pub transport: Option<String>,
    /// Take in this handoff only [default: every handoff that waits for the domain].
    #[arg(long, value_name = "ID", requires = "console")]
    pub handoff: Option<HandoffId>,
    /// A console of that handoff, and the path where its log will be once the domain is here.
    #[arg(
        long = "console",
        value_name = "NAME[=PATH]",
        value_parser = console_maybe_path,
        requires = "handoff"
    )]
    pub console: Vec<(ConsoleName, Option<PathBuf>)>,
    /// Host UUID that libvirt reports at the source (`virsh capabilities`): refuse to run there.
    #[arg(long, value_name = "UUID")]
    pub from_host: Option<Uuid>,
    /// Host UUID that libvirt reports at the destination: refuse to run on any other host.
    #[arg(long, value_name = "UUID")]
    pub to_host: Option<Uuid>,
    /// Exit when standard input closes or its heartbeats stop.
    #[arg(long)]
    pub attached: bool,
    /// Give up after this many seconds without news.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub patience: Duration,
    /// Print what happens as sentences, or as one JSON object a line.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// UUID of the domain; its name is enough once the domain is on this host.
    #[arg(value_parser = name)]
    pub domain: String,
}

/// What to do with the files of a log that was handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Files {
    /// Leave them where they are.
    Keep,
    /// Remove those that the destination has unchanged.
    #[default]
    Remove,
}

#[derive(Debug, Args)]
pub struct Reap {
    #[command(flatten)]
    pub connect: Connect,
    #[command(flatten)]
    pub state: State,
    /// Stay, and look again after this time: 90, 90s, 5m, 1h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub every: Option<Duration>,
    /// Only print what would be done, and why.
    #[arg(long)]
    pub dry_run: bool,
    /// What to do with log files that the destination has.
    #[arg(long, value_enum, default_value_t)]
    pub files: Files,
    /// Ask this program instead of the destination's libvirt: status 0 confirms the domain's
    /// new place. Its environment has LOGCHAIN_DOMAIN_UUID, LOGCHAIN_DOMAIN_NAME,
    /// LOGCHAIN_HOST and LOGCHAIN_DESTINATION.
    #[arg(
        long,
        value_name = "PROGRAM",
        env = "LOGCHAIN_PLACEMENT_COMMAND",
        conflicts_with = "placement_url"
    )]
    pub placement_command: Option<PathBuf>,
    /// Ask this URL instead of the destination's libvirt: the answer 200 confirms the domain's
    /// new place. {uuid}, {name} and {host} in it are replaced.
    #[arg(long, value_name = "URL", env = "LOGCHAIN_PLACEMENT_URL")]
    pub placement_url: Option<String>,
    /// Print sentences, or one JSON object for each domain.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Rotate {
    #[command(flatten)]
    pub connect: Connect,
    #[command(flatten)]
    pub state: State,
    /// Console of the domain, for example serial0 [default: the first one].
    #[arg(long, value_name = "NAME")]
    pub console: Option<String>,
    /// Print sentences, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Domain name or UUID.
    #[arg(value_parser = name)]
    pub domain: String,
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub connect: Connect,
    #[command(flatten)]
    pub state: State,
    /// Print sentences, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Subcommand)]
pub enum Transport {
    /// Check whether a transport works from here: rights, create-only puts, speed. Everything
    /// that the check puts there is removed again.
    Check {
        /// Name or path of the logchain program on the spool's host (ssh only).
        #[arg(long, value_name = "PROGRAM", env = "LOGCHAIN_REMOTE")]
        remote_logchain: Option<String>,
        /// Print sentences, or one JSON object for each step.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// URL of the transport, as for --transport of migrate.
        url: String,
    },
    /// Serve the folder SPOOL to another logchain over standard input and output.
    Serve {
        /// The spool folder; created with mode 0700 if it does not exist.
        spool: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How much to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Bytes(u64),
    All,
}

impl Command {
    /// What its failures are told in.
    pub fn format(&self) -> Format {
        match self {
            Self::Migrate(args) => args.format,
            Self::Verify(args) => args.format,
            Self::Stream(args) => args.format,
            Self::Offer(args) => args.format,
            Self::Adopt(args) => args.format,
            Self::Reap(args) => args.format,
            Self::Rotate(args) => args.format,
            Self::Status(args) => args.format,
            // Its JSON is a log, which an error is not.
            Self::Show(_) | Self::Transport(Transport::Serve { .. }) => Format::Text,
            Self::Transport(Transport::Check { format, .. }) => *format,
        }
    }
}

/// Reads the command line and starts logging; ends the process on bad usage and on --help.
pub fn parse() -> Command {
    let cli = Cli::try_parse().unwrap_or_else(|e| {
        let words: Vec<_> = std::env::args_os().skip(1).collect();
        if e.use_stderr() && wants_events(&words) {
            exit::tell_programs(&reason(&e.to_string()));
        }
        e.exit()
    });
    logging::start(cli.log_level);
    cli.command
}

/// Whether a command line that could not be read asks for JSON of a command that
/// tells events.
fn wants_events(words: &[OsString]) -> bool {
    let tells = words
        .iter()
        .find(|w| !w.as_encoded_bytes().starts_with(b"-"));
    let known = ["migrate", "offer", "adopt", "reap", "rotate", "stream"];
    let tells = tells.is_some_and(|w| known.iter().any(|known| w == known));
    let asks = |pair: &[OsString]| {
        pair.iter()
            .map(OsString::as_os_str)
            .eq(["--format", "json"])
    };
    tells && (words.windows(2).any(asks) || words.iter().any(|w| w == "--format=json"))
}

/// The first paragraph of what is said to people.
fn reason(said: &str) -> String {
    let lines = said.lines().map(str::trim).take_while(|l| !l.is_empty());
    let reason = lines.collect::<Vec<_>>().join(" ");
    reason.strip_prefix("error: ").unwrap_or(&reason).to_owned()
}

/// libvirt takes an empty name for one that is not there.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the name is empty".to_owned());
    }
    Ok(text.to_owned())
}

/// A size, or all there is.
fn amount(text: &str) -> Result<Amount, String> {
    if text == "all" {
        return Ok(Amount::All);
    }
    size(text)
        .map(Amount::Bytes)
        .map_err(|why| format!("{why}, or all"))
}

/// The one reader of sizes, with virsh's suffixes: K and KiB are 1024 bytes, KB is 1000.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, suffix) = text.split_at(end.unwrap_or(text.len()));
    let suffix = suffix.trim_start().to_ascii_lowercase();
    let (unit, base) = match suffix.as_str() {
        "" | "b" | "byte" | "bytes" => ("", 1_u64),
        other => match other.strip_suffix("ib") {
            Some(unit) => (unit, 1024),
            None => match other.strip_suffix('b') {
                Some(unit) => (unit, 1000),
                None => (other, 1024),
            },
        },
    };
    let power = ["", "k", "m", "g", "t", "p"]
        .iter()
        .position(|u| *u == unit);
    let factor = power.and_then(|power| base.checked_pow(u32::try_from(power).ok()?));
    let number = digits.parse::<u64>().ok();
    let bytes = number
        .zip(factor.filter(|_| (base == 1) == unit.is_empty()))
        .and_then(|(number, factor)| number.checked_mul(factor));
    bytes.ok_or_else(|| "give a number of bytes, as 4096, 100K or 1MiB".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.ok_or_else(|| "give a number of seconds".to_owned())
}

/// At least a second: whoever is asked more often is asked all the time.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400)];
    let found = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (number, unit) = found.unwrap_or((text, 1));
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .filter(|seconds| (1..=366 * 86400).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "give a duration, as 90, 90s, 5m or 1h".to_owned())
}

fn console_path(text: &str) -> Result<(ConsoleName, PathBuf), String> {
    match console_maybe_path(text)? {
        (name, Some(path)) => Ok((name, path)),
        _ => Err("give it as serial0=/path/of/console.log".to_owned()),
    }
}

fn console_maybe_path(text: &str) -> Result<(ConsoleName, Option<PathBuf>), String> {
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
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_broken_command_line_may_still_ask_for_events() {
        for line in [
            "migrate --format json vm",
            "offer --format=json",
            "adopt vm --format json --nonsense",
            "reap --every never --format json",
        ] {
            assert!(wants_events(&words(line)), "{line}");
        }
        for line in [
            "migrate vm",
            "migrate --format text vm",
            "show --format json",
            "--format json",
            "migrate json --format",
        ] {
            assert!(!wants_events(&words(line)), "{line}");
        }
    }

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
