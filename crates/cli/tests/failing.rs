//! What fails is told to programs too, and changes nothing.
//!
//! The test driver of libvirt has one domain, `test`, that runs and has no log.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Output};

type Outcome = Result<(), Box<dyn Error>>;

fn logchain(args: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_logchain"))
        .args(args)
        .env("LIBVIRT_DEFAULT_URI", "test:///default")
        .env("PATH", "/nowhere")
        .output()
}

#[test]
fn every_failure_ends_in_an_error_for_programs() -> Outcome {
    let nowhere = tempfile::tempdir()?;
    let missing = nowhere.path().join("not/there");
    let missing = format!("file://{}", missing.display());
    let uuid = "9e2b0c39-0000-4000-8000-000000000001";
    let empty = format!("file://{}", nowhere.path().display());
    let cases: &[(&[&str], i32, &str)] = &[
        (&["migrate", "test"], 2, "<DESTURI>"),
        (
            &["migrate", "", "qemu+ssh://h2/system"],
            2,
            "the name is empty",
        ),
        (
            &["migrate", "nobody", "qemu+ssh://h2/system"],
            1,
            "no domain nobody",
        ),
        (
            &["migrate", "test", "qemu+ssh://h2/system"],
            1,
            "cannot connect to qemu+ssh://h2/system",
        ),
        (
            &["migrate", "test", "test:///default"],
            1,
            "is this very host",
        ),
        (
            &[
                "migrate",
                "--transport",
                "ftp://h2",
                "test",
                "test:///default",
            ],
            2,
            "there is no transport ftp://",
        ),
        (&["offer", "test"], 2, "--transport"),
        (
            &["offer", "--transport", "ssh://h2", "nobody"],
            1,
            "no domain nobody",
        ),
        (
            &["offer", "--transport", "file:///a/../b", "test"],
            2,
            "has .. in it",
        ),
        (&["adopt", ""], 2, "the name is empty"),
        (
            &["adopt", "test", "--patience", "x"],
            2,
            "a number of seconds",
        ),
        (
            &["adopt", "--transport", "file:///../..", "test"],
            2,
            "has .. in it",
        ),
        (
            &["adopt", "--transport", &missing, uuid],
            1,
            "does not exist",
        ),
        (
            &["adopt", "--transport", &empty, "--patience", "0.5", uuid],
            1,
            "nothing is offered",
        ),
        (
            &["adopt", "--transport", "ssh://h2", uuid],
            1,
            "cannot start ssh",
        ),
    ];
    for (args, code, reason) in cases {
        let plain = logchain(args)?;
        let output = logchain(&[args, &["--format", "json"][..]].concat())?;
        let (out, said) = (
            String::from_utf8(output.stdout)?,
            String::from_utf8(output.stderr)?,
        );
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {said}");
        assert_eq!(plain.status.code(), Some(*code), "{args:?}");
        assert_eq!(plain.stdout, b"", "{args:?}");
        assert!(said.contains(reason), "{args:?}: {said}");
        let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap_or_default())?;
        assert_eq!(last["event"], "error", "{args:?}: {out}");
        let told = last["reason"].as_str().unwrap_or_default();
        assert!(told.contains(reason), "{args:?}: {out}");
        assert!(!told.contains('\n'), "{args:?}: {out}");
    }
    assert!(!Path::new(&missing["file://".len()..]).exists());
    assert_eq!(std::fs::read_dir(nowhere.path())?.count(), 0);
    Ok(())
}

/// A shared folder may be looked into before anybody has offered anything.
#[test]
fn an_offer_is_waited_for_and_that_is_said_once() -> Outcome {
    let folder = tempfile::tempdir()?;
    let url = format!("file://{}", folder.path().display());
    let uuid = "9e2b0c39-0000-4000-8000-000000000001";
    let begun = std::time::Instant::now();
    let output = logchain(&["adopt", "--transport", &url, "--patience", "1.5", uuid])?;
    assert!(begun.elapsed().as_secs_f64() >= 1.5);
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(
        said,
        format!(
            "logchain: nothing is offered for domain {uuid} in {url} yet; waiting for up to 1.5 s\n\
             logchain: nothing is offered for domain {uuid} in {url} after 1.5 s\n"
        )
    );
    Ok(())
}
