//! moto, the object store that the tests start: installed in the build's folder.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::in_target::Installation;
use crate::process::run;

/// Of this line of releases; a later one is tried when this is changed.
const PACKAGE: &str = "moto[server]==5.2.*";

const MOTO: Installation = Installation {
    folder: "moto",
    program: "bin/moto_server",
    version: PACKAGE,
    doing: "installing moto, an object store for the tests",
};

/// Installs it where it is not there yet, unless `LOGCHAIN_MOTO` names one.
pub(crate) fn ensure() -> Result<()> {
    if std::env::var_os("LOGCHAIN_MOTO").is_some() {
        return Ok(());
    }
    MOTO.ensure(|folder| {
        // The package's own: another may lie where the lab's hosts do not see it.
        let mut make = Command::new("/usr/bin/python3");
        make.args(["-m", "venv", "--clear"]).arg(folder);
        run(&mut make).context("cannot make a place for it")?;
        let mut install = Command::new(folder.join("bin/pip"));
        let quiet = ["install", "--quiet", "--disable-pip-version-check", PACKAGE];
        run(install.args(quiet)).context("cannot install it")
    })
}
