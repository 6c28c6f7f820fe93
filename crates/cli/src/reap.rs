//! `logchain reap`: one pass of the periodic task, or many.
//!
//! What is decided is decided in [`logchain_core::reap`]; here it is looked and done.

mod placement;
mod url;

use std::collections::HashMap;
use std::path::Path;

use logchain_core::departure::{Departure, LeftLog, Notes};
use logchain_core::outbox::{Entry, Outbox};
use logchain_core::reap::files::{self, Removed};
use logchain_core::reap::{Decision, Here, Log, Placement, decide};
use logchain_host::consoles;
use logchain_host::event::{Departed, Reaping};
use logchain_host::leases::Leases;
use logchain_host::{Event, Events};
use logchain_libvirt::{Connection, Domain, Error, State};
use uuid::Uuid;

use crate::args::{Files, Reap};
use crate::exit::{self, Ended, Exit};
use crate::interrupt::Interrupt;
use crate::noted;
use crate::report::{self, Watch};
use placement::Confirm;

pub(crate) async fn run(args: Reap, interrupt: Interrupt) -> anyhow::Result<Exit> {
    let confirm = Confirm::of(
        args.placement_command.as_deref(),
        args.placement_url.as_deref(),
    )?;
    let mut reaper = Reaper {
        events: report::events(args.format, Watch::Terminal),
        confirm,
        args,
        told: HashMap::new(),
    };
    loop {
        let ended = tokio::select! {
            ended = reaper.pass(&interrupt) => ended,
            () = interrupt.forced() => anyhow::bail!(
                "interrupted again: ended in the middle; the next run goes on from there"
            ),
        };
        let Some(every) = reaper.args.every else {
            return ended;
        };
        if let Err(e) = ended
            && !e.is::<Ended>()
        {
            // It may pass: a libvirtd that is restarted.
            reaper.events.warn(exit::sentence(&e));
        }
        tokio::select! {
            () = interrupt.first() => return Ok(Exit::Done),
            () = tokio::time::sleep(every) => {}
        }
    }
}

struct Reaper {
    events: Events,
    confirm: Confirm,
    args: Reap,
    /// What was said of each domain last: one that stays is told of once.
    told: HashMap<Uuid, String>,
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
struct Told {
    fate: Fate,
    /// What was done, or would be.
    done: String,
    reason: String,
    removed: Removed,
}

impl Reaper {
    async fn pass(&mut self, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let state = self.args.state.folder.clone();
        let found = blocking(move || {
            let Some(notes) = Notes::open(&state)? else {
                return Ok(None);
            };
            let all = notes.all()?;
            Ok(Some((notes, all)))
        });
        let Some((notes, all)) = found.await? else {
            self.say_nothing();
            return Ok(Exit::Done);
        };
        if all.is_empty() {
            self.say_nothing();
        }
        self.told.retain(|domain, _| {
            all.notes.iter().any(|n| n.domain == *domain)
                || all.damaged.iter().any(|(damaged, _)| damaged == domain)
        });
        let mut reasons = Vec::new();
        for (domain, why) in &all.damaged {
            let reason = format!("the note on {domain} cannot be read: {why}");
            if self.told.insert(*domain, reason.clone()).as_ref() != Some(&reason) {
                self.events.warn(reason.clone());
            }
            reasons.push(reason);
        }
        let mut here = Hosts::default();
        for note in all.notes {
            if interrupt.came() {
                break;
            }
            let told = match self.reap(&notes, &mut here, interrupt, note.clone()).await {
                Ok(told) => told,
                Err(e) => Told::failed(&exit::sentence(&e)),
            };
            reasons.extend(self.tell(&note, &told));
        }
        Ended::told(Exit::Failed, &reasons)
    }

    fn say_nothing(&self) {
        if self.args.every.is_none() {
            self.events.tell(Event::Nothing);
        }
    }

