//! Which logs a domain has, held as soon as they are known.
//!
//! Must not know: where a domain stands, how a log is handed over.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use logchain_core::chain::NumberingChoice;
use logchain_core::holds::HeldLog;
use logchain_libvirt::consoles::Consoles;
use logchain_libvirt::drain::{Writer, has_writer};
use logchain_libvirt::{Domain, RunningDomain};

use super::held::HeldLogs;
use crate::limits::numbering_of_host;
use crate::log::ConsoleLog;
use crate::{Events, astray, consoles};

/// What is known of a domain that is here.
pub(super) struct Known {
    pub(super) domain: Domain,
    pub(super) logs: Vec<KnownLog>,
    /// How rotated files are numbered here.
    pub(super) numbering: NumberingChoice,
}

/// A log of a domain.
#[derive(Clone, Debug)]
pub(super) struct KnownLog {
    pub(super) log: ConsoleLog,
    /// Whether a start of the domain leaves what is there, and goes on behind it.
    pub(super) appends: bool,
    /// `None`: it could not be held.
    pub(super) held: Option<Arc<HeldLog>>,
}

/// A domain that runs, and what is known of its logs; or why nothing is.
pub(super) struct Found {
    pub(super) domain: Domain,
    pub(super) known: Result<Known, String>,
    /// One sentence for each log that cannot be carried.
    pub(super) left_out: Vec<String>,
}

impl Found {
    /// Holds the logs of a domain. Blocks on files; called on a thread of the runtime.
    pub(super) fn hold(held: &HeldLogs, found: RunningDomain, numbering: NumberingChoice) -> Self {
        let domain = found.domain;
        let (mut logs, left_out) = match found.consoles {
            Ok(consoles) => logs_of(consoles),
            Err(e) => {
                return Self {
                    domain,
                    known: Err(e.to_string()),
                    left_out: Vec::new(),
                };
            }
        };
        for known in &mut logs {
            let held = held.hold(domain.uuid(), &known.log, numbering);
            if let Err(e) = &held {
                tracing::debug!(
                    path = %known.log.path.display(),
                    error = %e.sentence(),
                    "the log is not held; it is opened when the domain leaves"
                );
            }
            known.held = held.ok();
        }
        let known = Ok(Known {
            domain: domain.clone(),
            logs,
            numbering,
        });
        Self {
            domain,
            known,
            left_out,
        }
    }

    /// Holds what the guest prints of logs that lost their names before they were held.
    pub(super) async fn find_nameless(&self) {
        let Ok(known) = &self.known else {
            return;
        };
        for log in &known.logs {
            let Some(held) = &log.held else { continue };
            if is_at_its_path(log.log.path.clone()).await {
                continue;
            }
            let astray = astray::astray(&known.domain, &log.log.path).await;
            if let Some(file) = astray.and_then(|astray| astray.file) {
                let held = Arc::clone(held);
                let hold = move || held.hold_nameless(file);
                if let Ok(Err(e)) = tokio::task::spawn_blocking(hold).await {
                    tracing::debug!(error = %e, "what its guest prints is not held");
                }
            }
        }
    }
}

/// Whether the guest's output goes to the file at the log's path, as far as that is seen at
/// once. Most logs are where they belong, and to look for one that is not takes a while.
pub(super) async fn is_at_its_path(path: PathBuf) -> bool {
    let look = move || File::open(path).is_ok_and(|file| has_writer(&file) == Writer::Some);
    tokio::task::spawn_blocking(look).await.unwrap_or(false)
}

/// What a domain has of logs, and a sentence for each that cannot be carried.
pub(super) fn logs_of(found: Consoles) -> (Vec<KnownLog>, Vec<String>) {
    let mut left_out = found.left_out;
    let mut logs = Vec::new();
    for console in found.logs {
        match consoles::key_name(&console) {
            Ok(name) => logs.push(KnownLog {
                log: ConsoleLog {
                    console: name,
                    path: console.path,
                },
                appends: console.append == Some(true),
                held: None,
            }),
            Err(e) => left_out.push(format!("{}: {e}", console.name)),
        }
    }
    (logs, left_out)
}

/// How rotated files are numbered here, as virtlogd's configuration says now.
pub(super) async fn numbering(events: &Events) -> NumberingChoice {
    let events = events.clone();
    let look = move || numbering_of_host(&events);
    let look = tokio::task::spawn_blocking(look).await;
    look.unwrap_or(NumberingChoice::Auto)
}
