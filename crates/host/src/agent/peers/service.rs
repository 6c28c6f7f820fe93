//! Answers what other agents ask, and decides what each may do with the spool.
//!
//! A peer may touch what belongs to one domain, while that domain is here, and once it is
//! [believed](super::proof) that the domain came from that peer. It reads there what it put
//! itself, and this host's answers to it.
//!
//! Must not know: connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::transport::Key;
use logchain_libvirt::peers::Direction;
use logchain_transport_tls::{Access, Peer, Refusal, Service};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::message::{Answer, Ask, Question};
use super::proof::{Claim, Evidence, Identity, hosts, is_at};
use super::{LOOK, Peers, look};
use crate::agent::stay::Stay;
use crate::blocking::blocking;

/// How many hosts are asked in turn whether a domain was at a certain one.
const FURTHER: u8 = 3;

/// Peers remembered at most that were refused for one domain.
const MOST_REFUSED: usize = 64;

/// How long the connection of a migration is waited for: its destination is asked about it as
/// soon as it begins.
const PROOF: Duration = Duration::from_secs(2);

pub(super) struct Doorman(pub(super) Arc<Peers>);

#[async_trait]
impl Service for Doorman {
    fn authorise(&self, peer: &Peer, access: &Access<'_>) -> Result<(), Refusal> {
        let domain = access.domain();
        let may = domain.is_some_and(|domain| {
            let identity = Identity::of(peer);
            let is_here = self.0.here.stay(domain).is_some();
            is_here && self.0.table().arrivals.may_offer(domain, &identity)
        });
        if may {
            return Ok(());
        }
        let verb = access.verb();
        tracing::warn!(%peer, %verb, ?domain, "a peer is refused what it may not do");
        Err(Refusal::denied(format!(
            "{} may not {verb} this: no domain is known to have come from there whose log it is",
            peer.names()
        )))
    }

    fn stored(&self, _: &Peer, _: &Key) {
        self.0.stored.send_modify(|n| *n = n.wrapping_add(1));
    }

    async fn ask(&self, peer: &Peer, message: Bytes) -> Result<Bytes, Refusal> {
        let question = Question::decode(&message).map_err(Refusal::denied)?;
        if is_this_host(peer) {
            // A list of all peers names this host as well.
            return Ok(Answer::new(false).encode());
        }
        let yes = match question.ask {
            Ask::Comes { domain, port } => self.does_it_leave(peer, domain, port),
            Ask::Leaves { domain } => self.does_it_come(peer, domain).await?,
            Ask::CameFrom {
                domain,
                names,
                address,
                further,
            } => self.was_it_there(domain, (&names, address), further).await,
        };
        Ok(Answer::new(yes).encode())
    }
}

impl Doorman {
    /// A peer says that a domain comes to it. That alone changes nothing: the domain is looked
    /// at, and whoever hands its log over asks that peer, and believes it on proof only.
    fn does_it_leave(&self, peer: &Peer, domain: Uuid, port: u16) -> bool {
        let Some((stay, _)) = self.0.here.stay(domain) else {
            return false;
        };
        let address = SocketAddr::new(peer.remote().ip(), port);
        {
            let mut table = self.0.table();
            let said = table.said.entry(domain).or_default();
            // One for each host, so that none can crowd out the others with its ports.
            said.retain(|other| other.ip() != address.ip());
            if said.len() < 8 {
                said.push(address);
            }
        }
        self.0.said.notify_waiters();
        let leaves = matches!(stay, Stay::Leaving { .. });
        if !leaves {
            // Where the queue is full, others are looked at already.
            let _ = self.0.words.try_send(domain);
        }
        leaves
    }

