//! The domains that are here, kept up to date by libvirt's events and by looks.
//!
//! Nothing here waits for a domain: a domain whose libvirt hangs holds up no other one. Questions
//! are asked aside, and their answers come back through a queue.
//!
//! Must not know: how a log is handed over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::folder::with_listings_kept;
use logchain_core::handoff::offer::Source;
use logchain_libvirt::host_events::HostEvent;
use logchain_libvirt::{Connection, Running, State};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::here::{Arrival, Here};
use super::known::{Found, Known, numbering};
use super::shared::Shared;
use super::stay::{Action, Look, Stay, on_event, on_look};
use super::{Vm, destination, source, unseen};
use crate::limits::limits;
use crate::{Error, Event, Result, hosts, neighbours};

/// Between two looks at the domains that come or leave. Only while there are any.
const LOOK: Duration = Duration::from_secs(1);

/// A domain that leaves is not looked at as long as libvirt tells of it: to say what its job is,
/// libvirt asks QEMU, and just before the guest stops that is in the way of the migration.
const QUIET: Duration = Duration::from_secs(3);

/// How long the log of a domain that ended and is not defined any more is held, where logs of
/// earlier boots are kept, or where its files are there still: some orchestrators define a domain
/// anew to start it again, and some remove its folder only after it.
pub(super) const DEFINED_ANEW: Duration = Duration::from_secs(300);

/// How many answers may wait to be taken in.
const ANSWERS: usize = 1024;

/// A domain that is here.
struct Guest {
    stay: Stay,
    known: Option<Arc<Known>>,
    /// For those who hand its logs over.
    source: Option<watch::Sender<Source>>,
    /// For those who take its logs in.
    arrival: Option<watch::Sender<Arrival>>,
    /// Whether a look at it is under way.
    is_looked_at: bool,
    /// When libvirt told of it last.
    told: Instant,
}

/// An answer to a question that was asked aside.
enum Answer {
    Found(Uuid, Result<Option<Found>, String>),
    Looked(Uuid, Result<Look, String>),
}

pub(super) struct Host {
    shared: Arc<Shared>,
    guests: HashMap<Uuid, Guest>,
    here: Here,
    /// Domains of which another agent says that they leave.
    words: Option<mpsc::Receiver<Uuid>>,
    was_connected: bool,
    /// This host, as libvirt tells it from others.
    host: Option<Uuid>,
    answers: mpsc::Receiver<Answer>,
    answer: mpsc::Sender<Answer>,
}

impl Host {
    pub(super) fn new(
        shared: Arc<Shared>,
        here: Here,
        words: Option<mpsc::Receiver<Uuid>>,
    ) -> Self {
        let (answer, answers) = mpsc::channel(ANSWERS);
        Self {
            shared,
            guests: HashMap::new(),
            here,
            words,
            was_connected: false,
            host: None,
            answers,
            answer,
        }
    }

