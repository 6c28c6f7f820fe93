//! Agents that speak to each other over mutual TLS.
//!
//! - `message`: what they ask. `proof`: whom they believe, both pure.
//! - `remembered`: what outlasts this agent of whom it believes.
//! - `links`: one warm connection to each peer. `service`: answers what peers ask.
//!
//! The source pushes pieces into the spool of the destination's agent, which takes them in from
//! there. Each of the two looks for the other: the source asks whoever is at the far end of the
//! migration's connections, and so does the destination. Whichever is first is enough.

mod links;
mod message;
mod proof;
mod remembered;
mod service;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logchain_core::handoff::offer::Source;
use logchain_core::transport::{DirectoryTransport, LogTransport};
use logchain_libvirt::peers::{Direction, Trace, process_of, traces};
use logchain_transport_tls::{AllowedNames, PeerAddress, PeerLink, Pki, Server, ServerOptions};
use tokio::net::lookup_host;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::Vm;
use super::config::{self, Reloadable};
use super::here::{Arrival, Here};
use crate::blocking::blocking;
use crate::{Error, Result, Stop};
use links::Links;
use message::{Answer, Ask, Question};
use proof::{Arrivals, Evidence, Identity};
use remembered::{Arrived, Remembered};
use service::Doorman;

/// Between two looks for the other host, at first: it is wanted before the guest stops.
const LOOK: Duration = Duration::from_millis(25);

/// The same for a migration that takes longer: each look costs a little.
const LATER: Duration = Duration::from_millis(250);

/// How long at first lasts.
const AT_FIRST: Duration = Duration::from_secs(2);

fn pace(since: Duration) -> Duration {
    if since < AT_FIRST { LOOK } else { LATER }
}

/// Between two questions to one peer about one domain.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How long a peer may take for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// After this time without a trace of the other host every peer that is configured is asked.
const ASK_ALL: Duration = Duration::from_millis(300);

/// How long the destination is looked for after the guest has left.
const LATE: Duration = Duration::from_secs(5);

/// Words of peers that may wait to be looked at.
const WORDS: usize = 256;

/// All that is needed to speak to other agents.
pub(super) struct Peers {
    links: Links,
    spool: Arc<dyn LogTransport>,
    here: Here,
    port: u16,
    config: Arc<Reloadable>,
    table: Mutex<Table>,
    remembered: Remembered,
    /// A peer said something of a domain that leaves.
    said: Notify,
    /// Domains of which a peer says that they leave: they are to be looked at.
    words: mpsc::Sender<Uuid>,
    /// Something was put into the spool.
    stored: watch::Sender<u64>,
}

#[derive(Default)]
struct Table {
    arrivals: Arrivals,
    /// Where a domain that leaves goes, as peers say.
    said: HashMap<Uuid, Vec<SocketAddr>>,
    /// Who was told already that a domain did not come from there: they ask again and again.
    refused: HashMap<Uuid, Vec<Identity>>,
}

impl Peers {
    /// Listens. `here`: the domains of this host. Gives the domains of which peers say that they
    /// leave.
    pub(super) async fn start(
        config: &Arc<Reloadable>,
        here: Here,
        stop: Stop,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Uuid>)> {
        let current = config.current();
        let (state, tls) = (current.state.clone(), &current.meet.tls);
        let remembered = Remembered::of(&state);
        let (memory, mut table) = (remembered.clone(), Table::default());
        for (domain, arrived) in blocking(move || Ok(memory.all(process_of))).await? {
            let Arrived {
                addresses,
                believed,
                ..
            } = arrived;
            table.arrivals.restore(domain, addresses, believed);
        }
        let spool = blocking(move || Ok(DirectoryTransport::create(&state.join("peers"))?)).await?;
        let spool: Arc<dyn LogTransport> = Arc::new(spool);
        let allowed: AllowedNames = tls.allowed_names.iter().cloned().collect();
        let pki = pki(tls);
        let links = Links::new(pki.clone(), allowed.clone()).await?;
        let (words, told) = mpsc::channel(WORDS);
        let this = Arc::new(Self {
            links,
            spool: Arc::clone(&spool),
            here,
            port: tls.listen.port(),
            config: Arc::clone(config),
            table: Mutex::new(table),
            remembered,
            said: Notify::new(),
            words,
            stored: watch::Sender::new(0),
        });
        let mut options = ServerOptions::default();
        options.allowed = allowed;
        let service = Arc::new(Doorman(Arc::clone(&this)));
        let server = Server::bind(tls.listen, pki, options, spool, service);
        let server = server.await.map_err(|e| Error::Usage(e.to_string()))?;
        tokio::spawn(async move { server.run(stop.asked()).await });
        let warm = Arc::clone(&this);
        tokio::spawn(async move {
            for address in warm.configured().await {
                // Warm before it is needed. One that is away is tried again when it is.
                drop(warm.links.to(&address).connect().await);
            }
        });
        Ok((this, told))
    }

