//! Who is let in, and who is believed.

use logchain_core::transport::{Advice, Error};
use logchain_transport_tls::{
    AllowedNames, BindError, ClientCredentials, ExpectedPeer, Notice, PeerLink, Server,
    ServerOptions,
};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::AsyncWriteExt;

use crate::agent::{Agent, Running};
use crate::authority::{Authority, Host, Says};
use crate::raw;

async fn refused(link: &PeerLink) -> String {
    let error = link.connect().await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert_eq!(error.advice(), Advice::Fix);
    error.to_string()
}

/// What a client at `near` is told by a server at `far`.
async fn between(near: &Host, far: &Host) -> String {
    let running = Running::start(far, ServerOptions::default()).await;
    let sentence = refused(&running.link(near).await).await;
    let name = format!("tls://{} refuses: ", running.address);
    sentence.strip_prefix(&name).unwrap().to_owned()
}

#[tokio::test]
async fn another_ca_is_not_believed_in_either_direction() {
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let (near, far) = (one.named("h1"), other.named("h2"));
    let sentence = between(&near, &far).await;
    let ca = near.path().join("cacert.pem");
    assert_eq!(
        sentence,
        format!("its certificate is not of the CA in {}", ca.display())
    );

    // Believes the server, and is not believed.
    near.write("cacert.pem", &other.pem);
    let sentence = between(&near, &far).await;
    let ours = near.path().join("clientcert.pem");
    assert_eq!(
        sentence,
        format!(
            "it does not know the CA of this host's certificate {}",
            ours.display()
        )
    );
}

#[tokio::test]
async fn expired_certificates_are_of_no_use() {
    let authority = Authority::new("ca");
    let good = authority.named("h1");
    let expired = authority.host(&Says {
        until: 2021,
        ..Says::default()
    });
    assert_eq!(
        between(&good, &expired).await,
        "its certificate has expired"
    );
    let sentence = between(&expired, &good).await;
    assert!(sentence.contains("has expired; see whether"), "{sentence}");
}

#[tokio::test]
async fn a_certificate_is_for_its_end_only() {
    let authority = Authority::new("ca");
    let good = authority.named("h1");
    let only = |purpose: &[ExtendedKeyUsagePurpose]| {
        authority.host(&Says {
            purposes: purpose,
            ..Says::default()
        })
    };
    let client = only(&[ExtendedKeyUsagePurpose::ClientAuth]);
    let server = only(&[ExtendedKeyUsagePurpose::ServerAuth]);
    let sentence = between(&good, &client).await;
    assert_eq!(sentence, "its certificate is not one for servers");
    let sentence = between(&server, &good).await;
    assert!(sentence.contains("clientcert.pem"), "{sentence}");
    // One without purposes is good for both, as certtool makes them without being asked.
    let any = only(&[]);
    let running = Running::start(&any, ServerOptions::default()).await;
    running.link(&any).await.connect().await.unwrap();
}

#[tokio::test]
async fn revoked_certificates_are_of_no_use() {
    let authority = Authority::new("ca");
    let good = authority.named("h1");
    let revoked = authority.host(&Says {
        cn: "h2",
        serial: 99,
        ..Says::default()
    });
    good.write("cacrl.pem", &authority.revoke(99));
    let sentence = between(&good, &revoked).await;
    assert_eq!(sentence, "its certificate was revoked");
    let sentence = between(&revoked, &good).await;
    assert!(sentence.ends_with("was revoked"), "{sentence}");
    let running = Running::start(&good, ServerOptions::default()).await;
    running.link(&good).await.connect().await.unwrap();
}

#[tokio::test]
async fn names_that_are_not_allowed_are_refused_in_both_directions() {
    let authority = Authority::new("ca");
    let near = authority.named("h1");
    let far = authority.host(&Says {
        cn: "h2",
        alternatives: &["h2.example.org", "192.0.2.2"],
        ..Says::default()
    });
    let mut options = ServerOptions::default();
    options.allowed = ["C=GB,O=Red Hat,CN=h[12]", "*CN=h3"].into_iter().collect();
    let running = Running::start(&far, options).await;
    let sentence = refused(&running.link(&near).await).await;
    assert!(
        sentence.ends_with("refuses: it does not allow C=GB,O=Red Hat,CN=h1"),
        "{sentence}"
    );

    let mut options = ServerOptions::default();
    options.allowed = ["C=GB,O=Red Hat,CN=h?"].into_iter().collect();
    let running = Running::start(&far, options).await;
    let allowed = |pattern: &str| ExpectedPeer::Allowed(AllowedNames::from_iter([pattern]));
    let named = |name: &str| ExpectedPeer::Named(name.to_owned());
    for expected in [
        named("C=GB,O=Red Hat,CN=h2"),
        named("h2"),
        named("h2.example.org"),
        named("192.0.2.2"),
        allowed("*.example.org"),
        allowed("h2"),
        allowed("C=GB,*"),
    ] {
        let link = running.link_to(&near, expected.clone()).await;
        assert!(link.connect().await.is_ok(), "{expected:?}");
    }
    for expected in [
        named("h*"),
        named(""),
        named("127.0.0.1"),
        allowed("*.example.com"),
    ] {
        let sentence = refused(&running.link_to(&near, expected.clone()).await).await;
        assert!(
            sentence.ends_with(
                "its certificate is that of C=GB,O=Red Hat,CN=h2, which is not expected here"
            ),
            "{sentence}"
        );
    }
}

