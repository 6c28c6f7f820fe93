//! Every handoff on this host: where it stands, what it waits for, what to do.

mod report;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use logchain_core::OkLogged as _;
use logchain_core::departure::{All, DEFAULT_STATE, Departure, Notes};
use logchain_core::folder::{self, Folder};
use logchain_core::handoff::stage::{Stage, stages};
use logchain_core::handoff::{Begin, Handoff};
use logchain_core::ids::ConsoleName;
use logchain_core::outbox::Outbox;
use logchain_core::placement::under_way::{UnfinishedStaging, under_way};
use logchain_core::reap::{Here, Log, Placement, decide};
use logchain_core::record::{Offered, Record};
use logchain_core::standing::{
    Beside, Spooled, Standing, State, of_departure, of_log, of_put_down, of_spooled,
};
use logchain_core::transport::{DirectoryTransport, LogTransportExt, ObjectName, Prefix};
use logchain_libvirt::consoles::consoles;
use logchain_libvirt::{Connection, Domain};
use logchain_transport_ssh::shell_line;
use uuid::Uuid;

use crate::blocking::blocking;
use crate::left_behind::{self, OfferOptions};
use crate::log::ConsoleLog;
use crate::reap::{look, look_at_logs};
use crate::{Result, astray, consoles, limits, neighbours};

pub use report::{HandoffReport, Report};

/// A message in the spool is small.
const MAX_BEGIN: u64 = 64 * 1024;

/// Which host is looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// URI of the hypervisor here; libvirt's default without it.
    pub connect: Option<String>,
    /// Folder of what logchain remembers of this host.
    pub state: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect: None,
            state: DEFAULT_STATE.into(),
        }
    }
}

/// Every handoff on this host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// When this host was looked at.
    pub at: Timestamp,
    /// Where each stands.
    pub handoffs: Vec<Standing>,
    /// What could not be looked at, and what a reader of a log should know.
    pub warnings: Vec<String>,
}

impl Status {
    /// How many of them are not over.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.handoffs.iter().filter(|s| !s.state.is_over()).count()
    }
}

/// Looks at the notes, libvirt's domains, the outbox and the spool of this host. It changes
/// nothing. What cannot be looked at is a warning.
pub async fn status(options: &Options) -> Status {
    let mut found = Findings::default();
    let (state, folder) = (&options.state, options.state.clone());
    let notes = blocking(move || read_notes(&folder)).await;
    let notes = found.or_warn("the notes on domains that left", notes);
    let notes = notes.unwrap_or_default();
    for (domain, why) in &notes.damaged {
        found.warn(format!("the note on {domain} cannot be read: {why}"));
    }
    let connection = consoles::connect_local(options.connect.as_deref()).await;
    if let Some(connection) = found.or_warn("libvirt's domains", connection) {
        found.departures(&connection, &notes.notes, state).await;
        found.logs(&connection, &notes.notes).await;
        let put_down = found.outbox(&connection, &notes.notes, state).await;
        found.or_warn("the outbox", put_down);
    }
    let spooled = found.spool(&state.join("spool")).await;
    found.or_warn("the spool", spooled);
    Status {
        at: Timestamp::now(),
        handoffs: found.all,
        warnings: found.warnings,
    }
}

#[derive(Default)]
struct Findings {
    all: Vec<Standing>,
    /// What could not be looked at, and why.
    warnings: Vec<String>,
}

impl Findings {
    fn warn(&mut self, sentence: String) {
        self.warnings.push(sentence);
    }

    fn or_warn<T>(&mut self, what: &str, found: Result<T>) -> Option<T> {
        match found {
            Ok(found) => Some(found),
            Err(e) => {
                self.warn(format!("cannot look at {what}: {}", e.sentence()));
                None
            }
        }
    }

    async fn departures(&mut self, connection: &Connection, notes: &[Departure], state: &Path) {
        for note in notes {
            let standing = departure(connection, note, state).await;
            let standing = self.or_warn(&note.name, standing);
            self.all.extend(standing.into_iter().flatten());
        }
    }

    async fn logs(&mut self, connection: &Connection, notes: &[Departure]) {
        let domains = connection.domains().await.map_err(Into::into);
        let mut look = astray::Look::new().await;
        let (numbering, note) = limits::numbering();
        self.warnings.extend(note);
        for domain in self
            .or_warn("libvirt's domains", domains)
            .unwrap_or_default()
        {
            let noted = notes.iter().any(|note| note.domain == domain.uuid());
            let standing = logs_of(&domain, noted).await;
            for sentence in neighbours::remarks(&domain, numbering).await {
                self.warn(format!("{}: {sentence}", domain.name()));
            }
            let what = format!("the logs of {}", domain.name());
            let standing = self.or_warn(&what, standing);
            self.all.extend(standing.into_iter().flatten());
            if let Some(look) = &mut look {
                self.written(&domain, look).await;
            }
        }
    }

