//! One console's log on its way: the source's half in this process and, where ssh leads to
//! the destination, the other half there.
//!
//! Must not know: migrations. It is told when the guest stops and when it has left.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::folder::Folder;
use logchain_core::handoff::offer::{self, AdoptStatus, Held, Offer, Outcome, Source};
use logchain_core::handoff::{Budget, Handoff};
use logchain_core::ids::{ConsoleName, HandoffId};
use logchain_core::record::Offered;
use logchain_core::transport::LogTransport;
use logchain_transport_ssh::SshOptions;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::consoles;
use crate::hosts::Hosts;
use crate::leases::Leases;
use crate::log::ConsoleLog;
use crate::remote_adopt::{RemoteAdopt, plain};
use crate::transports::TransportChoice;
use crate::{Event, Events, Result};

/// How long withdrawing may take.
const WITHDRAW: Duration = Duration::from_secs(5);

/// What all handoffs of one domain share.
pub(crate) struct Route<'a> {
    pub(crate) events: Events,
    pub(crate) choice: &'a TransportChoice,
    pub(crate) ssh: &'a SshOptions,
    pub(crate) patience: Duration,
    pub(crate) domain: Uuid,
    pub(crate) domain_name: &'a str,
    pub(crate) hosts: Hosts,
    /// What all its handoffs take together.
    pub(crate) budget: Budget,
    /// How the writers of its logs are seen.
    pub(crate) writers: Arc<Leases>,
}

impl Route<'_> {
    pub(crate) fn handoff(&self, console: &ConsoleName, id: HandoffId) -> Handoff {
        Handoff {
            domain: self.domain,
            console: console.clone(),
            id,
        }
    }
}

/// The other half of a handoff: started over ssh where ssh leads to the destination, else
/// left to whoever starts it there.
pub(crate) struct RemoteHalf {
    handoff: Handoff,
    far: Option<RemoteAdopt>,
    /// The host it was started on, and where it finds the pieces.
    at: Option<(String, OsString)>,
    expected: Option<PathBuf>,
    /// How much is put: the other half is told.
    put: watch::Sender<u64>,
}

impl RemoteHalf {
    /// Starts the other half of a new handoff, and does not wait for it: it logs in while the
    /// transport connects. `expected`: where the log will lie at the destination, for a
    /// migration that has not begun.
    pub(crate) fn new(
        route: &Route<'_>,
        console: &ConsoleName,
        expected: Option<&Path>,
    ) -> Result<Self> {
        Self::of(route, console, HandoffId::random(), expected)
    }

    /// The same for a handoff that an earlier run began.
    pub(crate) fn again(route: &Route<'_>, console: &ConsoleName, id: HandoffId) -> Result<Self> {
        Self::of(route, console, id, None)
    }

    /// The same for a handoff whose id the caller chose.
    pub(crate) fn of(
        route: &Route<'_>,
        console: &ConsoleName,
        id: HandoffId,
        expected: Option<&Path>,
    ) -> Result<Self> {
        let handoff = route.handoff(console, id);
        let expected = expected.map(Path::to_owned);
        let remote = Self {
            handoff,
            far: None,
            at: None,
            expected,
            put: watch::Sender::new(0),
        };
        remote.start_other_half(route)
    }

    /// Starts the other half, where it is to be started from here.
    fn start_other_half(mut self, route: &Route<'_>) -> Result<Self> {
        let there = route.choice.far();
        self.at = there
            .as_ref()
            .map(|(host, from)| (host.to_string(), from.clone()));
        let expected = self.expected.as_deref();
        let start = |there| {
            let put = self.put.subscribe();
            let what = (&self.handoff, route.hosts);
            RemoteAdopt::start(
                there,
                route.ssh,
                what,
                expected,
                put,
                (route.patience, route.events.clone()),
            )
        };
        self.far = there.map(start).transpose()?;
        Ok(self)
    }

    /// Starts the other half anew where it has to run elsewhere: only the open transport tells
    /// whether the spool is served by SFTP, and then the destination is another host.
    async fn restart_where_it_belongs(mut self, route: &Route<'_>) -> Result<Self> {
        let there = route.choice.far();
        let there = there.map(|(host, from)| (host.to_string(), from));
        if there == self.at {
            return Ok(self);
        }
        if let Some(far) = self.far.take() {
            far.end().await;
        }
        self.start_other_half(route)
    }

    pub(crate) fn is_of(&self, log: &ConsoleLog) -> bool {
        self.handoff.console == log.console
    }

    /// It is not needed: lets it come to its end.
    pub(crate) async fn end(self) {
        if let Some(far) = self.far {
            far.end().await;
        }
    }

