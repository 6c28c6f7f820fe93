//! Every log of this host's domains, held by descriptor from the moment that it is known: an
//! unlink, a wipe, or the removal of the domain's folder takes nothing that is still wanted.
//!
//! What is wiped and still wanted by another host, by the guest that comes back, or behind the log
//! of its next boot, goes to the outbox. What an earlier agent held is held on, so what happened
//! to a log while no agent was here is treated as if one had been.
//!
//! Must not know: libvirt, how a handoff is made.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use logchain_core::chain::NumberingChoice;
use logchain_core::departure::Notes;
use logchain_core::holds::{HeldLog, Holds, Limits, Notice, Stored, StoredLog};
use logchain_core::ids::{ConsoleId, ConsoleName};
use logchain_core::outbox::{EndedBoot, KeepOutcome, Outbox};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::config::Reloadable;
use super::here::Here;
use super::stay::Stay;
use crate::blocking::blocking;
use crate::leases::Leases;
use crate::log::ConsoleLog;
use crate::{Error, Events, Result, departures, neighbours};

/// How long it may take until it is known why a log was wiped.
const WHY: Duration = Duration::from_secs(30);

/// How long a handoff that is under way is waited for.
const HANDOFF: Duration = Duration::from_secs(120);

/// Between two looks for that.
const LOOK: Duration = Duration::from_millis(250);

/// Locked by whoever begins to hold a log.
type Turns = HashMap<(Uuid, ConsoleName), Arc<Mutex<()>>>;

/// The logs that are held. Clones are the same.
#[derive(Clone)]
pub(super) struct HeldLogs(Arc<Inner>);

struct Inner {
    holds: Holds,
    /// What earlier agents held; `None`: nobody keeps descriptors.
    stored: Option<Stored>,
    /// One hold of a log begins after the other: the first one takes what is stored of it.
    turns: Mutex<Turns>,
    limits: Limits,
    here: Here,
    events: Events,
    config: Arc<Reloadable>,
    state: std::path::PathBuf,
    logs: Mutex<HashMap<(Uuid, ConsoleName), Arc<HeldLog>>>,
    /// Domains whose logs are being handed over: what becomes of these is decided there.
    leaving: watch::Sender<HashMap<Uuid, usize>>,
    /// Notified when the log of a boot that has ended was put down.
    boot_put_down: Notify,
    /// Whether a rollover wipes a log, since virtlogd keeps no rotated file.
    rollovers_wipe: AtomicBool,
}

/// Why a log is put down that was wiped.
#[derive(Clone, Copy)]
enum Wanted {
    /// It was not handed over, or its guest comes back.
    History,
    /// Its guest was started anew, and so many logs of earlier boots are kept.
    Boot(EndedBoot),
}

/// The logs of a domain are being handed over, for as long as this lives.
pub(super) struct Leaving {
    logs: HeldLogs,
    domain: Uuid,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.logs.0.leaving.send_modify(|leaving| {
            if let Some(count) = leaving.get_mut(&self.domain) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    leaving.remove(&self.domain);
                }
            }
        });
    }
}

impl HeldLogs {
    /// Nothing is held yet. `stored`: what earlier agents held, and what is held for later ones.
    pub(super) fn start(
        config: Arc<Reloadable>,
        (here, events, stored): (Here, Events, Option<Stored>),
    ) -> Result<Self> {
        let current = config.current();
        let limits = Limits {
            unlinked_bytes: current.holds.max_unlinked_bytes,
            ..Limits::default()
        };
        let mut holds = Holds::start(Arc::new(Leases::default()), limits)?;
        if let Some(stored) = &stored {
            holds = holds.storing(stored.clone());
        }
        Ok(Self(Arc::new(Inner {
            holds,
            stored,
            turns: Mutex::default(),
            limits,
            here,
            events,
            state: current.state.clone(),
            config,
            logs: Mutex::default(),
            leaving: watch::Sender::new(HashMap::new()),
            boot_put_down: Notify::new(),
            rollovers_wipe: AtomicBool::new(false),
        })))
    }

    /// The logs of a domain are being handed over.
    pub(super) fn leaving(&self, domain: Uuid) -> Leaving {
        self.0.leaving.send_modify(|leaving| {
            let count = leaving.entry(domain).or_default();
            *count = count.saturating_add(1);
        });
        Leaving {
            logs: self.clone(),
            domain,
        }
    }

