use super::*;
use crate::chain::file::ChainFile;
use crate::chain::inflate::Inflated;

#[test]
fn several_members_and_frames_are_all_read() {
    let bed = Bed::with(&[("", "g")]);
    bed.write(".0.gz", &[gzip(b"cd"), gzip(b""), gzip(b"ef")].concat());
    bed.write(".1.zst", &[zstd(b"a"), zstd(b""), zstd(b"b")].concat());
    bed.write(".2.xz", &[xz(b"y"), xz(b""), xz(b"z")].concat());
    let snapshot = bed.snapshot();
    assert_eq!(text(snapshot.read_all()), "yzabcdefg");
    assert_eq!(text(snapshot.tail(3)), "efg");
    assert_eq!(text(snapshot.tail(6)), "bcdefg");
    assert_eq!(snapshot.len().unwrap(), 9);
    let kinds: Vec<_> = snapshot
        .files()
        .iter()
        .map(ChainFile::compression)
        .collect();
    assert_eq!(
        kinds,
        [
            Some(Compression::Xz),
            Some(Compression::Zstd),
            Some(Compression::Gzip),
            None
        ]
    );
}

/// What `xz` itself writes: several blocks, several streams, padding between them.
#[test]
fn files_of_the_xz_program_are_read() {
    let blocks = include_bytes!("../../../../../fuzz/seeds/xz/blocks");
    let streams = include_bytes!("../../../../../fuzz/seeds/xz/two-streams-padded");
    let bed = Bed::with(&[("", "end\n")]);
    bed.write(".0.xz", blocks);
    bed.write(".1.xz", streams);
    let all: String = (1..=400).map(|n| format!("line {n}\n")).collect();
    let snapshot = bed.snapshot();
    assert_eq!(text(snapshot.read_all()), format!("one\ntwo\n{all}end\n"));
    assert_eq!(text(snapshot.tail_lines(2)), "line 400\nend\n");
}

