//! The command line: virsh's names where virsh has one.

pub mod agent;
pub mod handoffs;
pub mod logs;
pub mod migrate;
pub mod upkeep;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use logchain_core::departure::DEFAULT_STATE;
use tracing_subscriber::filter::Targets;

pub use agent::{Agent, AgentCall, AgentConfig, AgentSocket};
pub use handoffs::{Adopt, Carry, Offer};
pub use logs::{Show, Stream, Verify, Which};
pub use migrate::Migrate;
pub use upkeep::{Files, Reap, Rotate, Status, Transport};

use crate::{exit, logging};

/// What `show` gives unless told otherwise: as much as Nova's console output.
pub const DEFAULT_BYTES: u64 = 100 * 1024;

/// What logchain is called at the destination unless told otherwise.
pub const DEFAULT_REMOTE: &str = "logchain";

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
    /// error, or to the journal if systemd started the program [default: warn in the journal,
    /// else nothing].
    #[arg(long, global = true, value_name = "LEVEL", env = "LOGCHAIN_LOG")]
    pub log_level: Option<Targets>,
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
    /// Run the agent, which hands logs over whoever starts a migration; or ask a running one.
    Agent(Agent),
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
        default_value = DEFAULT_STATE,
        env = "LOGCHAIN_STATE"
    )]
    pub folder: PathBuf,
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
    /// Whether it stays, and has a configuration file.
    fn is_daemon(&self) -> bool {
        matches!(self, Self::Agent(args) if args.call.is_none() && !args.check)
    }

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
            Self::Agent(args) => match args.call {
                Some(AgentCall::Status { format, .. }) => format,
                _ => args.format,
            },
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
    // The agent's configuration says what the daemon logs, unless this does.
    if cli.log_level.is_some() || !cli.command.is_daemon() {
        logging::start(cli.log_level);
    }
    cli.command
}

/// Whether a command line that could not be read asks for JSON of a command that
/// tells events.
fn wants_events(words: &[OsString]) -> bool {
    let tells = words
        .iter()
        .find(|w| !w.as_encoded_bytes().starts_with(b"-"));
    let known = [
        "migrate", "offer", "adopt", "reap", "rotate", "stream", "agent",
    ];
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
}
