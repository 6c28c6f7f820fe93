//! `logchain transport check`.

use logchain::args::Format;
use logchain::exit::Exit;
use logchain_host::check::check_transport;

use crate::report::{self, Watch};

pub(super) async fn run(url: &str, remote: Option<&str>, format: Format) -> anyhow::Result<Exit> {
    let events = report::events(format, Watch::Terminal);
    Ok(match check_transport(url, remote, &events).await? {
        true => Exit::Done,
        false => Exit::Failed,
    })
}
