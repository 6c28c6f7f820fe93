//! `logchain verify` by path: what it says, and what it mends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn verify(args: &[&str], log: &Path) -> std::io::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logchain"));
    command.arg("verify").args(args).arg(log).output()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_is_wrong_is_said_and_mended() -> Outcome {
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("console.log");
    let file = |ending: &str| dir.path().join(format!("console.log{ending}"));
    fs::write(&log, "three")?;
    fs::write(file(".0"), "two")?;
    let output = verify(&[], &log)?;
    assert!(output.status.success(), "{output:?}");
    assert!(
        said(&output).contains("is whole: 8 bytes in 2 files"),
        "{output:?}"
    );

    fs::write(file(".4"), "one")?;
    fs::write(dir.path().join(".console.log.logchain"), "nonsense")?;
    let staging = dir.path().join(".console.log.logchain.d");
    fs::create_dir(&staging)?;
    let numbering = ["--numbering", "from-zero"];
    let output = verify(&numbering, &log)?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for what in [
        "numbers 1 to 3 are missing (--repair would give the rotated files numbers in a row)",
        "is damaged",
        "history is being put in place",
        "is not whole: 11 bytes can be read, in 3 files",
    ] {
        assert!(said(&output).contains(what), "{what}: {output:?}");
    }
    assert!(staging.exists(), "looking changes nothing");

    let output = verify(
        &[&numbering[..], &["--repair", "--format", "json"]].concat(),
        &log,
    )?;
    // The numbers follow each other now; what was missing between them is not there for that.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(json["findings"].as_array().map(Vec::len), Some(1), "{json}");
    let finding = json["findings"][0]["finding"].as_str().unwrap_or_default();
    assert!(finding.starts_with("bytes are lost at offset 3"), "{json}");
    assert_eq!(json["bytes"], 11);
    assert_eq!(json["repaired"].as_array().map(Vec::len), Some(3), "{json}");
    assert_eq!(fs::read_to_string(file(".1"))?, "one");
    assert!(!staging.exists() && !file(".4").exists());
    assert!(dir.path().join(".console.log.logchain.damaged").exists());
    Ok(())
}

#[test]
fn no_log_is_one_plain_sentence() -> Outcome {
    let dir = tempfile::tempdir()?;
    let output = verify(&[], &dir.path().join("console.log"))?;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("there is no console log"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    Ok(())
}
