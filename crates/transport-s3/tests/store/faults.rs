//! A server, or a network, that fails: what comes is right, or an error that says
//! to try again; and trying again completes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use logchain_core::ids::HandoffId;
use logchain_core::transport::{Advice, Error, LogTransport, LogTransportExt, MAX_OBJECT, Prefix};
use uuid::Uuid;

use crate::moto::{BUCKET, Moto};
use crate::proxy::{Fault, Proxy};
use crate::{any_key, bytes, chunk, open};

const PATIENCE: Duration = Duration::from_secs(20);

fn url() -> String {
    format!("s3://{BUCKET}/p")
}

/// The first put meets the fault; others do not.
async fn first_put(fault: Fault) -> (Moto, Proxy) {
    let moto = Moto::start();
    let done = AtomicBool::new(false);
    let proxy = Proxy::start(moto.address, move |request| {
        if request.method == "PUT" && !done.swap(true, Ordering::Relaxed) {
            return fault.clone();
        }
        Fault::None
    })
    .await;
    (moto, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_whose_answer_was_lost_is_known_as_ours() {
    for fault in [
        Fault::AnswerAfter(500),
        Fault::AnswerAfter(503),
        Fault::LoseAnswer,
        Fault::Half,
        // Longer than one request may take.
        Fault::Slow(PATIENCE),
    ] {
        let (moto, proxy) = first_put(fault.clone()).await;
        let patience = match fault {
            Fault::Slow(_) => Duration::from_secs(4),
            _ => PATIENCE,
        };
        let transport = open(&proxy.endpoint(), &url(), patience);
        let key = any_key();
        let put = transport.put(&key, bytes(1, 1000)).await;
        assert!(put.is_ok(), "{fault:?}: {put:?}");
        let puts = proxy
            .heads()
            .iter()
            .filter(|h| h.starts_with("PUT"))
            .count();
        assert!(puts > 1, "{fault:?} was no fault");
        // One that is really somebody else's is not, though its bytes are the same.
        let again = open(&moto.endpoint(), &url(), PATIENCE)
            .put(&key, bytes(1, 1000))
            .await;
        assert!(
            matches!(again, Err(Error::AlreadyExists { .. })),
            "{again:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ones_object_is_never_taken_for_ours() {
    // Theirs comes to be while our try fails.
    let (moto, proxy) = first_put(Fault::Answer(500, String::new())).await;
    let key = any_key();
    let theirs = open(&moto.endpoint(), &url(), PATIENCE);
    theirs.put(&key, bytes(2, 1000)).await.unwrap();
    let ours = open(&proxy.endpoint(), &url(), PATIENCE);
    let put = ours.put(&key, bytes(1, 1000)).await;
    assert!(matches!(put, Err(Error::AlreadyExists { .. })), "{put:?}");
    let there = ours.get_bytes(&key, 1000).await.unwrap();
    assert_eq!(there, bytes(2, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_trying_again_completes_it() {
    const OBJECTS: u64 = 40;
    let moto = Moto::start();
    // Every second request meets one of them, each kind on each verb in time.
    let proxy = Proxy::start(moto.address, |request| {
        if request.number.is_multiple_of(2) {
            return Fault::None;
        }
        match request.number / 2 % 7 {
            0 => Fault::Answer(500, String::new()),
            1 => Fault::Answer(503, "<Error><Code>SlowDown</Code></Error>".to_owned()),
            2 => Fault::AnswerAfter(500),
            3 => Fault::Cut,
            4 => Fault::LoseAnswer,
            5 => Fault::Half,
            _ => Fault::Slow(Duration::from_millis(300)),
        }
    })
    .await;
    let transport = open(&proxy.endpoint(), &url(), PATIENCE);
    let (domain, handoff) = (Uuid::new_v4(), HandoffId::random());
    let mut errors = 0;
    let mut retry = |error: Error| {
        assert_eq!(error.advice(), Advice::Retry, "{error}");
        errors += 1;
        assert!(errors < 200, "no end: {error}");
    };
    for n in 0..OBJECTS {
        let len = 1 + usize::try_from(n).unwrap() * 5000;
        let key = chunk(domain, handoff, n);
        while let Err(e) = transport.put_same(&key, bytes(n, len)).await {
            retry(e);
        }
    }
    let listed = loop {
        match transport.list_all(&Prefix::Domain(domain)).await {
            Ok(listed) => break listed,
            Err(e) => retry(e),
        }
    };
    assert_eq!(listed.len(), usize::try_from(OBJECTS).unwrap());
    for (n, entry) in (0..).zip(listed) {
        let len = usize::try_from(entry.size).unwrap();
        let got = loop {
            match transport.get_bytes(&entry.key, MAX_OBJECT as u64).await {
                Ok(got) => break got,
                Err(e) => retry(e),
            }
        };
        assert!(got == bytes(n, len), "{} came altered", entry.key);
        while let Err(e) = transport.delete(&entry.key).await {
            retry(e);
        }
    }
    let direct = open(&moto.endpoint(), &url(), PATIENCE);
    assert!(direct.list_all(&Prefix::All).await.unwrap().is_empty());
    println!("{errors} calls failed and were made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wait_has_an_end() {
    let moto = Moto::start();
    let patience = Duration::from_secs(2);
    let faults = [
        Fault::Slow(Duration::from_secs(60)),
        Fault::Answer(503, "<Error><Code>SlowDown</Code></Error>".to_owned()),
        Fault::Answer(500, String::new()),
        Fault::Cut,
        Fault::LoseAnswer,
    ];
    for fault in faults {
        let plan = fault.clone();
        let proxy = Proxy::start(moto.address, move |_| plan.clone()).await;
        let transport = Arc::new(open(&proxy.endpoint(), &url(), patience));
        let key = any_key();
        let started = Instant::now();
        let (put, get, list, delete) = tokio::join!(
            transport.put(&key, bytes(1, 10)),
            transport.get_bytes(&key, 10),
            transport.list(&Prefix::All, None),
            transport.delete(&key),
        );
        let took = started.elapsed();
        for (verb, error) in [
            ("put", put.err()),
            ("get", get.err()),
            ("list", list.err()),
            ("delete", delete.err()),
        ] {
            let error = error.unwrap_or_else(|| panic!("{verb} with {fault:?}"));
            assert_eq!(error.advice(), Advice::Retry, "{verb}, {fault:?}: {error}");
        }
        assert!(
            took < patience + Duration::from_secs(2),
            "{fault:?}: {took:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_overwrites_is_refused() {
    let moto = Moto::start();
    let proxy = Proxy::start(moto.address, |_| Fault::Careless).await;
    let transport = open(&proxy.endpoint(), &url(), PATIENCE);
    let refused = transport.probe().await;
    assert!(
        matches!(&refused, Err(Error::Denied { reason, .. }) if reason.contains("overwrites")),
        "{refused:?}"
    );
    // And nothing of the probe is left.
    let direct = open(&moto.endpoint(), &url(), PATIENCE);
    direct.probe().await.unwrap();
    assert!(direct.list_all(&Prefix::All).await.unwrap().is_empty());
}