    /// Whether what a running guest prints is found in its logs.
    async fn written(&mut self, domain: &Domain, look: &mut astray::Look) {
        let xml = domain.live_xml().await;
        let xml = xml.ok_logged("where this domain's logs are written is not looked at");
        let found = xml.and_then(|xml| consoles(&xml).ok()).unwrap_or_default();
        for console in found {
            let written = look.at(domain, &console.path).await;
            let sentence = written.and_then(|w| astray::sentence(&console.path, &w));
            if let Some(sentence) = sentence {
                self.warn(format!("{}: {sentence}", domain.name()));
            }
        }
    }

    /// What no note tells of: its VM came back, or its note could not be written.
    async fn outbox(
        &mut self,
        connection: &Connection,
        notes: &[Departure],
        state: &Path,
    ) -> Result<()> {
        let outbox = Outbox::of(state);
        let all = blocking(move || Ok(outbox.all()?)).await?;
        for path in all.unfinished {
            self.warn(format!(
                "a log was being put down in {} and is not whole: is logchain at work, or was \
                 it killed?",
                path.display()
            ));
        }
        for entry in all.entries {
            let told = |s: &Standing| {
                let of_it = s.domain == entry.domain && s.console.as_ref() == Some(&entry.console);
                of_it && s.stands.contains(&entry.path.display().to_string())
            };
            if self.all.iter().any(told) {
                continue;
            }
            let (here, _) = look(connection, entry.domain).await?;
            let note = notes.iter().find(|note| note.domain == entry.domain);
            let options = OfferOptions {
                transport: note.map_or("URL", |note| &note.transport).to_owned(),
                connect: None,
                remote: note.and_then(|note| note.remote.as_deref()),
            };
            let offer = left_behind::command(&options, &[], entry.domain);
            let active = matches!(here, Here::Running | Here::Active(_));
            let mut standing = of_put_down(&entry, active, &offer);
            standing.name = note.map(|note| note.name.clone());
            self.all.push(standing);
        }
        Ok(())
    }

    async fn spool(&mut self, path: &Path) -> Result<()> {
        if !path.is_dir() {
            return Ok(());
        }
        for spooled in read_spool(path).await? {
            // What is known from beside the log is known better there.
            let comes = |s: State| matches!(s, State::Arriving | State::Sealed | State::Placed);
            let known = |s: &Standing| s.handoff == Some(spooled.handoff) && comes(s.state);
            if !self.all.iter().any(known) {
                let adopt = adopt_command(path, spooled.domain);
                self.all
                    .push(of_spooled(&spooled, &adopt, Timestamp::now()));
            }
        }
        Ok(())
    }
}

fn read_notes(state: &Path) -> Result<All> {
    match Notes::open(state)? {
        Some(notes) => Ok(notes.all()?),
        None => Ok(All::default()),
    }
}

async fn departure(
    connection: &Connection,
    note: &Departure,
    state: &Path,
) -> Result<Vec<Standing>> {
    let (here, _) = look(connection, note.domain).await?;
    let logs = look_at_logs(note, state).await?;
    let put_down: Vec<ConsoleName> = note
        .logs
        .iter()
        .zip(&logs)
        .filter(|(_, log)| matches!(log, Log::PutDown(_)))
        .map(|(left, _)| left.console.clone())
        .collect();
    let decision = decide(note, &here, &logs, &Placement::NotAsked);
    let paths: Vec<_> = note.logs.iter().map(|l| l.path.clone()).collect();
    let offered = tokio::task::spawn_blocking(move || {
        let offered = |path: &PathBuf| {
            let record = record_at(path);
            record
                .ok_logged("nobody can tell what was offered of this log")??
                .offered
        };
        paths.iter().map(offered).collect::<Vec<Option<Offered>>>()
    });
    let logs: Vec<_> = logs.into_iter().zip(offered.await?).collect();
    let domain = note.domain;
    Ok(of_departure(note, &here, &decision, &logs, |left| {
        let options = OfferOptions {
            transport: note.transport.clone(),
            connect: None,
            remote: note.remote.as_deref(),
        };
        if put_down.contains(&left.console) {
            return left_behind::command(&options, &[], domain);
        }
        let log = ConsoleLog {
            console: left.console.clone(),
            path: left.path.clone(),
        };
        left_behind::offer_command(&options, &log, domain)
    }))
}

