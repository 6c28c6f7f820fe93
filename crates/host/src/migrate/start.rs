//! Before the migration: the logs are held, both halves are started, and the history goes
//! ahead.

use std::path::PathBuf;
use std::sync::Arc;

use logchain_core::handoff::offer::Source;
use logchain_core::ids::HandoffId;
use logchain_core::transport::LogTransport;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Migration, NotStarted, Started};
use crate::carry::{self, Carry, RemoteHalf, Route};
use crate::log::ConsoleLog;
use crate::{Error, Event, astray};

impl Migration<'_> {
    /// Holds every log, and starts both halves where the transport is there. `left_out`
    /// gets an event for each log of which a part cannot be held.
    pub(super) async fn start(
        &self,
        route: &Route<'_>,
        logs: Vec<(ConsoleLog, Option<PathBuf>)>,
        source: &watch::Sender<Source>,
        left_out: &mut Vec<Event>,
    ) -> Vec<Started> {
        // Held first: whatever the transport does, the bytes are ours. Then all
        // connections at once.
        let mut held_logs = Vec::new();
        for (log, expected) in logs {
            let id = HandoffId::random();
            let astray = astray::astray(&self.domain, &log.path).await;
            let newest = astray.and_then(|astray| {
                let sentence = format!("{}: {}", log.console, astray.sentence);
                let warning = self.events.fail(Event::warning(sentence));
                left_out.extend(astray.is_left_out.then_some(warning));
                astray.file
            });
            let held = log.hold_for(route.domain, Some(id), (newest, None), &self.events);
            let held = held.await;
            if let Ok(held) = &held {
                log.tell_remarks(&self.events, held);
            }
            if let Ok(held) = &held
                && let Err(e) = self.keepers.keep(&log, held)
            {
                self.events.warn(format!(
                    "{}: it cannot be held for the outbox ({}); if its files are removed before it \
                     has arrived, it is lost",
                    log.console,
                    e.sentence()
                ));
            }
            let carry = match held {
                Ok(held) => match RemoteHalf::of(route, &log.console, id, expected.as_deref()) {
                    Ok(remote) => Ok((held, remote)),
                    Err(why) => Err(NotStarted { why, is_held: true }),
                },
                Err(why) => Err(NotStarted {
                    why,
                    is_held: false,
                }),
            };
            held_logs.push((log, carry));
        }
        let any = held_logs.iter().any(|(_, carry)| carry.is_ok());
        let transport: Result<Arc<dyn LogTransport>, String> = if any {
            let open = self.choice.open(route.ssh, route.patience);
            self.stop.or(open).await.map_err(|e| e.sentence())
        } else {
            Err(String::new())
        };
        if transport.is_ok() {
            carry::say_adopt(&self.events, &self.choice, route.domain);
        }
        let mut started = Vec::new();
        for (log, carry) in held_logs {
            let carry = match (carry, &transport) {
                (Ok((held, remote)), Ok(transport)) => {
                    let (transport, source) = (Arc::clone(transport), source.subscribe());
                    let start = Carry::start(route, transport, remote, held, source, true).await;
                    start.map_err(|why| NotStarted { why, is_held: true })
                }
                (Ok((_, remote)), Err(reason)) => {
                    // Before the migration begins the destination is as it was.
                    remote.end().await;
                    let why = Error::Handoff(reason.clone());
                    Err(NotStarted { why, is_held: true })
                }
                (Err(not_started), _) => Err(not_started),
            };
            if let Err(NotStarted { why, .. }) = &carry
                && !self.stop.is_asked()
            {
                self.events.warn(format!(
                    "{}: the log cannot be carried now: {}; the migration goes on",
                    log.console,
                    why.sentence()
                ));
            }
            started.push((log, carry));
        }
        started
    }

    /// A long history takes longer than a small guest's memory: it goes ahead, for a
    /// bounded time, so that it is there before the guest is.
    pub(super) async fn head_start(&self, started: &[Started]) {
        let ahead = async {
            for carry in started.iter().filter_map(|(_, carry)| carry.as_ref().ok()) {
                carry.ahead().await;
            }
        };
        tokio::select! {
            _ = timeout(self.options.head_start, ahead) => {}
            () = self.stop.asked() => {}
        }
    }
}
