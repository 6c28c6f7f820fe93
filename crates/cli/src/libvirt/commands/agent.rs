//! `logchain agent`: the daemon, the check of its file, and the calls to a running one.

mod shown;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use logchain::args::{Agent, AgentCall, AgentConfig, AgentSocket, Format};
use logchain::exit::{Ended, Exit};
use logchain::logging;
use logchain_host::Error;
use logchain_host::agent::agent;
use logchain_host::agent::config::{DEFAULT_PATH, Problems, Reloadable};
use logchain_host::agent::control::client;
use tokio::time::{Instant, sleep};

use crate::access;
use crate::report::{self, Watch};
use crate::signals;

/// How often a drain that is waited for is looked at.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(args: Agent) -> anyhow::Result<Exit> {
    match args.call {
        None if args.check => check(&file(args.config)).await,
        None => daemon(&file(args.config), args.format).await,
        Some(AgentCall::Status { socket, format }) => status(&path(socket).await?, format).await,
        Some(AgentCall::Drain { socket, wait }) => drain(&path(socket).await?, wait).await,
        Some(AgentCall::Reload { socket }) => reload(&path(socket).await?).await,
    }
}

fn file(config: AgentConfig) -> PathBuf {
    config.file.unwrap_or_else(|| DEFAULT_PATH.into())
}

/// The socket that is named, or the one that the configuration names.
async fn path(socket: AgentSocket) -> anyhow::Result<PathBuf> {
    match socket.path {
        Some(path) => Ok(path),
        None => access::socket_of(&file(socket.config)).await,
    }
}

async fn open(file: &Path) -> Result<Reloadable, Error> {
    let opened = Reloadable::open(file).await;
    opened.map_err(|problems| Error::Usage(problems.to_string()))
}

async fn check(file: &Path) -> anyhow::Result<Exit> {
    match Reloadable::open(file).await {
        Ok(_) if file.exists() => println!("{} is valid", file.display()),
        Ok(_) => println!("{} does not exist: the defaults hold", file.display()),
        Err(Problems(problems)) => {
            let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
            for problem in &all {
                let _ = writeln!(std::io::stderr(), "{problem}");
            }
            return Ended::told(Exit::Failed, &all);
        }
    }
    Ok(Exit::Done)
}

async fn daemon(file: &Path, format: Format) -> anyhow::Result<Exit> {
    let (stop, reload) = signals::catch_for_daemon()?;
    let config = Arc::new(open(file).await?);
    logging::start_as_configured(&config.current().log_level);
    let events = report::events(format, Watch::Terminal);
    let finished = agent(config, reload, &events, &stop).await?;
    super::finished(&finished, Exit::Failed)
}

async fn status(socket: &Path, format: Format) -> anyhow::Result<Exit> {
    let status = client::status(socket).await?;
    match format {
        Format::Json => println!("{}", serde_json::to_string(&status)?),
        Format::Text => print!("{}", shown::status(&status, Timestamp::now())),
    }
    Ok(Exit::Done)
}

async fn drain(socket: &Path, wait: Option<Duration>) -> anyhow::Result<Exit> {
    let mut left = usize::try_from(client::drain(socket).await?.under_way)?;
    let Some(wait) = wait else {
        println!("the agent begins nothing new; {}", shown::under_way(left));
        return Ok(Exit::Done);
    };
    let end = Instant::now().checked_add(wait);
    while left > 0 {
        if end.is_some_and(|end| Instant::now() >= end) {
            let what = shown::under_way(left);
            let waited = wait.as_secs();
            return Err(Error::Refused(format!("after {waited} s {what}")).into());
        }
        sleep(LOOK).await;
        left = client::status(socket).await?.handoffs.len();
    }
    println!("the agent begins nothing new; {}", shown::under_way(0));
    Ok(Exit::Done)
}

async fn reload(socket: &Path) -> anyhow::Result<Exit> {
    print!("{}", shown::changes(&client::reload(socket).await?));
    Ok(Exit::Done)
}
