//! What was not carried at once: offered again by the source, and looked for by the
//! destination, for as long as it takes.
//!
//! Must not know: migrations.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use logchain_core::OkLogged as _;
use logchain_core::backoff::Backoff;
use logchain_core::departure::Notes;
use logchain_core::handoff::stage::stages;
use logchain_core::ids::ConsoleName;
use logchain_core::outbox::{Entry, Outbox};
use logchain_core::transport::{LogTransportExt as _, Prefix};
use std::path::PathBuf;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::config::ReapPolicy;
use super::here::Here;
use super::shared::Shared;
use super::stay::Stay;
use super::{desk, destination};
use crate::blocking::blocking;
use crate::{Event, Events, Result, departures, offer, outbox, reap};

/// How soon what was offered unexpectedly is taken in.
const SOON: Duration = Duration::from_millis(250);

/// How long the first pass waits for libvirt.
const FIRST: Duration = Duration::from_millis(500);

/// Runs pass after pass, until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, here: Here) {
    let mut tries = HashMap::new();
    sleep(FIRST).await;
    loop {
        if let Err(e) = take_in(&shared, &here).await {
            tracing::debug!(error = %e.sentence(), "what is offered is looked for again");
        }
        if let Err(e) = hand_over(&shared, &here, &mut tries).await {
            tracing::debug!(error = %e.sentence(), "what is left here is looked for again");
        }
        give_up(&shared).await;
        count(&shared).await;
        let next = Instant::now() + shared.config().outbox.retry_min;
        let mut stored = shared.meet.stored();
        while tokio::select! {
            () = sleep_until(next) => false,
            () = shared.held.boot_put_down() => false,
            () = offered(&mut stored) => true,
        } {
            // Of a domain that comes just now it is taken in already.
            sleep(SOON).await;
            if let Err(e) = take_in(&shared, &here).await {
                tracing::debug!(error = %e.sentence(), "what is offered is looked for again");
            }
        }
    }
}

/// Undefines domains that left, as the operator's policy says, pass after pass.
pub(super) async fn reap(shared: Arc<Shared>) {
    loop {
        let config = shared.config();
        if config.reap.policy != ReapPolicy::Never {
            let options = reap::Options {
                connect: Some(config.connect.clone()),
                state: config.state.clone(),
                files: config.reap.files.into(),
                placement_command: config.reap.placement_command.clone(),
                placement_url: config.reap.placement_url.clone(),
                receipts_suffice: config.reap.policy == ReapPolicy::WhenCarried,
                grace: config.reap.grace,
                ..reap::Options::default()
            };
            let events = reaped(&shared.events);
            if let Err(e) = reap::reap(options, &events, &shared.stop).await {
                shared.events.warn(e.sentence());
            }
        }
        sleep(config.reap.every).await;
    }
}

/// Of what the reaper tells, what an operator wants to know: not at each pass why a domain stays.
fn reaped(events: &Events) -> Events {
    let events = events.clone();
    Events::to(move |event: &Event| match event {
        Event::Reaped(_) | Event::Failed { .. } | Event::Warning { .. } => {
            events.tell(event.clone());
        }
        other => tracing::debug!(event = %other.to_json(), "the reaper tells"),
    })
}

/// Where the operator bounds the outbox, the oldest logs beyond that are given up.
async fn give_up(shared: &Shared) {
    let config = shared.config();
    let Some(most) = config.outbox.max_bytes else {
        return;
    };
    let (state, events) = (config.state.clone(), shared.events.clone());
    let work = move || {
        let outbox = Outbox::of(&state);
        let mut entries = outbox.all()?.entries;
        entries.sort_by_key(|entry| std::cmp::Reverse(put_down_at(entry)));
        let mut bytes = 0_u64;
        for entry in entries {
            bytes = bytes.saturating_add(entry.bytes);
            if bytes > most {
                outbox.remove(&entry)?;
                events.warn(format!(
                    "domain {}: {}: {} bytes are given up, since the outbox holds no more than \
                     {most}",
                    entry.domain, entry.console, entry.bytes
                ));
            }
        }
        Ok(())
    };
    if let Err(e) = blocking(work).await {
        shared.events.warn(e.sentence());
    }
}

/// When a log was put down. Blocks on files.
pub(super) fn put_down_at(entry: &Entry) -> Option<SystemTime> {
    let folder = entry.path.parent()?;
    std::fs::metadata(folder).ok()?.modified().ok()
}

/// Counts what is in the outbox.
async fn count(shared: &Shared) {
    let state = shared.config().state.clone();
    if let Ok(Ok(outbox)) = tokio::task::spawn_blocking(move || desk::outbox(state)).await {
        let oldest = Duration::from_secs(outbox.oldest_seconds);
        shared.metrics.outbox(
            outbox.logs,
            outbox.bytes,
            (outbox.logs > 0).then_some(oldest),
        );
    }
}

