//! `logchain status`.

use jiff::Timestamp;
use logchain::args::{Format, Status as Args};
use logchain::exit::Exit;
use logchain_core::ids::ConsoleName;
use logchain_core::standing::Standing;
use logchain_host::consoles::own_name;
use logchain_host::status::{Options, Status, status};
use serde_json::json;

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let mut options = Options::default();
    options.connect = args.connect.uri;
    options.state = args.state.folder;
    show(&status(&options).await, args.format);
    Ok(Exit::Done)
}

fn show(status: &Status, format: Format) {
    let under_way = status.under_way();
    if let Format::Json = format {
        let all: Vec<_> = status.handoffs.iter().map(described).collect();
        let all = json!({
            "host": own_name(),
            "under_way": under_way,
            "handoffs": all,
            "warnings": status.warnings,
        });
        println!("{all}");
        return;
    }
    for standing in &status.handoffs {
        println!("{}", standing.sentence(status.at));
    }
    for warning in &status.warnings {
        eprintln!("logchain: {warning}");
    }
    if under_way == 0 && status.warnings.is_empty() {
        println!("nothing is under way on this host");
    }
}

fn described(standing: &Standing) -> serde_json::Value {
    json!({
        "state": standing.state.as_str(),
        "over": standing.state.is_over(),
        "domain": standing.name,
        "uuid": standing.domain.to_string(),
        "console": standing.console.as_ref().map(ConsoleName::as_str),
        "handoff": standing.handoff.map(|h| h.to_string()),
        "bytes": standing.bytes,
        "peer": standing.peer,
        "since": standing.since.map(Timestamp::as_second),
        "stands": standing.stands,
        "waits_for": standing.waits_for,
        "help": standing.help,
    })
}
