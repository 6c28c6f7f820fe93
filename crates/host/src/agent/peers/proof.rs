//! Pure: whether a peer is the host that a domain comes from, or goes to.
//!
//! A certificate of the CA says which host a peer is, not what it has to do with a domain. The
//! kernel does: while a domain migrates, its QEMU has a connection to the other host, and the
//! address at its far end is one that only this host has. So a peer is believed about a domain
//! where it is at that address: it connects from there, its certificate names that address, or
//! whoever answers there has its name.
//!
//! A connection to the libvirt daemon is a hint of whom to ask, and hardly a proof: every host that
//! migrates some other domain here has one, and so can have whoever reaches the daemon's port.
//! Where the connection of the memory was never seen, as with a migration that is tunnelled, it is
//! enough only once the guest has moved, and only where no second host has one.
//!
//! What follows from it for a host whose certificate was stolen: it learns nothing of, and adds
//! nothing to, the log of a domain that does not migrate to or from that very host.
//!
//! Must not know: how addresses are seen, or links are made.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use logchain_libvirt::peers::Trace;
use logchain_transport_tls::{Peer, PeerNames};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A peer that may offer a domain's logs, as it was when it was believed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Identity {
    names: String,
    address: IpAddr,
}

impl Identity {
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    pub(super) fn names(&self) -> &str {
        &self.names
    }

    pub(super) fn of(peer: &Peer) -> Self {
        Self {
            names: peer.names().to_string(),
            address: peer.remote().ip(),
        }
    }
}

/// Addresses that were seen while a domain migrated, and what speaks for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence(BTreeMap<IpAddr, Trace>);

impl Evidence {
    /// These were seen now.
    pub(super) fn saw(&mut self, seen: &[(IpAddr, Trace)]) {
        for (address, trace) in seen {
            let best = self.0.entry(address.to_canonical()).or_insert(*trace);
            *best = (*best).min(*trace);
        }
    }

    /// Whether nothing was seen.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The other host's addresses. `has_moved`: whether the guest has moved, so that the connection
    /// of its memory will not be seen any more.
    pub(super) fn proven(&self, has_moved: bool) -> BTreeSet<IpAddr> {
        let memory = self.of(Trace::Memory);
        if !memory.is_empty() || !has_moved {
            return memory;
        }
        let kinds = [Trace::Both, Trace::Daemon].map(|trace| self.of(trace));
        let strongest = kinds.into_iter().find(|found| !found.is_empty());
        strongest
            .filter(|found| found.len() == 1)
            .unwrap_or_default()
    }

    /// Where the domain is likely to have gone.
    pub(super) fn likeliest(&self) -> Option<IpAddr> {
        let by_trace = self.0.iter().min_by_key(|(_, trace)| **trace);
        by_trace.map(|(address, _)| *address)
    }

    fn of(&self, trace: Trace) -> BTreeSet<IpAddr> {
        let found = self.0.iter().filter(|(_, t)| **t == trace);
        found.map(|(address, _)| *address).collect()
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

/// The addresses of hosts that a domain came from: those that the kernel showed, and those of the
/// peers that are believed.
pub(super) fn hosts(addresses: &BTreeSet<IpAddr>, believed: &[Identity]) -> BTreeSet<IpAddr> {
    let believed = believed.iter().map(|peer| peer.address.to_canonical());
    addresses.iter().copied().chain(believed).collect()
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
    /// Whom its QEMU, or the daemon, had connections with while it came.
    evidence: Evidence,
    /// Who may offer its logs.
    believed: Vec<Identity>,
}

/// What to do about a peer that says that a domain left it for this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is believed.
    Believed,
    /// It is believed if it is, or answers at, one of the addresses that this proves.
    IfAt(Evidence),
    /// The domain came, and this agent saw no connection meanwhile: it stood still, or was too slow.
    NothingSeen,
    /// Nobody saw the domain come, so nothing speaks for or against it.
    Unseen,
}

impl Arrivals {
    /// The domain comes: what was known of an earlier stay says nothing of this one.
    pub(super) fn begin(&mut self, domain: Uuid) {
        self.domains.insert(domain, ArrivalProof::default());
    }

