use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;
use crate::archive::tests::{Bed, archive, of, read};
use crate::archive::{About, Archive, Ask, Batch, Error, Limits, StreamStatus};
use crate::transport::fault::{Fault, FaultTransport, Verb};
use crate::transport::{LogTransport, LogTransportExt as _, MemoryTransport};

/// However busy the machine is.
const LONG: Duration = Duration::from_secs(60);

fn pool(limits: PoolLimits) -> Arc<StreamPool> {
    Arc::new(StreamPool::start(limits).unwrap())
}

/// A transport that does not answer while the flag is set.
fn away(inner: Arc<MemoryTransport>) -> (Arc<AtomicBool>, Arc<dyn LogTransport>) {
    let is_away = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_away);
    let transport = FaultTransport::new(inner, move |call| {
        let fails = seen.load(Ordering::Relaxed) && call.verb == Verb::Put;
        fails.then(Fault::unreachable)
    });
    (is_away, Arc::new(transport))
}

async fn until(
    standing: &mut watch::Receiver<StreamStatus>,
    is_it: impl FnMut(&StreamStatus) -> bool,
) {
    let there = standing.wait_for(is_it);
    tokio::time::timeout(LONG, there).await.unwrap().unwrap();
}

#[tokio::test]
async fn many_logs_are_streamed_with_memory_for_few() {
    let transport: Arc<dyn LogTransport> = Arc::new(MemoryTransport::new());
    let pool = pool(PoolLimits {
        memory: 0,
        calls: 2,
        reads: 2,
        starts: 2,
    });
    let (mut set, mut beds) = (JoinSet::new(), Vec::new());
    let ask = watch::Sender::new(Ask::Go);
    for n in 0..30_u128 {
        let mut bed = Bed::new(3);
        bed.pool = Some(Arc::clone(&pool));
        bed.print(3 * BLOCK + 77);
        let console = "serial0".parse().unwrap();
        let archive = Archive::new(Arc::clone(&transport), Uuid::from_u128(n), console);
        set.spawn(bed.streamer(&archive).run(ask.subscribe()));
        beds.push((bed, archive));
    }
    for (bed, _) in &mut beds {
        bed.print(2 * BLOCK);
    }
    ask.send_replace(Ask::Drain);
    let all = async {
        while let Some(done) = set.join_next().await {
            done.unwrap().unwrap();
        }
    };
    tokio::time::timeout(LONG, all).await.unwrap();
    for (bed, archive) in beds {
        assert!(read(&archive, 0, u64::MAX).await.0 == bed.written);
    }
    // All of it was given back, and nothing is looked at any more.
    assert_eq!(pool.memory.available_permits(), 8 * BLOCK / UNIT);
    assert!(pool.shared.table().logs.is_empty());
    assert!(pool.shared.table().folders.is_empty());
}

#[tokio::test]
async fn no_rollover_takes_bytes_while_the_transport_is_away() {
    let (is_away, transport) = away(Arc::new(MemoryTransport::new()));
    let archive = of(transport);
    let mut bed = Bed::new(1);
    let pool = pool(PoolLimits::default());
    bed.pool = Some(Arc::clone(&pool));
    bed.print(10);
    let (ask, asked) = watch::channel(Ask::Go);
    let limits = Limits {
        delay: Duration::ZERO,
        ..Limits::default()
    };
    let streamer = bed.streamer(&archive).with_limits(limits);
    let mut standing = streamer.standing();
    let run = tokio::spawn(streamer.run(asked));
    until(&mut standing, |s| s.offset == 10).await;
    is_away.store(true, Ordering::Relaxed);
    bed.print(10);
    until(&mut standing, |s| s.trouble.is_some()).await;
    for _ in 0..12 {
        bed.roll_over();
        let is_held = || {
            let table = pool.shared.table();
            table.logs.values().all(|slot| slot.live().holds_base())
        };
        let held = async {
            while !is_held() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LONG, held).await.unwrap();
        bed.print(1000);
    }
    is_away.store(false, Ordering::Relaxed);
    ask.send_replace(Ask::Drain);
    tokio::time::timeout(LONG, run)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let (all, missing) = read(&archive, 0, u64::MAX).await;
    assert_eq!(missing, []);
    assert!(all == bed.written);
}

