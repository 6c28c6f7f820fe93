//! Snapshots while another thread rolls the log over as virtlogd does.

use std::fs::OpenOptions;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::testing::Logd;

const BACKUPS: u32 = 3;

/// What has been written and rolled over for certain, or begun to be.
#[derive(Default)]
struct Model {
    /// How many lines are in the log.
    lines: u64,
    /// The first line of every file that was ever the base, and of the next one
    /// as soon as its rollover begins.
    firsts: Vec<u64>,
}

/// virtlogd's part: lines of one length, a rollover every few of them.
struct Writer<'a> {
    model: &'a Mutex<Model>,
    logd: Logd,
    /// Where to stop for a while in the middle of a rollover.
    dawdle: fn(u64, u32) -> Duration,
}

fn line(number: u64) -> String {
    format!("{number:011}\n")
}

impl<'a> Writer<'a> {
    fn new(bed: &Bed, model: &'a Mutex<Model>, dawdle: fn(u64, u32) -> Duration) -> Self {
        model.lock().unwrap().firsts.push(0);
        let mut logd = Logd::new(&bed.log(), u64::MAX, BACKUPS);
        logd.open().unwrap();
        Self {
            model,
            logd,
            dawdle,
        }
    }

    fn append(&mut self) {
        let number = self.model.lock().unwrap().lines;
        self.logd.write(line(number).as_bytes()).unwrap();
        self.model.lock().unwrap().lines = number + 1;
    }

    fn roll_over(&mut self) {
        let round = {
            let mut model = self.model.lock().unwrap();
            let first = model.lines;
            model.firsts.push(first);
            first
        };
        self.logd.begin_rollover();
        for to in (0..BACKUPS).rev() {
            assert!(self.logd.step());
            sleep((self.dawdle)(round, to));
        }
        self.logd.finish();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own plays another process"
)]
fn sleep(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}

/// Whatever is read must be lines in a row, from a line that the rotation has
/// not dropped yet to one that was there already when we began.
fn check(chain: &LogChain, model: &Mutex<Model>) {
    let before = model.lock().unwrap().lines;
    let snapshot = chain.snapshot().unwrap();
    let oldest = {
        // A file that may have been dropped by now, or not yet.
        let firsts = &model.lock().unwrap().firsts;
        let kept = usize::try_from(BACKUPS).unwrap() + 1;
        firsts[firsts.len().saturating_sub(kept)]
    };
    let all = text(snapshot.read_all());
    let first = all.lines().next().map_or(before, |l| l.parse().unwrap());
    assert!(
        first <= oldest,
        "begins with line {first}, though line {oldest} is kept"
    );
    let mut next = first;
    for got in all.split_inclusive('\n') {
        assert_eq!(got, line(next), "after line {}", next.saturating_sub(1));
        next += 1;
    }
    assert!(
        next >= before,
        "ends before line {next}, though {before} were written"
    );
    let tail = all.len().min(50);
    assert_eq!(text(snapshot.tail(50)), all[all.len() - tail..]);
}

fn race(least: (usize, usize), dawdle: fn(u64, u32) -> Duration) {
    let (bed, model, end) = (Bed::new(), Mutex::default(), AtomicBool::new(false));
    let mut writer = Writer::new(&bed, &model, dawdle);
    let mut snapshots = 0;
    let chain = LogChain::open(&bed.log(), NumberingChoice::FromZero).unwrap();
    std::thread::scope(|scope| {
        let ender = Ender(&end);
        let writing = scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(1) {
                    writer.append();
                    sleep(Duration::from_micros(50));
                }
                writer.roll_over();
            }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            check(&chain, &model);
            snapshots += 1;
        }
        drop(ender);
        writing.join().unwrap();
    });
    let did = (snapshots, model.lock().unwrap().firsts.len());
    println!("{did:?} snapshots and rollovers");
    assert!(
        did.0 > least.0 && did.1 > least.1,
        "too few to prove anything: {did:?}"
    );
}

/// Ends the writer also if a check fails.
struct Ender<'a>(&'a AtomicBool);

impl Drop for Ender<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_snapshot_is_one_moment_whatever_is_renamed() {
    race((1000, 300), |_, _| Duration::ZERO);
}

/// The one who rolls over is stopped in the middle, sometimes for longer than
/// we look again.
#[test]
fn a_snapshot_is_one_moment_though_a_rollover_is_half_done() {
    race((100, 100), |round, step| match round % 7 {
        rest if rest != u64::from(step) => Duration::ZERO,
        _ if round % 31 == 0 => Duration::from_millis(60),
        _ => Duration::from_millis(3),
    });
}

/// The numbering must not be taken for from-one because `.0` is on its way.
#[test]
fn the_numbering_is_told_right_during_rollovers() {
    let (bed, model, end) = (Bed::new(), Mutex::default(), AtomicBool::new(false));
    let mut writer = Writer::new(&bed, &model, |_, _| Duration::from_micros(300));
    for _ in 0..BACKUPS {
        writer.append();
        writer.roll_over();
    }
    std::thread::scope(|scope| {
        let _ender = Ender(&end);
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                writer.roll_over();
                sleep(Duration::from_micros(500));
            }
        });
        for _ in 0..2000 {
            let chain = LogChain::open(&bed.log(), NumberingChoice::Auto).unwrap();
            assert_eq!(chain.numbering(), Numbering::FromZero);
        }
    });
}

/// History that is still being appended to a rotated file while the base waits
/// for its first byte: what is missing must be at the end, never in between.
#[test]
fn history_that_still_grows_is_not_cut_before_the_base() {
    const LINES: u64 = 60;
    for _ in 0..100 {
        let bed = Bed::with(&[("", ""), (".0", "")]);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for (suffix, lines) in [(".0", 0..LINES / 2), ("", LINES / 2..LINES)] {
                    let mut file = OpenOptions::new()
                        .append(true)
                        .open(bed.path(suffix))
                        .unwrap();
                    lines.for_each(|n| file.write_all(line(n).as_bytes()).unwrap());
                }
            });
            while !writing.is_finished() {
                let all = text(bed.snapshot().read_all());
                for (n, got) in all.split_inclusive('\n').enumerate() {
                    assert_eq!(got, line(n as u64));
                }
            }
            writing.join().unwrap();
        });
    }
}
