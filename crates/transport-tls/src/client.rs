//! The near side: one warm connection to another host's agent.
//!
//! Must not know: what is asked of the agent.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::transport::{ByteStream, Entry, Error, Key, LogTransport, Prefix, Result};
use logchain_transport_wire::{Client, Dial, DialFailure as _, Link, shake_hands};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::debug;

use crate::failure::Failure;
use crate::protocol::{ALPN, PROTOCOL, read_refusal};
use crate::{ClientCredentials, ExpectedPeer, Peer, PeerAddress, PeerNames, socket};

/// Addresses of one host that are tried.
const ADDRESSES: usize = 4;

/// How a [`PeerLink`] waits.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LinkOptions {
    /// How long connecting and both handshakes may take.
    pub connect: Duration,
    /// How long nothing may move while an answer is awaited: then the connection counts as lost.
    /// Longer than [`ServerOptions::message`](crate::ServerOptions::message) of the other side.
    pub quiet: Duration,
    /// How long a message may take until it is answered, connecting and all.
    pub message: Duration,
    /// How long one of the four verbs may take, however its bytes trickle.
    pub verb: Duration,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            quiet: Duration::from_secs(60),
            message: Duration::from_secs(60),
            verb: Duration::from_secs(300),
        }
    }
}

/// One connection to another host's agent. It is made when something is asked for the first
/// time, and stays; where it broke, the next request makes it anew, after a pause that grows
/// where that was of no use.
///
/// A request under way when the connection breaks fails with
/// [`Error::Unreachable`], and it is not known
/// whether the other side did it.
/// [`put_same`](logchain_core::transport::LogTransportExt::put_same) puts again without harm;
/// an agent's messages have to bear being said twice.
pub struct PeerLink {
    name: String,
    client: Client<TlsDial>,
    options: LinkOptions,
}

impl PeerLink {
    /// A link to the agent at this address. Nothing is connected yet.
    #[must_use]
    pub fn new(
        address: PeerAddress,
        credentials: ClientCredentials,
        expected: ExpectedPeer,
        options: LinkOptions,
    ) -> Self {
        let name = format!("tls://{address}");
        let dial = TlsDial {
            address,
            credentials,
            expected,
            limit: options.connect,
            peer: Mutex::new(None),
        };
        let client = Client::new(name.clone(), dial, options.quiet);
        Self {
            name,
            client,
            options,
        }
    }

    /// Sees to it that there is a connection, and says who is at its other end.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or
    /// [`Error::Denied`] with a sentence that an
    /// operator can act on.
    pub async fn connect(&self) -> Result<Peer> {
        let broke = || Failure::broke().into_error(self.name.clone());
        let connected = self.client.connect().await;
        connected.map_err(|failure| failure.into_error(self.name.clone()))?;
        self.peer().ok_or_else(broke)
    }

    /// Who was at the other end of the last connection, if there was one.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        let peer = &self.client.dial().peer;
        peer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the link leads.
    #[must_use]
    pub fn address(&self) -> &PeerAddress {
        &self.client.dial().address
    }

    /// Asks the other agent, with a message of at most [`MAX_MESSAGE`](crate::MAX_MESSAGE) bytes;
    /// its answer has at most as many.
    ///
    /// # Errors
    /// As other transports have them; a refusal is
    /// [`Error::Denied`], or what the other
    /// [`Service`](crate::Service) chose.
    pub async fn ask(&self, message: Bytes) -> Result<Bytes> {
        let limit = self.options.message;
        self.within(limit, self.client.ask(message)).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match timeout(limit, request).await {
            Ok(done) => done,
            Err(_) => Err(Error::Timeout {
                transport: self.name.clone(),
                reason: format!("it did not come to an end within {} s", limit.as_secs_f64()),
            }),
        }
    }
}

impl fmt::Display for PeerLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for PeerLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerLink({self})")
    }
}

#[async_trait]
impl LogTransport for PeerLink {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let request = self.client.put(key, data);
        self.within(self.options.verb, request).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let request = self.client.get(key, range);
        self.within(self.options.verb, request).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let request = self.client.list(prefix, after);
        self.within(self.options.verb, request).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let request = self.client.delete(key);
        self.within(self.options.verb, request).await
    }
}

/// How a connection to an agent is made.
struct TlsDial {
    address: PeerAddress,
    credentials: ClientCredentials,
    expected: ExpectedPeer,
    limit: Duration,
    peer: Mutex<Option<Peer>>,
}

impl Dial for TlsDial {
    type Failure = Failure;

    async fn dial(&self) -> std::result::Result<Link, Failure> {
        match timeout(self.limit, self.open()).await {
            Ok(opened) => opened,
            Err(_) => {
                let secs = self.limit.as_secs_f64();
                let sentence = format!("there was no handshake within {secs} s");
                Err(Failure::unreachable(sentence))
            }
        }
    }
}

impl TlsDial {
    async fn open(&self) -> std::result::Result<Link, Failure> {
        let pki = self.credentials.0.pki();
        let config = self.credentials.0.current().await;
        let stream = self.connect().await?;
        let addresses = stream
            .peer_addr()
            .and_then(|r| Ok((r, stream.local_addr()?)));
        let (remote, local) = addresses.map_err(|e| unreachable(&e))?;
        // Not sent, and not compared with: the certificate is judged by its names alone.
        let dialled = ServerName::IpAddress(remote.ip().into());
        let connected = TlsConnector::from(config).connect(dialled, stream).await;
        let stream = connected.map_err(|e| Failure::handshake(&e, pki))?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(ALPN) {
            return Err(Failure::other_service());
        }
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(Failure::other_service)?;
        let names =
            PeerNames::of_der(certificate).map_err(|e| Failure::denied(format!("its {e}")))?;
        if !self.expected.is(&names) {
            let sentence =
                format!("its certificate is that of {names}, which is not expected here");
            return Err(Failure::denied(sentence));
        }
        let (output, input) = tokio::io::split(stream);
        let mut seen = Vec::new();
        let streams = match shake_hands(output, input, PROTOCOL, &mut seen).await {
            Ok(streams) => streams,
            Err(e) => {
                return Err(match read_refusal(&seen) {
                    Some((outcome, sentence)) => Failure::of(outcome, sentence),
                    None => Failure::handshake(&e, pki),
                });
            }
        };
        let peer = Peer::new(names, remote, local);
        debug!(%peer, "connected to an agent");
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        let why = async { "the connection broke".to_owned() };
        Ok(Link::start(streams, why))
    }

    /// To the first address that answers.
    async fn connect(&self) -> std::result::Result<TcpStream, Failure> {
        let (host, port) = (self.address.host(), self.address.port());
        let found = tokio::net::lookup_host((host, port)).await.map_err(|_| {
            Failure::unreachable(format!("this machine finds no address for {host}"))
        })?;
        let found: Vec<SocketAddr> = found.take(ADDRESSES).collect();
        // One that does not answer leaves time for the others.
        let tries = u32::try_from(found.len()).unwrap_or(1).max(1);
        let each = self.limit / tries;
        let mut last = unreachable(&io::Error::other("it has no address"));
        for address in found {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    socket::prepare(&stream).map_err(|e| unreachable(&e))?;
                    return Ok(stream);
                }
                Ok(Err(e)) => last = unreachable(&e),
                Err(_) => last = Failure::unreachable("nothing answers there"),
            }
        }
        Err(last)
    }
}

fn unreachable(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            Failure::unreachable("no agent listens there, or a firewall refuses")
        }
        _ => Failure::unreachable(error.to_string()),
    }
}
