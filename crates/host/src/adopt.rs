//! The destination's half of a handoff.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::departure::DEFAULT_STATE;
use logchain_core::handoff::adopt::{
    Adopt as Half, Destination as _, Milestone, Outcome, SourceLink,
};
use logchain_core::handoff::{Budget, Handoff, waiting};
use logchain_core::ids::{ConsoleName, HandoffId};
use logchain_core::transport::{Advice, LogTransport};
use logchain_libvirt::Connection;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::timeout;
use tracing::{Instrument as _, info_span};
use uuid::Uuid;

use crate::blocking::blocking;
use crate::event::HandoffRole;
use crate::hosts::{self, Elsewhere, Hosts};
use crate::incoming::IncomingDomain;
use crate::job::Finished;
use crate::leases::Leases;
use crate::limits::Limits;
use crate::meter::Meter;
use crate::progress::Phase;
use crate::remote_adopt::HEARTBEAT;
use crate::stop::Stop;
use crate::stoppable::{INTERRUPTED, Stoppable};
use crate::transports::{TransportChoice, ssh_options};
use crate::turn::Turn;
use crate::{Error, Event, Events, Result, consoles, departures, limits, outbox};

/// News that may wait to be told.
const NEWS: usize = 64;

/// How long the source's half may be silent once it has sent a heartbeat: six of them.
const SILENT: Duration = HEARTBEAT.saturating_mul(6);

/// Between two looks for what is offered.
const LOOK: Duration = Duration::from_millis(250);

/// Which domain's logs are taken in, and from where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// UUID of the domain, or its name where it is here already.
    pub domain: String,
    /// The one handoff to adopt, of the consoles that are named; without it all that wait.
    pub handoff: Option<HandoffId>,
    /// Consoles of that handoff, and where the log of each will lie when the domain is here.
    pub consoles: Vec<(ConsoleName, Option<PathBuf>)>,
    /// URI of the hypervisor here; libvirt's default without it.
    pub connect: Option<String>,
    /// Folder of what logchain remembers of this host.
    pub state: PathBuf,
    /// URL of the transport.
    pub transport: Option<String>,
    /// The hosts, as libvirt tells them apart: nothing is done on another one than the
    /// destination.
    pub hosts: Hosts,
    /// How long no news may come until the handoff is given up.
    pub patience: Duration,
}

impl Options {
    /// `logchain adopt` with its defaults.
    #[must_use]
    pub fn new(domain: impl Into<String>) -> Self {
        Self {
            domain: domain.into(),
            handoff: None,
            consoles: Vec::new(),
            connect: None,
            state: DEFAULT_STATE.into(),
            transport: None,
            hosts: Hosts::default(),
            patience: Duration::from_secs(60),
        }
    }
}

/// The pipe through which the source's half, which started this one, sends heartbeats.
pub type Heartbeats = Box<dyn AsyncRead + Send + Unpin>;

/// Takes in what is handed over. `attached`: the source's half started this one, and is gone
/// when this pipe closes or its heartbeats stop; it is told [`Event::hello`] first.
/// [`Finished::failures`] tell of the logs that did not come.
///
/// # Errors
/// [`Error::Refused`] on another host than the destination, where nothing is touched.
pub async fn adopt(
    options: Options,
    attached: Option<Heartbeats>,
    events: &Events,
    stop: &Stop,
) -> Result<Finished> {
    let span = info_span!("adopt", domain = options.domain);
    let job = async {
        tokio::select! {
            ended = take_in(&options, attached, events, stop) => ended,
            () = stop.forced() => Err(Error::Interrupted(
                "interrupted again: ended before all was put in order; adopt it again".to_owned(),
            )),
        }
    };
    job.instrument(span).await
}

