//! The periodic task: domains that left this host are undefined, and what they handed over is
//! removed.
//!
//! [`logchain_core::reap`] decides; here it is looked at and done.

mod confirm;
mod url;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use logchain_core::departure::{DEFAULT_STATE, Departure, LeftLog, Notes};
use logchain_core::outbox::{Entry, Outbox};
use logchain_core::reap::files::{self, Removed};
use logchain_core::reap::{Decision, Here, Log, Placement, decide};
use logchain_libvirt::{Connection, Domain, State};
use tracing::{Instrument as _, info_span};
use uuid::Uuid;

use crate::blocking::blocking;
use crate::event::{Departed, Reaping};
use crate::job::Finished;
use crate::leases::Leases;
use crate::stop::Stop;
use crate::{Error, Event, Events, Result, consoles, departures};
use confirm::Confirm;

/// What becomes of the files of a log that was handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// They stay where they are.
    Keep,
    /// Those that the destination has, just as they are, are removed.
    #[default]
    Remove,
}

/// Which domains are reaped, and what has to confirm their new place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// URI of the hypervisor here; that of each note without it.
    pub connect: Option<String>,
    /// Folder of what logchain remembers of this host.
    pub state: PathBuf,
    /// How long to wait between two passes; one pass without it.
    pub every: Option<Duration>,
    /// Only tell what would be done, and why.
    pub dry_run: bool,
    /// What becomes of the files that the destination has.
    pub files: Files,
    /// A program that confirms a domain's new place with status 0.
    pub placement_command: Option<PathBuf>,
    /// A URL that answers 200 where a domain's new place is confirmed.
    pub placement_url: Option<String>,
    /// Whether nothing has to confirm a domain's new place beyond the receipts for its logs.
    pub receipts_suffice: bool,
    /// How long a domain stays at least after it left.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect: None,
            state: DEFAULT_STATE.into(),
            every: None,
            dry_run: false,
            files: Files::default(),
            placement_command: None,
            placement_url: None,
            receipts_suffice: false,
            grace: Duration::ZERO,
        }
    }
}

/// Undefines the domains that left this host, once their new place is confirmed, and removes
/// what they handed over: one pass, or one after the other until it is stopped.
///
/// # Errors
/// [`Error::Usage`] where the options say of nothing how it would confirm a place;
/// [`Error::Record`] where the notes cannot be read.
pub async fn reap(options: Options, events: &Events, stop: &Stop) -> Result<Finished> {
    let confirm = match options.receipts_suffice {
        true => Confirm::Receipts,
        false => Confirm::of(
            options.placement_command.as_deref(),
            options.placement_url.as_deref(),
        )?,
    };
    let mut reaper = Reaper {
        events: events.clone(),
        confirm,
        options,
        told: HashMap::new(),
        warned: HashMap::new(),
    };
    loop {
        let ended = tokio::select! {
            ended = reaper.pass(stop) => ended,
            () = stop.forced() => return Err(Error::Interrupted(
                "interrupted again: ended in the middle; the next run goes on from there".to_owned(),
            )),
        };
        let Some(every) = reaper.options.every else {
            return ended;
        };
        if let Err(e) = ended {
            // It may pass: a libvirtd that is restarted.
            reaper.events.warn(e.sentence());
        }
        tokio::select! {
            () = stop.asked() => return Ok(Finished::default()),
            () = tokio::time::sleep(every) => {}
        }
    }
}

struct Reaper {
    events: Events,
    confirm: Confirm,
    options: Options,
    /// What was told of each domain last: one that stays is told of once.
    told: HashMap<Uuid, Event>,
    /// What was told of each note that cannot be read.
    warned: HashMap<Uuid, String>,
}

/// What became of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Forgotten,
    WouldReap,
    Reaped,
    Failed,
}

/// How it stands with a domain, after all that was to be done.
struct Report {
    fate: Fate,
    /// What was done, or would be.
    done: String,
    reason: String,
    removed: Removed,
}

