//! A destination host as the matrix sees it: a folder, a virtlogd that renames
//! one file at a time, libvirt's wipe, and a model of what must be there.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::stream::{Seen, StreamOffset};
use crate::testing::{Logd, Switch, folder};

/// What lies at the destination before the migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Handed over from here at an earlier stay; the history holds it too.
    Handed,
    /// Of an earlier stay, never handed over.
    Older,
}

/// One case of the matrix.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) max_backups: u32,
    /// Suffix, content and kind of what is found, newest first.
    pub(super) found: &'static [(&'static str, &'static str, Kind)],
    /// Whether this half was there before the migration.
    pub(super) before: bool,
    /// `append='on'`.
    pub(super) append: bool,
    /// Rollovers between the guest's first byte here and the end of staging.
    pub(super) rolled: u32,
    /// The history as files of the source, oldest first.
    pub(super) history: &'static [&'static str],
    pub(super) abort: bool,
    /// Whether the guest is still here when it is aborted.
    pub(super) live: bool,
    /// Small: every file of the source is a part of its own.
    pub(super) max_size: u64,
    /// After so many files what is staged is shown.
    pub(super) show: Option<usize>,
}

pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) log: PathBuf,
    pub(super) case: Case,
    pub(super) id: HandoffId,
    record: Record,
    here: Switch,
    pub(super) logd: Rc<RefCell<Logd>>,
    /// Whether history was shown before it was placed.
    pub(super) shown: Rc<Cell<bool>>,
}

/// What the guest prints first into each file.
fn line(number: usize) -> String {
    format!("new{number} ")
}

impl World {
    pub(super) fn new(case: &Case) -> Self {
        let dir = folder();
        let log = dir.path().join("console.log");
        let (mut files, mut seen) = (Vec::new(), Vec::new());
        let (folder, base) = Folder::of_file(&log).unwrap();
        // The oldest first, as they were written: times are evidence.
        for (suffix, content, kind) in case.found.iter().rev() {
            let name = format!("console.log{suffix}");
            fs::write(dir.path().join(&name), content).unwrap();
            let stat = folder.stat(OsStr::new(&name)).unwrap().unwrap();
            seen.push(Seen::plain(stat.id, stat.size));
            if *kind == Kind::Handed {
                files.push((stat.id, stat.size));
            }
        }
        let mut record = Record::new(Uuid::nil(), console());
        // Known already, so that none of the runs has to write it down.
        let layout = record.ledger.lay(&seen, StreamOffset::START).unwrap();
        record.ledger.remember(&layout);
        record.offered = Some(Offered {
            handoff: HandoffId::random(),
            to: "elsewhere".to_owned(),
            bytes: 0,
            digest: String::new(),
            at: Timestamp::constant(0, 0),
            files,
            prints: Vec::new(),
            received: true,
        });
        record.write(&folder, &base).unwrap();
        let logd = Logd::new(&log, case.max_size, case.max_backups).with_lines(line);
        Self {
            dir,
            log,
            case: case.clone(),
            id: HandoffId::random(),
            record,
            here: Switch::default(),
            logd: Rc::new(RefCell::new(logd)),
            shown: Rc::default(),
        }
    }

    pub(super) fn rules(&self) -> Rules {
        Rules {
            numbering: Numbering::FromZero,
            retention: Retention::virtlogd(self.case.max_size, self.case.max_backups),
        }
    }

    pub(super) fn writers(&self) -> Arc<dyn Writers> {
        Arc::new(FakeWriters::While(self.here.clone()))
    }

    fn open(&self) -> Result<Staging> {
        Staging::open(&self.log, self.id, self.rules(), self.writers())
    }

    /// libvirt prepares the migration, the guest comes and writes.
    fn arrive(&self) {
        if self.is_or_was_here() {
            return;
        }
        self.here.set(true);
        let mut logd = self.logd.borrow_mut();
        if !self.case.append {
            logd.wipe();
        }
        logd.open().unwrap();
        logd.write_line();
        for _ in 0..self.case.rolled {
            logd.fill_and_begin_rollover();
            logd.finish();
        }
    }

    /// The migration failed: nobody writes here any more.
    fn leave(&self) {
        let mut logd = self.logd.borrow_mut();
        logd.finish();
        logd.end();
        self.here.set(false);
    }

    /// A process from its start to its end. `sealing` is set as it begins to
    /// seal, `sealed` once it has.
    pub(super) fn drive(&self, progress: &mut Progress) -> Result<()> {
        let (folder, base) = Folder::of_file(&self.log)?;
        let record = Record::read(&folder, &base, Uuid::nil(), &console())?;
        if record.is_some_and(|r| r.find_adopted(self.id).is_some()) {
            progress.sealed = true;
            return self.open()?.clean();
        }
        let mut staging = self.open()?;
        if staging.is_sealed() {
            progress.sealed = true;
            staging.place()?;
            staging.finish()?;
            return staging.clean();
        }
        if self.case.before {
            staging.retire(Some(&self.record))?;
        }
        self.arrive();
        for (index, file) in self.case.history.iter().enumerate() {
            if self.case.show == Some(index) {
                self.shown.set(staging.show(self.owed())?);
            }
            let (one, two) = file.split_at(file.len() / 2);
            staging.append(true, one.as_bytes())?;
            staging.append(false, two.as_bytes())?;
        }
        if self.case.abort {
            if !self.case.live {
                self.leave();
            }
            return staging.discard();
        }
        staging.owe(self.owed());
        progress.sealing = true;
        staging.seal(Some(&self.record))?;
        progress.sealed = true;
        staging.place()?;
        staging.finish()?;
        staging.clean()
    }

