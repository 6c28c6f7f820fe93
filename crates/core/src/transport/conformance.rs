//! What every transport must do, as plain functions for the tests of any of them.
//!
//! Each takes the transport and works under a domain of its own, so one store
//! serves them all, one after the other. They panic where the transport fails.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use uuid::Uuid;

use super::{
    Collection, Error, Key, LIST_PAGE, LogTransport, LogTransportExt, MAX_OBJECT, ObjectName,
    Prefix,
};
use crate::ids::{ConsoleName, HandoffId};

/// Writers in the race for one key.
const RACERS: u8 = 32;

/// How often what depends on chance is tried.
const ROUNDS: u32 = 4;

/// All of them.
pub async fn run_all(transport: Arc<dyn LogTransport>) {
    let transport = &*transport;
    create_only(transport).await;
    race(transport).await;
    ranges(transport).await;
    sizes(transport).await;
    readers(transport).await;
    listing(transport).await;
    streams(transport).await;
    names(transport).await;
    pages(transport).await;
    deletion(transport).await;
    coming_and_going(transport).await;
    cut_off(transport).await;
    same_again(transport).await;
}

fn handoff() -> Key {
    Key {
        domain: Uuid::new_v4(),
        console: "serial0".parse::<ConsoleName>().unwrap(),
        collection: HandoffId::random().into(),
        object: ObjectName::Begin,
    }
}

fn chunk(of: &Key, offset: u64, len: u32) -> Key {
    Key {
        object: ObjectName::Chunk { offset, len },
        ..of.clone()
    }
}

async fn read(transport: &dyn LogTransport, key: &Key) -> Bytes {
    transport.get_bytes(key, MAX_OBJECT as u64).await.unwrap()
}

/// A second put of a key says so and changes nothing.
pub async fn create_only(transport: &dyn LogTransport) {
    let key = handoff();
    transport
        .put(&key, Bytes::from_static(b"first"))
        .await
        .unwrap();
    let second = transport.put(&key, Bytes::from_static(b"second")).await;
    assert!(
        matches!(second, Err(Error::AlreadyExists { .. })),
        "{second:?}"
    );
    assert_eq!(read(transport, &key).await, "first");
    let missing = transport.get(&chunk(&key, 0, 1), None).await.err();
    assert!(
        matches!(missing, Some(Error::NotFound { .. })),
        "{missing:?}"
    );
}

