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

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use uuid::Uuid;

use super::{
    ConsoleName, Error, HandoffId, Key, LIST_PAGE, LogTransport, LogTransportExt, MAX_OBJECT,
    ObjectName, Prefix,
};

/// Writers in the race for one key.
const RACERS: u8 = 32;

/// All of them.
pub async fn run_all(transport: Arc<dyn LogTransport>) {
    let transport = &*transport;
    create_only(transport).await;
    race(transport).await;
    ranges(transport).await;
    sizes(transport).await;
    listing(transport).await;
    pages(transport).await;
    deletion(transport).await;
    same_again(transport).await;
}

fn handoff() -> Key {
    Key {
        domain: Uuid::new_v4(),
        console: "serial0".parse::<ConsoleName>().unwrap(),
        handoff: HandoffId::random(),
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
        (5..11, None),
        (11..12, None),
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

/// In the order of names, by prefix, after a key.
pub async fn listing(transport: &dyn LogTransport) {
    let key = handoff();
    let other = Key {
        handoff: HandoffId::random(),
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
    let prefix = Prefix::Handoff(key.domain, key.console.clone(), key.handoff);
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
    let all = transport.list_all(&Prefix::All).await.unwrap();
    assert!(ours.iter().all(|key| all.iter().any(|e| e.key == *key)));
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
    let prefix = Prefix::Handoff(key.domain, key.console.clone(), key.handoff);
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