    async fn reap(
        &self,
        notes: &Notes,
        hosts: &mut Hosts,
        interrupt: &Interrupt,
        mut note: Departure,
    ) -> anyhow::Result<Told> {
        let uri = self.args.connect.uri.as_deref().unwrap_or(&note.connect);
        let connection = hosts.at(uri).await?;
        let (here, domain) = look(&connection, note.domain).await?;
        let logs = look_at_logs(&note, &self.args.state.folder).await?;
        let mut placement = Placement::NotAsked;
        let mut decision = decide(&note, &here, &logs, &placement);
        if decision == Decision::Ask {
            // Whoever is asked may take his time.
            placement = tokio::select! {
                placement = self.confirm.ask(&note, &connection) => placement,
                () = interrupt.first() => Placement::NotConfirmed("interrupted".to_owned()),
            };
            decision = decide(&note, &here, &logs, &placement);
        }
        let confirmed = match placement {
            Placement::Confirmed(how) => how,
            _ => String::new(),
        };
        match decision {
            Decision::Ask => anyhow::bail!("nobody could be asked for its new place"),
            Decision::Keep(why) => Ok(Told::new(Fate::Kept, "", why)),
            Decision::Forget(why) => {
                if !self.args.dry_run {
                    notes.remove(&note)?;
                }
                Ok(Told::new(Fate::Forgotten, "", why))
            }
            Decision::Reap if self.args.dry_run => {
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

    fn would(&self, note: &Departure, defined: bool, confirmed: String) -> Told {
        let mut does = Vec::new();
        if defined {
            does.push("undefined".to_owned());
        }
        if self.args.files == Files::Remove {
            let paths = note.logs.iter().map(|l| l.path.display().to_string());
            let paths: Vec<_> = paths.collect();
            does.push(format!("rid of its files ({})", paths.join(", ")));
        }
        let does = match does.as_slice() {
            [] => "forgotten: it is not defined here any more".to_owned(),
            does => does.join(", and "),
        };
        Told::new(Fate::WouldReap, &does, confirmed)
    }

    /// The one place that undefines and removes.
    async fn act(
        &self,
        notes: &Notes,
        note: &Departure,
        domain: Option<Domain>,
        confirmed: String,
    ) -> anyhow::Result<Told> {
        let mut did = Vec::new();
        if let Some(domain) = domain {
            match domain.forget().await {
                Ok(()) | Err(Error::NoDomain { .. }) => did.push("is undefined".to_owned()),
                Err(e) => return Ok(Told::failed(&e.to_string())),
            }
        }
        let mut removed = Removed::default();
        if self.args.files == Files::Remove {
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
        Ok(Told {
            removed,
            ..Told::new(Fate::Reaped, &did.join(", "), confirmed)
        })
    }

    /// Says it, unless it was said in the pass before; gives what failed.
    fn tell(&mut self, note: &Departure, told: &Told) -> Option<String> {
        let event = told.event(note, self.args.dry_run);
        let sentence = report::sentence(&event);
        let news = self.told.insert(note.domain, sentence.clone()).as_ref() != Some(&sentence);
        if news {
            self.events.tell(event);
        }
        (told.fate == Fate::Failed).then_some(sentence)
    }
}

impl Told {
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
    async fn at(&mut self, uri: &str) -> anyhow::Result<Connection> {
        if let Some(connection) = self.0.get(uri).filter(|c| !c.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = consoles::connect_local(Some(uri)).await?;
        self.0.insert(uri.to_owned(), connection.clone());
        Ok(connection)
    }
}

/// What libvirt here says of a domain; the domain, where it is defined.
pub(crate) async fn look(
    connection: &Connection,
    domain: Uuid,
) -> anyhow::Result<(Here, Option<Domain>)> {
    let domain = match connection.lookup_uuid(domain).await {
        Ok(domain) => domain,
        Err(Error::NoDomain { .. }) => return Ok((Here::Gone, None)),
        Err(e) => return Err(e.into()),
    };
    let here = match domain.state().await? {
        State::Gone => Here::Gone,
        State::Running(_) => Here::Running,
        state if state.is_active() => Here::Active(state.word()),
        _ => match noted::definition(&domain).await? {
            Some(definition) => Here::Over { definition },
            None => Here::Gone,
        },
    };
    let defined = matches!(here, Here::Over { .. });
    Ok((here, defined.then_some(domain)))
}

/// In the order of the note's logs.
pub(crate) async fn look_at_logs(note: &Departure, state: &Path) -> anyhow::Result<Vec<Log>> {
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
