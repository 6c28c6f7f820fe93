//! Two agents on one machine: one puts a piece of a log into the other's spool, and asks it
//! something. With a folder of certificates (as below `~/.pki/libvirt`) it uses those:
//!
//! `cargo run -p logchain-transport-tls --example two_agents -- [FOLDER]`

#[expect(dead_code, clippy::unwrap_used, reason = "tests need more of it")]
#[path = "../tests/tls/authority.rs"]
mod authority;

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::ids::HandoffId;
use logchain_core::transport::{
    Key, LogTransport as _, LogTransportExt as _, MemoryTransport, ObjectName, Prefix,
};
use logchain_transport_tls::{
    Access, AllowedNames, ClientCredentials, ExpectedPeer, LinkOptions, Notice, Peer, PeerLink,
    Pki, Refusal, Server, ServerOptions, Service,
};
use uuid::Uuid;

/// An agent to which one domain comes.
struct Agent {
    comes: Uuid,
}

#[async_trait]
impl Service for Agent {
    fn authorise(&self, peer: &Peer, access: &Access<'_>) -> Result<(), Refusal> {
        if access.domain() == Some(self.comes) {
            return Ok(());
        }
        let (names, verb) = (peer.names(), access.verb());
        Err(Refusal::denied(format!(
            "{names} may not {verb}: that domain does not come from there"
        )))
    }

    fn stored(&self, peer: &Peer, key: &Key) {
        println!("{peer} put {}", key.object);
    }

    async fn ask(&self, peer: &Peer, message: Bytes) -> Result<Bytes, Refusal> {
        println!("{peer} asks {message:?}");
        Ok(Bytes::from_static(b"it may come"))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let authority = authority::Authority::new("example CA");
    let host = authority.named("h2.example.org");
    let pki = std::env::args().nth(1).map(Pki::in_folder);
    let pki = pki.unwrap_or_else(|| host.pki());

    let domain = Uuid::new_v4();
    let server = Server::bind(
        "127.0.0.1:0".parse()?,
        pki.clone(),
        ServerOptions::default(),
        Arc::new(MemoryTransport::new()),
        Arc::new(Agent { comes: domain }),
    )
    .await?;
    let address = server.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));

    let link = PeerLink::new(
        address.into(),
        ClientCredentials::load(pki, Notice::default()).await?,
        ExpectedPeer::Allowed(AllowedNames::any()),
        LinkOptions::default(),
    );
    println!("connected to {}", link.connect().await?);
    let answer = link.ask(Bytes::from_static(b"may it come?")).await?;
    println!("answered {answer:?}");

    let key = Key {
        domain,
        console: "serial0".parse()?,
        collection: HandoffId::random().into(),
        object: ObjectName::Chunk { offset: 0, len: 5 },
    };
    link.put_same(&key, Bytes::from_static(b"hello")).await?;
    let listed = link.list(&Prefix::Domain(domain), None).await?;
    println!("{} object is there", listed.len());
    let other = link.list(&Prefix::Domain(Uuid::new_v4()), None).await;
    println!("{}", other.err().ok_or("another domain was listed")?);

    drop(stop);
    running.await?;
    Ok(())
}
