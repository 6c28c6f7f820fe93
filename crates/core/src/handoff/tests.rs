use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use chunks::first_chunk;

use super::adopt::{self, Adopt, SourceLink};
use super::offer::{self, AdoptStatus, Held, Offer, Remaining, Source, remaining};
use super::{Chunk, Damaged, Handoff, Receipt, Sum};
use crate::chain::{LogChain, NumberingChoice};
use crate::follow::{NoWriters, Writers};
use crate::ids::HandoffId;
use crate::rotation::Retention;
use crate::stream::StreamOffset;
use crate::testing::{Arriving, FakeWriters, Host, Switch};
use crate::transport::{LogTransport, LogTransportExt, MemoryTransport, ObjectName};

mod chunks;
mod late;
mod left_behind;
mod rebooted;
mod resumed;
mod streamed;
mod thousand;

struct Trial {
    handoff: Handoff,
    transport: Arc<dyn LogTransport>,
    source: watch::Sender<Source>,
    far: watch::Sender<AdoptStatus>,
    here: Switch,
    link: watch::Sender<SourceLink>,
    patience: Duration,
}

impl Trial {
    fn new(transport: Arc<dyn LogTransport>) -> Self {
        Self {
            handoff: Handoff {
                domain: Uuid::from_u128(7),
                console: "serial0".parse().unwrap(),
                id: HandoffId::random(),
            },
            transport,
            source: watch::Sender::new(Source::Running),
            far: watch::Sender::new(AdoptStatus::Working),
            here: Switch::default(),
            link: watch::Sender::new(SourceLink::NEW),
            patience: Duration::from_secs(5),
        }
    }

    fn offer(&self, host: &Host) -> tokio::task::JoinHandle<offer::Outcome> {
        let chain = LogChain::open(&host.log, NumberingChoice::FromZero).unwrap();
        let held = Held::open(&chain, self.handoff.domain, &self.handoff.console).unwrap();
        let offer = Offer::new(
            self.handoff.clone(),
            Arc::clone(&self.transport),
            Arc::new(NoWriters),
            self.source.subscribe(),
        )
        .with_names("vm", "h1")
        .with_adopt_status(self.far.subscribe())
        .with_patience(self.patience);
        tokio::spawn(offer.run(held))
    }

    fn adopt(&self, host: &Host, expected: bool) -> tokio::task::JoinHandle<adopt::Outcome> {
        self.adopt_telling(host, expected, mpsc::channel(64).0)
    }

    fn adopt_telling(
        &self,
        host: &Host,
        expected: bool,
        progress: mpsc::Sender<adopt::Milestone>,
    ) -> tokio::task::JoinHandle<adopt::Outcome> {
        self.adopt_beside(host, expected, progress, Arc::new(NoWriters))
    }

    fn adopt_beside(
        &self,
        host: &Host,
        expected: bool,
        progress: mpsc::Sender<adopt::Milestone>,
        writers: Arc<dyn Writers>,
    ) -> tokio::task::JoinHandle<adopt::Outcome> {
        let adopt = Adopt::new(
            self.handoff.clone(),
            Arc::clone(&self.transport),
            writers,
            Arc::new(Arriving {
                place: host.place(),
                here: self.here.clone(),
            }),
        )
        .with_host("h2")
        .with_expected(expected.then(|| host.place()))
        .with_source(self.link.subscribe())
        .with_patience(self.patience)
        .with_milestones(progress);
        tokio::spawn(adopt.run())
    }

    /// After the migration: it is offered at one host and adopted at the other.
    async fn arrives(&self, source: &Host, destination: &Host) {
        self.here.set(true);
        self.source.send_replace(Source::Over);
        let (offer, adopt) = (self.offer(source), self.adopt(destination, false));
        carried(offer.await.unwrap());
        let adopted = adopt.await.unwrap();
        assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    }

    async fn left(&self) -> usize {
        self.transport
            .list_all(&self.handoff.prefix())
            .await
            .unwrap()
            .len()
    }
}

async fn what_is_left(host: &Host, transport: &Arc<dyn LogTransport>) -> Remaining {
    let chain = LogChain::open(&host.log, NumberingChoice::FromZero).unwrap();
    let console = "serial0".parse().unwrap();
    remaining(&chain, Uuid::from_u128(7), &console, &**transport)
        .await
        .unwrap()
}

