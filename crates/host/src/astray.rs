//! Whether what a running guest prints goes to the file at its log's path. A log that was
//! removed or renamed is still written to; one whose writer ended is not.
//!
//! [`logchain_libvirt::written`] decides; this tells it of the other domains, and puts its
//! answer into words.

use std::fs::File;
use std::path::{Path, PathBuf};

use logchain_core::OkLogged as _;
use logchain_core::chain::{Listing, rotated_name};
use logchain_core::folder::Folder;
use logchain_libvirt::Domain;
use logchain_libvirt::drain;
use logchain_libvirt::written::{Descriptor, Inode, Kind, Log, Open, Written, decide, inode};
use uuid::Uuid;

use crate::consoles;

/// Where the logs of one running domain are written, as far as it can be seen.
pub struct Look {
    open: Open,
    /// The other running domains, once they had to be asked for.
    others: Option<Others>,
}

struct Others {
    paths: Vec<PathBuf>,
}

/// What is open for writing at this moment.
async fn open() -> Option<Open> {
    let open = tokio::task::spawn_blocking(Open::look).await.ok()?;
    open.ok_logged("where logs are written is not known")
}

impl Look {
    /// `None` where /proc does not tell.
    pub async fn new() -> Option<Self> {
        let open = open().await?;
        Some(Self { open, others: None })
    }

    /// Who writes the log at `path` of `domain`. `None` where nobody knows: the domain
    /// does not run, or who writes its log cannot be seen.
    pub async fn at(&mut self, domain: &Domain, path: &Path) -> Option<Written> {
        let found = self.once(domain, path).await?;
        if found == Written::AtItsPath {
            return Some(found);
        }
        // Descriptors are listed before paths are looked at: a log that was rolled over between the
        // two seems to be written elsewhere.
        self.open = open().await?;
        self.once(domain, path).await
    }

    async fn once(&mut self, domain: &Domain, path: &Path) -> Option<Written> {
        if !domain.state().await.ok()?.is_active() {
            return None;
        }
        let open = self.open.of(path)?;
        let (base, rotated) = {
            let path = path.to_owned();
            let chain = move || (inode(&path), rotated(&path));
            tokio::task::spawn_blocking(chain).await.ok()?
        };
        // Nearly every log is where it belongs, and then libvirt need not be asked.
        if open.iter().any(|d| base == Some(d.inode)) {
            return Some(Written::AtItsPath);
        }
        let others = match &self.others {
            Some(others) => others,
            None => self.others.insert(others_than(domain, path).await?),
        };
        let written = |other: &PathBuf| {
            let base = inode(other);
            let open = self.open.of(other).unwrap_or_default();
            open.iter().any(|d| base == Some(d.inode))
        };
        let others: Vec<PathBuf> = others
            .paths
            .iter()
            .filter(|p| *p != path)
            .cloned()
            .collect();
        let log = Log {
            path,
            base,
            rotated: &rotated,
            is_only_one_without_writer: others.iter().all(written),
            others: &others,
        };
        let found = decide(&log, &open);
        // Its writer may be in a container, where it is not seen.
        if found == Written::ByNobody && has_writer(path).await {
            return None;
        }
        Some(found)
    }
}

/// Console logs of every running domain, those of `domain` among them.
async fn others_than(domain: &Domain, path: &Path) -> Option<Others> {
    let mut paths = Vec::new();
    for other in domain
        .connection()
        .domains()
        .await
        .ok_logged("where this log is written is not known")?
    {
        if !other.state().await.is_ok_and(|state| state.is_active()) {
            continue;
        }
        let xml = other.live_xml().await;
        let xml = xml.ok_logged("logs of this other domain are not told apart");
        let found = xml
            .and_then(|xml| logchain_libvirt::consoles::consoles(&xml).ok())
            .unwrap_or_default();
        paths.extend(found.into_iter().map(|console| console.path));
    }
    paths.retain(|other| other != path);
    Some(Others { paths })
}

/// The rotated files of the log. Blocks on files.
fn rotated(path: &Path) -> Vec<Inode> {
    let Ok((folder, base)) = Folder::of_file(path) else {
        return Vec::new();
    };
    let listing = Listing::read(&folder, &base);
    let names = listing.map(|listing| {
        let names = listing.rotated().iter().map(|r| r.name.clone());
        names.collect::<Vec<_>>()
    });
    let mut names = names.unwrap_or_default();
    // The listing has one file a number.
    names.extend([0, 1].map(|n| rotated_name(&base, n)));
    let parent = path.parent().unwrap_or(Path::new("/"));
    names
        .iter()
        .filter_map(|n| inode(&parent.join(n)))
        .collect()
}

/// A running guest's log whose path does not lead to what the guest prints.
pub struct Astray {
    /// What to say of it.
    pub sentence: String,
    /// The file that the guest's output goes to, where that is known and can be opened.
    pub file: Option<File>,
    /// Whether there is such a file and it is not `file`: what it holds is not carried.
    pub is_left_out: bool,
}

