//! Arguments of `agent`: the daemon, and the calls to a running one.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Format;
use super::values::duration;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Agent {
    #[command(flatten)]
    pub config: AgentConfig,
    /// Only check the configuration file, and print everything that is wrong with it.
    #[arg(long)]
    pub check: bool,
    /// Print what the daemon tells as sentences, or as one JSON object a line.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    #[command(subcommand)]
    pub call: Option<AgentCall>,
}

#[derive(Debug, Args)]
pub struct AgentConfig {
    /// Configuration file of the agent [default: /etc/logchain/agent.toml].
    #[arg(long = "config", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum AgentCall {
    /// Print what the running agent does.
    Status {
        #[command(flatten)]
        socket: AgentSocket,
        /// Print sentences, or one JSON object.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Make the running agent begin nothing new and finish what is under way.
    Drain {
        #[command(flatten)]
        socket: AgentSocket,
        /// Wait until nothing is under way, at most for this time: 90, 90s, 5m, 1h.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Make the running agent load its configuration file anew.
    Reload {
        #[command(flatten)]
        socket: AgentSocket,
    },
}

#[derive(Debug, Args)]
pub struct AgentSocket {
    /// Control socket of the agent [default: control.socket of the configuration file].
    #[arg(long = "socket", value_name = "PATH", conflicts_with = "file")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub config: AgentConfig,
}
