//! `logchain stream`: a log into a transport as it grows.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::archive::{Archive, Ask, Error, Limits, Standing, Streamer};
use logchain_core::chain::{LogChain, NumberingChoice};
use logchain_core::transport::{ConsoleName, LogTransport};
use logchain_host::consoles;
use logchain_host::neighbours;
use logchain_host::transports::{TransportChoice, ssh_options};
use logchain_host::{Event, Events};
use logchain_libvirt::{Connection, Domain};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use crate::args::{Amount, Stream};
use crate::domain;
use crate::exit::{self, Ended, Exit, Usage};
use crate::interrupt::Interrupt;
use crate::report::{self, Watch};
use crate::show::Subject;

/// Between two looks whether the domain is here.
const LOOK: Duration = Duration::from_secs(1);

/// How long a transport may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two sentences about the same trouble.
const REMIND: Duration = Duration::from_secs(300);

pub(crate) async fn run(args: Stream, interrupt: Interrupt) -> anyhow::Result<Exit> {
    tokio::select! {
        ended = put(&args, &interrupt) => ended,
        () = interrupt.forced() => anyhow::bail!(
            "interrupted again: ended before all was put; the next start goes on from there"
        ),
    }
}

async fn put(args: &Stream, interrupt: &Interrupt) -> anyhow::Result<Exit> {
    let choice = TransportChoice::of(Some(&args.transport), None)?;
    let ssh = ssh_options(args.remote_logchain.as_deref(), PATIENCE);
    let open = async { Ok(choice.open(&ssh, PATIENCE).await?) };
    let work = Work {
        args,
        interrupt,
        events: report::events(args.format, Watch::Terminal),
        transport: interrupt.or(open).await?,
    };
    match Subject::of_path(&args.log)? {
        Some(subject) => work.path(&subject).await,
        None => work.domain().await,
    }
}

struct Work<'a> {
    args: &'a Stream,
    interrupt: &'a Interrupt,
    events: Events,
    transport: Arc<dyn LogTransport>,
}

/// One log of a domain.
struct Log {
    domain: Uuid,
    name: String,
    console: ConsoleName,
    chain: LogChain,
}

