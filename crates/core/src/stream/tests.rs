use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn id(ino: u64) -> FileId {
    FileId { ino, born: None }
}

fn seen(files: &[(u64, u64)]) -> Vec<Seen> {
    let seen = |(ino, length): &(u64, u64)| Seen::plain(id(*ino), *length);
    files.iter().map(seen).collect()
}

fn at(offset: u64) -> StreamOffset {
    StreamOffset::new(offset)
}

fn starts(layout: &Layout) -> Vec<u64> {
    layout.spans().iter().map(|s| s.start.get()).collect()
}

fn remembered(files: &[(u64, u64)]) -> Ledger {
    let mut ledger = Ledger::default();
    let layout = ledger.lay(&seen(files), at(0)).unwrap();
    assert!(ledger.remember(&layout));
    ledger
}

#[test]
fn without_a_ledger_offsets_count_from_the_oldest_byte() {
    let layout = Ledger::default()
        .lay(&seen(&[(1, 10), (2, 0), (3, 5)]), at(0))
        .unwrap();
    assert_eq!(starts(&layout), [0, 10, 10]);
    assert_eq!((layout.first(), layout.end()), (Some(at(0)), at(15)));
    assert_eq!(layout.find(at(9)), Place::In { file: 0, skip: 9 });
    assert_eq!(layout.find(at(10)), Place::In { file: 2, skip: 0 });
    assert_eq!(layout.find(at(15)), Place::Beyond);
    assert!(layout.holes.is_empty());
}

#[test]
fn growth_alone_is_no_news() {
    let mut ledger = remembered(&[(1, 10), (2, 5)]);
    let layout = ledger.lay(&seen(&[(1, 10), (2, 9)]), at(0)).unwrap();
    assert!(!ledger.remember(&layout));
    let layout = ledger.lay(&seen(&[(2, 9), (3, 1)]), at(0)).unwrap();
    assert!(ledger.remember(&layout));
    assert_eq!(starts(&layout), [10, 19]);
    assert_eq!(layout.find(at(9)), Place::Gone { next: at(10) });
}

#[test]
fn a_rollover_that_nobody_saw_is_a_hole_of_unknown_size() {
    let ledger = remembered(&[(1, 10), (2, 5)]);
    let layout = ledger.lay(&seen(&[(7, 4), (8, 1)]), at(0)).unwrap();
    assert_eq!(starts(&layout), [15, 19]);
    assert_eq!(
        layout.holes,
        [Hole {
            at: at(15),
            size: None
        }]
    );
}

#[test]
fn a_file_taken_away_is_a_hole_of_known_size() {
    let ledger = remembered(&[(1, 10), (2, 5), (3, 1)]);
    let mut files = seen(&[(1, 10), (3, 4)]);
    files[1].after_gap = true;
    let layout = ledger.lay(&files, at(0)).unwrap();
    let hole = Hole {
        at: at(10),
        size: Some(5),
    };
    assert_eq!(layout.holes, [hole]);
    assert_eq!(layout.find(at(12)), Place::Gone { next: at(15) });
    // The newest one taken away: what came after it is not known.
    let layout = ledger
        .lay(&seen(&[(1, 10), (2, 5), (9, 2)]), at(0))
        .unwrap();
    assert_eq!(starts(&layout), [0, 10, 16]);
}

#[test]
fn a_file_emptied_from_outside_begins_anew() {
    let ledger = remembered(&[(1, 10), (2, 50)]);
    let layout = ledger.lay(&seen(&[(1, 10), (2, 3)]), at(0)).unwrap();
    assert_eq!(starts(&layout), [0, 60]);
    // It may have grown after it was seen.
    let hole = |offset, size| Hole {
        at: at(offset),
        size,
    };
    assert_eq!(layout.holes, [hole(10, Some(50)), hole(60, None)]);
}