    /// For a migration that has not begun: waits until the other half is ready.
    async fn wait_ready(
        &mut self,
        route: &Route<'_>,
        source: &mut watch::Receiver<Source>,
    ) -> Result<()> {
        let Some(far) = &mut self.far else {
            return Ok(());
        };
        let ready = tokio::select! {
            ready = far.wait_ready() => ready,
            // Nothing waits for it any more: it is withdrawn instead.
            Ok(_) = source.wait_for(|s| *s == Source::Stays) => Ok(()),
        };
        match ready {
            // The pieces need no ssh: only who takes them in is missing.
            Err(e) if !route.choice.needs_far() && (!far.has_failed() || far.is_elsewhere()) => {
                route.events.warn(format!(
                    "{}: cannot start the destination's half: {}",
                    self.handoff.console,
                    e.sentence()
                ));
                tell_adopt(&route.events, route.choice, route.domain);
                self.far = None;
                Ok(())
            }
            ready => ready,
        }
    }
}

/// A console's log on its way.
pub(crate) struct Carry {
    far: Option<RemoteAdopt>,
    task: JoinHandle<(Outcome, Instant)>,
    pub(crate) put: watch::Receiver<u64>,
    /// What there was when it began.
    pub(crate) bytes: u64,
}

/// Less than this of a history is sent while memory is copied, however little
/// there is.
const LITTLE: u64 = 64 << 10;

impl Carry {
    /// Waits until all but a little of what there was is at the destination, or
    /// nothing more comes. Where nobody tells what is staged there, what is put counts.
    pub(crate) async fn ahead(&self) {
        // One that has a place for it says so before it is ready.
        let staged = self.far.as_ref().map(RemoteAdopt::staged);
        let staged = staged.filter(|staged| staged.borrow().is_some());
        ahead(self.put.clone(), staged, self.bytes).await;
    }

    /// Starts this half; `before_migration`: of a migration, which waits until the other
    /// half is ready for it.
    pub(crate) async fn start(
        route: &Route<'_>,
        transport: Arc<dyn LogTransport>,
        mut remote: RemoteHalf,
        held: Held,
        mut source: watch::Receiver<Source>,
        before_migration: bool,
    ) -> Result<Self> {
        remote = remote.restart_where_it_belongs(route).await?;
        if before_migration {
            remote.wait_ready(route, &mut source).await?;
        }
        let progress = remote.put.subscribe();
        let offer = offer_of(route, &remote, transport, source);
        // Of what both hosts have nothing is sent, and nothing has a head start.
        let shared = remote.far.as_ref().is_some_and(RemoteAdopt::is_shared);
        let bytes = if shared { 0 } else { held.bytes() };
        let task = tokio::spawn(async move {
            let outcome = match shared {
                true => offer.run_shared(held).await,
                false => offer.run(held).await,
            };
            (outcome, Instant::now())
        });
        Ok(Self {
            far: remote.far,
            task,
            put: progress,
            bytes,
        })
    }

    /// Takes up a handoff that was committed before.
    pub(crate) fn resume(
        route: &Route<'_>,
        transport: Arc<dyn LogTransport>,
        log: &ConsoleLog,
        offered: Offered,
    ) -> Result<Self> {
        let remote = RemoteHalf::of(route, &log.console, offered.handoff, None)?;
        let source = watch::Sender::new(Source::Over).subscribe();
        remote.put.send_replace(offered.bytes);
        let progress = remote.put.subscribe();
        let offer = offer_of(route, &remote, transport, source);
        let (folder, base) = Folder::of_file(&log.path)?;
        let task = tokio::spawn(async move {
            (
                offer::resume(offer, &folder, &base, &offered).await,
                Instant::now(),
            )
        });
        Ok(Self {
            far: remote.far,
            task,
            put: progress,
            bytes: 0,
        })
    }

    /// Waits for the end of both halves; says when the source's came.
    pub(crate) async fn end(self) -> (Outcome, Instant) {
        let never = watch::Sender::new(Source::Over);
        self.end_or(std::future::pending(), &never).await
    }

    /// As [`Carry::end`]. When `interrupted` completes first, a handoff that is not committed
    /// is withdrawn; a committed one is left to the destination, and to the next `offer`.
    pub(crate) async fn end_or(
        mut self,
        interrupted: impl Future<Output = ()>,
        source: &watch::Sender<Source>,
    ) -> (Outcome, Instant) {
        let ended = tokio::select! {
            ended = &mut self.task => Some(ended),
            () = interrupted => {
                source.send_replace(Source::Stays);
                let ended = timeout(WITHDRAW, &mut self.task).await;
                self.task.abort();
                match ended {
                    Ok(Ok((Outcome::Aborted, _))) | Err(_) => None,
                    Ok(ended) => Some(ended),
                }
            }
        };
        if let Some(far) = self.far {
            far.end().await;
        }
        let not_carried = |reason| (Outcome::NotCarried { reason }, Instant::now());
        match ended {
            Some(Ok(ended)) => ended,
            Some(Err(e)) => not_carried(e.to_string()),
            None => not_carried("interrupted while the log was on its way".to_owned()),
        }
    }
}