impl Work<'_> {
    /// A log that is only known by its path, until interrupted.
    async fn path(&self, subject: &Subject) -> anyhow::Result<Exit> {
        let chain = neighbours::chain(&subject.path, subject.numbering)?;
        let owner = chain.record()?.and_then(|r| r.owner);
        let (domain, console) = match (self.args.uuid, owner) {
            (None, Some(owner)) => (owner.domain, owner.console),
            (Some(uuid), Some(owner)) if uuid == owner.domain => (uuid, owner.console),
            (Some(uuid), _) => (uuid, "serial0".parse()?),
            (None, None) => {
                let path = subject.path.display();
                return Err(Usage(format!(
                    "nothing says whose log {path} is; give the domain's UUID with --uuid"
                ))
                .into());
            }
        };
        let log = Log {
            name: domain.to_string(),
            domain,
            console,
            chain,
        };
        let (_here, stays) = watch::channel(if self.args.once { Ask::End } else { Ask::Go });
        Ended::told(Exit::Failed, &self.logs(vec![log], stays).await)
    }

    /// A domain's logs, as long as it is here; with --wait whenever it is.
    async fn domain(&self) -> anyhow::Result<Exit> {
        let what = &self.args.log.what;
        let mut eyes = Eyes {
            uri: self.args.log.connect.uri.as_deref(),
            what,
            connection: None,
        };
        let domain = self.interrupt.or(eyes.find()).await;
        let mut domain = match domain {
            Ok(domain) => Some(domain),
            Err(e) if self.args.wait && is_unknown(&e) => None,
            Err(e) => match Subject::of_file(&self.args.log).filter(|_| is_unknown(&e)) {
                Some(subject) => return self.path(&subject).await,
                None => return Err(e),
            },
        };
        let mut told = false;
        let mut left = Vec::new();
        loop {
            // Without --wait what is left of one that does not run is put, too.
            let here = match &domain {
                Some(domain) if self.args.wait => eyes.see(domain.uuid()).await == Some(true),
                Some(_) => true,
                None => false,
            };
            if let Some(domain) = domain.as_ref().filter(|_| here) {
                told = false;
                let reasons = self.stay(domain, &mut eyes).await?;
                if !self.args.wait || !reasons.is_empty() || self.interrupt.came() {
                    return Ended::told(Exit::Failed, &reasons);
                }
            } else if let Some(domain) = &domain {
                // It stopped while nobody looked: what it printed last is here.
                self.leftovers(domain, &mut left).await;
            }
            if !here && !told {
                told = true;
                self.events.tell(Event::Waiting {
                    domain: what.clone(),
                    transport: None,
                    seconds: None,
                });
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.interrupt.first() => return Ok(Exit::Done),
            }
            // Its XML may be another one when it comes back.
            domain = eyes.find().await.ok().or(domain);
        }
    }

    /// Puts what a domain that does not run has here, where that is more than before.
    /// A log that the stream went on from elsewhere is left alone.
    async fn leftovers(&self, domain: &Domain, before: &mut Vec<(u64, u64)>) {
        let Ok(logs) = self.logs_of(domain).await else {
            return;
        };
        let look = |log: &Log| {
            let found = std::fs::metadata(log.chain.path()).ok();
            found.map(|m| (m.ino(), m.len())).unwrap_or_default()
        };
        let now: Vec<(u64, u64)> = logs.iter().map(look).collect();
        if now == *before {
            return;
        }
        *before = now;
        for log in logs {
            let archive =
                Archive::new(Arc::clone(&self.transport), log.domain, log.console.clone());
            let streamer = Streamer::new(archive, log.chain)
                .with_names(log.name, consoles::own_name())
                .with_limits(self.limits());
            let (_ask, asked) = watch::channel(Ask::End);
            match streamer.run(asked).await {
                Ok(_) => {}
                Err(e) if is_early(&e) => {}
                Err(e) => self.events.warn(format!("{}: {e}", log.console)),
            }
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            delay: self.args.delay,
            keep: match self.args.keep {
                Amount::Bytes(bytes) => Some(bytes),
                Amount::All => None,
            },
            ..Limits::default()
        }
    }

    async fn logs_of(&self, domain: &Domain) -> anyhow::Result<Vec<Log>> {
        let mut logs = Vec::new();
        let numbering = match self.args.log.numbering {
            NumberingChoice::Auto => domain::numbering(),
            choice => choice,
        };
        for console in consoles::consoles_of(domain).await? {
            if self
                .args
                .log
                .console
                .as_ref()
                .is_some_and(|c| *c != console.name)
            {
                continue;
            }
            logs.push(Log {
                domain: domain.uuid(),
                name: domain.name().to_owned(),
                console: consoles::key_name(&console)?,
                chain: neighbours::chain(&console.path, numbering)?,
            });
        }
        if logs.is_empty() {
            let console = self.args.log.console.as_deref().unwrap_or_default();
            anyhow::bail!("domain {} has no console {console}", domain.name());
        }
        Ok(logs)
    }

    /// While it is here, and what it left.
    async fn stay(&self, domain: &Domain, eyes: &mut Eyes<'_>) -> anyhow::Result<Vec<String>> {
        let logs = self.logs_of(domain).await?;
        let here = watch::Sender::new(Ask::Go);
        let stays = here.subscribe();
        if self.args.once {
            here.send_replace(Ask::End);
        }
        let left = async {
            // What cannot be seen now is asked again.
            while eyes.see(domain.uuid()).await != Some(false) {
                sleep(LOOK).await;
            }
            here.send_if_modified(|ask| {
                let goes = *ask == Ask::Go;
                if goes {
                    *ask = Ask::Drain;
                }
                goes
            });
            std::future::pending::<()>().await;
        };
        tokio::select! {
            reasons = self.logs(logs, stays) => Ok(reasons),
            () = left => Ok(Vec::new()),
        }
    }

    /// All of them side by side; gives why any failed.
    async fn logs(&self, logs: Vec<Log>, stays: watch::Receiver<Ask>) -> Vec<String> {
        let ask = watch::Sender::new(*stays.borrow());
        let mut set = JoinSet::new();
        for log in logs {
            let one = One {
                limits: self.limits(),
                leave_gap: self.args.leave_gap,
                events: self.events.clone(),
                transport: Arc::clone(&self.transport),
                ask: ask.subscribe(),
            };
            set.spawn(one.run(log));
        }
        let mut stays = stays;
        let mut reasons = Vec::new();
        let mut open = true;
        loop {
            let interrupted = self.interrupt.came();
            tokio::select! {
                done = set.join_next() => match done {
                    Some(done) => {
                        reasons.extend(done.unwrap_or_else(|e| Err(e.to_string())).err());
                    }
                    None => return reasons,
                },
                changed = stays.changed(), if open => {
                    open = changed.is_ok();
                    if open && !interrupted {
                        ask.send_replace(*stays.borrow());
                    }
                }
                () = self.interrupt.first(), if !interrupted => {
                    ask.send_replace(Ask::End);
                    open = false;
                }
            }
        }
    }
}

/// What libvirt here tells of a domain, over restarts of libvirt.
struct Eyes<'a> {
    uri: Option<&'a str>,
    what: &'a str,
    connection: Option<Connection>,
}