#[test]
fn a_file_compressed_since_ends_where_the_next_one_begins() {
    let ledger = remembered(&[(1, 10), (2, 20), (3, 5)]);
    let mut files = seen(&[(8, 10), (9, 20), (3, 6)]);
    files[0].length = None;
    files[1].length = None;
    assert_eq!(ledger.lay(&files, at(0)), Err(Measure(1)));
    let layout = ledger.lay(&files, at(30)).unwrap();
    assert_eq!(starts(&layout), [30]);
    files[1].length = Some(20);
    assert_eq!(starts(&ledger.lay(&files, at(15)).unwrap()), [10, 30]);
    assert_eq!(ledger.lay(&files, at(0)), Err(Measure(0)));
    files[0].length = Some(10);
    assert_eq!(starts(&ledger.lay(&files, at(0)).unwrap()), [0, 10, 30]);
    // More than there is room for: another VM's, or damaged.
    files[0].length = Some(11);
    assert_eq!(starts(&ledger.lay(&files, at(0)).unwrap()), [10, 30]);
}

#[test]
fn history_goes_on_at_the_next_host() {
    let source = remembered(&[(1, 10), (2, 5), (3, 1)]);
    let layout = source.lay(&seen(&[(1, 10), (3, 4)]), at(0)).unwrap();
    let history = source.history(&layout, "h1", &[12]);
    assert_eq!(history.runs, [(at(0), 10), (at(15), 4)]);
    assert_eq!(history.bytes(), Some(14));
    let hole = |offset, size| Hole {
        at: at(offset),
        size,
    };
    assert_eq!(history.holes, [hole(10, Some(5)), hole(17, None)]);

    // One part holds the hole, the oldest bytes were dropped.
    let arrival = Arrival {
        parts: vec![(id(20), 8), (id(21), 2)],
        newer: vec![(id(30), 3)],
        older: vec![id(40)],
        stayed: None,
    };
    let here = Ledger::default().arrived(&history, &arrival, ("h2", Timestamp::constant(5, 0)));
    let mut files = seen(&[(40, 99), (20, 8), (21, 2), (30, 7)]);
    files[0].after_gap = true;
    let layout = here.lay(&files, at(0)).unwrap();
    assert_eq!(starts(&layout), [4, 15, 17, 19]);
    assert_eq!(layout.end(), at(26));
    assert_eq!(layout.find(at(9)), Place::In { file: 1, skip: 5 });
    assert_eq!(layout.find(at(11)), Place::Gone { next: at(15) });
    assert_eq!(layout.find(at(16)), Place::In { file: 1, skip: 7 });
    assert_eq!(layout.find(at(18)), Place::In { file: 2, skip: 1 });
    let hops: Vec<_> = here
        .hops()
        .iter()
        .map(|h| (h.host.as_str(), h.since, h.start.get()))
        .collect();
    let then = Timestamp::constant(5, 0);
    assert_eq!(hops, [("h1", None, 0), ("h2", Some(then), 19)]);
}

#[test]
fn offsets_never_fall_where_a_source_has_forgotten() {
    let here = remembered(&[(1, 100)]);
    let history = Ledger::default().history(
        &Ledger::default().lay(&seen(&[(5, 30)]), at(0)).unwrap(),
        "h1",
        &[],
    );
    let arrival = Arrival {
        parts: vec![(id(9), 30)],
        newer: Vec::new(),
        older: Vec::new(),
        stayed: None,
    };
    let after = here.arrived(&history, &arrival, ("h2", Timestamp::constant(0, 0)));
    let layout = after.lay(&seen(&[(9, 30), (10, 1)]), at(0)).unwrap();
    assert_eq!(starts(&layout), [70, 100]);
}

#[test]
fn what_another_host_says_is_checked() {
    let of = |runs: &[(u64, u64)]| History {
        runs: runs
            .iter()
            .map(|(start, length)| (at(*start), *length))
            .collect(),
        ..History::default()
    };
    assert_eq!(of(&[]).bytes(), Some(0));
    assert_eq!(of(&[(3, 4), (7, 1)]).bytes(), Some(5));
    assert_eq!(of(&[(3, 4), (6, 1)]).bytes(), None);
    assert_eq!(of(&[(u64::MAX, 1)]).bytes(), None);
}

