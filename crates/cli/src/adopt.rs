//! `logchain adopt`: the destination's half.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::handoff::Handoff;
use logchain_core::handoff::adopt::{Adopt as Half, Outcome, Progress};
use logchain_core::transport::{LogTransport, LogTransportExt, ObjectName, Prefix};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::args::Adopt;
use crate::exit::Exit;
use crate::host::{self, Arriving, Leases};
use crate::report::Report;
use crate::transports::Choice;

/// News that may wait to be told.
const NEWS: usize = 64;

pub(crate) async fn run(args: Adopt) -> anyhow::Result<Exit> {
    let report = Report::new(args.format);
    let choice = Choice::of(args.transport.as_deref(), None)?;
    let connection = host::connect_local(args.connect.uri.as_deref()).await?;
    let domain = match args.domain.parse::<Uuid>() {
        Ok(uuid) => uuid,
        Err(_) => connection.lookup(&args.domain).await?.uuid(),
    };
    let transport = choice
        .open(&logchain_transport_ssh::SshOptions::default())
        .await?;

    let mut halves = Vec::new();
    match args.handoff {
        Some(id) => {
            for (console, path) in &args.console {
                let handoff = Handoff {
                    domain,
                    console: console.clone(),
                    id,
                };
                halves.push((handoff, path.clone()));
            }
        }
        None => {
            for handoff in waiting(&*transport, domain).await? {
                halves.push((handoff, None));
            }
            if halves.is_empty() {
                anyhow::bail!("nothing is offered for domain {domain} in {transport}");
            }
        }
    }

    let alive = watch::Sender::new(args.attached);
    if args.attached {
        tokio::spawn(watch_input(alive.clone()));
    }
    let limits = host::limits();
    let mut exit = Exit::Done;
    for (handoff, path) in halves {
        let (progress, news) = mpsc::channel(NEWS);
        let half = Half {
            handoff: handoff.clone(),
            host: host::own_name(),
            transport: Arc::clone(&transport),
            writers: Arc::new(Leases),
            destination: Arc::new(Arriving {
                connection: connection.clone(),
                domain,
                console: handoff.console.clone(),
                limits,
            }),
            expected: path.map(|path| limits.place(path)),
            source_alive: alive.subscribe(),
            patience: args.patience,
            progress,
        };
        let told = tokio::spawn(tell(report, handoff.clone(), news));
        let outcome = half.run().await;
        told.await?;
        if let Some(worse) = end(report, &handoff, &outcome) {
            exit = worse;
        }
    }
    Ok(exit)
}

/// The handoffs of a domain that were begun and neither withdrawn nor received.
async fn waiting(transport: &dyn LogTransport, domain: Uuid) -> anyhow::Result<Vec<Handoff>> {
    let (mut begun, mut over) = (BTreeSet::new(), BTreeSet::new());
    for entry in transport.list_all(&Prefix::Domain(domain)).await? {
        let which = (entry.key.console.clone(), entry.key.handoff);
        match entry.key.object {
            ObjectName::Begin => begun.insert(which),
            ObjectName::Abort | ObjectName::Receipt => over.insert(which),
            ObjectName::Chunk { .. } | ObjectName::Commit => false,
        };
    }
    let waiting = begun.difference(&over).cloned();
    Ok(waiting
        .map(|(console, id)| Handoff {
            domain,
            console,
            id,
        })
        .collect())
}

/// Our input is the other half's life line.
async fn watch_input(alive: watch::Sender<bool>) {
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 64];
    while let Ok(1..) = input.read(&mut ignored).await {}
    alive.send_replace(false);
}

async fn tell(report: Report, handoff: Handoff, mut news: mpsc::Receiver<Progress>) {
    let console = handoff.console.as_str();
    while let Some(progress) = news.recv().await {
        match progress {
            Progress::Ready => report.event("", &json!({ "event": "ready", "console": console })),
            Progress::Staged(bytes) => {
                report.event(
                    "",
                    &json!({ "event": "staged", "console": console, "bytes": bytes }),
                );
            }
            Progress::Placed(placed) => {
                let event = json!({
                    "event": "placed",
                    "console": console,
                    "files": placed.files,
                    "dropped": placed.dropped,
                });
                report.event("", &event);
            }
        }
    }
}

/// Tells how it ended; `Some` where that is not well.
fn end(report: Report, handoff: &Handoff, outcome: &Outcome) -> Option<Exit> {
    let console = handoff.console.as_str();
    match outcome {
        Outcome::Adopted(receipt) => {
            let files: Vec<&str> = receipt
                .placed
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            let files = if files.is_empty() {
                "no file".to_owned()
            } else {
                files.join(", ")
            };
            let bytes = receipt.bytes;
            let sentence = format!("{console}: {bytes} bytes of history are in place, in {files}");
            report.event(
                &sentence,
                &json!({ "event": "adopted", "console": console, "bytes": bytes }),
            );
            None
        }
        Outcome::Aborted => {
            let sentence = format!("{console}: withdrawn by the source; this host is as it was");
            report.event(
                &sentence,
                &json!({ "event": "aborted", "console": console }),
            );
            Some(Exit::Failed)
        }
        Outcome::Failed { reason } => {
            let event = json!({ "event": "failed", "console": console, "reason": reason });
            report.event("", &event);
            report.warn(&format!("{console}: {reason}"));
            Some(Exit::Failed)
        }
    }
}

/// How long a process on the far side may take to end by itself.
pub(crate) const END: Duration = Duration::from_secs(10);