    /// Peers that are asked where no connection of the migration tells who the other host is.
    async fn configured(&self) -> Vec<PeerAddress> {
        let meet = self.config.current().meet.clone();
        // What is no address was refused when the configuration was read.
        let peers = meet.peers.iter().filter_map(|peer| peer.parse().ok());
        let mut peers: Vec<PeerAddress> = peers.collect();
        if let Some(name) = &meet.peers_dns {
            let found = timeout(ANSWER, lookup_host((name.as_str(), self.port))).await;
            if let Ok(Ok(found)) = found {
                peers.extend(found.map(PeerAddress::from));
            }
        }
        peers
    }

    /// Names of agents that answered when they were asked last.
    pub(super) fn connected(&self) -> Vec<String> {
        self.links.connected()
    }

    pub(super) fn spool(&self) -> Arc<dyn LogTransport> {
        Arc::clone(&self.spool)
    }

    /// Changes whenever a peer put something.
    pub(super) fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is one step, so a panic leaves no half of one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The domain is not here any more: who might offer its logs here may not any longer.
    pub(super) fn left(&self, domain: Uuid) {
        let mut table = self.table();
        table.arrivals.end(domain);
        table.said.remove(&domain);
        table.refused.remove(&domain);
        drop(table);
        let remembered = self.remembered.clone();
        drop(tokio::task::spawn_blocking(move || remembered.left(domain)));
    }

    /// Remembers for the next start of the agent whom to believe about a domain.
    async fn remember(&self, vm: &Vm) {
        let known = self.table().arrivals.known(vm.uuid);
        let Some(known) = known else {
            return;
        };
        let (remembered, vm) = (self.remembered.clone(), vm.clone());
        let write = blocking(move || {
            let Some(process) = process_of(&vm.name, vm.uuid) else {
                return Ok(());
            };
            let arrived = Arrived::new(&vm.name, process, known);
            let written = remembered.write(vm.uuid, &arrived);
            written.map_err(|source| Error::Io {
                action: format!("cannot remember from where {} came", vm.name),
                source,
            })
        });
        if let Err(e) = write.await {
            tracing::warn!(domain = %vm.uuid, error = %e.sentence(), "a restart will not know it");
        }
    }

    /// The domain comes: from now on it is seen from where.
    pub(super) fn comes(&self, domain: Uuid) {
        self.table().arrivals.begin(domain);
    }

    /// While a domain comes: remembers from where, and asks the hosts there whether it leaves
    /// them, so that they know that it comes here.
    pub(super) async fn announce(self: Arc<Self>, vm: Vm, arrival: watch::Receiver<Arrival>) {
        let began = Instant::now();
        let mut asked: HashMap<PeerAddress, Instant> = HashMap::new();
        let mut asking = JoinSet::new();
        let mut is_known = false;
        while *arrival.borrow() == Arrival::Coming {
            let seen = look(&vm, Direction::In).await;
            self.table().arrivals.saw(vm.uuid, &seen);
            let mut whom = self.addresses(seen.into_iter().map(|(a, _)| a));
            if whom.is_empty() && began.elapsed() > ASK_ALL {
                whom = self.configured().await;
            }
            for address in whom.into_iter().filter(|_| !is_known) {
                if asked
                    .get(&address)
                    .is_some_and(|at| at.elapsed() < ASK_AGAIN)
                {
                    continue;
                }
                asked.insert(address.clone(), Instant::now());
                let question = Ask::Comes {
                    domain: vm.uuid,
                    port: self.port,
                };
                let this = Arc::clone(&self);
                asking
                    .spawn(async move { this.ask(&address, question).await.is_ok_and(|yes| yes) });
            }
            while let Some(answer) = asking.try_join_next() {
                is_known |= answer.unwrap_or(false);
            }
            sleep(pace(began.elapsed())).await;
        }
        self.remember(&vm).await;
    }

