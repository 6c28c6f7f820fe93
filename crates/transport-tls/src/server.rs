//! Listens for other hosts' agents, and serves those that are let in.
//!
//! Must not know: what the service decides, what is asked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use logchain_core::transport::LogTransport;
use logchain_transport_wire::{Outcome, ServeOptions, serve};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, debug, debug_span, info, warn};

use crate::admission::{Admission, TooMany};
use crate::connection::{PeerHandler, accept, turn_away};
use crate::credentials::{Credentials, Notice};
use crate::pki::{Pki, PkiError};
use crate::protocol::PROTOCOL;
use crate::{AllowedNames, Service};

/// Pause where no connection can be accepted, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// The bounds of a [`Server`], and whom it lets in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The names that a peer may have.
    pub allowed: AllowedNames,
    /// How long a connection may take to show who it is and to greet.
    pub handshake: Duration,
    /// Connections that have not shown yet who they are, in all …
    pub handshakes: usize,
    /// … and from one address. What comes beyond either is closed at once.
    pub handshakes_of_one: usize,
    /// Connections in all …
    pub connections: usize,
    /// … and of one certificate's subject: more where hosts share a certificate. What comes
    /// beyond either is told so, and closed.
    pub connections_of_one: usize,
    /// Bytes of requests that one connection may have under way.
    pub memory: usize,
    /// How long one frame of at most some 8 MiB may take, from its first byte to its last. A peer
    /// that is slower is cut off.
    pub frame: Duration,
    /// How long the service may take to answer a message.
    pub message: Duration,
    /// Who is told where changed certificates are of no use.
    pub notice: Notice,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            allowed: AllowedNames::any(),
            handshake: Duration::from_secs(10),
            handshakes: 64,
            handshakes_of_one: 8,
            connections: 64,
            connections_of_one: 8,
            memory: 16 << 20,
            frame: Duration::from_secs(120),
            message: Duration::from_secs(30),
            notice: Notice::default(),
        }
    }
}

/// Why a server cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Its certificates are of no use.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It cannot listen.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// Listens for other hosts' agents.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    credentials: Arc<Credentials<ServerConfig>>,
    options: ServerOptions,
    handshakes: Arc<Admission<IpAddr>>,
    connections: Arc<Admission<String>>,
    spool: Arc<dyn LogTransport>,
    service: Arc<dyn Service>,
}

impl Server {
    /// Reads the certificates and listens. Connections are accepted once it
    /// [runs](Self::run).
    ///
    /// # Errors
    /// [`BindError`] where it cannot.
    pub async fn bind(
        address: SocketAddr,
        pki: Pki,
        options: ServerOptions,
        spool: Arc<dyn LogTransport>,
        service: Arc<dyn Service>,
    ) -> Result<Self, BindError> {
        let credentials = Credentials::load(pki, options.notice.clone()).await?;
        let failed = |error| BindError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            credentials,
            handshakes: Admission::new(options.handshakes, options.handshakes_of_one),
            connections: Admission::new(options.connections, options.connections_of_one),
            options,
            spool,
            service,
        });
        Ok(Self {
            listener,
            address,
            shared,
        })
    }

    /// Where it listens: with the port that the system chose where none was given.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done. Then, and where this is dropped, all connections are closed;
    /// a request that had begun is still done, and nobody learns how it ended.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => {
                    let span = debug_span!("agent", %remote);
                    let shared = Arc::clone(&self.shared);
                    connections.spawn(shared.connection(stream, remote).instrument(span));
                }
                Err(error) => {
                    warn!(%error, "no connection can be accepted");
                    tokio::select! {
                        () = &mut stop => break,
                        () = sleep(PAUSE) => {}
                    }
                }
            }
        }
    }
}

impl Shared {
    async fn connection(self: Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        let Ok(handshake) = self.handshakes.enter(remote.ip().to_canonical()) else {
            debug!("too many handshakes at once: closed");
            return;
        };
        let accept = async {
            let config = self.credentials.current().await;
            accept(stream, remote, config).await
        };
        let (stream, peer) = match timeout(self.options.handshake, accept).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => {
                info!(%remote, %error, "a connection that failed to show who it is");
                return;
            }
            Err(_) => {
                debug!("no handshake in time");
                return;
            }
        };
        if !self.options.allowed.allow(peer.names()) {
            warn!(%peer, "a host that is not among those allowed");
            let sentence = format!("it does not allow {}", peer.names());
            return turn_away(stream, Outcome::Denied, &sentence).await;
        }
        let _place = match self.connections.enter(peer.names().to_string()) {
            Ok(place) => place,
            Err(too_many) => {
                warn!(%peer, ?too_many, "too many connections");
                let sentence = match too_many {
                    TooMany::OfOne(n) => format!("it serves {n} connections of this host already"),
                    TooMany::InAll(n) => format!("it serves {n} connections already"),
                };
                return turn_away(stream, Outcome::Unreachable, &sentence).await;
            }
        };
        drop(handshake);
        debug!(%peer, "serving");
        let mut options = ServeOptions::default();
        options.greet = self.options.handshake;
        options.memory = self.options.memory;
        options.frame = Some(self.options.frame);
        options.message = self.options.message;
        let handler = Arc::new(PeerHandler {
            peer,
            spool: Arc::clone(&self.spool),
            service: Arc::clone(&self.service),
        });
        let (input, output) = tokio::io::split(stream);
        match serve(handler, input, output, PROTOCOL, options).await {
            Ok(()) => debug!("the peer is done"),
            Err(error) => debug!(%error, "the connection ended"),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.address)
    }
}
