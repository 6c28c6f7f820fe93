//! A word without a slash is a domain where libvirt knows one of that name, else a file here.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

/// libvirt's own driver for tests, in which there is a domain `test` without a log.
fn logchain(folder: &Path, uri: &str, args: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_logchain"))
        .args(args.first())
        .args(["-c", uri])
        .args(args.get(1..).unwrap_or_default())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const KNOWN: &str = "test:///default";

#[test]
fn a_file_here_is_meant_where_no_such_domain_is_known() -> Outcome {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("c.log.0"), "older ")?;
    fs::write(folder.path().join("c.log"), "newer")?;
    let run = |args: &[&str]| logchain(folder.path(), KNOWN, args);
    for args in [&["show", "c.log"][..], &["show", "-n", "1KiB", "c.log"]] {
        let shown = run(args)?;
        assert_eq!(
            (said(&shown).as_str(), &*shown.stdout),
            ("", &b"older newer"[..]),
            "{args:?}"
        );
    }
    assert_eq!(run(&["show", "-n", "5B", "c.log"])?.stdout, b"newer");
    let verified = run(&["verify", "c.log"])?;
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
    let uuid = "9e2b0c39-0000-4000-8000-000000000001";
    let url = format!("file://{}", folder.path().join("there").display());
    let put = run(&[
        "stream",
        "--once",
        "--uuid",
        uuid,
        "--transport",
        &url,
        "c.log",
    ])?;
    assert_eq!(put.status.code(), Some(0), "{}", said(&put));
    // What has neither is looked for as a domain.
    for args in [
        &["show", "d.log"][..],
        &["show", "--console", "serial0", "c.log"],
    ] {
        let missing = run(args)?;
        assert_eq!(missing.status.code(), Some(1));
        assert!(
            said(&missing).contains("there is no domain"),
            "{}",
            said(&missing)
        );
    }
    Ok(())
}

#[test]
fn a_domain_goes_before_a_file_and_the_file_is_named() -> Outcome {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("test"), "a file")?;
    let shown = logchain(folder.path(), KNOWN, &["show", "test"])?;
    assert_eq!(shown.status.code(), Some(1));
    let said = said(&shown);
    assert!(
        said.contains("has no console log") && said.contains("the file is ./test"),
        "{said}"
    );
    Ok(())
}

#[test]
fn where_libvirt_cannot_be_asked_the_file_is_shown_and_that_is_said() -> Outcome {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("c.log"), "a file")?;
    let uri = "qemu+unix:///system?socket=/nowhere/at/all";
    let shown = logchain(folder.path(), uri, &["show", "c.log"])?;
    assert_eq!(shown.stdout, b"a file");
    let said = said(&shown);
    assert!(
        said.contains("libvirt could not be asked") && said.contains("./c.log"),
        "{said}"
    );
    Ok(())
}