    /// Holds a log, if it is not held already. Blocks on files; called on a thread of the
    /// runtime.
    pub(super) fn hold(
        &self,
        domain: Uuid,
        log: &ConsoleLog,
        numbering: NumberingChoice,
    ) -> Result<Arc<HeldLog>> {
        let key = (domain, log.console.clone());
        let turn = Arc::clone(self.turns().entry(key.clone()).or_default());
        let turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.lock().get(&key).cloned();
        if let Some(held) = &before
            && held.path() == log.path
        {
            return Ok(Arc::clone(held));
        }
        if let Some(before) = before {
            // The domain's log lies elsewhere by now.
            before.let_go();
        }
        let stored = self.0.stored.as_ref();
        let stored = stored.and_then(|stored| stored.take(domain, &log.console));
        let held = match stored {
            Some(stored) => self.resume(stored, log, numbering)?,
            None => self.begin(domain, log, numbering)?,
        };
        let held = Arc::new(held);
        let (notices, began) = (held.notices(), held.generation());
        self.lock().insert(key, Arc::clone(&held));
        drop(turn);
        let (this, watched) = (self.clone(), Arc::downgrade(&held));
        Handle::current().spawn(async move { this.watch(watched, notices, began).await });
        Ok(held)
    }

    fn begin(&self, domain: Uuid, log: &ConsoleLog, numbering: NumberingChoice) -> Result<HeldLog> {
        let chain = neighbours::chain(&log.path, numbering)?;
        let (holds, console) = (&self.0.holds, log.console.clone());
        Ok(holds.hold_within(chain, domain, console, self.limits())?)
    }

    /// Goes on with what an earlier agent held.
    fn resume(
        &self,
        stored: StoredLog,
        log: &ConsoleLog,
        numbering: NumberingChoice,
    ) -> Result<HeldLog> {
        let domain = stored.domain();
        let chain = match stored.folder() {
            Ok((folder, base)) if stored.path() == log.path => {
                Ok(neighbours::chain_in(folder, base, numbering)?)
            }
            // The domain's log lies elsewhere by now.
            Ok(_) => Err(None),
            Err(e) => Err(Some(e)),
        };
        match chain {
            Ok(chain) => Ok(self.0.holds.resume(stored, chain, self.limits())?),
            Err(error) => {
                tracing::debug!(?stored, ?error, "what an earlier agent held is let go");
                if let Some(all) = &self.0.stored {
                    all.discard(stored);
                }
                self.begin(domain, log, numbering)
            }
        }
    }

    fn limits(&self) -> Limits {
        match self.0.rollovers_wipe.load(Ordering::Relaxed) {
            // What the operator has dropped at each rollover is not kept.
            true => Limits {
                generations: 0,
                ..self.0.limits
            },
            false => self.0.limits,
        }
    }

    /// Whether an earlier agent held this log, and nobody has asked for it yet.
    pub(super) fn was_held(&self, domain: Uuid, console: &ConsoleName) -> bool {
        let unclaimed = self.unclaimed().into_iter();
        let mut unclaimed = unclaimed.map(|(id, _)| id);
        unclaimed.any(|id| id.domain == domain && id.console == *console)
    }

    /// What an earlier agent held of this domain, and nobody has asked for, is not wanted.
    /// Blocks on files.
    pub(super) fn discard(&self, domain: Uuid) {
        let Some(stored) = &self.0.stored else {
            return;
        };
        let unclaimed = stored.waiting().into_iter().map(|(id, _)| id);
        for id in unclaimed.filter(|id| id.domain == domain) {
            if let Some(log) = stored.take(domain, &id.console) {
                stored.discard(log);
            }
        }
    }

    /// Which logs earlier agents held that nobody has asked for yet, and their paths.
    pub(super) fn unclaimed(&self) -> Vec<(ConsoleId, std::path::PathBuf)> {
        let stored = self.0.stored.as_ref();
        stored.map(Stored::waiting).unwrap_or_default()
    }

