//! A VM's whole life against a model, which is one vector of all the bytes it
//! ever printed: it prints, its log is rolled over by virtlogd's rules and
//! compressed, or emptied by somebody who leaves a copy, it moves from host to host, a migration fails, a program is killed
//! in the middle and started again. Whatever happened, what is read is the model,
//! but for what the rotation dropped; an offset is a place in the model.

#![expect(clippy::unwrap_used, reason = "a panic in a test is a failing test")]
#![expect(
    clippy::indexing_slicing,
    reason = "a panic in a test is a failing test"
)]

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::chain::{LogChain, NumberingChoice};
use logchain_core::handoff::Handoff;
use logchain_core::handoff::adopt::{self, Adopt, Milestone, SourceLink};
use logchain_core::handoff::offer::{self, Held, Offer, Remaining, Source};
use logchain_core::ids::{ConsoleName, HandoffId};
use logchain_core::live::{Live, News};
use logchain_core::offsets::{Lookup, Offsets};
use logchain_core::rotation::Retention;
use logchain_core::stream::StreamOffset;
use logchain_core::testing::{Arriving, FakeWriters, Host, Logd, numbered, read};
use logchain_core::transport::{LogTransport, MemoryTransport};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

const DOMAIN: Uuid = Uuid::from_u128(7);

fn console() -> ConsoleName {
    "serial0".parse().unwrap()
}

#[derive(Clone, Debug)]
enum Act {
    /// Lines of this length, so many.
    Print(usize, usize),
    RollOver,
    /// The oldest plain rotated file.
    Compress,
    /// Somebody empties the log under virtlogd, and leaves a copy.
    CopyAndTruncate,
    /// All of it from a backup: other identities, the same bytes.
    Restore,
    Move {
        append: bool,
        /// The program is killed after so many milliseconds, and the log offered
        /// again afterwards.
        killed: Option<u64>,
    },
    FailedMove,
    Read(u64, u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => (1..90_usize, 1..20_usize).prop_map(|(len, count)| Act::Print(len, count)),
        2 => Just(Act::RollOver),
        1 => Just(Act::Compress),
        2 => Just(Act::CopyAndTruncate),
        1 => Just(Act::Restore),
        2 => (any::<bool>(), proptest::option::weighted(0.4, 0..60_u64))
            .prop_map(|(append, killed)| Act::Move { append, killed }),
        1 => Just(Act::FailedMove),
        2 => (any::<u64>(), any::<u64>()).prop_map(|(a, b)| Act::Read(a, b)),
    ];
    proptest::collection::vec(act, 1..25)
}

/// virtlogd at the start of a VM, or at the arrival of one.
fn opened(base: &Path, append: bool, max: (u64, u32)) -> Logd {
    let mut logd = Logd::new(base, max.0, max.1);
    if !append {
        logd.wipe();
    }
    logd.open().unwrap();
    logd
}

struct Vm {
    hosts: Vec<Host>,
    at: usize,
    logd: Logd,
    max: (u64, u32),
    /// All that it ever printed.
    model: Vec<u8>,
    spool: Arc<dyn LogTransport>,
    live: Live,
    followed: Vec<u8>,
    /// Whether nothing was ever dropped: then offsets are the model's.
    lossless: bool,
}

impl Vm {
    fn new(max: (u64, u32)) -> Self {
        let hosts: Vec<Host> = (0..3)
            .map(|_| {
                let host = Host::new();
                host.retention.set(Retention::virtlogd(max.0, max.1));
                host
            })
            .collect();
        hosts[0].here.set(true);
        let logd = opened(&hosts[0].log, false, max);
        let chain = hosts[0].chain();
        let offsets = Offsets::of(&chain).unwrap();
        offsets.remember(&chain).unwrap();
        Self {
            live: Live::after(&offsets, chain).unwrap(),
            hosts,
            at: 0,
            logd,
            max,
            model: Vec::new(),
            spool: Arc::new(MemoryTransport::new()),
            followed: Vec::new(),
            lossless: true,
        }
    }

    fn host(&self) -> &Host {
        &self.hosts[self.at]
    }

