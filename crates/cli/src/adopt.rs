//! `logchain adopt`: the destination's half.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::handoff::adopt::{
    Adopt as Half, Destination as _, Milestone, Outcome, SourceLink,
};
use logchain_core::handoff::{Budget, Handoff, waiting};
use logchain_core::transport::{Advice, LogTransport};
use logchain_host::consoles;
use logchain_host::hosts::{self, Elsewhere, Hosts};
use logchain_host::incoming::IncomingDomain;
use logchain_host::leases::Leases;
use logchain_host::limits;
use logchain_host::meter::Meter;
use logchain_host::progress::Phase;
use logchain_host::transports::{TransportChoice, ssh_options};
use logchain_host::{Event, Events};
use logchain_libvirt::Connection;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use uuid::Uuid;

use crate::args::Adopt;
use crate::ending::{Ending, INTERRUPTED};
use crate::exit::{Ended, Exit};
use crate::far::SIGN;
use crate::interrupt::Interrupt;
use crate::kept;
use crate::noted;
use crate::report::{self, Watch};

/// News that may wait to be told.
const NEWS: usize = 64;

/// How long the other half may give no sign of life, six of them.
const SILENT: Duration = SIGN.saturating_mul(6);

/// Between two looks for what is offered.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) async fn run(args: Adopt, interrupt: Interrupt) -> anyhow::Result<Exit> {
    tokio::select! {
        ended = take_in(&args, &interrupt) => ended,
        () = interrupt.forced() => {
            anyhow::bail!("interrupted again: ended before all was put in order; adopt it again")
        }
    }
}

async fn take_in(args: &Adopt, interrupt: &Interrupt) -> anyhow::Result<Exit> {
    let events = report::events(args.format, Watch::Terminal);
    if args.attached {
        events.tell(Event::hello());
    }
    let choice = TransportChoice::of(args.transport.as_deref(), None)?;
    let ssh = ssh_options(None, args.patience);
    let open = async {
        let connection = consoles::connect_local(args.connect.uri.as_deref()).await?;
        refuse_elsewhere(args, &events, &connection).await?;
        let domain = match args.domain.parse::<Uuid>() {
            Ok(uuid) => uuid,
            Err(_) => connection.lookup(&args.domain).await?.uuid(),
        };
        // The other half connects at the same time: it has made no folder yet, maybe.
        let transport = if args.attached {
            choice.open(&ssh, args.patience).await?
        } else {
            choice.open_existing(&ssh, args.patience).await?
        };
        Ok((connection, domain, transport))
    };
    let (connection, domain, transport) = interrupt.or(open).await?;
    let ending = Ending::new(Arc::clone(&transport), interrupt.clone());
    let link = watch::Sender::new(match args.attached {
        true => SourceLink::NEW,
        false => SourceLink::NeverAttached,
    });
    let work = Work {
        args,
        events: events.clone(),
        connection,
        domain,
        transport: Arc::new(ending),
        source: link.subscribe(),
        interrupt,
        budget: Budget::default(),
    };
    if args.attached {
        tokio::spawn(watch_input(tokio::io::stdin(), link));
    }
    let mut reasons = Vec::new();
    if let Some(id) = args.handoff {
        for (console, path) in &args.console {
            let handoff = Handoff {
                domain,
                console: console.clone(),
                id,
            };
            reasons.extend(work.adopt(handoff, path.clone()).await?);
        }
        return Ended::told(Exit::Failed, &reasons);
    }
    let mut offered = interrupt
        .or(work.wait_for_offer(&*transport, args.patience))
        .await?;
    let mut seen: Vec<Handoff> = Vec::new();
    while let Some(handoff) = offered.into_iter().find(|h| !seen.contains(h)) {
        seen.push(handoff.clone());
        reasons.extend(work.adopt(handoff, None).await?);
        if interrupt.came() {
            break;
        }
        // Another console's may have come meanwhile.
        offered = waiting(&*transport, domain).await?;
    }
    Ended::told(Exit::Failed, &reasons)
}

/// Before anything is touched: at another host than the one that the domain goes to, what
/// lies here is somebody else's, or the very log that is handed over.
async fn refuse_elsewhere(
    args: &Adopt,
    events: &Events,
    connection: &Connection,
) -> anyhow::Result<()> {
    let hosts = Hosts {
        source: args.from_host,
        destination: args.to_host,
    };
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
    match elsewhere {
        Elsewhere::Source => {
            anyhow::bail!("{own} is the host that the domain leaves: its log is not adopted here")
        }
        Elsewhere::OtherHost => anyhow::bail!(
            "{own} is not the host that the domain goes to: its log is not adopted here"
        ),
    }
}

/// What all handoffs of a run share.
struct Work<'a> {
    args: &'a Adopt,
    events: Events,
    connection: Connection,
    domain: Uuid,
    transport: Arc<dyn LogTransport>,
    source: watch::Receiver<SourceLink>,
    interrupt: &'a Interrupt,
    budget: Budget,
}