async fn take_in(
    options: &Options,
    attached: Option<Heartbeats>,
    events: &Events,
    stop: &Stop,
) -> Result<Finished> {
    if attached.is_some() {
        events.tell(Event::hello());
    }
    let choice = TransportChoice::of(options.transport.as_deref(), None)?;
    let ssh = ssh_options(None, options.patience);
    let open = async {
        let connection = consoles::connect_local(options.connect.as_deref()).await?;
        refuse_elsewhere(options.hosts, events, &connection).await?;
        let domain = match options.domain.parse::<Uuid>() {
            Ok(uuid) => uuid,
            Err(_) => connection.lookup(&options.domain).await?.uuid(),
        };
        // The other half connects at the same time: it has made no folder yet, maybe.
        let transport = if attached.is_some() {
            choice.open(&ssh, options.patience).await?
        } else {
            choice.open_existing(&ssh, options.patience).await?
        };
        Ok::<_, Error>((connection, domain, transport))
    };
    let (connection, domain, transport) = stop.or(open).await?;
    // One of these runs for each console; the agent leaves all of them to those.
    let turn = Turn::wait_shared(
        &options.state,
        domain,
        HandoffRole::Destination,
        options.patience,
    );
    let _turn = match stop.or(turn).await {
        Ok(None) => {
            return Err(Error::Refused(format!(
                "another process of logchain takes in the logs of domain {domain}; see with \
                 logchain status how far it is"
            )));
        }
        Err(e @ Error::Interrupted(_)) => return Err(e),
        Err(e) => {
            events.warn(e.sentence());
            None
        }
        Ok(turn) => turn,
    };
    let stoppable = Stoppable::new(Arc::clone(&transport), stop.clone());
    let link = watch::Sender::new(match attached {
        Some(_) => SourceLink::NEW,
        None => SourceLink::NeverAttached,
    });
    let work = Work {
        state: options.state.clone(),
        patience: options.patience,
        events: events.clone(),
        connection,
        domain,
        transport: Arc::new(stoppable),
        source: link.subscribe(),
        stop: stop.clone(),
        budget: Budget::default(),
        limits: Arc::default(),
    };
    if let Some(heartbeats) = attached {
        tokio::spawn(watch_heartbeats(heartbeats, link));
    }
    let mut failures = Vec::new();
    if let Some(id) = options.handoff {
        for (console, path) in &options.consoles {
            let handoff = Handoff {
                domain,
                console: console.clone(),
                id,
            };
            failures.extend(work.adopt(handoff, path.clone()).await?);
        }
        return Ok(failures.into());
    }
    let mut offered = stop
        .or(work.wait_for_offer(&*transport, options.patience))
        .await?;
    let mut seen: Vec<Handoff> = Vec::new();
    while let Some(handoff) = offered.into_iter().find(|h| !seen.contains(h)) {
        seen.push(handoff.clone());
        failures.extend(work.adopt(handoff, None).await?);
        if stop.is_asked() {
            break;
        }
        // Another console's may have come meanwhile.
        offered = waiting(&*transport, domain).await?;
    }
    Ok(failures.into())
}

/// Before anything is touched: at another host than the one that the domain goes to, what
/// lies here is somebody else's, or the very log that is handed over.
async fn refuse_elsewhere(hosts: Hosts, events: &Events, connection: &Connection) -> Result<()> {
    if hosts == Hosts::default() {
        return Ok(());
    }
    let Err(elsewhere) = hosts.check(hosts::uuid_of(connection).await) else {
        return Ok(());
    };
    let own = consoles::own_name();
    events.tell(Event::Elsewhere {
        host: own.clone(),
        source: elsewhere == Elsewhere::Source,
    });
    let which = match elsewhere {
        Elsewhere::Source => "the host that the domain leaves",
        Elsewhere::OtherHost => "not the host that the domain goes to",
    };
    Err(Error::Refused(format!(
        "{own} is {which}: its log is not adopted here"
    )))
}

/// What all handoffs of a domain share that are taken in here.
#[derive(Clone)]
pub(crate) struct Work {
    /// Folder of what logchain remembers of this host.
    pub(crate) state: PathBuf,
    /// As [`Options::patience`].
    pub(crate) patience: Duration,
    pub(crate) events: Events,
    pub(crate) connection: Connection,
    pub(crate) domain: Uuid,
    pub(crate) transport: Arc<dyn LogTransport>,
    /// What is known of the source's half.
    pub(crate) source: watch::Receiver<SourceLink>,
    pub(crate) stop: Stop,
    /// What they take together.
    pub(crate) budget: Budget,
    /// How logs are rolled over here, once somebody asked.
    pub(crate) limits: Arc<OnceCell<Limits>>,
}

/// How one handoff ended here.
pub(crate) struct TakenIn {
    pub(crate) outcome: Outcome,
    /// When readers here had all of the history.
    pub(crate) complete: Option<Instant>,
}

