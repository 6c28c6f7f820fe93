use super::{LENGTH, TickError, TickReport, Ticks};

fn lines(counters: impl IntoIterator<Item = u64>) -> Vec<u8> {
    counters.into_iter().flat_map(Ticks::line).collect()
}

#[test]
fn the_guest_prints_what_the_oracle_expects() {
    let ticker = include_str!("../guest/ticker.c");
    let line = String::from_utf8(Ticks::line(0)).unwrap();
    let in_c = line.replace("\r\n", "\\n");
    assert!(ticker.contains(&format!("line[] = \"{in_c}\"")), "{in_c}");
}

#[test]
fn a_whole_log_is_well() {
    let mut log = b"[    0.1] kernel says\r\nlogchain lab guest\r\n".to_vec();
    let before = log.len();
    log.extend(lines(1..=1000));
    log.extend(&Ticks::line(1001)[..20]);
    let report = TickReport {
        first: 1,
        last: 1000,
        count: 1000,
        before,
        after: 20,
    };
    assert_eq!(Ticks::check(&log), Ok(report));
    assert_eq!(Ticks::check_from_boot(&log), Ok(report));
    assert_eq!(Ticks::last(&log), Some(1000));
    assert_eq!(Ticks::count(&log), 1000);
}

#[test]
fn the_end_of_a_rotated_line_may_stand_first() {
    for cut in 0..LENGTH {
        let log = &lines(41..=50)[cut..];
        let report = Ticks::check(log).unwrap();
        assert_eq!(report.first, if cut == 0 { 41 } else { 42 });
        assert_eq!(report.last, 50);
        let lost = Ticks::check_from_boot(log).unwrap_err();
        assert!(matches!(lost, TickError::Start { .. }), "{lost}");
    }
}

#[test]
fn anything_else_before_a_later_line_is_a_lost_start() {
    for prefix in ["kernel says\r\n", "end\r\nend\r\n", "LC 00000", "x"] {
        let mut log = prefix.as_bytes().to_vec();
        log.extend(lines(42..=50));
        let lost = Ticks::check(&log).unwrap_err();
        assert!(
            matches!(lost, TickError::Start { first: 42, .. }),
            "{prefix:?}: {lost}"
        );
    }
}

#[test]
fn a_piece_of_a_line_before_the_first_is_seen() {
    let mut log = Ticks::line(7)[..30].to_vec();
    log.extend(lines(1..=5));
    let lost = Ticks::check(&log).unwrap_err();
    assert!(matches!(lost, TickError::Start { first: 1, .. }), "{lost}");
}

#[test]
fn nothing_is_none() {
    for log in [&b""[..], b"SeaBIOS", &Ticks::line(1)[..LENGTH - 1]] {
        assert!(matches!(Ticks::check(log), Err(TickError::None { .. })));
        assert_eq!(Ticks::last(log), None);
    }
}

#[test]
fn missing_lines_are_named() {
    let log = lines((1..=10).chain(15..=20));
    let error = Ticks::check(&log).unwrap_err();
    let TickError::Missing {
        from,
        to,
        offset,
        ref near,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((from, to, offset), (11, 14, 10 * LENGTH));
    assert!(
        near.contains("0000000010") && near.contains(">>> LC 0000000015"),
        "{near}"
    );
    assert!(
        error
            .to_string()
            .starts_with("lines 11 to 14 are missing at byte ")
    );
}

#[test]
fn a_line_that_comes_again_is_named() {
    let log = lines((1..=10).chain(10..=20));
    let error = Ticks::check(&log).unwrap_err();
    assert!(matches!(
        error,
        TickError::Again {
            found: 10,
            expected: 11,
            ..
        }
    ));
}

/// Whatever one byte range is cut out, doubled or put in, anywhere but at the
/// very ends, the oracle sees it.
#[test]
fn every_cut_is_seen() {
    let log = lines(1..=6);
    for from in LENGTH..3 * LENGTH {
        for length in 1..=LENGTH + 1 {
            let to = from + length;
            let mut cut = log[..from].to_vec();
            cut.extend(&log[to..]);
            assert!(Ticks::check(&cut).is_err(), "cut {from}..{to}");
            let mut doubled = log[..to].to_vec();
            doubled.extend(&log[from..]);
            assert!(Ticks::check(&doubled).is_err(), "doubled {from}..{to}");
        }
        let mut foreign = log.clone();
        foreign.insert(from, 0);
        let error = Ticks::check(&foreign).unwrap_err();
        assert!(
            matches!(error, TickError::Torn { next: Some(_), .. }),
            "{error}"
        );
    }
}

#[test]
fn every_changed_byte_is_seen() {
    let log = lines(1..=4);
    for at in LENGTH..3 * LENGTH {
        let mut changed = log.clone();
        changed[at] ^= 1;
        assert!(Ticks::check(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn a_guest_whose_kernel_crashed_is_told_from_a_torn_log() {
    let crash = b"[    6.017665] BUG: kernel NULL pointer dereference, address: 0\r\n";
    let other = b"[    6.017665] tsc: refined clock\r\n";
    for (words, crashed) in [(&crash[..], true), (&other[..], false)] {
        let mut log = lines(1..=4);
        let at = 2 * LENGTH;
        log.splice(at..at, words.iter().copied());
        let error = Ticks::check(&log).unwrap_err();
        let is_crash = matches!(error, TickError::Crashed { expected: 3, .. });
        assert_eq!(is_crash, crashed, "{error}");
    }
}
