//! Handoffs that broke off, and what the next ones make of them: a whole history
//! or none, and a clear word.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::handoff::pump::PIECE;
use crate::transport::fault::{Fault, FaultTransport, Verb};
use crate::transport::{DirectoryTransport, Entry, Error};

/// Some pieces, the last one not full.
const PIECES: usize = 5;

fn history(host: &Host) -> String {
    let line = |n: usize| format!("line {n} of a log that is longer than a piece\n");
    let text: String = (0..PIECES * 48_000).map(line).collect();
    assert!(text.len() > (PIECES - 1) * PIECE, "{}", text.len());
    host.print(&text);
    text
}

/// Counts the pieces that are put; after `most` of them the other side is away
/// until `again` says so.
fn counting(
    inner: &Arc<dyn LogTransport>,
    most: u64,
    again: &watch::Receiver<bool>,
) -> (Arc<dyn LogTransport>, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let (counted, again) = (Arc::clone(&count), again.clone());
    let transport = FaultTransport::new(Arc::clone(inner), move |call| {
        let is_piece = matches!(call.key?.object, ObjectName::Chunk { .. });
        if call.verb != Verb::Put || !is_piece {
            return None;
        }
        let goes_on = |n| (n < most || *again.borrow()).then_some(n + 1);
        match counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, goes_on) {
            Ok(_) => None,
            Err(_) => Some(Fault::unreachable()),
        }
    });
    (Arc::new(transport), count)
}

