//! Puts logs into a transport as they grow, to be read from there when the host or the VM is
//! gone.

mod domain_watch;
pub(crate) mod log;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logchain_core::OkLogged as _;
use logchain_core::archive::{Ask, Limits};
use logchain_core::chain::NumberingChoice;
use logchain_core::transport::LogTransport;
use logchain_libvirt::Domain;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{Instrument as _, info_span};
use uuid::Uuid;

use crate::job::Finished;
use crate::limits::numbering_of_host;
use crate::stop::Stop;
use crate::transports::{TransportChoice, ssh_options};
use crate::{Error, Event, Events, Result, consoles, neighbours};
use domain_watch::DomainWatch;
use log::{Log, LogStream, is_early};

/// Between two looks whether the domain is here.
const LOOK: Duration = Duration::from_secs(1);

/// How long a transport may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which log is streamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A log of which only the path is known.
    Path(PathBuf),
    /// The logs of a domain, by its name or UUID. Where libvirt knows no such domain and a file
    /// is given, that file is meant.
    Domain(String, Option<PathBuf>),
}

/// What is streamed, and where to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Which log.
    pub source: Source,
    /// Which console of the domain, as libvirt names it; all of them without it.
    pub console: Option<String>,
    /// How rotated files are numbered.
    pub numbering: NumberingChoice,
    /// URI of the hypervisor here; libvirt's default without it.
    pub connect: Option<String>,
    /// URL of the transport.
    pub transport: String,
    /// What logchain is called at the far side of ssh.
    pub remote_logchain: Option<String>,
    /// How long a byte waits until it is put, at the most.
    pub delay: Duration,
    /// How many of the newest bytes of a log are kept there; all without it.
    pub keep: Option<u64>,
    /// Stay when the domain leaves, and wait for it where it is not here.
    pub wait: bool,
    /// Put what is there, and end.
    pub once: bool,
    /// Where a log's history was not brought here with the VM, leave a gap instead of waiting.
    pub leave_gap: bool,
    /// UUID of the domain of a log of which only the path is known.
    pub uuid: Option<Uuid>,
}

impl Options {
    /// `logchain stream` with its defaults.
    #[must_use]
    pub fn new(source: Source, transport: impl Into<String>) -> Self {
        Self {
            source,
            console: None,
            numbering: NumberingChoice::Auto,
            connect: None,
            transport: transport.into(),
            remote_logchain: None,
            delay: Duration::from_secs(5),
            keep: Some(1 << 30),
            wait: false,
            once: false,
            leave_gap: false,
            uuid: None,
        }
    }
}

/// Streams until the domain leaves, or until it is stopped. [`Finished::failures`] tell of logs
/// that could not be streamed.
///
/// # Errors
/// [`Error::Usage`] where nothing tells whose log it is; as finding the domain fails.
pub async fn stream(options: Options, events: &Events, stop: &Stop) -> Result<Finished> {
    let span = info_span!("stream", source = ?options.source);
    let job = async {
        tokio::select! {
            ended = put(&options, events, stop) => ended,
            () = stop.forced() => Err(Error::Interrupted(
                "interrupted again: ended before all was put; the next start goes on from there"
                    .to_owned(),
            )),
        }
    };
    job.instrument(span).await
}

async fn put(options: &Options, events: &Events, stop: &Stop) -> Result<Finished> {
    let choice = TransportChoice::of(Some(&options.transport), None)?;
    let ssh = ssh_options(options.remote_logchain.as_deref(), PATIENCE);
    let work = Work {
        options,
        stop,
        events: events.clone(),
        transport: stop.or(choice.open(&ssh, PATIENCE)).await?,
    };
    match &options.source {
        Source::Path(path) => work.path(path).await,
        Source::Domain(domain, file) => work.domain(domain, file.as_deref()).await,
    }
}

struct Work<'a> {
    options: &'a Options,
    stop: &'a Stop,
    events: Events,
    transport: Arc<dyn LogTransport>,
}

