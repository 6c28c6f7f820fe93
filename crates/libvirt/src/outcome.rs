//! What became of a migration: decided from the state of both hosts.
//!
//! Neither the call's answer nor one event is enough. The call can fail after
//! the guest has left (the connection broke), and the same RESUMED event tells
//! of success at the destination and of failure at the source. [`reconcile`] is
//! pure; [`settle`] asks both hosts until it can tell, or its time is over.
//!
//! Must not know: what then happens to the log.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::Connection;
use crate::domain::Domain;
use crate::look::Look;
use crate::{Paused, Result, Running, Shutoff, State};

/// How often both hosts are asked again.
const POLL: Duration = Duration::from_millis(300);

/// How long one host may take for one answer.
const LOOK: Duration = Duration::from_secs(5);

/// What was learnt of a domain on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its host's answer.
    State(State),
    /// The same, and the migration is still under way there: where only our own
    /// connection broke, the source's libvirtd can go on without us.
    Migrating(State),
    /// None: its host could not be asked, and why.
    Unreachable(String),
}

/// What became of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest is at the destination.
    Migrated {
        /// Whether the source is over already. Until it is, its log can grow.
        source_over: bool,
    },
    /// The guest is not at the destination.
    Failed {
        /// libvirt's reason.
        reason: String,
        /// Whether it is still at the source (running, or paused as it was); if
        /// not, it is over on both hosts.
        at_source: bool,
        /// Whether the destination said that it is not there. Where the network goes
        /// at the very switchover, its libvirtd lets the guest go on, the source's
        /// hears nothing of it and does the same: it runs on both then.
        dest_answered: bool,
    },
    /// Post-copy broke off: the guest left the source for good, and a part of its
    /// memory is still there. It goes on when the migration is resumed, and else nowhere.
    Split {
        /// libvirt's reason.
        reason: String,
        /// Whether it is at the destination; `None`: that could not be asked. Where it
        /// is not, nothing can be resumed.
        at_dest: Option<bool>,
    },
    /// The hosts do not say enough, or contradict each other.
    Unknown {
        /// What is known, for a person.
        why: String,
    },
}

/// Decides from what both hosts say and what the call answered.
///
/// | source | destination | call | outcome |
/// | --- | --- | --- | --- |
/// | over | active | any | migrated |
/// | over | gone, shut off or silent | went well | migrated (it may have ended since) |
/// | over, because it migrated | not active | failed | migrated |
/// | over | gone or shut off | failed | failed, on no host |
/// | runs | not running | failed | failed, at the source |
/// | paused for migration | runs since it migrated | any | migrated |
/// | paused by somebody | not active | failed | failed, at the source |
/// | post-copy failed | anything else | failed | split |
/// | silent | runs since it migrated | any | migrated |
/// | silent | silent | went well | migrated |
/// | anything else, and all while the migration is under way | | | unknown |
///
/// Not for `--offline`, where nothing runs on either host before or after: there
/// the call's answer is all there is.
#[must_use]
pub fn reconcile(source: &Seen, dest: &Seen, call: &Result<()>) -> Outcome {
    let went_well = call.is_ok();
    let reason = match call {
        Ok(()) => "libvirt said that it went well".to_owned(),
        Err(e) => e.to_string(),
    };
    let failed = |at_source| Outcome::Failed {
        reason: reason.clone(),
        at_source,
        dest_answered: matches!(dest, Seen::State(_)),
    };
    let unknown = || Outcome::Unknown {
        why: format!(
            "at the source it is {}, at the destination {}; {reason}",
            tell(source),
            tell(dest)
        ),
    };
    let split = |at_dest| Outcome::Split {
        reason: reason.clone(),
        at_dest,
    };
    let arrived = matches!(
        dest,
        // Unpaused: somebody resumed, by hand, what came with --suspend.
        Seen::State(State::Running(Running::Migrated | Running::Unpaused))
    );
    match (source, dest) {
        (Seen::State(source), Seen::State(dest)) if source.is_over() && dest.is_active() => {
            Outcome::Migrated { source_over: true }
        }
        (Seen::State(source), _) if source.is_over() && went_well => {
            Outcome::Migrated { source_over: true }
        }
        // Its word for it holds until its libvirtd is restarted.
        (Seen::State(State::Shutoff(Shutoff::Migrated)), _) => {
            Outcome::Migrated { source_over: true }
        }
        (Seen::State(source), Seen::State(_)) if source.is_over() => failed(false),

        // A guest that runs here was not handed over: the source is stopped before.
        (Seen::State(State::Running(_)), Seen::State(State::Running(_))) => unknown(),
        (Seen::State(State::Running(_) | State::PmSuspended | State::Crashed), _) if !went_well => {
            failed(true)
        }

        // Handed over, and the source not yet told, or not reached.
        (
            Seen::State(State::Paused(
                Paused::Migration | Paused::Postcopy | Paused::PostcopyFailed,
            )),
            _,
        ) if arrived => Outcome::Migrated { source_over: false },
        (Seen::State(State::Paused(Paused::PostcopyFailed)), dest) if !went_well => {
            let at_dest = match dest {
                Seen::State(dest) | Seen::Migrating(dest) => Some(dest.is_active()),
                Seen::Unreachable(_) => None,
            };
            split(at_dest)
        }
        (Seen::State(State::Paused(Paused::User | Paused::IoError)), Seen::State(dest))
            if !went_well && dest.is_over() =>
        {
            failed(true)
        }
        (Seen::State(State::Paused(_) | State::ShuttingDown), Seen::State(dest))
            if went_well && dest.is_active() =>
        {
            Outcome::Migrated { source_over: false }
        }

        (Seen::Unreachable(_), _) if arrived => Outcome::Migrated { source_over: false },
        (Seen::Unreachable(_), Seen::Unreachable(_)) if went_well => {
            Outcome::Migrated { source_over: false }
        }
        (Seen::Unreachable(_), Seen::State(dest)) if went_well && dest.is_active() => {
            Outcome::Migrated { source_over: false }
        }
        _ => unknown(),
    }
}

