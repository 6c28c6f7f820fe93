//! One warm connection to each peer.
//!
//! Must not know: what is asked over it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use logchain_transport_tls::{
    AllowedNames, ClientCredentials, ExpectedPeer, LinkOptions, Notice, PeerAddress, PeerLink, Pki,
};

use crate::{Error, Result};

/// Connections at most. Beyond that the one that was used least lately is given up.
const MOST: usize = 64;

pub(super) struct Links {
    credentials: ClientCredentials,
    allowed: AllowedNames,
    links: Mutex<HashMap<PeerAddress, (Arc<PeerLink>, Instant)>>,
}

impl Links {
    pub(super) async fn new(pki: Pki, allowed: AllowedNames) -> Result<Self> {
        let credentials = ClientCredentials::load(pki, Notice::default()).await;
        Ok(Self {
            credentials: credentials.map_err(|e| Error::Usage(e.to_string()))?,
            allowed,
            links: Mutex::default(),
        })
    }

    /// The link to this peer. It connects when it is used first.
    pub(super) fn to(&self, address: &PeerAddress) -> Arc<PeerLink> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((link, used)) = links.get_mut(address) {
            *used = Instant::now();
            return Arc::clone(link);
        }
        if links.len() >= MOST {
            let oldest = links.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(address, _)| address.clone()) {
                links.remove(&oldest);
            }
        }
        let expected = ExpectedPeer::Allowed(self.allowed.clone());
        let options = LinkOptions::default();
        let link = PeerLink::new(address.clone(), self.credentials.clone(), expected, options);
        let link = Arc::new(link);
        links.insert(address.clone(), (Arc::clone(&link), Instant::now()));
        link
    }

    /// Names of the peers that were at the other end of these links.
    pub(super) fn connected(&self) -> Vec<String> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let peers = links.values().filter_map(|(link, _)| link.peer());
        let mut names: Vec<String> = peers.map(|peer| peer.names().to_string()).collect();
        names.sort();
        names.dedup();
        names
    }
}