impl Work {
    /// Waits until anything is offered.
    async fn wait_for_offer(
        &self,
        transport: &dyn LogTransport,
        patience: Duration,
    ) -> Result<Vec<Handoff>> {
        let started = Instant::now();
        let (domain, seconds) = (self.domain, patience.as_secs_f64());
        let mut told = false;
        loop {
            let offered = waiting(transport, domain).await;
            let late = started.elapsed() >= patience;
            match offered {
                Ok(offered) if !offered.is_empty() => return Ok(offered),
                Ok(_) if late => {
                    return Err(Error::Handoff(format!(
                        "nothing is offered for domain {domain} in {transport} after {seconds} s"
                    )));
                }
                Err(e) if late || e.advice() != Advice::Retry => return Err(e.into()),
                Ok(_) | Err(_) => {}
            }
            if !told {
                told = true;
                self.events.tell(Event::Waiting {
                    domain: domain.to_string(),
                    transport: Some(transport.to_string()),
                    seconds: Some(seconds),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Runs one half; gives what was told of it where the log did not come.
    async fn adopt(&self, handoff: Handoff, path: Option<PathBuf>) -> Result<Option<Event>> {
        let taken = self.take_in(handoff.clone(), path).await?;
        Ok(end(&self.events, &handoff, &taken.outcome))
    }

    /// How logs are rolled over here.
    pub(crate) async fn limits(&self) -> Result<Limits> {
        let look = || blocking(|| Ok(limits::limits()));
        Ok(self.limits.get_or_try_init(look).await?.clone())
    }

    /// Runs one half to its end. `path`: where the log will lie, for a domain that is not here
    /// yet.
    pub(crate) async fn take_in(&self, handoff: Handoff, path: Option<PathBuf>) -> Result<TakenIn> {
        let limits = self.limits().await?;
        limits.warn(&self.events);
        let (milestones, news) = mpsc::channel(NEWS);
        let staged = watch::Sender::new(0);
        let (to_tell, to_meter) = (staged.subscribe(), staged.subscribe());
        let arriving = Arc::new(IncomingDomain {
            connection: self.connection.clone(),
            domain: self.domain,
            console: handoff.console.clone(),
            limits: limits.clone(),
        });
        let half = Half::new(
            handoff.clone(),
            Arc::clone(&self.transport),
            Arc::new(Leases::default()),
            Arc::<IncomingDomain>::clone(&arriving),
        )
        .with_host(consoles::own_name())
        .with_expected(path.map(|path| limits.place(path)))
        .with_source(self.source.clone())
        .with_patience(self.patience)
        .with_progress(staged)
        .with_milestones(milestones)
        .with_budget(self.budget.clone());
        let meter = Meter::new(self.events.clone());
        meter.log(to_meter, 0);
        let told = tokio::spawn(tell(self.events.clone(), handoff.clone(), news, to_tell));
        let mut outcome = meter.during(Phase::Arrival, half.run()).await;
        let Told { placed, complete } = told.await?;
        if matches!(outcome, Outcome::Adopted(_)) {
            self.warn_of_cleaner(&arriving).await?;
            if let Err(e) = departures::came_back(&self.state, self.domain).await {
                self.events.warn(e.sentence());
            }
            // Older than what came just now: behind it.
            let (state, console) = (&*self.state, Some(&handoff.console));
            let to = (state, &self.events);
            let joined = outbox::rejoin(to, &self.connection, self.domain, console);
            for e in joined.await.1 {
                self.events.warn(e.sentence());
            }
        }
        if let Outcome::Failed { reason } = &mut outcome
            && self.stop.is_asked()
            && reason.ends_with(INTERRUPTED)
        {
            *reason = match placed {
                true => "interrupted before the source could be told; adopt it again",
                false => "interrupted; this host is as it was",
            }
            .to_owned();
        }
        Ok(TakenIn { outcome, complete })
    }

    /// Says which of the files that are in place now virtlogd will remove, though its
    /// rotation leaves them.
    async fn warn_of_cleaner(&self, at: &IncomingDomain) -> Result<()> {
        // A domain that went meanwhile has nobody who would read on.
        let Ok(Some(place)) = at.place().await else {
            return Ok(());
        };
        let limits = at.limits.clone();
        let look = move || limits.cleaned(&place.path);
        match tokio::task::spawn_blocking(look).await? {
            Ok(findings) => {
                for finding in findings {
                    self.events.warn(format!("{}: {finding}", at.console));
                }
            }
            // The history is in place all the same.
            Err(e) => self.events.warn(format!("{}: {e:#}", at.console)),
        }
        Ok(())
    }
}

/// The source's half is gone when the pipe closes. A host that vanishes closes nothing: where
/// heartbeats came, it is gone when they stop. A hook that only holds the pipe open sends none.
async fn watch_heartbeats(mut input: impl AsyncRead + Unpin, link: watch::Sender<SourceLink>) {
    let mut any = false;
    let mut ignored = [0; 64];
    loop {
        let most = if any { SILENT } else { Duration::MAX };
        match timeout(most, input.read(&mut ignored)).await {
            Ok(Ok(1..)) => {
                any = true;
                // Something was put, maybe.
                link.send_modify(SourceLink::has_put);
            }
            Ok(Ok(0) | Err(_)) | Err(_) => break,
        }
    }
    link.send_replace(SourceLink::Gone);
}

/// What the milestones said.
struct Told {
    /// Whether the history was put in place.
    placed: bool,
    /// When readers had all of it.
    complete: Option<Instant>,
}

/// Tells the milestones.
async fn tell(
    events: Events,
    handoff: Handoff,
    mut news: mpsc::Receiver<Milestone>,
    mut staged: watch::Receiver<u64>,
) -> Told {
    let mut told = Told {
        placed: false,
        complete: None,
    };
    let mut is_shown = false;
    let mut ended = false;
    loop {
        let console = handoff.console.clone();
        let milestone = tokio::select! {
            biased;
            changed = staged.changed(), if !ended => {
                ended = changed.is_err();
                if !ended {
                    let bytes = *staged.borrow_and_update();
                    events.tell(Event::Staged { console, bytes });
                    // What is staged from then on is seen at once.
                    if is_shown {
                        told.complete = Some(Instant::now());
                    }
                }
                continue;
            }
            milestone = news.recv() => milestone,
        };
        let Some(milestone) = milestone else {
            return told;
        };
        match milestone {
            Milestone::Shared => events.tell(Event::Shared { console }),
            Milestone::Ready => events.tell(Event::Ready { console }),
            Milestone::CanStage => {
                // Some may be staged by the time that this is told.
                let bytes = *staged.borrow_and_update();
                events.tell(Event::Staged { console, bytes });
            }
            Milestone::Shown(bytes) => {
                is_shown = true;
                told.complete = Some(Instant::now());
                events.tell(Event::Shown { console, bytes });
            }
            Milestone::Placed(placed) => {
                told.placed = true;
                told.complete.get_or_insert_with(Instant::now);
                events.tell(Event::Placed {
                    console,
                    files: placed.files,
                    dropped: placed.dropped,
                    warnings: placed.notes,
                });
            }
        }
    }
}

/// Tells how it ended; gives what it told where the log did not come.
fn end(events: &Events, handoff: &Handoff, outcome: &Outcome) -> Option<Event> {
    let console = handoff.console.clone();
    Some(events.fail(match outcome {
        Outcome::Adopted(receipt) => {
            events.tell(Event::Adopted {
                console,
                bytes: receipt.bytes,
                dropped: receipt.dropped,
                files: receipt.placed.clone(),
            });
            return None;
        }
        Outcome::Aborted => Event::Aborted { console },
        Outcome::Failed { reason } => Event::failed(console, reason),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test(start_paused = true)]
    async fn a_source_whose_heartbeats_stop_is_gone() {
        let (mut other, ours) = tokio::io::duplex(64);
        let link = watch::Sender::new(SourceLink::NEW);
        let mut seen = link.subscribe();
        let task = tokio::spawn(watch_heartbeats(ours, link.clone()));
        // A hook that only holds our input open gives none.
        tokio::time::sleep(100 * SILENT).await;
        assert_ne!(*link.borrow(), SourceLink::Gone);
        for _ in 0..20 {
            other.write_all(b"\n").await.unwrap();
            tokio::time::sleep(HEARTBEAT).await;
            assert!(seen.has_changed().unwrap(), "it looks for what was put");
            assert_ne!(*seen.borrow_and_update(), SourceLink::Gone);
        }
        task.await.unwrap();
        assert_eq!(
            *link.borrow(),
            SourceLink::Gone,
            "though its end of the pipe is open"
        );
        drop(other);
    }

    #[tokio::test]
    async fn the_end_of_our_input_is_the_end_of_the_other_half() {
        let (other, ours) = tokio::io::duplex(64);
        let link = watch::Sender::new(SourceLink::NEW);
        drop(other);
        watch_heartbeats(ours, link.clone()).await;
        assert_eq!(*link.borrow(), SourceLink::Gone);
    }
}
