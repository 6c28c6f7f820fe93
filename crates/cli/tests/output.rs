//! Wherever the output goes, the same bytes come out of `logchain show -n all`.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

/// A chain with a compressed file in it, and what it holds.
fn chain(folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let part = |letter: u8| vec![letter; 300_000];
    fs::write(folder.join("console.log.1"), part(b'a'))?;
    let packed = zstd::bulk::compress(&part(b'b'), 1)?;
    fs::write(folder.join("console.log.0.zst"), packed)?;
    fs::write(folder.join("console.log"), part(b'c'))?;
    Ok([part(b'a'), part(b'b'), part(b'c')].concat())
}

fn show(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logchain"));
    command.arg("show").arg(folder.join("console.log"));
    command
}

fn show_all(folder: &Path) -> Command {
    let mut command = show(folder);
    command.args(["-n", "all"]);
    command
}

#[test]
fn a_pipe_a_file_and_the_end_of_a_file_get_the_same() -> Outcome {
    let folder = tempfile::tempdir()?;
    let all = chain(folder.path())?;
    let piped = show_all(folder.path()).output()?;
    assert!(piped.stdout == all, "{}", piped.stdout.len());

    let out = folder.path().join("out");
    assert!(
        show_all(folder.path())
            .stdout(File::create(&out)?)
            .status()?
            .success()
    );
    assert!(fs::read(&out)? == all);
    // The system's own copying refuses to append.
    let end = OpenOptions::new().append(true).open(&out)?;
    assert!(show_all(folder.path()).stdout(end).status()?.success());
    assert!(fs::read(&out)? == [&all[..], &all[..]].concat());
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_a_closed_pipe_is_not() -> Outcome {
    let folder = tempfile::tempdir()?;
    chain(folder.path())?;
    for amount in ["all", "100"] {
        let full = OpenOptions::new().write(true).open("/dev/full")?;
        let output = show(folder.path())
            .args(["-n", amount])
            .stdout(full)
            .stderr(Stdio::piped())
            .output()?;
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            String::from_utf8(output.stderr)?,
            "logchain: cannot write to standard output: No space left on device (os error 28)\n"
        );
    }

    let mut child = show_all(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &[][..]));
    Ok(())
}
