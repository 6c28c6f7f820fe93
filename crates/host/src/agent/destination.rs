//! A domain comes: what is handed over of its logs is taken in.
//!
//! Must not know: how it was noticed that the domain comes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::handoff::adopt::{Outcome, SourceLink};
use logchain_core::handoff::{Begin, Handoff, begin_of, waiting};
use logchain_core::ids::ConsoleName;
use logchain_libvirt::Connection;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::sleep;
use tracing::{Instrument as _, info_span};
use uuid::Uuid;

use super::Vm;
use super::here::Arrival;
use super::shared::{Shared, UnderWay};
use crate::adopt::{TakenIn, Work};
use crate::event::{HandoffOutcome, HandoffRole, HandoffSummary};
use crate::turn::Turn;
use crate::{Error, Result};

/// Time between two looks for what is offered: at first every moment counts.
fn pace(since: Duration) -> Duration {
    match since.as_secs() {
        0..10 => Duration::from_millis(20),
        10..60 => Duration::from_millis(250),
        _ => Duration::from_secs(2),
    }
}

/// Takes in what is handed over of a domain that comes, until all of it is here, or nothing
/// more is to be expected.
pub(super) async fn receive(
    shared: Arc<Shared>,
    connection: Connection,
    uuid: Uuid,
    arrival: watch::Receiver<Arrival>,
) {
    let span = info_span!("agent", half = "destination", domain = %uuid);
    let receiving = async {
        let vm = name(&connection, uuid).await;
        shared.meet.announce(&vm, arrival.clone());
        match Receiving::begin(&shared, connection, vm).await? {
            Some(mut receiving) => receiving.run(arrival).await,
            None => Ok(()),
        }
    };
    if let Err(e) = receiving.instrument(span).await {
        let reason = e.sentence();
        shared.events.warn(format!(
            "domain {uuid} comes, and its log cannot be taken in now: {reason}; it is looked for \
             again"
        ));
    }
}

/// Takes in what is offered of a domain that runs here already.
pub(super) async fn take_in_late(
    shared: &Arc<Shared>,
    connection: Connection,
    vm: Vm,
) -> Result<()> {
    let came = watch::Sender::new(Arrival::Came(Instant::now()));
    let Some(mut receiving) = Receiving::begin(shared, connection, vm).await? else {
        return Ok(());
    };
    receiving.is_late = true;
    receiving.run(came.subscribe()).await
}

async fn name(connection: &Connection, uuid: Uuid) -> Vm {
    let found = connection.lookup_uuid(uuid).await;
    let name = found.map_or_else(|_| uuid.to_string(), |domain| domain.name().to_owned());
    Vm { uuid, name }
}

/// A handoff, what its source said first, and how it ended.
type Ended = (Handoff, Option<Begin>, Result<TakenIn>);

/// A handoff that is taken in.
struct Adoption {
    handoff: Handoff,
    task: Id,
    abort: AbortHandle,
    _under_way: UnderWay,
}

struct Receiving<'a> {
    shared: &'a Arc<Shared>,
    vm: Vm,
    work: Work,
    link: watch::Sender<SourceLink>,
    tasks: JoinSet<Ended>,
    /// For each console the one that is taken in now.
    now: HashMap<ConsoleName, Adoption>,
    /// Those that came to their end, and how many of them were adopted.
    ended: Vec<Handoff>,
    adopted: usize,
    /// Whether the domain runs here for longer: nobody waits for it.
    is_late: bool,
    /// Whether its guest ran here.
    has_come: bool,
}

impl<'a> Receiving<'a> {
    /// `None` where each source starts the half here by itself.
    async fn begin(
        shared: &'a Arc<Shared>,
        connection: Connection,
        vm: Vm,
    ) -> Result<Option<Self>> {
        let Some(transport) = shared.meet.shared().await? else {
            return Ok(None);
        };
        let link = watch::Sender::new(SourceLink::NEW);
        let work = Work {
            state: shared.config().state.clone(),
            patience: shared.patience(),
            events: shared.events_of(&vm),
            connection,
            domain: vm.uuid,
            transport,
            source: link.subscribe(),
            stop: shared.stop.clone(),
            budget: shared.budget.clone(),
            limits: Arc::default(),
        };
        // To find them out takes a while, and they are wanted as soon as something comes.
        let early = work.clone();
        tokio::spawn(async move { drop(early.limits().await) });
        Ok(Some(Self {
            shared,
            vm,
            work,
            link,
            tasks: JoinSet::new(),
            now: HashMap::new(),
            ended: Vec::new(),
            adopted: 0,
            is_late: false,
            has_come: false,
        }))
    }

