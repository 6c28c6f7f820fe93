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
mod host;
mod hosts;
mod interrupt;
mod kept;
mod limits;
mod migrate;
mod neighbours;
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
mod transports;
mod verify;
mod written;

use std::process::ExitCode;

use crate::args::{Cli, Command, Transport};
use crate::exit::Exit;
use crate::interrupt::Interrupt;

fn main() -> ExitCode {
    let cli = args::parse();
    let format = cli.command.format();
    // Every file of every log of a domain is held open.
    logchain_core::folder::allow_descriptors();
    exit::run(dispatch(cli), format)
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
