//! What lay here from an earlier stay is taken aside, and put back or dropped.

use super::*;

#[test]
fn what_was_handed_over_goes_when_it_comes_back() {
    let bed = Host::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let record = handed_over(&bed, &["console.log", "console.log.0"]);
    let mut staging = open(&bed, FREE);
    staging.retire(Some(&record)).unwrap();
    assert_eq!(bed.all_names(), [".console.log.logchain.d"]);
    bed.write("console.log", "d");
    staging.append(true, b"abc").unwrap();
    staging.seal(Some(&record)).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    assert_eq!(bed.merged(), "abcd");
}

/// Emptied and filled again since, to the very size: it is no part of what comes back.
#[test]
fn what_was_written_over_since_it_was_handed_over_stays() {
    for (rotated, all) in [("ef", "efabcdg"), ("ef and more", "ef and moreabcdg")] {
        let bed = Host::new();
        bed.write("console.log", "cd");
        bed.write("console.log.0", "ab");
        let mut record = handed_over(&bed, &["console.log", "console.log.0"]);
        let (folder, base) = Folder::of_file(&bed.log).unwrap();
        let files =
            crate::record::OnDisk::of_chain(&folder, &base, &crate::chain::Ownership::default())
                .unwrap();
        let prints = files.iter().filter_map(|f| Some((f.id, f.print?)));
        record.offered.as_mut().unwrap().prints = prints.collect();
        bed.write("console.log.0", rotated);
        let mut staging = open(&bed, FREE);
        staging.retire(Some(&record)).unwrap();
        bed.write("console.log", "g");
        staging.append(true, b"abcd").unwrap();
        staging.seal(Some(&record)).unwrap();
        staging.place().unwrap();
        staging.clean().unwrap();
        assert_eq!(bed.merged(), all);
    }
}

#[test]
fn what_was_retired_is_put_back_when_nothing_comes() {
    let bed = Host::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let record = handed_over(&bed, &["console.log", "console.log.0"]);
    let mut staging = open(&bed, FREE);
    staging.retire(Some(&record)).unwrap();
    // The migration that failed made a new base.
    bed.write("console.log", "");
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log", "console.log.0"]);
    assert_eq!(bed.merged(), "ab");
}

#[test]
fn what_was_retired_goes_behind_a_log_that_began_meanwhile() {
    let bed = Host::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let record = handed_over(&bed, &["console.log", "console.log.0"]);
    let mut staging = open(&bed, rules(10, 2));
    staging.retire(Some(&record)).unwrap();
    bed.write("console.log", "c");
    drop(staging);
    // Killed: the next start undoes it.
    assert!(ChainWorkspace::recover_all(&bed.log, rules(10, 2), Arc::new(NoWriters)).unwrap());
    assert_eq!(bed.merged(), "abc");
    assert_eq!(
        bed.all_names(),
        ["console.log", "console.log.0", "console.log.1"]
    );
}

#[test]
fn an_empty_base_that_was_retired_takes_no_number_of_the_new_log() {
    let bed = Host::new();
    bed.write("console.log", "");
    bed.write("console.log.0", "b");
    bed.write("console.log.1", "a");
    let record = handed_over(&bed, &["console.log", "console.log.0", "console.log.1"]);
    let mut staging = open(&bed, rules(10, 2));
    staging.retire(Some(&record)).unwrap();
    bed.write("console.log", "c");
    staging.discard().unwrap();
    assert_eq!(bed.merged(), "abc");
    assert_eq!(
        bed.all_names(),
        ["console.log", "console.log.0", "console.log.1"]
    );
}

#[test]
fn a_base_that_is_written_is_not_retired() {
    let bed = Host::new();
    bed.write("console.log", "b");
    let record = handed_over(&bed, &["console.log"]);
    let mut staging = Staging::open(
        &bed.log,
        HandoffId::random(),
        FREE,
        Arc::new(FakeWriters::SOMEBODY),
    )
    .unwrap();
    staging.retire(Some(&record)).unwrap();
    assert_eq!(bed.merged(), "b");
    staging.append(true, b"ab").unwrap();
    assert!(matches!(
        staging.seal(Some(&record)),
        Err(Error::StaleBase { bytes: 1, .. })
    ));
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log"]);
}

#[test]
fn a_base_that_nobody_writes_makes_way_for_a_new_one() {
    let bed = Host::new();
    bed.write("console.log", "b");
    bed.write("console.log.0", "a");
    let here = Switch::default();
    let rotate = || {
        let writers = Arc::new(FakeWriters::Base(bed.log.clone(), here.clone()));
        ChainWorkspace::rotate_away(&bed.log, Numbering::FromZero, writers).unwrap()
    };
    here.set(true);
    assert!(!rotate(), "its guest is here");
    assert_eq!(bed.all_names(), ["console.log", "console.log.0"]);
    here.set(false);
    assert!(rotate());
    assert_eq!(bed.all_names(), ["console.log.0", "console.log.1"]);
    assert_eq!(bed.merged(), "ab");
    // Once more changes nothing.
    assert!(!rotate());
    bed.write("console.log", "");
    assert!(!rotate(), "it is empty");
}
