use super::*;
use crate::Error;
use crate::testing::Machine;

const RUNS: State = State::Running(Running::Booted);
const CAME: State = State::Running(Running::Migrated);
const STAYED: State = State::Running(Running::MigrationCancelled);
const LEFT: State = State::Shutoff(Shutoff::Migrated);
const OFF: State = State::Shutoff(Shutoff::Unknown);
const DIED: State = State::Shutoff(Shutoff::Crashed);
const HANDING: State = State::Paused(Paused::Migration);
const PAUSED: State = State::Paused(Paused::User);
const WAITS: State = State::Paused(Paused::StartingUp);

fn lost() -> Result<()> {
    Err(Error::Lost {
        action: "migrate vm".to_owned(),
        uri: "qemu+tcp://h1/system".to_owned(),
        message: "end of file".to_owned(),
    })
}

fn silent() -> Seen {
    Seen::Unreachable("no answer".to_owned())
}

#[derive(Debug, PartialEq)]
enum Want {
    Migrated,
    MigratedSourceThere,
    FailedAtSource,
    FailedNowhere,
    Split,
    Lost,
    Unknown,
}

fn short(outcome: &Outcome) -> Want {
    match outcome {
        Outcome::Migrated { source_over: true } => Want::Migrated,
        Outcome::Migrated { source_over: false } => Want::MigratedSourceThere,
        Outcome::Failed {
            at_source: true, ..
        } => Want::FailedAtSource,
        Outcome::Failed {
            at_source: false, ..
        } => Want::FailedNowhere,
        Outcome::Split {
            at_dest: Some(false),
            ..
        } => Want::Lost,
        Outcome::Split { .. } => Want::Split,
        Outcome::Unknown { .. } => Want::Unknown,
    }
}

#[test]
fn both_hosts_decide() {
    use Want::{
        FailedAtSource, FailedNowhere, Lost, Migrated, MigratedSourceThere, Split, Unknown,
    };
    let s = Seen::State;
    // source, destination, when the call went well, when it failed
    let table = [
        // As it should be.
        (s(LEFT), s(CAME), Migrated, Migrated),
        (s(State::Gone), s(CAME), Migrated, Migrated),
        (s(State::Gone), s(PAUSED), Migrated, Migrated),
        // The source's libvirtd has forgotten why.
        (s(OFF), s(CAME), Migrated, Migrated),
        // The guest ended at the destination since.
        (s(LEFT), s(State::Gone), Migrated, Migrated),
        (s(State::Gone), s(State::Gone), Migrated, FailedNowhere),
        // Offline: nothing ran before, nothing runs after.
        (s(OFF), s(OFF), Migrated, FailedNowhere),
        // The guest died on the way.
        (s(DIED), s(State::Gone), Migrated, FailedNowhere),
        // The destination is silent.
        (s(LEFT), silent(), Migrated, Migrated),
        (s(State::Gone), silent(), Migrated, Unknown),
        (s(STAYED), silent(), Unknown, FailedAtSource),
        (s(HANDING), silent(), Unknown, Unknown),
        // It stayed.
        (s(STAYED), s(State::Gone), Unknown, FailedAtSource),
        (s(RUNS), s(WAITS), Unknown, FailedAtSource),
        (s(RUNS), s(OFF), Unknown, FailedAtSource),
        (s(PAUSED), s(State::Gone), Unknown, FailedAtSource),
        (
            s(State::PmSuspended),
            s(State::Gone),
            Unknown,
            FailedAtSource,
        ),
        // On its way, either way.
        (s(HANDING), s(State::Gone), Unknown, Unknown),
        (s(HANDING), s(WAITS), MigratedSourceThere, Unknown),
        // Our connection broke, and the source's libvirtd goes on.
        (Seen::Migrating(RUNS), s(WAITS), Unknown, Unknown),
        (Seen::Migrating(RUNS), s(State::Gone), Unknown, Unknown),
        (Seen::Migrating(HANDING), s(CAME), Unknown, Unknown),
        // Handed over; the source was not told.
        (
            s(HANDING),
            s(CAME),
            MigratedSourceThere,
            MigratedSourceThere,
        ),
        (s(PAUSED), s(CAME), MigratedSourceThere, Unknown),
        (silent(), s(CAME), MigratedSourceThere, MigratedSourceThere),
        (silent(), s(PAUSED), MigratedSourceThere, Unknown),
        (silent(), s(State::Gone), Unknown, Unknown),
        (silent(), silent(), MigratedSourceThere, Unknown),
        // Twice: nobody may decide that but a person.
        (s(RUNS), s(CAME), Unknown, Unknown),
        (s(STAYED), s(CAME), Unknown, Unknown),
        // Post-copy: half here and half there.
        (
            s(State::Paused(Paused::Postcopy)),
            s(State::Running(Running::Postcopy)),
            MigratedSourceThere,
            Unknown,
        ),
        (
            s(State::Paused(Paused::PostcopyFailed)),
            s(State::Running(Running::PostcopyFailed)),
            MigratedSourceThere,
            Split,
        ),
        (
            s(State::Paused(Paused::PostcopyFailed)),
            s(State::Paused(Paused::PostcopyFailed)),
            MigratedSourceThere,
            Split,
        ),
        (
            s(State::Paused(Paused::PostcopyFailed)),
            s(OFF),
            Unknown,
            Lost,
        ),
        (
            s(State::Paused(Paused::PostcopyFailed)),
            silent(),
            Unknown,
            Split,
        ),
        // All of it came, and the source was not told.
        (
            s(State::Paused(Paused::PostcopyFailed)),
            s(CAME),
            MigratedSourceThere,
            MigratedSourceThere,
        ),
    ];
    for (source, dest, well, badly) in table {
        let got = reconcile(&source, &dest, &Ok(()));
        assert_eq!(short(&got), well, "{source:?}, {dest:?}, went well");
        let got = reconcile(&source, &dest, &lost());
        assert_eq!(short(&got), badly, "{source:?}, {dest:?}, failed");
    }
}

