//! What a peer that is let in can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use logchain_core::transport::{
    Advice, DirectoryTransport, Error, LogTransport, LogTransportExt, MemoryTransport, Prefix,
    conformance,
};
use logchain_transport_tls::{AllowedNames, ExpectedPeer, MAX_MESSAGE, Server, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::agent::{Agent, FORBIDDEN, Running, key, key_of, link};
use crate::authority::Authority;

#[tokio::test]
async fn it_conforms_over_a_folder() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let spool = tempfile::tempdir().unwrap();
    let spool = Arc::new(DirectoryTransport::open(spool.path()).unwrap());
    let address = "127.0.0.1:0".parse().unwrap();
    let running = Running::on(address, &far, ServerOptions::default(), spool).await;
    conformance::run_all(Arc::new(running.link(&near).await)).await;
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let link = running.link(&near).await;
    assert_eq!(link.to_string(), format!("tls://{}", running.address));
    assert_eq!(
        link.peer(),
        None,
        "nothing is connected before it is needed"
    );

    let peer = link.connect().await.unwrap();
    assert_eq!(peer.names().dn(), "C=GB,O=Red Hat,CN=h2");
    assert_eq!(peer.names().common_names(), ["h2"]);
    assert_eq!(peer.names().addresses().len(), 1);
    assert_eq!(peer.remote(), running.address);
    assert!(peer.local().ip().is_loopback());

    let said = link.ask(Bytes::from_static(b"who am I")).await.unwrap();
    assert_eq!(said, "C=GB,O=Red Hat,CN=h1");
    let key = key();
    link.put(&key, Bytes::from_static(b"x")).await.unwrap();
    link.put_same(&key, Bytes::from_static(b"x")).await.unwrap();
    let stored = running.agent.stored.lock().unwrap().clone();
    assert_eq!(stored, [("C=GB,O=Red Hat,CN=h1".to_owned(), key)]);
}

#[tokio::test]
async fn messages_have_bounds() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let mut options = ServerOptions::default();
    options.message = Duration::from_millis(200);
    let running = Running::start(&far, options).await;
    let link = running.link(&near).await;

    let largest = Bytes::from(vec![7; MAX_MESSAGE]);
    assert_eq!(link.ask(largest.clone()).await.unwrap(), largest);
    assert_eq!(link.ask(Bytes::new()).await.unwrap(), "");
    let too_long = link.ask(Bytes::from(vec![7; MAX_MESSAGE + 1])).await;
    assert!(
        matches!(too_long, Err(Error::Denied { .. })),
        "{too_long:?}"
    );
    let answer = link.ask(Bytes::from_static(b"long")).await;
    assert!(matches!(answer, Err(Error::Denied { .. })), "{answer:?}");
    let never = link.ask(Bytes::from_static(b"never")).await.unwrap_err();
    assert!(matches!(never, Error::Timeout { .. }), "{never:?}");
    let later = link.ask(Bytes::from_static(b"later")).await.unwrap_err();
    assert_eq!(later.advice(), Advice::Retry);
    assert!(later.to_string().contains("not before noon"), "{later}");
}

