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
use std::time::Duration;

use logchain_core::OkLogged as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::proof::Identity;

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;

const FOLDER: &str = "arrivals";

/// What the name of a file ends with whose domain has left.
const LEFT: &str = "left";

/// Hosts remembered of one domain.
const MOST: usize = 64;

/// How long it is known from where a domain came that left: far longer than a log that stayed
/// behind takes until it is offered.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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

impl Arrived {
    /// Adds what is known of earlier stays, as far as there is room.
    fn extend(&mut self, before: Self) {
        for address in before.addresses {
            if self.addresses.len() < MOST {
                self.addresses.insert(address);
            }
        }
        for peer in before.believed {
            if self.believed.len() < MOST && !self.believed.contains(&peer) {
                self.believed.push(peer);
            }
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
    /// its name and UUID. The others have left.
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
            let age = entry.metadata().and_then(|m| m.modified()).ok();
            let age = age.and_then(|written| written.elapsed().ok());
            if Path::new(&name).extension().is_some_and(|e| e == LEFT)
                && age.is_some_and(|age| age > KEPT)
            {
                // One that stays costs a few bytes.
                let _ = fs::remove_file(entry.path());
            }
            let Some(domain) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let arrived = read(&entry.path())
                .filter(|a| process_of(&a.name, domain).as_ref() == Some(&a.process));
            match arrived {
                Some(arrived) => found.push((domain, arrived)),
                None => self.left(domain),
            }
        }
        found
    }

    /// Replaces what is remembered of the domain.
    pub(super) fn write(&self, domain: Uuid, arrived: &Arrived) -> io::Result<()> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.0)?;
        write(&self.path(domain), arrived)
    }

    /// The domain is not here any more. From where it came is remembered all the same.
    pub(super) fn left(&self, domain: Uuid) {
        let path = self.path(domain);
        if let Some(mut arrived) = read(&path) {
            if let Some(before) = self.before(domain) {
                arrived.extend(before);
            }
            let before = path.with_extension(LEFT);
            write(&before, &arrived).ok_logged("from where a domain came before is forgotten");
        }
        // One that stays counts for nothing, since its process is gone.
        let _ = fs::remove_file(path);
    }

    /// From where a domain came at earlier stays here.
    pub(super) fn before(&self, domain: Uuid) -> Option<Arrived> {
        read(&self.path(domain).with_extension(LEFT))
    }

    fn path(&self, domain: Uuid) -> PathBuf {
        self.0.join(domain.hyphenated().to_string())
    }
}

fn read(path: &Path) -> Option<Arrived> {
    let arrived = serde_json::from_slice::<Arrived>(&fs::read(path).ok()?).ok()?;
    (arrived.version <= VERSION).then_some(arrived)
}

fn write(path: &Path, arrived: &Arrived) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&new)?;
    serde_json::to_writer(&file, arrived)?;
    file.sync_all()?;
    #[expect(clippy::disallowed_methods, reason = "the newer replaces the older")]
    fs::rename(new, path)
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
        // Where it came from is known all the same.
        assert_eq!(remembered.before(domain), Some(arrived.clone()));
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
            assert_eq!(remembered.before(domain), None);
        }
    }

    #[test]
    fn it_is_what_release_0_2_wrote() {
        let text = r#"{"version":1,"name":"vm","process":"1 2","addresses":["192.0.2.11"],"believed":[{"names":"h1","address":"192.0.2.11"}]}"#;
        let arrived: Arrived = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&arrived).unwrap(), text);
    }
}
