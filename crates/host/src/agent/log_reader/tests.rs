//! Real files, a real socket and a real client; only libvirt is missing.

mod bed;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use logchain_core::chain::NumberingChoice;
use logchain_core::record::Record;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::*;
use crate::agent::control::LogReader;
use bed::{Bed, from, next, request, text_of, until};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn each_part_of_a_log_is_read() {
    let bed = Bed::of(&["one\ntwo\n", "three\nfo", "ur\nfive"]).await;
    for (part, want) in [
        (Part::All, "one\ntwo\nthree\nfour\nfive[end 23 false]"),
        (Part::LastBytes(6), "r\nfive[end 23 false]"),
        (Part::LastBytes(0), "[end 23 false]"),
        (
            Part::LastBytes(999),
            "one\ntwo\nthree\nfour\nfive[end 23 false]",
        ),
        (Part::LastLines(0), "[end 23 false]"),
        (Part::LastLines(1), "five[end 23 false]"),
        (Part::LastLines(2), "four\nfive[end 23 false]"),
        (
            Part::LastLines(5),
            "one\ntwo\nthree\nfour\nfive[end 23 false]",
        ),
        (
            Part::LastLines(u64::MAX),
            "one\ntwo\nthree\nfour\nfive[end 23 false]",
        ),
        (from(14), "four\nfive[end 23 false]"),
        (from(23), "[end 23 false]"),
        (
            Part::From {
                offset: 4,
                most: Some(3),
            },
            "two[end 7 true]",
        ),
    ] {
        assert_eq!(bed.all(part).await, want, "{part:?}");
    }
    let reader = bed.open(Part::All, false).await.unwrap();
    let head = reader.head();
    let names: Vec<_> = head.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["console.log.1", "console.log.0", "console.log"]);
    assert_eq!((head.end, head.start), (23, Start::At(0)));
    assert_eq!(Path::new(&head.path), bed.log());
}

#[tokio::test]
async fn long_lines_are_looked_for_far_back() {
    let long = "x".repeat(300_000);
    let bed = Bed::of(&[&format!("first\n{long}\n"), &format!("{long}\nlast\n")]).await;
    for (lines, want) in [
        (1, 5),
        (2, 300_006),
        (3, 600_007),
        (4, 600_013),
        (9, 600_013),
    ] {
        let found = bed.all(Part::LastLines(lines)).await;
        let found = found.split("[end").next().unwrap().len();
        assert_eq!(found, want, "{lines} lines");
    }
}

/// The VM is started anew: what it printed so far is an earlier boot's.
fn start_anew(bed: &Bed, since: i64) {
    let chain = LogChain::open(&bed.log(), NumberingChoice::FromZero).unwrap();
    chain.from(StreamOffset::START, 1).map(drop).unwrap();
    let (folder, base) = (chain.folder(), chain.base_name());
    let mut record = Record::read_any(folder, base).unwrap().unwrap();
    let since = Timestamp::from_second(since).unwrap();
    record.ledger.end_boot(since);
    record.write(folder, base).unwrap();
}

#[tokio::test]
async fn a_boot_is_read_alone() {
    let bed = Bed::of(&["old\none\n"]).await;
    start_anew(&bed, 1000);
    bed.print("two\ntwo\n");
    start_anew(&bed, 2000);
    bed.print("three\n");
    let ask = |boot, part| LogRequest {
        boot: Some(boot),
        ..request(part, false)
    };
    let all = async |boot, part| {
        let reader = LogReader::open(bed.socket(), ask(boot, part)).await;
        text_of(reader.unwrap()).await
    };
    for (boot, part, want) in [
        (0, Part::All, "three\n[end 22 false]"),
        (-1, Part::All, "two\ntwo\n[end 16 true]"),
        (-1, Part::LastBytes(4), "two\n[end 16 true]"),
        (-1, Part::LastBytes(99), "two\ntwo\n[end 16 true]"),
        (-1, Part::LastLines(1), "two\n[end 16 true]"),
        (-1, Part::LastLines(9), "two\ntwo\n[end 16 true]"),
        (-2, Part::All, "old\none\n[end 8 true]"),
    ] {
        assert_eq!(all(boot, part).await, want, "{part:?} of {boot}");
    }
    let reader = LogReader::open(bed.socket(), ask(-3, Part::All)).await;
    let head = reader.unwrap().head().clone();
    assert_eq!(head.start, Start::NoSuchBoot);
    let spans: Vec<_> = head
        .boots
        .iter()
        .map(|b| (b.since, b.start, b.end))
        .collect();
    assert_eq!(
        spans,
        [(None, 0, 8), (Some(1000), 8, 16), (Some(2000), 16, 22)]
    );
}

