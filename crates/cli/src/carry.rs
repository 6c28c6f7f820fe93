//! The source's half of one console, with the other half on the far side where
//! the transport leads there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::chain::LogChain;
use logchain_core::folder::Folder;
use logchain_core::handoff::Handoff;
use logchain_core::handoff::offer::{self, Far, Held, Offer, Outcome, Source};
use logchain_core::record::Offered;
use logchain_core::transport::{ConsoleName, HandoffId, LogTransport};
use logchain_transport_ssh::SshOptions;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::far::FarAdopt;
use crate::host::{self, Leases};
use crate::report::Report;
use crate::transports::Choice;

/// A console's log here.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) console: ConsoleName,
    pub(crate) path: PathBuf,
}

impl Log {
    pub(crate) fn chain(&self) -> Result<LogChain, String> {
        LogChain::open(&self.path, host::limits().numbering()).map_err(|e| e.to_string())
    }

    /// Opens every file of the log: from now on its bytes are ours, whatever
    /// happens to its names.
    pub(crate) async fn hold(&self, domain: Uuid) -> Result<Held, String> {
        let log = self.clone();
        let work =
            move || Held::open(&log.chain()?, domain, &log.console).map_err(|e| e.to_string());
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| e.to_string())?
    }
}

/// How and where to.
pub(crate) struct Way<'a> {
    pub(crate) choice: &'a Choice,
    pub(crate) ssh: &'a SshOptions,
    pub(crate) patience: Duration,
    pub(crate) domain: Uuid,
    pub(crate) domain_name: &'a str,
}

/// A console on its way.
pub(crate) struct Carry {
    far: Option<FarAdopt>,
    task: JoinHandle<(Outcome, Instant)>,
    pub(crate) put: watch::Receiver<u64>,
}

impl Carry {
    /// Starts both halves. `expected`: where the log will lie at the destination,
    /// for a migration that has not begun; then this waits until the other half
    /// is ready for it.
    pub(crate) async fn start(
        way: &Way<'_>,
        transport: Arc<dyn LogTransport>,
        log: &Log,
        held: Held,
        source: watch::Receiver<Source>,
        expected: Option<&Path>,
    ) -> Result<Self, String> {
        let handoff = Handoff {
            domain: way.domain,
            console: log.console.clone(),
            id: HandoffId::random(),
        };
        let (far, state) = far(way, &handoff, expected).await?;
        let put = watch::Sender::new(0);
        let progress = put.subscribe();
        let offer = offer_of(way, handoff, transport, source, state, put);
        let task = tokio::spawn(async move { (offer.run(held).await, Instant::now()) });
        Ok(Self {
            far,
            task,
            put: progress,
        })
    }

    /// Takes up a handoff that was committed before.
    pub(crate) async fn resume(
        way: &Way<'_>,
        transport: Arc<dyn LogTransport>,
        log: &Log,
        offered: Offered,
    ) -> Result<Self, String> {
        let handoff = Handoff {
            domain: way.domain,
            console: log.console.clone(),
            id: offered.handoff,
        };
        let (far, state) = far(way, &handoff, None).await?;
        let put = watch::Sender::new(offered.bytes);
        let progress = put.subscribe();
        let source = watch::Sender::new(Source::Over).subscribe();
        let offer = offer_of(way, handoff, transport, source, state, put);
        let (folder, base) = Folder::of_file(&log.path).map_err(|e| e.to_string())?;
        let task = tokio::spawn(async move {
            (
                offer::resume(offer, &folder, &base, &offered).await,
                Instant::now(),
            )
        });
        Ok(Self {
            far,
            task,
            put: progress,
        })
    }

    /// Waits for the end of both halves; says when the source's came.
    pub(crate) async fn end(self) -> (Outcome, Instant) {
        let outcome = self.task.await;
        if let Some(far) = self.far {
            far.end().await;
        }
        outcome.unwrap_or_else(|e| {
            (
                Outcome::NotCarried {
                    reason: e.to_string(),
                },
                Instant::now(),
            )
        })
    }
}

async fn far(
    way: &Way<'_>,
    handoff: &Handoff,
    expected: Option<&Path>,
) -> Result<(Option<FarAdopt>, watch::Receiver<Far>), String> {
    let Choice::Ssh(target) = way.choice else {
        // Whoever adopts from a folder is started by somebody else.
        return Ok((None, watch::Sender::new(Far::Working).subscribe()));
    };
    let mut far = FarAdopt::start(target, way.ssh, handoff, expected, way.patience)?;
    if expected.is_some() {
        far.wait_ready().await?;
    }
    let state = far.state();
    Ok((Some(far), state))
}

fn offer_of(
    way: &Way<'_>,
    handoff: Handoff,
    transport: Arc<dyn LogTransport>,
    source: watch::Receiver<Source>,
    far: watch::Receiver<Far>,
    put: watch::Sender<u64>,
) -> Offer {
    Offer {
        handoff,
        domain_name: way.domain_name.to_owned(),
        host: host::own_name(),
        transport,
        writers: Arc::new(Leases),
        source,
        far,
        patience: way.patience,
        put,
    }
}

/// Tells how a console's handoff ended; `true` where the destination has its log.
pub(crate) fn tell(report: Report, log: &Log, outcome: &Outcome, more: serde_json::Value) -> bool {
    let console = log.console.as_str();
    match outcome {
        Outcome::Carried(receipt) => {
            let files = receipt.placed.len();
            let (bytes, host) = (receipt.bytes, &receipt.host);
            let mut sentence = format!(
                "{console}: {bytes} bytes of history are in place at {host}, in {files} files"
            );
            if receipt.dropped > 0 {
                sentence.push_str(&format!(
                    "; the oldest {} of them are more than the rotation there keeps",
                    receipt.dropped
                ));
            }
            let mut event = json!({
                "event": "carried",
                "console": console,
                "bytes": bytes,
                "dropped": receipt.dropped,
                "files": receipt.placed,
                "host": host,
            });
            if let (Some(event), serde_json::Value::Object(more)) = (event.as_object_mut(), more) {
                event.extend(more);
            }
            report.event(&sentence, &event);
            true
        }
        Outcome::Aborted => {
            report.event("", &json!({ "event": "withdrawn", "console": console }));
            false
        }
        Outcome::NotCarried { reason } => {
            report.event(
                "",
                &json!({ "event": "not-carried", "console": console, "reason": reason }),
            );
            report.warn(&format!("{console}: the log was not carried: {reason}"));
            false
        }
    }
}
