//! What lies beside a log and has no number that is ours to give: other logs, and
//! rotated files with dates.

use super::*;
use crate::verify::{Finding, verify};

impl Host {
    /// A log of its own, as its record says, though it is called as a rotated file is.
    fn write_another_log(&self, name: &str) {
        self.write(name, "another's ");
        let (folder, _) = Folder::of_file(&self.log).unwrap();
        let record = Record::new(Uuid::from_u128(2), console());
        record.write(&folder, OsStr::new(name)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    /// Everything that is wrong with it but that another log lies there.
    fn findings(&self) -> Vec<Finding> {
        let chain = LogChain::open(&self.log, NumberingChoice::FromZero).unwrap();
        let mut findings = verify(&chain, None).unwrap().findings;
        let count = findings.len();
        findings.retain(|f| !f.to_string().contains("a record of its own"));
        assert_eq!(findings.len() + 1, count, "{findings:?}");
        findings
    }
}

fn place(bed: &Host, rules: Rules, history: &[&str]) -> Vec<String> {
    let mut staging = open(bed, rules);
    for file in history {
        staging.append(true, file.as_bytes()).unwrap();
    }
    let bytes = history.iter().map(|file| file.len() as u64).sum();
    staging.owe(PendingAdoption {
        bytes,
        history: History::of(bytes),
        ..owed()
    });
    staging.seal(None).unwrap();
    let placed = staging.place().unwrap();
    staging.finish().unwrap();
    staging.clean().unwrap();
    placed.files.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn history_is_placed_around_another_log() {
    for other in 0..4 {
        let bed = Host::new();
        let other = format!("console.log.{other}");
        bed.write_another_log(&other);
        bed.write("console.log", "new ");
        let names = place(&bed, FREE, &["oldest ", "older ", "old "]);
        assert_eq!(names.len(), 3);
        assert!(!names.contains(&other), "{names:?}");
        assert_eq!(bed.merged(), "oldest older old new ", "{other}");
        assert_eq!(bed.read(&other), "another's ");
        assert_eq!(bed.findings(), [], "{other}");
    }
}

#[test]
fn another_log_takes_one_of_the_numbers_that_are_kept() {
    let bed = Host::new();
    bed.write_another_log("console.log.1");
    bed.write("console.log", "new ");
    let names = place(&bed, rules(5, 3), &["oldest ", "older ", "middle ", "old "]);
    assert_eq!(names, ["console.log.0", "console.log.2"]);
    assert_eq!(bed.merged(), "middle old new ");
    assert_eq!(bed.read("console.log.1"), "another's ");
}

#[test]
fn gaps_are_closed_around_another_log() {
    let bed = Host::new();
    bed.write("console.log.5", "a ");
    bed.write("console.log.3", "b ");
    bed.write_another_log("console.log.1");
    bed.write("console.log", "c ");
    assert_eq!(
        ChainWorkspace::close_gaps(&bed.log, FREE, Arc::new(NoWriters)).unwrap(),
        2
    );
    assert_eq!(bed.merged(), "a b c ");
    assert_eq!(bed.read("console.log.1"), "another's ");
    assert_eq!(
        (bed.read("console.log.0"), bed.read("console.log.2")),
        ("b ".to_owned(), "a ".to_owned())
    );
    assert_eq!(bed.findings(), []);
}

#[test]
fn dated_files_that_come_back_are_not_there_twice() {
    // Whether this half began before the migration, and took them aside, or not.
    for before in [true, false] {
        let bed = Host::new();
        bed.write("console.log-20261101", "a ");
        bed.write("console.log-20261102", "b ");
        bed.write("console.log", "c ");
        let all = [
            "console.log-20261101",
            "console.log-20261102",
            "console.log",
        ];
        let record = handed_over(&bed, &all);
        let mut staging = open(&bed, FREE);
        if before {
            staging.retire(Some(&record)).unwrap();
        } else {
            fs::remove_file(&bed.log).unwrap();
        }
        bed.write("console.log", "e ");
        staging.append(true, b"a b c d ").unwrap();
        staging.seal(Some(&record)).unwrap();
        staging.place().unwrap();
        staging.clean().unwrap();
        assert_eq!(bed.merged(), "a b c d e ", "before: {before}");
        assert_eq!(bed.all_names(), ["console.log", "console.log.0"]);
    }
}

#[test]
fn dated_files_that_were_taken_aside_are_put_back() {
    let bed = Host::new();
    bed.write("console.log-20261101", "a ");
    bed.write("console.log.0", "b ");
    bed.write("console.log", "c ");
    let all = ["console.log-20261101", "console.log.0", "console.log"];
    let record = handed_over(&bed, &all);
    for killed in [false, true] {
        let mut staging = open(&bed, FREE);
        staging.retire(Some(&record)).unwrap();
        assert_eq!(bed.all_names(), [".console.log.logchain.d"]);
        if killed {
            drop(staging);
            ChainWorkspace::recover_all(&bed.log, FREE, Arc::new(NoWriters)).unwrap();
        } else {
            staging.discard().unwrap();
        }
        assert_eq!(bed.merged(), "a b c ");
        let mut names = all.map(str::to_owned);
        names.sort();
        assert_eq!(bed.all_names(), names, "killed: {killed}");
    }
}

#[test]
fn dated_files_that_were_never_handed_over_stay() {
    let bed = Host::new();
    bed.write("console.log-20261101", "older ");
    bed.write("console.log", "");
    let record = handed_over(&bed, &["console.log"]);
    let mut staging = open(&bed, FREE);
    staging.retire(Some(&record)).unwrap();
    assert_eq!(
        bed.all_names(),
        [".console.log.logchain.d", "console.log-20261101"]
    );
    bed.write("console.log", "new ");
    staging.append(true, b"old ").unwrap();
    staging.seal(Some(&record)).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    assert_eq!(bed.merged(), "older old new ");
}
