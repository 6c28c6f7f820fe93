//! `logchain migrate`.

use std::time::Duration;

use logchain::args::Migrate;
use logchain::exit::Exit;
use logchain_host::Stop;
use logchain_host::migrate::{Options, migrate};

use super::request::{self, Route};
use crate::report::{self, Watch};

pub(super) async fn run(args: Migrate, stop: Stop) -> anyhow::Result<Exit> {
    let watch = if args.verbose {
        Watch::Verbose
    } else {
        Watch::Plain
    };
    let events = report::events(args.format, watch);
    let route = Route::of(&args)?;
    let request = request::of(&args, &route).await?;
    let mut options = Options::new(route.domain, request);
    options.connect = args.connect.uri;
    options.state = args.state.folder;
    options.transport = args.carry.transport;
    options.remote_logchain = Some(args.carry.remote_logchain);
    options.patience = args.carry.patience;
    options.head_start = args.head_start;
    options.undefine_when_carried = args.undefine_when_carried;
    options.timeout = args.timeout.after.map(Duration::from_secs);
    options.postcopy_at_timeout = args.timeout.postcopy_then;
    options.postcopy_after_precopy = args.way.postcopy_after_precopy;
    super::finished(&migrate(options, &events, &stop).await?, Exit::NotCarried)
}