/// Of many writers of one key just one wins, and its bytes are there.
pub async fn race(transport: &dyn LogTransport) {
    for _ in 0..ROUNDS {
        let key = handoff();
        let mut puts: FuturesUnordered<_> = (0..RACERS)
            .map(|n| {
                let key = key.clone();
                async move { (n, transport.put(&key, Bytes::from(vec![n; 5000])).await) }
            })
            .collect();
        let mut winners = Vec::new();
        while let Some((n, put)) = puts.next().await {
            match put {
                Ok(()) => winners.push(n),
                Err(Error::AlreadyExists { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(winners.len(), 1, "winners: {winners:?}");
        assert_eq!(read(transport, &key).await, vec![winners[0]; 5000]);
    }
}

/// Whole, part, empty, and beyond the end.
pub async fn ranges(transport: &dyn LogTransport) {
    let key = handoff();
    transport
        .put(&key, Bytes::from_static(b"0123456789"))
        .await
        .unwrap();
    for (range, expected) in [
        (0..10, Some("0123456789")),
        (3..7, Some("3456")),
        (9..10, Some("9")),
        (4..4, Some("")),
        (10..10, Some("")),
        (5..11, None),
        (11..12, None),
        (Range { start: 7, end: 3 }, None),
    ] {
        let got = match transport.get(&key, Some(range.clone())).await {
            Ok(mut parts) => {
                let mut all = Vec::new();
                while let Some(part) = parts.next().await {
                    all.extend_from_slice(&part.unwrap());
                }
                Some(all)
            }
            Err(Error::BadRange { .. }) => None,
            Err(e) => panic!("{e}"),
        };
        assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{range:?}");
    }
}

/// Nothing, as much as may be, and more.
pub async fn sizes(transport: &dyn LogTransport) {
    let key = handoff();
    transport.put(&key, Bytes::new()).await.unwrap();
    assert_eq!(read(transport, &key).await.len(), 0);
    let large: Bytes = (0..MAX_OBJECT)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let key = chunk(&key, 0, 1);
    transport.put(&key, large.clone()).await.unwrap();
    assert!(
        read(transport, &key).await == large,
        "a large object came back altered"
    );
    let larger = Bytes::from(vec![0; MAX_OBJECT + 1]);
    let refused = transport.put(&chunk(&key, 1, 1), larger).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
}

/// Many read at once, each its own part.
pub async fn readers(transport: &dyn LogTransport) {
    const PART: u64 = 40_000;
    let key = handoff();
    let data: Bytes = (0..20 * PART)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    transport.put(&key, data.clone()).await.unwrap();
    let (key, data) = (&key, &data);
    let reads = (0..20u64).map(|n| async move {
        let range = n * PART..(n + 1) * PART;
        let mut parts = transport.get(key, Some(range.clone())).await.unwrap();
        let mut all = Vec::new();
        while let Some(part) = parts.next().await {
            all.extend_from_slice(&part.unwrap());
        }
        let expected = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert!(all == data[expected], "part {n} came back altered");
    });
    reads.collect::<FuturesUnordered<_>>().count().await;
}

/// In the order of names, by prefix, after a key.
pub async fn listing(transport: &dyn LogTransport) {
    let key = handoff();
    let other = Key {
        collection: HandoffId::random().into(),
        ..key.clone()
    };
    let mut ours = vec![
        key.clone(),
        chunk(&key, 10, 5),
        chunk(&key, 2, 8),
        chunk(&key, 0, 2),
        Key {
            object: ObjectName::Commit,
            ..key.clone()
        },
    ];
    for key in ours.iter().chain([&other]) {
        transport
            .put(key, Bytes::from_static(b"abc"))
            .await
            .unwrap();
    }
    ours.sort();
    let prefix = Prefix::Collection(key.domain, key.console.clone(), key.collection);
    let listed = transport.list(&prefix, None).await.unwrap();
    assert!(listed.iter().all(|e| e.size == 3));
    assert_eq!(
        listed.iter().map(|e| e.key.clone()).collect::<Vec<_>>(),
        ours
    );
    let after = transport.list(&prefix, Some(&ours[2])).await.unwrap();
    assert_eq!(
        after.iter().map(|e| e.key.clone()).collect::<Vec<_>>(),
        ours[3..]
    );
    // After a key that is not there, too.
    let between = chunk(&key, 5, 1);
    let after = transport.list(&prefix, Some(&between)).await.unwrap();
    assert_eq!(
        after.iter().map(|e| e.key.clone()).collect::<Vec<_>>(),
        ours[3..]
    );
    for (prefix, expected) in [
        (Prefix::Domain(key.domain), 6),
        (Prefix::Console(key.domain, key.console.clone()), 6),
        (Prefix::Console(key.domain, "serial1".parse().unwrap()), 0),
        (Prefix::Domain(Uuid::new_v4()), 0),
    ] {
        assert_eq!(
            transport.list(&prefix, None).await.unwrap().len(),
            expected,
            "{prefix}"
        );
    }
    match transport.list_all(&Prefix::All).await {
        // One that serves many hosts may show each its own domains only.
        Err(Error::Denied { .. }) => {}
        all => {
            let all = all.unwrap();
            assert!(ours.iter().all(|key| all.iter().any(|e| e.key == *key)));
        }
    }
}

/// A stream lists its newest batch first, behind all handoffs.
pub async fn streams(transport: &dyn LogTransport) {
    let begin = handoff();
    let batch = |offset| Key {
        collection: Collection::Stream,
        object: ObjectName::Batch { offset },
        ..begin.clone()
    };
    let mut keys = vec![
        batch(0),
        batch(9),
        batch(10),
        batch(u64::MAX),
        begin.clone(),
    ];
    for key in &keys {
        transport
            .put(key, Bytes::from_static(b"abc"))
            .await
            .unwrap();
    }
    keys.reverse();
    let console = Prefix::Console(begin.domain, begin.console.clone());
    let listed = transport.list(&console, None).await.unwrap();
    assert!(listed.iter().map(|e| &e.key).eq(&keys), "{listed:?}");
    let stream = Prefix::Collection(begin.domain, begin.console.clone(), Collection::Stream);
    let older = transport.list(&stream, Some(&batch(10))).await.unwrap();
    assert!(older.iter().map(|e| &e.key).eq(&keys[3..]), "{older:?}");
    let handoffs = transport
        .list_handoffs(&Prefix::Domain(begin.domain))
        .await
        .unwrap();
    assert!(handoffs.iter().map(|e| &e.key).eq([&begin]), "{handoffs:?}");
}

/// Consoles whose names differ by little are told apart, and listed in order.
pub async fn names(transport: &dyn LogTransport) {
    let first = handoff();
    let mut keys = Vec::new();
    for name in ["a", "a-b", "a.b", "a_b", "ab", "a0", "A", "-", "serial0"] {
        for object in [ObjectName::Begin, ObjectName::Abort, ObjectName::Receipt] {
            keys.push(Key {
                console: name.parse().unwrap(),
                object,
                ..first.clone()
            });
        }
    }
    for key in &keys {
        let put = transport.put(key, Bytes::from(key.to_string())).await;
        put.unwrap();
    }
    keys.sort_by_key(ToString::to_string);
    let prefix = Prefix::Domain(first.domain);
    for (at, after) in [None].into_iter().chain(keys.iter().map(Some)).enumerate() {
        let listed = transport.list(&prefix, after).await.unwrap();
        let listed: Vec<Key> = listed.into_iter().map(|e| e.key).collect();
        assert_eq!(listed, keys[at..], "after {after:?}");
    }
    let console = Prefix::Console(first.domain, "a".parse().unwrap());
    assert_eq!(transport.list(&console, None).await.unwrap().len(), 3);
    for key in &keys {
        assert_eq!(read(transport, key).await, key.to_string());
    }
}

/// More objects than one listing has.
pub async fn pages(transport: &dyn LogTransport) {
    let key = handoff();
    let count = LIST_PAGE as u64 + 3;
    for offset in 0..count {
        transport
            .put(&chunk(&key, offset, 1), Bytes::from_static(b"x"))
            .await
            .unwrap();
    }
    let prefix = Prefix::Collection(key.domain, key.console.clone(), key.collection);
    assert_eq!(
        transport.list(&prefix, None).await.unwrap().len(),
        LIST_PAGE
    );
    let all = transport.list_all(&prefix).await.unwrap();
    let keys: Vec<Key> = all.into_iter().map(|e| e.key).collect();
    assert_eq!(
        keys,
        (0..count)
            .map(|offset| chunk(&key, offset, 1))
            .collect::<Vec<_>>()
    );
    for key in keys {
        transport.delete(&key).await.unwrap();
    }
    assert!(transport.list(&prefix, None).await.unwrap().is_empty());
}

/// Twice is as good as once, and the key is free again.
pub async fn deletion(transport: &dyn LogTransport) {
    let key = handoff();
    transport.delete(&key).await.unwrap();
    transport.put(&key, Bytes::from_static(b"a")).await.unwrap();
    transport.delete(&key).await.unwrap();
    transport.delete(&key).await.unwrap();
    assert!(transport.get_opt(&key, 10).await.unwrap().is_none());
    transport.put(&key, Bytes::from_static(b"b")).await.unwrap();
    assert_eq!(read(transport, &key).await, "b");
}

/// A deletion of the last object beside it never takes a put away.
pub async fn coming_and_going(transport: &dyn LogTransport) {
    let first = handoff();
    let first = &first;
    let all = (0..8u64).map(|n| async move {
        let key = chunk(first, n, 1);
        for round in 0..8u8 {
            let data = Bytes::from(vec![round; 10]);
            transport.put(&key, data.clone()).await.unwrap();
            assert_eq!(read(transport, &key).await, data);
            transport.delete(&key).await.unwrap();
        }
    });
    all.collect::<FuturesUnordered<_>>().count().await;
    let prefix = Prefix::Domain(first.domain);
    assert!(transport.list(&prefix, None).await.unwrap().is_empty());
}

/// A put that its caller gave up is there whole or not at all.
pub async fn cut_off(transport: &dyn LogTransport) {
    let first = handoff();
    let data = Bytes::from(vec![7; 1 << 20]);
    for n in 0..12u32 {
        let key = chunk(&first, u64::from(n), 1);
        let time = Duration::from_micros(100) * n * n;
        let _ = tokio::time::timeout(time, transport.put(&key, data.clone())).await;
        for _ in 0..3 {
            let there = transport.get_opt(&key, MAX_OBJECT as u64).await.unwrap();
            assert!(there.is_none_or(|there| there == data), "a part of it");
        }
        // Whatever became of it, it can be finished.
        transport.put_same(&key, data.clone()).await.unwrap();
    }
}

/// A put whose answer was lost is recognised.
pub async fn same_again(transport: &dyn LogTransport) {
    let key = handoff();
    transport
        .put_same(&key, Bytes::from_static(b"a"))
        .await
        .unwrap();
    transport
        .put_same(&key, Bytes::from_static(b"a"))
        .await
        .unwrap();
    let other = transport.put_same(&key, Bytes::from_static(b"b")).await;
    assert!(
        matches!(other, Err(Error::AlreadyExists { .. })),
        "{other:?}"
    );
}
