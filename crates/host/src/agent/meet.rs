//! How the two halves of a handoff find each other.
//!
//! - *Store*: both hosts use one store or folder. What is offered lies there below the domain's
//!   UUID, so no agent has to know another one.
//! - *Ssh*: the source starts the destination's half there over ssh, as `logchain migrate` does.
//!   The destination needs no agent. Its address is seen in the connections of the migration.
//! - *Tls*: the agents speak to each other (`peers`).
//!
//! Must not know: what is handed over.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::handoff::offer::Source;
use logchain_core::transport::LogTransport;
use logchain_libvirt::peers::{Direction, peers};
use logchain_transport_ssh::{SshOptions, SshTarget};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep};

use uuid::Uuid;

use super::Vm;
use super::config::{self, Reloadable};
use super::here::{Arrival, Here};
use super::peers::{NoWay, Peers};
use crate::transports::{TransportChoice, ssh_options};
use crate::{Error, Result, Stop};

/// Between two looks for the connections of a migration.
const LOOK: Duration = Duration::from_millis(50);

/// How long they are looked for after the guest has left. They end with it.
const LATE: Duration = Duration::from_secs(1);

/// How long they are looked for at the most: a migration has them from its beginning on.
const LIMIT: Duration = Duration::from_secs(15);

/// The operator's choice, and what of it is open already.
pub(super) struct Meet {
    way: Way,
    config: Arc<Reloadable>,
    open: Mutex<Option<Arc<dyn LogTransport>>>,
}

enum Way {
    Store(Box<TransportChoice>),
    Ssh,
    Tls(Arc<Peers>),
}

/// The way to the destination of one domain.
pub(super) struct Towards {
    pub(super) choice: TransportChoice,
    pub(super) transport: Arc<dyn LogTransport>,
}

impl Meet {
    /// Gives the domains of which peers say that they leave, too.
    ///
    /// # Errors
    /// [`Error::Usage`] where the configuration cannot be meant; where the agent cannot listen.
    pub(super) async fn start(
        config: &Arc<Reloadable>,
        here: &Here,
        stop: &Stop,
    ) -> Result<(Self, Option<mpsc::Receiver<Uuid>>)> {
        let mut words = None;
        let current = config.current();
        let way = match current.meet.way {
            config::TransportKind::Store => {
                let choice = TransportChoice::of(current.meet.store.as_deref(), None)?;
                Way::Store(Box::new(choice))
            }
            config::TransportKind::Ssh => {
                // A mistake in it is told before anything is begun.
                target("localhost", &current.meet.ssh)?;
                Way::Ssh
            }
            config::TransportKind::Tls => {
                let (peers, told) = Peers::start(config, here.clone(), stop.clone()).await?;
                words = Some(told);
                Way::Tls(peers)
            }
        };
        let meet = Self {
            way,
            config: Arc::clone(config),
            open: Mutex::default(),
        };
        Ok((meet, words))
    }

    /// Names of agents that answered when they were asked last.
    pub(super) fn connected(&self) -> Vec<String> {
        match &self.way {
            Way::Tls(peers) => peers.connected(),
            Way::Store(_) | Way::Ssh => Vec::new(),
        }
    }

    /// The domain comes: from now on it is seen from where.
    pub(super) fn comes(&self, domain: Uuid) {
        if let Way::Tls(peers) = &self.way {
            peers.comes(domain);
        }
    }

    /// The domain is not here any more.
    pub(super) fn left(&self, domain: Uuid) {
        if let Way::Tls(peers) = &self.way {
            peers.left(domain);
        }
    }

    /// Tells the host from which a domain comes that it comes here.
    pub(super) fn announce(&self, vm: &Vm, arrival: watch::Receiver<Arrival>) {
        if let Way::Tls(peers) = &self.way {
            tokio::spawn(Arc::clone(peers).announce(vm.clone(), arrival));
        }
    }

    /// Changes whenever something was offered to this host; `None` where nobody can tell.
    pub(super) fn stored(&self) -> Option<watch::Receiver<u64>> {
        match &self.way {
            Way::Tls(peers) => Some(peers.stored()),
            Way::Store(_) | Way::Ssh => None,
        }
    }

    pub(super) fn ssh(&self) -> SshOptions {
        let config = self.config.current();
        ssh_options(Some(&config.meet.ssh.logchain), config.meet.patience)
    }

