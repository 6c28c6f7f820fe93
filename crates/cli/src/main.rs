//! `logchain`: make a VM's serial-console log follow the VM through live migration.
//!
//! The program that is called. It does what needs no libvirt itself, and for
//! all else becomes `logchain-libvirt` beside it: loading libvirt and the forty
//! libraries it brings takes ten times as long as showing a log.
//!
//! Must not know: libvirt. Not even linked: its crate is named only in `libvirt.rs`.

mod args;
mod definitions;
#[expect(dead_code, reason = "some statuses only logchain-libvirt ends with")]
mod exit;
mod serve;
mod show;
mod sibling;

use std::process::ExitCode;

use logchain_core::chain::LogChain;

use crate::args::{Command, Transport};
use crate::show::Subject;

fn main() -> ExitCode {
    let cli = args::parse();
    let format = cli.command.format();
    match cli.command {
        // Transports are known there alone.
        Command::Show(args) if args.transport.is_some() => {
            exit::status(Err(sibling::become_it()), format)
        }
        Command::Show(args) => match Subject::of_path(&args.log) {
            // Without a runtime, whose threads take as long to start as this takes.
            Ok(Some(subject)) => exit::status(show(&args, &subject), format),
            Ok(None) => match Subject::of_file(&args.log).filter(|_| sibling::is_missing()) {
                Some(subject) => exit::status(show(&args, &subject), format),
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
        | Command::Transport(Transport::Check { .. }) => {
            exit::status(Err(sibling::become_it()), format)
        }
    }
}

fn show(args: &args::Show, subject: &Subject) -> anyhow::Result<exit::Exit> {
    let chain = LogChain::open(&subject.path, subject.numbering)?;
    let known = definitions::ownership(&chain);
    show::run(args, subject, chain.owned(known)?)
}
