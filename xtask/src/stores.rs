//! Real object stores, by a switch: what each needs, and the tests that it runs.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::in_target::Installation;
use crate::packages::{Need, need};
use crate::process::{answers, cargo, run};

/// A store that the tests of `crates/transport-s3/tests/store` start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// Microsoft's emulator of Azure's blobs.
    Azurite,
    /// A cluster with its S3 gateway.
    Ceph,
    /// It overwrites: to be refused.
    Garage,
}

const ALL: [Store; 3] = [Store::Azurite, Store::Ceph, Store::Garage];

const CEPH: [Need; 4] = [
    need("ceph-mon", "a store of several daemons for the tests"),
    need("ceph-osd", "keeps that store's objects, in memory"),
    need("radosgw", "speaks S3 for it"),
    need("ceph-common", "sets it up"),
];

const NPM: Need = need("npm", "installs Azurite, an object store for the tests");

const AZURITE: Installation = Installation {
    folder: "azurite",
    program: "node_modules/azurite/dist/src/blob/main.js",
    version: "azurite@3.35",
    doing: "installing Azurite, an emulator of Azure's blobs",
};

const GARAGE: Installation = Installation {
    folder: "garage",
    program: "bin/garage",
    version: "2.5.0",
    doing: "building Garage, an object store to be refused; once, for a quarter of an hour",
};

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Azurite => "azurite",
            Self::Ceph => "ceph",
            Self::Garage => "garage",
        }
    }
}

/// `azurite,ceph`
pub(crate) fn parse(list: &str) -> Result<Vec<Store>, String> {
    let one = |name: &str| {
        let known = ALL.into_iter().find(|store| store.name() == name);
        known.ok_or_else(|| format!("there is no store {name:?} for the tests"))
    };
    list.split(',').map(one).collect()
}

pub(crate) fn all() -> Vec<Store> {
    ALL.to_vec()
}

/// The packages that they need.
pub(crate) fn needs(stores: &[Store]) -> Vec<Need> {
    let mut needs = Vec::new();
    if stores.contains(&Store::Ceph) {
        needs.extend(CEPH);
    }
    // It comes with other distributions of Node as well.
    if stores.contains(&Store::Azurite) && !answers("npm", &["--version"]) {
        needs.push(NPM);
    }
    needs
}

/// Installs what is no package where it is not there yet.
pub(crate) fn ensure(stores: &[Store]) -> Result<()> {
    if stores.contains(&Store::Azurite) {
        AZURITE.ensure(|folder| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--loglevel", "error"]);
            npm.arg("--prefix").arg(folder).arg(AZURITE.version);
            run(&mut npm).context("cannot install it")
        })?;
    }
    if stores.contains(&Store::Garage) {
        GARAGE.ensure(|folder| {
            let mut install = Command::new(cargo());
            install.args(["install", "--quiet", "--locked", "garage"]);
            install
                .args(["--version", GARAGE.version, "--root"])
                .arg(folder);
            run(&mut install).context("cannot build it")
        })?;
    }
    Ok(())
}

/// The beginnings of their tests' names.
pub(crate) fn tests(stores: &[Store]) -> Vec<String> {
    let name = |store: &Store| format!("{}::", store.name());
    stores.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::{Store, all, parse};

    #[test]
    fn stores_are_named() {
        assert_eq!(parse("ceph,azurite"), Ok(vec![Store::Ceph, Store::Azurite]));
        let every: Vec<_> = all().into_iter().map(Store::name).collect();
        assert_eq!(parse(&every.join(",")), Ok(all()));
        for wrong in ["", "ceph,", "minio"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
