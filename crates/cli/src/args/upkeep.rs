//! Arguments of the commands that keep a host in order: `reap`, `rotate`, `status`,
//! `transport`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::values::{duration, name};
use super::{Connect, Format, State};

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
    /// Ask the agent, at its usual control socket or at SOCKET. Without this option logchain does
    /// so only if you may not read the state folder yourself and may call the agent.
    #[arg(
        long, value_name = "SOCKET", num_args = 0..=1, require_equals = true,
        conflicts_with_all = ["uri", "folder"]
    )]
    pub agent: Option<Option<PathBuf>>,
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
