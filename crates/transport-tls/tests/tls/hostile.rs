//! Peers that mean no good. Whatever they do, the others are served.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use logchain_core::transport::{Advice, LogTransport};
use logchain_transport_tls::{AllowedNames, ExpectedPeer, LinkOptions, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::agent::{Running, key, link, link_with};
use crate::authority::Authority;
use crate::raw;

fn frame(header: &str, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + header.len() + body.len()).unwrap();
    let header_length = u32::try_from(header.len()).unwrap();
    [
        &length.to_be_bytes(),
        &header_length.to_be_bytes(),
        header.as_bytes(),
        body,
    ]
    .concat()
}

#[tokio::test]
async fn noise_without_tls_is_closed() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let mut options = ServerOptions::default();
    options.handshake = Duration::from_millis(300);
    let running = Running::start(&far, options).await;

    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 0xff, 0xff],
        b"",
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(noise).await.unwrap();
        let said = raw::rest(&mut stream).await;
        assert!(!said.starts_with(b"logchain"), "{said:?}");
    }
    running.link(&near).await.connect().await.unwrap();
}

#[tokio::test]
async fn who_says_nothing_does_not_keep_others_out() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let mut options = ServerOptions::default();
    options.handshake = Duration::from_millis(400);
    (options.handshakes, options.handshakes_of_one) = (8, 4);
    let running = Running::start(&far, options).await;

    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    // All of them are closed in time, and then there is room.
    for stream in &mut silent {
        raw::rest(stream).await;
    }
    running.link(&near).await.connect().await.unwrap();
}

#[tokio::test]
async fn who_is_known_and_silent_or_slow_is_cut_off() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let mut options = ServerOptions::default();
    options.handshake = Duration::from_millis(300);
    options.frame = Duration::from_millis(300);
    let running = Running::start(&far, options).await;

    // Never greets.
    let ours: &[&[u8]] = &[b"logchain-agent"];
    let mut stream = raw::connect(running.address, &near, true, ours)
        .await
        .unwrap();
    assert_eq!(raw::rest(&mut stream).await, raw::GREETING);

    // Sends a frame one byte at a time, and half of one.
    let put = frame(r#"{"id":1,"verb":{"put":{"key":"x"}}}"#, &[7; 1000]);
    for (piece, pause) in [(1, 20), (2, 0), (500, 10_000)] {
        let mut stream = raw::greeted(running.address, &near).await;
        let began = Instant::now();
        for piece in put.chunks(piece) {
            let sent = async {
                stream.write_all(piece).await?;
                stream.flush().await
            };
            let pause = tokio::time::sleep(Duration::from_millis(pause));
            if sent.await.is_err() || began.elapsed() > Duration::from_secs(1) {
                break;
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), pause).await;
        }
        if pause > 0 {
            raw::rest(&mut stream).await;
        }
    }

    // One that has nothing to say may stay.
    let link = running.link(&near).await;
    let before = link.connect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    link.ask(Bytes::from_static(b"?")).await.unwrap();
    assert_eq!(link.peer(), Some(before));
}

#[tokio::test]
async fn frames_that_cannot_be_are_the_end_of_a_connection() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let endless = frame(
        &format!(r#"{{"id":1,"verb":"{}"}}"#, "x".repeat(40_000)),
        b"",
    );
    for frame in [
        &[0xff; 8][..],
        &[0, 0, 0, 3, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 4],
        &frame("not json", b""),
        &frame(r#"{"id":1,"verb":{"format":{}}}"#, b""),
        &[0, 0, 0, 8, 0, 0, 0, 99, 1, 2, 3, 4],
        &endless,
    ] {
        let mut stream = raw::greeted(running.address, &near).await;
        let _ = stream.write_all(frame).await;
        let _ = stream.flush().await;
        assert_eq!(raw::rest(&mut stream).await, b"", "{frame:?}");
    }
    // A path that climbs is no key.
    let mut stream = raw::greeted(running.address, &near).await;
    let climbs = frame(r#"{"id":5,"verb":{"put":{"key":"v1/../../etc/x"}}}"#, b"x");
    stream.write_all(&climbs).await.unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).await.unwrap();
    assert!(running.agent.stored.lock().unwrap().is_empty());

    let link = running.link(&near).await;
    link.put(&key(), Bytes::from_static(b"x")).await.unwrap();
}

#[tokio::test]
async fn another_version_is_told_and_closed() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let ours: &[&[u8]] = &[b"logchain-agent"];
    let mut stream = raw::connect(running.address, &near, true, ours)
        .await
        .unwrap();
    stream.write_all(b"logchain-agent 2\n").await.unwrap();
    assert_eq!(raw::rest(&mut stream).await, raw::GREETING);
}

