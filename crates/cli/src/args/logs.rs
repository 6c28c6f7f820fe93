//! Arguments of the commands that read a log: `show`, `verify`, `stream`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use logchain_core::chain::NumberingChoice;
use uuid::Uuid;

use super::values::{amount, name, seconds, size};
use super::{Amount, Connect, Format};

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
    /// Read the log through the agent, at its usual control socket or at SOCKET. Without this
    /// option logchain does so only if you may not read the log or ask libvirt yourself and may
    /// call the agent.
    #[arg(
        long, value_name = "SOCKET", num_args = 0..=1, require_equals = true,
        conflicts_with_all = ["uri", "numbering", "transport"]
    )]
    pub agent: Option<Option<PathBuf>>,
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
    /// Print what one boot of the VM printed: 0 is the present boot, -1 the one before it. The
    /// logs of earlier boots are there where the agent keeps them (`keep_boots`).
    #[arg(
        long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(..=0),
        conflicts_with_all = ["from", "hops", "transport"]
    )]
    pub boot: Option<i64>,
    /// Print which boots' logs are there instead of the log.
    #[arg(long, conflicts_with_all = ["bytes", "lines", "from", "follow", "raw", "boot", "hops", "transport"])]
    pub list_boots: bool,
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
