//! The guest runs at the destination: its last bytes follow, and what became of each log is
//! told and noted.

use std::time::{Duration, Instant};

use logchain_core::handoff::offer::{Outcome, Source};
use logchain_core::outbox::KeepOutcome;
use logchain_libvirt::{State, source_end};
use logchain_transport_ssh::SshOptions;
use tokio::sync::watch;

use super::guest::Resumes;
use super::{Migration, NotStarted, Started};
use crate::departures::DepartureNote;
use crate::job::Finished;
use crate::left_behind::{self, OfferOptions};
use crate::log::ConsoleLog;
use crate::progress::Phase;
use crate::{Event, carry, outbox};

/// The source's process ends within seconds of the guest's leaving.
const SOURCE_END: Duration = Duration::from_secs(60);

impl Migration<'_> {
    /// The guest runs at the destination: brings the last bytes after it.
    pub(super) async fn finish(
        &self,
        (started, left_out): (Vec<Started>, Vec<Event>),
        source: &watch::Sender<Source>,
        resumed: &Resumes,
    ) -> Finished {
        let (name, uri) = (self.domain.name(), &self.options.request.dest_uri);
        let has_log = !started.is_empty() || !left_out.is_empty();
        self.events.tell(Event::Migrated {
            domain: name.to_owned(),
            destination: uri.clone(),
            has_log,
        });
        if !has_log {
            let domain = name.to_owned();
            self.events.tell(Event::NoLog { domain });
        }
        // A request that came too late to cancel the migration does not stop the log either.
        let seen = self.stop.count();
        if seen > 0 {
            self.events.warn(format!(
                "it was too late to cancel: domain {name} runs there"
            ));
        }
        let source_end = async {
            tokio::select! {
                ended = source_end::wait(&self.domain, SOURCE_END) => if let Err(e) = ended {
                    // The log's own end decides: nobody writes it any more, or it is not over.
                    self.events.warn(e.to_string());
                },
                () = self.stop.after(seen) => {}
            }
        };
        self.meter.during(Phase::SourceEnd, source_end).await;
        source.send_replace(Source::Over);
        let mut note = self.note(&started).await;
        let mut failures = self
            .arrive(started, (source, resumed), seen, note.as_mut())
            .await;
        failures.extend(left_out);
        if failures.is_empty() && self.options.undefine_when_carried {
            self.undefine().await;
        }
        if let Some(note) = note
            && let Err(e) = note.end(&self.domain).await
        {
            self.events.warn(e.sentence());
        }
        failures.into()
    }

    /// Waits for every log to arrive; gives what was told of those that did not.
    pub(super) async fn arrive(
        &self,
        started: Vec<Started>,
        (source, resumed): (&watch::Sender<Source>, &Resumes),
        seen: u32,
        mut note: Option<&mut DepartureNote>,
    ) -> Vec<Event> {
        let mut failures = Vec::new();
        for (log, carry) in started {
            let (outcome, at, is_held) = match carry {
                Ok(carry) => {
                    // A signal leaves it behind.
                    let end = carry.end_or(self.stop.after(seen), source);
                    let (outcome, at) = self.meter.during(Phase::Arrival, end).await;
                    (outcome, at, true)
                }
                Err(NotStarted { why, is_held }) => {
                    let reason = why.sentence();
                    (Outcome::NotCarried { reason }, Instant::now(), is_held)
                }
            };
            let window = resumed
                .borrow()
                .map(|since| at.saturating_duration_since(since));
            let window = window.and_then(|w| u64::try_from(w.as_millis()).ok());
            if let Some(failure) = carry::tell(&self.events, &log, &outcome, window) {
                failures.push(failure);
                self.events.tell(self.left(&log, is_held).await);
            } else if let Some(note) = &mut note {
                note.received(&log.console);
            }
        }
        failures
    }

    /// Puts down that the domain left, for `reap` and `status`.
    async fn note(&self, started: &[Started]) -> Option<DepartureNote> {
        let logs: Vec<&ConsoleLog> = started.iter().map(|(log, _)| log).collect();
        let to = (self.options.request.dest_uri.as_str(), self.dest.as_ref());
        let (state, offer) = (&self.options.state, self.offer_options());
        match DepartureNote::begin(state, &self.domain, to, &offer, &logs).await {
            Ok(note) => Some(note),
            Err(e) => {
                self.events.warn(e.sentence());
                None
            }
        }
    }

    /// What is left here of a log that was not carried.
    async fn left(&self, log: &ConsoleLog, is_held: bool) -> Event {
        let (offer, domain) = (self.offer_options(), self.domain.uuid());
        if !is_held {
            return match log.is_there().await {
                true => left_behind::whole_here(&offer, log, domain),
                false => left_behind::nothing_left(log, "could not be opened at"),
            };
        }
        // Where libvirt has forgotten the domain, whoever had that done removes its
        // folder next.
        let gone = match self.domain.state().await {
            Ok(state) => state == State::Gone,
            Err(_) => self.options.request.flags.undefine_source,
        };
        match self.keepers.put_down(log, gone).await {
            Ok(KeepOutcome::There) => left_behind::whole_here(&offer, log, domain),
            Ok(KeepOutcome::PutDown(entry)) => left_behind::in_outbox(&offer, &entry),
            Ok(KeepOutcome::Empty) => left_behind::nothing_left(log, "is gone from"),
            Err(e) => {
                self.events.warn(format!(
                    "{}: what is held of it could not be put down: {}",
                    log.console,
                    e.sentence()
                ));
                match log.is_there().await {
                    true => left_behind::whole_here(&offer, log, domain),
                    false => left_behind::nothing_left(log, "is gone from"),
                }
            }
        }
    }

    /// What this VM left in the outbox of this host at an earlier stay is part of its
    /// log again before it goes on.
    pub(super) async fn rejoin(&self) {
        let (state, uuid) = (&self.options.state, self.domain.uuid());
        let (_, failures) =
            outbox::rejoin((state, &self.events), self.domain.connection(), uuid, None).await;
        for e in failures {
            self.events.warn(e.sentence());
        }
    }

    fn offer_options(&self) -> OfferOptions<'_> {
        let usual = SshOptions::default().remote_logchain;
        let remote = self.options.remote_logchain.as_deref();
        OfferOptions {
            transport: self.choice.to_string(),
            connect: self.options.connect.as_deref(),
            remote: remote.filter(|remote| *usual != **remote),
        }
    }

    async fn undefine(&self) {
        match self.domain.undefine().await {
            Ok(()) | Err(logchain_libvirt::Error::NoDomain { .. }) => {
                let domain = self.domain.name().to_owned();
                self.events.tell(Event::Undefined { domain });
            }
            Err(e) => self.events.warn(e.to_string()),
        }
    }
}
