//! Domains that left while no agent was here: libvirt says of them that they are shut off because
//! they migrated. What of their logs was not handed over is noted, and offered from then on. All of
//! these logs make way, since an agent that was killed did not see to it. The logs of others that
//! are shut off are held where logs of earlier boots are kept, since their next start wipes them.
//!
//! Must not know: how a log is offered.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logchain_core::chain::NumberingChoice;
use logchain_core::departure::Notes;
use logchain_core::handoff::offer;
use logchain_core::holds::HeldLog;
use logchain_libvirt::consoles::read;
use logchain_libvirt::{Connection, Domain, Shutoff, State};
use uuid::Uuid;

use super::known::{KnownLog, logs_of, numbering};
use super::make_way::{make_way, rotate_away};
use super::shared::Shared;
use super::unclaimed;
use crate::blocking::blocking;
use crate::departures::{self, DepartureNote};
use crate::left_behind::OfferOptions;
use crate::log::ConsoleLog;
use crate::{Result, neighbours};

/// Notes the domains that left unseen. `here`: those that run, which are seen.
pub(super) async fn note(shared: Arc<Shared>, connection: Connection, here: HashSet<Uuid>) {
    let domains = match connection.domains().await {
        Ok(domains) => domains,
        Err(error) => {
            tracing::debug!(%error, "domains that left unseen are looked for again");
            return;
        }
    };
    let known: HashSet<Uuid> = domains
        .iter()
        .map(Domain::uuid)
        .chain(here.clone())
        .collect();
    unclaimed::look(&shared, &connection, &known).await;
    let numbering = numbering(&shared.events).await;
    for domain in domains.into_iter().filter(|d| !here.contains(&d.uuid())) {
        let unclaimed = shared.held.unclaimed();
        let was_held = unclaimed.iter().any(|(id, _)| id.domain == domain.uuid());
        match domain.state().await {
            Ok(State::Shutoff(Shutoff::Migrated)) => {}
            Ok(State::Shutoff(_)) if was_held || shared.held.keeps_boots() > 0 => {
                if let Err(e) = hold(&shared, &domain, numbering).await {
                    let e = e.sentence();
                    tracing::debug!(domain = domain.name(), error = %e, "its log is not held");
                }
                continue;
            }
            _ => continue,
        }
        if let Err(e) = note_one(&shared, &domain, numbering).await {
            shared.events.warn(format!(
                "{}: it left unseen: {}",
                domain.name(),
                e.sentence()
            ));
        }
    }
    match forgotten(&shared, known).await {
        // Nothing tells whether their next start appends. One that does not would wipe the file.
        Ok(paths) => {
            for path in paths {
                rotate_away(path, numbering).await;
            }
        }
        Err(e) => tracing::debug!(error = %e.sentence(), "forgotten domains are looked for again"),
    }
}

/// The logs of domains that left, and that libvirt knows no more here.
async fn forgotten(shared: &Shared, known: HashSet<Uuid>) -> Result<Vec<PathBuf>> {
    let state = shared.config().state.clone();
    blocking(move || {
        let Some(notes) = Notes::open(&state)? else {
            return Ok(Vec::new());
        };
        let notes = notes.all()?.notes.into_iter();
        let forgotten = notes.filter(|note| !known.contains(&note.domain));
        let logs = forgotten.flat_map(|note| note.logs);
        Ok(logs.map(|log| log.path).collect())
    })
    .await
}

/// Holds the logs of a domain that is shut off.
async fn hold(shared: &Arc<Shared>, domain: &Domain, numbering: NumberingChoice) -> Result<()> {
    let (logs, _) = logs_of(read(&domain.live_xml().await?)?);
    let (held, uuid) = (shared.held.clone(), domain.uuid());
    blocking(move || {
        for known in logs {
            // A log that was never written has no folder, perhaps. What an earlier agent held
            // needs none.
            if known.log.path.exists() || held.was_held(uuid, &known.log.console) {
                held.hold(uuid, &known.log, numbering)?;
            }
        }
        Ok(())
    })
    .await
}

async fn note_one(shared: &Arc<Shared>, domain: &Domain, numbering: NumberingChoice) -> Result<()> {
    let (known, _) = logs_of(read(&domain.live_xml().await?)?);
    let noted = note_logs(shared, domain, &known, numbering).await;
    // Last: a log that has no base file takes longer to be looked at.
    for known in &known {
        make_way(known, numbering).await;
    }
    let left = noted?;
    // Its files may be gone already.
    for log in left {
        shared.held.put_down_lost(&log).await;
    }
    Ok(())
}

/// Notes what was not handed over. Gives what an earlier agent held of it.
async fn note_logs(
    shared: &Arc<Shared>,
    domain: &Domain,
    known: &[KnownLog],
    numbering: NumberingChoice,
) -> Result<Vec<Arc<HeldLog>>> {
    let config = shared.config();
    let (state, uuid) = (config.state.clone(), domain.uuid());
    let logs: Vec<ConsoleLog> = known.iter().map(|known| known.log.clone()).collect();
    let held = shared.held.clone();
    let (left, noted, from_earlier_agent) = blocking(move || {
        // They may be of an earlier departure. What is here of them is offered all the same.
        let noted = not_received(&state, uuid)?;
        let (mut left, mut from_earlier_agent) = (Vec::new(), Vec::new());
        let is_noted = |log: &ConsoleLog| noted.iter().any(|n| n.console == log.console);
        for log in logs.into_iter().filter(|log| !is_noted(log)) {
            if held.was_held(uuid, &log.console) {
                let log_held = held.hold(uuid, &log, numbering)?;
                if log_held.bytes() > 0 && !log_held.is_handed_over() {
                    left.push(log);
                    from_earlier_agent.push(log_held);
                }
                continue;
            }
            // Without its folder there is nothing of it.
            let Ok(chain) = neighbours::chain(&log.path, numbering) else {
                continue;
            };
            if !offer::is_handed_over(&chain, uuid, &log.console)?
                && chain
                    .snapshot()
                    .is_ok_and(|s| s.is_empty().is_ok_and(|is| !is))
            {
                held.hold(uuid, &log, numbering)?;
                left.push(log);
            }
        }
        if left.is_empty() && !noted.is_empty() {
            // What is wanted of it is held by the note.
            held.discard(uuid);
        }
        Ok((left, noted, from_earlier_agent))
    })
    .await?;
    if left.is_empty() {
        if noted.is_empty() {
            // An earlier agent handed all of it over.
            shared.held.let_go(uuid);
        }
        return Ok(Vec::new());
    }
    let options = OfferOptions {
        transport: shared.meet.shared_url().unwrap_or_default(),
        connect: Some(&config.connect),
        remote: Some(&config.meet.ssh.logchain),
    };
    let logs: Vec<&ConsoleLog> = left.iter().chain(&noted).collect();
    DepartureNote::begin(&config.state, domain, ("", None), &options, &logs).await?;
    tracing::info!(domain = %uuid, "it left while no agent was here; its log is offered");
    Ok(from_earlier_agent)
}

/// The logs of a domain of which it is noted that they are to be handed over. Blocks on files.
fn not_received(state: &Path, domain: Uuid) -> Result<Vec<ConsoleLog>> {
    let Some(notes) = Notes::open(state)? else {
        return Ok(Vec::new());
    };
    let note = notes.read(domain)?;
    Ok(note.iter().flat_map(departures::missing).collect())
}