    fn print(&mut self, len: usize, count: usize) {
        for _ in 0..count {
            let mut line = format!("{:>len$}\n", self.model.len());
            line.truncate(len + 1);
            self.logd.write(line.as_bytes()).unwrap();
            self.model.extend_from_slice(line.as_bytes());
        }
    }

    fn compress(&self) {
        let plain = (0..self.max.1).rev().map(|n| numbered(&self.host().log, n));
        let Some(path) = plain.clone().find(|p| p.exists()) else {
            return;
        };
        let packed = zstd::bulk::compress(&fs::read(&path).unwrap(), 1).unwrap();
        let mut name = path.clone().into_os_string();
        name.push(".zst");
        fs::write(name, packed).unwrap();
        fs::remove_file(path).unwrap();
    }

    fn copy_and_truncate(&mut self) {
        let log = &self.host().log;
        // A copy of so little is not known again: the gap is told then.
        if fs::metadata(log).unwrap().len() >= 64 {
            self.logd.copy_and_truncate().unwrap();
        }
    }

    fn restore(&mut self) {
        let folder = self.host().dir.path().to_owned();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let bytes = fs::read(&path).unwrap_or_default();
            // The base stays virtlogd's.
            if name.starts_with("console.log.") && (64..1 << 20).contains(&bytes.len()) {
                let before = fs::metadata(&path).unwrap();
                let time = before.modified().unwrap();
                // A compressed file that was not given the time of what it holds: with that of
                // its making it would look as if it had been, and nothing could tell.
                let misleads = name.ends_with(".zst") && time >= before.created().unwrap();
                fs::remove_file(&path).unwrap();
                fs::write(&path, bytes).unwrap();
                if !misleads {
                    // As a backup is restored.
                    let file = File::options().append(true).open(&path).unwrap();
                    file.set_modified(time).unwrap();
                }
            }
        }
    }

    fn offer(
        &self,
        from: usize,
        handoff: Handoff,
        source: watch::Receiver<Source>,
    ) -> JoinHandle<offer::Outcome> {
        let host = &self.hosts[from];
        let held = Held::open(&host.chain(), DOMAIN, &console()).unwrap();
        let offer = Offer::new(
            handoff,
            Arc::clone(&self.spool),
            Arc::new(FakeWriters::While(host.here.clone())),
            source,
        )
        .with_names("vm", format!("h{from}"))
        .with_patience(Duration::from_secs(20));
        tokio::spawn(offer.run(held))
    }

    fn adopt(
        &self,
        to: usize,
        handoff: Handoff,
        link: watch::Receiver<SourceLink>,
        expected: bool,
    ) -> (JoinHandle<adopt::Outcome>, mpsc::Receiver<Milestone>) {
        let (progress, news) = mpsc::channel(1000);
        let (place, here) = (self.hosts[to].place(), self.hosts[to].here.clone());
        let adopt = Adopt::new(
            handoff,
            Arc::clone(&self.spool),
            Arc::new(FakeWriters::While(here.clone())),
            Arc::new(Arriving {
                place: place.clone(),
                here,
            }),
        )
        .with_host(format!("h{to}"))
        .with_expected(expected.then_some(place))
        .with_source(link)
        .with_patience(Duration::from_secs(20))
        .with_milestones(progress);
        (tokio::spawn(adopt.run()), news)
    }

    async fn moves(&mut self, append: bool, killed: Option<u64>, fails: bool) {
        let (from, to) = (self.at, (self.at + 1) % self.hosts.len());
        let handoff = Handoff {
            domain: DOMAIN,
            console: console(),
            id: HandoffId::random(),
        };
        let source = watch::Sender::new(Source::Running);
        let link = watch::Sender::new(SourceLink::NEW);
        let mut offering = self.offer(from, handoff.clone(), source.subscribe());
        let (mut adopting, mut news) = self.adopt(to, handoff, link.subscribe(), true);
        while news.recv().await.unwrap() != Milestone::Ready {}
        self.print(20, 3);
        if fails {
            source.send_replace(Source::Stays);
            assert_eq!(offering.await.unwrap(), offer::Outcome::Aborted);
            assert_eq!(adopting.await.unwrap(), adopt::Outcome::Aborted);
            return;
        }
        // The switchover.
        self.hosts[from].here.set(false);
        self.logd = opened(&self.hosts[to].log, append, self.max);
        self.hosts[to].here.set(true);
        self.at = to;
        self.print(20, 3);
        source.send_replace(Source::Over);

        if let Some(after) = killed {
            tokio::time::sleep(Duration::from_millis(after)).await;
            offering.abort();
            let _ = (&mut offering).await;
            link.send_replace(SourceLink::Gone);
            let _ = tokio::time::timeout(Duration::from_secs(30), &mut adopting)
                .await
                .unwrap();
        } else if let (Ok(offered), Ok(adopted)) = (offering.await, adopting.await) {
            assert!(matches!(offered, offer::Outcome::Carried(_)), "{offered:?}");
            assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
        }
        self.offer_again(from, to).await;
    }

    /// What an operator does after a kill, and can do at any time: again, where
    /// what was begun cannot be gone on with, since the log has changed since.
    async fn offer_again(&self, from: usize, to: usize) {
        for again in [false, true] {
            let chain = self.hosts[from].chain();
            let left = offer::remaining(&chain, DOMAIN, &console(), &*self.spool)
                .await
                .unwrap();
            let id = match &left {
                Remaining::Nothing(_) => return,
                Remaining::Receipt(offered) => offered.handoff,
                Remaining::Rest(begun) => *begun,
                Remaining::All => HandoffId::random(),
            };
            let handoff = Handoff {
                domain: DOMAIN,
                console: console(),
                id,
            };
            let link = watch::Sender::new(SourceLink::NEW);
            let (adopting, _news) = self.adopt(to, handoff.clone(), link.subscribe(), false);
            if let Remaining::All | Remaining::Rest(_) = left {
                let over = watch::Sender::new(Source::Over);
                let offered = self.offer(from, handoff, over.subscribe()).await.unwrap();
                if !matches!(offered, offer::Outcome::Carried(_)) {
                    assert!(matches!(left, Remaining::Rest(_)) && !again, "{offered:?}");
                    link.send_replace(SourceLink::Gone);
                    let adopted = adopting.await.unwrap();
                    assert!(
                        !matches!(adopted, adopt::Outcome::Adopted(_)),
                        "{adopted:?}"
                    );
                    continue;
                }
            }
            let adopted = adopting.await.unwrap();
            assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
            return;
        }
    }

    /// The whole, a tail, a run from an offset, and what a follower got.
    fn check(&mut self, a: u64, b: u64) {
        let all = read(&self.host().log);
        assert!(
            self.model.ends_with(&all),
            "read {:?}, printed {:?}",
            String::from_utf8_lossy(&all),
            String::from_utf8_lossy(&self.model)
        );
        if self.lossless {
            assert_eq!(all.len(), self.model.len(), "bytes are lost");
        } else {
            let kept = self.max.0 * u64::from(self.max.1);
            let least = kept.saturating_sub(80 * u64::from(self.max.1 + 1));
            let least = usize::try_from(least).unwrap().min(self.model.len());
            assert!(all.len() >= least, "{} of {least} bytes", all.len());
        }
        let end = self.model.len() as u64;
        let chain = self.host().chain();
        let offsets = Offsets::of(&chain).unwrap();
        offsets.remember(&chain).unwrap();
        let budget = a % (end + 2);
        let mut tail = Vec::new();
        let mut reader = offsets.snapshot().tail(budget).unwrap();
        reader.read_to_end(&mut tail).unwrap();
        let expected = usize::try_from(budget).unwrap().min(all.len());
        assert_eq!(tail, self.model[self.model.len() - expected..]);

        // Where files came and went unseen, what was dropped could not be counted.
        let from = b % (end + 2);
        let offset = StreamOffset::new(from);
        if !self.lossless {
            if let Lookup::Run(mut run) = offsets.from(offset, a % 500).unwrap() {
                let mut bytes = Vec::new();
                run.read_to_end(&mut bytes).unwrap();
                assert!(
                    all.windows(bytes.len().max(1))
                        .any(|w| w.starts_with(&bytes))
                );
            }
            return;
        }
        match offsets.from(offset, a % 500).unwrap() {
            Lookup::Run(mut run) => {
                let mut bytes = Vec::new();
                run.read_to_end(&mut bytes).unwrap();
                assert_eq!(run.next(), offset.saturating_add(bytes.len() as u64));
                let at = usize::try_from(from).unwrap();
                assert_eq!(bytes, self.model[at..at + bytes.len()], "from {from}");
                assert_eq!(run.more(), run.next().get() < end);
            }
            gone @ Lookup::Gone { .. } => unreachable!("offset {from} of {end}: {gone:?}"),
            Lookup::Beyond { end: told } => {
                assert_eq!((told.get(), from >= end), (end, true));
            }
        }
        let mut block = [0; 333];
        while self.at == 0 {
            match self.live.read(&mut block).unwrap() {
                News::Bytes(n) => self.followed.extend_from_slice(&block[..n]),
                News::Missing { size } => unreachable!("a follower missed {size:?} bytes"),
                News::None => break,
            }
        }
        assert!(self.model.starts_with(&self.followed));
    }
}

