//! A host: a folder with a log, to which a domain may come.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tempfile::TempDir;

use super::Switch;
use crate::chain::{LogChain, Numbering, NumberingChoice};
use crate::folder::Folder;
use crate::handoff::Handoff;
use crate::handoff::adopt::{Destination, Place};
use crate::placement::Rules;
use crate::record::Record;
use crate::rotation::Retention;

/// A folder without a disk behind it, where there is one: a sync costs nothing there, so more
/// can be tried.
#[must_use]
pub fn folder() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// All that the log at `path` holds, oldest first, numbered from zero as virtlogd does.
#[must_use]
pub fn read(path: &Path) -> Vec<u8> {
    let chain = LogChain::open(path, NumberingChoice::FromZero).unwrap();
    let snapshot = chain.snapshot().unwrap();
    let mut all = Vec::new();
    snapshot.read_all().unwrap().read_to_end(&mut all).unwrap();
    all
}

/// A folder with the log `console.log`. A handoff goes from one of these to another.
#[derive(Debug)]
pub struct Host {
    /// The folder. It goes with this.
    pub dir: TempDir,
    /// Where the log lies.
    pub log: PathBuf,
    /// What the rotation keeps here.
    pub retention: Cell<Retention>,
    /// Whether the domain is here.
    pub here: Switch,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// An empty folder, and a rotation that keeps everything.
    #[must_use]
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// As [`Host::new`], in this folder.
    #[must_use]
    pub fn within(dir: TempDir) -> Self {
        Self {
            log: dir.path().join("console.log"),
            dir,
            retention: Cell::new(Retention::UNLIMITED),
            here: Switch::default(),
        }
    }

    /// Where the file `name` lies.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the file `name` anew.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Appends to the log, as the guest does.
    pub fn print(&self, text: &str) {
        let mut log = OpenOptions::new();
        let mut log = log.append(true).create(true).open(&self.log).unwrap();
        log.write_all(text.as_bytes()).unwrap();
    }

    /// Runs a script in the folder, as an operator or a rotation does.
    pub fn run(&self, script: &str) {
        let mut shell = std::process::Command::new("sh");
        let status = shell.args(["-ec", script]).current_dir(self.dir.path());
        assert!(status.status().unwrap().success(), "{script}");
    }

    /// The log and its rotated files.
    #[must_use]
    pub fn chain(&self) -> LogChain {
        LogChain::open(&self.log, NumberingChoice::FromZero).unwrap()
    }

    /// All that the log holds, oldest first.
    #[must_use]
    pub fn merged(&self) -> String {
        String::from_utf8(read(&self.log)).unwrap()
    }

    /// The names of all files in the folder, sorted.
    #[must_use]
    pub fn all_names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// As [`Host::all_names`], but for the record that lies beside a log.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = self.all_names();
        names.retain(|name| name != ".console.log.logchain");
        names
    }

    /// Where a handoff to this host places the log.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            path: self.log.clone(),
            rules: Rules {
                numbering: Numbering::FromZero,
                retention: self.retention.get(),
            },
        }
    }

    /// What is remembered of the handoff's console beside the log.
    #[must_use]
    pub fn record(&self, handoff: &Handoff) -> Option<Record> {
        let (folder, base) = Folder::of_file(&self.log).unwrap();
        Record::read(&folder, &base, handoff.domain, &handoff.console).unwrap()
    }
}

/// A place that is told once the domain is here.
#[derive(Clone, Debug)]
pub struct Arriving {
    /// Where the log lies then.
    pub place: Place,
    /// On once the domain is here.
    pub here: Switch,
}

#[async_trait]
impl Destination for Arriving {
    async fn place(&self) -> Result<Option<Place>, crate::BoxError> {
        Ok(self.here.is_on().then(|| self.place.clone()))
    }
}
