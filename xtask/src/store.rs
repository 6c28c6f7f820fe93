//! moto, the object store that the tests start: installed in the build's folder.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::run;
use crate::progress::begin;

/// Of this line of releases; a later one is tried when this is changed.
const PACKAGE: &str = "moto[server]==5.2.*";

/// Where the tests look for it.
const PROGRAM: &str = "bin/moto_server";

/// The last step of an installation: one that was cut off is begun anew.
const WHOLE: &str = "installed";

/// Installs it where it is not there yet, unless `LOGCHAIN_MOTO` names one.
pub(crate) fn ensure() -> Result<()> {
    if std::env::var_os("LOGCHAIN_MOTO").is_some() {
        return Ok(());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/moto");
    let mark = folder.join(WHOLE);
    let there = std::fs::read_to_string(&mark).unwrap_or_default();
    if there == PACKAGE && folder.join(PROGRAM).is_file() {
        return Ok(());
    }
    let step = begin("installing moto, an object store for the tests");
    // The package's own: another may lie where the lab's hosts do not see it.
    let mut make = Command::new("/usr/bin/python3");
    run(make.args(["-m", "venv", "--clear"]).arg(&folder)).context("cannot make a place for it")?;
    let mut install = Command::new(folder.join("bin/pip"));
    let quiet = ["install", "--quiet", "--disable-pip-version-check", PACKAGE];
    run(install.args(quiet)).context("cannot install it")?;
    std::fs::write(&mark, PACKAGE).with_context(|| format!("cannot write {}", mark.display()))?;
    step.done();
    Ok(())
}