    /// The link to the host to which a domain goes.
    pub(super) async fn towards(
        self: &Arc<Self>,
        vm: &Vm,
        source: watch::Receiver<Source>,
    ) -> Result<Arc<PeerLink>, NoWay> {
        let began = Instant::now();
        let mut over = None;
        let mut seen = Evidence::default();
        let mut asked: HashMap<PeerAddress, Instant> = HashMap::new();
        let mut asking = JoinSet::new();
        let mut failure = None;
        loop {
            let now = look(vm, Direction::Out).await;
            seen.saw(&now);
            let mut whom = self.addresses(now.into_iter().map(|(a, _)| a));
            let said = self.table().said.get(&vm.uuid).cloned().unwrap_or_default();
            whom.extend(said.into_iter().map(PeerAddress::from));
            if began.elapsed() > ASK_ALL {
                whom.extend(self.configured().await);
            }
            for address in whom {
                if asked
                    .get(&address)
                    .is_some_and(|at| at.elapsed() < ASK_AGAIN)
                {
                    continue;
                }
                asked.insert(address.clone(), Instant::now());
                let (this, domain) = (Arc::clone(self), vm.uuid);
                asking.spawn(async move {
                    let answer = this.ask(&address, Ask::Leaves { domain }).await;
                    (address, answer)
                });
            }
            if matches!(*source.borrow(), Source::Over | Source::Stays) && over.is_none() {
                over = Some(Instant::now());
            }
            let stays = *source.borrow() == Source::Stays;
            if stays || over.is_some_and(|over| over.elapsed() > LATE) {
                let address = self.addresses(seen.likeliest()).into_iter().next();
                return Err(NoWay {
                    error: failure.unwrap_or_else(nobody),
                    towards: address.map(|address| format!("tls://{address}")),
                });
            }
            let has_moved = matches!(*source.borrow(), Source::Stopped | Source::Over);
            let proven = seen.proven(has_moved);
            tokio::select! {
                Some(answer) = asking.join_next() => match answer {
                    Ok((address, Ok(true))) if self.is_the_one(&address, &proven).await => {
                        return Ok(self.links.to(&address));
                    }
                    Ok((address, Ok(true))) => {
                        failure = Some(Error::Handoff(format!(
                            "{address} says that the domain comes to it, and no connection of the \
                             migration leads there; it is not believed"
                        )));
                    }
                    Ok((_, Err(e))) => failure = Some(e),
                    Ok((_, Ok(false))) | Err(_) => {}
                },
                () = self.said.notified() => {}
                () = sleep(pace(began.elapsed())) => {}
            }
        }
    }

    /// Whether a domain that left is at the host to which it went, so that its logs can be
    /// offered there still.
    pub(super) async fn is_there(
        &self,
        address: &PeerAddress,
        domain: Uuid,
    ) -> Result<Arc<PeerLink>> {
        match self.ask(address, Ask::Leaves { domain }).await? {
            true => Ok(self.links.to(address)),
            false => Err(Error::Handoff(format!(
                "domain {domain} is not at {address} any more"
            ))),
        }
    }

    /// The host to which a domain went of which nobody here saw where it went. Every peer that is
    /// configured has to answer, and one alone may say that the domain is there: as long as the host
    /// where it is is among them, no other one can pass for it.
    pub(super) async fn find(self: &Arc<Self>, domain: Uuid) -> Option<PeerAddress> {
        let mut asking = JoinSet::new();
        for address in self.configured().await {
            let this = Arc::clone(self);
            asking.spawn(async move {
                let answer = this.ask(&address, Ask::Leaves { domain }).await;
                (address, answer)
            });
        }
        let mut there = Vec::new();
        while let Some(answer) = asking.join_next().await {
            match answer.ok()? {
                (address, Ok(true)) => there.push(address),
                (_, Ok(false)) => {}
                (address, Err(e)) => {
                    tracing::debug!(%domain, %address, error = %e.sentence(), "a peer did not say whether it is there");
                    return None;
                }
            }
        }
        let one = there.pop();
        one.filter(|_| there.is_empty())
    }

