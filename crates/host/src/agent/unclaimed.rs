//! Logs that an earlier agent held, of domains that libvirt does not know any more: they left and
//! were undefined, or were removed, while no agent was here, and nobody can tell which.
//!
//! What has a name stays where it is. What has none is put into the outbox, where it is offered
//! to whoever has the domain now, as long as the operator says. Then the log is let go.
//!
//! Must not know: how descriptors came back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::holds::HeldLog;
use logchain_core::outbox::KeepOutcome;
use logchain_libvirt::Connection;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::host::DEFINED_ANEW;
use super::known::numbering;
use super::shared::Shared;
use crate::blocking::blocking;
use crate::log::ConsoleLog;

/// Between two looks for that.
const LOOK: Duration = Duration::from_secs(10);

/// Looks after the logs of domains that are not `known`.
pub(super) async fn look(shared: &Arc<Shared>, connection: &Connection, known: &HashSet<Uuid>) {
    let unclaimed = shared.held.unclaimed().into_iter();
    let unclaimed: Vec<_> = unclaimed
        .filter(|(id, _)| !known.contains(&id.domain))
        .collect();
    if unclaimed.is_empty() {
        return;
    }
    let numbering = numbering(&shared.events).await;
    for (id, path) in unclaimed {
        let (held, domain) = (shared.held.clone(), id.domain);
        let console = id.console;
        let log = ConsoleLog { console, path };
        match blocking(move || held.hold(domain, &log, numbering)).await {
            Ok(held) => {
                let (shared, connection) = (Arc::clone(shared), connection.clone());
                tokio::spawn(async move { look_after(&shared, &connection, &held).await });
            }
            Err(e) => tracing::debug!(%domain, error = %e.sentence(), "its log is not held"),
        }
    }
}

async fn look_after(shared: &Shared, connection: &Connection, held: &Arc<HeldLog>) {
    let (domain, began) = (held.domain(), Instant::now());
    loop {
        if is_known(connection, domain).await {
            return; // it is held as any other
        }
        let is_over = began.elapsed() >= DEFINED_ANEW;
        let look = Arc::clone(held);
        let look = move || (look.is_handed_over(), look.earlier().is_empty());
        let looked = tokio::task::spawn_blocking(look).await;
        let (is_elsewhere, none_is_earlier) = looked.unwrap_or((false, false));
        let is_over = match is_elsewhere {
            // What was wiped before is seen to by whoever is told of that.
            true => is_over || none_is_earlier,
            false => match shared.held.put_down_lost(held).await {
                Some(KeepOutcome::There) => is_over,
                Some(_) => is_over || none_is_earlier,
                // Nobody else has it: as on a disk that is full.
                None => false,
            },
        };
        if is_over {
            break;
        }
        sleep(if began.elapsed() < DEFINED_ANEW {
            LOOK
        } else {
            DEFINED_ANEW
        })
        .await;
    }
    shared.held.let_go(domain);
}

/// Where nobody can tell, it is.
async fn is_known(connection: &Connection, domain: Uuid) -> bool {
    let found = connection.lookup_uuid(domain).await;
    !matches!(found, Err(logchain_libvirt::Error::NoDomain { .. }))
}
