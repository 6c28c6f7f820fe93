//! Logs that did not get over, and what becomes of them when the VM moves on or
//! comes back: no byte lost, none doubled, none out of order.

use super::*;

/// The guest comes to `host`, as libvirt prepares it.
pub(super) fn arrive(host: &Host, append: bool, text: &str) {
    if !append {
        for name in host.names() {
            if name.starts_with("console.log") {
                fs::remove_file(host.dir.path().join(name)).unwrap();
            }
        }
    }
    host.print(text);
}

/// A migration with its log; the receipt that the source gets.
pub(super) async fn moves(
    transport: &Arc<dyn LogTransport>,
    from: &Host,
    to: &Host,
    append: bool,
    text: &str,
) -> Receipt {
    let trial = Trial::new(Arc::clone(transport));
    let offer = trial.offer(from);
    let (ready, mut is_ready) = mpsc::channel(64);
    let writers = Arc::new(FakeWriters::Base(to.log.clone(), trial.here.clone()));
    let adopt = trial.adopt_beside(to, true, ready, writers);
    while is_ready.recv().await != Some(adopt::Milestone::Ready) {}
    arrive(to, append, text);
    trial.here.set(true);
    trial.source.send_replace(Source::Over);
    let adopted = adopt.await.unwrap();
    assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    let receipt = carried(offer.await.unwrap());
    assert_eq!(trial.left().await, 0);
    receipt
}

