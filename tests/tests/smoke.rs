//! The lab itself: that it shows the loss logchain is against, and that it
//! leaves nothing behind, whichever way it ends.

use std::error::Error;
use std::time::Instant;

use logchain_tests::{Guest, Lab, TickError, Ticks, leftovers};

type Outcome = Result<(), Box<dyn Error>>;

/// What a plain live migration does to the log: the reason for logchain.
#[test]
fn a_plain_migration_loses_the_start_of_the_log() -> Outcome {
    let began = Instant::now();
    let lab = Lab::start(2)?;
    eprintln!("lab up after {:.1?}", began.elapsed());
    let (h1, h2) = (lab.host(0), lab.host(1));

    let vm = h1.define(&Guest::new("vm1"))?;
    let booting = Instant::now();
    vm.start()?;
    vm.wait_for_tick(1)?;
    eprintln!("guest prints after {:.1?}", booting.elapsed());
    vm.wait_for_tick(300)?;

    let uri = h2.uri();
    let migrated = h1
        .run([
            "virsh",
            "migrate",
            "--live",
            "--p2p",
            "--persistent",
            "vm1",
            &uri,
        ])?
        .checked()?;
    eprintln!("migrated in {:.1?}", migrated.took);
    let there = h2.guest("vm1");
    there.wait_for_more_ticks(100)?;
    assert_eq!(there.state()?.as_deref(), Some("running"));
    assert_eq!(vm.state()?.as_deref(), Some("shut off"));

    let files = there.log_files()?;
    assert_eq!(files.len(), 1, "one young base file");
    let log: Vec<u8> = files.into_iter().flat_map(|file| file.bytes).collect();
    let lost = Ticks::check_from_boot(&log);
    assert!(
        matches!(lost, Err(TickError::Start { first: 300.., .. })),
        "{lost:?}"
    );
    // What is there is whole: the lab's own machinery tears no line.
    Ticks::check(&log)?;
    let source: Vec<u8> = vm
        .log_files()?
        .into_iter()
        .flat_map(|file| file.bytes)
        .collect();
    Ticks::check_from_boot(&source)?;

    let state = lab.state().to_owned();
    assert!(!leftovers(&state)?.is_empty(), "it is there while it lives");
    let ending = Instant::now();
    drop(lab);
    eprintln!("ended in {:.1?}", ending.elapsed());
    assert_eq!(leftovers(&state)?, Vec::<String>::new());
    Ok(())
}
