use super::*;

/// What Nova's own reader is tested with.
#[test]
fn nova_reads_the_same() {
    let bed = Bed::with(&[("", "uvwxyz"), (".0", "klmnopqrst"), (".1", "abcdefghij")]);
    let snapshot = bed.snapshot();
    for (budget, expected) in [
        (4, "wxyz"),
        (6, "uvwxyz"),
        (12, "opqrstuvwxyz"),
        (26, "abcdefghijklmnopqrstuvwxyz"),
        (30, "abcdefghijklmnopqrstuvwxyz"),
        (u64::MAX, "abcdefghijklmnopqrstuvwxyz"),
        (0, ""),
    ] {
        assert_eq!(text(snapshot.tail(budget)), expected, "budget {budget}");
    }
    assert_eq!(snapshot.len().unwrap(), 26);
    assert!(snapshot.gaps().is_empty());
    assert!(!snapshot.base_is_missing());
    let names: Vec<_> = snapshot
        .files()
        .iter()
        .map(|f| (f.name(), f.number(), f.size()))
        .collect();
    let name = OsStr::new;
    let expected = [
        (name("console.log.1"), Some(1), 10),
        (name("console.log.0"), Some(0), 10),
        (name("console.log"), None, 6),
    ];
    assert_eq!(names, expected);
}