#[tokio::test]
async fn an_offset_that_is_not_there_is_told_of() {
    let bed = Bed::of(&["gone\n", "stays\n"]).await;
    // The record keeps count from here on.
    assert_eq!(bed.all(from(0)).await, "gone\nstays\n[end 11 false]");
    fs::remove_file(bed.rotated(0)).unwrap();
    let reader = bed.open(from(2), false).await.unwrap();
    assert_eq!(reader.head().start, Start::Expired(5));
    let reader = bed.open(from(99), true).await.unwrap();
    assert_eq!(
        (reader.head().start, reader.head().end),
        (Start::Beyond, 11)
    );
    assert_eq!(bed.all(Part::All).await, "stays\n[end 11 false]");
    fs::remove_file(bed.log()).unwrap();
    let error = bed.open(Part::All, false).await.unwrap_err().to_string();
    assert!(error.starts_with("there is no console log "), "{error}");
}

#[tokio::test]
async fn a_log_is_followed_over_a_rollover() {
    let bed = Bed::of(&["one\n"]).await;
    let mut reader = bed.open(Part::LastLines(9), true).await.unwrap();
    until(&mut reader, "one\n").await;
    bed.print("two\n");
    until(&mut reader, "two\n").await;
    fs::hard_link(bed.log(), bed.rotated(0)).unwrap();
    fs::write(bed.folder.path().join("new"), "three\n").unwrap();
    let new = bed.folder.path().join("new");
    fs::remove_file(bed.log()).unwrap();
    fs::hard_link(&new, bed.log()).unwrap();
    fs::remove_file(new).unwrap();
    until(&mut reader, "three\n").await;
}

/// The agent ends and starts again while clients read.
#[tokio::test]
async fn a_connection_that_breaks_off_costs_no_byte() {
    let long = "0123456789abcdef".repeat(1 << 18);
    let mut bed = Bed::of(&[&long]).await;
    let mut follower = bed.open(from(16), true).await.unwrap();
    let mut reader = bed.open(Part::LastBytes(2 << 20), false).await.unwrap();
    let mut parts = [Vec::new(), Vec::new()];
    for (reader, part) in [&mut follower, &mut reader].into_iter().zip(&mut parts) {
        let Some(Frame::Bytes { bytes, .. }) = next(reader).await else {
            panic!("no bytes");
        };
        part.extend_from_slice(&bytes);
    }
    bed.stop().await;
    bed.print("printed meanwhile\n");
    bed.start().await;
    let want = format!("{long}printed meanwhile\n");
    while parts[0].len() < want.len() - 16 {
        if let Some(Frame::Bytes { offset, bytes }) = next(&mut follower).await {
            assert_eq!(offset, parts[0].len() as u64 + 16);
            parts[0].extend_from_slice(&bytes);
        }
    }
    assert!(parts[0] == want.as_bytes()[16..]);
    // It ends where the log ended when it was asked for.
    let end = loop {
        match next(&mut reader).await.unwrap() {
            Frame::Bytes { bytes, .. } => parts[1].extend_from_slice(&bytes),
            end => break end,
        }
    };
    assert!(parts[1] == long.as_bytes()[2 << 20..]);
    assert!(matches!(end, Frame::End { next, .. } if next == long.len() as u64));
    assert_eq!(next(&mut reader).await, None);
}

/// As one whose pager waits for a key: the agent gives it up, and it goes on where it was.
#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_for_long_goes_on_afterwards() {
    let long = "0123456789abcdef".repeat(1 << 18);
    let bed = Bed::of(&[&long]).await;
    let reader = bed.open(Part::All, false).await.unwrap();
    let begun = std::time::Instant::now();
    while bed.ended.load(Ordering::Relaxed) == 0 {
        assert!(begun.elapsed() < LONG, "the agent does not give it up");
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    let text = text_of(reader).await;
    assert!(text == format!("{long}[end {} false]", long.len()));
}

