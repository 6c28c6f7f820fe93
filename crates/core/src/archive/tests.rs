use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use proptest::prelude::*;
use tokio::sync::watch;

use super::batch::MOST;
use super::*;
use crate::chain::{LogChain, NumberingChoice};
use crate::transport::fault::{Fault, FaultTransport, Verb};
use crate::transport::{LogTransport, MemoryTransport};

/// A log, and all that was ever written to it.
pub(super) struct Bed {
    dir: tempfile::TempDir,
    log: File,
    backups: u32,
    pub(super) written: Vec<u8>,
    /// Its streamers share this, where there is one.
    pub(super) pool: Option<Arc<StreamPool>>,
}

impl Bed {
    pub(super) fn new(backups: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("l")).unwrap();
        let written = Vec::new();
        Self {
            dir,
            log,
            backups,
            written,
            pool: None,
        }
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.path().join(format!("l{ending}"))
    }

    pub(super) fn print(&mut self, count: usize) {
        let from = self.written.len();
        let byte = |n: usize| u8::try_from((n * 31 + n / 97) % 251).unwrap();
        self.written.extend((from..from + count).map(byte));
        self.log.write_all(&self.written[from..]).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "it plays virtlogd")]
    pub(super) fn roll_over(&mut self) {
        for to in (0..self.backups).rev() {
            let from = to
                .checked_sub(1)
                .map_or_else(String::new, |n| format!(".{n}"));
            if self.path(&from).exists() {
                fs::rename(self.path(&from), self.path(&format!(".{to}"))).unwrap();
            }
        }
        self.log = File::create(self.path("")).unwrap();
    }

    pub(super) fn chain(&self) -> LogChain {
        LogChain::open(&self.path(""), NumberingChoice::FromZero).unwrap()
    }

    pub(super) fn streamer(&self, archive: &Archive) -> Streamer {
        let chain = self.chain();
        let limits = Limits {
            delay: Duration::from_millis(20),
            patience: Duration::from_millis(300),
            ..Limits::default()
        };
        let streamer = Streamer::new(archive.clone(), chain).with_limits(limits);
        match &self.pool {
            Some(pool) => streamer.in_pool(Arc::clone(pool)),
            None => streamer,
        }
    }

    /// Puts what is there.
    pub(super) async fn put(&self, archive: &Archive) -> Result<u64> {
        let (_ask, asked) = watch::channel(Ask::End);
        self.streamer(archive).run(asked).await
    }
}

pub(super) fn archive() -> Archive {
    of(Arc::new(MemoryTransport::new()))
}

pub(super) fn of(transport: Arc<dyn LogTransport>) -> Archive {
    let domain = Uuid::from_u128(7);
    Archive::new(transport, domain, "serial0".parse().unwrap())
}

pub(super) async fn read(
    archive: &Archive,
    from: u64,
    most: u64,
) -> (Vec<u8>, Vec<(u64, Option<u64>)>) {
    let parts = archive.read(from, most).await.unwrap();
    let parts: Vec<Part> = parts.try_collect().await.unwrap();
    let (mut all, mut missing, mut at) = (Vec::new(), Vec::new(), from);
    for part in parts {
        match &part {
            Part::Bytes { offset, bytes } => {
                assert_eq!(*offset, at);
                all.extend_from_slice(bytes);
            }
            Part::Missing { next, size } => missing.push((*next, *size)),
        }
        at = part.next();
    }
    (all, missing)
}

async fn batches(archive: &Archive) -> usize {
    let all = archive.transport.list_all(&archive.prefix()).await;
    all.unwrap().len()
}

#[tokio::test]
async fn runs_that_follow_each_other_leave_one_stream() {
    let (mut bed, archive) = (Bed::new(3), archive());
    assert!(archive.end().await.unwrap().is_none());
    assert_eq!(bed.put(&archive).await.unwrap(), 0);
    bed.print(1000);
    bed.roll_over();
    bed.print(10);
    assert_eq!(bed.put(&archive).await.unwrap(), 1010);
    assert_eq!(bed.put(&archive).await.unwrap(), 1010);
    bed.print(5);
    assert_eq!(bed.put(&archive).await.unwrap(), 1015);
    assert_eq!(read(&archive, 0, u64::MAX).await.0, bed.written);
    assert_eq!(read(&archive, 1008, 5).await.0, bed.written[1008..1013]);
    assert_eq!(read(&archive, 1015, 5).await.0, b"");
    assert_eq!(archive.first().await.unwrap(), Some(0));
    assert_eq!(batches(&archive).await, 2);
}