fn tell(seen: &Seen) -> String {
    match seen {
        Seen::State(State::Running(Running::PostcopyFailed)) => {
            "running, cut off from the rest of its memory".to_owned()
        }
        Seen::State(State::Paused(Paused::PostcopyFailed)) => {
            "paused, with a part of its memory that could not be sent".to_owned()
        }
        Seen::State(state) => state.word().to_owned(),
        Seen::Migrating(state) => format!("{} and still being migrated", state.word()),
        Seen::Unreachable(why) => format!("not known ({why})"),
    }
}

/// Asks both hosts, again and again, until they tell what became of the
/// migration, for at most `limit`; then gives what it has. A connection that
/// broke is made anew.
///
/// Without `dest` (peer to peer, and no connection of ours) the source and the
/// call's answer have to do.
pub async fn settle(
    source: &Domain,
    dest: Option<&Connection>,
    call: &Result<()>,
    limit: Duration,
) -> Outcome {
    let end = Instant::now() + limit;
    let mut outcome = Outcome::Unknown {
        why: format!("neither host answered within {} s", limit.as_secs_f32()),
    };
    // So that a host that is silent leaves the other one time to be heard.
    let each = LOOK.min(limit / 2);
    let mut at_source = Look::at(source.connection(), source.uuid(), each);
    let mut at_dest = dest.map(|dest| Look::at(dest, source.uuid(), each));
    let ask = async {
        loop {
            let (source, dest) =
                tokio::join!(see_source(&mut at_source), see_dest(at_dest.as_mut()));
            outcome = reconcile(&source, &dest, call);
            if !matches!(outcome, Outcome::Unknown { .. }) {
                return;
            }
            sleep(POLL).await;
        }
    };
    // What was learnt last holds, whether the time was enough or not.
    drop(timeout_at(end, ask).await);
    outcome
}

async fn see_source(look: &mut Look) -> Seen {
    match look.state_and_job().await {
        // libvirt keeps that job for as long as it may be resumed.
        Ok((state @ State::Paused(Paused::PostcopyFailed), _)) => Seen::State(state),
        Ok((state, true)) if state.is_active() => Seen::Migrating(state),
        Ok((state, _)) => Seen::State(state),
        Err(e) => Seen::Unreachable(e.to_string()),
    }
}

async fn see_dest(look: Option<&mut Look>) -> Seen {
    let Some(look) = look else {
        return Seen::Unreachable("there is no connection to it".to_owned());
    };
    match look.state().await {
        Ok(state) => Seen::State(state),
        Err(e) => Seen::Unreachable(e.to_string()),
    }
}

#[cfg(test)]
mod tests;