/// What can happen to a chain between two looks.
#[derive(Clone, Debug)]
enum Act {
    Append(u64),
    Rollover,
    Look,
    /// To another host, which keeps so many bytes.
    Move(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (1..50_u64).prop_map(Act::Append),
        2 => Just(Act::Rollover),
        2 => Just(Act::Look),
        1 => (1..200_u64).prop_map(Act::Move),
    ];
    proptest::collection::vec(act, 0..60)
}

proptest! {
    /// As long as every file is seen before it is dropped, an offset is the
    /// number of bytes that the VM has printed before, whatever moved where.
    #[test]
    fn offsets_are_the_models(acts in acts(), kept in 2..5_usize) {
        let mut ledger = Ledger::default();
        // Identity, the model's offset of its first byte, and its length.
        let mut files = vec![(1_u64, 0_u64, 0_u64)];
        let (mut next, mut printed) = (2, 0);
        let look = |ledger: &mut Ledger, files: &[(u64, u64, u64)]| {
            let list: Vec<_> = files.iter().map(|(ino, _, length)| (*ino, *length)).collect();
            let layout = ledger.lay(&seen(&list), at(0)).unwrap();
            let expected: Vec<u64> = files.iter().filter(|f| f.2 > 0).map(|f| f.1).collect();
            let spans = layout.spans().iter().filter(|s| s.length > 0);
            assert_eq!(spans.map(|s| s.start.get()).collect::<Vec<_>>(), expected);
            ledger.remember(&layout);
            layout
        };
        for act in acts {
            match act {
                Act::Append(n) => {
                    files.last_mut().unwrap().2 += n;
                    printed += n;
                }
                Act::Rollover => {
                    look(&mut ledger, &files);
                    files.push((next, printed, 0));
                    next += 1;
                    if files.len() > kept {
                        files.remove(0);
                    }
                }
                Act::Look => {
                    let layout = look(&mut ledger, &files);
                    prop_assert_eq!(layout.end(), at(printed));
                    prop_assert!(ledger.holes().is_empty());
                }
                Act::Move(keeps) => {
                    let layout = look(&mut ledger, &files);
                    let history = ledger.history(&layout, "h", &[]);
                    let bytes = history.bytes().unwrap().min(keeps);
                    // Cut in two wherever.
                    let newest = bytes / 3;
                    let (a, b) = (id(next), id(next + 1));
                    let parts = vec![(a, bytes - newest), (b, newest)];
                    files = vec![
                        (next, printed - bytes, bytes - newest),
                        (next + 1, printed - newest, newest),
                        (next + 2, printed, 4),
                    ];
                    let newer = vec![(id(next + 2), 4)];
                    printed += 4;
                    next += 3;
                    files.retain(|f| f.2 > 0);
                    let arrival = Arrival {
                        parts,
                        newer,
                        older: Vec::new(), stayed: None, };
                    ledger = Ledger::default().arrived(&history, &arrival, ("h", Timestamp::constant(1, 0)));
                }
            }
        }
        look(&mut ledger, &files);
    }
}

#[test]
fn what_stayed_comes_before_what_a_source_without_it_brings() {
    let here = remembered(&[(1, 100), (2, 20)]);
    // The VM went away without its log, and comes back.
    let away = Ledger::default();
    let history = away.history(&away.lay(&seen(&[(5, 30)]), at(0)).unwrap(), "h2", &[]);
    let arrival = Arrival {
        parts: vec![(id(9), 30)],
        newer: vec![(id(10), 1)],
        older: vec![id(1), id(2)],
        stayed: None,
    };
    let after = here.arrived(&history, &arrival, ("h1", Timestamp::constant(7, 0)));
    let layout = after.lay(&seen(&[(1, 100), (2, 20), (9, 30), (10, 1)]), at(0));
    assert_eq!(starts(&layout.unwrap()), [0, 100, 120, 150]);
    let hops: Vec<_> = after.hops().iter().map(|h| h.start.get()).collect();
    assert_eq!(hops, [120, 150]);
}