/// A migration whose log stays where it is: nobody adopts. `committed`: all of
/// it got as far as the transport.
pub(super) async fn moves_alone(
    transport: &Arc<dyn LogTransport>,
    (from, to): (&Host, &Host),
    append: bool,
    text: &str,
    committed: bool,
) -> Trial {
    let mut trial = Trial::new(Arc::clone(transport));
    trial.patience = Duration::from_millis(100);
    let offer = trial.offer(from);
    arrive(to, append, text);
    if committed {
        trial.source.send_replace(Source::Over);
    } else {
        trial
            .far
            .send_replace(AdoptStatus::Failed("gone".to_owned()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        offer.abort();
        let _ = offer.await;
        return trial;
    }
    let outcome = offer.await.unwrap();
    assert!(
        matches!(outcome, offer::Outcome::NotCarried { .. }),
        "{outcome:?}"
    );
    trial.patience = Duration::from_secs(5);
    trial.here.set(true);
    trial
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stayed_behind_joins_when_the_vm_comes_back() {
    for append in [false, true] {
        for committed in [false, true] {
            let (a, b) = (Host::new(), Host::new());
            let spool = memory();
            a.print("1 ");
            moves_alone(&spool, (&a, &b), append, "2 ", committed).await;
            assert_eq!(b.merged(), "2 ");
            moves(&spool, &b, &a, append, "3 ").await;
            assert_eq!(
                a.merged(),
                "1 2 3 ",
                "append {append}, committed {committed}"
            );
            // And it goes on from there, whole.
            moves(&spool, &a, &b, append, "4 ").await;
            assert_eq!(
                b.merged(),
                "1 2 3 4 ",
                "append {append}, committed {committed}"
            );
            moves(&spool, &b, &a, append, "5 ").await;
            assert_eq!(
                a.merged(),
                "1 2 3 4 5 ",
                "append {append}, committed {committed}"
            );
            let hops = a.record(&Trial::new(memory()).handoff).unwrap().ledger;
            assert_eq!(hops.end().get(), 10);
        }
    }
}

/// A handoff that nobody adopted, found when its bytes have come another way.
#[tokio::test(flavor = "multi_thread")]
async fn a_handoff_adopted_late_is_not_placed_twice() {
    let (a, b) = (Host::new(), Host::new());
    let spool = memory();
    a.print("1 ");
    let stale = moves_alone(&spool, (&a, &b), false, "2 ", true).await;
    let other = memory();
    moves(&other, &b, &a, false, "3 ").await;
    moves(&other, &a, &b, false, "4 ").await;
    assert_eq!(b.merged(), "1 2 3 4 ");
    let adopted = stale.adopt(&b, false).await.unwrap();
    assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    assert_eq!(b.merged(), "1 2 3 4 ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_receipt_was_lost_can_be_offered_elsewhere() {
    let (a, b) = (Host::new(), Host::new());
    let spool = memory();
    a.print("1 ");
    let first = moves_alone(&spool, (&a, &b), false, "2 ", true).await;
    let adopted = first.adopt(&b, false).await.unwrap();
    assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    assert_eq!(b.merged(), "1 2 ");

    // The receipt lies in the first transport: only it is missing.
    assert!(matches!(
        what_is_left(&a, &spool).await,
        Remaining::Receipt(_)
    ));
    // A transport that knows nothing of it gets all of it, the host nothing twice.
    let other = memory();
    assert_eq!(what_is_left(&a, &other).await, Remaining::All);
    let again = Trial::new(Arc::clone(&other));
    again.arrives(&a, &b).await;
    assert_eq!(b.merged(), "1 2 ");
    assert!(matches!(
        what_is_left(&a, &other).await,
        Remaining::Nothing(_)
    ));
    // What came since is no part of what was handed over.
    a.print("more ");
    assert_eq!(what_is_left(&a, &other).await, Remaining::All);
}

/// The receipt that is given again tells of the files as they are by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_was_lost_says_what_is_here_when_it_is_given_again() {
    let (a, b) = (Host::new(), Host::new());
    a.write("console.log.0", "1 ");
    a.print("22 ");
    let first = moves_alone(&memory(), (&a, &b), false, "3 ", true).await;
    let adopted = first.adopt(&b, false).await.unwrap();
    assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    assert_eq!(b.merged(), "1 22 3 ");

    // A rollover, which keeps two files.
    let rollover = "mv console.log.0 console.log.1 && mv console.log console.log.0";
    b.run(rollover);
    b.print("4 ");
    let again = Trial::new(memory());
    again.here.set(true);
    again.source.send_replace(Source::Over);
    let (offer, adopt) = (again.offer(&a), again.adopt(&b, false));
    let receipt = carried(offer.await.unwrap());
    adopt.await.unwrap();
    assert_eq!(b.merged(), "22 3 4 ");
    says_what_is_here(&receipt, &b);
    let there = vec![("console.log.1".to_owned(), 3)];
    assert_eq!((receipt.placed, receipt.dropped), (there, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_offered_after_the_vm_went_on_comes_to_lie_before() {
    let (a, b, c) = (Host::new(), Host::new(), Host::new());
    let spool = memory();
    a.print("1 ");
    moves_alone(&spool, (&a, &b), false, "2 ", false).await;
    moves(&spool, &b, &c, false, "3 ").await;
    assert_eq!(c.merged(), "2 3 ");
    let late = Trial::new(Arc::clone(&spool));
    late.arrives(&a, &c).await;
    assert_eq!(c.merged(), "1 2 3 ");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_vms_log_at_the_same_path_is_left_to_libvirt() {
    let (a, b) = (Host::new(), Host::new());
    let spool = memory();
    a.print("another VM's ");
    let mut other = Trial::new(Arc::clone(&spool));
    other.handoff.domain = Uuid::from_u128(99);
    other.offer(&a).abort();
    b.print("1 ");
    moves(&spool, &b, &a, false, "2 ").await;
    assert_eq!(a.merged(), "1 2 ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_killed_is_not_waited_for() {
    let (source, destination) = (Host::new(), Host::new());
    source.print("old ");
    destination.print("here before ");
    let mut trial = Trial::new(memory());
    trial.patience = Duration::from_secs(600);
    let offer = trial.offer(&source);
    let adopt = trial.adopt(&destination, true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    offer.abort();
    trial.link.send_replace(SourceLink::Gone);
    let outcome = tokio::time::timeout(Duration::from_secs(20), adopt).await;
    let outcome = outcome.unwrap().unwrap();
    assert!(
        matches!(outcome, adopt::Outcome::Failed { .. }),
        "{outcome:?}"
    );
    assert_eq!(destination.names(), ["console.log"]);
    assert_eq!(destination.merged(), "here before ");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_finished_though_the_connection_broke() {
    let (source, destination) = (Host::new(), Host::new());
    source.print("old ");
    destination.print("new ");
    let trial = Trial::new(memory());
    let offer = trial.offer(&source);
    trial.source.send_replace(Source::Over);
    trial.far.send_replace(AdoptStatus::Working);
    while trial.left().await < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    trial
        .far
        .send_replace(AdoptStatus::Lost("ssh ended".to_owned()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    trial.here.set(true);
    trial.link.send_replace(SourceLink::Gone);
    let adopt = trial.adopt(&destination, false);
    carried(offer.await.unwrap());
    adopt.await.unwrap();
    assert_eq!(destination.merged(), "old new ");
}

/// What is in an outbox is offered as the same handoff for good: who has its bytes
/// from another host knows it by its id, however early its half begins to look.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_placed_at_one_host_is_not_placed_again_at_the_next() {
    let (a, b, c) = (Host::new(), Host::new(), Host::new());
    let spool = memory();
    a.print("1 ");
    let late = moves_alone(&spool, (&a, &b), false, "2 ", true).await;
    let adopted = late.adopt(&b, false).await.unwrap();
    assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    moves(&spool, &b, &c, false, "3 ").await;
    assert_eq!(c.merged(), "1 2 3 ");

    let mut again = Trial::new(memory());
    again.handoff = late.handoff.clone();
    again.here.set(true);
    let adopt = again.adopt(&c, false);
    tokio::time::sleep(Duration::from_millis(100)).await;
    again.source.send_replace(Source::Over);
    carried(again.offer(&a).await.unwrap());
    let adopted = adopt.await.unwrap();
    assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    assert_eq!(c.merged(), "1 2 3 ");
    assert_eq!(again.left().await, 0);
    assert!(
        !c.names().iter().any(|n| n.ends_with(".d")),
        "{:?}",
        c.names()
    );
}

/// A guest that prints nothing brings back the very bytes that it left here. The receipt
/// names the files that are here now and counts what a lower limit left out.
#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_of_a_silent_guest_says_what_is_here_now() {
    let full = |letter: &str| letter.repeat(100);
    let all = ["a", "b", "c", "d"].map(full).concat();
    for append in [false, true] {
        let (a, b, spool) = (Host::new(), Host::new(), memory());
        for host in [&a, &b] {
            host.retention.set(Retention::virtlogd(100, 20));
        }
        a.write("console.log.2", &full("a"));
        a.write("console.log.1", &full("b"));
        a.write("console.log.0", &full("c"));
        a.print(&full("d"));
        for _ in 0..2 {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let receipt = moves(&spool, from, to, append, "").await;
                says_what_is_here(&receipt, to);
                assert_eq!((receipt.dropped, to.merged()), (0, all.clone()));
            }
        }
        moves(&spool, &a, &b, append, "").await;
        a.retention.set(Retention::virtlogd(100, 1));
        let receipt = moves(&spool, &b, &a, append, "").await;
        says_what_is_here(&receipt, &a);
        assert!(receipt.dropped > 0, "{receipt:?}");
        let from = usize::try_from(receipt.dropped).unwrap();
        assert_eq!(Some(a.merged().as_str()), all.get(from..));
    }
}

fn says_what_is_here(receipt: &Receipt, host: &Host) {
    let is_here = |(name, size): &(String, u64)| {
        let stat = fs::metadata(host.dir.path().join(name)).unwrap();
        assert_eq!(stat.len(), *size, "{name}");
        *size
    };
    let here: u64 = receipt.placed.iter().map(is_here).sum();
    assert_eq!(here + receipt.dropped, receipt.bytes, "{receipt:?}");
}

/// An operator may compress what a VM left here while it is away, or restore it from a
/// backup. What holds anything else stays.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_compressed_or_copied_while_the_vm_was_away_goes_when_it_comes_back() {
    let copy = "cp console.log.1 x && mv x console.log.1";
    let other = "head -c 600 /dev/zero | tr '\\0' o > x && mv x console.log.1";
    for (script, kept) in [("gzip console.log.1", 0), (copy, 0), (other, 600)] {
        for text in ["", "4 "] {
            let (a, b, spool) = (Host::new(), Host::new(), memory());
            a.write("console.log.1", &"1 ".repeat(300));
            a.write("console.log.0", &"2 ".repeat(300));
            a.print("3 ");
            let before = a.merged();
            moves(&spool, &a, &b, false, text).await;
            a.run(script);
            moves(&spool, &b, &a, false, "").await;
            let history = format!("{}{before}{text}", "o".repeat(kept));
            assert_eq!(a.merged(), history, "{script}: {:?}", a.names());
        }
    }
}