    async fn run(&mut self, mut arrival: watch::Receiver<Arrival>) -> Result<()> {
        let state = &self.shared.config().state;
        let (uuid, patience) = (self.vm.uuid, self.shared.patience());
        let role = HandoffRole::Destination;
        let _turn = match Turn::take(state, uuid, role).await {
            Ok(Some(turn)) => Some(turn),
            Ok(None) => {
                tracing::debug!("another task or process of logchain takes its log in");
                return Ok(());
            }
            Err(e) => {
                self.work.events.warn(e.sentence());
                None
            }
        };
        let began = Instant::now();
        let mut stored = self.shared.meet.stored();
        loop {
            let now = *arrival.borrow_and_update();
            match now {
                Arrival::Never => {
                    self.link.send_replace(SourceLink::Gone);
                    while let Some(ended) = self.tasks.join_next_with_id().await {
                        self.on_end(ended, now);
                    }
                    return Ok(());
                }
                Arrival::Came(at) if at.elapsed() > patience => {
                    // Whoever has sent nothing by now is gone.
                    self.link.send_replace(SourceLink::Gone);
                }
                Arrival::Came(_) | Arrival::Coming => {}
            }
            let offered = waiting(&*self.work.transport, uuid).await;
            let more = match offered {
                Ok(offered) => self.start(offered).await,
                Err(e) => {
                    tracing::debug!(error = %Error::from(e).sentence(), "it is looked for again");
                    true
                }
            };
            if let Arrival::Came(at) = now
                && !more
                && self.now.is_empty()
                && (self.is_late || self.adopted > 0 || at.elapsed() > patience)
            {
                self.conclude();
                return Ok(());
            }
            self.has_come |= matches!(now, Arrival::Came(_));
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => self.on_end(ended, now),
                Ok(()) = arrival.changed() => {}
                () = changed(&mut stored) => self.link.send_modify(SourceLink::has_put),
                () = sleep(pace(began.elapsed())) => {}
            }
        }
    }

    /// Takes in what is offered: of each console the newest first, since each goes behind all
    /// that is there. Says whether anything is left to be taken in.
    async fn start(&mut self, offered: Vec<Handoff>) -> bool {
        let offered = offered.into_iter().filter(|h| !self.ended.contains(h));
        let offered: Vec<Handoff> = offered.collect();
        if offered.is_empty() {
            return false;
        }
        let mut newest: HashMap<ConsoleName, (Handoff, Option<Begin>)> = HashMap::new();
        for handoff in offered {
            let begin = begin_of(&*self.work.transport, &handoff).await;
            let at = begin.as_ref().map(|begin| begin.at);
            match newest.get(&handoff.console) {
                Some((_, other)) if other.as_ref().map(|other| other.at) >= at => {}
                _ => {
                    newest.insert(handoff.console.clone(), (handoff, begin));
                }
            }
        }
        for (console, (handoff, begin)) in newest {
            if let Some(now) = self.now.get(&console) {
                if now.handoff == handoff {
                    continue;
                }
                // It is older, and would keep the newer one waiting. It comes next.
                now.abort.abort();
                self.now.remove(&console);
            }
            let role = HandoffRole::Destination;
            let under_way = self.shared.begin(&self.vm, &console, role);
            if let Some(begin) = &begin {
                under_way.peer(&begin.host);
            }
            let (work, which) = (self.work.clone(), handoff.clone());
            let taking_in = async move {
                let taken = work.take_in(which.clone(), None).await;
                (which, begin, taken)
            };
            let abort = self.tasks.spawn(taking_in.in_current_span());
            let task = abort.id();
            self.now.insert(
                console,
                Adoption {
                    handoff,
                    task,
                    abort,
                    _under_way: under_way,
                },
            );
        }
        true
    }

    fn on_end(&mut self, ended: Result<(Id, Ended), JoinError>, arrival: Arrival) {
        let resumed = match arrival {
            Arrival::Came(at) if !self.is_late => Some(at),
            _ => None,
        };
        let migration_failed = matches!(arrival, Arrival::Never) && !self.has_come;
        let (handoff, begin, taken) = match ended {
            Ok((_, ended)) => ended,
            // Aborted for a newer one, or it failed by itself: it is found again.
            Err(e) => {
                self.now.retain(|_, adoption| adoption.task != e.id());
                return;
            }
        };
        self.now.remove(&handoff.console);
        self.ended.push(handoff.clone());
        let mut summary = HandoffSummary {
            domain: self.vm.name.clone(),
            uuid: self.vm.uuid,
            console: handoff.console,
            role: HandoffRole::Destination,
            outcome: HandoffOutcome::Withdrawn,
            peer: begin.map(|begin| begin.host),
            bytes: 0,
            dropped: 0,
            window_ms: None,
            reason: None,
            next: None,
        };
        match taken {
            Ok(TakenIn {
                outcome: Outcome::Adopted(receipt),
                complete,
            }) => {
                self.adopted = self.adopted.saturating_add(1);
                summary.outcome = HandoffOutcome::Carried;
                summary.bytes = receipt.bytes;
                summary.dropped = receipt.dropped;
                let window = complete.zip(resumed);
                let window = window.map(|(at, since)| at.saturating_duration_since(since));
                summary.window_ms = window.and_then(|w| u64::try_from(w.as_millis()).ok());
            }
            Ok(TakenIn {
                outcome: Outcome::Aborted,
                ..
            }) => {}
            // The source withdraws it, and may be gone with it before that is seen here.
            Ok(TakenIn {
                outcome: Outcome::Failed { .. },
                ..
            }) if migration_failed => {}
            Ok(TakenIn {
                outcome: Outcome::Failed { reason },
                ..
            }) => {
                summary.outcome = HandoffOutcome::NotCarried;
                summary.reason = Some(reason);
            }
            Err(e) => {
                summary.outcome = HandoffOutcome::NotCarried;
                summary.reason = Some(e.sentence());
            }
        }
        if summary.outcome == HandoffOutcome::NotCarried {
            let next = "the source keeps it and offers it again";
            summary.next = Some(next.to_owned());
        }
        self.shared.ended(summary);
    }

    /// Nothing more is to be expected.
    fn conclude(&self) {
        if self.ended.is_empty() && !self.is_late {
            let waited = self.shared.patience().as_secs();
            self.shared.events.warn(format!(
                "{}: it came here, and nobody has offered its log within {waited} s; whenever \
                 somebody does, it is taken in",
                self.vm.name
            ));
        }
    }
}

/// Waits until something was offered to this host; for ever where nobody can tell.
async fn changed(stored: &mut Option<watch::Receiver<u64>>) {
    if let Some(stored) = stored
        && stored.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