impl Work<'_> {
    /// A log that is only known by its path, until interrupted.
    async fn path(&self, path: &Path) -> Result<Finished> {
        let chain = neighbours::chain(path, self.options.numbering)?;
        let owner = chain.record()?.and_then(|r| r.owner);
        let (domain, console) = match (self.options.uuid, owner) {
            (None, Some(owner)) => (owner.domain, owner.console),
            (Some(uuid), Some(owner)) if uuid == owner.domain => (uuid, owner.console),
            (Some(uuid), _) => (uuid, "serial0".parse()?),
            (None, None) => {
                let path = path.display();
                return Err(Error::Usage(format!(
                    "nothing says whose log {path} is; give the domain's UUID with --uuid"
                )));
            }
        };
        let log = Log {
            name: domain.to_string(),
            domain,
            console,
            chain,
        };
        let (_here, stays) = watch::channel(if self.options.once { Ask::End } else { Ask::Go });
        Ok(self.logs(vec![log], stays).await.into())
    }

    /// A domain's logs, as long as it is here; with --wait whenever it is.
    async fn domain(&self, what: &str, file: Option<&Path>) -> Result<Finished> {
        let mut eyes = DomainWatch {
            uri: self.options.connect.as_deref(),
            what,
            connection: None,
        };
        let domain = self.stop.or(eyes.find()).await;
        let mut domain = match domain {
            Ok(domain) => Some(domain),
            Err(e) if self.options.wait && e.is_no_domain() => None,
            Err(e) => match file.filter(|_| e.is_no_domain()) {
                Some(file) => return self.path(file).await,
                None => return Err(e),
            },
        };
        let mut told = false;
        let mut left = Vec::new();
        loop {
            // Without --wait what is left of one that does not run is put, too.
            let here = match &domain {
                Some(domain) if self.options.wait => eyes.see(domain.uuid()).await == Some(true),
                Some(_) => true,
                None => false,
            };
            if let Some(domain) = domain.as_ref().filter(|_| here) {
                told = false;
                let failures = self.stay(domain, &mut eyes).await?;
                if !self.options.wait || !failures.is_empty() || self.stop.is_asked() {
                    return Ok(failures.into());
                }
            } else if let Some(domain) = &domain {
                // It stopped while nobody looked: what it printed last is here.
                self.leftovers(domain, &mut left).await;
            }
            if !here && !told {
                told = true;
                self.events.tell(Event::Waiting {
                    domain: what.to_owned(),
                    transport: None,
                    seconds: None,
                });
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.stop.asked() => return Ok(Finished::default()),
            }
            // Its XML may be another one when it comes back.
            let found = eyes.find().await;
            domain = found
                .ok_logged("the domain is as it was seen last")
                .or(domain);
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
            let streamer = match log.streamer(&log.archive(&self.transport), self.limits()) {
                Ok(streamer) => streamer,
                Err(e) => {
                    self.events
                        .warn(format!("{}: {}", log.console, e.sentence()));
                    continue;
                }
            };
            let (_ask, asked) = watch::channel(Ask::End);
            match streamer.run(asked).await {
                Ok(_) => {}
                Err(e) if is_early(&e) => {}
                Err(e) => self.events.warn(format!("{}: {e}", log.console)),
            }
        }
    }

    fn task_failed(&self, error: tokio::task::JoinError) -> Event {
        self.events.fail(Event::Failed {
            console: None,
            domain: None,
            reason: Error::from(error).sentence(),
            departed: None,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            delay: self.options.delay,
            keep: self.options.keep,
            ..Limits::default()
        }
    }

    async fn logs_of(&self, domain: &Domain) -> Result<Vec<Log>> {
        let mut logs = Vec::new();
        let numbering = match self.options.numbering {
            NumberingChoice::Auto => numbering_of_host(&self.events),
            choice => choice,
        };
        for console in consoles::consoles_of(domain).await? {
            let named = self.options.console.as_ref();
            if named.is_some_and(|named| *named != console.name) {
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
            let console = self.options.console.as_deref().unwrap_or_default();
            return Err(Error::Refused(format!(
                "domain {} has no console {console}",
                domain.name()
            )));
        }
        Ok(logs)
    }

    /// While it is here, and what it left.
    async fn stay(&self, domain: &Domain, eyes: &mut DomainWatch<'_>) -> Result<Vec<Event>> {
        let logs = self.logs_of(domain).await?;
        let here = watch::Sender::new(Ask::Go);
        let stays = here.subscribe();
        if self.options.once {
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
            failures = self.logs(logs, stays) => Ok(failures),
            () = left => Ok(Vec::new()),
        }
    }

    /// All of them side by side; gives what was told of those that failed.
    async fn logs(&self, logs: Vec<Log>, stays: watch::Receiver<Ask>) -> Vec<Event> {
        let ask = watch::Sender::new(*stays.borrow());
        let mut set = JoinSet::new();
        for log in logs {
            let one = LogStream {
                limits: self.limits(),
                leave_gap: self.options.leave_gap,
                events: self.events.clone(),
                transport: Arc::clone(&self.transport),
                ask: ask.subscribe(),
            };
            set.spawn(one.run(log));
        }
        let mut stays = stays;
        let mut failures = Vec::new();
        let mut open = true;
        loop {
            let interrupted = self.stop.is_asked();
            tokio::select! {
                done = set.join_next() => match done {
                    Some(Ok(failure)) => failures.extend(failure),
                    Some(Err(e)) => failures.push(self.task_failed(e)),
                    None => return failures,
                },
                changed = stays.changed(), if open => {
                    open = changed.is_ok();
                    if open && !interrupted {
                        ask.send_replace(*stays.borrow());
                    }
                }
                () = self.stop.asked(), if !interrupted => {
                    ask.send_replace(Ask::End);
                    open = false;
                }
            }
        }
    }
}
