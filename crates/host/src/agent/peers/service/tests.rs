//! Whom the doorman lets in. Peers have loopback addresses: nobody listens there, so nobody answers
//! in a peer's place.

use logchain_core::transport::{MemoryTransport, Prefix};
use logchain_libvirt::peers::Trace;
use logchain_transport_tls::{AllowedNames, PeerNames, Pki};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::{Notify, mpsc, watch};

use super::super::links::Links;
use super::super::remembered::{Arrived, Remembered};
use super::*;
use crate::agent::Vm;
use crate::agent::config::Reloadable;
use crate::agent::here::Here;

const DOMAIN: Uuid = Uuid::from_u128(0x7ab3);

/// A doorman, the domains of its host, and the words that reach whoever looks at them.
struct Door {
    doorman: Doorman,
    here: Here,
    words: mpsc::Receiver<Uuid>,
}

impl Door {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["h2".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let pki = Pki::in_folder(folder.path());
        std::fs::write(&pki.ca, &pem).unwrap();
        std::fs::write(&pki.client_certificate, &pem).unwrap();
        std::fs::write(&pki.client_key, key.serialize_pem()).unwrap();
        let links = Links::new(pki, AllowedNames::any()).await.unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, "").unwrap();
        let (send, words) = mpsc::channel(4);
        let here = Here::default();
        let peers = Peers {
            links,
            spool: Arc::new(MemoryTransport::new()),
            here: here.clone(),
            // Of the discard service: nothing listens there.
            port: 9,
            config: Arc::new(Reloadable::open(&file).await.unwrap()),
            table: std::sync::Mutex::default(),
            remembered: Remembered::of(folder.path()),
            said: Notify::new(),
            words: send,
            stored: watch::Sender::new(0),
        };
        let doorman = Doorman(Arc::new(peers));
        Self {
            doorman,
            here,
            words,
        }
    }

    fn is_here(&self, stay: Stay, is_unseen: bool) {
        let name = "no-such-domain-anywhere".to_owned();
        let vm = Vm { uuid: DOMAIN, name };
        self.here.put(vm, stay, is_unseen);
    }

    /// It comes, and these connections are seen meanwhile.
    fn comes(&self, seen: &[(&str, Trace)]) {
        self.is_here(Stay::Coming, false);
        self.doorman.0.comes(DOMAIN);
        let seen: Vec<_> = seen.iter().map(|(a, t)| (a.parse().unwrap(), *t)).collect();
        self.doorman.0.table().arrivals.saw(DOMAIN, &seen);
    }

    /// What the doorman answers a peer that says that the domain left it.
    async fn leaves(&self, peer: &Peer) -> Result<bool, Refusal> {
        let question = Question::new(Ask::Leaves { domain: DOMAIN });
        let answer = self.doorman.ask(peer, question.encode()).await?;
        Ok(Answer::decode(&answer).unwrap().yes)
    }

    /// How many of the four verbs a peer may use on what belongs to the domain: all, or none.
    fn may(&self, peer: &Peer) -> bool {
        let console = "serial0";
        let id = Uuid::from_u128(1).hyphenated();
        let key = format!("v1/{}/{console}/{id}/begin", DOMAIN.hyphenated());
        let key: Key = key.parse().unwrap();
        let prefixes = [
            Prefix::Domain(DOMAIN),
            Prefix::Console(DOMAIN, console.parse().unwrap()),
        ];
        let verbs = [
            Access::Put { key: &key, size: 1 },
            Access::Get { key: &key },
            Access::Delete { key: &key },
            Access::List {
                prefix: &prefixes[0],
            },
            Access::List {
                prefix: &prefixes[1],
            },
        ];
        let allowed = verbs
            .iter()
            .map(|v| self.doorman.authorise(peer, v).is_ok());
        let allowed: Vec<bool> = allowed.collect();
        assert!(
            allowed.windows(2).all(|two| two[0] == two[1]),
            "{allowed:?}"
        );
        // Never anything of another domain, or of all of them.
        let elsewhere = [Prefix::Domain(Uuid::from_u128(2)), Prefix::All];
        for prefix in &elsewhere {
            let list = Access::List { prefix };
            assert!(self.doorman.authorise(peer, &list).is_err());
        }
        allowed[0]
    }
}

fn peer(name: &str, address: &str) -> Peer {
    let remote = format!("{address}:40000").parse().unwrap();
    let local = "127.0.0.1:16515".parse().unwrap();
    Peer::new(PeerNames::of_common_name(name), remote, local)
}

fn source() -> Peer {
    peer("h1", "127.0.0.11")
}

fn thief() -> Peer {
    peer("h3", "127.0.0.13")
}

#[tokio::test]
async fn a_domain_that_is_not_here_lets_nobody_in() {
    let door = Door::new().await;
    assert_eq!(door.leaves(&source()).await, Ok(false));
    assert!(!door.may(&source()));
}

#[tokio::test]
async fn the_host_that_a_domain_comes_from_is_let_in_and_no_other() {
    let door = Door::new().await;
    door.comes(&[("127.0.0.11", Trace::Memory), ("127.0.0.13", Trace::Daemon)]);
    // Nobody before it said that it is the source.
    assert!(!door.may(&source()) && !door.may(&thief()));
    assert!(door.leaves(&thief()).await.is_err());
    assert_eq!(door.leaves(&source()).await, Ok(true));
    assert!(door.may(&source()) && !door.may(&thief()));
    // Once it runs here it is as before.
    door.is_here(Stay::Running, false);
    assert!(door.leaves(&thief()).await.is_err());
    assert!(door.may(&source()) && !door.may(&thief()));
    // The thief's certificate at the source's address, and the other way round.
    assert!(!door.may(&peer("h3", "127.0.0.11")) && !door.may(&peer("h1", "127.0.0.13")));
}