#[tokio::test]
async fn what_is_larger_than_a_batch_goes_into_some() {
    let (mut bed, archive) = (Bed::new(3), archive());
    bed.print(2 * MOST + 100);
    bed.put(&archive).await.unwrap();
    assert_eq!(batches(&archive).await, 3);
    assert_eq!(read(&archive, 0, u64::MAX).await.0, bed.written);
    let from = MOST as u64 - 3;
    let middle = read(&archive, from, 7).await.0;
    assert_eq!(middle, bed.written[MOST - 3..MOST + 4]);
}

#[tokio::test]
async fn a_byte_waits_no_longer_than_it_may() {
    let (mut bed, archive) = (Bed::new(3), archive());
    let (ask, asked) = watch::channel(Ask::Go);
    let streamer = bed.streamer(&archive);
    let mut standing = streamer.standing();
    let run = tokio::spawn(streamer.run(asked));
    for _ in 0..3 {
        bed.print(100);
        let all = bed.written.len() as u64;
        let there = standing.wait_for(|s| s.offset == all);
        tokio::time::timeout(Duration::from_secs(20), there)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read(&archive, 0, u64::MAX).await.0, bed.written);
    }
    ask.send_replace(Ask::Drain);
    // What comes after the guest has left is put, too.
    bed.print(50);
    assert_eq!(run.await.unwrap().unwrap(), 350);
    assert_eq!(read(&archive, 0, u64::MAX).await.0, bed.written);
}

#[tokio::test]
async fn another_log_is_never_mixed_in() {
    let (mut bed, archive) = (Bed::new(3), archive());
    bed.print(100);
    bed.put(&archive).await.unwrap();

    let mut other = Bed::new(3);
    let error = other.put(&archive).await.unwrap_err();
    assert!(
        matches!(error, Error::NotHere { archived: 100, .. }),
        "{error}"
    );
    other.log.write_all(&[7; 200]).unwrap();
    let error = other.put(&archive).await.unwrap_err();
    assert!(
        matches!(error, Error::NotHere { archived: 100, .. }),
        "{error}"
    );

    // The same up to there, and then not: both put at once.
    let (mut one, mut two) = (Bed::new(3), Bed::new(3));
    let archive = self::archive();
    let (_ask, asked) = watch::channel(Ask::Go);
    one.print(10);
    two.print(10);
    one.put(&archive).await.unwrap();
    let streamer = two.streamer(&archive);
    let mut standing = streamer.standing();
    let run = tokio::spawn(streamer.run(asked));
    standing.wait_for(|s| s.offset == 10).await.unwrap();
    one.print(10);
    one.put(&archive).await.unwrap();
    two.log.write_all(b"quite another").unwrap();
    let error = run.await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Diverged { offset: 10, .. }),
        "{error}"
    );
    assert_eq!(read(&archive, 0, u64::MAX).await.0, one.written);
}

#[tokio::test]
async fn a_log_without_its_history_goes_on_behind_a_gap_where_asked() {
    let (mut bed, archive) = (Bed::new(3), archive());
    bed.print(100);
    bed.put(&archive).await.unwrap();
    let mut other = Bed::new(3);
    other.print(30);
    let (_ask, asked) = watch::channel(Ask::End);
    let streamer = other.streamer(&archive).leaving_a_gap();
    // Its first bytes are those of the stream: not where the stream ends.
    assert_eq!(streamer.run(asked).await.unwrap(), 130);
    let (all, missing) = read(&archive, 0, u64::MAX).await;
    assert_eq!(all, [&bed.written[..], &other.written].concat());
    assert_eq!(missing, [(100, None)]);
    // Once begun it goes on without being asked again.
    other.print(5);
    assert_eq!(other.put(&archive).await.unwrap(), 135);
}

#[tokio::test]
async fn what_the_rotation_dropped_is_a_gap() {
    let (mut bed, archive) = (Bed::new(1), archive());
    bed.print(100);
    bed.put(&archive).await.unwrap();
    // Known by the record that the streamer keeps, though no byte of it is left.
    for _ in 0..3 {
        bed.print(10);
        bed.roll_over();
        let chain = LogChain::open(&bed.path(""), NumberingChoice::FromZero).unwrap();
        crate::offsets::Offsets::of(&chain)
            .unwrap()
            .remember(&chain)
            .unwrap();
    }
    bed.print(1);
    assert_eq!(bed.put(&archive).await.unwrap(), 131);
    let (all, missing) = read(&archive, 90, u64::MAX).await;
    assert_eq!(missing, [(120, Some(20))]);
    assert_eq!(all, [&bed.written[90..100], &bed.written[120..]].concat());
}

