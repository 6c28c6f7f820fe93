//! Arguments of the two halves of a handoff: `offer`, `adopt`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use logchain_core::ids::{ConsoleName, HandoffId};
use uuid::Uuid;

use super::values::{console_maybe_path, console_path, name, seconds};
use super::{Connect, DEFAULT_REMOTE, Format, State};

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
