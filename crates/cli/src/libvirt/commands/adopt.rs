//! `logchain adopt`.

use logchain::args::Adopt;
use logchain::exit::Exit;
use logchain_host::Stop;
use logchain_host::adopt::{Heartbeats, Options, adopt};
use logchain_host::hosts::Hosts;

use crate::report::{self, Watch};

pub(super) async fn run(args: Adopt, stop: Stop) -> anyhow::Result<Exit> {
    let events = report::events(args.format, Watch::Terminal);
    let mut options = Options::new(args.domain);
    options.handoff = args.handoff;
    options.consoles = args.console;
    options.connect = args.connect.uri;
    options.state = args.state.folder;
    options.transport = args.transport;
    options.hosts = Hosts {
        source: args.from_host,
        destination: args.to_host,
    };
    options.patience = args.patience;
    let attached = args
        .attached
        .then(|| Box::new(tokio::io::stdin()) as Heartbeats);
    let ended = adopt(options, attached, &events, &stop).await?;
    super::finished(&ended, Exit::Failed)
}