impl Reaper {
    async fn pass(&mut self, stop: &Stop) -> Result<Finished> {
        let state = self.options.state.clone();
        let found = blocking(move || {
            let Some(notes) = Notes::open(&state)? else {
                return Ok(None);
            };
            let all = notes.all()?;
            Ok(Some((notes, all)))
        });
        let Some((notes, all)) = found.await? else {
            self.say_nothing();
            return Ok(Finished::default());
        };
        if all.is_empty() {
            self.say_nothing();
        }
        self.told
            .retain(|domain, _| all.notes.iter().any(|n| n.domain == *domain));
        let mut failures = Vec::new();
        let mut warned = HashMap::new();
        for (domain, why) in &all.damaged {
            let reason = format!("the note on {domain} cannot be read: {why}");
            if self.warned.get(domain) != Some(&reason) {
                self.events.warn(reason.clone());
            }
            failures.push(Event::warning(reason.clone()));
            warned.insert(*domain, reason);
        }
        self.warned = warned;
        let mut here = Hosts::default();
        for note in all.notes {
            if stop.is_asked() {
                break;
            }
            let age = Timestamp::now().duration_since(note.at);
            if Duration::try_from(age).is_ok_and(|age| age < self.options.grace) {
                continue;
            }
            let span = info_span!("reap", domain = note.name);
            let reaping = self.reap(&notes, &mut here, stop, note.clone());
            let report = match reaping.instrument(span).await {
                Ok(report) => report,
                Err(e) => Report::failed(&e.sentence()),
            };
            failures.extend(self.tell(&note, &report));
        }
        Ok(failures.into())
    }

    fn say_nothing(&self) {
        if self.options.every.is_none() {
            self.events.tell(Event::Nothing);
        }
    }

    async fn reap(
        &self,
        notes: &Notes,
        hosts: &mut Hosts,
        stop: &Stop,
        mut note: Departure,
    ) -> Result<Report> {
        let uri = self.options.connect.as_deref().unwrap_or(&note.connect);
        let connection = hosts.at(uri).await?;
        let (here, domain) = look(&connection, note.domain).await?;
        let logs = look_at_logs(&note, &self.options.state).await?;
        let mut placement = Placement::NotAsked;
        let mut decision = decide(&note, &here, &logs, &placement);
        if decision == Decision::Ask {
            // Whoever is asked may take his time.
            placement = tokio::select! {
                placement = self.confirm.ask(&note, &connection) => placement,
                () = stop.asked() => Placement::NotConfirmed("interrupted".to_owned()),
            };
            decision = decide(&note, &here, &logs, &placement);
        }
        let confirmed = match placement {
            Placement::Confirmed(how) => how,
            _ => String::new(),
        };
        match decision {
            Decision::Ask => Err(Error::Refused(
                "nobody could be asked for its new place".to_owned(),
            )),
            Decision::Keep(why) => Ok(Report::new(Fate::Kept, "", why)),
            Decision::Forget(why) => {
                if !self.options.dry_run {
                    notes.remove(&note)?;
                }
                Ok(Report::new(Fate::Forgotten, "", why))
            }
            Decision::Reap if self.options.dry_run => {
                Ok(self.would(&note, domain.is_some(), confirmed))
            }
            Decision::Reap => {
                // For whoever goes on if we are killed: the record goes before the note.
                let before = note.clone();
                for log in &mut note.logs {
                    log.received = true;
                }
                if note != before {
                    notes.write(&note)?;
                }
                self.act(notes, &note, domain, confirmed).await
            }
        }
    }

    fn would(&self, note: &Departure, defined: bool, confirmed: String) -> Report {
        let mut does = Vec::new();
        if defined {
            does.push("undefined".to_owned());
        }
        if self.options.files == Files::Remove {
            let paths = note.logs.iter().map(|l| l.path.display().to_string());
            let paths: Vec<_> = paths.collect();
            does.push(format!("rid of its files ({})", paths.join(", ")));
        }
        let does = match does.as_slice() {
            [] => "forgotten: it is not defined here any more".to_owned(),
            does => does.join(", and "),
        };
        Report::new(Fate::WouldReap, &does, confirmed)
    }

    /// The one place that undefines and removes.
    async fn act(
        &self,
        notes: &Notes,
        note: &Departure,
        domain: Option<Domain>,
        confirmed: String,
    ) -> Result<Report> {
        let mut did = Vec::new();
        if let Some(domain) = domain {
            match domain.forget().await {
                Ok(()) | Err(logchain_libvirt::Error::NoDomain { .. }) => {
                    did.push("is undefined".to_owned())
                }
                Err(e) => return Ok(Report::failed(&e.to_string())),
            }
        }
        let mut removed = Removed::default();
        if self.options.files == Files::Remove {
            for log in &note.logs {
                let (log, domain) = (log.clone(), note.domain);
                let one = move || {
                    Ok(files::remove(
                        &log.path,
                        domain,
                        &log.console,
                        &Leases::default(),
                    )?)
                };
                let one = blocking(one).await?;
                removed.files = removed.files.saturating_add(one.files);
                removed.bytes = removed.bytes.saturating_add(one.bytes);
                removed.kept.extend(one.kept);
            }
            let Removed { files, bytes, .. } = removed;
            match files {
                0 => {}
                1 => did.push(format!("1 file with {bytes} bytes of its log removed")),
                _ => did.push(format!(
                    "{files} files with {bytes} bytes of its log removed"
                )),
            }
            if !removed.kept.is_empty() {
                did.push(format!("{} stay", removed.kept.join(", ")));
            }
        }
        notes.remove(note)?;
        if did.is_empty() {
            did.push("is not defined here any more".to_owned());
        }
        Ok(Report {
            removed,
            ..Report::new(Fate::Reaped, &did.join(", "), confirmed)
        })
    }

