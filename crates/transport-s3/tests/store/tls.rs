//! A store of one's own, with an authority of one's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_core::transport::{Advice, Error, LogTransport, LogTransportExt};
use logchain_transport_s3::{StoreOptions, StoreTransport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::moto::{BUCKET, Moto};
use crate::{any_key, bytes};

/// An authority, and certificates that it issued.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab -keyout ca-key.pem \
             -out ca.pem -addext keyUsage=critical,keyCertSign",
        );
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, line: &str) {
        let mut command = Command::new("openssl");
        command
            .args(line.split_whitespace())
            .current_dir(self.0.path());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "openssl {line}: {said}");
    }

    /// Chain and key of a server; valid until `ends`, in openssl's form.
    fn issue(&self, names: &str, ends: &str) -> (PathBuf, PathBuf) {
        let extensions = format!("subjectAltName={names}\nextendedKeyUsage=serverAuth\n");
        std::fs::write(self.path("extensions"), extensions).unwrap();
        std::fs::write(self.path("index.txt"), "").unwrap();
        std::fs::write(
            self.path("ca.cnf"),
            "[ca]\ndefault_ca=a\n[a]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\n\
             default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n",
        )
        .unwrap();
        self.openssl(
            "req -newkey rsa:2048 -nodes -subj /CN=store -keyout key.pem -out request.pem",
        );
        self.openssl(&format!(
            "ca -batch -notext -config ca.cnf -in request.pem -cert ca.pem -keyfile ca-key.pem \
             -extfile extensions -out store.pem -startdate 20200101000000Z -enddate {ends}"
        ));
        (self.path("store.pem"), self.path("key.pem"))
    }
}

const VALID: &str = "20991231235959Z";
const LOCAL: &str = "IP:127.0.0.1";

/// TLS before a server that has none.
struct Encrypted {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Encrypted {
    async fn before(server: SocketAddr, (chain, key): (PathBuf, PathBuf)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let chain = CertificateDer::pem_file_iter(chain).unwrap();
        let chain: Vec<_> = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that trusts nobody here goes away.
                    let Ok(mut client) = acceptor.accept(client).await else {
                        return;
                    };
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, task }
    }

    fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn open(url: &str, endpoint: &str, more: &[(&str, &Path)]) -> Result<StoreTransport, Error> {
    let options = StoreOptions {
        patience: Duration::from_secs(20),
        ..StoreOptions::default()
    };
    let known = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let more = more
        .iter()
        .map(|(name, path)| (*name, path.to_str().unwrap()));
    let environment = known.into_iter().chain(more);
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    StoreTransport::open_in(&url.parse().unwrap(), &options, environment)
}

fn store() -> String {
    format!("s3://{BUCKET}/p")
}

/// Never a bare "error sending request", and never tried for long.
async fn refused(transport: StoreTransport, words: &[&str]) {
    let started = Instant::now();
    let error = transport.probe().await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert_eq!(error.advice(), Advice::Fix);
    for word in words {
        assert!(said.contains(word), "{word:?} in {said:?}");
    }
    assert!(!said.contains('\n') && said.len() < 300, "{said}");
    assert!(started.elapsed() < Duration::from_secs(15), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_named_is_trusted() {
    let moto = Moto::start();
    let authority = Authority::new();
    let server = Encrypted::before(moto.address, authority.issue(LOCAL, VALID)).await;
    let bundle = authority.path("ca.pem");
    let transport = open(&store(), &server.endpoint(), &[("AWS_CA_BUNDLE", &bundle)]).unwrap();
    transport.probe().await.unwrap();
    let key = any_key();
    transport.put(&key, bytes(1, 100_000)).await.unwrap();
    let got = transport.get_bytes(&key, 1 << 20).await.unwrap();
    assert!(got == bytes(1, 100_000));

    let stranger = open(&store(), &server.endpoint(), &[]).unwrap();
    refused(stranger, &["authority that is not known", "AWS_CA_BUNDLE"]).await;
    let other = Authority::new().path("ca.pem");
    let gone = open(&store(), &server.endpoint(), &[("AWS_CA_BUNDLE", &other)]);
    let said = gone.unwrap_err().to_string();
    assert!(
        said.contains("AWS_CA_BUNDLE") && said.contains(other.to_str().unwrap()),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_certificate_is_said() {
    let moto = Moto::start();
    let authority = Authority::new();
    let bundle = authority.path("ca.pem");
    let trusted = [("AWS_CA_BUNDLE", bundle.as_path())];
    for (names, ends, words) in [
        ("DNS:other.example", VALID, &["another name's"][..]),
        (LOCAL, "20200102000000Z", &["expired", "clock"]),
    ] {
        let server = Encrypted::before(moto.address, authority.issue(names, ends)).await;
        refused(open(&store(), &server.endpoint(), &trusted).unwrap(), words).await;
    }
    // One that signed itself, as openssl makes it, and as a server's.
    for (more, words) in [
        ("", &["authority's own", "issued"][..]),
        (
            "-addext basicConstraints=critical,CA:FALSE",
            &["authority that is not known"],
        ),
    ] {
        authority.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=self -keyout self-key.pem \
             -out self.pem -addext subjectAltName=IP:127.0.0.1 {more}"
        ));
        let itself = (authority.path("self.pem"), authority.path("self-key.pem"));
        let server = Encrypted::before(moto.address, itself).await;
        refused(open(&store(), &server.endpoint(), &trusted).unwrap(), words).await;
    }
    // What answers in plain text.
    let plain = format!("https://{}", moto.address);
    refused(
        open(&store(), &plain, &trusted).unwrap(),
        &["does not encrypt"],
    )
    .await;
}

#[test]
fn a_file_of_authorities_that_will_not_do_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (path, says) in [
        (folder.path().join("nothing"), "cannot read"),
        (folder.path().to_owned(), "no file of certificates"),
        (file("empty", ""), "no certificate in"),
        (file("text", "not PEM\n"), "no certificate in"),
        (file("nonsense", nonsense), "no certificate in"),
    ] {
        for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
            let opened = open(&store(), "https://127.0.0.1:9", &[(variable, &path)]);
            let said = opened.unwrap_err().to_string();
            let named = path.to_str().unwrap();
            assert!(said.contains(variable) && said.contains(named), "{said}");
            assert!(said.contains(says), "{said}");
        }
    }
}

/// rustls reads the variable of this process, so it is another process's.
#[tokio::test(flavor = "multi_thread")]
async fn the_systems_authorities_are_replaced_where_that_is_asked() {
    const CHILD: &str = "LOGCHAIN_TEST_ENDPOINT";
    const NAME: &str = "tls::the_systems_authorities_are_replaced_where_that_is_asked";
    if let Ok(endpoint) = std::env::var(CHILD) {
        let transport = open(&store(), &endpoint, &[]).unwrap();
        transport.probe().await.unwrap();
        return;
    }
    let moto = Moto::start();
    let authority = Authority::new();
    let server = Encrypted::before(moto.address, authority.issue(LOCAL, VALID)).await;
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(CHILD, server.endpoint())
        .env("SSL_CERT_FILE", authority.path("ca.pem"))
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(child.status.success(), "{said}");
    let ran = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(ran.contains("1 passed"), "{ran}");
}