#[tokio::test]
async fn no_stream_begins_while_a_history_is_on_its_way() {
    let (mut bed, archive) = (Bed::new(3), archive());
    bed.print(10);
    let arriving = bed.dir.path().join(".l.logchain.d");
    fs::create_dir(&arriving).unwrap();
    let error = bed.put(&archive).await.unwrap_err();
    assert!(
        matches!(error, Error::NotHere { archived: 0, .. }),
        "{error}"
    );
    fs::remove_dir(arriving).unwrap();
    assert_eq!(bed.put(&archive).await.unwrap(), 10);
}

#[tokio::test]
async fn old_batches_go_and_nothing_else() {
    let (mut bed, archive) = (Bed::new(3), archive());
    for _ in 0..10 {
        bed.print(10);
        bed.put(&archive).await.unwrap();
    }
    archive.forget_before(45).await.unwrap();
    assert_eq!(archive.first().await.unwrap(), Some(40));
    archive.forget_before(50).await.unwrap();
    assert_eq!(archive.first().await.unwrap(), Some(50));
    let (all, missing) = read(&archive, 0, u64::MAX).await;
    assert_eq!(
        (all.as_slice(), missing),
        (&bed.written[50..], vec![(50, Some(50))])
    );
    archive.forget_before(u64::MAX).await.unwrap();
    assert_eq!(batches(&archive).await, 0);
}

#[tokio::test]
async fn a_streamer_keeps_no_more_than_it_is_told() {
    let (mut bed, archive) = (Bed::new(3), archive());
    bed.print(20 * MOST);
    let limits = Limits {
        keep: Some(4 * MOST as u64),
        ..Limits::default()
    };
    let (_ask, asked) = watch::channel(Ask::End);
    bed.streamer(&archive)
        .with_limits(limits)
        .run(asked)
        .await
        .unwrap();
    let first = archive.first().await.unwrap().unwrap();
    let kept = bed.written.len() as u64 - first;
    assert!(kept >= 4 * MOST as u64 && kept <= 6 * MOST as u64, "{kept}");
    assert_eq!(
        read(&archive, first, u64::MAX).await.0,
        bed.written[20 * MOST - usize::try_from(kept).unwrap()..]
    );
}

#[tokio::test]
async fn streams_are_found_among_others() {
    let transport: Arc<dyn LogTransport> = Arc::new(MemoryTransport::new());
    let mut expected = Vec::new();
    for n in 0..5_u128 {
        let domain = Uuid::from_u128(n);
        let archive = Archive::new(Arc::clone(&transport), domain, "serial0".parse().unwrap());
        let key = Key {
            collection: crate::ids::HandoffId::random().into(),
            object: ObjectName::Begin,
            ..archive.key(0)
        };
        transport.put(&key, Bytes::new()).await.unwrap();
        if n % 2 == 0 {
            let mut bed = Bed::new(1);
            for _ in 0..3 {
                bed.print(4);
                let (_ask, asked) = watch::channel(Ask::End);
                let names = (format!("vm{n}"), "h1".to_owned());
                let streamer = bed.streamer(&archive).with_names(names.0, names.1);
                streamer.run(asked).await.unwrap();
            }
            expected.push(Head {
                domain,
                console: archive.console().clone(),
                name: format!("vm{n}"),
            });
        }
    }
    assert_eq!(heads(&transport, &Prefix::All).await.unwrap(), expected);
}

#[tokio::test]
async fn a_tail_is_cheap_however_long_the_stream_is() {
    let transport = Arc::new(MemoryTransport::new());
    let archive = of(Arc::clone(&transport) as Arc<dyn LogTransport>);
    for offset in (0..30_000).step_by(10) {
        let batch = Batch {
            offset,
            after_gap: false,
            about: About::default(),
            bytes: Bytes::from_static(b"0123456789"),
        };
        transport
            .put(&archive.key(offset), batch.encode().unwrap())
            .await
            .unwrap();
    }
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let watched = FaultTransport::new(transport, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        None
    });
    let archive = of(Arc::new(watched));
    let end = archive.end().await.unwrap().unwrap().offset;
    assert_eq!(end, 30_000);
    assert_eq!(
        read(&archive, end - 15, u64::MAX).await.0,
        b"567890123456789"
    );
    // Twice a listing, the newest batch, and the two that hold it.
    assert_eq!(calls.load(Ordering::Relaxed), 5);
}

