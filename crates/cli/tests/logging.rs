//! `--log-level` and `LOGCHAIN_LOG`: silent unless asked, to the standard error, by part.

use std::error::Error;
use std::process::{Command, Output};

type Outcome = Result<(), Box<dyn Error>>;

fn check(args: &[&str], level: Option<&str>) -> Result<Output, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_logchain"));
    command.args(["transport", "check"]).args(args);
    command.arg(format!("file://{}", folder.path().display()));
    command.env_remove("LOGCHAIN_LOG");
    command.env_remove("JOURNAL_STREAM");
    if let Some(level) = level {
        command.env("LOGCHAIN_LOG", level);
    }
    Ok(command.output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn nothing_is_logged_unless_it_is_asked_for() -> Outcome {
    let output = check(&[], None)?;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "");
    Ok(())
}

#[test]
fn a_part_is_logged_alone_and_beside_what_the_command_tells() -> Outcome {
    let silent = check(&[], None)?;
    for (args, level) in [
        (&["--log-level", "logchain_host=debug"][..], None),
        (&[], Some("logchain_host=debug")),
    ] {
        let output = check(args, level)?;
        let log = said(&output);
        assert!(log.contains("DEBUG logchain_host::event: "), "{log}");
        assert!(!log.contains("logchain_core"), "{log}");
        assert_eq!(
            output.stdout.iter().filter(|b| **b == b'\n').count(),
            silent.stdout.iter().filter(|b| **b == b'\n').count()
        );
    }
    // What stands on the command line counts.
    let output = check(&["--log-level", "off"], Some("debug"))?;
    assert_eq!(said(&output), "");
    Ok(())
}

#[test]
fn a_level_that_is_none_is_bad_usage() -> Outcome {
    let output = check(&["--log-level", "logchain_host=loud"], None)?;
    assert_eq!(output.status.code(), Some(2));
    let log = said(&output);
    assert!(log.contains("--log-level"), "{log}");
    Ok(())
}
