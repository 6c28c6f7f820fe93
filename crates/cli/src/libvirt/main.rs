//! `logchain-libvirt`: the part of `logchain` that needs libvirt. `logchain` becomes this
//! program, with the same arguments, where it is needed.
//!
//! - `commands`: from the arguments of each command to the job of `logchain-host` that does it.
//! - `report`: shows what a job tells. `signals`: passes them on to the job.
//! - `access`: whether a command reads this host itself or asks the agent.
//! - `subject`: which log a domain's name stands for.

mod access;
mod commands;
mod report;
mod signals;
mod subject;

use std::process::ExitCode;

use logchain::{args, exit};

fn main() -> ExitCode {
    let command = args::parse();
    let format = command.format();
    // Every file of every log of a domain is held open.
    logchain_core::folder::allow_descriptors();
    exit::run(commands::run(command), format)
}