fn record_at(path: &Path) -> Result<Option<Record>> {
    match Folder::of_file(path) {
        Ok((folder, base)) => Ok(Record::read_any(&folder, &base)?),
        Err(folder::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn logs_of(domain: &Domain, noted: bool) -> Result<Vec<Standing>> {
    let active = domain.state().await?.is_active();
    let mut all = Vec::new();
    for console in consoles(&domain.live_xml().await?)? {
        let (name, path) = (consoles::key_name(&console)?, console.path.clone());
        let (uuid, key) = (domain.uuid(), name.clone());
        let found = blocking(move || beside(&path, uuid, &key));
        let (record, begun) = found.await?;
        let offered = record.as_ref().and_then(|r| r.offered.as_ref());
        let options = OfferOptions {
            transport: offered.map(|o| o.to.clone()).unwrap_or_default(),
            connect: None,
            remote: None,
        };
        let log = ConsoleLog {
            console: name.clone(),
            path: console.path.clone(),
        };
        let offer = left_behind::offer_command(&options, &log, uuid);
        let words = ["logchain", "verify", "--repair", "--console"];
        let words = words.into_iter().chain([name.as_str(), domain.name()]);
        let repair = shell_line(words).to_string_lossy().into_owned();
        all.extend(of_log(&Beside {
            domain: uuid,
            console: &name,
            active,
            record: record.as_ref(),
            begun: &begun,
            noted,
            repair: &repair,
            offer: &offer,
        }));
    }
    for standing in &mut all {
        standing.name = Some(domain.name().to_owned());
    }
    Ok(all)
}

/// The record beside a log, if it is this console's, and what was begun there.
fn beside(
    path: &Path,
    domain: Uuid,
    console: &ConsoleName,
) -> Result<(Option<Record>, Vec<UnfinishedStaging>)> {
    let (folder, base) = match Folder::of_file(path) {
        Ok(found) => found,
        Err(folder::Error::NotFound { .. }) => return Ok((None, Vec::new())),
        Err(e) => return Err(e.into()),
    };
    let record = Record::read(&folder, &base, domain, console)?;
    Ok((record, under_way(&folder, &base)?))
}

fn adopt_command(spool: &Path, domain: Uuid) -> String {
    let mut url = OsString::from("file://");
    url.push(spool);
    let words = ["logchain", "adopt", "--transport"].map(OsString::from);
    let words = words.into_iter().chain([url, domain.to_string().into()]);
    shell_line(words).to_string_lossy().into_owned()
}

async fn read_spool(path: &Path) -> Result<Vec<Spooled>> {
    let spool = DirectoryTransport::open(path)?;
    let (entries, path) = (spool.list_handoffs(&Prefix::All).await?, path.to_owned());
    let spooled = |(handoff, stage): (Handoff, Stage)| {
        let spooled = Spooled {
            domain: handoff.domain,
            console: handoff.console.clone(),
            handoff: handoff.id,
            begin: None,
            bytes: 0,
            stage,
            last: Timestamp::UNIX_EPOCH,
        };
        (handoff, spooled)
    };
    let mut found: BTreeMap<_, _> = stages(&entries).into_iter().map(spooled).collect();
    let timed = tokio::task::spawn_blocking(move || {
        let timed = entries.into_iter().map(|entry| {
            let last = last_change(&path.join(entry.key.to_string()));
            (entry.key, last)
        });
        timed.collect::<Vec<_>>()
    });
    for (key, last) in timed.await? {
        let Some(spooled) = Handoff::of(&key).and_then(|handoff| found.get_mut(&handoff)) else {
            continue;
        };
        spooled.last = spooled.last.max(last);
        match key.object {
            ObjectName::Begin => {
                let begin = spool.get_opt(&key, MAX_BEGIN).await;
                let begin = begin
                    .ok_logged("this handoff is shown without names")
                    .flatten();
                let begin = begin.and_then(|b| serde_json::from_slice::<Begin>(&b).ok());
                spooled.begin = begin.map(|b| (b.domain_name, b.host));
            }
            ObjectName::Chunk { len, .. } => {
                spooled.bytes = spooled.bytes.saturating_add(u64::from(len));
            }
            _ => {}
        }
    }
    Ok(found.into_values().collect())
}

/// When a file was written; in 1970 where it is gone.
fn last_change(file: &Path) -> Timestamp {
    let written = std::fs::metadata(file).and_then(|m| m.modified()).ok();
    let written = written.and_then(|at| Timestamp::try_from(at).ok());
    written.unwrap_or(Timestamp::UNIX_EPOCH)
}