    fn owed(&self) -> PendingAdoption {
        PendingAdoption {
            domain: Uuid::nil(),
            console: console(),
            bytes: 0,
            digest: String::new(),
            from: String::new(),
            host: String::new(),
            at: Timestamp::constant(1, 0),
            history: History::default(),
            contains: self.record.offered.iter().map(|o| o.handoff).collect(),
        }
    }

    /// Another process, for another handoff or none, finds what is left.
    pub(super) fn recover(&self) -> Result<()> {
        ChainWorkspace::recover_all(&self.log, self.rules(), self.writers()).map(|_| ())
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        let mut names: Vec<(String, String)> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| !n.ends_with(".logchain") && !n.ends_with(".logchain.new"))
            .map(|n| {
                let content = fs::read_to_string(self.dir.path().join(&n));
                (n, content.unwrap_or_else(|e| e.to_string()))
            })
            .collect();
        names.sort();
        names
    }

    pub(super) fn merged(&self) -> String {
        let mut all = String::new();
        let chain = LogChain::open(&self.log, NumberingChoice::FromZero).unwrap();
        if !self.log.exists() {
            // Reading waits for a base, as it may for a rollover; there is none.
            for rotated in chain.listing().unwrap().rotated().iter().rev() {
                all += &fs::read_to_string(self.dir.path().join(&rotated.name)).unwrap();
            }
            return all;
        }
        if let Ok(snapshot) = chain.snapshot() {
            let mut reader = snapshot.read_all().unwrap();
            std::io::Read::read_to_string(&mut reader, &mut all).unwrap();
        }
        all
    }

    /// What must be there when the history is not placed, or is.
    fn expected(&self, placed: bool, limited: bool) -> String {
        let wrote = self.logd.borrow().wrote().to_vec();
        let limit = self.case.max_backups.max(1) as usize;
        let mut stream: Vec<String> = Vec::new();
        for (suffix, content, kind) in self.case.found.iter().rev() {
            let is_base = suffix.is_empty();
            let number = suffix.strip_prefix('.').and_then(|n| n.parse::<u32>().ok());
            let wiped = !self.case.append
                && self.is_or_was_here()
                && (is_base || number.is_some_and(|n| n < self.case.max_backups));
            // What was written behind it is part of what virtlogd wrote.
            let grew = is_base && self.case.append && self.is_or_was_here();
            let keep = match kind {
                Kind::Handed if self.case.before => !placed,
                Kind::Handed => !placed && !wiped && !grew,
                // It was taken aside before the wipe, and lies behind the history.
                Kind::Older if self.case.before => true,
                Kind::Older => !wiped && !grew,
            };
            if keep {
                stream.push((*content).to_owned());
            }
        }
        if placed {
            stream.extend(self.case.history.iter().map(|s| (*s).to_owned()));
        }
        let Some((base, rotated)) = wrote.split_last() else {
            return stream.concat();
        };
        // With no backups virtlogd itself keeps none.
        if self.case.max_backups > 0 {
            stream.extend(rotated.iter().cloned());
        }
        if limited {
            let surplus = stream.len().saturating_sub(limit);
            stream.drain(..surplus);
        }
        stream.push(base.clone());
        stream.concat()
    }

    fn is_or_was_here(&self) -> bool {
        !self.logd.borrow().wrote().is_empty()
    }

    /// Checks what is there against the model, and that nothing is left of us.
    pub(super) fn check(&self, placed: Option<bool>, what: &str) {
        let merged = self.merged();
        let name = self.case.name;
        let there = self.names();
        // What was put back may lie beyond the limit: there it was found. What
        // virtlogd dropped there is gone.
        let fits = |placed| {
            merged == self.expected(placed, true)
                || !placed && merged == self.expected(false, false)
        };
        let ok = placed.map_or(fits(true) || fits(false), fits);
        assert!(
            ok,
            "{name}: {what}: placed {placed:?}\n merged   {merged:?}\n placed   {:?}\n unplaced {:?}\n{there:#?}",
            self.expected(true, true),
            self.expected(false, false),
        );
        let left: Vec<_> = there.iter().filter(|(n, _)| n.starts_with('.')).collect();
        assert!(left.is_empty(), "{name}: {what}: left behind: {left:?}");
        if placed == Some(true) {
            let end = self.case.max_backups.max(1);
            for (name, _) in &there {
                let number = name
                    .strip_prefix("console.log.")
                    .and_then(|n| n.parse().ok());
                let found = self
                    .case
                    .found
                    .iter()
                    .any(|(s, ..)| name.ends_with(s) && !s.is_empty());
                assert!(
                    number.is_none_or(|n: u32| n < end) || found,
                    "{name} sticks out: {what}: {there:?}"
                );
            }
        }
        if placed == Some(false) && !self.is_or_was_here() {
            let mut found: Vec<(String, String)> = self
                .case
                .found
                .iter()
                .map(|(s, c, _)| (format!("console.log{s}"), (*c).to_owned()))
                .collect();
            found.sort();
            assert_eq!(there, found, "{name}: {what}: not as found");
        }
    }
}

#[derive(Default, Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) sealing: bool,
    pub(super) sealed: bool,
}

impl Progress {
    /// Whether the history must be placed after recovery; `None`: either.
    pub(super) fn placed(self) -> Option<bool> {
        match (self.sealing, self.sealed) {
            (_, true) => Some(true),
            (true, false) => None,
            (false, false) => Some(false),
        }
    }
}
