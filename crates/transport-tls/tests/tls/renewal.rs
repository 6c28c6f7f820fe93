//! Certificates that change while agents run.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use logchain_core::transport::Error;
use logchain_transport_tls::{Notice, ServerOptions};

use crate::agent::Running;
use crate::authority::{Authority, Says};

const SAY: Bytes = Bytes::from_static(b"?");

#[tokio::test]
async fn a_renewed_certificate_is_used_by_new_handshakes_alone() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let standing = running.link(&near).await;
    let before = standing.connect().await.unwrap();
    assert_eq!(before.names().common_names(), ["h2"]);

    let renewed = |cn| Says {
        cn,
        ..Says::default()
    };
    far.renew(&authority, &renewed("h2-renewed"));
    near.renew(&authority, &renewed("h1-renewed"));
    standing.ask(SAY).await.unwrap();
    assert_eq!(standing.peer(), Some(before), "it was not made anew");

    let new = running.link(&near).await;
    let after = new.connect().await.unwrap();
    assert_eq!(after.names().common_names(), ["h2-renewed"]);
    let said = new.ask(Bytes::from_static(b"who am I")).await.unwrap();
    assert_eq!(said, "C=GB,O=Red Hat,CN=h1-renewed");
    standing.ask(SAY).await.unwrap();
}

#[tokio::test]
async fn a_bad_new_certificate_keeps_the_old_one_in_force() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let mut options = ServerOptions::default();
    options.notice = Notice::new(move |e| tell.lock().unwrap().push(e.to_string()));
    let running = Running::start(&far, options).await;
    let connect = async || running.link(&near).await.connect().await.unwrap();
    connect().await;

    // The certificate is renewed before its key is.
    let says = Says {
        cn: "h2-renewed",
        ..Says::default()
    };
    let (certificate, key) = authority.issue(&says);
    far.write("servercert.pem", &certificate);
    for _ in 0..2 {
        assert_eq!(connect().await.names().common_names(), ["h2"]);
    }
    let sentences = told.lock().unwrap().clone();
    assert_eq!(sentences.len(), 1, "told once: {sentences:?}");
    let path = far.path().join("servercert.pem");
    assert!(sentences[0].starts_with(&format!("{}: ", path.display())));

    far.write("serverkey.pem", &key);
    assert_eq!(connect().await.names().common_names(), ["h2-renewed"]);
    assert_eq!(told.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn after_a_change_of_the_ca_the_old_one_opens_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (near, far) = (old.named("h1"), old.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let standing = running.link(&near).await;
    standing.connect().await.unwrap();

    far.write("cacert.pem", &new.pem);
    standing.ask(SAY).await.unwrap();
    let refused = running.link(&near).await.connect().await.unwrap_err();
    assert!(matches!(refused, Error::Denied { .. }), "{refused}");

    // A host that moves to the new one believes both for a while.
    near.renew(&new, &Says::default());
    near.write("cacert.pem", &format!("{}{}", old.pem, new.pem));
    running.link(&near).await.connect().await.unwrap();
}
