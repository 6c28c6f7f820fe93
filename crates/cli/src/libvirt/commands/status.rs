//! `logchain status`.

use std::io;
use std::path::PathBuf;

use logchain::args::{Format, Status as Args};
use logchain::exit::Exit;
use logchain_host::agent::control::client;
use logchain_host::status::{Options, Report, status};

use crate::access;

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    if let Some(named) = args.agent {
        let socket = access::socket(named).await?;
        show(&client::handoffs(&socket).await?, args.format)?;
        return Ok(Exit::Done);
    }
    let mut not_asked = None;
    if access::may_ask_for_status(&args)
        && let Err(e) = readable(args.state.folder.clone()).await
        && access::is_refused(&e)
    {
        match access::instead(e).await {
            Ok(socket) => {
                show(&client::handoffs(&socket).await?, args.format)?;
                return Ok(Exit::Done);
            }
            Err(not) => not_asked = not.why,
        }
    }
    let mut options = Options::default();
    options.connect = args.connect.uri;
    options.state = args.state.folder;
    let mut report = status(&options).await.report();
    report.warnings.extend(not_asked);
    show(&report, args.format)?;
    Ok(Exit::Done)
}

/// Whether this user may look at what logchain remembers of this host.
async fn readable(state: PathBuf) -> anyhow::Result<()> {
    let look = move || match std::fs::read_dir(&state) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let sentence = format!("cannot read {}", state.display());
            Err(anyhow::Error::new(e).context(sentence))
        }
        _ => Ok(()),
    };
    tokio::task::spawn_blocking(look).await?
}

fn show(report: &Report, format: Format) -> anyhow::Result<()> {
    if let Format::Json = format {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    for handoff in &report.handoffs {
        println!("{}", handoff.sentence);
    }
    for warning in &report.warnings {
        eprintln!("logchain: {warning}");
    }
    if report.under_way == 0 && report.warnings.is_empty() {
        println!("nothing is under way on this host");
    }
    Ok(())
}