/// Waits until something was offered to this host; for ever where nobody can tell.
async fn offered(stored: &mut Option<watch::Receiver<u64>>) {
    if let Some(stored) = stored
        && stored.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// What is offered of domains that run here is taken in.
async fn take_in(shared: &Arc<Shared>, here: &Here) -> Result<()> {
    let Some(connection) = here.connection() else {
        return Ok(());
    };
    let Some(transport) = shared.meet.shared().await? else {
        return Ok(());
    };
    let entries = transport.list_handoffs(&Prefix::All).await?;
    let open = stages(&entries).into_iter();
    let mut domains: Vec<Uuid> = open
        .filter(|(_, stage)| stage.can_be_adopted())
        .map(|(handoff, _)| handoff.domain)
        .collect();
    domains.dedup();
    for domain in domains {
        let Some((Stay::Running, vm)) = here.stay(domain) else {
            continue;
        };
        let taken = destination::take_in_late(shared, connection.clone(), vm).await;
        if let Err(e) = taken {
            tracing::debug!(%domain, error = %e.sentence(), "it is looked for again");
        }
    }
    Ok(())
}

/// When a domain's logs are tried again.
struct Again {
    failures: u32,
    since: Instant,
    due: Instant,
}

/// What a domain that left has here still.
#[derive(Default)]
struct Left {
    /// Its logs, where their files are where they were.
    logs: Vec<(ConsoleName, PathBuf)>,
    /// Whether boots of it ended all of these, and it did not leave.
    is_of_ended_boots: bool,
    /// The transport that leads to where it went, as far as it is known.
    transport: Option<String>,
}

type LeftHere = BTreeMap<Uuid, Left>;

/// What this host still has of domains that left is offered; of those that are back it is put
/// behind their logs.
async fn hand_over(
    shared: &Arc<Shared>,
    here: &Here,
    tries: &mut HashMap<Uuid, Again>,
) -> Result<()> {
    let Some(connection) = here.connection() else {
        return Ok(());
    };
    let left = left_here(shared.config().state.clone()).await?;
    tries.retain(|domain, _| left.contains_key(domain));
    for (domain, left) in left {
        let tried = tries.get(&domain);
        if tried.is_some_and(|tried| tried.due > Instant::now()) {
            continue;
        }
        let given_up = shared.config().outbox.give_up_after;
        if let (Some(tried), Some(limit)) = (tried, given_up)
            && tried.since.elapsed() > limit
        {
            continue;
        }
        let stay = here.stay(domain);
        let done = match &stay {
            Some((Stay::Running, vm)) => {
                let (config, events) = (shared.config(), shared.events_of(vm));
                let to = (&*config.state, &events);
                let (_, failures) = outbox::rejoin(to, &connection, domain, None).await;
                for e in &failures {
                    events.warn(e.sentence());
                }
                // That it left is over, or it never did.
                let note = departures::came_back(&config.state, domain).await;
                failures.is_empty() && note.is_ok()
            }
            Some(_) => continue,
            // It is started here again, or never.
            None if left.is_of_ended_boots => continue,
            None => {
                // What is held of it waits for the end of this.
                let _leaving = shared.held.leaving(domain);
                let done = offer_again(shared, domain, left).await;
                if done {
                    shared.held.release(domain);
                }
                done
            }
        };
        if done {
            tries.remove(&domain);
            continue;
        }
        let again = tries.entry(domain).or_insert(Again {
            failures: 0,
            since: Instant::now(),
            due: Instant::now(),
        });
        again.failures = again.failures.saturating_add(1);
        let outbox = &shared.config().outbox;
        let backoff = Backoff::doubling(outbox.retry_min, outbox.retry_max);
        again.due = Instant::now() + backoff.after(again.failures);
        if outbox
            .give_up_after
            .is_some_and(|limit| again.since.elapsed() > limit)
        {
            shared.events.warn(format!(
                "domain {domain}: its log is not offered any more, as the configuration says; \
                 `logchain status` says where it lies"
            ));
        }
    }
    Ok(())
}

async fn offer_again(shared: &Arc<Shared>, domain: Uuid, left: Left) -> bool {
    let config = shared.config();
    let known = shared.meet.shared_url().or(left.transport);
    let transport = match known {
        Some(known) => Some(known),
        None => shared.meet.find(domain).await,
    };
    let Some(transport) = transport else {
        tracing::debug!(%domain, "nothing tells where it went");
        return false;
    };
    let mut job = offer::Options::new(domain.to_string());
    job.consoles = left.logs;
    job.connect = Some(config.connect.clone());
    job.state.clone_from(&config.state);
    job.remote_logchain = Some(config.meet.ssh.logchain.clone());
    match shared.meet.again(&transport, domain).await {
        Ok(open) => job.open = open,
        Err(e) => {
            tracing::debug!(%domain, error = %e.sentence(), "it is offered again later");
            return false;
        }
    }
    job.transport = Some(transport);
    job.patience = shared.patience();
    let events = Events::ignored();
    match offer::offer(job, &events, &shared.stop).await {
        Ok(finished) => finished.is_success(),
        Err(e) => {
            tracing::debug!(%domain, error = %e.sentence(), "it is offered again later");
            false
        }
    }
}

async fn left_here(state: PathBuf) -> Result<LeftHere> {
    blocking(move || {
        let mut left = LeftHere::new();
        let outbox = Outbox::of(&state);
        for entry in outbox.all()?.entries {
            let is_ended = outbox.is_of_ended_boot(&entry);
            let is_ended = is_ended
                .ok_logged("it is offered as any other")
                .unwrap_or(false);
            let left = left.entry(entry.domain).or_insert(Left {
                is_of_ended_boots: true,
                ..Left::default()
            });
            left.is_of_ended_boots &= is_ended;
        }
        if let Some(notes) = Notes::open(&state)? {
            for note in notes.all()?.notes {
                let missing = departures::missing(&note);
                let logs: Vec<_> = missing.map(|log| (log.console, log.path)).collect();
                if !logs.is_empty() {
                    let left = left.entry(note.domain).or_default();
                    left.logs.extend(logs);
                    left.is_of_ended_boots = false;
                    let is_known = !note.transport.is_empty();
                    left.transport = is_known.then_some(note.transport);
                }
            }
        }
        Ok(left)
    })
    .await
}