/// Whether the log at `path` went astray.
pub async fn astray(domain: &Domain, path: &Path) -> Option<Astray> {
    let written = Look::new().await?.at(domain, path).await?;
    let sentence = sentence(path, &written)?;
    let found = match written {
        Written::Hidden(found) => found,
        Written::Doubtful(_) => return Some(Astray::without_file(sentence, true)),
        Written::AtItsPath | Written::ByNobody => {
            return Some(Astray::without_file(sentence, false));
        }
    };
    let opened = tokio::task::spawn_blocking(move || found.open()).await;
    Some(
        match opened.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
            Ok(file) => Astray {
                sentence,
                file: Some(file),
                is_left_out: false,
            },
            Err(e) => {
                let sentence = format!("{sentence}; but that file cannot be opened here: {e}");
                Astray::without_file(sentence, true)
            }
        },
    )
}

impl Astray {
    fn without_file(sentence: String, is_left_out: bool) -> Self {
        Self {
            sentence,
            file: None,
            is_left_out,
        }
    }
}

/// Whether anybody has the file at `path` open for writing. `false` also where that cannot be
/// seen.
pub async fn has_writer(path: &Path) -> bool {
    let path = path.to_owned();
    let look = move || {
        let (folder, base) = Folder::of_file(&path).ok()?;
        let (file, _) = folder.open_file(&base).ok()?;
        Some(drain::has_writer(&file) != drain::Writer::None)
    };
    let written = tokio::task::spawn_blocking(look).await;
    written.ok().flatten().unwrap_or(false)
}

/// What is wrong with where the running domain `uuid` prints, whose log is at `path`. `None`
/// where nothing is, where it does not run, and where nobody can tell.
pub async fn not_written_here(connect: Option<&str>, uuid: Uuid, path: &Path) -> Option<String> {
    let connection = consoles::connect_local(connect).await;
    let connection = connection.ok_logged("where the log is written is not looked at")?;
    not_written_by(&connection.lookup_uuid(uuid).await.ok()?, path).await
}

/// The same of a domain that was found already.
pub async fn not_written_by(domain: &Domain, path: &Path) -> Option<String> {
    if !domain.state().await.ok()?.is_active() {
        return None;
    }
    let found = Look::new().await?.at(domain, path).await?;
    sentence(path, &found)
}

/// What is wrong, and what to do; `None` where nothing is.
#[must_use]
pub fn sentence(path: &Path, written: &Written) -> Option<String> {
    let path = path.display();
    match written {
        Written::AtItsPath => None,
        Written::Hidden(found) => Some(format!(
            "what the guest prints is not in {path}: {}; nobody who reads the log sees it. \
             `logchain migrate` carries it. {}",
            which(found),
            remedy(found, &path.to_string()),
        )),
        Written::Doubtful(found) => {
            let which: Vec<String> = found.iter().map(which).collect();
            Some(format!(
                "nobody writes {path}, and what the guest prints may go to any of these: {}",
                which.join("; ")
            ))
        }
        Written::ByNobody => Some(format!(
            "nobody has {path} open for writing: what the guest prints is lost. virtlogd was ended \
             or could not write (is the disk full?); the log goes on once the guest is migrated, or \
             shut down and started"
        )),
    }
}

fn which(found: &Descriptor) -> String {
    let program = match found.kind {
        Kind::Virtlogd => "virtlogd",
        Kind::Qemu => "QEMU",
    };
    let (process, path) = (found.process, found.path.display());
    if found.removed {
        format!("{program} (process {process}) writes to a removed file, once {path}")
    } else {
        format!("{program} (process {process}) writes to {path}, which was renamed")
    }
}

fn remedy(found: &Descriptor, path: &str) -> String {
    let (process, fd) = (found.process, found.fd);
    if found.removed {
        format!("Here it can be copied (cp /proc/{process}/fd/{fd} …) until its writer closes it")
    } else {
        format!("Renamed back to {path}, it is found again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(removed: bool) -> Written {
        Written::Hidden(Descriptor {
            process: 7,
            fd: 12,
            kind: Kind::Virtlogd,
            path: PathBuf::from("/c/vm.log"),
            removed,
            inode: (1, 2),
        })
    }

    #[test]
    fn each_finding_says_where_it_is_and_what_to_do() {
        let path = Path::new("/c/vm.log");
        assert_eq!(sentence(path, &Written::AtItsPath), None);
        let removed = sentence(path, &found(true)).unwrap();
        assert!(
            removed.contains("removed file, once /c/vm.log"),
            "{removed}"
        );
        assert!(removed.contains("cp /proc/7/fd/12"), "{removed}");
        let renamed = sentence(path, &found(false)).unwrap();
        assert!(renamed.contains("which was renamed"), "{renamed}");
        let lost = sentence(path, &Written::ByNobody).unwrap();
        assert!(lost.contains("what the guest prints is lost"), "{lost}");
    }
}
