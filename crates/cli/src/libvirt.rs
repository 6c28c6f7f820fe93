//! `logchain-libvirt`: the part of `logchain` that needs libvirt. `logchain`
//! becomes this program, with the same arguments, where it is needed.

mod adopt;
mod args;
mod carry;
mod check;
mod domain;
mod ending;
mod exit;
mod far;
mod interrupt;
mod kept;
mod migrate;
mod noted;
mod offer;
mod reap;
mod report;
mod rotate;
mod serve;
mod show;
mod shown;
mod status;
mod stream;
mod verify;

use std::process::ExitCode;

use logchain_host::neighbours;

use crate::args::{Cli, Command, Transport};
use crate::exit::{Exit, Usage};
use crate::interrupt::Interrupt;

fn main() -> ExitCode {
    let cli = args::parse();
    let format = cli.command.format();
    // Every file of every log of a domain is held open.
    logchain_core::folder::allow_descriptors();
    exit::run(async { dispatch(cli).await.map_err(with_status) }, format)
}

/// A mistake in what was asked for has a status of its own, wherever it was found.
fn with_status(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(logchain_host::Error::Usage(sentence)) => Usage(sentence.clone()).into(),
        _ => error,
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Migrate(args) => migrate::run(*args, Interrupt::catch()?).await,
        Command::Show(args) if args.transport.is_some() => shown::run(args).await,
        Command::Show(args) => {
            let subject = domain::subject(&args.log).await?;
            domain::warn_if_hidden(&args.log, &subject).await;
            let work = move || {
                let chain = neighbours::chain(&subject.path, subject.numbering)?;
                show::run(&args, &subject, chain)
            };
            tokio::task::spawn_blocking(work).await?
        }
        Command::Verify(args) => verify::run(args).await,
        Command::Stream(args) => stream::run(args, Interrupt::catch()?).await,
        Command::Offer(args) => offer::run(args, Interrupt::catch()?).await,
        Command::Adopt(args) => adopt::run(args, Interrupt::catch()?).await,
        Command::Reap(args) => reap::run(args, Interrupt::catch()?).await,
        Command::Rotate(args) => rotate::run(args, Interrupt::catch()?).await,
        Command::Status(args) => status::run(args).await,
        Command::Transport(Transport::Serve { spool }) => serve::run(&spool).await,
        Command::Transport(Transport::Check {
            remote_logchain,
            format,
            url,
        }) => check::run(&url, remote_logchain.as_deref(), format).await,
    }
}