pub(super) async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_source_puts_only_what_is_not_there_yet() {
    let (source, destination) = (Host::new(), Host::new());
    let text = history(&source);
    let spool = memory();
    let never = watch::Sender::new(false).subscribe();
    let (cut, count) = counting(&spool, 3, &never);
    let mut trial = Trial::new(cut);
    trial.source.send_replace(Source::Over);
    let offer = trial.offer(&source);
    until("three pieces", async || trial.left().await == 4).await;
    assert_eq!(count.load(Ordering::Relaxed), 3);
    offer.abort();
    let _ = offer.await;

    let left = what_is_left(&source, &spool).await;
    assert_eq!(left, Remaining::Rest(trial.handoff.id));
    let (whole, count) = counting(&spool, u64::MAX, &never);
    trial.transport = whole;
    trial.here.set(true);
    destination.print("after");
    let (offer, adopt) = (trial.offer(&source), trial.adopt(&destination, false));
    carried(offer.await.unwrap());
    assert!(matches!(adopt.await.unwrap(), adopt::Outcome::Adopted(_)));
    assert_eq!(destination.merged(), text + "after");
    let pieces = count.load(Ordering::Relaxed);
    assert!(pieces + 3 <= PIECES as u64 + 1, "{pieces} were put again");
    assert!(matches!(
        what_is_left(&source, &spool).await,
        Remaining::Nothing(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_comes_back_goes_on_where_it_broke() {
    let (source, destination) = (Host::new(), Host::new());
    let text = history(&source);
    let spool = memory();
    let again = watch::Sender::new(false);
    let (cut, count) = counting(&spool, 2, &again.subscribe());
    let trial = Trial::new(cut);
    trial.source.send_replace(Source::Over);
    trial.here.set(true);
    destination.print("after");
    let (offer, adopt) = (trial.offer(&source), trial.adopt(&destination, false));
    until("two pieces", async || count.load(Ordering::Relaxed) == 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    again.send_replace(true);
    carried(offer.await.unwrap());
    adopt.await.unwrap();
    assert_eq!(destination.merged(), text + "after");
    assert!(count.load(Ordering::Relaxed) <= PIECES as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_changed_since_is_not_gone_on_with() {
    let (source, destination) = (Host::new(), Host::new());
    history(&source);
    let spool = memory();
    let never = watch::Sender::new(false).subscribe();
    let (cut, count) = counting(&spool, 2, &never);
    let mut trial = Trial::new(cut);
    let offer = trial.offer(&source);
    // What was begun and both pieces.
    until("two pieces", async || trial.left().await == 3).await;
    assert_eq!(count.load(Ordering::Relaxed), 2);
    offer.abort();
    let _ = offer.await;
    // As long as before: which of its pieces were put is left to chance.
    fs::write(&source.log, vec![b'x'; PIECES * PIECE]).unwrap();

    trial.transport = Arc::clone(&spool);
    trial.source.send_replace(Source::Over);
    let offered = trial.offer(&source).await.unwrap();
    assert!(
        matches!(&offered, offer::Outcome::NotCarried { reason } if reason.contains("offer it again")),
        "{offered:?}"
    );
    assert_eq!(what_is_left(&source, &spool).await, Remaining::All);
    let again = Trial::new(Arc::clone(&spool));
    destination.print("after");
    again.arrives(&source, &destination).await;
    assert!(destination.merged() == "x".repeat(PIECES * PIECE) + "after");
}

/// Torn or altered or gone, behind the commit: told, cleared, sent once more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_in_the_transport_is_sent_once_more() {
    for damage in ["torn", "altered", "gone"] {
        let (source, destination) = (Host::new(), Host::new());
        let text = history(&source);
        let spool = memory();
        let mut trial = Trial::new(Arc::clone(&spool));
        trial.patience = Duration::from_millis(50);
        trial.source.send_replace(Source::Over);
        trial.offer(&source).await.unwrap();
        assert!(matches!(
            what_is_left(&source, &spool).await,
            Remaining::Receipt(_)
        ));

        let key = trial.handoff.key(ObjectName::Chunk {
            offset: PIECE as u64,
            len: u32::try_from(PIECE).unwrap(),
        });
        let mut data = spool.get_bytes(&key, 8 << 20).await.unwrap().to_vec();
        spool.delete(&key).await.unwrap();
        let len = data.len();
        match damage {
            "torn" => data[len / 2..].fill(0),
            "altered" => data[len - 5] ^= 1,
            _ => data.clear(),
        }
        if !data.is_empty() {
            spool.put(&key, data.into()).await.unwrap();
        }
        trial.patience = Duration::from_secs(30);
        trial.here.set(true);
        destination.print("after");
        let adopted = trial.adopt(&destination, false).await.unwrap();
        let adopt::Outcome::Failed { reason } = &adopted else {
            panic!("{damage}: {adopted:?}");
        };
        assert!(
            reason.contains("cannot be used") || reason.contains("missing"),
            "{damage}: {reason}"
        );
        assert_eq!(destination.merged(), "after", "{damage}");
        assert_eq!(destination.names(), ["console.log"], "{damage}");
        assert_eq!(source.merged(), text, "{damage}");
        assert_eq!(trial.left().await, 0, "{damage}");

        assert_eq!(what_is_left(&source, &spool).await, Remaining::All);
        let again = Trial::new(Arc::clone(&spool));
        again.arrives(&source, &destination).await;
        assert_eq!(destination.merged(), text + "after", "{damage}");
    }
}

/// The pieces of a handoff that cannot go on make room for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_fills_up_is_left_empty() {
    let (source, destination) = (Host::new(), Host::new());
    let text = history(&source);
    let folder = tempfile::tempdir().unwrap();
    let spool: Arc<dyn LogTransport> = Arc::new(DirectoryTransport::open(folder.path()).unwrap());
    let room = Arc::new(AtomicU64::new(3));
    let left = Arc::clone(&room);
    let full = FaultTransport::new(Arc::clone(&spool), move |call| {
        let take = |left: u64| left.checked_sub(1);
        let has_room = || {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
        };
        (call.verb == Verb::Put && !has_room()).then(|| {
            let (transport, reason) = ("spool".to_owned(), "No space left on device".to_owned());
            Fault::Fail(Error::Full { transport, reason })
        })
    });
    let trial = Trial::new(Arc::new(full));
    trial.source.send_replace(Source::Over);
    let (offer, adopt) = (trial.offer(&source), trial.adopt(&destination, true));
    let offered = offer.await.unwrap();
    assert!(
        matches!(&offered, offer::Outcome::NotCarried { reason } if reason.contains("No space left")),
        "{offered:?}"
    );
    trial.link.send_replace(SourceLink::Gone);
    let adopted = adopt.await.unwrap();
    assert!(
        !matches!(adopted, adopt::Outcome::Adopted(_)),
        "{adopted:?}"
    );
    assert_eq!(trial.left().await, 0);
    assert_eq!(destination.names(), [""; 0]);

    assert_eq!(what_is_left(&source, &spool).await, Remaining::All);
    let again = Trial::new(Arc::clone(&spool));
    destination.print("after");
    again.arrives(&source, &destination).await;
    assert_eq!(destination.merged(), text + "after");
}

/// Of two destinations one has it, and the other is as it was and says who.
#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_two_destinations_takes_it_in() {
    for round in 0..10 {
        let (source, one, two) = (Host::new(), Host::new(), Host::new());
        source.print("history ");
        one.print("one");
        two.print("two");
        let trial = Trial::new(memory());
        trial.here.set(true);
        let adopts = [trial.adopt(&one, false), trial.adopt(&two, false)];
        let offer = trial.offer(&source);
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        trial.source.send_replace(Source::Over);
        carried(offer.await.unwrap());
        trial.link.send_replace(SourceLink::Gone);
        let mut won = 0;
        for (adopt, (host, own)) in adopts.into_iter().zip([(&one, "one"), (&two, "two")]) {
            match adopt.await.unwrap() {
                adopt::Outcome::Adopted(_) => {
                    won += 1;
                    assert_eq!(host.merged(), format!("history {own}"));
                }
                adopt::Outcome::Failed { .. } => {
                    assert_eq!(host.merged(), own);
                    assert_eq!(host.names(), ["console.log"]);
                }
                adopt::Outcome::Aborted => panic!("nobody withdrew it"),
            }
        }
        assert_eq!(won, 1, "round {round}");
    }
}

/// A destination's half that is killed between its claim and its seal.
pub(super) async fn killed_after_its_claim(
    trial: &mut Trial,
    spool: &Arc<dyn LogTransport>,
    host: &Host,
) {
    let hour = Duration::from_secs(3600);
    trial.transport = Arc::new(FaultTransport::new(Arc::clone(spool), move |call| {
        let is_begin = call.key?.object == ObjectName::Begin;
        (call.verb == Verb::Get && is_begin).then_some(Fault::Delay(hour))
    }));
    let killed = trial.adopt(host, false);
    let claim = trial.handoff.key(ObjectName::Claim);
    until("a claim", async || {
        spool.get_opt(&claim, 1 << 20).await.unwrap().is_some()
    })
    .await;
    killed.abort();
    let _ = killed.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_claimed_first_is_named_and_may_go_on() {
    let (source, one, two) = (Host::new(), Host::new(), Host::new());
    source.print("history ");
    one.print("one");
    two.print("two");
    let spool = memory();
    let mut trial = Trial::new(Arc::clone(&spool));
    trial.patience = Duration::from_millis(50);
    trial.source.send_replace(Source::Over);
    trial.offer(&source).await.unwrap();
    trial.patience = Duration::from_secs(5);
    trial.here.set(true);

    // The first one is killed between its claim and its seal.
    killed_after_its_claim(&mut trial, &spool, &one).await;

    trial.transport = Arc::clone(&spool);
    let adopted = trial.adopt(&two, false).await.unwrap();
    assert!(
        matches!(&adopted, adopt::Outcome::Failed { reason } if reason.contains("h2 takes this log in already")),
        "{adopted:?}"
    );
    assert_eq!(two.names(), ["console.log"]);
    let adopted = trial.adopt(&one, false).await.unwrap();
    assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    assert_eq!(
        (one.merged().as_str(), two.merged().as_str()),
        ("history one", "two")
    );
}

/// A source that could not even withdraw it: the next one, under whatever id, leaves
/// nothing of it behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_withdrawn_goes_with_the_next_one() {
    let (source, destination) = (Host::new(), Host::new());
    source.print("all that it said");
    let spool = memory();
    let first = Trial::new(Arc::clone(&spool));
    let offer = first.offer(&source);
    until("it was not begun", async || first.left().await > 0).await;
    // Killed, or cut off.
    offer.abort();
    let _ = offer.await;
    assert!(first.left().await > 0);

    let next = Trial::new(spool);
    next.arrives(&source, &destination).await;
    assert_eq!(destination.merged(), "all that it said");
    until("it was not cleared", async || first.left().await == 0).await;
    assert_eq!(next.left().await, 0);
}

/// A commit on its way when the line breaks: nobody knows of it, and it may come at any
/// time. It is committed again under the same name, the same to the byte: whoever takes
/// it in, and however often, it is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_late_is_the_one_that_was_put_again() {
    let (source, destination) = (Host::new(), Host::new());
    let text = history(&source);
    let spool = memory();
    let mut trial = Trial::new(Arc::clone(&spool));
    let key = trial.handoff.key(ObjectName::Commit);
    let first = Arc::new(AtomicU64::new(0));
    trial.transport = Arc::new(FaultTransport::new(Arc::clone(&spool), move |call| {
        let is_commit = call.key?.object == ObjectName::Commit;
        let put = is_commit && call.verb == Verb::Put;
        put.then(|| match first.fetch_add(1, Ordering::Relaxed) {
            0 => Fault::LoseAnswer,
            _ => Fault::unreachable(),
        })
    }));
    trial.patience = Duration::from_millis(50);
    trial.source.send_replace(Source::Over);
    let offered = trial.offer(&source).await.unwrap();
    assert!(
        matches!(offered, offer::Outcome::NotCarried { .. }),
        "{offered:?}"
    );
    let late = spool.get_bytes(&key, 8 << 20).await.unwrap();
    spool.delete(&key).await.unwrap();

    let left = what_is_left(&source, &spool).await;
    assert_eq!(left, Remaining::Rest(trial.handoff.id));
    trial.transport = Arc::clone(&spool);
    trial.patience = Duration::from_secs(30);
    destination.print("after");
    let waited = trial.adopt(&destination, true);
    let (offer, adopt) = (trial.offer(&source), trial.adopt(&destination, true));
    until("a commit", async || {
        spool.get_opt(&key, 8 << 20).await.unwrap().is_some()
    })
    .await;
    assert_eq!(spool.get_bytes(&key, 8 << 20).await.unwrap(), late);
    trial.here.set(true);
    carried(offer.await.unwrap());
    for adopted in [waited.await.unwrap(), adopt.await.unwrap()] {
        assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    }
    assert_eq!(destination.merged(), text.clone() + "after");
    // At most a receipt, of the half that came second.
    assert!(trial.left().await <= 1);
    let left = what_is_left(&source, &spool).await;
    assert!(matches!(left, Remaining::Nothing(_)), "{left:?}");

    spool.put(&key, late).await.unwrap();
    let adopted = trial.adopt(&destination, false).await.unwrap();
    assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    assert_eq!(destination.merged(), text + "after");
}

/// Committed over a line that broke: all but the commit is there. Gives the commit too.
async fn without_its_commit(source: &Host, spool: &Arc<dyn LogTransport>) -> (Trial, Bytes) {
    let mut trial = Trial::new(Arc::clone(spool));
    trial.patience = Duration::from_millis(50);
    trial.source.send_replace(Source::Over);
    trial.offer(source).await.unwrap();
    let key = trial.handoff.key(ObjectName::Commit);
    let late = spool.get_bytes(&key, 8 << 20).await.unwrap();
    spool.delete(&key).await.unwrap();
    let left = what_is_left(source, spool).await;
    assert_eq!(left, Remaining::Rest(trial.handoff.id));
    (trial, late)
}

/// Gone on with, and broken off again, or withdrawn: the commit that is on its way may
/// yet make it whole, and then it may be all that there is.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_yet_be_committed_is_never_withdrawn() {
    for comes in [false, true] {
        let source = Host::new();
        source.print("all that it said");
        let spool = memory();
        let (trial, late) = without_its_commit(&source, &spool).await;
        let lies = trial.left().await;

        if comes {
            spool
                .put(&trial.handoff.key(ObjectName::Commit), late)
                .await
                .unwrap();
        } else {
            trial.source.send_replace(Source::Stays);
        }
        let offered = trial.offer(&source).await.unwrap();
        let text = format!("{offered:?}");
        let left = what_is_left(&source, &spool).await;
        if comes {
            assert!(text.contains("over already"), "{text}");
            assert!(matches!(left, Remaining::Receipt(_)), "{left:?}");
            assert_eq!(trial.left().await, lies + 1);
        } else {
            assert_eq!(offered, offer::Outcome::Aborted);
            assert_eq!(left, Remaining::Rest(trial.handoff.id));
            assert_eq!(trial.left().await, lies);
        }

        // One that begins anew does not clear it either, and neither do files that are
        // not the same any more go on with it.
        source.print(", and more");
        assert_eq!(what_is_left(&source, &spool).await, Remaining::All);
        let before = trial.left().await;
        let destination = Host::new();
        let next = Trial::new(Arc::clone(&spool));
        next.arrives(&source, &destination).await;
        assert_eq!(destination.merged(), "all that it said, and more");
        assert_eq!(trial.left().await, before);
    }
}

/// With a piece that is torn, or with two for one place, it will never be whole: it is
/// withdrawn, and a commit that comes late changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_whole_is_withdrawn() {
    for twice in [false, true] {
        let source = Host::new();
        source.print("all that it said");
        let spool = memory();
        let (trial, late) = without_its_commit(&source, &spool).await;
        let entries = spool.list_all(&trial.handoff.prefix()).await.unwrap();
        let is_piece = |e: &&Entry| matches!(e.key.object, ObjectName::Chunk { .. });
        let piece = &entries.iter().find(is_piece).unwrap().key;
        if twice {
            // Of an earlier run, for less of it: it came late.
            let object = ObjectName::Chunk { offset: 0, len: 3 };
            let before = trial.handoff.key(object);
            spool.put(&before, "all".into()).await.unwrap();
        } else {
            spool.delete(piece).await.unwrap();
            spool.put(piece, "torn".into()).await.unwrap();
        }

        let left = what_is_left(&source, &spool).await;
        assert_eq!(left, Remaining::Rest(trial.handoff.id));
        let offered = trial.offer(&source).await.unwrap();
        assert!(
            matches!(offered, offer::Outcome::NotCarried { .. }),
            "{offered:?}"
        );
        assert_eq!(what_is_left(&source, &spool).await, Remaining::All);
        spool
            .put(&trial.handoff.key(ObjectName::Commit), late)
            .await
            .unwrap();
        assert_eq!(what_is_left(&source, &spool).await, Remaining::All);
    }
}

/// Fewer bytes than were committed are no end of the same handoff.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_a_file_since_begins_anew() {
    let source = Host::new();
    source.write("console.log.0", "first ");
    source.print("second");
    let spool = memory();
    without_its_commit(&source, &spool).await;
    fs::remove_file(source.dir.path().join("console.log.0")).unwrap();
    assert_eq!(what_is_left(&source, &spool).await, Remaining::All);
}
