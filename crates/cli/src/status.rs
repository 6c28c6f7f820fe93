//! `logchain status`: every handoff on this host, from the notes, the logs of
//! libvirt's domains and the spool. What cannot be looked at is said, and no failure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use logchain_core::departure::{All, Departure, Notes};
use logchain_core::folder::{self, Folder};
use logchain_core::handoff::stage::{Stage, stages};
use logchain_core::handoff::{Begin, Handoff};
use logchain_core::outbox::Outbox;
use logchain_core::placement::under_way::{UnfinishedStaging, under_way};
use logchain_core::reap::{Here, Log, Placement, decide};
use logchain_core::record::{Offered, Record};
use logchain_core::standing::{
    Beside, Spooled, Standing, State, of_departure, of_log, of_put_down, of_spooled,
};
use logchain_core::transport::{
    ConsoleName, DirectoryTransport, LogTransportExt, ObjectName, Prefix,
};
use logchain_host::astray;
use logchain_host::consoles;
use logchain_host::neighbours;
use logchain_libvirt::consoles::consoles;
use logchain_libvirt::{Connection, Domain};
use logchain_transport_ssh::shell_line;
use serde_json::json;
use uuid::Uuid;

use crate::args::{Format, Status};
use crate::carry;
use crate::domain;
use crate::exit::{self, Exit};
use crate::migrate::later;
use crate::noted::now;
use crate::reap::{look, look_at_logs};

/// A message in the spool is small.
const MAX_BEGIN: u64 = 64 * 1024;

pub(crate) async fn run(args: Status) -> anyhow::Result<Exit> {
    let mut found = Found::default();
    let state = args.state.folder.clone();
    let folder = state.clone();
    let notes = tokio::task::spawn_blocking(move || read_notes(&folder)).await?;
    let notes = found.or_warn("the notes on domains that left", notes);
    let notes = notes.unwrap_or_default();
    for (domain, why) in &notes.damaged {
        found.warn(format!("the note on {domain} cannot be read: {why}"));
    }
    let connection = consoles::connect_local(args.connect.uri.as_deref()).await;
    let connection = connection.map_err(Into::into);
    if let Some(connection) = found.or_warn("libvirt's domains", connection) {
        found.departures(&connection, &notes.notes, &state).await;
        found.logs(&connection, &notes.notes).await;
        let put_down = found.outbox(&connection, &notes.notes, &state).await;
        found.or_warn("the outbox", put_down);
    }
    let spool = args.state.folder.join("spool");
    let spooled = found.spool(&spool).await;
    found.or_warn("the spool", spooled);
    found.tell(args.format);
    Ok(Exit::Done)
}

#[derive(Default)]
struct Found {
    all: Vec<Standing>,
    /// What could not be looked at, and why.
    warnings: Vec<String>,
}

impl Found {
    fn warn(&mut self, sentence: String) {
        self.warnings.push(sentence);
    }

