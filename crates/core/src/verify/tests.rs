//! Findings, one by one; and any chain with any one defect.

mod defects;

use std::ffi::OsStr;
use std::fs;

use super::*;
use crate::chain::NumberingChoice;

struct Bed(tempfile::TempDir);

impl Bed {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let bed = Self(tempfile::tempdir().unwrap());
        // The base comes first in lists; it is the newest, and times are evidence.
        for (name, content) in files.iter().rev() {
            fs::write(bed.0.path().join(name), content).unwrap();
        }
        bed
    }

    fn verify(&self) -> chain::Result<Verdict> {
        let path = self.0.path().join("l");
        let chain = LogChain::open(&path, NumberingChoice::FromZero)?;
        verify(&chain, NonZeroU32::new(3))
    }

    fn findings(&self) -> Vec<String> {
        let findings = self.verify().unwrap().findings;
        findings.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn a_whole_chain_is_whole() {
    let bed = Bed::with(&[("l", b"cd"), ("l.0", b"b"), ("l.1", b"a")]);
    let verdict = bed.verify().unwrap();
    assert!(verdict.is_whole());
    assert_eq!((verdict.files, verdict.bytes), (3, 4));
    let none = Bed::with(&[("other", b"")]).verify();
    assert!(none.unwrap_err().is_not_found());
}

#[test]
fn what_is_wrong_is_said() {
    let bed = Bed::with(&[
        ("l", b"x"),
        ("l.1", b"y"),
        ("l.2.gz", b"no gzip"),
        ("l.7", b"z"),
        ("l.1.gz", b"as well"),
        (".l.logchain", b"{}\n\n"),
    ]);
    fs::create_dir(bed.0.path().join(".l.logchain.d")).unwrap();
    let found = bed.findings();
    let has = |what: &str| found.iter().any(|f| f.contains(what));
    assert!(has("history is being put in place"), "{found:?}");
    assert!(has("l.7 lies beyond the 3 files"), "{found:?}");
    assert!(has("number 0 is missing"), "{found:?}");
    assert!(has("numbers 3 to 6 are missing"), "{found:?}");
    assert!(has("l.2.gz is cut short or damaged"), "{found:?}");
    assert!(has("is damaged: its digest does not fit"), "{found:?}");
    assert!(has("l.1.gz is not read"), "{found:?}");
    assert_eq!(found.len(), 7, "{found:?}");
}

#[test]
fn a_link_is_no_file() {
    let bed = Bed::with(&[("l", b"x"), ("real", b"")]);
    std::os::unix::fs::symlink("real", bed.0.path().join("l.0")).unwrap();
    let found = bed.findings();
    assert!(found[0].contains("is a link"), "{found:?}");
    let bed = Bed::with(&[("l.0", b"x")]);
    assert_eq!(
        bed.findings(),
        ["there are rotated files, but no base file"]
    );
}

#[test]
fn what_was_lost_is_said_with_its_place() {
    let bed = Bed::with(&[("l", b"three"), ("l.0", b"two"), ("l.1", b"one")]);
    let path = bed.0.path().join("l");
    let chain = LogChain::open(&path, NumberingChoice::FromZero).unwrap();
    Offsets::of(&chain).unwrap().remember(&chain).unwrap();
    fs::remove_file(bed.0.path().join("l.0")).unwrap();
    let lost = Finding::Lost {
        at: StreamOffset::new(3),
        size: Some(3),
    };
    assert!(bed.verify().unwrap().findings.contains(&lost));
}

/// logrotate's `copy`, and a file that was written when this log was over.
#[test]
fn copies_and_files_that_are_newer_than_the_base_are_told() {
    let line = b"a line of the guest that is long enough to tell\n";
    let longer = line.repeat(3);
    let bed = Bed::with(&[("l", &longer), ("l.0", line)]);
    let found = bed.findings();
    assert!(found[0].starts_with("l.0 is a copy of what"), "{found:?}");

    let other = b"quite another text, as long as that one, of any\n";
    let bed = Bed::with(&[("l", &longer), ("l.0", other)]);
    assert!(bed.verify().unwrap().is_whole());
    let base = fs::File::options()
        .append(true)
        .open(bed.0.path().join("l"));
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    base.unwrap().set_modified(before).unwrap();
    let found = bed.findings();
    assert!(
        found[0].starts_with("l.0 was written after the base"),
        "{found:?}"
    );
}