    /// Where a log is offered again whose destination is not known.
    pub(super) fn shared_url(&self) -> Option<String> {
        match &self.way {
            Way::Store(choice) => Some(choice.to_string()),
            Way::Ssh | Way::Tls(_) => None,
        }
    }

    /// Where offers to this host lie; `None` where each source starts the half here by itself.
    pub(super) async fn shared(&self) -> Result<Option<Arc<dyn LogTransport>>> {
        let choice = match &self.way {
            Way::Store(choice) => choice,
            Way::Tls(peers) => return Ok(Some(peers.spool())),
            Way::Ssh => return Ok(None),
        };
        // It is opened once: to open a store takes requests of its own.
        let mut open = self.open.lock().await;
        if let Some(transport) = &*open {
            return Ok(Some(Arc::clone(transport)));
        }
        let transport = choice
            .open(&self.ssh(), self.config.current().meet.patience)
            .await?;
        *open = Some(Arc::clone(&transport));
        Ok(Some(transport))
    }

    /// The way to the host that a domain goes to.
    pub(super) async fn towards(
        &self,
        vm: &Vm,
        source: watch::Receiver<Source>,
    ) -> Result<Towards, NoWay> {
        match &self.way {
            Way::Store(choice) => {
                let transport = self
                    .shared()
                    .await
                    .and_then(|found| found.ok_or_else(nowhere));
                let transport = transport.map_err(|error| NoWay {
                    error,
                    towards: Some(choice.to_string()),
                })?;
                let choice = TransportChoice::clone(choice);
                Ok(Towards { choice, transport })
            }
            Way::Tls(peers) => {
                let link = peers.towards(vm, source).await?;
                let choice = TransportChoice::Agent(link.address().clone());
                let transport: Arc<dyn LogTransport> = link;
                Ok(Towards { choice, transport })
            }
            Way::Ssh => {
                let config = self.config.current();
                let mut failure = NoWay {
                    error: nowhere(),
                    towards: None,
                };
                for address in find(vm, source).await {
                    let host = target(&address.to_string(), &config.meet.ssh);
                    let Ok(host) = host else {
                        continue;
                    };
                    let choice = TransportChoice::at(host);
                    match choice.open(&self.ssh(), config.meet.patience).await {
                        Ok(transport) => return Ok(Towards { choice, transport }),
                        Err(error) => {
                            failure = NoWay {
                                error,
                                towards: failure.towards.or_else(|| Some(choice.to_string())),
                            };
                        }
                    }
                }
                Err(failure)
            }
        }
    }

    /// Where a domain went of which nobody here saw where it went, as the URL of a transport.
    pub(super) async fn find(&self, domain: Uuid) -> Option<String> {
        let Way::Tls(peers) = &self.way else {
            return None;
        };
        let address = peers.find(domain).await?;
        Some(format!("tls://{address}"))
    }

    /// The way to where a domain went some time ago; `None` where its URL says all.
    pub(super) async fn again(
        &self,
        url: &str,
        domain: Uuid,
    ) -> Result<Option<Arc<dyn LogTransport>>> {
        match (&self.way, TransportChoice::of(Some(url), None)?) {
            (Way::Tls(peers), TransportChoice::Agent(address)) => {
                Ok(Some(peers.is_there(&address, domain).await?))
            }
            _ => Ok(None),
        }
    }
}

fn target(host: &str, ssh: &config::Ssh) -> Result<SshTarget> {
    let mut target = SshTarget::on(host)?.with_spool(&ssh.spool);
    if let Some(user) = &ssh.user {
        target = target.as_user(user)?;
    }
    if let Some(port) = ssh.port {
        target = target.at_port(port);
    }
    Ok(target)
}

fn nowhere() -> Error {
    Error::Handoff(
        "no connection tells which host the domain goes to; the agents can meet in a store instead"
            .to_owned(),
    )
}

/// The addresses of the host that a domain goes to, the likeliest first.
async fn find(vm: &Vm, source: watch::Receiver<Source>) -> Vec<IpAddr> {
    let began = Instant::now();
    let mut over = None;
    loop {
        let (name, uuid) = (vm.name.clone(), vm.uuid);
        let look = move || peers(&name, uuid, Direction::Out);
        let found = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let is_over = matches!(*source.borrow(), Source::Over | Source::Stays);
        if is_over && over.is_none() {
            over = Some(Instant::now());
        }
        let too_late = over.is_some_and(|over| over.elapsed() > LATE);
        if !found.is_empty() || too_late || began.elapsed() > LIMIT {
            return found;
        }
        sleep(LOOK).await;
    }
}
