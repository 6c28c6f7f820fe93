//! The crates depend on each other as ARCHITECTURE.md draws it, and on nothing that they must
//! not know.

#![expect(
    clippy::indexing_slicing,
    reason = "these are tests: a panic is a failure"
)]

use std::error::Error;
use std::process::Command;

use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

/// Each crate, and those of ours that it may be built upon.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("logchain-core", &[]),
    ("logchain-libvirt", &[]),
    ("logchain-transport-wire", &["logchain-core"]),
    (
        "logchain-transport-ssh",
        &["logchain-core", "logchain-transport-wire"],
    ),
    (
        "logchain-transport-tls",
        &["logchain-core", "logchain-transport-wire"],
    ),
    ("logchain-transport-s3", &["logchain-core"]),
    (
        "logchain-host",
        &[
            "logchain-core",
            "logchain-libvirt",
            "logchain-transport-ssh",
            "logchain-transport-s3",
            "logchain-transport-tls",
        ],
    ),
    (
        "logchain",
        &[
            "logchain-core",
            "logchain-host",
            // `logchain transport serve` needs no libvirt.
            "logchain-transport-ssh",
        ],
    ),
];

/// Each crate, and those of others that would show that it does what it must not know.
const MUST_NOT_USE: [(&str, &[&str]); 7] = [
    (
        "logchain-core",
        &["clap", "anyhow", "virt", "object_store", "reqwest"],
    ),
    ("logchain-libvirt", &["clap", "anyhow", "object_store"]),
    (
        "logchain-transport-wire",
        &["clap", "anyhow", "virt", "rustls", "tokio-rustls"],
    ),
    ("logchain-transport-ssh", &["clap", "anyhow", "virt"]),
    ("logchain-transport-tls", &["clap", "anyhow", "virt"]),
    ("logchain-transport-s3", &["clap", "anyhow", "virt"]),
    ("logchain-host", &["clap", "anyhow"]),
];

/// A crate, and the names of those that it is built upon. Tests and build scripts may use more.
type Crate = (String, Vec<String>);

/// The crates of the workspace.
fn crates() -> Result<Vec<Crate>, Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let name = |of: &Value| of["name"].as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().ok_or("no packages")?;
    let used = |package: &Value| {
        let all = package["dependencies"].as_array().cloned();
        let all = all.unwrap_or_default().into_iter();
        all.filter(|d| d["kind"].is_null())
            .map(|d| name(&d))
            .collect()
    };
    Ok(packages.iter().map(|p| (name(p), used(p))).collect())
}

#[test]
fn crates_depend_on_each_other_in_one_direction() -> Outcome {
    let crates = crates()?;
    let ours = |name: &String| name.starts_with("logchain");
    for (name, may_use) in MAY_USE {
        let found = crates.iter().find(|(found, _)| found == name);
        let (_, used) = found.ok_or_else(|| format!("no crate {name}"))?;
        for used in used.iter().filter(|used| ours(used)) {
            assert!(may_use.contains(&used.as_str()), "{name} uses {used}");
        }
    }
    let known = |name: &str| MAY_USE.iter().any(|(known, _)| *known == name);
    let outside = ["logchain-tests", "xtask"];
    for (name, _) in &crates {
        assert!(
            known(name) || outside.contains(&name.as_str()),
            "where does {name} belong?"
        );
    }
    Ok(())
}

#[test]
fn crates_do_not_know_what_they_must_not() -> Outcome {
    let crates = crates()?;
    for (name, must_not_use) in MUST_NOT_USE {
        let found = crates.iter().find(|(found, _)| found == name);
        let (_, used) = found.ok_or_else(|| format!("no crate {name}"))?;
        for used in used {
            assert!(!must_not_use.contains(&used.as_str()), "{name} uses {used}");
        }
    }
    Ok(())
}