#[tokio::test]
async fn a_client_of_the_daemon_is_not_let_in_while_a_domain_comes() {
    let door = Door::new().await;
    door.comes(&[("127.0.0.13", Trace::Daemon)]);
    assert!(door.leaves(&thief()).await.is_err());
    assert!(!door.may(&thief()));
    // The connection of the memory is seen late.
    let memory = ("127.0.0.11".parse().unwrap(), Trace::Memory);
    door.doorman.0.table().arrivals.saw(DOMAIN, &[memory]);
    door.is_here(Stay::Running, false);
    assert!(door.leaves(&thief()).await.is_err());
    assert_eq!(door.leaves(&source()).await, Ok(true));
}

#[tokio::test]
async fn where_nobody_saw_a_domain_come_the_first_one_is_let_in() {
    let door = Door::new().await;
    door.is_here(Stay::Running, true);
    assert_eq!(door.leaves(&source()).await, Ok(true));
    assert!(door.may(&source()));
    assert!(door.leaves(&thief()).await.is_err());
    assert!(!door.may(&thief()));
}

#[tokio::test]
async fn where_nothing_was_seen_while_a_domain_came_the_first_one_is_let_in() {
    let door = Door::new().await;
    door.comes(&[]);
    // Not before it runs here: until then something may be seen still.
    assert!(door.leaves(&source()).await.is_err());
    door.is_here(Stay::Running, false);
    assert_eq!(door.leaves(&source()).await, Ok(true));
    assert!(door.leaves(&thief()).await.is_err());
    assert!(door.may(&source()) && !door.may(&thief()));
}

#[tokio::test]
async fn a_domain_that_was_booted_here_lets_nobody_in() {
    let door = Door::new().await;
    door.is_here(Stay::Running, false);
    for peer in [source(), thief()] {
        assert!(door.leaves(&peer).await.is_err());
        assert!(!door.may(&peer));
    }
}

#[tokio::test]
async fn once_a_domain_left_nobody_is_let_in_any_more() {
    let door = Door::new().await;
    door.comes(&[("127.0.0.11", Trace::Memory)]);
    assert_eq!(door.leaves(&source()).await, Ok(true));
    door.here.leaves(DOMAIN);
    assert!(!door.may(&source()));
    door.doorman.0.left(DOMAIN);
    assert_eq!(door.leaves(&source()).await, Ok(false));
    // It comes again, from elsewhere: what held before holds no more.
    door.comes(&[("127.0.0.12", Trace::Memory)]);
    assert!(!door.may(&source()));
    assert!(door.leaves(&source()).await.is_err());
}

#[tokio::test]
async fn one_host_takes_one_place_among_those_that_say_that_a_domain_comes() {
    let mut door = Door::new().await;
    door.is_here(Stay::Running, false);
    for port in 1..20 {
        let ask = Ask::Comes {
            domain: DOMAIN,
            port,
        };
        let question = Question::new(ask).encode();
        door.doorman.ask(&thief(), question).await.unwrap();
    }
    let ask = Ask::Comes {
        domain: DOMAIN,
        port: 16515,
    };
    let question = Question::new(ask).encode();
    door.doorman.ask(&source(), question).await.unwrap();
    let said = door.doorman.0.table().said[&DOMAIN].clone();
    let want = ["127.0.0.13:19", "127.0.0.11:16515"].map(|a| a.parse().unwrap());
    assert_eq!(said, want);
    assert_eq!(door.words.recv().await, Some(DOMAIN));
}

#[tokio::test]
async fn an_agent_does_not_believe_itself() {
    let door = Door::new().await;
    // It came unseen, so that the first host is believed.
    door.is_here(Stay::Running, true);
    assert_eq!(door.leaves(&peer("h2", "127.0.0.1")).await, Ok(false));
    assert_eq!(door.leaves(&source()).await, Ok(true));
}

#[tokio::test]
async fn a_host_that_had_the_domain_before_may_be_late() {
    let door = Door::new().await;
    let proof = (["127.0.0.11".parse().unwrap()].into(), Vec::new());
    let arrived = Arrived::new("vm", "1 2".to_owned(), proof);
    let remembered = &door.doorman.0.remembered;
    remembered.write(DOMAIN, &arrived).unwrap();
    remembered.left(DOMAIN);
    // It is back, and comes from elsewhere.
    door.comes(&[("127.0.0.12", Trace::Memory)]);
    assert!(door.leaves(&source()).await.is_err());
    door.is_here(Stay::Running, false);
    assert_eq!(door.leaves(&source()).await, Ok(true));
    assert!(door.may(&source()));
    assert!(door.leaves(&thief()).await.is_err());
    // Another host asks the same of this one.
    let ask = |address: &str, names: &str| Ask::CameFrom {
        domain: DOMAIN,
        names: names.to_owned(),
        address: address.parse().unwrap(),
        further: 0,
    };
    for (address, names, yes) in [("127.0.0.11", "x", true), ("127.0.0.13", "h3", false)] {
        let question = Question::new(ask(address, names)).encode();
        let answer = door.doorman.ask(&thief(), question).await.unwrap();
        assert_eq!(Answer::decode(&answer).unwrap().yes, yes);
    }
}
