//! A thousand handoffs in one process, over one connection.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::handoff::Budget;
use logchain_core::handoff::load_test::{Counting, all_arrive, peak_mib};
use logchain_core::transport::DirectoryTransport;

use super::over;
use logchain_transport_wire::IN_FLIGHT;

/// Set in the process that does it: its peak is its own.
const CHILD: &str = "LOGCHAIN_TEST_THOUSAND_SSH";

const MOST_MIB: u64 = 256;

/// Mostly small; enough large ones to fill any queue.
fn sizes() -> Vec<usize> {
    let size = |n: usize| match n {
        _ if n % 250 == 7 => 64 << 20,
        _ if n % 8 == 3 => (1 << 20) + (n * 7919) % (3 << 20),
        _ => 4096 + (n * 7919) % 60_000,
    };
    (0..1000).map(size).collect()
}

#[test]
fn a_thousand_handoffs_arrive_over_one_connection() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "tests::thousand::child"])
        .env(CHILD, "1")
        // As in core's test of a thousand.
        .env("MALLOC_ARENA_MAX", "4")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{failed}");
    let peak = said.lines().find_map(|l| l.strip_prefix("peak "));
    let peak: u64 = peak.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    assert!(peak < MOST_MIB, "{peak} MiB");
}

/// The source goes over the connection, the destination is where the spool is:
/// both are in this process, and so is what serves.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    logchain_core::folder::allow_descriptors();
    let began = std::time::Instant::now();
    let shm = std::path::Path::new("/dev/shm");
    let root = match shm.is_dir() {
        true => tempfile::tempdir_in(shm),
        false => tempfile::tempdir(),
    };
    let root = root.unwrap();
    let spool = root.path().join("spool");
    let far = Arc::new(DirectoryTransport::create(&spool).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let served = DirectoryTransport::create(&spool).unwrap();
        let served = Counting::new(Arc::new(served), Duration::from_millis(50));
        let served = Arc::new(served);
        let near = Arc::new(over(Arc::clone(&served) as _).await);
        all_arrive(root.path(), &sizes(), near, far, &Budget::default()).await;
        assert!(served.most() <= IN_FLIGHT, "{} at once", served.most());
    });
    println!("\npeak {}\ntime {:?}", peak_mib(), began.elapsed());
}