#[test]
fn no_files_is_an_error_that_names_the_log() {
    let bed = Bed::new();
    let error = bed.chain().snapshot().unwrap_err();
    assert!(error.is_not_found());
    let said = format!(
        "there is no console log {}, nor any rotated file of it",
        bed.log().display()
    );
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_base_without_bytes_is_a_log() {
    let bed = Bed::with(&[("", "")]);
    let snapshot = bed.snapshot();
    assert!(snapshot.is_empty().unwrap());
    assert_eq!(text(snapshot.read_all()), "");
    assert_eq!(text(snapshot.tail(10)), "");
    assert_eq!(text(snapshot.tail_lines(10)), "");
    assert!(
        !Bed::with(&[("", ""), (".0", "x")])
            .snapshot()
            .is_empty()
            .unwrap()
    );
}

#[test]
fn numbering_from_one() {
    let bed = Bed::with(&[("", "c"), (".1", "b"), (".2", "a")]);
    let chain = bed.chain();
    assert_eq!(chain.numbering(), Numbering::FromOne);
    assert!(chain.snapshot().unwrap().gaps().is_empty());
    assert_eq!(text(bed.snapshot().read_all()), "abc");
    let chain = LogChain::open(&bed.log(), NumberingChoice::FromZero).unwrap();
    assert_eq!(
        chain.snapshot().unwrap().gaps(),
        [Gap { first: 0, last: 0 }]
    );
    assert_eq!(text(chain.snapshot().unwrap().read_all()), "abc");
}

#[test]
fn a_compressed_file_says_the_numbering_too() {
    let bed = Bed::with(&[("", "b"), (".1", "a")]);
    bed.write(".0.gz", &gzip(b"x"));
    assert_eq!(bed.chain().numbering(), Numbering::FromZero);
    assert_eq!(text(bed.snapshot().read_all()), "axb");
}

#[test]
fn a_gap_is_told_and_does_not_end_the_read() {
    let bed = Bed::with(&[("", "d"), (".0", "c"), (".3", "b"), (".10", "a")]);
    let snapshot = bed.snapshot();
    assert_eq!(
        snapshot.gaps(),
        [Gap { first: 1, last: 2 }, Gap { first: 4, last: 9 }]
    );
    assert_eq!(text(snapshot.read_all()), "abcd");
    assert_eq!(text(snapshot.tail(3)), "bcd");
    assert_eq!(
        bed.chain().listing().unwrap().gaps(Numbering::FromZero),
        snapshot.gaps()
    );
}

#[test]
fn numbers_are_ordered_as_numbers() {
    let bed = Bed::with(&[
        ("", "5"),
        (".0", "4"),
        (".2", "2"),
        (".10", "0"),
        (".9", "1"),
        (".1", "3"),
    ]);
    assert_eq!(text(bed.snapshot().read_all()), "012345");
}

#[test]
fn names_that_are_not_of_the_chain_are_left_alone() {
    let bed = Bed::with(&[
        ("", "b"),
        (".0", "a"),
        (".01", "X"),
        (".0.gz.gz", "X"),
        (".1.bz2", "X"),
        (".99999999999999999999", "X"),
        (".+1", "X"),
        (".bak", "X"),
        (".1~", "X"),
        ("-0", "X"),
    ]);
    let snapshot = bed.snapshot();
    assert_eq!(text(snapshot.read_all()), "ab");
    assert!(snapshot.gaps().is_empty());
    // Those that a rotation may have left are not passed over in silence.
    let remarks = snapshot.remarks().iter().map(ToString::to_string);
    let unread: Vec<_> = remarks
        .map(|r| r.split(' ').next().unwrap().replace("console.log", ""))
        .collect();
    assert_eq!(
        unread,
        [
            "-0",
            ".0.gz.gz",
            ".01",
            ".1.bz2",
            ".1~",
            ".99999999999999999999",
            ".bak"
        ]
    );
}

#[test]
fn files_with_dates_are_older_than_those_with_numbers() {
    let bed = Bed::new();
    bed.write("-20261101.gz", &gzip(b"1"));
    bed.write("-20261102.xz", &xz(b"2"));
    bed.write("-20261103", b"3");
    bed.write(".1", b"4");
    bed.write(".0", b"5");
    bed.write("", b"6");
    let snapshot = bed.snapshot();
    assert_eq!(text(snapshot.read_all()), "123456");
    assert_eq!(text(snapshot.tail(4)), "3456");
    assert!(snapshot.gaps().is_empty() && snapshot.remarks().is_empty());
    // A compressor at work: the plain file counts.
    bed.write("-20261103.gz", b"half");
    let snapshot = bed.snapshot();
    assert_eq!(text(snapshot.read_all()), "123456");
    let name = "console.log-20261103.gz".into();
    assert_eq!(snapshot.remarks(), [Remark::Shadowed { name }]);
}

#[test]
fn dates_alone_make_a_chain() {
    let bed = Bed::new();
    bed.write("-20261102", b"a");
    let snapshot = bed.snapshot();
    assert!(snapshot.base_is_missing());
    bed.write("", b"b");
    assert_eq!(text(bed.snapshot().read_all()), "ab");
    assert_eq!(bed.chain().numbering(), Numbering::FromZero);
}

#[test]
fn a_missing_base_is_told() {
    let bed = Bed::with(&[(".0", "b\n"), (".1", "a\n")]);
    let snapshot = bed.snapshot();
    assert!(snapshot.base_is_missing());
    assert_eq!(text(snapshot.read_all()), "a\nb\n");
    assert_eq!(text(snapshot.tail_lines(1)), "b\n");
}

#[test]
fn a_log_without_utf8_is_exact() {
    let bed = Bed::new();
    bed.write(".0", b"\xff\0\x1b[2J\r\n");
    bed.write("", b"\x80\0");
    assert_eq!(bytes(bed.snapshot().read_all()), b"\xff\0\x1b[2J\r\n\x80\0");
}

#[test]
fn last_lines() {
    let bed = Bed::with(&[("", "d\ne"), (".0", "c"), (".1", "a\n\nb\n")]);
    let snapshot = bed.snapshot();
    for (lines, expected) in [
        (0, ""),
        (1, "e"),
        (2, "cd\ne"),
        (3, "b\ncd\ne"),
        (4, "\nb\ncd\ne"),
        (5, "a\n\nb\ncd\ne"),
        (6, "a\n\nb\ncd\ne"),
        (u64::MAX, "a\n\nb\ncd\ne"),
    ] {
        assert_eq!(text(snapshot.tail_lines(lines)), expected, "{lines} lines");
    }
    // The end of the stream decides, not the end of the base file.
    let bed = Bed::with(&[("", ""), (".0", "a\nb\n")]);
    assert_eq!(text(bed.snapshot().tail_lines(1)), "b\n");
}

#[test]
fn lines_longer_than_a_block() {
    let long = "x".repeat(200_000);
    let bed = Bed::with(&[
        ("", &format!("{long}\n")),
        (".0", &format!("{long}\n{long}")),
    ]);
    let snapshot = bed.snapshot();
    assert_eq!(text(snapshot.tail_lines(1)), format!("{long}{long}\n"));
    assert_eq!(
        text(snapshot.tail_lines(2)),
        format!("{long}\n{long}{long}\n")
    );
}

#[test]
fn from_an_offset() {
    let bed = Bed::with(&[("", "ef"), (".0", ""), (".1", "cd"), (".2", "ab")]);
    let snapshot = bed.snapshot();
    for (offset, expected) in [
        (0, "abcdef"),
        (1, "bcdef"),
        (2, "cdef"),
        (5, "f"),
        (6, ""),
        (99, ""),
    ] {
        assert_eq!(text(snapshot.skip(offset)), expected, "offset {offset}");
    }
}

#[test]
fn later_bytes_are_not_read_and_no_rename_takes_any_away() {
    let bed = Bed::with(&[("", "c"), (".0", "b"), (".1", "a")]);
    let snapshot = bed.snapshot();
    let mut open = fs::OpenOptions::new().append(true).open(bed.log()).unwrap();
    open.write_all(b"LATER").unwrap();
    rename(&bed.path(".0"), &bed.path(".1")).unwrap();
    rename(&bed.log(), &bed.path(".0")).unwrap();
    bed.write("", b"NEW");
    assert_eq!(text(snapshot.read_all()), "abc");
    assert_eq!(text(snapshot.tail(2)), "bc");
    assert_eq!(text(bed.snapshot().read_all()), "bcLATERNEW");
    let gone = bed.dir.path().to_owned();
    drop(bed);
    assert!(!gone.exists());
    assert_eq!(text(snapshot.read_all()), "abc");
}

#[test]
fn bytes_that_are_taken_away_are_an_error() {
    let bed = Bed::with(&[("", "0123456789"), (".0", "abc")]);
    let snapshot = bed.snapshot();
    fs::OpenOptions::new()
        .write(true)
        .open(bed.log())
        .unwrap()
        .set_len(4)
        .unwrap();
    let error = error(snapshot.read_all());
    assert!(
        matches!(&error, Error::Shrunk { path } if *path == bed.log()),
        "{error}"
    );
    let error = super::error(snapshot.tail_lines(1));
    assert!(matches!(error, Error::Shrunk { .. }), "{error}");
}

#[test]
fn a_reader_can_be_read_twice_at_once() {
    let bed = Bed::with(&[("", "cd"), (".0", "ab")]);
    let snapshot = bed.snapshot();
    let (mut one, mut two) = (snapshot.read_all().unwrap(), snapshot.read_all().unwrap());
    let mut seen = Vec::new();
    loop {
        let (mut a, mut b) = ([0], [0]);
        let got = (one.read(&mut a).unwrap(), two.read(&mut b).unwrap());
        assert_eq!((got.0, a), (got.1, b));
        if got.0 == 0 {
            break;
        }
        seen.extend(a);
    }
    assert_eq!(seen, b"abcd");
}
