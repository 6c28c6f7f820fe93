//! The source's half of one console, with the other half on the far side where
//! the transport leads there.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::chain::LogChain;
use logchain_core::folder::Folder;
use logchain_core::handoff::offer::{self, AdoptStatus, Held, Offer, Outcome, Source};
use logchain_core::handoff::{Budget, Handoff};
use logchain_core::record::Offered;
use logchain_core::transport::{ConsoleName, HandoffId, LogTransport};
use logchain_host::consoles;
use logchain_host::hosts::Hosts;
use logchain_host::leases::Leases;
use logchain_host::neighbours;
use logchain_host::transports::TransportChoice;
use logchain_host::{Event, Events};
use logchain_transport_ssh::SshOptions;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::domain;
use crate::far::{FarAdopt, plain};
use crate::report;

/// How long withdrawing may take.
const WITHDRAW: Duration = Duration::from_secs(5);

/// A console's log here.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) console: ConsoleName,
    pub(crate) path: PathBuf,
}

impl Log {
    pub(crate) fn chain(&self) -> Result<LogChain, String> {
        neighbours::chain(&self.path, domain::numbering()).map_err(|e| e.to_string())
    }

    /// What of the log will not be carried, or is in doubt.
    pub(crate) fn say_remarks(&self, events: &Events, held: &Held) {
        for remark in held.remarks() {
            events.warn(format!(
                "{}: {}",
                self.console,
                neighbours::sentence(&self.path, remark)
            ));
        }
    }

    /// Opens every file of the log: from now on its bytes are ours, whatever
    /// happens to its names.
    pub(crate) async fn hold(&self, domain: Uuid) -> Result<Held, String> {
        self.hold_for(domain, None, None).await
    }

    /// As [`Log::hold`], before a migration. Should the destination have the same
    /// folder, it finds the handoff's name there. `newest`: the file that the log is
    /// really written to, where its path does not lead there.
    pub(crate) async fn hold_for(
        &self,
        domain: Uuid,
        handoff: Option<HandoffId>,
        newest: Option<File>,
    ) -> Result<Held, String> {
        let log = self.clone();
        let work = move || {
            let held = Held::open_with(&log.chain()?, newest, domain, &log.console);
            let held = held.map_err(|e| e.to_string())?;
            if let Some(id) = handoff {
                let console = log.console;
                let handoff = Handoff {
                    domain,
                    console,
                    id,
                };
                // A folder that cannot be written here is shared with nobody who could.
                let _ = held.announce(&handoff);
            }
            Ok(held)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| e.to_string())?
    }

    /// Whether anybody could still open it here.
    pub(crate) async fn is_there(&self) -> bool {
        let path = self.path.clone();
        let look = move || std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }
}

/// How and where to.
pub(crate) struct Way<'a> {
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

impl Way<'_> {
    pub(crate) fn handoff(&self, console: &ConsoleName, id: HandoffId) -> Handoff {
        Handoff {
            domain: self.domain,
            console: console.clone(),
            id,
        }
    }
}

/// A handoff whose other half has been started, where it can be.
pub(crate) struct Begun {
    handoff: Handoff,
    far: Option<FarAdopt>,
    /// The host it was started on, and where it finds the pieces.
    at: Option<(String, OsString)>,
    expected: Option<PathBuf>,
    /// How much is put: the other half is told.
    put: watch::Sender<u64>,
}

impl Begun {
    /// Starts the other half, and waits for nothing: it logs in while the transport
    /// does. `expected`: where the log will lie at the destination, for a migration
    /// that has not begun.
    pub(crate) fn new(
        way: &Way<'_>,
        console: &ConsoleName,
        expected: Option<&Path>,
    ) -> Result<Self, String> {
        Self::of(way, console, HandoffId::random(), expected)
    }

    /// The same for one that an earlier run began.
    pub(crate) fn again(
        way: &Way<'_>,
        console: &ConsoleName,
        id: HandoffId,
    ) -> Result<Self, String> {
        Self::of(way, console, id, None)
    }

    /// The same under a name that is known already.
    pub(crate) fn of(
        way: &Way<'_>,
        console: &ConsoleName,
        id: HandoffId,
        expected: Option<&Path>,
    ) -> Result<Self, String> {
        let handoff = way.handoff(console, id);
        let expected = expected.map(Path::to_owned);
        let begun = Self {
            handoff,
            far: None,
            at: None,
            expected,
            put: watch::Sender::new(0),
        };
        begun.where_it_runs(way)
    }

    /// Starts the other half, where it is to be started from here.
    fn where_it_runs(mut self, way: &Way<'_>) -> Result<Self, String> {
        let there = way.choice.far();
        self.at = there
            .as_ref()
            .map(|(host, from)| (host.to_string(), from.clone()));
        let expected = self.expected.as_deref();
        let start = |there| {
            let put = self.put.subscribe();
            let what = (&self.handoff, way.hosts);
            FarAdopt::start(
                there,
                way.ssh,
                what,
                expected,
                put,
                (way.patience, way.events.clone()),
            )
        };
        self.far = there.map(start).transpose()?;
        Ok(self)
    }