    /// A peer says that a domain leaves it, or left it. Whether it comes here, or is here, and
    /// comes from there.
    async fn does_it_come(&self, peer: &Peer, domain: Uuid) -> Result<bool, Refusal> {
        let identity = Identity::of(peer);
        let began = Instant::now();
        loop {
            let Some((stay, vm)) = self.0.here.stay(domain) else {
                return Ok(false);
            };
            let claim = self.0.table().arrivals.claim(domain, &identity);
            let mut evidence = match claim {
                Claim::Believed => return Ok(true),
                // It was here before this agent was.
                Claim::Unseen if self.0.here.came_unseen(domain) => {
                    tracing::info!(%peer, %domain, "believed, since nobody saw the domain come");
                    self.0.believe(&vm, identity).await;
                    return Ok(true);
                }
                // It came while this agent saw nothing.
                Claim::NothingSeen if stay == Stay::Running => {
                    tracing::info!(%peer, %domain, "believed, since nobody saw from where the domain came");
                    self.0.believe(&vm, identity).await;
                    return Ok(true);
                }
                Claim::Unseen | Claim::NothingSeen => Evidence::default(),
                Claim::IfAt(evidence) => evidence,
            };
            if stay == Stay::Coming {
                let seen = look(&vm, Direction::In).await;
                self.0.table().arrivals.saw(domain, &seen);
                evidence.saw(&seen);
            }
            let addresses = evidence.proven(stay != Stay::Coming);
            if is_at(peer, &addresses) || self.0.answers_at(peer, &addresses).await {
                self.0.believe(&vm, identity).await;
                return Ok(true);
            }
            if stay != Stay::Coming || began.elapsed() > PROOF {
                if stay == Stay::Running && self.is_vouched_for(domain, &identity).await {
                    tracing::info!(%peer, %domain, "believed, since the host that the domain came from had it from there");
                    self.0.believe(&vm, identity).await;
                    return Ok(true);
                }
                if self.refuses_first(domain, &identity) {
                    tracing::warn!(%peer, %domain, "a peer says that a domain came from it, and did not");
                }
                return Err(Refusal::denied(format!(
                    "domain {domain} is here, and no connection says that it came from {}",
                    peer.names()
                )));
            }
            sleep(LOOK).await;
        }
    }
}

impl Doorman {
    /// Whether this peer is told for the first time that the domain did not come from there.
    fn refuses_first(&self, domain: Uuid, identity: &Identity) -> bool {
        let mut table = self.0.table();
        let told = table.refused.entry(domain).or_default();
        if told.contains(identity) {
            return false;
        }
        if told.len() < MOST_REFUSED {
            told.push(identity.clone());
        }
        true
    }

    /// Whether the domain was at this peer before, as this host knows of an earlier stay, or as the
    /// host says from which it came: then the peer may have a part of the log that it could not
    /// hand over in time. That host had the memory of the guest, and hands its log over: what it
    /// says of the log is believed anyway.
    async fn is_vouched_for(&self, domain: Uuid, peer: &Identity) -> bool {
        let of = (peer.names(), peer.address());
        if self.was_it_there(domain, of, 0).await {
            return true;
        }
        let before = self.0.table().arrivals.predecessors(domain);
        self.0.ask_whether(domain, of, before, FURTHER).await
    }

    /// A peer has the domain, and asks whether that other host had it before it was here.
    async fn was_it_there(&self, domain: Uuid, of: (&str, IpAddr), further: u8) -> bool {
        let remembered = self.0.remembered.clone();
        let before = blocking(move || Ok(remembered.before(domain))).await;
        let Ok(Some(before)) = before else {
            return false;
        };
        let (names, address) = of;
        let address = address.to_canonical();
        let mut believed = before.believed.iter();
        if before.addresses.contains(&address) || believed.any(|b| b.names() == names) {
            return true;
        }
        let Some(further) = further.min(FURTHER).checked_sub(1) else {
            return false;
        };
        let hosts = hosts(&before.addresses, &before.believed);
        self.0.ask_whether(domain, of, hosts, further).await
    }
}

/// Whether the peer is this very host. It must not be believed where the first one is: no domain
/// comes here from here.
fn is_this_host(peer: &Peer) -> bool {
    peer.remote().ip().to_canonical() == peer.local().ip().to_canonical()
}

#[cfg(test)]
mod tests;