#[tokio::test]
async fn what_is_dropped_while_a_connection_is_broken_is_told_of() {
    let mut bed = Bed::of(&["one\n"]).await;
    let mut reader = bed.open(from(0), true).await.unwrap();
    until(&mut reader, "one\n").await;
    bed.stop().await;
    // Another reader keeps count of what is written and dropped meanwhile.
    let count = || {
        let chain = LogChain::open(&bed.log(), NumberingChoice::FromZero).unwrap();
        chain.from(StreamOffset::START, 1).map(drop).unwrap();
    };
    bed.print("dropped\n");
    count();
    fs::hard_link(bed.log(), bed.rotated(0)).unwrap();
    fs::remove_file(bed.log()).unwrap();
    fs::write(bed.log(), "two\n").unwrap();
    count();
    fs::remove_file(bed.rotated(0)).unwrap();
    bed.start().await;
    until(&mut reader, "[Some(8) before 12]two\n").await;
    bed.print("three\n");
    until(&mut reader, "three\n").await;
}

#[tokio::test]
async fn a_log_that_became_another_one_is_not_read_on() {
    let mut bed = Bed::of(&["a long log\n"]).await;
    let mut reader = bed.open(from(0), true).await.unwrap();
    until(&mut reader, "a long log\n").await;
    bed.stop().await;
    for entry in fs::read_dir(bed.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    fs::write(bed.log(), "new\n").unwrap();
    bed.start().await;
    let ended = async {
        loop {
            if let Err(e) = reader.next().await {
                return e.to_string();
            }
        }
    };
    let error = timeout(LONG, ended).await.unwrap();
    assert!(error.ends_with("it is another log now"), "{error}");
}

/// Sixteen may read. One that went away makes room once nothing works for it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_goes_away_ends_its_follow() {
    let bed = Bed::of(&["one\n"]).await;
    for _ in 0..3 {
        let mut readers = Vec::new();
        while readers.len() < 16 {
            let opened = timeout(LONG, bed.open(Part::All, true)).await.unwrap();
            match opened {
                Ok(mut reader) => {
                    until(&mut reader, "one\n").await;
                    readers.push(reader);
                }
                // The last ones are still going.
                Err(e) => {
                    let error = e.to_string();
                    assert!(error.starts_with("too many logs are being read"), "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        let error = bed.open(Part::All, true).await.unwrap_err().to_string();
        assert!(error.starts_with("too many logs are being read"), "{error}");
    }
}

/// A client that takes nothing is not read for: the log stays on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_ahead_of_a_slow_client() {
    let chunk = vec![b'x'; PIECE];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.log");
    let mut log = File::create(&path).unwrap();
    for _ in 0..64 {
        log.write_all(&chunk).unwrap();
    }
    let (put, mut frames) = mpsc::channel(AHEAD);
    let (begun, begins) = oneshot::channel();
    let reading = tokio::task::spawn_blocking(move || {
        let chain = LogChain::open(&path, NumberingChoice::FromZero);
        read(
            chain,
            Head::default(),
            &request(Part::All, false),
            begun,
            &put,
        );
    });
    begins.await.unwrap().unwrap();
    // It waits for room after the head and as many frames as the channel holds.
    while frames.len() < AHEAD {
        tokio::task::yield_now().await;
    }
    assert!(!reading.is_finished());
    assert!(matches!(frames.recv().await, Some(Frame::Head(_))));
    // One that goes away is not read for any more.
    drop(frames);
    timeout(LONG, reading).await.unwrap().unwrap();
}

#[tokio::test]
async fn plain_bytes_end_where_some_are_missing() {
    let bed = Bed::of(&["one\n", "two\n", "three\n"]).await;
    assert_eq!(bed.all(from(0)).await, "one\ntwo\nthree\n[end 14 false]");
    fs::remove_file(bed.rotated(0)).unwrap();
    assert_eq!(
        bed.all(Part::All).await,
        "one\n[Some(4) before 8]three\n[end 14 false]"
    );
    let ask = async |query: &str| {
        let mut stream = UnixStream::connect(bed.socket()).await.unwrap();
        let line = format!("GET /v1/log/vm1{query} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = timeout(LONG, stream.read_to_string(&mut answer)).await;
        read.unwrap().unwrap();
        answer
    };
    for query in ["", "?follow=true"] {
        let answer = ask(query).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.contains("one\n") && !answer.contains("three"),
            "{answer}"
        );
    }
    let answer = ask("?from=4").await;
    assert!(answer.starts_with("HTTP/1.1 410 "), "{answer}");
    assert!(
        answer.contains("the first one still there is 8"),
        "{answer}"
    );
    let answer = ask("?from=8").await;
    assert!(answer.contains("logchain-offset: 8\r\n"), "{answer}");
    assert!(answer.contains("three\n"), "{answer}");
}
