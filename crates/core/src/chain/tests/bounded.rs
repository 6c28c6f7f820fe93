//! How much is read, counted by the system for this thread.

use super::*;
use crate::chain::file::BLOCK;

const GIB: u64 = 1 << 30;

/// Bytes that this thread got from read calls so far.
fn read_so_far() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let rchar = io.lines().find_map(|l| l.strip_prefix("rchar: ")).unwrap();
    rchar.parse().unwrap()
}

/// What `read` gives, and how many bytes were read for it.
fn counted(read: impl FnOnce() -> Vec<u8>) -> (Vec<u8>, u64) {
    let before = read_so_far();
    let bytes = read();
    (bytes, read_so_far() - before)
}

/// 10 GiB that take no room on disk, and some text at the end.
fn large() -> Bed {
    let bed = Bed::new();
    for suffix in [".0", ".1"] {
        fs::File::create(bed.path(suffix))
            .unwrap()
            .set_len(5 * GIB)
            .unwrap();
    }
    let end: String = (0..5000).map(|n| format!("line {n}\n")).collect();
    bed.write("", end.as_bytes());
    bed
}

#[test]
fn a_tail_of_a_large_chain_reads_what_it_gives() {
    let bed = large();
    let base = fs::read(bed.log()).unwrap();
    for budget in [1, 1000, 100 * 1024, 1 << 20] {
        let (tail, read) = counted(|| bytes(bed.snapshot().tail(budget)));
        assert_eq!(tail.len() as u64, budget);
        let own = base.len().min(tail.len());
        assert_eq!(tail[tail.len() - own..], base[base.len() - own..]);
        assert!(tail[..tail.len() - own].iter().all(|b| *b == 0));
        let most = budget + BLOCK as u64;
        assert!(
            read <= most,
            "{read} bytes were read for {budget}, at most {most} are allowed"
        );
        assert!(read >= budget, "the count is wrong: {read} for {budget}");
    }
}

#[test]
fn last_lines_of_a_large_chain_read_little() {
    let bed = large();
    let (tail, read) = counted(|| bytes(bed.snapshot().tail_lines(3)));
    assert_eq!(tail, b"line 4997\nline 4998\nline 4999\n");
    assert!(
        read <= (2 * tail.len() + 2 * BLOCK) as u64,
        "{read} bytes were read"
    );
}

#[test]
fn an_offset_in_a_large_chain_costs_nothing() {
    let bed = large();
    let base = fs::read(bed.log()).unwrap();
    let (rest, read) = counted(|| bytes(bed.snapshot().skip(10 * GIB - 7)));
    assert_eq!(rest[..7], [0; 7]);
    assert_eq!(rest[7..], base);
    assert!(
        read <= (rest.len() + BLOCK) as u64,
        "{read} bytes were read"
    );
}

#[test]
fn a_snapshot_and_its_plain_length_read_nothing() {
    let bed = large();
    let (_, read) = counted(|| {
        assert!(bed.snapshot().len().unwrap() > 10 * GIB);
        Vec::new()
    });
    assert!(read < 1024, "{read} bytes were read");
}
