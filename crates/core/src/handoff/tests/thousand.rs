//! A thousand handoffs in one process, over a folder; and fifty, as when a host is evacuated.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::super::load_test::{Counting, all_arrive, peak_mib};
use super::super::{Budget, Limits};
use crate::transport::{DirectoryTransport, LogTransport};

/// How many there are; set in the process that does it: its peak is its own.
const CHILD: &str = "LOGCHAIN_TEST_THOUSAND";

/// Set it to hand over 1 to 4 MiB each, and some of 64 MiB: some GiB in `/dev/shm`.
const FULL: &str = "LOGCHAIN_TEST_FULL";

/// Mostly small; enough large ones to fill any queue.
fn sizes(count: usize) -> Vec<usize> {
    let full = std::env::var_os(FULL).is_some();
    (0..count)
        .map(|n| match n {
            _ if n % 250 == 7 => 64 << 20,
            _ if full || n % 8 == 3 => (1 << 20) + (n * 7919) % (3 << 20),
            _ => 4096 + (n * 7919) % 60_000,
        })
        .collect()
}

#[test]
fn a_thousand_handoffs_arrive_within_their_budget() {
    arrive(1000, 256);
}

/// Both halves of each are in this process: an agent has one of them.
#[test]
fn fifty_handoffs_arrive_within_half_of_that() {
    arrive(50, 128);
}

/// So many arrive, in a process of their own that never has `most_mib` of memory.
fn arrive(count: usize, most_mib: u64) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "handoff::tests::thousand::child"])
        .env(CHILD, count.to_string())
        // What we hold is counted, not what glibc keeps for each of a machine's processors.
        .env("MALLOC_ARENA_MAX", "4")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{failed}");
    let peak = said.lines().find_map(|l| l.strip_prefix("peak "));
    let peak: u64 = peak.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    println!("{said}");
    assert!(peak < most_mib, "{peak} MiB");
}

#[test]
fn child() {
    let Ok(count) = std::env::var(CHILD) else {
        return;
    };
    let sizes = sizes(count.parse().unwrap());
    crate::folder::allow_descriptors();
    let began = std::time::Instant::now();
    let shm = std::path::Path::new("/dev/shm");
    let root = match shm.is_dir() {
        true => tempfile::tempdir_in(shm),
        false => tempfile::tempdir(),
    };
    let root = root.unwrap();
    let spool = DirectoryTransport::create(&root.path().join("spool")).unwrap();
    let spool = Arc::new(Counting::new(Arc::new(spool), Duration::from_millis(600)));
    let transport = Arc::clone(&spool) as Arc<dyn LogTransport>;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let budget = Budget::default();
    let far = Arc::clone(&transport);
    runtime.block_on(all_arrive(root.path(), &sizes, transport, far, &budget));
    assert!(spool.most() <= Limits::default().calls, "{}", spool.most());
    println!("\npeak {}\ntime {:?}", peak_mib(), began.elapsed());
}