#[test]
fn an_xz_stream_that_wants_more_memory_than_the_limit_is_refused() {
    let bed = Bed::with(&[("", "")]);
    bed.write(
        ".0.xz",
        include_bytes!("../../../../../fuzz/seeds/xz/wide-dictionary"),
    );
    let error = error(bed.snapshot().read_all());
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn lines_in_compressed_files() {
    let bed = Bed::with(&[("", "")]);
    bed.write(".0.gz", &gzip(b"c\nd\n"));
    bed.write(".1.zst", &zstd(b"a\nb\n"));
    let snapshot = bed.snapshot();
    for (lines, expected) in [
        (1, "d\n"),
        (2, "c\nd\n"),
        (3, "b\nc\nd\n"),
        (4, "a\nb\nc\nd\n"),
        (5, "a\nb\nc\nd\n"),
    ] {
        assert_eq!(text(snapshot.tail_lines(lines)), expected, "{lines} lines");
    }
}

#[test]
fn a_compressor_at_work_does_not_double_its_file() {
    let bed = Bed::with(&[("", "b"), (".1", "a")]);
    bed.write(".1.gz", &gzip(b"a")[..5]);
    assert_eq!(text(bed.snapshot().read_all()), "ab");
}

#[test]
fn a_compressed_file_is_not_touched_before_the_budget_reaches_it() {
    let bed = Bed::with(&[("", "c\n"), (".0", "b\n")]);
    bed.write(".1.gz", b"this is not gzip");
    bed.write(".2.zst", b"this is not zstd");
    let snapshot = bed.snapshot();
    assert_eq!(text(snapshot.tail(4)), "b\nc\n");
    assert_eq!(text(snapshot.tail_lines(1)), "c\n");
    for error in [error(snapshot.tail(5)), error(snapshot.tail_lines(3))] {
        let gz = bed.path(".1.gz");
        assert!(
            matches!(&error, Error::Damaged { path, .. } if *path == gz),
            "{error}"
        );
    }
    let error = error(snapshot.read_all());
    let zst = bed.path(".2.zst");
    assert!(
        matches!(&error, Error::Damaged { path, .. } if *path == zst),
        "{error}"
    );
    assert!(error.to_string().starts_with(&format!(
        "{} is cut short or damaged (zstd: ",
        zst.display()
    )));
}

#[test]
fn files_cut_short_or_damaged_are_errors() {
    let content: Vec<u8> = (0..40_000_u32)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect();
    for (suffix, whole) in [
        (".0.gz", gzip(&content)),
        (".0.zst", zstd(&content)),
        (".0.xz", xz(&content)),
    ] {
        let cuts = [
            0,
            1,
            3,
            5,
            whole.len() / 2,
            whole.len() - 5,
            whole.len() - 1,
        ];
        let mut cases: Vec<_> = cuts.iter().map(|cut| whole[..*cut].to_vec()).collect();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0xff;
        cases.push(flipped);
        cases.push([&whole, b"garbage behind it".as_slice()].concat());
        for case in cases {
            let bed = Bed::with(&[("", "end")]);
            bed.write(suffix, &case);
            let snapshot = bed.snapshot();
            for error in [
                error(snapshot.read_all()),
                error(snapshot.tail(10)),
                error(snapshot.tail_lines(2)),
                snapshot.len().unwrap_err(),
            ] {
                assert!(
                    matches!(&error, Error::Damaged { path, .. } if *path == bed.path(suffix)),
                    "{suffix} of {} bytes: {error}",
                    case.len()
                );
            }
        }
    }
}

#[test]
fn what_a_file_may_hold_is_bounded() {
    let bed = Bed::with(&[("", "")]);
    let zeros = vec![0; 1 << 20];
    bed.write(".0.gz", &gzip(&zeros));
    bed.write(".1.zst", &zstd(&zeros));
    bed.write(".2.xz", &xz(&zeros));
    for file in bed
        .snapshot()
        .files()
        .iter()
        .filter(|f| f.compression().is_some())
    {
        let read = |limit| {
            let compression = file.compression().unwrap();
            let mut inflated = Inflated::with_limit(file, compression, limit).unwrap();
            let mut all = Vec::new();
            inflated.read_to_end(&mut all).map(|_| all.len())
        };
        assert_eq!(read(1 << 20).unwrap(), 1 << 20);
        let error: Error = read((1 << 20) - 1).unwrap_err().downcast().unwrap();
        assert!(
            matches!(error, Error::TooLarge { limit, .. } if limit == (1 << 20) - 1),
            "{error}"
        );
    }
}

#[test]
fn a_zstd_window_larger_than_the_limit_is_refused() {
    let bed = Bed::with(&[("", "")]);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(30).unwrap();
    encoder.write_all(b"tiny").unwrap();
    bed.write(".0.zst", &encoder.finish().unwrap());
    let error = error(bed.snapshot().read_all());
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn one_file_alone() {
    let bed = Bed::with(&[("", "plain")]);
    bed.write(".0.gz", &gzip(b"gzip"));
    bed.write(".1.zst", &zstd(b"zstd"));
    let mut seen = Vec::new();
    for file in bed.snapshot().into_files() {
        let mut one = String::new();
        decompressed(file)
            .unwrap()
            .read_to_string(&mut one)
            .unwrap();
        seen.push(one);
    }
    assert_eq!(seen, ["zstd", "gzip", "plain"]);
}

/// The plan was made for the old length: what comes then must not pass for whole.
#[test]
fn a_compressed_file_that_is_overwritten_between_two_passes_is_an_error() {
    // Not really compressed, so that the size on disk can be the same.
    let stored = |length: usize| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(&vec![b'x'; length]).unwrap();
        encoder.finish().unwrap()
    };
    let (one, two) = (stored(100), [stored(30), stored(47)].concat());
    assert_eq!(one.len(), two.len());
    let bed = Bed::with(&[("", "")]);
    bed.write(".0.gz", &one);
    let snapshot = bed.snapshot();
    assert_eq!(snapshot.len().unwrap(), 100);
    bed.write(".0.gz", &two);
    for error in [error(snapshot.read_all()), error(snapshot.tail(5))] {
        assert!(matches!(error, Error::Shrunk { .. }), "{error}");
    }
}
