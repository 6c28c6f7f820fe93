//! What is remembered of domains that came, so that an agent which is started anew still knows whom
//! to believe: `arrivals/<uuid>` in its state folder, a file for each domain that is here.
//!
//! A file counts only while the very process of the domain runs for which it was written: a domain
//! that went and came again meanwhile came from somewhere else. One that cannot be read counts for
//! nothing.
//!
//! Must not know: what follows from it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::proof::Identity;

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;

const FOLDER: &str = "arrivals";

/// Of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Arrived {
    version: u32,
    /// Name of the domain.
    pub(super) name: String,
    /// Its process: see [`logchain_libvirt::peers::process_of`].
    process: String,
    /// Addresses from which it came.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Who may offer its logs.
    pub(super) believed: Vec<Identity>,
}

impl Arrived {
    pub(super) fn new(
        name: &str,
        process: String,
        (addresses, believed): (BTreeSet<IpAddr>, Vec<Identity>),
    ) -> Self {
        Self {
            version: VERSION,
            name: name.to_owned(),
            process,
            addresses,
            believed,
        }
    }
}

/// The files. All calls block.
#[derive(Clone, Debug)]
pub(super) struct Remembered(PathBuf);

impl Remembered {
    pub(super) fn of(state: &Path) -> Self {
        Self(state.join(FOLDER))
    }

    /// Every domain whose process is still the same. `process_of` tells the process of a domain by
    /// its name and UUID. Forgets the others.
    pub(super) fn all(
        &self,
        process_of: impl Fn(&str, Uuid) -> Option<String>,
    ) -> Vec<(Uuid, Arrived)> {
        let Ok(entries) = fs::read_dir(&self.0) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(domain) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let text = fs::read(entry.path()).unwrap_or_default();
            let arrived = serde_json::from_slice::<Arrived>(&text).ok();
            let arrived = arrived.filter(|a| {
                a.version <= VERSION && process_of(&a.name, domain).as_ref() == Some(&a.process)
            });
            match arrived {
                Some(arrived) => found.push((domain, arrived)),
                None => self.forget(domain),
            }
        }
        found
    }

    /// Replaces what is remembered of the domain.
    pub(super) fn write(&self, domain: Uuid, arrived: &Arrived) -> io::Result<()> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.0)?;
        let path = self.path(domain);
        let new = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&new)?;
        serde_json::to_writer(&file, arrived)?;
        file.sync_all()?;
        #[expect(clippy::disallowed_methods, reason = "the newer replaces the older")]
        fs::rename(new, path)
    }

    /// The domain is not here any more.
    pub(super) fn forget(&self, domain: Uuid) {
        // One that stays counts for nothing, since its process is gone.
        let _ = fs::remove_file(self.path(domain));
    }

    fn path(&self, domain: Uuid) -> PathBuf {
        self.0.join(domain.hyphenated().to_string())
    }
}

#[cfg(test)]
mod tests {
    use logchain_transport_tls::{Peer, PeerNames};

    use super::*;

    #[test]
    fn it_counts_while_the_process_is_the_same() {
        let state = tempfile::tempdir().unwrap();
        let remembered = Remembered::of(state.path());
        let process = |is: &'static str| move |_: &str, _: Uuid| Some(is.to_owned());
        assert!(remembered.all(process("1 2")).is_empty());
        let domain = Uuid::from_u128(7);
        let remote = "192.0.2.11:40000".parse().unwrap();
        let peer = Peer::new(PeerNames::of_common_name("h1"), remote, remote);
        let proof = ([remote.ip()].into(), vec![Identity::of(&peer)]);
        let arrived = Arrived::new("vm", "1 2".to_owned(), proof);
        for _ in 0..2 {
            remembered.write(domain, &arrived).unwrap();
            let all = remembered.all(process("1 2"));
            assert_eq!(all, [(domain, arrived.clone())]);
        }
        // Its process has this number no more, or ended.
        assert!(remembered.all(process("1 3")).is_empty());
        assert!(remembered.all(process("1 2")).is_empty());
        remembered.write(domain, &arrived).unwrap();
        assert!(remembered.all(|_, _| None).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let remembered = Remembered::of(state.path());
        let domain = Uuid::from_u128(7);
        let arrived = Arrived::new("vm", String::new(), Default::default());
        remembered.write(domain, &arrived).unwrap();
        let path = remembered.path(domain);
        let newer = r#"{"version":2,"name":"vm","process":"","addresses":[],"believed":[]}"#;
        for text in ["", "{", newer] {
            std::fs::write(&path, text).unwrap();
            assert!(
                remembered.all(|_, _| Some(String::new())).is_empty(),
                "{text}"
            );
            assert!(!path.exists());
        }
    }

    #[test]
    fn it_is_what_release_0_2_wrote() {
        let text = r#"{"version":1,"name":"vm","process":"1 2","addresses":["192.0.2.11"],"believed":[{"names":"h1","address":"192.0.2.11"}]}"#;
        let arrived: Arrived = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&arrived).unwrap(), text);
    }
}