#[test]
fn a_batch_comes_back_and_nothing_else_does() {
    let batch = Batch {
        offset: 77,
        after_gap: true,
        about: About {
            name: "vm".to_owned(),
            host: "h1".to_owned(),
            at: Timestamp::constant(5, 0),
        },
        bytes: Bytes::from(vec![b'x'; 5000]),
    };
    let data = batch.encode().unwrap();
    assert!(data.len() < 1000);
    assert_eq!(Batch::decode(77, &data).unwrap(), batch);
    assert!(Batch::decode(78, &data).is_err());
    for n in 0..data.len() {
        assert!(Batch::decode(77, &data[..n]).is_err(), "cut at {n}");
        let mut altered = data.to_vec();
        altered[n] ^= 1;
        // Some bits of a compressed frame mean nothing.
        if let Ok(read) = Batch::decode(77, &altered) {
            assert_eq!(read, batch);
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Print(usize),
    RollOver,
    /// A run to its end.
    Put,
    /// A run that is killed after so many calls of the transport.
    Killed(u64),
    /// Two runs side by side, the transport failing now and then.
    Both(Vec<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..2000_usize).prop_map(Act::Print),
        1 => Just(Act::Print(MOST + 5)),
        2 => Just(Act::RollOver),
        2 => Just(Act::Put),
        2 => (1..8_u64).prop_map(Act::Killed),
        2 => proptest::collection::vec(0..6_u8, 0..12).prop_map(Act::Both),
    ]
}

/// Fails as the plan says, and then no more.
fn failing(transport: &Arc<MemoryTransport>, plan: Vec<u8>) -> Archive {
    let next = AtomicU64::new(0);
    let inner = Arc::clone(transport);
    of(Arc::new(FaultTransport::new(inner, move |call| {
        let at = next.fetch_add(1, Ordering::Relaxed);
        match (plan.get(usize::try_from(at).unwrap()), call.verb) {
            (Some(0), Verb::Put) => Some(Fault::unreachable()),
            (Some(1), Verb::Put) => Some(Fault::LoseAnswer),
            (Some(2), _) => Some(Fault::Delay(Duration::from_millis(3))),
            _ => None,
        }
    })))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_byte_is_lost_or_doubled(
        acts in proptest::collection::vec(act(), 0..14),
        in_pool in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let transport = Arc::new(MemoryTransport::new());
            let archive = of(Arc::clone(&transport) as Arc<dyn LogTransport>);
            let mut bed = Bed::new(64);
            let pool = || Arc::new(StreamPool::start(PoolLimits::default()).unwrap());
            bed.pool = in_pool.then(pool);
            for act in acts {
                match act {
                    Act::Print(count) => bed.print(count),
                    Act::RollOver => bed.roll_over(),
                    Act::Put => {
                        bed.put(&archive).await.unwrap();
                        assert_eq!(read(&archive, 0, u64::MAX).await.0, bed.written);
                    }
                    Act::Killed(calls) => {
                        let left = Arc::new(tokio::sync::Semaphore::new(0));
                        let (seen, told) = (AtomicU64::new(0), Arc::clone(&left));
                        let inner = Arc::clone(&transport);
                        let killed = of(Arc::new(FaultTransport::new(inner, move |_| {
                            let last = seen.fetch_add(1, Ordering::Relaxed) + 1 >= calls;
                            if last {
                                told.add_permits(1);
                            }
                            last.then_some(Fault::LoseAnswer)
                        })));
                        tokio::select! {
                            _ = bed.put(&killed) => {}
                            _ = left.acquire() => {}
                        }
                    }
                    Act::Both(plan) => {
                        let second = failing(&transport, plan.iter().rev().copied().collect());
                        let first = failing(&transport, plan);
                        let (first, second) = tokio::join!(bed.put(&first), bed.put(&second));
                        for run in [first, second] {
                            assert!(matches!(run, Ok(_) | Err(Error::NotPut { .. })), "{run:?}");
                        }
                        bed.put(&archive).await.unwrap();
                        assert_eq!(read(&archive, 0, u64::MAX).await.0, bed.written);
                    }
                }
                let (all, missing) = read(&archive, 0, u64::MAX).await;
                assert_eq!(missing, []);
                assert_eq!(all, bed.written[..all.len()]);
            }
        });
    }

    #[test]
    fn no_batch_makes_decoding_fall_over(offset: u64, data in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Batch::decode(offset, &data).is_err());
    }
}

/// As the first version put it: whoever changes the format still reads this.
#[test]
fn a_batch_of_the_first_version_is_read() {
    let hex = "0102200005000000c052e8663d74b9bbf6efc555499652436a8d2ec76de8459c2d61bb0a1ab3d8b9\
               7b226e616d65223a22766d222c22686f7374223a226831222c226174223a357d68656c6c6f";
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let data: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let batch = Batch {
        offset: 77,
        after_gap: true,
        about: About {
            name: "vm".to_owned(),
            host: "h1".to_owned(),
            at: Timestamp::constant(5, 0),
        },
        bytes: Bytes::from_static(b"hello"),
    };
    assert_eq!(batch.encode().unwrap(), data);
    assert_eq!(Batch::decode(77, &data), Ok(batch));
}
