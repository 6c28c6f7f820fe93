//! What needs no libvirt works where libvirt cannot be loaded, and what does
//! need it says so.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use logchain_core::ids::HandoffId;
use logchain_core::transport::{Key, LogTransport, LogTransportExt, ObjectName};
use logchain_transport_ssh::{SshOptions, SshTransport};
use uuid::Uuid;

type Outcome = Result<(), Box<dyn Error>>;

const LOGCHAIN: &str = env!("CARGO_BIN_EXE_logchain");
const LOGCHAIN_LIBVIRT: &str = env!("CARGO_BIN_EXE_logchain-libvirt");

/// A folder for the loader to look into first, in which libvirt is no library.
fn broken_libvirt(folder: &Path) -> std::io::Result<PathBuf> {
    let libraries = folder.join("lib");
    fs::create_dir(&libraries)?;
    fs::write(libraries.join("libvirt.so.0"), "")?;
    Ok(libraries)
}

fn output(program: impl AsRef<Path>, libraries: &Path, args: &[&str]) -> std::io::Result<Output> {
    Command::new(program.as_ref())
        .args(args)
        .env("LD_LIBRARY_PATH", libraries)
        .stdin(Stdio::null())
        .output()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_path_is_shown() -> Outcome {
    let folder = tempfile::tempdir()?;
    let libraries = broken_libvirt(folder.path())?;
    let log = folder.path().join("console.log");
    fs::write(folder.path().join("console.log.0"), "older ")?;
    fs::write(&log, "newer")?;
    let log = log.to_str().ok_or("not a text")?;

    let shown = output(LOGCHAIN, &libraries, &["show", log])?;
    assert_eq!(
        (said(&shown).as_str(), &*shown.stdout),
        ("", &b"older newer"[..])
    );
    for args in [&["--help"][..], &["--version"], &["migrate", "--help"]] {
        let help = output(LOGCHAIN, &libraries, args)?;
        assert!(help.status.success(), "{args:?}: {}", said(&help));
    }
    for args in [&["show", "--console", "serial0", log][..], &["migrate"]] {
        let refused = output(LOGCHAIN, &libraries, args)?;
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    }
    // That it cannot be loaded is what the other program shows.
    let domain = output(LOGCHAIN, &libraries, &["show", "vm1"])?;
    assert!(
        said(&domain).contains("libvirt.so.0: file too short"),
        "{}",
        said(&domain)
    );
    assert!(!domain.status.success());
    Ok(())
}

#[tokio::test]
async fn a_spool_is_served() -> Outcome {
    let folder = tempfile::tempdir()?;
    let libraries = broken_libvirt(folder.path())?;
    // An ssh that connects to this very machine, whatever else it is told.
    let script = format!(
        "LD_LIBRARY_PATH='{}' exec '{LOGCHAIN}' transport serve '{}'",
        libraries.display(),
        folder.path().join("spool").display()
    );
    let options = SshOptions {
        program: "sh".into(),
        extra_args: vec!["-c".into(), script.into()],
        ..SshOptions::default()
    };
    let transport = SshTransport::connect("ssh://here".parse()?, options).await?;
    let key = Key {
        domain: Uuid::from_u128(1),
        console: "serial0".parse()?,
        collection: HandoffId::random().into(),
        object: ObjectName::Begin,
    };
    transport.put(&key, Bytes::from_static(b"here")).await?;
    assert_eq!(transport.get_bytes(&key, 100).await?, "here");
    Ok(())
}

/// Somebody installed one file and forgot the other.
#[test]
fn alone_it_names_what_is_missing() -> Outcome {
    // Not a copy: a program that was just written may still be open for writing.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let alone = folder.path().join("logchain");
    fs::hard_link(LOGCHAIN, &alone)?;
    fs::write(folder.path().join("vm1"), "a log in this folder")?;
    let run = |what: &str| {
        Command::new(&alone)
            .args(["show", what])
            .current_dir(folder.path())
            .output()
    };
    let missing = run("vm2")?;
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(
        said(&missing),
        format!(
            "logchain: this needs libvirt, and so the program {}, which is not there: \
             install it beside logchain\n",
            folder.path().join("logchain-libvirt").display()
        )
    );
    // No domain is known here: it is the file.
    for what in ["vm1", "./vm1"] {
        let shown = run(what)?;
        assert_eq!(
            (said(&shown).as_str(), &*shown.stdout),
            ("", &b"a log in this folder"[..])
        );
    }
    Ok(())
}

/// A link to the one, in another folder, finds the other.
#[test]
fn through_a_link_it_finds_its_other_half() -> Outcome {
    let folder = tempfile::tempdir()?;
    let link = folder.path().join("logchain");
    std::os::unix::fs::symlink(LOGCHAIN, &link)?;
    let usage = Command::new(&link)
        .args(["migrate", "--direct", "vm1", "there"])
        .output()?;
    let other = Command::new(LOGCHAIN_LIBVIRT)
        .args(["migrate", "--direct", "vm1", "there"])
        .output()?;
    assert_eq!(said(&usage), said(&other));
    assert_eq!(usage.status.code(), Some(2), "{}", said(&usage));
    Ok(())
}
