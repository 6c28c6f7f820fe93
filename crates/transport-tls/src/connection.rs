//! One connection to the server: from the handshake to what the peer may do.
//!
//! Must not know: how many there are, how they come.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::transport::{Error, Key, LogTransport, Result};
use logchain_transport_wire::{Access, Handler, Outcome};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::protocol::{ALPN, refusal};
use crate::{MAX_MESSAGE, Peer, PeerNames, Service, socket};

/// How long a peer that is turned away may take to read why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The handshake: who is there.
pub(crate) async fn accept(
    stream: TcpStream,
    remote: SocketAddr,
    config: Arc<ServerConfig>,
) -> io::Result<(TlsStream<TcpStream>, Peer)> {
    socket::prepare(&stream)?;
    let local = stream.local_addr()?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        return Err(io::Error::other("it asks for another protocol"));
    }
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("it has no certificate"))?;
    let names = PeerNames::of_der(certificate).map_err(io::Error::other)?;
    Ok((stream, Peer::new(names, remote, local)))
}

/// Tells a peer why it is turned away, and waits until it has read that.
pub(crate) async fn turn_away(mut stream: TlsStream<TcpStream>, outcome: Outcome, sentence: &str) {
    let say = async {
        stream.write_all(&refusal(outcome, sentence)).await?;
        stream.shutdown().await?;
        // Closing a socket with unread bytes could take the sentence back.
        let mut rest = [0; 1024];
        for _ in 0..8 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // Whoever does not listen learns nothing.
    let _ = timeout(LAST_WORDS, say).await;
}

/// What a peer that was let in may do.
pub(crate) struct PeerHandler {
    pub(crate) peer: Peer,
    pub(crate) spool: Arc<dyn LogTransport>,
    pub(crate) service: Arc<dyn Service>,
}

impl PeerHandler {
    fn denied(&self, reason: &str) -> Error {
        Error::Denied {
            transport: self.spool.to_string(),
            reason: reason.to_owned(),
        }
    }
}

#[async_trait]
impl Handler for PeerHandler {
    fn transport(&self) -> &dyn LogTransport {
        &*self.spool
    }

    fn authorise(&self, access: &Access<'_>) -> Result<()> {
        if access.domain().is_none() {
            return Err(self.denied("a listing is of one domain"));
        }
        let authorised = self.service.authorise(&self.peer, access);
        authorised.map_err(|refusal| refusal.into_error(self.spool.to_string()))
    }

    fn stored(&self, key: &Key) {
        self.service.stored(&self.peer, key);
    }

    async fn message(&self, message: Bytes) -> Result<Bytes> {
        let answer = self.service.ask(&self.peer, message).await;
        let answer = answer.map_err(|refusal| refusal.into_error(self.spool.to_string()))?;
        match answer.len() <= MAX_MESSAGE {
            true => Ok(answer),
            false => Err(self.denied("the answer is too long")),
        }
    }
}
