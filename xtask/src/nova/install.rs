//! What the cloud needs: Debian packages, and OpenStack from PyPI in a virtual environment below
//! `target`, every package with its version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::in_target::Installation;
use crate::packages::{self, Need, need};
use crate::process::run;

const REQUIREMENTS: &str = include_str!("../../../tests/nova/requirements.txt");

const NEEDS: [Need; 6] = [
    need("mariadb-server", "the cloud's database"),
    need("rabbitmq-server", "the cloud's messages"),
    need("python3-venv", "a place for OpenStack's Python packages"),
    need("python3-dev", "builds libvirt's Python module"),
    need("sudo", "nova-compute, an ordinary user, starts its helper"),
    need("qemu-utils", "qemu-img, by which Nova makes disks"),
];

const OPENSTACK: Installation = Installation {
    folder: "nova",
    program: "bin/nova-compute",
    version: REQUIREMENTS,
    doing: "installing OpenStack (Nova, Keystone, Glance, Placement) into target/nova; once, for minutes",
};

/// Installs what is missing, and says so. Gives the virtual environment.
pub(crate) fn ensure(yes: bool) -> Result<PathBuf> {
    packages::ensure(yes, &NEEDS)?;
    packages::guest()?;
    OPENSTACK.ensure(|folder| {
        let mut make = Command::new("/usr/bin/python3");
        make.args(["-m", "venv", "--clear"]).arg(folder);
        run(&mut make).context("cannot make a place for it")?;
        let mut install = Command::new(folder.join("bin/pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check"]);
        install
            .arg("--requirement")
            .arg(tests().join("requirements.txt"));
        run(&mut install).context("cannot install it")
    })?;
    let place = place();
    place
        .canonicalize()
        .with_context(|| format!("cannot find {}", place.display()))
}

/// The virtual environment, and what is kept beside it.
pub(crate) fn place() -> PathBuf {
    OPENSTACK.place()
}

/// Where the files of the project that the cloud needs lie.
pub(crate) fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/nova")
}