    /// How a spool is served is known once it is open; if by SFTP, the other half
    /// runs on another host than was thought when it was started beside.
    async fn follow(mut self, way: &Way<'_>) -> Result<Self, String> {
        let there = way.choice.far();
        let there = there.map(|(host, from)| (host.to_string(), from));
        if there == self.at {
            return Ok(self);
        }
        if let Some(far) = self.far.take() {
            far.end().await;
        }
        self.where_it_runs(way)
    }

    pub(crate) fn is_of(&self, log: &Log) -> bool {
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
        way: &Way<'_>,
        source: &mut watch::Receiver<Source>,
    ) -> Result<(), String> {
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
            Err(reason) if !way.choice.needs_far() && (!far.has_failed() || far.is_elsewhere()) => {
                way.events.warn(format!(
                    "{}: cannot start the destination's half: {reason}",
                    self.handoff.console
                ));
                tell_adopt(&way.events, way.choice, way.domain);
                self.far = None;
                Ok(())
            }
            ready => ready,
        }
    }
}

/// A console on its way.
pub(crate) struct Carry {
    far: Option<FarAdopt>,
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
        let staged = self.far.as_ref().map(FarAdopt::staged);
        let staged = staged.filter(|staged| staged.borrow().is_some());
        ahead(self.put.clone(), staged, self.bytes).await;
    }

    /// Starts this half; `is_ahead`: of a migration, which waits until the other
    /// half is ready for it.
    pub(crate) async fn start(
        way: &Way<'_>,
        transport: Arc<dyn LogTransport>,
        mut begun: Begun,
        held: Held,
        mut source: watch::Receiver<Source>,
        is_ahead: bool,
    ) -> Result<Self, String> {
        begun = begun.follow(way).await?;
        if is_ahead {
            begun.wait_ready(way, &mut source).await?;
        }
        let progress = begun.put.subscribe();
        let offer = offer_of(way, &begun, transport, source);
        // Of what both hosts have nothing is sent, and nothing has a head start.
        let shared = begun.far.as_ref().is_some_and(FarAdopt::is_shared);
        let bytes = if shared { 0 } else { held.bytes() };
        let task = tokio::spawn(async move {
            let outcome = match shared {
                true => offer.run_shared(held).await,
                false => offer.run(held).await,
            };
            (outcome, Instant::now())
        });
        Ok(Self {
            far: begun.far,
            task,
            put: progress,
            bytes,
        })
    }

    /// Takes up a handoff that was committed before.
    pub(crate) fn resume(
        way: &Way<'_>,
        transport: Arc<dyn LogTransport>,
        log: &Log,
        offered: Offered,
    ) -> Result<Self, String> {
        let begun = Begun::of(way, &log.console, offered.handoff, None)?;
        let source = watch::Sender::new(Source::Over).subscribe();
        begun.put.send_replace(offered.bytes);
        let progress = begun.put.subscribe();
        let offer = offer_of(way, &begun, transport, source);
        let (folder, base) = Folder::of_file(&log.path).map_err(|e| e.to_string())?;
        let task = tokio::spawn(async move {
            (
                offer::resume(offer, &folder, &base, &offered).await,
                Instant::now(),
            )
        });
        Ok(Self {
            far: begun.far,
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

    /// As [`Carry::end`], but once `interrupted` is, what is not committed is
    /// withdrawn. What is, is left to the destination, and to the next `offer`.
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
    way: &Way<'_>,
    begun: &Begun,
    transport: Arc<dyn LogTransport>,
    source: watch::Receiver<Source>,
) -> Offer {
    // Where there is none, whoever adopts is started by somebody else.
    let nobody = || watch::Sender::new(AdoptStatus::Working).subscribe();
    let far = begun.far.as_ref().map_or_else(nobody, FarAdopt::state);
    Offer::new(
        begun.handoff.clone(),
        transport,
        Arc::<Leases>::clone(&way.writers),
        source,
    )
    .with_names(way.domain_name, consoles::own_name())
    .with_adopt_status(far)
    .with_patience(way.patience)
    .with_progress(begun.put.clone())
    .with_budget(way.budget.clone())
}

/// Tells how a console's handoff ended. `window_ms`: as in [`Event::Carried`].
///
/// # Errors
/// A sentence, where the destination does not have its log.
pub(crate) fn tell(
    events: &Events,
    log: &Log,
    outcome: &Outcome,
    window_ms: Option<u64>,
) -> Result<(), String> {
    let console = log.console.clone();
    match outcome {
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
            Ok(())
        }
        Outcome::Aborted => {
            let sentence = format!("{console}: withdrawn");
            events.tell(Event::Withdrawn { console });
            Err(sentence)
        }
        Outcome::NotCarried { reason } => {
            let reason = reason.clone();
            let event = Event::NotCarried { console, reason };
            let sentence = report::sentence(&event);
            events.tell(event);
            Err(sentence)
        }
    }
}

/// Of an open transport: what people should know of it, and, where nobody starts
/// the other half, how they do. Once.
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