#[tokio::test]
async fn the_service_decides_what_a_peer_may_touch() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let link = running.link(&near).await;

    let (theirs, ours) = (key_of(FORBIDDEN), key());
    let denied = [
        link.put(&theirs, Bytes::from_static(b"x")).await,
        link.get(&theirs, None).await.map(drop),
        link.delete(&theirs).await,
        link.list(&Prefix::Domain(FORBIDDEN), None).await.map(drop),
        link.list(&Prefix::All, None).await.map(drop),
    ];
    for denied in denied {
        assert!(matches!(denied, Err(Error::Denied { .. })), "{denied:?}");
    }
    let sentence = link.delete(&theirs).await.unwrap_err().to_string();
    let expected = format!("{link} refuses: C=GB,O=Red Hat,CN=h1 may not delete here");
    assert_eq!(sentence, expected);

    // A cursor in another domain shows nothing of it.
    link.put(&ours, Bytes::from_static(b"x")).await.unwrap();
    let after = key_of(Uuid::nil());
    let listed = link.list(&Prefix::Domain(ours.domain), Some(&after)).await;
    assert_eq!(listed.unwrap().len(), 1);
    assert_eq!(running.agent.stored.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let link = running.link(&near).await;
    link.connect().await.unwrap();
    let address = running.address;
    running.stop().await;

    let lost = link.ask(Bytes::from_static(b"?")).await.unwrap_err();
    assert_eq!(lost.advice(), Advice::Retry, "{lost}");
    let lost = link.ask(Bytes::from_static(b"?")).await.unwrap_err();
    assert_eq!(lost.advice(), Advice::Retry, "{lost}");

    let spool = Arc::new(MemoryTransport::new());
    let _again = Running::on(address, &far, ServerOptions::default(), spool).await;
    let began = tokio::time::Instant::now();
    loop {
        match link.ask(Bytes::from_static(b"?")).await {
            Ok(answer) => break assert_eq!(answer, "?"),
            Err(e) => assert_eq!(e.advice(), Advice::Retry, "{e}"),
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it is not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn more_connections_than_allowed_are_turned_away_for_now() {
    let authority = Authority::new("ca");
    let (one, two, three) = (
        authority.named("h1"),
        authority.named("h2"),
        authority.named("h3"),
    );
    let far = authority.named("h4");
    let mut options = ServerOptions::default();
    (options.connections, options.connections_of_one) = (3, 2);
    let running = Running::start(&far, options).await;

    let first = running.link(&one).await;
    first.connect().await.unwrap();
    let second = running.link(&one).await;
    second.connect().await.unwrap();
    let third = running.link(&one).await.connect().await.unwrap_err();
    assert_eq!(third.advice(), Advice::Retry);
    let sentence = third.to_string();
    assert!(
        sentence.ends_with("it serves 2 connections of this host already"),
        "{sentence}"
    );
    let other = running.link(&two).await;
    other.connect().await.unwrap();
    let beyond = running.link(&three).await.connect().await.unwrap_err();
    let sentence = beyond.to_string();
    assert!(
        sentence.ends_with("it serves 3 connections already"),
        "{sentence}"
    );

    // One that ends makes room.
    drop(second);
    let began = tokio::time::Instant::now();
    while let Err(e) = running.link(&three).await.connect().await {
        assert!(began.elapsed() < Duration::from_secs(5), "{e}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Passes bytes on. Once `cut` says so, it closes the connection in place of the next answer.
async fn cutting(to: SocketAddr, cut: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(to).await.unwrap();
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let forth = tokio::io::copy(&mut from_client, &mut to_server);
            let back = async {
                let mut some = vec![0; 4096];
                while let Ok(n @ 1..) = from_server.read(&mut some).await {
                    if cut.swap(false, Ordering::Relaxed) {
                        break;
                    }
                    to_client.write_all(&some[..n]).await.unwrap();
                }
            };
            tokio::select! {
                _ = forth => {}
                () = back => {}
            }
        }
    });
    address
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_is_made_again_without_harm() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let cut = Arc::new(AtomicBool::new(false));
    let address = cutting(running.address, Arc::clone(&cut)).await;
    let expected = ExpectedPeer::Allowed(AllowedNames::any());
    let link = link(address, &near, expected).await;
    link.ask(Bytes::from_static(b"?")).await.unwrap();

    cut.store(true, Ordering::Relaxed);
    let key = key();
    let data = Bytes::from_static(b"x");
    let lost = link.put_same(&key, data.clone()).await.unwrap_err();
    assert_eq!(lost.advice(), Advice::Retry, "{lost}");
    assert_eq!(running.agent.stored.lock().unwrap().len(), 1, "it was done");
    link.put_same(&key, data).await.unwrap();
    assert_eq!(running.agent.stored.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_stopped_closes_all_connections() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let server = Server::bind(
        "127.0.0.1:0".parse().unwrap(),
        far.pki(),
        ServerOptions::default(),
        Arc::new(MemoryTransport::new()),
        Arc::new(Agent::default()),
    );
    let server = server.await.unwrap();
    let address = server.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    let expected = ExpectedPeer::Allowed(AllowedNames::any());
    let link = link(address, &near, expected).await;
    link.connect().await.unwrap();

    stop.send(()).unwrap();
    running.await.unwrap();
    let lost = link.ask(Bytes::from_static(b"?")).await.unwrap_err();
    assert_eq!(lost.advice(), Advice::Retry, "{lost}");
    assert!(TcpStream::connect(address).await.is_err());
}
