//! Pure: whether a peer is the host that a domain comes from, or goes to.
//!
//! A certificate of the CA says which host a peer is, not what it has to do with a domain. The
//! kernel does: while a domain migrates, its QEMU has a connection to the other host, and the
//! address at its far end is one that only this host has. So a peer is believed about a domain
//! where it is at that address: it connects from there, its certificate names that address, or
//! whoever answers there has its name.
//!
//! What follows from it for a host whose certificate was stolen: it learns nothing of, and adds
//! nothing to, the log of a domain that does not migrate to or from that very host.
//!
//! Must not know: how addresses are seen, or links are made.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use logchain_transport_tls::{Peer, PeerNames};
use uuid::Uuid;

/// A peer that may offer a domain's logs, as it was when it was believed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    names: String,
    address: IpAddr,
}

impl Identity {
    pub(super) fn of(peer: &Peer) -> Self {
        Self {
            names: peer.names().to_string(),
            address: peer.remote().ip(),
        }
    }
}

/// Whether a peer is at one of the addresses, by itself.
pub(super) fn is_at(peer: &Peer, addresses: &BTreeSet<IpAddr>) -> bool {
    let named = peer.names().addresses().iter();
    addresses.contains(&peer.remote().ip())
        || named
            .copied()
            .any(|a| addresses.contains(&a.to_canonical()))
}

/// Whether two certificates are of one host: a host may have one for each end of a connection.
pub(super) fn is_same_host(one: &PeerNames, other: &PeerNames) -> bool {
    let common = |one: &[String], other: &[String]| {
        let mut names = one.iter().filter(|name| !name.is_empty());
        names.any(|name| other.iter().any(|o| o.eq_ignore_ascii_case(name)))
    };
    let all = |names: &PeerNames| {
        let names = [names.common_names(), names.dns_names()].concat();
        names.into_iter().collect::<Vec<String>>()
    };
    common(&all(one), &all(other))
}

/// What is known of the domains that came here.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    domains: HashMap<Uuid, ArrivalProof>,
}

/// What is known of how a domain came here.
#[derive(Clone, Debug, Default)]
struct ArrivalProof {
    /// Addresses that its QEMU, or the daemon, had connections to while it came.
    addresses: BTreeSet<IpAddr>,
    /// Who may offer its logs.
    believed: Vec<Identity>,
}

/// What to do about a peer that says that a domain left it for this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is believed.
    Believed,
    /// It is believed if it is, or answers at, one of these addresses.
    IfAt(BTreeSet<IpAddr>),
    /// Nobody saw the domain come, so nothing speaks for or against it.
    Unseen,
}

impl Arrivals {
    /// The domain comes: what was known of an earlier stay says nothing of this one.
    pub(super) fn begin(&mut self, domain: Uuid) {
        self.domains.insert(domain, ArrivalProof::default());
    }

    /// It left, or ended.
    pub(super) fn end(&mut self, domain: Uuid) {
        self.domains.remove(&domain);
    }

    /// These addresses were seen while the domain came.
    pub(super) fn saw(&mut self, domain: Uuid, addresses: impl IntoIterator<Item = IpAddr>) {
        if let Some(proof) = self.domains.get_mut(&domain) {
            let canonical = addresses.into_iter().map(|a| a.to_canonical());
            proof.addresses.extend(canonical);
        }
    }

    /// What speaks for this peer.
    pub(super) fn claim(&self, domain: Uuid, peer: &Identity) -> Claim {
        match self.domains.get(&domain) {
            None => Claim::Unseen,
            Some(proof) if proof.believed.contains(peer) => Claim::Believed,
            Some(proof) => Claim::IfAt(proof.addresses.clone()),
        }
    }

    /// From now on the peer may offer the domain's logs. Of a domain that nobody saw come, only
    /// the first one may.
    pub(super) fn believe(&mut self, domain: Uuid, peer: Identity) {
        let proof = self.domains.entry(domain).or_default();
        if !proof.believed.contains(&peer) {
            proof.believed.push(peer);
        }
    }

    /// Whether the peer may offer the domain's logs.
    pub(super) fn may_offer(&self, domain: Uuid, peer: &Identity) -> bool {
        let proof = self.domains.get(&domain);
        proof.is_some_and(|proof| proof.believed.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, address: &str) -> Peer {
        let remote = format!("{address}:40000").parse().unwrap();
        let local = "192.0.2.1:16515".parse().unwrap();
        Peer::new(PeerNames::of_common_name(name), remote, local)
    }

    fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn a_peer_is_believed_where_the_migration_comes_from() {
        let domain = Uuid::from_u128(1);
        let (source, thief) = (peer("h1", "192.0.2.11"), peer("h3", "192.0.2.13"));
        let mut arrivals = Arrivals::default();
        arrivals.begin(domain);
        arrivals.saw(domain, addresses(&["192.0.2.11"]));
        let Claim::IfAt(seen) = arrivals.claim(domain, &Identity::of(&source)) else {
            panic!("it was not asked before");
        };
        assert!(is_at(&source, &seen) && !is_at(&thief, &seen));
        assert!(!arrivals.may_offer(domain, &Identity::of(&source)));
        arrivals.believe(domain, Identity::of(&source));
        assert!(arrivals.may_offer(domain, &Identity::of(&source)));
        assert!(!arrivals.may_offer(domain, &Identity::of(&thief)));
        // Neither the name nor the address alone is enough.
        for other in [peer("h1", "192.0.2.13"), peer("h3", "192.0.2.11")] {
            assert!(!arrivals.may_offer(domain, &Identity::of(&other)));
        }
        // The next stay begins with nothing.
        arrivals.begin(domain);
        assert!(!arrivals.may_offer(domain, &Identity::of(&source)));
        arrivals.end(domain);
        assert_eq!(
            arrivals.claim(domain, &Identity::of(&source)),
            Claim::Unseen
        );
    }

    #[test]
    fn of_a_domain_that_nobody_saw_come_one_peer_is_believed() {
        let domain = Uuid::from_u128(1);
        let (first, second) = (peer("h1", "192.0.2.11"), peer("h3", "192.0.2.13"));
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.claim(domain, &Identity::of(&first)), Claim::Unseen);
        arrivals.believe(domain, Identity::of(&first));
        let second = arrivals.claim(domain, &Identity::of(&second));
        assert_eq!(second, Claim::IfAt(BTreeSet::new()));
    }

    #[test]
    fn a_host_is_known_by_either_of_its_certificates() {
        let of = PeerNames::of_common_name;
        assert!(is_same_host(&of("h1.example.org"), &of("H1.example.org")));
        assert!(!is_same_host(&of("h1"), &of("h2")));
        assert!(!is_same_host(&of(""), &of("")));
    }
}
