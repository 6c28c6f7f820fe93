//! Logs that hosts could not hand over in time. The VM goes on, comes back to hosts that have a part
//! of its log, and the rest comes later, in any order: in the end each byte is there once, in order.

use std::time::SystemTime;

use proptest::test_runner::Config;

use super::left_behind::{moves, moves_alone};
use super::*;
use crate::placement::ChainWorkspace;

/// One step of a VM's life.
#[derive(Clone, Debug)]
enum Act {
    /// It migrates to another host, the next one or the one after that, and its log with it.
    Carried { far: bool, prints: bool },
    /// It migrates, and nobody is there to take the log in. Whether all of the log got as far as
    /// the transport, and whether an agent is there at the source that has the base make way.
    Left { far: bool, committed: bool },
    /// A host offers what it could not hand over.
    Late { host: usize },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(far, prints)| Act::Carried { far, prints }),
        3 => (any::<bool>(), any::<bool>())
            .prop_map(|(far, committed)| Act::Left { far, committed }),
        2 => (0..3_usize).prop_map(|host| Act::Late { host }),
    ];
    proptest::collection::vec(act, 1..14)
}

struct Life {
    hosts: Vec<Host>,
    /// Whether a host has what it never handed over to anybody.
    owes: Vec<bool>,
    at: usize,
    printed: u32,
    model: String,
}

impl Life {
    fn new() -> Self {
        let hosts: Vec<Host> = (0..3).map(|_| Host::new()).collect();
        let mut life = Self {
            hosts,
            owes: vec![false; 3],
            at: 0,
            printed: 0,
            model: String::new(),
        };
        let first = life.words();
        life.hosts[0].print(&first);
        life.stamp(0);
        life
    }

    /// What the VM prints next.
    fn words(&mut self) -> String {
        self.printed += 1;
        let words = format!("{} ", self.printed);
        self.model.push_str(&words);
        words
    }

    /// Hosts' files are as old as the model says: steps take less time than clocks tell apart.
    fn stamp(&self, host: usize) {
        let log = &self.hosts[host].log;
        let time =
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + u64::from(self.printed));
        let log = File::options().append(true).open(log).unwrap();
        log.set_modified(time).unwrap();
    }

    fn to(&self, far: bool) -> usize {
        (self.at + 1 + usize::from(far)) % 3
    }

    /// The base file makes way once its guest has left.
    fn make_way(&self, host: usize) {
        let numbering = crate::chain::Numbering::FromZero;
        let writers = Arc::new(NoWriters);
        ChainWorkspace::rotate_away(&self.hosts[host].log, numbering, writers).unwrap();
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Carried { far, prints } => {
                let (from, to) = (self.at, self.to(*far));
                let words = if *prints { self.words() } else { String::new() };
                let (source, destination) = (&self.hosts[from], &self.hosts[to]);
                moves(&memory(), source, destination, true, &words).await;
                self.owes[from] = false;
                self.came(from, to);
            }
            Act::Left { far, committed } => {
                let (from, to) = (self.at, self.to(*far));
                let words = self.words();
                let hosts = (&self.hosts[from], &self.hosts[to]);
                moves_alone(&memory(), hosts, true, &words, *committed).await;
                self.owes[from] = true;
                self.came(from, to);
            }
            Act::Late { host } if *host != self.at && self.owes[*host] => self.late(*host).await,
            Act::Late { .. } => {}
        }
    }

    fn came(&mut self, from: usize, to: usize) {
        self.stamp(to);
        self.make_way(from);
        // What it owed goes along from there, once it leaves.
        self.owes[to] = false;
        self.at = to;
    }

    async fn late(&mut self, host: usize) {
        let trial = Trial::new(memory());
        trial.arrives(&self.hosts[host], &self.hosts[self.at]).await;
        self.owes[host] = false;
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 24,
        max_shrink_iters: 100,
        ..Config::default()
    })]

    /// Whatever came late, once all has come each byte is there once, in order.
    #[test]
    fn what_comes_late_comes_to_lie_where_it_belongs(acts in acts(), order in any::<u8>()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut life = Life::new();
            for act in &acts {
                life.act(act).await;
            }
            for n in 0..3 {
                let host = (n + usize::from(order)) % 3;
                life.act(&Act::Late { host }).await;
            }
            let there = &life.hosts[life.at];
            assert_eq!(there.merged(), life.model, "{acts:?} {:?}", there.names());
        });
    }
}