impl Eyes<'_> {
    async fn connection(&mut self) -> anyhow::Result<&Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => consoles::connect_local(self.uri).await?,
        };
        Ok(self.connection.insert(connection))
    }

    async fn find(&mut self) -> anyhow::Result<Domain> {
        let what = self.what;
        match self.connection().await?.lookup(what).await {
            Ok(domain) => Ok(domain),
            Err(e) => {
                self.connection = None;
                Err(e.into())
            }
        }
    }

    /// Whether it runs here; `None`: nobody can tell now.
    async fn see(&mut self, domain: Uuid) -> Option<bool> {
        let connection = self.connection().await.ok()?;
        let state = match connection.lookup_uuid(domain).await {
            Ok(domain) => domain.state().await.map(|state| state.is_active()),
            Err(e) => Err(e),
        };
        match state {
            Ok(active) => Some(active),
            Err(logchain_libvirt::Error::NoDomain { .. }) => Some(false),
            Err(_) => {
                self.connection = None;
                None
            }
        }
    }
}

fn is_unknown(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(logchain_libvirt::Error::NoDomain { .. })
    )
}

/// What putting one log needs.
struct One {
    limits: Limits,
    leave_gap: bool,
    events: Events,
    transport: Arc<dyn LogTransport>,
    ask: watch::Receiver<Ask>,
}

impl One {
    async fn run(self, log: Log) -> Result<(), String> {
        let (events, console) = (self.events.clone(), log.console.clone());
        for remark in remarks(&log).await {
            events.warn(format!("{console}: {remark}"));
        }
        match self.put(&log).await {
            Ok(offset) => {
                events.tell(Event::Ended { console, offset });
                Ok(())
            }
            Err(e) => {
                let reason = exit::sentence(&e);
                let sentence = format!("{console}: {reason}");
                events.tell(report::failed(console, reason));
                Err(sentence)
            }
        }
    }

    /// Tried again while the log, or its history, is not here yet.
    async fn put(mut self, log: &Log) -> anyhow::Result<u64> {
        let archive = Archive::new(Arc::clone(&self.transport), log.domain, log.console.clone());
        let mut told: Option<Instant> = None;
        loop {
            let streamer = Streamer::new(archive.clone(), log.chain.try_clone()?)
                .with_names(log.name.clone(), consoles::own_name())
                .with_limits(self.limits);
            let streamer = if self.leave_gap {
                streamer.leaving_a_gap()
            } else {
                streamer
            };
            let watch = tokio::spawn(tell(
                self.events.clone(),
                log.console.clone(),
                streamer.standing(),
            ));
            let done = streamer.run(self.ask.clone()).await;
            watch.abort();
            let reason = match done {
                Ok(offset) => return Ok(offset),
                Err(e) if !is_early(&e) => return Err(e.into()),
                Err(e) => e,
            };
            if *self.ask.borrow() != Ask::Go {
                return Err(reason.into());
            }
            if told.is_none_or(|at| at.elapsed() > REMIND) {
                told = Some(Instant::now());
                self.events.warn(format!(
                    "{}: {reason}; waiting for it{}",
                    log.console,
                    match &reason {
                        Error::NotHere { .. } => " (--leave-gap goes on without it)",
                        _ => "",
                    }
                ));
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = self.ask.changed() => {}
            }
        }
    }
}

/// What of the log is not put, or is in doubt. A log that is not here yet has none.
async fn remarks(log: &Log) -> Vec<String> {
    let Ok(chain) = log.chain.try_clone() else {
        return Vec::new();
    };
    let look = move || {
        let snapshot = chain.snapshot().ok()?;
        let remarks = snapshot.remarks().iter();
        let path = chain.path();
        Some(remarks.map(|r| neighbours::sentence(&path, r)).collect())
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.ok().flatten().unwrap_or_default()
}

/// Whether it may be otherwise in a moment.
fn is_early(error: &Error) -> bool {
    match error {
        Error::NotHere { .. } => true,
        Error::Transport(e) => e.advice() == logchain_core::transport::Advice::Retry,
        Error::Log(logchain_core::offsets::Error::Chain(e)) => e.is_not_found(),
        _ => false,
    }
}

/// Tells where it begins, and of trouble with the transport.
async fn tell(events: Events, console: ConsoleName, mut standing: watch::Receiver<Standing>) {
    let mut begun = false;
    let mut in_trouble = false;
    while standing.changed().await.is_ok() {
        let now = standing.borrow_and_update().clone();
        if !begun {
            begun = true;
            events.tell(Event::Streaming {
                console: console.clone(),
                offset: now.offset,
            });
        }
        match (&now.trouble, in_trouble) {
            (Some((reason, _)), false) => {
                in_trouble = true;
                events.warn(format!(
                    "{console}: {reason}; it is tried again, and the log is held"
                ));
            }
            (None, true) => {
                in_trouble = false;
                let console = console.clone();
                events.tell(Event::Recovered { console });
            }
            _ => {}
        }
    }
}