#[tokio::test]
async fn what_another_put_beyond_ours_is_compared_once_it_is_read() {
    for is_same in [true, false] {
        let archive = archive();
        let mut bed = Bed::new(3);
        bed.pool = Some(pool(PoolLimits::default()));
        bed.print(10);
        let (ask, asked) = watch::channel(Ask::Go);
        let streamer = bed.streamer(&archive);
        let mut standing = streamer.standing();
        let run = tokio::spawn(streamer.run(asked));
        until(&mut standing, |s| s.offset == 10).await;
        // The other one read more of the same log than is written yet here.
        let mut other = Bed::new(3);
        other.print(40);
        let mut theirs = other.written[10..].to_vec();
        if !is_same {
            theirs[25] ^= 1;
        }
        let batch = Batch {
            offset: 10,
            after_gap: false,
            about: About::default(),
            bytes: Bytes::from(theirs),
        };
        let data = batch.encode().unwrap();
        archive
            .transport()
            .put(&archive.key(10), data)
            .await
            .unwrap();
        bed.print(10);
        until(&mut standing, |s| s.offset == 20).await;
        bed.print(15);
        until(&mut standing, |s| s.offset == 35).await;
        bed.print(10);
        if is_same {
            until(&mut standing, |s| s.offset == 45).await;
        }
        ask.send_replace(Ask::Drain);
        let done = tokio::time::timeout(LONG, run).await.unwrap().unwrap();
        if is_same {
            assert_eq!(done.unwrap(), 45);
            assert_eq!(read(&archive, 0, u64::MAX).await.0, bed.written);
            let all = archive
                .transport()
                .list_all(&archive.prefix())
                .await
                .unwrap();
            assert_eq!(all.len(), 3);
        } else {
            let error = done.unwrap_err();
            assert!(
                matches!(error, Error::Diverged { offset: 10, .. }),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn the_last_bytes_of_a_guest_that_left_wait_longer_than_those_of_one_that_stays() {
    let (is_away, transport) = away(Arc::new(MemoryTransport::new()));
    is_away.store(true, Ordering::Relaxed);
    let archive = of(transport);
    let mut bed = Bed::new(1);
    bed.pool = Some(pool(PoolLimits::default()));
    bed.print(10);
    for is_asked_to_end in [true, false] {
        let limits = Limits {
            delay: Duration::ZERO,
            patience: Duration::ZERO,
            linger: LONG,
            ..Limits::default()
        };
        let (ask, asked) = watch::channel(Ask::Go);
        let streamer = bed.streamer(&archive).with_limits(limits);
        let mut standing = streamer.standing();
        let run = tokio::spawn(streamer.run(asked));
        until(&mut standing, |s| s.trouble.is_some()).await;
        ask.send_replace(Ask::Drain);
        if is_asked_to_end {
            ask.send_replace(Ask::End);
            let done = tokio::time::timeout(LONG, run).await.unwrap().unwrap();
            assert!(
                matches!(done, Err(Error::NotPut { left: 10, .. })),
                "{done:?}"
            );
        } else {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!run.is_finished());
            is_away.store(false, Ordering::Relaxed);
            let done = tokio::time::timeout(LONG, run).await.unwrap().unwrap();
            assert_eq!(done.unwrap(), 10);
        }
    }
}

#[test]
fn a_name_concerns_the_logs_that_it_begins_with() {
    let shared = Shared::new().unwrap();
    let mut beds: Vec<_> = (0..2).map(|_| Bed::new(1)).collect();
    for bed in &mut beds {
        bed.print(1);
        let chain = bed.chain();
        let offsets = crate::offsets::Offsets::of(&chain).unwrap();
        shared.add(Live::unnotified(&offsets, chain).unwrap());
    }
    let came = || {
        let mut logs = BTreeSet::new();
        shared.came(&mut logs);
        logs.into_iter().collect::<Vec<_>>()
    };
    beds[1].print(5);
    assert_eq!(came(), [0_u64; 0]);
    beds[1].roll_over();
    assert_eq!(came(), [2]);
    shared.remove(2);
    beds[1].roll_over();
    beds[0].roll_over();
    assert_eq!(came(), [1]);
}

/// What a thousand logs cost: run it with `LOGCHAIN_TEST_FULL=1` and `--no-capture`.
#[tokio::test]
async fn a_thousand_logs_cost_one_thread_and_little_memory() {
    if std::env::var_os("LOGCHAIN_TEST_FULL").is_none() {
        return; // it takes half a minute
    }
    let (is_away, transport) = away(Arc::new(MemoryTransport::new()));
    let pool = pool(PoolLimits::default());
    let ask = watch::Sender::new(Ask::Go);
    let (mut set, mut beds) = (JoinSet::new(), Vec::new());
    let status = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let of = |key: &str| {
            let mut lines = status.lines().filter(|line| line.starts_with(key));
            lines.next().unwrap_or_default().to_owned()
        };
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let ticks = |n: usize| stat.split(' ').nth(n).unwrap().parse::<u64>().unwrap();
        let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
        (of("VmRSS"), of("Threads"), files, ticks(13) + ticks(14))
    };
    println!("before: {:?}", status());
    for n in 0..1000_u128 {
        let mut bed = Bed::new(3);
        bed.pool = Some(Arc::clone(&pool));
        bed.print(1000);
        let archive = Archive::new(
            Arc::clone(&transport),
            Uuid::from_u128(n),
            "serial0".parse().unwrap(),
        );
        let streamer = bed.streamer(&archive);
        let standing = streamer.standing();
        set.spawn(streamer.run(ask.subscribe()));
        beds.push((bed, standing));
    }
    for (_, standing) in &mut beds {
        until(standing, |s| s.offset == 1000).await;
    }
    println!("all begun: {:?}", status());
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("10 s at rest: {:?}", status());
    is_away.store(true, Ordering::Relaxed);
    for (bed, _) in &mut beds {
        bed.print(1 << 20);
        bed.written = Vec::new();
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("10 s, the transport away, 1 MiB each: {:?}", status());
    set.shutdown().await;
}
