//! Each command: its arguments become the options of a job, what the job tells is shown, and
//! how it ends becomes the exit status.
//!
//! Must not know: how a job is done. Commands do not know each other.

mod adopt;
mod agent;
mod check;
mod migrate;
mod offer;
mod reap;
mod request;
mod rotate;
mod show;
mod show_agent;
mod show_stream;
mod status;
mod stream;
mod verify;

use logchain::args::{Command, Transport};
use logchain::exit::{Ended, Exit, Usage};
use logchain::serve;
use logchain_host::{Error, Finished};

use crate::report;
use crate::signals;

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> anyhow::Result<Exit> {
    let ended = match command {
        Command::Migrate(args) => migrate::run(*args, signals::catch()?).await,
        Command::Show(args) if args.transport.is_some() => show_stream::run(args).await,
        Command::Show(args) => show::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Stream(args) => stream::run(args, signals::catch()?).await,
        Command::Offer(args) => offer::run(args, signals::catch()?).await,
        Command::Adopt(args) => adopt::run(args, signals::catch()?).await,
        Command::Reap(args) => reap::run(args, signals::catch()?).await,
        Command::Rotate(args) => rotate::run(args, signals::catch()?).await,
        Command::Status(args) => status::run(args).await,
        Command::Agent(args) => agent::run(args).await,
        Command::Transport(Transport::Serve { spool }) => serve::run(&spool).await,
        Command::Transport(Transport::Check {
            remote_logchain,
            format,
            url,
        }) => check::run(&url, remote_logchain.as_deref(), format).await,
    };
    ended.map_err(with_status)
}

/// Some failures have a status of their own, wherever they were found.
fn with_status(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(Error::Usage(sentence)) => Usage(sentence.clone()).into(),
        Some(Error::NotCarried(sentence)) => Ended {
            exit: Exit::NotCarried,
            reason: sentence.clone(),
            told: false,
        }
        .into(),
        _ => error,
    }
}

/// Done, or `otherwise` where parts of the job failed. People have heard of these.
fn finished(job: &Finished, otherwise: Exit) -> anyhow::Result<Exit> {
    let sentences: Vec<String> = job.failures.iter().map(report::sentence).collect();
    Ended::told(otherwise, &sentences)
}
