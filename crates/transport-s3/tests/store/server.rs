//! A healthy server.

use std::sync::Arc;
use std::time::Duration;

use logchain_core::transport::{Error, LogTransport, LogTransportExt, Prefix, conformance};
use uuid::Uuid;

use crate::moto::{BUCKET, Moto};
use crate::{any_key, bytes, open};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn moto_conforms() {
    let moto = Moto::start();
    for url in [format!("s3://{BUCKET}"), format!("s3://{BUCKET}/a b/c")] {
        let transport = open(&moto.endpoint(), &url, PATIENCE);
        transport.probe().await.unwrap();
        conformance::run_all(Arc::new(transport)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_ignored() {
    let moto = Moto::start();
    let transport = open(&moto.endpoint(), &format!("s3://{BUCKET}/p"), PATIENCE);
    let key = any_key();
    transport.put(&key, bytes(1, 10)).await.unwrap();
    let domain = key.domain;
    let handoff = key.collection;
    for odd in [
        "serial0/x".to_owned(),
        "serial0".to_owned(),
        "serial0/".to_owned(),
        format!("serial0/{handoff}/chunk-00000000000000000000-0000000001/more"),
        format!("serial0/{handoff}/chunk-0-1"),
        format!("serial0/{handoff}/chunk-00000000000000000000-0000000001%20"),
        format!("serial0/{handoff}/COMMIT"),
        format!("serial0/{handoff}/%F0%9F%98%80"),
        format!("serial0/{handoff}/%3Cscript%3E%26"),
        format!("%20serial0/{handoff}/commit"),
        format!(".hidden/{handoff}/commit"),
        format!("serial0/{handoff}/{}", "x".repeat(700)),
    ] {
        let answer = moto.raw("PUT", &format!("/{BUCKET}/p/v1/{domain}/{odd}"), b"evil");
        assert!(answer.contains(" 200 "), "{odd}: {answer}");
    }
    for other in ["v1", "v2/x", &format!("v1x/{domain}"), "q"] {
        moto.raw("PUT", &format!("/{BUCKET}/p/{other}"), b"evil");
        moto.raw("PUT", &format!("/{BUCKET}/{other}"), b"evil");
    }
    for prefix in [Prefix::Domain(domain), Prefix::All] {
        let listed = transport.list_all(&prefix).await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0].key, key);
    }
    // What even the client cannot read is named, and harms the domain it lies at only.
    let other = Uuid::new_v4();
    let nothing = format!("/{BUCKET}/p/v1/{other}//x");
    assert!(moto.raw("PUT", &nothing, b"evil").contains(" 200 "));
    let listed = transport.list_all(&Prefix::Domain(other)).await;
    assert!(
        matches!(&listed, Err(Error::Corrupt { reason, .. }) if reason.contains("remove it")),
        "{listed:?}"
    );
    let listed = transport.list_all(&Prefix::Domain(domain)).await.unwrap();
    assert_eq!(listed.len(), 1);
}