fn memory() -> Arc<dyn LogTransport> {
    Arc::new(MemoryTransport::new())
}

fn carried(outcome: offer::Outcome) -> Receipt {
    match outcome {
        offer::Outcome::Carried(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

/// `copytruncate` while the handoff follows the log: what was not read yet lies in the
/// copy. Without one the gap is told, with its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_emptied_on_its_way_arrives_whole_or_with_the_gap_told() {
    use crate::offsets::{Lookup, Offsets};

    for copy in [true, false] {
        let (source, destination) = (Host::new(), Host::new());
        let line = |n: usize| format!("line number {n}\n");
        let first: String = (0..100).map(line).collect();
        let second: String = (100..400).map(line).collect();
        source.print(&first);
        let chain = LogChain::open(&source.log, NumberingChoice::FromZero).unwrap();
        Offsets::of(&chain).unwrap().remember(&chain).unwrap();
        let trial = Trial::new(memory());
        let offer = trial.offer(&source);
        if copy {
            fs::copy(&source.log, source.dir.path().join("console.log.0")).unwrap();
        }
        fs::write(&source.log, "").unwrap();
        // Longer than it was.
        source.print(&second);
        let adopt = trial.adopt(&destination, true);
        destination.print("there");
        trial.here.set(true);
        trial.source.send_replace(Source::Over);
        carried(offer.await.unwrap());
        assert!(matches!(adopt.await.unwrap(), adopt::Outcome::Adopted(_)));
        let all = format!("{first}{second}there");
        let offered = source.record(&trial.handoff).unwrap().offered.unwrap();
        assert!(!offered.prints.is_empty());

        let chain = LogChain::open(&destination.log, NumberingChoice::FromZero).unwrap();
        let offsets = Offsets::of(&chain).unwrap();
        let read = |from| match offsets.from(StreamOffset::new(from), u64::MAX).unwrap() {
            Lookup::Run(mut run) => {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut run, &mut text).unwrap();
                (text, run.follows_gap())
            }
            other => panic!("{other:?}"),
        };
        if copy {
            assert_eq!(destination.merged(), all);
            assert_eq!(read(0), (all, false));
        } else {
            let end = first.len() as u64;
            // What was read before it was emptied is there; the gap comes after it.
            let got = destination.merged();
            assert!(got.ends_with(&format!("{second}there")), "{got}");
            assert!(got.starts_with(&first) || got.len() < all.len());
            assert_eq!(read(end), (format!("{second}there"), true));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_history_arrives() {
    let (source, destination) = (Host::new(), Host::new());
    source.write("console.log.0", "first ");
    source.write("console.log", "second ");
    let trial = Trial::new(memory());
    let offer = trial.offer(&source);
    let adopt = trial.adopt(&destination, true);
    source.print("third ");
    // The guest runs at the destination now.
    destination.print("fourth ");
    trial.here.set(true);
    trial.source.send_replace(Source::Over);
    let receipt = carried(offer.await.unwrap());
    assert_eq!(receipt.bytes, 19);
    assert!(matches!(adopt.await.unwrap(), adopt::Outcome::Adopted(_)));
    assert_eq!(destination.merged(), "first second third fourth ");
    assert_eq!(
        source.merged(),
        "first second third ",
        "the source's copy stays"
    );
    assert_eq!(
        destination.names(),
        ["console.log", "console.log.0", "console.log.1"]
    );
    assert_eq!(trial.left().await, 0, "the transport is cleared");
    let offered = source.record(&trial.handoff).unwrap().offered.unwrap();
    assert!(offered.received);
    assert_eq!(offered.files.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_again() {
    for append in [false, true] {
        let (a, b) = (Host::new(), Host::new());
        a.print("1 ");
        let there = Trial::new(memory());
        let (offer, adopt) = (there.offer(&a), there.adopt(&b, true));
        b.print("2 ");
        there.here.set(true);
        there.source.send_replace(Source::Over);
        carried(offer.await.unwrap());
        adopt.await.unwrap();
        assert_eq!(b.merged(), "1 2 ");

        let back = Trial::new(memory());
        let offer = back.offer(&b);
        let adopt = back.adopt(&a, true);
        // Only when the destination is ready may the migration begin.
        while a.log.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if !append {
            fs::write(&a.log, "").unwrap();
        }
        a.print("3 ");
        back.here.set(true);
        back.source.send_replace(Source::Over);
        carried(offer.await.unwrap());
        adopt.await.unwrap();
        assert_eq!(a.merged(), "1 2 3 ", "append {append}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_migration_leaves_both_as_they_were() {
    let (source, destination) = (Host::new(), Host::new());
    source.print("mine ");
    destination.write("console.log.7", "older stay");
    let trial = Trial::new(memory());
    let (offer, adopt) = (trial.offer(&source), trial.adopt(&destination, true));
    tokio::time::sleep(Duration::from_millis(100)).await;
    trial.source.send_replace(Source::Stays);
    assert_eq!(offer.await.unwrap(), offer::Outcome::Aborted);
    assert_eq!(adopt.await.unwrap(), adopt::Outcome::Aborted);
    assert_eq!(source.merged(), "mine ");
    assert_eq!(source.names(), ["console.log"]);
    assert_eq!(destination.names(), ["console.log.7"]);
    assert_eq!(trial.left().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_removed_at_the_source_takes_nothing_away() {
    let (source, destination) = (Host::new(), Host::new());
    source.write("console.log.0", "first ");
    source.print("second ");
    let trial = Trial::new(memory());
    let offer = trial.offer(&source);
    // From here on it writes nothing beside the log.
    while trial.left().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    source.dir.close().unwrap();
    destination.print("third ");
    trial.here.set(true);
    let adopt = trial.adopt(&destination, false);
    trial.source.send_replace(Source::Over);
    carried(offer.await.unwrap());
    adopt.await.unwrap();
    assert_eq!(destination.merged(), "first second third ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_without_a_folder_gets_none_before_its_domain_comes() {
    let (source, destination) = (Host::new(), Host::new());
    source.print("old ");
    let log = destination.dir.path().join("instance/console.log");
    let destination = Host { log, ..destination };
    let trial = Trial::new(memory());
    let (offer, adopt) = (trial.offer(&source), trial.adopt(&destination, true));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!destination.log.parent().unwrap().exists());
    fs::create_dir(destination.log.parent().unwrap()).unwrap();
    destination.print("new ");
    trial.here.set(true);
    trial.source.send_replace(Source::Over);
    carried(offer.await.unwrap());
    adopt.await.unwrap();
    assert_eq!(destination.merged(), "old new ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_altered_on_the_way_is_refused() {
    let (source, destination) = (Host::new(), Host::new());
    source.print("truth ");
    destination.print("new ");
    let mut trial = Trial::new(memory());
    trial.patience = Duration::from_millis(500);
    let offer = trial.offer(&source);
    trial.source.send_replace(Source::Over);
    let key = trial.handoff.key(ObjectName::Chunk { offset: 0, len: 6 });
    while trial
        .transport
        .get_opt(&key, 1 << 20)
        .await
        .unwrap()
        .is_none()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    trial.transport.delete(&key).await.unwrap();
    let lie = first_chunk(true, b"a lie ");
    trial.transport.put(&key, lie.encode()).await.unwrap();
    trial.here.set(true);
    let adopted = trial.adopt(&destination, false).await.unwrap();
    assert!(
        matches!(&adopted, adopt::Outcome::Failed { reason } if reason.contains("digests differ")),
        "{adopted:?}"
    );
    assert!(matches!(
        offer.await.unwrap(),
        offer::Outcome::NotCarried { .. }
    ));
    assert_eq!(destination.merged(), "new ");
    assert_eq!(destination.names(), ["console.log"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_destination_it_is_not_carried_and_can_be_taken_up_again() {
    let (source, destination) = (Host::new(), Host::new());
    source.print("old ");
    let mut trial = Trial::new(memory());
    trial.patience = Duration::from_millis(300);
    let offer = trial.offer(&source);
    trial.source.send_replace(Source::Over);
    assert!(matches!(
        offer.await.unwrap(),
        offer::Outcome::NotCarried { .. }
    ));
    let record = source.record(&trial.handoff).unwrap();
    let offered = record.offered.unwrap();
    assert!(!offered.received);
    assert_eq!(offered.handoff, trial.handoff.id);

    destination.print("new ");
    trial.here.set(true);
    trial.patience = Duration::from_secs(5);
    let adopt = trial.adopt(&destination, false);
    assert!(matches!(adopt.await.unwrap(), adopt::Outcome::Adopted(_)));
    // The same handoff once more is placed once.
    let again = trial.adopt(&destination, false);
    assert!(matches!(again.await.unwrap(), adopt::Outcome::Adopted(_)));
    assert_eq!(destination.merged(), "old new ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_falls_silent_is_given_up() {
    let (source, destination) = (Host::new(), Host::new());
    source.print("old ");
    destination.print("here before ");
    let mut trial = Trial::new(memory());
    trial.patience = Duration::from_millis(200);
    let offer = trial.offer(&source);
    let adopt = trial.adopt(&destination, true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    offer.abort();
    trial.link.send_replace(SourceLink::Gone);
    let outcome = adopt.await.unwrap();
    assert!(
        matches!(outcome, adopt::Outcome::Failed { .. }),
        "{outcome:?}"
    );
    assert_eq!(destination.names(), ["console.log"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rollovers_at_the_source_are_followed() {
    let (source, destination) = (Host::new(), Host::new());
    source.print("line 0\n");
    let trial = Trial::new(memory());
    let (offer, adopt) = (trial.offer(&source), trial.adopt(&destination, true));
    let mut expected = String::from("line 0\n");
    for n in 1..60 {
        let line = format!("line {n}\n");
        expected.push_str(&line);
        source.print(&line);
        if n % 10 == 0 {
            for i in (0..3).rev() {
                let name = |i: i32| match i {
                    -1 => source.log.clone(),
                    i => source.dir.path().join(format!("console.log.{i}")),
                };
                #[expect(clippy::disallowed_methods, reason = "as virtlogd does")]
                let _ = fs::rename(name(i - 1), name(i));
            }
            source.write("console.log", "");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    destination.print("");
    trial.here.set(true);
    trial.source.send_replace(Source::Over);
    let receipt = carried(offer.await.unwrap());
    assert_eq!(receipt.bytes, expected.len() as u64);
    adopt.await.unwrap();
    assert_eq!(destination.merged(), expected);
}

/// It went while the destination's half was only starting.
#[tokio::test]
async fn a_source_that_is_gone_before_anything_began_is_not_waited_for() {
    let destination = Host::new();
    let mut trial = Trial::new(memory());
    trial.patience = Duration::from_secs(600);
    let adopt = trial.adopt(&destination, true);
    trial.link.send_replace(SourceLink::Gone);
    let ended = tokio::time::timeout(Duration::from_secs(20), adopt).await;
    match ended.unwrap().unwrap() {
        adopt::Outcome::Failed { reason } => assert!(reason.contains("the source is gone")),
        other => panic!("{other:?}"),
    }
}

/// It was rotated just before its guest left: nothing was printed into the new file.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_at_the_end_is_no_writer() {
    let (source, destination) = (Host::new(), Host::new());
    source.write("console.log", "all of it ");
    let trial = Trial::new(memory());
    let offer = trial.offer(&source);
    let adopt = trial.adopt(&destination, true);
    let away = source.dir.path().join("console.log.0");
    fs::hard_link(&source.log, &away).unwrap();
    fs::remove_file(&source.log).unwrap();
    source.write("console.log", "");
    destination.print("and more ");
    trial.here.set(true);
    trial.source.send_replace(Source::Over);
    let ended = tokio::time::timeout(Duration::from_secs(20), offer).await;
    carried(ended.unwrap().unwrap());
    adopt.await.unwrap();
    assert_eq!(destination.merged(), "all of it and more ");
}

/// Its guest has left, and it made way for the next stay before it was handed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_made_way_is_whole_without_a_base() {
    use crate::placement::ChainWorkspace;

    let (source, destination) = (Host::new(), Host::new());
    source.write("console.log.0", "first ");
    source.write("console.log", "second ");
    let trial = Trial::new(memory());
    let offer = trial.offer(&source);
    let (numbering, writers) = (crate::chain::Numbering::FromZero, Arc::new(NoWriters));
    assert!(ChainWorkspace::rotate_away(&source.log, numbering, writers).unwrap());
    let adopt = trial.adopt(&destination, true);
    destination.print("third ");
    trial.here.set(true);
    trial.source.send_replace(Source::Over);
    let ended = tokio::time::timeout(Duration::from_secs(20), offer).await;
    carried(ended.unwrap().unwrap());
    adopt.await.unwrap();
    assert_eq!(destination.merged(), "first second third ");
}
