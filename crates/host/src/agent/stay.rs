//! Pure: how a domain's stay on this host goes on, from what libvirt tells of it and from what
//! is seen when libvirt is asked.
//!
//! ```text
//!            comes in                    guest runs here
//!  (nobody) ───────────► Coming ─────────────────────────► Running ◄──────────┐
//!                          │ never came                     │   │             │ migration failed
//!                          ▼                                │   │ a sign      │
//!                        (nobody)  ◄──── ended here ────────┘   └────────► Leaving
//!                                                                             │ it left, or ended
//!                                                                             ▼
//!                                                                          (nobody)
//! ```
//!
//! No sign is trusted alone: an event may be missed, so whatever an event tells is also found
//! by a look, and a migration that failed before its guest stopped tells nothing at all.
//!
//! Must not know: logs, transports, time.

use logchain_core::handoff::offer::Source;
use logchain_libvirt::events::{Lifecycle, Resumed, Started, Stopped, Suspended};
use logchain_libvirt::host_events::HostEventKind;
use logchain_libvirt::{Job, Paused, Shutoff, State};

/// Where a domain stands on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// Its guest comes by migration and does not run here yet.
    Coming,
    /// It is here.
    Running,
    /// A migration takes it away.
    Leaving {
        /// Whether a look found no migration any more: a second one decides.
        suspected: bool,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It is here from now on: hold its logs.
    Hold,
    /// Its logs may be others than before: look at them.
    LookAtLogs,
    /// Take in what is handed over of it.
    Receive,
    /// Its guest came, and runs here.
    Came,
    /// It did not come: what was taken in of it goes back.
    NeverCame,
    /// Hand its logs over.
    Offer,
    /// What the migration does, for those who hand its logs over.
    Tell(Source),
    /// It ended here, and no migration took it away: let its logs go.
    LetGo,
}

/// What a look at a domain sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Its state.
    pub(super) state: State,
    /// The job that runs on it; `None` where none does, or nobody can tell.
    pub(super) job: Option<Job>,
}

/// Where a domain stands from now on (`None`: not here), and what is to be done, in this order.
pub(super) type Step = (Option<Stay>, Vec<Action>);

/// An event.
pub(super) fn on_event(stay: Option<Stay>, event: HostEventKind) -> Step {
    use Action::{Came, Hold, LetGo, LookAtLogs, NeverCame, Offer, Receive, Tell};

    let leaving = Stay::Leaving { suspected: false };
    let event = match event {
        // A pass is told at the source alone.
        HostEventKind::Pass(_) => return leave(stay, Vec::new()),
        HostEventKind::Devices => return (stay, vec![LookAtLogs]),
        HostEventKind::Lifecycle(event) => event,
        _ => return (stay, Vec::new()),
    };
    match (stay, event) {
        (_, Lifecycle::Started(Started::Migrated)) => (Some(Stay::Coming), vec![Hold, Receive]),
        (_, Lifecycle::Started(_)) => (Some(Stay::Running), vec![Hold]),
        (_, Lifecycle::Suspended(Suspended::Migrated | Suspended::Postcopy)) => {
            leave(stay, vec![Tell(Source::Stopped)])
        }
        (Some(Stay::Leaving { .. }), Lifecycle::Suspended(_)) => {
            (Some(leaving), vec![Tell(Source::Stopped)])
        }
        (Some(Stay::Coming), Lifecycle::Resumed(_)) => (Some(Stay::Running), vec![Came]),
        // At the source this detail says that the migration failed and the guest goes on here.
        (Some(Stay::Leaving { .. }), Lifecycle::Resumed(Resumed::Migrated)) => {
            (Some(Stay::Running), vec![Tell(Source::Stays)])
        }
        (Some(Stay::Leaving { .. }), Lifecycle::Resumed(_)) => {
            (Some(leaving), vec![Tell(Source::Running)])
        }
        // Nothing told that it came: the agent was not there.
        (None, Lifecycle::Resumed(Resumed::Migrated | Resumed::Postcopy)) => {
            (Some(Stay::Running), vec![Hold, Receive, Came])
        }
        // Only a source tells this: it was mistaken for one that comes.
        (Some(Stay::Coming), Lifecycle::Stopped(Stopped::Migrated)) => {
            (None, vec![NeverCame, Offer, Tell(Source::Over)])
        }
        (Some(Stay::Coming), Lifecycle::Stopped(_)) => (None, vec![NeverCame, LetGo]),
        (_, Lifecycle::Stopped(Stopped::Migrated)) => {
            let (_, mut actions) = leave(stay, Vec::new());
            actions.push(Tell(Source::Over));
            (None, actions)
        }
        (Some(Stay::Leaving { .. }), Lifecycle::Stopped(_)) => {
            (None, vec![Tell(Source::Stays), LetGo])
        }
        (Some(Stay::Running), Lifecycle::Stopped(_)) => (None, vec![LetGo]),
        (None, Lifecycle::Undefined) => (None, vec![LetGo]),
        (stay, _) => (stay, Vec::new()),
    }
}

