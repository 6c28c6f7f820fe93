//! A TLS peer that is no logchain: for what a well-behaved one never does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::Host;

pub(crate) const GREETING: &[u8] = b"logchain-agent 1\n";

fn roots(host: &Host) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(host.path().join("cacert.pem")).unwrap();
    roots.add(ca).unwrap();
    roots
}

fn own(host: &Host) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_file(host.path().join("clientcert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(host.path().join("clientkey.pem")).unwrap();
    (vec![certificate], key)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) async fn connect(
    address: SocketAddr,
    host: &Host,
    has_certificate: bool,
    protocols: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(host));
    let mut config = match has_certificate {
        true => {
            let (chain, key) = own(host);
            config.with_client_auth_cert(chain, key).unwrap()
        }
        false => config.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// As an agent up to its greeting.
pub(crate) async fn greeted(address: SocketAddr, host: &Host) -> TlsStream<TcpStream> {
    let mut stream = connect(address, host, true, &[b"logchain-agent"])
        .await
        .unwrap();
    stream.write_all(GREETING).await.unwrap();
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, GREETING);
    stream
}

/// What comes until the other side ends, which has to be soon.
pub(crate) async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await;
    let _ = read.expect("the other side goes on");
    all
}

/// A server that greets each client with these bytes, and then is silent.
pub(crate) async fn server(
    host: &Host,
    protocols: &[&[u8]],
    says: &'static [u8],
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let (chain, key) = own(host);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = stream.write_all(says).await;
            let _ = stream.flush().await;
            streams.push(stream);
        }
    });
    (address, task)
}
