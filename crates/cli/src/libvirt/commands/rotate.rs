//! `logchain rotate`.

use logchain::args::Rotate;
use logchain::exit::Exit;
use logchain_host::Stop;
use logchain_host::rotate::{Options, rotate};

use crate::report::{self, Watch};

pub(super) async fn run(args: Rotate, stop: Stop) -> anyhow::Result<Exit> {
    let events = report::events(args.format, Watch::Terminal);
    let mut options = Options::new(args.domain);
    options.console = args.console;
    options.connect = args.connect.uri;
    options.state = args.state.folder;
    rotate(options, &events, &stop).await?;
    Ok(Exit::Done)
}