#[test]
fn a_failure_gives_libvirts_reason() {
    let outcome = reconcile(&Seen::State(STAYED), &Seen::State(State::Gone), &lost());
    let reason = lost().unwrap_err().to_string();
    assert_eq!(
        outcome,
        Outcome::Failed {
            reason,
            at_source: true,
            dest_answered: true,
        }
    );
    let outcome = reconcile(&Seen::State(STAYED), &silent(), &lost());
    assert!(matches!(
        outcome,
        Outcome::Failed {
            at_source: true,
            dest_answered: false,
            ..
        }
    ));
    let Outcome::Unknown { why } = reconcile(&silent(), &silent(), &lost()) else {
        panic!("it cannot be known");
    };
    assert_eq!(
        why,
        "at the source it is not known (no answer), at the destination not known (no answer); \
         lost the connection to qemu+tcp://h1/system while trying to migrate vm: end of file"
    );
}

/// Whatever the hosts say: a guest that runs at the source is never called
/// migrated, and one that went is never called failed.
#[test]
fn no_guest_is_ever_given_to_the_wrong_host() {
    let all = [
        RUNS,
        CAME,
        STAYED,
        LEFT,
        OFF,
        DIED,
        HANDING,
        PAUSED,
        WAITS,
        State::Gone,
        State::ShuttingDown,
        State::Crashed,
        State::PmSuspended,
        State::Running(Running::Postcopy),
        State::Paused(Paused::Postcopy),
        State::Other(0),
    ];
    let seen = || all.into_iter().map(Seen::State).chain([silent()]);
    for source in seen() {
        for dest in seen() {
            for call in [Ok(()), lost()] {
                let outcome = reconcile(&source, &dest, &call);
                let runs_at_source = matches!(source, Seen::State(State::Running(_)));
                if runs_at_source {
                    assert!(
                        !matches!(outcome, Outcome::Migrated { .. }),
                        "{source:?} {dest:?} {call:?}"
                    );
                }
                if dest == Seen::State(CAME) && !runs_at_source {
                    assert!(
                        !matches!(
                            outcome,
                            Outcome::Failed {
                                at_source: false,
                                ..
                            }
                        ),
                        "{source:?} {dest:?} {call:?}"
                    );
                }
                if call.is_ok() {
                    assert!(!matches!(outcome, Outcome::Failed { .. }));
                }
            }
        }
    }
}

/// Both hosts are the same one here, which is all that is needed to see that it
/// asks both, waits, and gives up in time.
#[tokio::test]
async fn settling_asks_until_it_can_tell() {
    let machine = Machine::define("settle", "").await;
    machine.start().await;
    let domain = machine.domain().await;
    let there = Some(&machine.connection);

    let limit = Duration::from_millis(700);
    let began = Instant::now();
    let twice = settle(&domain, there, &lost(), limit).await;
    assert_eq!(short(&twice), Want::Unknown);
    assert!(began.elapsed() >= limit && began.elapsed() < limit * 10);

    let stayed = settle(&domain, None, &lost(), limit).await;
    assert_eq!(short(&stayed), Want::FailedAtSource);

    let ends = async {
        sleep(POLL).await;
        machine.destroy().await;
    };
    let limit = Duration::from_secs(20);
    let (ended, ()) = tokio::join!(settle(&domain, there, &Ok(()), limit), ends);
    assert_eq!(short(&ended), Want::Migrated);
}