    /// Holds the logs of domains that left and have not been handed over.
    pub(super) async fn hold_noted(&self, numbering: NumberingChoice) {
        let this = self.clone();
        let work = move || {
            let Some(notes) = Notes::open(&this.0.state)? else {
                return Ok(());
            };
            for note in notes.all()?.notes {
                for log in departures::missing(&note) {
                    if let Err(e) = this.hold(note.domain, &log, numbering) {
                        tracing::debug!(path = %log.path.display(), error = %e.sentence(), "not held");
                    }
                }
            }
            Ok::<_, Error>(())
        };
        if let Err(e) = blocking(work).await {
            self.0.events.warn(e.sentence());
        }
    }

    /// The destination has all of the domain's logs. Where it came back meanwhile they are held
    /// for its new stay.
    pub(super) fn release(&self, domain: Uuid) {
        if self.0.here.stay(domain).is_none() {
            self.let_go(domain);
        }
    }

    /// Whether virtlogd keeps no rotated file, as its configuration says now. Of logs that are
    /// held from now on a rollover is then no wipe to be kept.
    pub(super) fn rollovers_wipe(&self, they_do: bool) {
        self.0.rollovers_wipe.store(they_do, Ordering::Relaxed);
    }

    /// How many logs of earlier boots are kept of each domain.
    pub(super) fn keeps_boots(&self) -> u32 {
        self.0.config.current().holds.keep_boots
    }

    /// Waits until the log of a boot that has ended was put down.
    pub(super) async fn boot_put_down(&self) {
        self.0.boot_put_down.notified().await;
    }

    /// The domain's logs are not wanted any more. Does not wait.
    pub(super) fn let_go(&self, domain: Uuid) {
        let gone: Vec<_> = {
            let mut logs = self.lock();
            let keys: Vec<_> = logs
                .keys()
                .filter(|(of, _)| *of == domain)
                .cloned()
                .collect();
            keys.iter().filter_map(|key| logs.remove(key)).collect()
        };
        self.turns().retain(|(of, _), _| *of != domain);
        // It closes files, and has the store give them up.
        Handle::current().spawn_blocking(move || {
            for log in gone {
                log.let_go();
            }
        });
    }

    /// How many logs are held, and how many bytes of them without a name. Blocks on files.
    pub(super) fn counts(&self) -> (u64, u64) {
        let logs: Vec<_> = self.lock().values().cloned().collect();
        let unlinked = logs.iter().map(|log| log.unlinked_bytes());
        (logs.len() as u64, unlinked.fold(0, u64::saturating_add))
    }

    /// `began`: the generation that the hold began with. One before it was wiped while no agent
    /// was here.
    async fn watch(
        &self,
        held: std::sync::Weak<HeldLog>,
        mut notices: tokio::sync::mpsc::Receiver<Notice>,
        began: u64,
    ) {
        while let Some(notice) = notices.recv().await {
            let Some(held) = held.upgrade() else {
                return;
            };
            match notice {
                Notice::Wiped { generation } => {
                    self.wiped(&held, generation, generation < began).await;
                }
                Notice::Gone => self.gone(&held).await,
                Notice::LetGo { bytes, .. } => {
                    let at = Arc::clone(&held);
                    let path = tokio::task::spawn_blocking(move || at.path()).await;
                    let path = path.unwrap_or_default();
                    let path = path.display();
                    self.0.events.warn(format!(
                        "{path}: {bytes} bytes that were removed and held open are let go, since \
                         no more is held"
                    ));
                }
                _ => {}
            }
        }
    }

