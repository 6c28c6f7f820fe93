//! Any chain against the plain bytes that it stands for.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Part {
    /// Numbers left out before this one.
    gap: u32,
    compression: Option<Compression>,
    /// Members or frames, if compressed.
    members: Vec<Vec<u8>>,
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![2 => Just(b'\n'), 5 => any::<u8>()];
    prop_oneof![
        40 => vec(byte, 0..60),
        // Longer than a block, and without a newline in most blocks.
        1 => (any::<u8>(), 60_000..150_000_usize).prop_map(|(b, n)| {
            (0..n).map(|i| if i % 70_001 == 0 { b'\n' } else { b }).collect()
        }),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let gap = prop_oneof![3 => Just(0), 1 => 1..4_u32];
    let compression = prop_oneof![2 => Just(None), 2 => proptest::sample::select(&Compression::ALL).prop_map(Some)];
    (gap, compression, vec(content(), 1..3)).prop_map(|(gap, compression, members)| Part {
        gap,
        compression,
        members,
    })
}

#[derive(Debug)]
struct Model {
    bed: Bed,
    bytes: Vec<u8>,
    gaps: Vec<Gap>,
}

fn build(first: u32, base: Option<&Vec<u8>>, parts: &[Part]) -> Model {
    let bed = Bed::new();
    let (mut files, mut gaps, mut number) = (Vec::new(), Vec::new(), first);
    let mut written = Vec::new();
    for part in parts {
        if part.gap > 0 {
            gaps.push(Gap {
                first: number,
                last: number + part.gap - 1,
            });
        }
        number += part.gap;
        let suffix = part.compression.map_or("", Compression::suffix);
        let packed: Vec<_> = part
            .members
            .iter()
            .map(|m| compress(part.compression, m))
            .collect();
        written.push((format!(".{number}{suffix}"), packed.concat()));
        files.push(part.members.concat());
        number += 1;
    }
    // The oldest first, as a rotation does: times are evidence.
    for (suffix, content) in written.iter().rev() {
        bed.write(suffix, content);
    }
    let mut bytes = Vec::new();
    files.iter().rev().for_each(|f| bytes.extend_from_slice(f));
    if let Some(base) = base {
        bed.write("", base);
        bytes.extend_from_slice(base);
    }
    Model { bed, bytes, gaps }
}

/// What `tail -n` gives.
fn last_lines(bytes: &[u8], lines: usize) -> Vec<u8> {
    let all: Vec<_> = bytes.split_inclusive(|b| *b == b'\n').collect();
    all[all.len().saturating_sub(lines)..].concat()
}

/// Reads with a buffer of this size.
fn read(reader: Result<Reader<'_>>, buffer: usize) -> Vec<u8> {
    let (mut reader, mut buffer, mut all) = (reader.unwrap(), vec![0; buffer], Vec::new());
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => return all,
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Not `assert_eq`: nobody can read two dumps of 200 kB.
fn same(got: &[u8], expected: &[u8], what: &str) -> Result<(), TestCaseError> {
    let differ = got.iter().zip(expected).position(|(a, b)| a != b);
    prop_assert!(
        got == expected,
        "{what}: {} bytes, expected {}; first difference at {differ:?}",
        got.len(),
        expected.len()
    );
    Ok(())
}

proptest! {
    #[test]
    fn every_read_gives_what_the_model_holds(
        choice in prop_oneof![Just(NumberingChoice::FromZero), Just(NumberingChoice::FromOne)],
        base in prop_oneof![30 => content().prop_map(Some), 1 => Just(None)],
        parts in vec(part(), 1..6),
        budgets in vec(any::<prop::sample::Index>(), 4),
        lines in vec(0..40_usize, 3),
        buffer in prop_oneof![1..40_usize, 1000..100_000_usize],
    ) {
        let first = choice.resolve([]).first();
        let Model { bed, bytes, gaps } = build(first, base.as_ref(), &parts);
        let chain = LogChain::open(&bed.log(), choice).unwrap();
        let snapshot = chain.snapshot().unwrap();
        prop_assert_eq!(snapshot.gaps(), &gaps);
        prop_assert_eq!(snapshot.base_is_missing(), base.is_none());
        // Before anything was measured, and after.
        for pass in ["first", "second"] {
            for budget in &budgets {
                let budget = budget.index(bytes.len() + 20);
                let from = bytes.len().saturating_sub(budget);
                let what = format!("{pass} tail({budget})");
                same(&read(snapshot.tail(budget as u64), buffer), &bytes[from..], &what)?;
                let what = format!("{pass} skip({budget})");
                let rest = &bytes[budget.min(bytes.len())..];
                same(&read(snapshot.skip(budget as u64), buffer), rest, &what)?;
            }
            for lines in &lines {
                let what = format!("{pass} tail_lines({lines})");
                let got = read(snapshot.tail_lines(*lines as u64), buffer);
                same(&got, &last_lines(&bytes, *lines), &what)?;
            }
            same(&read(snapshot.read_all(), buffer), &bytes, "read_all")?;
            prop_assert_eq!(snapshot.len().unwrap(), bytes.len() as u64);
        }
    }
}
