//! A domain leaves: its logs are handed over.
//!
//! Must not know: how it was noticed that the domain leaves.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::OkLogged as _;
use logchain_core::handoff::Handoff;
use logchain_core::handoff::offer::{Held, Outcome, Source};
use logchain_core::holds::HeldLog;
use logchain_core::ids::HandoffId;
use logchain_core::outbox::KeepOutcome;
use logchain_libvirt::{Connection, State};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{Instrument as _, info_span};
use uuid::Uuid;

use super::Vm;
use super::here::Here;
use super::known::{Known, is_at_its_path, logs_of, numbering};
use super::make_way::make_way;
use super::meet::Towards;
use super::peers::NoWay;
use super::shared::{Shared, UnderWay};
use crate::blocking::blocking;
use crate::carry::{Carry, RemoteHalf, Route};
use crate::departures::DepartureNote;
use crate::event::{HandoffOutcome, HandoffRole, HandoffSummary};
use crate::hosts::Hosts;
use crate::left_behind::OfferOptions;
use crate::log::ConsoleLog;
use crate::outbox::Keepers;
use crate::turn::Turn;
use crate::{Error, Events, Result, astray};

/// How long a history that is still arriving here is waited for when its domain leaves again.
const ARRIVAL: Duration = Duration::from_secs(5);

/// After the guest has left most handoffs end sooner, and need nothing to be done beside them.
const USUAL_END: Duration = Duration::from_millis(250);

/// Between two looks whether the domain is back.
const IS_BACK: Duration = Duration::from_millis(50);

/// Hands over the logs of a domain, as `source` tells that its migration goes on.
pub(super) async fn offer(
    shared: Arc<Shared>,
    (connection, host, here): (Connection, Option<Uuid>, Here),
    (uuid, known): (Uuid, Option<Arc<Known>>),
    source: watch::Sender<Source>,
) {
    let span = info_span!("agent", half = "source", domain = %uuid);
    let work = async {
        let known = match known {
            Some(known) => known,
            None => look_up(&shared, &connection, uuid).await?,
        };
        let vm = Vm {
            uuid,
            name: known.domain.name().to_owned(),
        };
        let events = shared.events_of(&vm);
        let handing_over = HandingOver {
            shared: &shared,
            host,
            known: &known,
            vm,
            stay: here.number_of_stay(uuid),
            here,
            events,
            keepers: Keepers::new(&shared.config().state),
        };
        tokio::select! {
            done = handing_over.run(&source) => done,
            never = handing_over.make_way_soon(&source) => match never {},
        }
    };
    if let Err(e) = work.instrument(span).await {
        let reason = e.sentence();
        shared.events.warn(format!(
            "domain {uuid} leaves, and its log cannot be handed over now: {reason}"
        ));
    }
}

/// For a domain that nobody had told of before it left.
async fn look_up(shared: &Shared, connection: &Connection, uuid: Uuid) -> Result<Arc<Known>> {
    let domain = connection.lookup_uuid(uuid).await?;
    let found = logchain_libvirt::consoles::read(&domain.live_xml().await?)?;
    let (logs, _) = logs_of(found);
    let numbering = numbering(&shared.events).await;
    Ok(Arc::new(Known {
        domain,
        logs,
        numbering,
    }))
}

struct HandingOver<'a> {
    shared: &'a Arc<Shared>,
    here: Here,
    /// The number of the stay that ends.
    stay: Option<u64>,
    /// This host, as libvirt tells it from others.
    host: Option<Uuid>,
    known: &'a Known,
    vm: Vm,
    events: Events,
    keepers: Keepers,
}

/// A log, the handoff that it goes as, and its descriptors, or why there are none.
type OfferedLog = (ConsoleLog, HandoffId, Result<Held>);

/// A log that is held, the handoff that it goes as, and its way, or why there is none.
type Started = (ConsoleLog, HandoffId, Result<Carry>);

