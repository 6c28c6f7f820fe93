//! `logchain offer`.

use logchain::args::Offer;
use logchain::exit::Exit;
use logchain_host::Stop;
use logchain_host::offer::{Options, offer};

use crate::report::{self, Watch};

pub(super) async fn run(args: Offer, stop: Stop) -> anyhow::Result<Exit> {
    let events = report::events(args.format, Watch::Plain);
    let mut options = Options::new(args.domain);
    options.consoles = args.consoles;
    options.connect = args.connect.uri;
    options.state = args.state.folder;
    options.transport = args.carry.transport;
    options.remote_logchain = Some(args.carry.remote_logchain);
    options.patience = args.carry.patience;
    super::finished(&offer(options, &events, &stop).await?, Exit::Failed)
}
