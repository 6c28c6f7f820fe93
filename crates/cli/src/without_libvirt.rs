//! The program `logchain`: it does what needs no libvirt itself, and for all else becomes
//! `logchain-libvirt` beside it. Loading libvirt and the forty libraries that it brings takes
//! ten times as long as showing a log.

use std::process::ExitCode;

use logchain_core::chain::LogChain;

use crate::args::{self, Command, Transport};
use crate::show::{self, Subject};
use crate::{definitions, exit, serve, sibling};

/// Runs the command that the process was given.
#[must_use]
pub fn main() -> ExitCode {
    let command = args::parse();
    let format = command.format();
    match command {
        // Transports and the agent are known there alone.
        Command::Show(args) if args.transport.is_some() || args.agent.is_some() => {
            exit::status(Err(sibling::become_it()), format)
        }
        Command::Show(args) => match Subject::of_path(&args.log) {
            // Without a runtime, whose threads take as long to start as this takes.
            Ok(Some(subject)) => exit::status(shown(&args, &subject), format),
            Ok(None) => match Subject::of_file(&args.log).filter(|_| sibling::is_missing()) {
                Some(subject) => exit::status(shown(&args, &subject), format),
                None => exit::status(Err(sibling::become_it()), format),
            },
            Err(e) => exit::status(Err(e.into()), format),
        },
        Command::Transport(Transport::Serve { spool }) => exit::run(serve::run(&spool), format),
        Command::Migrate(_)
        | Command::Verify(_)
        | Command::Stream(_)
        | Command::Offer(_)
        | Command::Adopt(_)
        | Command::Reap(_)
        | Command::Rotate(_)
        | Command::Status(_)
        | Command::Agent(_)
        | Command::Transport(Transport::Check { .. }) => {
            exit::status(Err(sibling::become_it()), format)
        }
    }
}

fn shown(args: &args::Show, subject: &Subject) -> anyhow::Result<exit::Exit> {
    let chain = LogChain::open(&subject.path, subject.numbering)?;
    let known = definitions::ownership(&chain);
    show::run(args, subject, chain.owned(known)?)
}