impl Work<'_> {
    /// Waits until anything is offered.
    async fn wait_for_offer(
        &self,
        transport: &dyn LogTransport,
        patience: Duration,
    ) -> anyhow::Result<Vec<Handoff>> {
        let started = Instant::now();
        let (domain, seconds) = (self.domain, patience.as_secs_f64());
        let mut told = false;
        loop {
            let offered = waiting(transport, domain).await;
            let late = started.elapsed() >= patience;
            match offered {
                Ok(offered) if !offered.is_empty() => return Ok(offered),
                Ok(_) if late => anyhow::bail!(
                    "nothing is offered for domain {domain} in {transport} after {seconds} s"
                ),
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

    /// Runs one half; gives why it failed, if it did.
    async fn adopt(
        &self,
        handoff: Handoff,
        path: Option<PathBuf>,
    ) -> anyhow::Result<Option<String>> {
        let limits = tokio::task::spawn_blocking(limits::limits).await?;
        limits.warn(&self.events);
        let (milestones, news) = mpsc::channel(NEWS);
        let staged = watch::Sender::new(0);
        let (told, counted) = (staged.subscribe(), staged.subscribe());
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
        .with_patience(self.args.patience)
        .with_progress(staged)
        .with_milestones(milestones)
        .with_budget(self.budget.clone());
        let meter = Meter::new(self.events.clone());
        meter.log(counted, 0);
        let told = tokio::spawn(tell(self.events.clone(), handoff.clone(), news, told));
        let mut outcome = meter.during(Phase::Arrival, half.run()).await;
        let placed = told.await?;
        if matches!(outcome, Outcome::Adopted(_)) {
            self.warn_of_cleaner(&arriving).await?;
        }
        if matches!(outcome, Outcome::Adopted(_))
            && let Err(reason) = noted::came_back(&self.args.state.folder, self.domain).await
        {
            self.events.warn(reason);
        }
        if matches!(outcome, Outcome::Adopted(_)) {
            // Older than what came just now: behind it.
            let (state, console) = (&*self.args.state.folder, Some(&handoff.console));
            let to = (state, &self.events);
            let joined = kept::rejoin(to, &self.connection, self.domain, console);
            for reason in joined.await.1 {
                self.events.warn(reason);
            }
        }
        if let Outcome::Failed { reason } = &mut outcome
            && self.interrupt.came()
            && reason.ends_with(INTERRUPTED)
        {
            *reason = match placed {
                true => "interrupted before the source could be told; adopt it again",
                false => "interrupted; this host is as it was",
            }
            .to_owned();
        }
        Ok(end(&self.events, &handoff, &outcome))
    }
}

impl Work<'_> {
    /// Says which of the files that are in place now virtlogd will remove, though its
    /// rotation leaves them.
    async fn warn_of_cleaner(&self, at: &IncomingDomain) -> anyhow::Result<()> {
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

/// Our input is the other half's life line: it ends with it. A host that vanished
/// without a word ends nothing, so whoever gave a sign of life once gives more of them.
async fn watch_input(mut input: impl AsyncRead + Unpin, link: watch::Sender<SourceLink>) {
    let mut signs = false;
    let mut ignored = [0; 64];
    loop {
        let most = if signs { SILENT } else { Duration::MAX };
        match timeout(most, input.read(&mut ignored)).await {
            Ok(Ok(1..)) => {
                signs = true;
                // Something was put, maybe.
                link.send_modify(SourceLink::has_put);
            }
            Ok(Ok(0) | Err(_)) | Err(_) => break,
        }
    }
    link.send_replace(SourceLink::Gone);
}

/// Whether the history was put in place.
async fn tell(
    events: Events,
    handoff: Handoff,
    mut news: mpsc::Receiver<Milestone>,
    mut staged: watch::Receiver<u64>,
) -> bool {
    let mut is_placed = false;
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
                }
                continue;
            }
            milestone = news.recv() => milestone,
        };
        let Some(milestone) = milestone else {
            return is_placed;
        };
        match milestone {
            Milestone::Shared => events.tell(Event::Shared { console }),
            Milestone::Ready => events.tell(Event::Ready { console }),
            Milestone::CanStage => {
                // Some may be staged by the time that this is told.
                let bytes = *staged.borrow_and_update();
                events.tell(Event::Staged { console, bytes });
            }
            Milestone::Shown(bytes) => events.tell(Event::Shown { console, bytes }),
            Milestone::Placed(placed) => {
                is_placed = true;
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

/// Tells how it ended; `Some` sentence where that is not well.
fn end(events: &Events, handoff: &Handoff, outcome: &Outcome) -> Option<String> {
    let console = handoff.console.clone();
    match outcome {
        Outcome::Adopted(receipt) => {
            events.tell(Event::Adopted {
                console,
                bytes: receipt.bytes,
                dropped: receipt.dropped,
                files: receipt.placed.clone(),
            });
            None
        }
        Outcome::Aborted => {
            let event = Event::Aborted { console };
            let sentence = report::sentence(&event);
            events.tell(event);
            Some(sentence)
        }
        Outcome::Failed { reason } => {
            let sentence = format!("{console}: {reason}");
            events.tell(report::failed(console, reason.clone()));
            Some(sentence)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test(start_paused = true)]
    async fn who_gives_signs_of_life_and_stops_is_gone() {
        let (mut other, ours) = tokio::io::duplex(64);
        let link = watch::Sender::new(SourceLink::NEW);
        let mut told = link.subscribe();
        let task = tokio::spawn(watch_input(ours, link.clone()));
        // A hook that only holds our input open gives none.
        tokio::time::sleep(100 * SILENT).await;
        assert_ne!(*link.borrow(), SourceLink::Gone);
        for _ in 0..20 {
            other.write_all(b"\n").await.unwrap();
            tokio::time::sleep(SIGN).await;
            assert!(told.has_changed().unwrap(), "it looks for what was put");
            assert_ne!(*told.borrow_and_update(), SourceLink::Gone);
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
        watch_input(ours, link.clone()).await;
        assert_eq!(*link.borrow(), SourceLink::Gone);
    }
}