/// Of `bytes` of history: as [`Carry::ahead`].
async fn ahead(
    mut put: watch::Receiver<u64>,
    staged: Option<watch::Receiver<Option<u64>>>,
    bytes: u64,
) {
    let enough = |so_far: u64| so_far.saturating_add(LITTLE) > bytes;
    if put.wait_for(|put| enough(*put)).await.is_err() {
        return;
    }
    let Some(mut staged) = staged else {
        return;
    };
    let this_half_ends = async { while put.changed().await.is_ok() {} };
    tokio::select! {
        _ = staged.wait_for(|staged| staged.is_some_and(enough)) => {}
        () = this_half_ends => {}
    }
}

fn offer_of(
    route: &Route<'_>,
    remote: &RemoteHalf,
    transport: Arc<dyn LogTransport>,
    source: watch::Receiver<Source>,
) -> Offer {
    // Where there is none, whoever adopts is started by somebody else.
    let nobody = || watch::Sender::new(AdoptStatus::Working).subscribe();
    let far = remote.far.as_ref().map_or_else(nobody, RemoteAdopt::state);
    Offer::new(
        remote.handoff.clone(),
        transport,
        Arc::<Leases>::clone(&route.writers),
        source,
    )
    .with_names(route.domain_name, consoles::own_name())
    .with_adopt_status(far)
    .with_patience(route.patience)
    .with_progress(remote.put.clone())
    .with_budget(route.budget.clone())
}

/// Tells how a console's handoff ended. `window_ms`: as in [`Event::Carried`]. Gives what it
/// told where the destination does not have its log.
pub(crate) fn tell(
    events: &Events,
    log: &ConsoleLog,
    outcome: &Outcome,
    window_ms: Option<u64>,
) -> Option<Event> {
    let console = log.console.clone();
    Some(events.fail(match outcome {
        Outcome::Carried(receipt) => {
            events.tell(Event::Carried {
                console,
                bytes: receipt.bytes,
                dropped: receipt.dropped,
                files: receipt.placed.clone(),
                host: receipt.host.clone(),
                // They come from another host, and go to a terminal.
                warnings: receipt.notes.iter().map(|note| plain(note)).collect(),
                window_ms,
            });
            return None;
        }
        Outcome::Aborted => Event::Withdrawn { console },
        Outcome::NotCarried { reason } => Event::NotCarried {
            console,
            reason: reason.clone(),
        },
    }))
}

/// Tells what people should know of an open transport and, where nobody starts the other
/// half, how they do. To be called once for each transport.
pub(crate) fn say_adopt(events: &Events, choice: &TransportChoice, domain: Uuid) {
    if let Some(caution) = choice.caution() {
        events.warn(caution);
    }
    if choice.far().is_none() {
        tell_adopt(events, choice, domain);
    }
}

fn tell_adopt(events: &Events, choice: &TransportChoice, domain: Uuid) {
    let url = choice.to_string();
    let words = [
        "logchain",
        "adopt",
        "--transport",
        &url,
        &domain.to_string(),
    ];
    let command = logchain_transport_ssh::shell_line(words)
        .to_string_lossy()
        .into_owned();
    events.tell(Event::AdoptThere { command });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 10 << 20;

    async fn is_over(task: &JoinHandle<()>) -> bool {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        task.is_finished()
    }

    #[tokio::test]
    async fn a_head_start_lasts_until_all_but_a_little_is_staged() {
        let (put, staged) = (watch::Sender::new(0), watch::Sender::new(Some(0)));
        let task = tokio::spawn(ahead(put.subscribe(), Some(staged.subscribe()), BYTES));
        put.send_replace(BYTES);
        staged.send_replace(Some(BYTES - LITTLE));
        assert!(!is_over(&task).await, "put, but not there");
        staged.send_replace(Some(BYTES - LITTLE + 1));
        assert!(is_over(&task).await);
    }

    #[tokio::test]
    async fn a_head_start_ends_with_either_half() {
        let (put, staged) = (watch::Sender::new(0), watch::Sender::new(Some(0)));
        let start = || tokio::spawn(ahead(put.subscribe(), Some(staged.subscribe()), BYTES));
        let one = start();
        put.send_replace(BYTES);
        let other = start();
        assert!(!is_over(&one).await && !is_over(&other).await);
        drop(staged);
        assert!(
            is_over(&one).await && is_over(&other).await,
            "the other half"
        );

        let (put, staged) = (watch::Sender::new(0), watch::Sender::new(Some(0)));
        let start = || tokio::spawn(ahead(put.subscribe(), Some(staged.subscribe()), BYTES));
        let early = start();
        put.send_replace(BYTES);
        let late = start();
        assert!(!is_over(&late).await);
        drop(put);
        assert!(is_over(&early).await && is_over(&late).await, "this half");
    }

    #[tokio::test]
    async fn where_nobody_tells_what_is_staged_what_is_put_counts() {
        let put = watch::Sender::new(BYTES - LITTLE);
        let task = tokio::spawn(ahead(put.subscribe(), None, BYTES));
        assert!(!is_over(&task).await);
        put.send_replace(BYTES);
        assert!(is_over(&task).await);
        // A little has none.
        ahead(watch::Sender::new(0).subscribe(), None, LITTLE - 1).await;
    }
}