    /// A log was wiped: by the start of its domain, which libvirt means to do, or because the
    /// domain comes back by migration. Then what it left here is wanted, unless it was handed
    /// over. What a start wipes is wanted where the operator wants the logs of earlier boots.
    /// `unseen`: while no agent was here.
    async fn wiped(&self, held: &Arc<HeldLog>, generation: u64, unseen: bool) {
        let domain = held.domain();
        // The note goes when the domain is back, which it may be already.
        let was_noted = unseen && self.is_noted(held).await;
        // It came back before it was known whether its log had arrived.
        let mut leaving = self.0.leaving.subscribe();
        let ended = leaving.wait_for(|leaving| !leaving.contains_key(&domain));
        drop(timeout(HANDOFF, ended).await);
        let began = Instant::now();
        let comes = loop {
            match self.0.here.stay(domain) {
                Some((Stay::Coming, _)) => break true,
                Some((Stay::Running | Stay::Leaving { .. }, _)) => {
                    break unseen && self.0.here.came_unseen(domain);
                }
                None if began.elapsed() > WHY => break false,
                None => sleep(LOOK).await,
            }
        };
        let keep = self.keeps_boots();
        let wanted = if comes || was_noted || self.is_noted(held).await {
            Some(Wanted::History)
        } else {
            let at = match unseen {
                true => first_written(held).await,
                false => Timestamp::now(),
            };
            (keep > 0).then_some(Wanted::Boot(EndedBoot { at, keep }))
        };
        let (this, held) = (self.clone(), Arc::clone(held));
        let work = move || {
            // Another process may have handed it over.
            held.read_record()?;
            let earlier = held.earlier();
            let earlier = earlier.into_iter().find(|log| log.generation == generation);
            let is_here = earlier.is_some_and(|log| !log.is_handed_over && log.bytes > 0);
            if let (Some(wanted), true) = (wanted, is_here) {
                let ended = match wanted {
                    Wanted::History => None,
                    Wanted::Boot(ended) => Some(ended),
                };
                let outbox = Outbox::of(&this.0.state);
                let put = held.put_down_earlier(generation, ended, &outbox)?;
                match wanted {
                    Wanted::History => this.told(&held, &put),
                    Wanted::Boot(_) => this.0.boot_put_down.notify_one(),
                }
            }
            held.forget(generation);
            Ok::<_, Error>(())
        };
        if let Err(e) = blocking(work).await {
            self.0.events.warn(e.sentence());
        }
    }

    /// The folder of a log is gone. Of a domain that left without its log it is put down.
    async fn gone(&self, held: &Arc<HeldLog>) {
        let domain = held.domain();
        // At the agent's start nobody knows yet which domains are here.
        let began = Instant::now();
        while self.0.here.connection().is_none() && began.elapsed() < WHY {
            sleep(LOOK).await;
        }
        let is_leaving = self.0.leaving.borrow().contains_key(&domain);
        let is_here = self.0.here.stay(domain).is_some();
        if is_leaving || is_here || !self.is_noted(held).await {
            return;
        }
        self.put_down_lost(held).await;
    }

    /// Puts down what is held of a log, if its files are not where they were. `None`: that
    /// failed, and was told.
    pub(super) async fn put_down_lost(&self, held: &Arc<HeldLog>) -> Option<KeepOutcome> {
        let (this, held) = (self.clone(), Arc::clone(held));
        let work = move || {
            let put = held.put_down(false, &Outbox::of(&this.0.state))?;
            this.told(&held, &put);
            Ok::<_, Error>(put)
        };
        match blocking(work).await {
            Ok(put) => Some(put),
            Err(e) => {
                self.0.events.warn(e.sentence());
                None
            }
        }
    }

    fn told(&self, held: &HeldLog, put: &KeepOutcome) {
        if let KeepOutcome::PutDown(entry) = put {
            let (domain, console) = (held.domain(), held.console());
            let path = entry.path.display();
            self.0.events.warn(format!(
                "domain {domain}: {console}: {} bytes that were removed before they were handed \
                 over are in the outbox at {path}",
                entry.bytes
            ));
        }
    }

    /// Whether the domain left, and its log is to be handed over still.
    async fn is_noted(&self, held: &HeldLog) -> bool {
        let (state, domain) = (self.0.state.clone(), held.domain());
        let console = held.console().clone();
        let noted = blocking(move || {
            let Some(notes) = Notes::open(&state)? else {
                return Ok(false);
            };
            let note = notes.read(domain)?;
            let mut logs = note.into_iter().flat_map(|note| note.logs);
            Ok(logs.any(|log| log.console == console && !log.received))
        });
        noted.await.unwrap_or(true)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Uuid, ConsoleName), Arc<HeldLog>>> {
        // Each change is one step, so a panic leaves no half of one.
        self.0.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the present log began, as far as its files tell: now at the latest.
async fn first_written(held: &Arc<HeldLog>) -> Timestamp {
    let held = Arc::clone(held);
    let born = move || std::fs::metadata(held.path())?.created();
    let born = tokio::task::spawn_blocking(born).await;
    let born = born.ok().and_then(Result::ok);
    let born = born.and_then(|born| Timestamp::try_from(born).ok());
    born.unwrap_or_else(Timestamp::now).min(Timestamp::now())
}