    /// Tells it, unless the pass before told the same; gives it where it is a failure.
    fn tell(&mut self, note: &Departure, report: &Report) -> Option<Event> {
        let event = report.event(note, self.options.dry_run);
        let before = self.told.insert(note.domain, event.clone());
        if before.as_ref() != Some(&event) {
            self.events.tell(event.clone());
        }
        (report.fate == Fate::Failed).then_some(event)
    }
}

impl Report {
    fn new(fate: Fate, done: &str, reason: String) -> Self {
        Self {
            fate,
            done: done.to_owned(),
            reason,
            removed: Removed::default(),
        }
    }

    fn failed(reason: &str) -> Self {
        Self::new(Fate::Failed, "", reason.to_owned())
    }

    fn event(&self, note: &Departure, dry_run: bool) -> Event {
        let (domain, reason) = (note.name.clone(), self.reason.clone());
        let departed = Departed {
            uuid: note.domain,
            destination: note.to.uri.clone(),
            left: u64::try_from(note.at.as_second()).unwrap_or(0),
            dry_run,
            files: self.removed.files,
            bytes: self.removed.bytes,
            kept: self.removed.kept.clone(),
        };
        if self.fate == Fate::Failed {
            return Event::Failed {
                console: None,
                domain: Some(domain),
                reason,
                departed: Some(departed),
            };
        }
        let reaping = Reaping {
            domain,
            reason,
            done: self.done.clone(),
            departed,
        };
        match self.fate {
            Fate::Kept | Fate::Failed => Event::Kept(reaping),
            Fate::Forgotten => Event::Forgotten(reaping),
            Fate::WouldReap => Event::WouldReap(reaping),
            Fate::Reaped => Event::Reaped(reaping),
        }
    }
}

/// Connections to libvirt here: each is made once.
#[derive(Default)]
struct Hosts(HashMap<String, Connection>);

impl Hosts {
    async fn at(&mut self, uri: &str) -> Result<Connection> {
        if let Some(connection) = self.0.get(uri).filter(|c| !c.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = consoles::connect_local(Some(uri)).await?;
        self.0.insert(uri.to_owned(), connection.clone());
        Ok(connection)
    }
}

/// What libvirt here says of a domain; the domain, where it is defined.
pub(crate) async fn look(connection: &Connection, domain: Uuid) -> Result<(Here, Option<Domain>)> {
    let domain = match connection.lookup_uuid(domain).await {
        Ok(domain) => domain,
        Err(logchain_libvirt::Error::NoDomain { .. }) => return Ok((Here::Gone, None)),
        Err(e) => return Err(e.into()),
    };
    let here = match domain.state().await? {
        State::Gone => Here::Gone,
        State::Running(_) => Here::Running,
        state if state.is_active() => Here::Active(state.word()),
        _ => match departures::definition(&domain).await? {
            Some(definition) => Here::Over { definition },
            None => Here::Gone,
        },
    };
    let defined = matches!(here, Here::Over { .. });
    Ok((here, defined.then_some(domain)))
}

/// In the order of the note's logs.
pub(crate) async fn look_at_logs(note: &Departure, state: &Path) -> Result<Vec<Log>> {
    let (logs, domain, outbox) = (note.logs.clone(), note.domain, Outbox::of(state));
    let look = move |left: &LeftLog, put_down: &[Entry]| {
        let log = files::look(&left.path, domain, &left.console);
        let of_it = put_down.iter().find(|entry| entry.console == left.console);
        // Files that are there still were handed over to the outbox, and no further.
        of_it.map_or(log, |entry| Log::PutDown(entry.path.clone()))
    };
    blocking(move || {
        let put_down = outbox.of_domain(domain)?;
        Ok(logs.iter().map(|log| look(log, &put_down)).collect())
    })
    .await
}