impl HandingOver<'_> {
    async fn run(&self, source: &watch::Sender<Source>) -> Result<()> {
        let state = &self.shared.config().state;
        let turn = Turn::take(state, self.vm.uuid, HandoffRole::Source).await;
        let _turn = match turn {
            Ok(Some(turn)) => Some(turn),
            Ok(None) => {
                tracing::info!("another process of logchain hands its log over");
                return Ok(());
            }
            Err(e) => {
                self.events.warn(e.sentence());
                None
            }
        };
        let _leaving = self.shared.held.leaving(self.vm.uuid);
        // What is shown of a history that has not arrived is no part of this log: its source
        // has it, and would be told of it by nobody. So that comes to its end first.
        let domain = self.vm.uuid;
        let arrived = Turn::wait(state, domain, HandoffRole::Destination, ARRIVAL);
        let arrived = arrived.await.ok().flatten();
        // Held first: whatever the transport does, the bytes are ours.
        let held = self.hold().await;
        drop(arrived);
        let under_way: Vec<UnderWay> = held
            .iter()
            .map(|(log, ..)| {
                self.shared
                    .begin(&self.vm, &log.console, HandoffRole::Source)
            })
            .collect();
        // What waits for its turn is held already.
        let _turn_of_handoffs = self.shared.turn().await;
        // Before anything is begun: a start after a kill finds it.
        let logs: Vec<&ConsoleLog> = held.iter().map(|(log, ..)| log).collect();
        let note = self.note(&logs);
        let (mut note, towards) = tokio::join!(note, self.towards(source));
        let url = match &towards {
            Ok(towards) => Some(towards.choice.to_string()),
            Err(no_way) => no_way.towards.clone(),
        };
        if let Some(url) = url
            && let Some(begun) = note.take()
        {
            note = Some(begun.goes_over(&url).await);
        }
        let started = match &towards {
            Ok(towards) => self.start(held, towards, source).await,
            Err(no_way) => {
                let reason = no_way.error.sentence();
                let not_started = held.into_iter().map(|(log, id, _)| {
                    let why = Error::Handoff(reason.clone());
                    (log, id, Err(why))
                });
                not_started.collect()
            }
        };

        let mut fate = source.subscribe();
        let fate = fate
            .wait_for(|now| matches!(now, Source::Over | Source::Stays))
            .await;
        let went = fate.is_ok_and(|now| *now == Source::Over);
        let mut is_carried = true;
        for ((log, id, carry), under_way) in started.into_iter().zip(under_way) {
            if let Ok(towards) = &towards {
                under_way.peer(&towards.choice.to_string());
            }
            let outcome = match carry {
                Ok(carry) => {
                    under_way.bytes(*carry.put.borrow());
                    carry.end().await.0
                }
                Err(e) => Outcome::NotCarried {
                    reason: e.sentence(),
                },
            };
            if matches!(outcome, Outcome::Carried(_)) {
                if let Some(note) = &mut note {
                    note.received(&log.console);
                }
                if let Some(held) = self.held_of(&log).cloned() {
                    // It is written down for the agent that starts next.
                    let received = tokio::task::spawn_blocking(move || held.received(id));
                    received
                        .await
                        .ok_logged("it may be put into the outbox although it has arrived");
                }
            }
            is_carried &= matches!(outcome, Outcome::Carried(_));
            let next = match &outcome {
                Outcome::NotCarried { .. } if went => Some(self.put_down(&log).await),
                _ => None,
            };
            if went {
                self.make_way(&log).await;
            }
            self.tell(&log, outcome, went, next);
        }
        if went && is_carried {
            self.shared.held.release(self.vm.uuid);
        }
        match note {
            Some(note) if went => note.end(&self.known.domain).await,
            Some(note) => note.withdraw().await,
            None => Ok(()),
        }
    }

    /// Holds every log.
    async fn hold(&self) -> Vec<OfferedLog> {
        let mut all_held = Vec::new();
        for known in &self.known.logs {
            let (id, log) = (HandoffId::random(), &known.log);
            let held = match &known.held {
                Some(held) => self.take(log, id, held).await,
                None => self.open(log, id).await,
            };
            if let Ok(held) = &held {
                log.tell_remarks(&self.events, held);
                if let Err(e) = self.keepers.keep(log, held) {
                    self.events
                        .warn(format!("{}: {}", log.console, e.sentence()));
                }
            }
            all_held.push((log.clone(), id, held));
        }
        all_held
    }

    /// Of a log that is held all the time.
    async fn take(&self, log: &ConsoleLog, id: HandoffId, held: &Arc<HeldLog>) -> Result<Held> {
        let (held, handoff) = (
            Arc::clone(held),
            Handoff {
                domain: self.vm.uuid,
                console: log.console.clone(),
                id,
            },
        );
        blocking(move || {
            let taken = held.take()?;
            taken
                .announce(&handoff)
                .ok_logged("a folder that cannot be written here is shared with nobody who could");
            Ok(taken)
        })
        .await
    }

    /// Of a log that could not be held before.
    async fn open(&self, log: &ConsoleLog, id: HandoffId) -> Result<Held> {
        let astray = match is_at_its_path(log.path.clone()).await {
            true => None,
            false => astray::astray(&self.known.domain, &log.path).await,
        };
        let newest = astray.and_then(|astray| {
            self.events
                .warn(format!("{}: {}", log.console, astray.sentence));
            astray.file
        });
        let known = (newest, Some(self.known.numbering));
        log.hold_for(self.vm.uuid, Some(id), known, &self.events)
            .await
    }

    /// Starts to hand over what is held.
    async fn start(
        &self,
        all_held: Vec<OfferedLog>,
        towards: &Towards,
        source: &watch::Sender<Source>,
    ) -> Vec<Started> {
        let route = Route {
            events: self.events.clone(),
            choice: &towards.choice,
            ssh: &self.shared.meet.ssh(),
            patience: self.shared.patience(),
            domain: self.vm.uuid,
            domain_name: &self.vm.name,
            hosts: Hosts {
                source: self.host,
                destination: None,
            },
            budget: self.shared.budget.clone(),
            writers: Arc::default(),
        };
        let mut started = Vec::new();
        for (log, id, held) in all_held {
            let remote = RemoteHalf::of(&route, &log.console, id, None);
            let carry = match (held, remote) {
                (Ok(held), Ok(remote)) => {
                    let transport = Arc::clone(&towards.transport);
                    let source = source.subscribe();
                    Carry::start(&route, transport, remote, held, source, false).await
                }
                (Ok(_), Err(e)) => Err(e),
                (Err(e), remote) => {
                    if let Ok(remote) = remote {
                        remote.end().await;
                    }
                    Err(e)
                }
            };
            started.push((log, id, carry));
        }
        started
    }

    /// Puts down that the domain leaves, for `reap`, `status`, and the next try.
    async fn note(&self, logs: &[&ConsoleLog]) -> Option<DepartureNote> {
        let config = self.shared.config();
        let state = &config.state;
        let offer = OfferOptions {
            transport: self.shared.meet.shared_url().unwrap_or_default(),
            connect: Some(&config.connect),
            remote: Some(&config.meet.ssh.logchain),
        };
        // Nothing in libvirt names the host that it goes to.
        let to = ("", None);
        match DepartureNote::begin(state, &self.known.domain, to, &offer, logs).await {
            Ok(note) => Some(note),
            Err(e) => {
                self.events.warn(e.sentence());
                None
            }
        }
    }

    fn held_of(&self, log: &ConsoleLog) -> Option<&Arc<HeldLog>> {
        let mut known = self.known.logs.iter();
        let known = known.find(|known| known.log.console == log.console);
        known.and_then(|known| known.held.as_ref())
    }

    /// Whether the domain left, and is here again.
    fn is_back(&self) -> bool {
        let now = self.here.number_of_stay(self.vm.uuid);
        now.is_some() && now != self.stay
    }

    /// The way to the other host. It is not looked for any longer once the domain is back here: it
    /// may leave again, to another host, and what is held of this stay is a part of its log then.
    async fn towards(&self, source: &watch::Sender<Source>) -> Result<Towards, NoWay> {
        let comes_back = async {
            while !self.is_back() {
                sleep(IS_BACK).await;
            }
        };
        let towards = tokio::select! {
            towards = self.shared.meet.towards(&self.vm, source.subscribe()) => towards,
            () = comes_back => Err(back()),
        };
        towards.and_then(|towards| match self.is_back() {
            true => Err(back()),
            false => Ok(towards),
        })
    }

    /// Where the handoff takes long after the guest has left, the logs make way meanwhile: the guest
    /// may be back before it ends. What it writes then is no part of what is kept.
    async fn make_way_soon(&self, source: &watch::Sender<Source>) -> Infallible {
        let mut fate = source.subscribe();
        let over = fate.wait_for(|now| *now == Source::Over).await.is_ok();
        if over {
            self.keepers.guest_left();
            sleep(USUAL_END).await;
            for known in &self.known.logs {
                make_way(known, self.known.numbering).await;
            }
        }
        std::future::pending().await
    }

    /// The guest has left: its log makes way for its next stay.
    async fn make_way(&self, log: &ConsoleLog) {
        let mut known = self.known.logs.iter();
        if let Some(known) = known.find(|k| k.log.console == log.console) {
            make_way(known, self.known.numbering).await;
        }
    }

    /// Keeps what was not carried; says what happens next.
    async fn put_down(&self, log: &ConsoleLog) -> String {
        // Where libvirt has forgotten the domain, whoever had that done removes its folder next.
        let gone = matches!(self.known.domain.state().await, Ok(State::Gone));
        match self.keepers.put_down(log, gone).await {
            Ok(KeepOutcome::There) => {
                format!("it is whole at {}, and offered again", log.path.display())
            }
            Ok(KeepOutcome::PutDown(entry)) => format!(
                "it is in the outbox at {}, and offered again",
                entry.path.display()
            ),
            Ok(KeepOutcome::Empty) => "nothing is left of it here".to_owned(),
            Err(e) => format!("what is held of it could not be put down: {}", e.sentence()),
        }
    }

    fn tell(&self, log: &ConsoleLog, outcome: Outcome, went: bool, next: Option<String>) {
        let mut summary = HandoffSummary {
            domain: self.vm.name.clone(),
            uuid: self.vm.uuid,
            console: log.console.clone(),
            role: HandoffRole::Source,
            outcome: HandoffOutcome::Withdrawn,
            peer: None,
            bytes: 0,
            dropped: 0,
            window_ms: None,
            reason: None,
            next,
        };
        match outcome {
            Outcome::Carried(receipt) => {
                summary.outcome = HandoffOutcome::Carried;
                summary.bytes = receipt.bytes;
                summary.dropped = receipt.dropped;
                summary.peer = Some(receipt.host);
            }
            Outcome::NotCarried { reason } if went => {
                summary.outcome = HandoffOutcome::NotCarried;
                summary.reason = Some(reason);
            }
            // Where the migration failed, nothing had to be carried.
            Outcome::NotCarried { .. } | Outcome::Aborted => {}
        }
        self.shared.ended(summary);
    }
}

fn back() -> NoWay {
    NoWay {
        error: Error::Handoff("the domain is back here".to_owned()),
        towards: None,
    }
}
