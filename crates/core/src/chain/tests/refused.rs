use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};

use super::*;
use crate::folder;

/// Opens the chain on a thread, so that a hang is a failure.
fn refused(bed: &Bed) -> Error {
    let (log, (send, answer)) = (bed.log(), mpsc::channel());
    std::thread::spawn(move || {
        let chain = LogChain::open(&log, NumberingChoice::Auto);
        send.send(chain.and_then(|chain| chain.snapshot()).unwrap_err())
    });
    answer
        .recv_timeout(Duration::from_secs(10))
        .expect("it must not hang")
}

fn not_regular(bed: &Bed, suffix: &str, kind: &str) {
    let error = refused(bed);
    let path = bed.path(suffix);
    assert!(
        matches!(&error, Error::Folder(folder::Error::NotRegular { path: p, .. }) if *p == path),
        "{error}"
    );
    let said = format!("{} is {kind}, not a regular file", path.display());
    assert!(error.to_string().starts_with(&said), "{error}");
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
}

#[test]
fn what_is_not_a_regular_file() {
    for suffix in ["", ".0", ".1.gz"] {
        let bed = || {
            let bed = Bed::with(&[("", "c"), (".0", "b")]);
            drop(fs::remove_file(bed.path(suffix)));
            bed
        };
        let linked = bed();
        fs::write(linked.dir.path().join("elsewhere"), "secret").unwrap();
        symlink("elsewhere", linked.path(suffix)).unwrap();
        not_regular(&linked, suffix, "a link");

        let dangling = bed();
        symlink("nowhere", dangling.path(suffix)).unwrap();
        not_regular(&dangling, suffix, "a link");

        let folder = bed();
        fs::create_dir(folder.path(suffix)).unwrap();
        not_regular(&folder, suffix, "a folder");

        let piped = bed();
        fifo(&piped.path(suffix));
        not_regular(&piped, suffix, "a FIFO");
    }
}

#[test]
fn a_path_that_names_no_file_or_no_folder() {
    let bed = Bed::with(&[("", "a")]);
    let open = |path: PathBuf| LogChain::open(&path, NumberingChoice::Auto);
    assert!(
        open(bed.dir.path().join("gone/console.log"))
            .unwrap_err()
            .is_not_found()
    );
    let error = open(bed.log().join("console.log")).unwrap_err();
    assert!(
        matches!(error, Error::Folder(folder::Error::NotFolder { .. })),
        "{error}"
    );
    let error = open(bed.dir.path().join("..")).unwrap_err();
    assert!(
        matches!(error, Error::Folder(folder::Error::BadName { .. })),
        "{error}"
    );
    let folder = Folder::open(bed.dir.path()).unwrap();
    let error = LogChain::beneath(folder, "a/b".into(), NumberingChoice::Auto).unwrap_err();
    assert!(
        matches!(error, Error::Folder(folder::Error::BadName { .. })),
        "{error}"
    );
}

#[test]
fn a_folder_that_was_removed() {
    let bed = Bed::with(&[("", "a")]);
    let chain = bed.chain();
    drop(bed);
    assert!(chain.snapshot().unwrap_err().is_not_found());
}

/// The two capabilities by which root reads everything are laid down first.
#[test]
fn a_folder_or_file_that_may_not_be_read() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let bed = Bed::with(&[("", "a"), (".0", "b")]);
    let deny = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    let closed = Bed::with(&[("", "a")]);
    deny(closed.dir.path());
    deny(&bed.path(".0"));
    // Capabilities belong to the thread.
    std::thread::spawn(move || {
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, sets).unwrap();
        let denied = |error: Error, path: &Path| match error {
            Error::Folder(folder::Error::Io {
                path: at, source, ..
            }) => {
                assert_eq!(at, path);
                assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
            }
            other => panic!("{other}"),
        };
        let open = LogChain::open(&closed.log(), NumberingChoice::Auto);
        denied(open.unwrap_err(), closed.dir.path());
        denied(bed.chain().snapshot().unwrap_err(), &bed.path(".0"));
        // For the clean-up.
        fs::set_permissions(closed.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn one_file_under_two_names_is_not_read_twice() {
    let bed = Bed::with(&[("", "b")]);
    fs::hard_link(bed.log(), bed.path(".0")).unwrap();
    let error = refused(&bed);
    assert!(matches!(error, Error::SameFile { .. }), "{error}");
    let (base, other) = (bed.log(), bed.path(".0"));
    let said = format!(
        "{} and {} are the same file; remove one of the two names",
        base.display(),
        other.display()
    );
    assert_eq!(error.to_string(), said);
}