async fn live(max: (u64, u32), acts: Vec<Act>, lossless: bool) {
    let mut vm = Vm::new(max);
    vm.lossless = lossless;
    for act in acts {
        match act {
            Act::Print(len, count) => vm.print(len, count),
            Act::RollOver => vm.logd.roll_over().unwrap(),
            Act::Compress => vm.compress(),
            Act::CopyAndTruncate => vm.copy_and_truncate(),
            Act::Restore => vm.restore(),
            Act::Move { append, killed } => vm.moves(append, killed, false).await,
            Act::FailedMove => vm.moves(false, None, true).await,
            Act::Read(a, b) => vm.check(a, b),
        }
        vm.check(7, 11);
    }
    vm.print(5, 1);
    vm.check(u64::MAX, 0);
    if vm.lossless && vm.at == 0 {
        assert_eq!(vm.followed, vm.model, "a follower at the first host");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("LOGCHAIN_LIVES").map_or(8, |n| n.parse().unwrap()),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Files large enough that nothing is ever dropped.
    #[test]
    fn no_byte_is_lost(acts in acts()) {
        Runtime::new().unwrap().block_on(live((1 << 20, 32), acts, true));
    }

    /// virtlogd rolls over all the time and drops what is old.
    #[test]
    fn only_the_rotation_drops_bytes(acts in acts(), backups in 1..4_u32) {
        let acts = acts.into_iter().filter(|a| !matches!(
            a,
            Act::Compress | Act::RollOver | Act::CopyAndTruncate | Act::Restore
        ));
        let acts = acts.collect();
        Runtime::new().unwrap().block_on(live((600, backups), acts, false));
    }
}

/// libvirt's own rules for rotating files, as our readers meet them.
#[test]
fn files_cut_by_libvirts_rules_read_as_one() {
    for (max_size, backups, line) in [(200, 3, 20), (200, 3, 150), (81, 32, 81), (100, 0, 7)] {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("console.log");
        let mut logd = opened(&base, false, (max_size, backups));
        let mut all = Vec::new();
        for n in 0..60 {
            let text = format!("{n:>width$}\n", width = line - 1);
            logd.write(text.as_bytes()).unwrap();
            all.extend_from_slice(text.as_bytes());
        }
        assert!(
            logd.rollovers()
                > u32::try_from(60 * line).unwrap() / u32::try_from(max_size).unwrap() - 2
        );
        let chain = LogChain::open(&base, NumberingChoice::FromZero).unwrap();
        let snapshot = chain.snapshot().unwrap();
        assert!(snapshot.files().len() <= backups as usize + 1);
        let mut read = Vec::new();
        snapshot.read_all().unwrap().read_to_end(&mut read).unwrap();
        assert!(all.ends_with(&read), "{max_size} {backups} {line}");
        for file in snapshot.files() {
            assert!(file.size() <= max_size);
            // A line shorter than the slack is never cut.
            let whole = fs::read(file.path()).unwrap();
            assert!(line >= 80 || whole.is_empty() || whole.ends_with(b"\n"));
        }
    }
}