fn leave(stay: Option<Stay>, then: Vec<Action>) -> Step {
    let mut actions = Vec::new();
    if stay.is_none() {
        actions.push(Action::Hold);
    }
    if !matches!(stay, Some(Stay::Leaving { .. })) {
        actions.push(Action::Offer);
    }
    actions.extend(then);
    (Some(Stay::Leaving { suspected: false }), actions)
}

/// A look at the domain.
pub(super) fn on_look(stay: Option<Stay>, look: Look) -> Step {
    use Action::{Came, Hold, LetGo, NeverCame, Offer, Receive, Tell};

    let leaves = look.job == Some(Job::MigrationOut);
    let comes = look.job == Some(Job::MigrationIn);
    match (stay, look.state) {
        (Some(Stay::Leaving { .. }), State::Gone | State::Shutoff(Shutoff::Migrated)) => {
            (None, vec![Tell(Source::Over)])
        }
        // libvirt forgets the reason when it starts anew.
        (Some(Stay::Leaving { .. }), State::Shutoff(Shutoff::Unknown)) => {
            (None, vec![Tell(Source::Over)])
        }
        (Some(Stay::Leaving { .. }), State::Shutoff(_)) => (None, vec![Tell(Source::Stays), LetGo]),
        (Some(Stay::Leaving { suspected }), state) => match state {
            // Between its two phases a migration has no job, maybe, and its guest stands still.
            State::Paused(Paused::Migration | Paused::Postcopy | Paused::PostcopyFailed) => {
                let stay = Stay::Leaving { suspected: false };
                (Some(stay), vec![Tell(Source::Stopped)])
            }
            _ if leaves => (Some(Stay::Leaving { suspected: false }), Vec::new()),
            _ if !suspected => (Some(Stay::Leaving { suspected: true }), Vec::new()),
            _ => (Some(Stay::Running), vec![Tell(Source::Stays)]),
        },
        // It came and left again while nothing was told.
        (Some(Stay::Coming), State::Shutoff(Shutoff::Migrated)) => {
            (None, vec![NeverCame, Offer, Tell(Source::Over)])
        }
        (Some(Stay::Coming), State::Gone | State::Shutoff(_)) => (None, vec![NeverCame, LetGo]),
        (Some(Stay::Coming), State::Running(_)) => (Some(Stay::Running), vec![Came]),
        (Some(Stay::Coming), _) => (stay, Vec::new()),
        (Some(Stay::Running), State::Gone | State::Shutoff(Shutoff::Migrated)) => {
            (None, vec![Offer, Tell(Source::Over)])
        }
        (Some(Stay::Running), State::Shutoff(_)) => (None, vec![LetGo]),
        (None, State::Gone | State::Shutoff(_)) => (None, Vec::new()),
        (None, _) if comes => (Some(Stay::Coming), vec![Hold, Receive]),
        (stay, _) if leaves => leave(stay, Vec::new()),
        // A destination tells of no job. A source does, but for a moment between two phases.
        (None, State::Paused(Paused::Migration)) => (Some(Stay::Coming), vec![Hold, Receive]),
        (None, _) => (Some(Stay::Running), vec![Hold]),
        (Some(Stay::Running), _) => (stay, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use logchain_libvirt::Running;

    use super::*;

    fn events(mut stay: Option<Stay>, events: &[Lifecycle]) -> (Option<Stay>, Vec<Action>) {
        let mut all = Vec::new();
        for event in events {
            let (next, actions) = on_event(stay, HostEventKind::Lifecycle(*event));
            stay = next;
            all.extend(actions);
        }
        (stay, all)
    }

    const RUNS: Look = Look {
        state: State::Running(Running::Booted),
        job: None,
    };

    #[test]
    fn a_guest_comes_and_leaves_again() {
        let (stay, actions) = events(
            None,
            &[
                Lifecycle::Started(Started::Migrated),
                Lifecycle::Defined,
                Lifecycle::Resumed(Resumed::Migrated),
            ],
        );
        assert_eq!(stay, Some(Stay::Running));
        assert_eq!(actions, [Action::Hold, Action::Receive, Action::Came]);

        let (stay, actions) = on_event(stay, HostEventKind::Pass(1));
        assert_eq!(actions, [Action::Offer]);
        let (stay, actions) = on_event(stay, HostEventKind::Pass(2));
        assert_eq!(actions, []);
        let (stay, actions) = events(
            stay,
            &[
                Lifecycle::Suspended(Suspended::Migrated),
                Lifecycle::Stopped(Stopped::Migrated),
            ],
        );
        assert_eq!(stay, None);
        let tells = [Source::Stopped, Source::Over].map(Action::Tell);
        assert_eq!(actions, tells);
    }

    #[test]
    fn a_migration_is_noticed_late_where_no_pass_is_told() {
        let running = Some(Stay::Running);
        let (stay, actions) = events(running, &[Lifecycle::Suspended(Suspended::Migrated)]);
        assert!(matches!(stay, Some(Stay::Leaving { .. })));
        assert_eq!(actions, [Action::Offer, Action::Tell(Source::Stopped)]);
        let (stay, actions) = events(running, &[Lifecycle::Stopped(Stopped::Migrated)]);
        assert_eq!(stay, None);
        assert_eq!(actions, [Action::Offer, Action::Tell(Source::Over)]);
    }

    #[test]
    fn a_migration_that_fails_is_withdrawn_with_and_without_an_event() {
        let leaving = Some(Stay::Leaving { suspected: false });
        let failed = [
            Lifecycle::Suspended(Suspended::Migrated),
            Lifecycle::Resumed(Resumed::Migrated),
        ];
        let (stay, actions) = events(leaving, &failed);
        assert_eq!(stay, Some(Stay::Running));
        let tells = [Source::Stopped, Source::Stays].map(Action::Tell);
        assert_eq!(actions, tells);

        // Before its guest stops, a migration that fails tells nothing.
        let (stay, actions) = on_look(leaving, RUNS);
        assert_eq!(actions, []);
        let (stay, actions) = on_look(stay, RUNS);
        assert_eq!(stay, Some(Stay::Running));
        assert_eq!(actions, [Action::Tell(Source::Stays)]);

        // One that goes on is not taken for one that failed.
        let goes_on = Look {
            job: Some(Job::MigrationOut),
            ..RUNS
        };
        let (stay, _) = on_look(Some(Stay::Leaving { suspected: true }), goes_on);
        assert_eq!(stay, leaving);
        let between = Look {
            state: State::Paused(Paused::Migration),
            job: None,
        };
        let (stay, _) = on_look(Some(Stay::Leaving { suspected: true }), between);
        assert_eq!(stay, leaving);
    }

    #[test]
    fn what_was_missed_is_found_by_a_look() {
        let gone = Look {
            state: State::Gone,
            job: None,
        };
        let leaving = Some(Stay::Leaving { suspected: false });
        assert_eq!(
            on_look(leaving, gone),
            (None, vec![Action::Tell(Source::Over)])
        );
        // It left while nobody listened, or it was destroyed and undefined: what is held of it
        // is offered, and nobody who could take it in is harmed.
        let (stay, actions) = on_look(Some(Stay::Running), gone);
        assert_eq!(stay, None);
        assert_eq!(actions, [Action::Offer, Action::Tell(Source::Over)]);
        // Whether something of it is handed over still is found where it lies.
        let came = Look {
            state: State::Running(Running::Migrated),
            job: None,
        };
        assert_eq!(
            on_look(None, came),
            (Some(Stay::Running), vec![Action::Hold])
        );
        let comes = Look {
            state: State::Paused(Paused::Migration),
            job: Some(Job::MigrationIn),
        };
        let (stay, actions) = on_look(None, comes);
        assert_eq!(stay, Some(Stay::Coming));
        assert_eq!(actions, [Action::Hold, Action::Receive]);
        let (stay, actions) = on_look(stay, gone);
        assert_eq!(stay, None);
        assert_eq!(actions, [Action::NeverCame, Action::LetGo]);
    }

    #[test]
    fn one_that_came_and_left_while_nothing_was_told_is_handed_over() {
        let shut_off = |reason| Look {
            state: State::Shutoff(reason),
            job: None,
        };
        let (stay, actions) = on_look(Some(Stay::Coming), shut_off(Shutoff::Migrated));
        assert_eq!(stay, None);
        let offered = [Action::NeverCame, Action::Offer, Action::Tell(Source::Over)];
        assert_eq!(actions, offered);
        // One that could not come.
        let (_, actions) = on_look(Some(Stay::Coming), shut_off(Shutoff::Failed));
        assert_eq!(actions, [Action::NeverCame, Action::LetGo]);
    }

    #[test]
    fn one_that_waits_for_its_memory_comes_whatever_libvirt_tells_of_its_job() {
        let waits = |job| Look {
            state: State::Paused(Paused::Migration),
            job,
        };
        let (stay, actions) = on_look(None, waits(None));
        assert_eq!(stay, Some(Stay::Coming));
        assert_eq!(actions, [Action::Hold, Action::Receive]);
        // At the source the job is told.
        let (source, actions) = on_look(None, waits(Some(Job::MigrationOut)));
        assert_eq!(source, Some(Stay::Leaving { suspected: false }));
        assert_eq!(actions, [Action::Hold, Action::Offer]);
        // Looked at in the one moment in which it is not, a source is found out by its end.
        let (stay, actions) = events(stay, &[Lifecycle::Stopped(Stopped::Migrated)]);
        assert_eq!(stay, None);
        let offered = [Action::NeverCame, Action::Offer, Action::Tell(Source::Over)];
        assert_eq!(actions, offered);
    }

    #[test]
    fn a_guest_that_ends_here_goes_nowhere() {
        let shut = [Lifecycle::Shutdown, Lifecycle::Stopped(Stopped::Shutdown)];
        assert_eq!(
            events(Some(Stay::Running), &shut),
            (None, vec![Action::LetGo])
        );
        let leaving = Some(Stay::Leaving { suspected: false });
        let crashed = [Lifecycle::Stopped(Stopped::Crashed)];
        let (stay, actions) = events(leaving, &crashed);
        assert_eq!(stay, None);
        assert_eq!(actions, [Action::Tell(Source::Stays), Action::LetGo]);
        let (stay, actions) = events(Some(Stay::Coming), &[Lifecycle::Stopped(Stopped::Failed)]);
        assert_eq!(stay, None);
        assert_eq!(actions, [Action::NeverCame, Action::LetGo]);
    }
}
