//! `logchain agent`.

use logchain::args::Agent;
use logchain::exit::Exit;
use logchain_host::Stop;
use logchain_host::agent::{Meeting, Options, agent};

use crate::report::{self, Watch};

pub(super) async fn run(args: Agent, stop: Stop) -> anyhow::Result<Exit> {
    let events = report::events(args.format, Watch::Terminal);
    let meeting = match args.transport {
        Some(url) => Meeting::Store(url),
        None => Meeting::Ssh {
            user: None,
            port: None,
        },
    };
    let mut options = Options::new(meeting);
    options.connect = args.connect.uri;
    options.state = args.state.folder;
    options.patience = args.patience;
    options.retry = args.retry;
    super::finished(&agent(options, &events, &stop).await?, Exit::Failed)
}