    /// The hosts that the domain is known to have come from.
    pub(super) fn predecessors(&self, domain: Uuid) -> BTreeSet<IpAddr> {
        let known = self.known(domain).unwrap_or_default();
        hosts(&known.0, &known.1)
    }

    /// What is to be remembered of how a domain came: from which addresses, and who is believed.
    pub(super) fn known(&self, domain: Uuid) -> Option<(BTreeSet<IpAddr>, Vec<Identity>)> {
        let proof = self.domains.get(&domain)?;
        Some((proof.evidence.proven(true), proof.believed.clone()))
    }

    /// It came before this agent was started, and this is remembered of it.
    pub(super) fn restore(
        &mut self,
        domain: Uuid,
        addresses: BTreeSet<IpAddr>,
        believed: Vec<Identity>,
    ) {
        let evidence = addresses.into_iter().map(|a| (a, Trace::Memory));
        let evidence = Evidence(evidence.collect());
        let proof = ArrivalProof { evidence, believed };
        self.domains.insert(domain, proof);
    }

    /// It left, or ended.
    pub(super) fn end(&mut self, domain: Uuid) {
        self.domains.remove(&domain);
    }

    /// These connections were seen while the domain came.
    pub(super) fn saw(&mut self, domain: Uuid, seen: &[(IpAddr, Trace)]) {
        if let Some(proof) = self.domains.get_mut(&domain) {
            proof.evidence.saw(seen);
        }
    }

    /// What speaks for this peer.
    pub(super) fn claim(&self, domain: Uuid, peer: &Identity) -> Claim {
        match self.domains.get(&domain) {
            None => Claim::Unseen,
            Some(proof) if proof.believed.contains(peer) => Claim::Believed,
            Some(proof) if proof.evidence.is_empty() && proof.believed.is_empty() => {
                Claim::NothingSeen
            }
            Some(proof) => Claim::IfAt(proof.evidence.clone()),
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
        let claim = arrivals.claim(domain, &Identity::of(&source));
        assert_eq!(claim, Claim::NothingSeen);
        arrivals.saw(domain, &[("192.0.2.11".parse().unwrap(), Trace::Memory)]);
        let Claim::IfAt(seen) = arrivals.claim(domain, &Identity::of(&source)) else {
            panic!("it was not asked before");
        };
        let seen = seen.proven(false);
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
        assert_eq!(second, Claim::IfAt(Evidence::default()));
    }

    #[test]
    fn a_connection_to_the_daemon_is_next_to_nothing() {
        let memory = ("192.0.2.11".parse().unwrap(), Trace::Memory);
        let daemon = |a: &str| (a.parse().unwrap(), Trace::Daemon);
        let evidence = |seen: &[(IpAddr, Trace)]| {
            let mut evidence = Evidence::default();
            evidence.saw(seen);
            evidence
        };
        // Before the memory flows nobody can tell whose connection it is.
        let thief = evidence(&[daemon("192.0.2.13")]);
        assert_eq!(thief.proven(false), BTreeSet::new());
        // Beside the memory it counts for nothing, seen before or after.
        for seen in [
            [daemon("192.0.2.13"), memory],
            [memory, daemon("192.0.2.13")],
        ] {
            for has_moved in [false, true] {
                let proven = evidence(&seen).proven(has_moved);
                assert_eq!(proven, addresses(&["192.0.2.11"]));
            }
        }
        // Tunnelled: in the end one host alone is believed, and of two none.
        let tunnelled = evidence(&[daemon("192.0.2.11")]);
        assert_eq!(tunnelled.proven(true), addresses(&["192.0.2.11"]));
        let two = evidence(&[daemon("192.0.2.11"), daemon("192.0.2.13")]);
        assert_eq!(two.proven(true), BTreeSet::new());
        // The connection of the memory is remembered, whatever is seen of the address later.
        let mut evidence = evidence(&[memory]);
        evidence.saw(&[daemon("192.0.2.11")]);
        assert_eq!(evidence.proven(false), addresses(&["192.0.2.11"]));
    }

    #[test]
    fn a_host_is_known_by_either_of_its_certificates() {
        let of = PeerNames::of_common_name;
        assert!(is_same_host(&of("h1.example.org"), &of("H1.example.org")));
        assert!(!is_same_host(&of("h1"), &of("h2")));
        assert!(!is_same_host(&of(""), &of("")));
    }
}