/// Passes bytes on, and keeps what the client sent.
async fn recorder(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(to).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let back = tokio::io::copy(&mut from_server, &mut to_client);
        let forth = async {
            let mut some = vec![0; 4096];
            while let Ok(n @ 1..) = from_client.read(&mut some).await {
                keep.lock().unwrap().extend_from_slice(&some[..n]);
                to_server.write_all(&some[..n]).await.unwrap();
            }
        };
        tokio::join!(back, forth).0.ok();
    });
    (address, kept)
}

#[tokio::test]
async fn an_old_session_cannot_be_played_again() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let (address, kept) = recorder(running.address).await;
    let expected = ExpectedPeer::Allowed(AllowedNames::any());
    let recorded = link(address, &near, expected).await;
    recorded
        .put(&key(), Bytes::from_static(b"x"))
        .await
        .unwrap();
    drop(recorded);
    assert_eq!(running.agent.stored.lock().unwrap().len(), 1);

    let session = kept.lock().unwrap().clone();
    assert!(session.len() > 500);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let _ = stream.write_all(&session).await;
    raw::rest(&mut stream).await;
    assert_eq!(running.agent.stored.lock().unwrap().len(), 1);
    running.link(&near).await.connect().await.unwrap();
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let authority = Authority::new("ca");
    let near = authority.named("h1");
    let ours: &[&[u8]] = &[b"logchain-agent"];
    let (address, task) = raw::server(&near, ours, raw::GREETING).await;
    let expected = ExpectedPeer::Allowed(AllowedNames::any());
    let mut quiet = LinkOptions::default();
    quiet.quiet = Duration::from_millis(500);
    let mut limited = LinkOptions::default();
    limited.message = Duration::from_millis(500);
    for options in [quiet, limited] {
        let link = link_with(address, &near, expected.clone(), options).await;
        link.connect().await.unwrap();
        let began = Instant::now();
        let silent = link.ask(Bytes::from_static(b"?")).await.unwrap_err();
        assert_eq!(silent.advice(), Advice::Retry, "{silent}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    task.abort();
}

#[tokio::test]
async fn who_asks_and_hangs_up_has_a_connection_until_that_is_done() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let mut options = ServerOptions::default();
    options.connections_of_one = 2;
    options.message = Duration::from_millis(1500);
    let running = Running::start(&far, options).await;
    for _ in 0..2 {
        let mut stream = raw::greeted(running.address, &near).await;
        let never = frame(r#"{"id":1,"verb":"message"}"#, b"never");
        stream.write_all(&never).await.unwrap();
        stream.flush().await.unwrap();
        // One with an answer, so that the other has begun.
        let other = frame(r#"{"id":2,"verb":"message"}"#, b"x");
        stream.write_all(&other).await.unwrap();
        let mut some = [0; 8];
        stream.read_exact(&mut some).await.unwrap();
    }
    let busy = running.link(&near).await.connect().await.unwrap_err();
    assert!(
        busy.to_string().contains("2 connections of this host"),
        "{busy}"
    );
    let began = Instant::now();
    while let Err(e) = running.link(&near).await.connect().await {
        assert!(began.elapsed() < Duration::from_secs(10), "{e}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
