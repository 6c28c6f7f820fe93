//! A log whose name leaves no room for what is written beside it under a longer one.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

fn logchain(args: &[&str], log: &Path) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_logchain"))
        .args(args)
        .arg(log)
        .stdin(Stdio::null())
        .output()
}

#[test]
fn a_log_with_a_long_name_is_read_verified_and_streamed() -> Outcome {
    // With more, not even a record's name would fit; 255 is all that there is.
    for length in [241, 242, 243, 244, 250, 255] {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("x".repeat(length));
        fs::write(&log, "one two ")?;
        let run = |args: &[&str], want: &[u8]| -> Outcome {
            let output = logchain(args, &log)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(0), "{length}: {args:?}: {said}");
            assert!(!said.contains("too long"), "{length}: {args:?}: {said}");
            if !want.is_empty() {
                assert_eq!(output.stdout, want, "{length}: {args:?}: {said}");
            }
            Ok(())
        };
        run(&["show"], b"one two ")?;
        run(&["show", "-n", "4B"], b"two ")?;
        run(&["show", "--from", "0"], b"one two ")?;
        OpenOptions::new()
            .append(true)
            .open(&log)?
            .write_all(b"three")?;
        run(&["show", "--from", "4"], b"two three")?;
        run(&["verify"], b"")?;
        let there = format!("file://{}", folder.path().join("there").display());
        let uuid = "9e2b0c39-0000-4000-8000-000000000001";
        run(
            &["stream", "--once", "--uuid", uuid, "--transport", &there],
            b"",
        )?;
        // The record was kept, under a name that fits.
        let names = fs::read_dir(folder.path())?.filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.ends_with(".logchain").then_some(name)
        });
        assert_eq!(names.count(), 1, "{length}");
    }
    Ok(())
}
