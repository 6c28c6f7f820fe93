//! Many handoffs at once in one process, for the tests of any transport. They
//! panic where one does not arrive.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::adopt::{self, Adopt, Milestone, Place, SourceLink};
use super::offer::{self, AdoptStatus, Held, Offer, Source};
use super::{Budget, Handoff};
use crate::chain::{LogChain, Numbering, NumberingChoice};
use crate::follow::NoWriters;
use crate::ids::HandoffId;
use crate::placement::Rules;
use crate::rotation::Retention;
use crate::transport::{ByteStream, Entry, Key, LogTransport, Prefix, Result};

/// So many bytes are much.
const MUCH: usize = 256 << 10;

/// Long: a machine under load has other things to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// Hands over a history of each of `sizes` bytes, all at once: all are held, and
/// all destinations ready, before the first is over. `near` and `far` are the
/// two sides' ways to one store.
pub async fn all_arrive(
    root: &Path,
    sizes: &[usize],
    near: Arc<dyn LogTransport>,
    far: Arc<dyn LogTransport>,
    budget: &Budget,
) {
    let source = watch::Sender::new(Source::Running);
    let link = watch::Sender::new(SourceLink::NEW);
    let lost = watch::Sender::new(AdoptStatus::Working);
    let mut halves = Vec::new();
    for (n, size) in sizes.iter().enumerate() {
        let (from, to) = (folder(root, "from", n), folder(root, "to", n));
        write(&from, n, *size);
        let handoff = Handoff {
            domain: Uuid::from_u128(u128::try_from(n).unwrap() + 1),
            console: "serial0".parse().unwrap(),
            id: HandoffId::random(),
        };
        let chain = LogChain::open(&from, NumberingChoice::FromZero).unwrap();
        let offer = Offer::new(
            handoff.clone(),
            Arc::clone(&near),
            Arc::new(NoWriters),
            source.subscribe(),
        )
        .with_names(format!("vm{n}"), "h1")
        .with_adopt_status(lost.subscribe())
        .with_patience(PATIENCE)
        .with_budget(budget.clone());
        let place = Place {
            path: to.clone(),
            rules: Rules {
                numbering: Numbering::FromZero,
                retention: Retention::UNLIMITED,
            },
        };
        let (progress, mut news) = mpsc::channel(4);
        let adopt = Adopt::new(
            handoff,
            Arc::clone(&far),
            Arc::new(NoWriters),
            Arc::new(place.clone()),
        )
        .with_host("h2")
        .with_expected(Some(place))
        .with_source(link.subscribe())
        .with_patience(PATIENCE)
        .with_milestones(progress)
        .with_budget(budget.clone());
        let held = Held::open(&chain, offer.handoff.domain, &offer.handoff.console).unwrap();
        let offering = tokio::spawn(offer.run(held));
        let adopting = tokio::spawn(adopt.run());
        assert_eq!(news.recv().await, Some(Milestone::CanStage));
        assert_eq!(news.recv().await, Some(Milestone::Ready));
        drop(news);
        // The guest prints there.
        fs::write(&to, format!("after {n}")).unwrap();
        halves.push((offering, adopting, from, to));
    }
    source.send_replace(Source::Over);
    for (n, (offering, adopting, from, to)) in halves.into_iter().enumerate() {
        let offered = offering.await.unwrap();
        assert!(
            matches!(&offered, offer::Outcome::Carried(r) if r.bytes == sizes[n] as u64),
            "{n}: {offered:?}"
        );
        let adopted = adopting.await.unwrap();
        assert!(
            matches!(adopted, adopt::Outcome::Adopted(_)),
            "{n}: {adopted:?}"
        );
        let mut expected = digest(File::open(&from).unwrap());
        expected.update(format!("after {n}").as_bytes());
        let chain = LogChain::open(&to, NumberingChoice::FromZero).unwrap();
        let there = digest(chain.snapshot().unwrap().read_all().unwrap());
        assert_eq!(there.finalize(), expected.finalize(), "{n}");
        // Not all of it need fit at once.
        for file in [from, to] {
            fs::remove_dir_all(file.parent().unwrap()).unwrap();
        }
    }
    assert_eq!(near.list(&Prefix::All, None).await.unwrap(), []);
}

fn folder(root: &Path, side: &str, n: usize) -> PathBuf {
    let folder = root.join(side).join(n.to_string());
    fs::create_dir_all(&folder).unwrap();
    folder.join("console.log")
}

/// Nothing that shrinks.
fn write(path: &Path, n: usize, size: usize) {
    let mut file = File::create(path).unwrap();
    let mut noise = blake3::Hasher::new()
        .update(&n.to_be_bytes())
        .finalize_xof();
    let mut block = vec![0; 64 << 10];
    let mut left = size;
    while left > 0 {
        noise.fill(&mut block);
        let len = left.min(block.len());
        file.write_all(&block[..len]).unwrap();
        left -= len;
    }
}

fn digest(mut reader: impl std::io::Read) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 64 << 10];
    loop {
        match reader.read(&mut block).unwrap() {
            0 => return hasher,
            n => _ = hasher.update(&block[..n]),
        }
    }
}

/// The most memory that this process had at once, in MiB.
#[must_use]
pub fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib >> 10
}

/// Counts the calls that are under way at once. A put of much takes its time, so
/// that pieces gather before it.
#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn LogTransport>,
    slow: Duration,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Counting {
    /// Around another; `slow`: how much longer a put of much takes.
    #[must_use]
    pub fn new(inner: Arc<dyn LogTransport>, slow: Duration) -> Self {
        Self {
            inner,
            slow,
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }

    /// How many there were at once, at the most.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    fn begin(&self) -> impl Drop + '_ {
        struct Call<'a>(&'a AtomicUsize);
        impl Drop for Call<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Call(&self.now)
    }
}

impl std::fmt::Display for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl LogTransport for Counting {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let _call = self.begin();
        if data.len() > MUCH {
            tokio::time::sleep(self.slow).await;
        }
        self.inner.put(key, data).await
    }
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let _call = self.begin();
        self.inner.get(key, range).await
    }
    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let _call = self.begin();
        self.inner.list(prefix, after).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        let _call = self.begin();
        self.inner.delete(key).await
    }
}
