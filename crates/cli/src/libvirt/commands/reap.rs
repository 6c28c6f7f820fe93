//! `logchain reap`.

use logchain::args::{self, Reap};
use logchain::exit::Exit;
use logchain_host::Stop;
use logchain_host::reap::{Files, Options, reap};

use crate::report::{self, Watch};

pub(super) async fn run(args: Reap, stop: Stop) -> anyhow::Result<Exit> {
    let events = report::events(args.format, Watch::Terminal);
    let mut options = Options::default();
    options.connect = args.connect.uri;
    options.state = args.state.folder;
    options.every = args.every;
    options.dry_run = args.dry_run;
    options.files = match args.files {
        args::Files::Keep => Files::Keep,
        args::Files::Remove => Files::Remove,
    };
    options.placement_command = args.placement_command;
    options.placement_url = args.placement_url;
    super::finished(&reap(options, &events, &stop).await?, Exit::Failed)
}
