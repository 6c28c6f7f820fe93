use jiff::SignedDuration;

use super::*;
use crate::departure::Destination;
use crate::record::Adopted;

const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

/// So many seconds ago.
fn before_now(seconds: i64) -> Timestamp {
    NOW - SignedDuration::from_secs(seconds)
}

fn console() -> ConsoleName {
    "serial0".parse().unwrap()
}

fn offered(received: bool) -> Offered {
    Offered {
        handoff: HandoffId::random(),
        to: "ssh://h2/spool".to_owned(),
        bytes: 12,
        digest: String::new(),
        at: before_now(300),
        files: Vec::new(),
        prints: Vec::new(),
        received,
    }
}

fn record(offered: Option<Offered>) -> Record {
    let mut record = Record::new(Uuid::from_u128(1), console());
    record.adopt(Adopted {
        handoff: HandoffId::random(),
        bytes: 7,
        digest: String::new(),
        at: before_now(7200),
        from: "h0".to_owned(),
        dropped: 0,
        placed: Vec::new(),
    });
    record.offered = offered;
    record
}

fn beside(record: &Record, begun: &[UnfinishedStaging], active: bool, noted: bool) -> Vec<String> {
    let console = console();
    let log = Beside {
        domain: Uuid::from_u128(1),
        console: &console,
        active,
        record: Some(record),
        begun,
        noted,
        repair: "REPAIR",
        offer: "OFFER",
    };
    let told = of_log(&log).into_iter().map(|mut standing| {
        standing.name = Some("vm".to_owned());
        let state = standing.state.as_str();
        format!("{state}: {}", standing.sentence(NOW))
    });
    told.collect()
}

#[test]
fn what_a_log_and_its_record_tell() {
    let waits = "offered: serial0 of vm: 12 bytes offered to ssh://h2/spool, no receipt yet \
                 (5 min ago); waits for the receipt; run: OFFER";
    assert_eq!(
        beside(&record(Some(offered(false))), &[], false, false),
        [waits]
    );
    let done = "handed-over: serial0 of vm: 12 bytes handed over to ssh://h2/spool, with the \
                receipt (5 min ago)";
    assert_eq!(
        beside(&record(Some(offered(true))), &[], false, false),
        [done]
    );
    let here = "adopted: serial0 of vm: 7 bytes of history from h0 are in place (2 h ago)";
    assert_eq!(beside(&record(None), &[], true, false), [here]);
    // It is here again: what it offered once is of no interest.
    assert_eq!(
        beside(&record(Some(offered(false))), &[], true, false),
        [here]
    );
    // The note tells.
    let none: [&str; 0] = [];
    assert_eq!(
        beside(&record(Some(offered(false))), &[], false, true),
        none
    );
    let mut begun = UnfinishedStaging {
        handoff: HandoffId::random(),
        phase: StagingPhase::Sealed,
        busy: true,
    };
    let busy = &beside(&record(None), &[begun.clone()], true, false)[0];
    assert!(busy.contains("waits for the logchain process"), "{busy}");
    begun.busy = false;
    let idle = &beside(&record(None), &[begun], true, false)[0];
    assert!(
        idle.starts_with("sealed: ") && idle.ends_with("REPAIR"),
        "{idle}"
    );
}

fn left(log: Log, offered: Option<Offered>, received: bool, here: &Here) -> Vec<Standing> {
    let to = Destination {
        uri: "qemu+tcp://h2/system".to_owned(),
        host: None,
    };
    let mut note = Departure::new(
        Uuid::from_u128(1),
        "vm",
        "qemu:///system",
        to,
        before_now(30),
    );
    note.definition = Some("same".to_owned());
    note.logs.push(LeftLog {
        console: console(),
        path: "/log".into(),
        received,
    });
    let logs = [log.clone()];
    let asked = crate::reap::Placement::NotAsked;
    let decision = crate::reap::decide(&note, here, &logs, &asked);
    of_departure(&note, here, &decision, &[(log, offered)], |left| {
        format!("OFFER {}", left.path.display())
    })
}

