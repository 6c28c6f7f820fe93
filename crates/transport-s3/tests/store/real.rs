//! What every real store must do, whoever's it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logchain_core::transport::{Advice, Error, LogTransport, LogTransportExt, Prefix, conformance};
use logchain_transport_s3::StoreTransport;

use crate::proxy::{Fault, Proxy};
use crate::{any_key, bytes};

/// All of the suite keeps a machine busy; no single call takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The probe, and the suite that every transport passes.
pub(crate) async fn conforms(transport: StoreTransport) {
    transport.probe().await.unwrap();
    conformance::run_all(Arc::new(transport)).await;
}

/// A put whose answer was lost is known by its id.
pub(crate) async fn own_puts_are_known(
    server: SocketAddr,
    open: impl Fn(SocketAddr) -> StoreTransport,
) {
    for fault in [
        Fault::AnswerAfter(500),
        Fault::AnswerAfter(503),
        Fault::LoseAnswer,
        Fault::Half,
    ] {
        let (plan, done) = (fault.clone(), AtomicBool::new(false));
        let proxy = Proxy::start(server, move |request| {
            if request.method == "PUT" && !done.swap(true, Ordering::Relaxed) {
                return plan.clone();
            }
            Fault::None
        })
        .await;
        let key = any_key();
        let put = open(proxy.address()).put(&key, bytes(1, 1000)).await;
        assert!(put.is_ok(), "{fault:?}: {put:?}");
        let heads = proxy.heads();
        let puts = heads.iter().filter(|head| head.starts_with("PUT"));
        assert!(puts.count() > 1, "{fault:?} was no fault");
        // One that is really somebody else's is not, though its bytes are the same.
        let direct = open(server);
        let again = direct.put(&key, bytes(1, 1000)).await;
        assert!(
            matches!(again, Err(Error::AlreadyExists { .. })),
            "{again:?}"
        );
        assert_eq!(direct.get_bytes(&key, 1000).await.unwrap(), bytes(1, 1000));
    }
}

/// Every verb, but the one, says in one sentence what is to be done.
pub(crate) async fn is_refused(transport: &StoreTransport, but: Option<&str>, words: &[&str]) {
    let key = any_key();
    for (verb, error) in [
        ("probe", transport.probe().await.err()),
        ("put", transport.put(&key, bytes(1, 10)).await.err()),
        // Not as an object that is not there, which would be no error.
        ("get", transport.get_opt(&key, 10).await.err()),
        ("list", transport.list(&Prefix::All, None).await.err()),
        ("delete", transport.delete(&key).await.err()),
    ] {
        let Some(error) = error else {
            assert_eq!(but, Some(verb), "{verb} is not refused");
            continue;
        };
        let said = error.to_string();
        assert_eq!(error.advice(), Advice::Fix, "{verb}: {said}");
        assert!(
            !said.contains(['\n', '<', '{']) && said.len() < 300,
            "{verb}: {said}"
        );
        for word in words {
            assert!(said.contains(word), "{verb}: {word:?} in {said:?}");
        }
    }
}