    /// Whether the agent at this address is at the far end of the migration.
    async fn is_the_one(&self, address: &PeerAddress, seen: &BTreeSet<IpAddr>) -> bool {
        let Some(peer) = self.links.to(address).peer() else {
            return false;
        };
        proof::is_at(&peer, seen) || self.answers_at(&peer, seen).await
    }

    /// Whether whoever answers at one of these addresses is the host of this peer.
    async fn answers_at(
        &self,
        peer: &logchain_transport_tls::Peer,
        addresses: &BTreeSet<IpAddr>,
    ) -> bool {
        for address in self.addresses(addresses.iter().copied()) {
            let link = self.links.to(&address);
            if let Ok(Ok(there)) = timeout(ANSWER, link.connect()).await
                && proof::is_same_host(there.names(), peer.names())
            {
                return true;
            }
        }
        false
    }

    /// Where the agents of these hosts listen: at the port that this one listens at, since one
    /// configuration serves all of them.
    fn addresses(&self, hosts: impl IntoIterator<Item = IpAddr>) -> Vec<PeerAddress> {
        let of = |host| PeerAddress::from(SocketAddr::new(host, self.port));
        hosts.into_iter().map(of).collect()
    }

    async fn ask(&self, address: &PeerAddress, ask: Ask) -> Result<bool> {
        let link = self.links.to(address);
        let question = Question::new(ask);
        let answer = timeout(ANSWER, link.ask(question.encode())).await;
        let answer = answer.map_err(|_| {
            let seconds = ANSWER.as_secs();
            Error::Handoff(format!("{address} did not answer within {seconds} s"))
        })??;
        tracing::debug!(%address, ?question, ?answer, "a peer answers");
        Ok(Answer::decode(&answer).map_err(Error::Handoff)?.yes)
    }

    /// Whether one of these hosts says that the domain was at that other host before.
    async fn ask_whether(
        &self,
        domain: Uuid,
        (names, address): (&str, IpAddr),
        hosts: BTreeSet<IpAddr>,
        further: u8,
    ) -> bool {
        for host in self.addresses(hosts) {
            let ask = Ask::CameFrom {
                domain,
                names: names.to_owned(),
                address,
                further,
            };
            match self.ask(&host, ask).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(e) => {
                    tracing::debug!(%domain, %host, error = %e.sentence(), "a peer did not say where a domain was before");
                }
            }
        }
        false
    }

    async fn believe(&self, vm: &Vm, peer: Identity) {
        self.table().arrivals.believe(vm.uuid, peer);
        self.remember(vm).await;
    }
}

fn pki(tls: &config::Tls) -> Pki {
    let mut pki = Pki::libvirt();
    pki.ca.clone_from(&tls.ca);
    pki.server_certificate.clone_from(&tls.certificate);
    pki.server_key.clone_from(&tls.key);
    pki.client_certificate.clone_from(&tls.client_certificate);
    pki.client_key.clone_from(&tls.client_key);
    pki
}

/// Why there is no way to the destination, and where it is nevertheless known to be.
pub(super) struct NoWay {
    pub(super) error: Error,
    /// As the URL of a transport.
    pub(super) towards: Option<String>,
}

fn nobody() -> Error {
    Error::Handoff(
        "no agent answers at the host that the domain goes to, or no connection tells which host \
         that is"
            .to_owned(),
    )
}

/// The other hosts that connections of a domain lead to, and what speaks for each.
async fn look(vm: &Vm, direction: Direction) -> Vec<(IpAddr, Trace)> {
    let (name, uuid) = (vm.name.clone(), vm.uuid);
    let look = move || traces(&name, uuid, direction);
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}