#[tokio::test]
async fn a_client_needs_a_certificate_and_the_protocol() {
    let authority = Authority::new("ca");
    let (near, far) = (authority.named("h1"), authority.named("h2"));
    let running = Running::start(&far, ServerOptions::default()).await;
    let ours: &[&[u8]] = &[b"logchain-agent"];
    for (has_certificate, protocols) in [(false, ours), (true, &[]), (true, &[b"http/1.1"])] {
        // In TLS 1.3 a client is done before the server has seen its certificate.
        let connected = raw::connect(running.address, &near, has_certificate, protocols).await;
        if let Ok(mut stream) = connected {
            let _ = stream.write_all(raw::GREETING).await;
            assert_eq!(raw::rest(&mut stream).await, b"", "{has_certificate}");
        }
    }
    running.link(&near).await.connect().await.unwrap();
}

#[tokio::test]
async fn what_answers_may_be_something_else() {
    let authority = Authority::new("ca");
    let near = authority.named("h1");
    let expected = || ExpectedPeer::Allowed(AllowedNames::any());
    type Answering = (&'static [&'static [u8]], &'static [u8], &'static str);
    let services: [Answering; 3] = [
        // A libvirtd with a certificate of the same CA.
        (&[][..], &b""[..], "what answers there is no logchain agent"),
        (
            &[b"http/1.1"],
            b"",
            "what answers there is no logchain agent",
        ),
        (
            &[b"logchain-agent"],
            b"logchain-agent 2-3\n",
            "the other logchain speaks version 2-3, this one version 1; bring both to one release",
        ),
    ];
    for (protocols, says, sentence) in services {
        let (address, task) = raw::server(&near, protocols, says).await;
        let link = crate::agent::link(address, &near, expected()).await;
        let said = refused(&link).await;
        assert_eq!(said, format!("{link} refuses: {sentence}"));
        task.abort();
    }

    // And nothing may.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let link = crate::agent::link(address, &near, expected()).await;
    let error = link.connect().await.unwrap_err();
    assert_eq!(error.advice(), Advice::Retry);
    assert!(error.to_string().contains("no agent listens"), "{error}");
}

#[tokio::test]
async fn files_that_are_of_no_use_are_named() {
    let authority = Authority::new("ca");
    let host = authority.named("h1");
    let say = async |name: &str, text: &str| {
        let path = host.path().join(name);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        host.write(name, text);
        let client = ClientCredentials::load(host.pki(), Notice::default()).await;
        let client = client.unwrap_err().to_string();
        let server = Server::bind(
            "127.0.0.1:0".parse().unwrap(),
            host.pki(),
            ServerOptions::default(),
            std::sync::Arc::new(logchain_core::transport::MemoryTransport::new()),
            std::sync::Arc::new(Agent::default()),
        );
        if name == "cacert.pem" {
            assert!(matches!(server.await, Err(BindError::Pki(e)) if e.to_string() == client));
        }
        host.write(name, &before);
        let path = format!("{}: ", path.display());
        client.strip_prefix(&path).unwrap_or(&client).to_owned()
    };
    let other = authority.issue(&Says::default());
    assert_eq!(say("cacert.pem", "").await, "it has no certificate");
    let damaged = &authority.pem[..authority.pem.len() / 2];
    let damaged = say("cacert.pem", damaged).await;
    assert!(damaged.starts_with("it is damaged"), "{damaged}");
    let (certificate, key) = (
        host.path().join("clientcert.pem"),
        host.path().join("clientkey.pem"),
    );
    let mixed = format!(
        "{}: it does not belong to the key in {}",
        certificate.display(),
        key.display()
    );
    assert_eq!(say("clientkey.pem", &other.1).await, mixed);
    assert_eq!(
        say("clientkey.pem", &other.0).await,
        "it has no key that is not encrypted"
    );
    let large = "x".repeat(2 << 20);
    assert_eq!(say("clientcert.pem", &large).await, "it is too large");
    let crl = say(
        "cacrl.pem",
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    )
    .await;
    assert!(!crl.is_empty());
    std::fs::remove_file(host.path().join("cacert.pem")).unwrap();
    let missing = ClientCredentials::load(host.pki(), Notice::default()).await;
    let missing = missing.unwrap_err();
    assert!(missing.path().ends_with("cacert.pem"));
    assert!(missing.to_string().contains("No such file"), "{missing}");
}

#[tokio::test]
async fn a_certificate_may_stand_with_those_between_it_and_the_ca() {
    let root = Authority::new("root");
    let between = Authority::under("between", &root);
    let host = root.named("h1");
    let (certificate, key) = between.issue(&Says::default());
    for end in ["server", "client"] {
        host.write(&format!("{end}key.pem"), &key);
        host.write(&format!("{end}cert.pem"), &certificate);
    }
    let running = Running::start(&host, ServerOptions::default()).await;
    let alone = refused(&running.link(&host).await).await;
    assert!(alone.contains("is not of the CA"), "{alone}");

    for end in ["server", "client"] {
        let chain = format!("{certificate}{}", between.pem);
        host.write(&format!("{end}cert.pem"), &chain);
    }
    running.link(&host).await.connect().await.unwrap();
}
