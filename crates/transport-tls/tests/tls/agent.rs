//! An agent for tests: what it lets in, what it was told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::ids::HandoffId;
use logchain_core::transport::{Key, LogTransport, MemoryTransport, ObjectName};
use logchain_transport_tls::{
    Access, AllowedNames, ClientCredentials, ExpectedPeer, LinkOptions, Notice, Peer, PeerLink,
    Refusal, Server, ServerOptions, Service,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::authority::Host;

/// The domain that nobody may touch.
pub(crate) const FORBIDDEN: Uuid = Uuid::from_u128(13);

#[derive(Default)]
pub(crate) struct Agent {
    pub(crate) stored: Mutex<Vec<(String, Key)>>,
}

#[async_trait]
impl Service for Agent {
    fn authorise(&self, peer: &Peer, access: &Access<'_>) -> Result<(), Refusal> {
        match access.domain() {
            Some(FORBIDDEN) => Err(Refusal::denied(format!(
                "{} may not {} here",
                peer.names(),
                access.verb()
            ))),
            _ => Ok(()),
        }
    }

    fn stored(&self, peer: &Peer, key: &Key) {
        let name = peer.names().to_string();
        self.stored.lock().unwrap().push((name, key.clone()));
    }

    async fn ask(&self, peer: &Peer, message: Bytes) -> Result<Bytes, Refusal> {
        match &*message {
            b"who am I" => Ok(peer.names().to_string().into()),
            b"never" => std::future::pending().await,
            b"later" => Err(Refusal::not_now("not before noon")),
            b"long" => Ok(vec![0; logchain_transport_tls::MAX_MESSAGE + 1].into()),
            _ => Ok(message),
        }
    }
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) agent: Arc<Agent>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    pub(crate) async fn start(host: &Host, options: ServerOptions) -> Self {
        let memory = Arc::new(MemoryTransport::new());
        Self::on("127.0.0.1:0".parse().unwrap(), host, options, memory).await
    }

    pub(crate) async fn on(
        address: SocketAddr,
        host: &Host,
        options: ServerOptions,
        spool: Arc<dyn LogTransport>,
    ) -> Self {
        let agent = Arc::new(Agent::default());
        let service = Arc::<Agent>::clone(&agent);
        let bound = Server::bind(address, host.pki(), options, spool, service).await;
        let server = bound.unwrap();
        let address = server.local_addr();
        let task = tokio::spawn(server.run(std::future::pending()));
        Self {
            address,
            agent,
            task,
        }
    }

    /// Stops it, and waits until its port is free.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    pub(crate) async fn link(&self, host: &Host) -> PeerLink {
        self.link_to(host, ExpectedPeer::Allowed(AllowedNames::any()))
            .await
    }

    pub(crate) async fn link_to(&self, host: &Host, expected: ExpectedPeer) -> PeerLink {
        link(self.address, host, expected).await
    }
}

pub(crate) async fn link(address: SocketAddr, host: &Host, expected: ExpectedPeer) -> PeerLink {
    link_with(address, host, expected, LinkOptions::default()).await
}

pub(crate) async fn link_with(
    address: SocketAddr,
    host: &Host,
    expected: ExpectedPeer,
    options: LinkOptions,
) -> PeerLink {
    let credentials = ClientCredentials::load(host.pki(), Notice::default()).await;
    PeerLink::new(address.into(), credentials.unwrap(), expected, options)
}

pub(crate) fn key_of(domain: Uuid) -> Key {
    Key {
        domain,
        console: "serial0".parse().unwrap(),
        collection: HandoffId::random().into(),
        object: ObjectName::Begin,
    }
}

pub(crate) fn key() -> Key {
    key_of(Uuid::from_u128(1))
}
