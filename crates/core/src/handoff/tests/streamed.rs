//! A log that is streamed to the same place: only where its bytes lie is put.

use super::*;
use crate::archive::{Archive, Ask, Streamer};

fn archive(trial: &Trial) -> Archive {
    let handoff = &trial.handoff;
    let transport = Arc::clone(&trial.transport);
    Archive::new(transport, handoff.domain, handoff.console.clone())
}

/// Puts what is there into the stream.
async fn stream(trial: &Trial, host: &Host) {
    let chain = LogChain::open(&host.log, NumberingChoice::FromZero).unwrap();
    let (_ask, asked) = watch::channel(Ask::End);
    let put = Streamer::new(archive(trial), chain).run(asked).await;
    put.unwrap();
}

fn lines(from: usize, to: usize) -> String {
    (from..to).map(|n| format!("line {n:08}\n")).collect()
}

/// The bytes of the handoff's pieces in the transport, once so many lie there.
async fn pieces(trial: &Trial, count: usize) -> u64 {
    loop {
        let entries = trial.transport.list_all(&trial.handoff.prefix()).await;
        let chunk = |o: &ObjectName| matches!(o, ObjectName::Chunk { .. });
        let entries = entries.unwrap();
        let pieces = entries.iter().filter(|e| chunk(&e.key.object));
        let sizes: Vec<u64> = pieces.map(|e| e.size).collect();
        if sizes.len() >= count {
            return sizes.iter().sum();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_streamed_is_not_put_again() {
    let (source, destination) = (Host::new(), Host::new());
    source.write("console.log.0", &lines(0, 270_000));
    source.print(&lines(270_000, 300_000));
    let trial = Trial::new(memory());
    stream(&trial, &source).await;
    source.print(&lines(300_000, 300_100));
    let offer = trial.offer(&source);
    // Two of the rotated file, and the base, whose end is in no stream yet.
    let put = pieces(&trial, 3).await;
    assert!(put < 64 * 1024, "{put} bytes were put");
    let adopt = trial.adopt(&destination, true);
    trial.here.set(true);
    trial.source.send_replace(Source::Over);
    carried(offer.await.unwrap());
    adopt.await.unwrap();
    assert_eq!(destination.merged(), lines(0, 300_100));

    // The stream goes on from there.
    destination.print(&lines(300_100, 300_200));
    stream(&trial, &destination).await;
    let end = archive(&trial).end().await.unwrap().unwrap();
    assert_eq!(end.offset, destination.merged().len() as u64);
}

/// A stream that is not this log's is found out before anything is placed; the
/// next offer goes without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_other_bytes_is_found_out() {
    let (source, destination, other) = (Host::new(), Host::new(), Host::new());
    source.print(&lines(0, 10_000));
    other.print(&lines(1, 10_001));
    let mut trial = Trial::new(memory());
    stream(&trial, &other).await;
    let adopt = trial.adopt(&destination, true);
    let offer = trial.offer(&source);
    trial.here.set(true);
    trial.source.send_replace(Source::Over);
    let adopted = adopt.await.unwrap();
    assert!(
        matches!(adopted, adopt::Outcome::Failed { .. }),
        "{adopted:?}"
    );
    trial
        .far
        .send_replace(AdoptStatus::Failed("it failed".to_owned()));
    let offered = offer.await.unwrap();
    assert!(
        matches!(offered, offer::Outcome::NotCarried { .. }),
        "{offered:?}"
    );
    assert_eq!(destination.names(), [""; 0]);

    trial.far = watch::Sender::new(AdoptStatus::Working);
    trial.handoff.id = HandoffId::random();
    let (offer, adopt) = (trial.offer(&source), trial.adopt(&destination, true));
    carried(offer.await.unwrap());
    adopt.await.unwrap();
    assert_eq!(destination.merged(), lines(0, 10_000));
}