#[test]
fn what_a_note_tells() {
    let over = Here::Over {
        definition: "same".to_owned(),
    };
    let tell = |log, offered, received, here: &Here| {
        let told = left(log, offered, received, here);
        let told = told.iter();
        told.map(|s| (s.state, s.sentence(NOW))).collect::<Vec<_>>()
    };
    let told = tell(
        Log::There(Known::HandedOver { received: true }),
        Some(offered(true)),
        true,
        &over,
    );
    assert_eq!((told[0].0, told[1].0), (State::HandedOver, State::Left));
    assert_eq!(
        told[1].1,
        "vm: left for qemu+tcp://h2/system, and is still defined here (30 s ago); waits for its \
         new place to be confirmed; run: logchain reap"
    );
    for (log, record, state, says) in [
        (
            Log::There(Known::Nothing),
            None,
            State::LeftBehind,
            "stayed behind",
        ),
        (
            Log::There(Known::More),
            None,
            State::LeftBehind,
            "not handed over",
        ),
        (
            Log::There(Known::HandedOver { received: false }),
            Some(offered(false)),
            State::Offered,
            "no receipt yet",
        ),
    ] {
        let told = tell(log, record, false, &over);
        assert_eq!(told[0].0, state);
        let said = &told[0].1;
        assert!(
            said.contains(says) && said.ends_with("run: OFFER /log"),
            "{said}"
        );
        assert!(
            told[1].1.contains("leaves it alone: serial0"),
            "{}",
            told[1].1
        );
    }
    let gone = Log::Gone { received: false };
    assert_eq!(tell(gone.clone(), None, false, &over)[0].0, State::Lost);
    assert_eq!(
        tell(gone.clone(), None, true, &Here::Gone)[0].0,
        State::HandedOver
    );
    let back = tell(gone, None, true, &Here::Running);
    assert_eq!((back.len(), back[0].0), (1, State::CameBack));
}

#[test]
fn what_the_spool_tells() {
    let mut spooled = Spooled {
        domain: Uuid::from_u128(1),
        console: console(),
        handoff: HandoffId::random(),
        begin: Some(("vm".to_owned(), "h1".to_owned())),
        bytes: 5,
        stage: Stage::Begun,
        last: before_now(10),
    };
    let tell = |s: &Spooled| {
        let standing = of_spooled(s, "ADOPT", NOW);
        (standing.state, standing.sentence(NOW))
    };
    let (state, said) = tell(&spooled);
    assert_eq!(state, State::Arriving);
    assert_eq!(
        said,
        "serial0 of vm: 5 bytes came from h1 so far (10 s ago); waits for the rest"
    );
    spooled.last = NOW - ABANDONED;
    assert_eq!(tell(&spooled).0, State::Abandoned);
    spooled.stage = Stage::Committed;
    let (state, said) = tell(&spooled);
    assert_eq!(state, State::Waiting);
    assert!(
        said.ends_with("wait to be adopted (15 min ago); run: ADOPT"),
        "{said}"
    );
    spooled.stage = Stage::Withdrawn;
    assert_eq!(tell(&spooled).0, State::Withdrawn);
    spooled.stage = Stage::Received;
    spooled.begin = None;
    let (state, said) = tell(&spooled);
    assert_eq!(state, State::Placed);
    assert!(
        said.contains("00000000-0000-0000-0000-000000000001"),
        "{said}"
    );
}

#[test]
fn times_are_told_in_their_greatest_unit() {
    let told: Vec<_> = [0, 119, 120, 7199, 7200, 172_799, 172_800]
        .into_iter()
        .map(|seconds| span(Duration::from_secs(seconds)))
        .collect();
    assert_eq!(
        told,
        ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]
    );
}

#[test]
fn what_is_put_down_is_told_with_what_brings_it_over() {
    let mut entry = Entry {
        domain: Uuid::from_u128(1),
        console: console(),
        number: 0,
        path: "/state/outbox/console.log".into(),
        bytes: 12,
    };
    let told = of_put_down(&entry, false, "OFFER");
    assert_eq!((told.state, told.bytes), (State::LeftBehind, Some(12)));
    assert_eq!(
        told.sentence(NOW),
        "serial0 of 00000000-0000-0000-0000-000000000001: 12 bytes of its log are put down at \
         /state/outbox/console.log; run: OFFER"
    );
    // Its VM is here again: nobody has to do anything.
    entry.bytes = 7;
    let told = of_put_down(&entry, true, "OFFER").sentence(NOW);
    assert!(
        told.contains("waits for its VM to migrate") && !told.contains("OFFER"),
        "{told}"
    );
}