    fn or_warn<T>(&mut self, what: &str, found: anyhow::Result<T>) -> Option<T> {
        match found {
            Ok(found) => Some(found),
            Err(e) => {
                self.warn(format!("cannot look at {what}: {}", exit::sentence(&e)));
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
        for domain in self
            .or_warn("libvirt's domains", domains)
            .unwrap_or_default()
        {
            let noted = notes.iter().any(|note| note.domain == domain.uuid());
            let standing = logs_of(&domain, noted).await;
            for sentence in neighbours::remarks(&domain, domain::numbering()).await {
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
        let xml = domain.live_xml().await.ok();
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
    ) -> anyhow::Result<()> {
        let outbox = Outbox::of(state);
        let all = tokio::task::spawn_blocking(move || outbox.all()).await??;
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
            let way = later::Way {
                transport: note.map_or("URL", |note| &note.transport).to_owned(),
                connect: None,
                remote: note.and_then(|note| note.remote.as_deref()),
            };
            let offer = later::command(&way, &[], entry.domain);
            let active = matches!(here, Here::Running | Here::Active(_));
            let mut standing = of_put_down(&entry, active, &offer);
            standing.name = note.map(|note| note.name.clone());
            self.all.push(standing);
        }
        Ok(())
    }

    async fn spool(&mut self, path: &Path) -> anyhow::Result<()> {
        if !path.is_dir() {
            return Ok(());
        }
        for spooled in read_spool(path).await? {
            // What is known from beside the log is known better there.
            let comes = |s: State| matches!(s, State::Arriving | State::Sealed | State::Placed);
            let known = |s: &Standing| s.handoff == Some(spooled.handoff) && comes(s.state);
            if !self.all.iter().any(known) {
                let adopt = adopt_command(path, spooled.domain);
                self.all.push(of_spooled(&spooled, &adopt, now()));
            }
        }
        Ok(())
    }

    fn tell(&self, format: Format) {
        let under_way = self.all.iter().filter(|s| !s.state.is_over()).count();
        if let Format::Json = format {
            let all: Vec<_> = self.all.iter().map(described).collect();
            let status = json!({
                "host": consoles::own_name(),
                "under_way": under_way,
                "handoffs": all,
                "warnings": self.warnings,
            });
            println!("{status}");
            return;
        }
        for standing in &self.all {
            println!("{}", standing.sentence(now()));
        }
        for warning in &self.warnings {
            eprintln!("logchain: {warning}");
        }
        if under_way == 0 && self.warnings.is_empty() {
            println!("nothing is under way on this host");
        }
    }
}

fn described(standing: &Standing) -> serde_json::Value {
    json!({
        "state": standing.state.as_str(),
        "over": standing.state.is_over(),
        "domain": standing.name,
        "uuid": standing.domain.to_string(),
        "console": standing.console.as_ref().map(ConsoleName::as_str),
        "handoff": standing.handoff.map(|h| h.to_string()),
        "bytes": standing.bytes,
        "peer": standing.peer,
        "since": standing.since,
        "stands": standing.stands,
        "waits_for": standing.waits_for,
        "help": standing.help,
    })
}

fn read_notes(state: &Path) -> anyhow::Result<All> {
    match Notes::open(state)? {
        Some(notes) => Ok(notes.all()?),
        None => Ok(All::default()),
    }
}

async fn departure(
    connection: &Connection,
    note: &Departure,
    state: &Path,
) -> anyhow::Result<Vec<Standing>> {
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
        let offered = |path: &PathBuf| record_at(path).ok()??.offered;
        paths.iter().map(offered).collect::<Vec<Option<Offered>>>()
    });
    let logs: Vec<_> = logs.into_iter().zip(offered.await?).collect();
    let domain = note.domain;
    Ok(of_departure(note, &here, &decision, &logs, |left| {
        let way = later::Way {
            transport: note.transport.clone(),
            connect: None,
            remote: note.remote.as_deref(),
        };
        if put_down.contains(&left.console) {
            return later::command(&way, &[], domain);
        }
        let log = carry::Log {
            console: left.console.clone(),
            path: left.path.clone(),
        };
        later::offer_command(&way, &log, domain)
    }))
}

fn record_at(path: &Path) -> anyhow::Result<Option<Record>> {
    match Folder::of_file(path) {
        Ok((folder, base)) => Ok(Record::read_any(&folder, &base)?),
        Err(folder::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn logs_of(domain: &Domain, noted: bool) -> anyhow::Result<Vec<Standing>> {
    let active = domain.state().await?.is_active();
    let mut all = Vec::new();
    for console in consoles(&domain.live_xml().await?)? {
        let (name, path) = (consoles::key_name(&console)?, console.path.clone());
        let (uuid, key) = (domain.uuid(), name.clone());
        let found = tokio::task::spawn_blocking(move || beside(&path, uuid, &key));
        let (record, begun) = found.await??;
        let offered = record.as_ref().and_then(|r| r.offered.as_ref());
        let way = later::Way {
            transport: offered.map(|o| o.to.clone()).unwrap_or_default(),
            connect: None,
            remote: None,
        };
        let log = carry::Log {
            console: name.clone(),
            path: console.path.clone(),
        };
        let offer = later::offer_command(&way, &log, uuid);
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
) -> anyhow::Result<(Option<Record>, Vec<UnfinishedStaging>)> {
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

async fn read_spool(path: &Path) -> anyhow::Result<Vec<Spooled>> {
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
            last: 0,
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
                let begin = spool.get_opt(&key, MAX_BEGIN).await.ok().flatten();
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

/// When a file was written, in seconds since 1970; 0 where it is gone.
fn last_change(file: &Path) -> u64 {
    let written = std::fs::metadata(file).and_then(|m| m.modified()).ok();
    let since = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}