    /// Watches until the connection breaks.
    pub(super) async fn watch(&mut self, connection: Connection) -> Result<()> {
        // Before anything is looked at, so that nothing falls between.
        let mut events = connection.host_events().await?;
        self.reconcile(&connection).await?;
        self.here.connected(Some(connection.clone()));
        match std::mem::replace(&mut self.was_connected, true) {
            true => self.shared.metrics.libvirt_reconnected(),
            false => self.shared.metrics.libvirt_connected(true),
        }
        self.shared.events.tell(Event::Watching {
            uri: connection.uri().to_owned(),
            domains: self.guests.len() as u64,
        });
        let mut next_look = Instant::now() + LOOK;
        self.host = hosts::uuid_of(&connection).await;
        let ended = loop {
            let moves = self
                .guests
                .values()
                .any(|guest| guest.stay != Stay::Running);
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => self.on_event(&connection, event),
                    None => break Err(Error::Refused("its connection broke".to_owned())),
                },
                Some(answer) = self.answers.recv() => self.on_answer(&connection, answer),
                Some(uuid) = next_word(&mut self.words) => self.ask_look(&connection, uuid),
                () = sleep_until(next_look), if moves => {
                    self.look(&connection);
                    next_look = Instant::now() + LOOK;
                }
            }
            let missed = events.take_missed();
            if missed > 0 {
                self.shared.metrics.events_missed(missed);
                self.reconcile(&connection).await?;
            }
        };
        self.here.connected(None);
        ended
    }

    /// Looks at everything, since nothing is known of what was not told.
    async fn reconcile(&mut self, connection: &Connection) -> Result<()> {
        neighbours::outdated();
        let running = connection.running().await?;
        let numbering = numbering(&self.shared.events).await;
        let looks: Vec<_> = running
            .iter()
            .map(|found| {
                let (state, job) = (found.state, found.job);
                (found.domain.uuid(), Look { state, job })
            })
            .collect();
        let held = self.shared.held.clone();
        let look = tokio::task::spawn_blocking(|| limits().keep_no_rotated_file());
        held.rollovers_wipe(look.await?);
        held.hold_noted(numbering).await;
        let hold = move || {
            // A folder may have the logs of all of them.
            with_listings_kept(|| {
                let found = running.into_iter();
                found
                    .map(|f| Found::hold(&held, f, numbering))
                    .collect::<Vec<_>>()
            })
        };
        let found = tokio::task::spawn_blocking(hold).await?;
        let mut missing: Vec<Uuid> = self.guests.keys().copied().collect();
        for (found, (uuid, look)) in found.into_iter().zip(looks) {
            missing.retain(|other| *other != uuid);
            let stay = self.guests.get(&uuid).map(|guest| guest.stay);
            let came = matches!(
                look.state,
                State::Running(Running::Migrated | Running::Postcopy)
            );
            if stay.is_none() && came {
                self.here.comes_unseen(uuid);
            }
            let step = on_look(stay, look);
            self.enter(uuid, step.0);
            self.learn(found);
            // Its logs are known by now.
            let actions = step.1.into_iter().filter(|action| *action != Action::Hold);
            self.act(connection, uuid, actions.collect());
        }
        for uuid in missing {
            self.ask_look(connection, uuid);
        }
        let here = self.guests.keys().copied().collect();
        let (shared, connection) = (Arc::clone(&self.shared), connection.clone());
        tokio::spawn(unseen::note(shared, connection, here));
        Ok(())
    }

    fn on_event(&mut self, connection: &Connection, event: HostEvent) {
        let stay = self.guests.get(&event.domain).map(|guest| guest.stay);
        let (next, actions) = on_event(stay, event.kind);
        // It leaves the table once all is told: whoever hands its logs over has to hear how it ends,
        // also where this is the first that is heard of it.
        let offers = actions.contains(&Action::Offer);
        let meanwhile = next.or_else(|| offers.then_some(Stay::Leaving { suspected: false }));
        if meanwhile.is_some() {
            self.enter(event.domain, meanwhile);
        }
        self.act(connection, event.domain, actions);
        self.enter(event.domain, next);
        if let Some(guest) = self.guests.get_mut(&event.domain) {
            guest.told = Instant::now();
        }
    }

    fn on_answer(&mut self, connection: &Connection, answer: Answer) {
        match answer {
            Answer::Found(_, Ok(Some(found))) => self.learn(found),
            Answer::Found(uuid, Ok(None)) => {
                tracing::debug!(domain = %uuid, "it went before its logs were looked at");
            }
            Answer::Found(uuid, Err(reason)) => self.shared.events.warn(format!(
                "domain {uuid}: nobody can tell which logs it has: {reason}"
            )),
            Answer::Looked(uuid, looked) => {
                let Some(guest) = self.guests.get_mut(&uuid) else {
                    return;
                };
                guest.is_looked_at = false;
                let look = match looked {
                    Ok(look) => look,
                    Err(reason) => {
                        tracing::debug!(domain = %uuid, reason, "it is looked at again");
                        return;
                    }
                };
                let (next, actions) = on_look(Some(guest.stay), look);
                if next.is_some() {
                    self.enter(uuid, next);
                }
                self.act(connection, uuid, actions);
                self.enter(uuid, next);
            }
        }
    }

    /// Where a domain stands from now on.
    fn enter(&mut self, uuid: Uuid, stay: Option<Stay>) {
        let Some(stay) = stay else {
            if self.guests.remove(&uuid).is_some() {
                self.here.leaves(uuid);
                self.shared.meet.left(uuid);
                self.shared.streams.left(uuid);
            }
            return;
        };
        let guest = self.guests.entry(uuid).or_insert_with(|| Guest {
            stay,
            known: None,
            source: None,
            arrival: None,
            is_looked_at: false,
            told: Instant::now(),
        });
        guest.stay = stay;
        let name = match &guest.known {
            Some(known) => known.domain.name().to_owned(),
            None => uuid.to_string(),
        };
        self.here.enters(Vm { uuid, name }, stay);
        self.stream(uuid);
    }

    /// The logs of a guest that runs here are streamed, where that is wanted.
    fn stream(&self, uuid: Uuid) {
        let Some(guest) = self.guests.get(&uuid) else {
            return;
        };
        if let (Stay::Running, Some(known)) = (guest.stay, &guest.known) {
            let name = known.domain.name().to_owned();
            let logs = known.logs.iter().map(|known| known.log.clone()).collect();
            let streams = &self.shared.streams;
            streams.here(Vm { uuid, name }, logs, known.numbering);
        }
    }

    /// Which logs a domain has.
    fn learn(&mut self, found: Found) {
        let uuid = found.domain.uuid();
        let vm = Vm {
            uuid,
            name: found.domain.name().to_owned(),
        };
        let events = &self.shared.events;
        let known = match found.known {
            Ok(known) => known,
            Err(e) => {
                events.warn(format!(
                    "{}: nobody can tell which logs it has: {e}",
                    vm.name
                ));
                return;
            }
        };
        for reason in found.left_out {
            events.warn(format!("{}: {reason}: it cannot be carried", vm.name));
        }
        if let Some(guest) = self.guests.get_mut(&uuid) {
            guest.known = Some(Arc::new(known));
            self.here.enters(vm, guest.stay);
            self.stream(uuid);
        }
    }

    fn act(&mut self, connection: &Connection, uuid: Uuid, actions: Vec<Action>) {
        let never_came = actions.contains(&Action::NeverCame);
        for action in actions {
            tracing::debug!(domain = %uuid, ?action, "the agent acts");
            match action {
                Action::Hold | Action::LookAtLogs => {
                    neighbours::outdated();
                    self.ask_logs(connection, uuid);
                }
                Action::Receive | Action::Offer if self.shared.is_draining() => {
                    tracing::info!(domain = %uuid, "the agent drains, so this waits for its next start");
                }
                Action::Receive => {
                    self.shared.meet.comes(uuid);
                    let arrival = watch::Sender::new(Arrival::Coming);
                    let seen = arrival.subscribe();
                    if let Some(guest) = self.guests.get_mut(&uuid) {
                        guest.arrival = Some(arrival);
                    }
                    let (shared, connection) = (Arc::clone(&self.shared), connection.clone());
                    let arriving = shared.streams.arriving(uuid);
                    tokio::spawn(async move {
                        destination::receive(shared, connection, uuid, seen).await;
                        drop(arriving);
                    });
                }
                Action::Came => self.arrived(uuid, Arrival::Came(std::time::Instant::now())),
                Action::NeverCame => self.arrived(uuid, Arrival::Never),
                Action::Offer => {
                    // What has not arrived of its log by now goes back to where it comes from.
                    self.arrived(uuid, Arrival::Never);
                    let source = watch::Sender::new(Source::Running);
                    let known = self.guests.get_mut(&uuid).and_then(|guest| {
                        guest.source = Some(source.clone());
                        guest.known.clone()
                    });
                    let (shared, connection) = (Arc::clone(&self.shared), connection.clone());
                    let host = self.host;
                    tokio::spawn(source::offer(
                        shared,
                        (connection, host, self.here.clone()),
                        (uuid, known),
                        source,
                    ));
                }
                Action::Tell(now) => {
                    let guest = self.guests.get(&uuid);
                    if let Some(source) = guest.and_then(|guest| guest.source.as_ref()) {
                        source.send_replace(now);
                    }
                }
                Action::LetGo => {
                    neighbours::outdated();
                    self.let_go(connection, uuid, never_came);
                }
            }
        }
    }

    fn arrived(&mut self, uuid: Uuid, arrival: Arrival) {
        let guest = self.guests.get(&uuid);
        if let Some(tell) = guest.and_then(|guest| guest.arrival.as_ref()) {
            tell.send_replace(arrival);
        }
    }

    fn ask_logs(&self, connection: &Connection, uuid: Uuid) {
        let (connection, answer) = (connection.clone(), self.answer.clone());
        let (events, held) = (self.shared.events.clone(), self.shared.held.clone());
        tokio::spawn(async move {
            let (found, numbering) =
                tokio::join!(connection.running_domain(uuid), numbering(&events));
            let found = match found {
                Ok(Some(found)) => {
                    let hold = move || Found::hold(&held, found, numbering);
                    let found = tokio::task::spawn_blocking(hold).await;
                    if let Ok(found) = &found {
                        found.find_nameless().await;
                    }
                    found.map(Some).map_err(|e| e.to_string())
                }
                Ok(None) => Ok(None),
                Err(e) => Err(e.to_string()),
            };
            drop(answer.send(Answer::Found(uuid, found)).await);
        });
    }

    /// Lets go of the logs of a domain that ended here, once it is sure that the domain does not
    /// start here again. As long as libvirt knows it, its next start or its return would wipe them.
    ///
    /// `never_came`: it was to come by migration, and did not. Then it is sure at once, and what is
    /// held is no more than the history that was to come with it.
    fn let_go(&self, connection: &Connection, uuid: Uuid, never_came: bool) {
        let (connection, held) = (connection.clone(), self.shared.held.clone());
        let here = self.here.clone();
        tokio::spawn(async move {
            let found = connection.lookup_uuid(uuid).await;
            let mut is_over = matches!(found, Err(logchain_libvirt::Error::NoDomain { .. }));
            if is_over && held.keeps_boots() > 0 && !never_came {
                drop(connection);
                sleep(DEFINED_ANEW).await;
            }
            is_over &= here.stay(uuid).is_none();
            if is_over {
                held.let_go(uuid);
            }
        });
    }

    /// Looks at the domains that come or leave: what happens to them may be told by no event.
    fn look(&mut self, connection: &Connection) {
        let moving = self.guests.iter();
        let moving: Vec<Uuid> = moving
            .filter(|(_, guest)| match guest.stay {
                Stay::Running => false,
                Stay::Coming => true,
                Stay::Leaving { .. } => guest.told.elapsed() >= QUIET,
            })
            .map(|(uuid, _)| *uuid)
            .collect();
        for uuid in moving {
            self.ask_look(connection, uuid);
        }
    }

    /// One question at a time for each domain: one that hangs is not asked again meanwhile.
    fn ask_look(&mut self, connection: &Connection, uuid: Uuid) {
        let Some(guest) = self.guests.get_mut(&uuid) else {
            return;
        };
        if std::mem::replace(&mut guest.is_looked_at, true) {
            return;
        }
        let (connection, answer) = (connection.clone(), self.answer.clone());
        tokio::spawn(async move {
            let looked = look_at(&connection, uuid).await;
            let looked = looked.map_err(|e| e.to_string());
            drop(answer.send(Answer::Looked(uuid, looked)).await);
        });
    }
}

async fn next_word(words: &mut Option<mpsc::Receiver<Uuid>>) -> Option<Uuid> {
    match words {
        Some(words) => words.recv().await,
        None => std::future::pending().await,
    }
}

async fn look_at(connection: &Connection, uuid: Uuid) -> logchain_libvirt::Result<Look> {
    use logchain_libvirt::Error as Libvirt;

    let gone = Look {
        state: State::Gone,
        job: None,
    };
    let domain = match connection.lookup_uuid(uuid).await {
        Err(Libvirt::NoDomain { .. }) => return Ok(gone),
        found => found?,
    };
    // The job first: one that ends between the two answers has changed the state by then.
    let job = match domain.job().await {
        Ok(job) => job,
        Err(Libvirt::NoDomain { .. }) => return Ok(gone),
        Err(Libvirt::Unsupported { .. } | Libvirt::Failed { .. }) => None,
        Err(e) => return Err(e),
    };
    let state = domain.state().await?;
    Ok(Look { state, job })
}
