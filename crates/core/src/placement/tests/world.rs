//! A destination host as the matrix sees it: a folder, a virtlogd that renames
//! one file at a time, libvirt's wipe, and a model of what must be there.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use super::*;

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

/// Whoever writes is seen once the guest is here.
struct Guest(Arc<AtomicBool>);
impl Writers for Guest {
    fn writer(&self, _: &File) -> Writer {
        if self.0.load(Ordering::Relaxed) {
            Writer::Some
        } else {
            Writer::None
        }
    }
}

pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) log: PathBuf,
    pub(super) case: Case,
    pub(super) id: HandoffId,
    record: Record,
    here: Arc<AtomicBool>,
    pub(super) logd: Rc<RefCell<Logd>>,
    /// Whether history was shown before it was placed.
    pub(super) shown: Rc<Cell<bool>>,
}

/// virtlogd: a rollover is a list of events, each one of its system calls.
pub(super) struct Logd {
    here: Arc<AtomicBool>,
    log: PathBuf,
    max: u32,
    /// It begins a rollover with no base that is smaller.
    full: usize,
    events: VecDeque<Event>,
    /// What it wrote, oldest first; the last is the base.
    pub(super) wrote: Vec<String>,
}

enum Event {
    /// The guest's last bytes into the base.
    Fill(String),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    Create(PathBuf),
}

/// The guest's first bytes in each file, but for their number.
const LINE: &str = "new0 ";

fn numbered(log: &Path, number: u32) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

impl Logd {
    /// How many events a rollover has.
    pub(super) fn rollover_len(&self) -> usize {
        let fills = self.full > LINE.len();
        self.max as usize + 1 + usize::from(fills)
    }

    /// Nothing where no guest writes.
    pub(super) fn begin_rollover(&mut self) {
        self.finish();
        if !self.here.load(Ordering::Relaxed) || self.wrote.is_empty() {
            return;
        }
        let size = self.wrote.last().map_or(0, String::len);
        if size < self.full {
            let fill = ".".repeat(self.full - size);
            self.events.push_back(Event::Fill(fill));
        }
        for i in (0..self.max).rev() {
            let from = match i {
                0 => self.log.clone(),
                i => numbered(&self.log, i - 1),
            };
            self.events
                .push_back(Event::Rename(from, numbered(&self.log, i)));
        }
        if self.max == 0 {
            self.events.push_back(Event::Unlink(self.log.clone()));
        }
        self.events.push_back(Event::Create(self.log.clone()));
    }

    pub(super) fn begin_or_go_on(&mut self, count: usize) {
        if self.events.is_empty() {
            self.begin_rollover();
        }
        self.steps(count);
    }

    pub(super) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            match self.events.pop_front() {
                None => return,
                Some(Event::Fill(bytes)) => {
                    let base = fs::OpenOptions::new().append(true).open(&self.log);
                    base.unwrap().write_all(bytes.as_bytes()).unwrap();
                    self.wrote.last_mut().unwrap().push_str(&bytes);
                }
                #[expect(clippy::disallowed_methods, reason = "as virtlogd does")]
                Some(Event::Rename(from, to)) => _ = fs::rename(from, to),
                Some(Event::Unlink(path)) => _ = fs::remove_file(path),
                Some(Event::Create(path)) => {
                    let line = format!("new{} ", self.wrote.len());
                    // It opens what it finds, and appends.
                    let open = fs::OpenOptions::new().create(true).append(true).open(path);
                    open.unwrap().write_all(line.as_bytes()).unwrap();
                    self.wrote.push(line);
                }
            }
        }
    }

    pub(super) fn finish(&mut self) {
        self.steps(usize::MAX);
    }
}

impl World {
    pub(super) fn new(case: &Case) -> Self {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() {
            tempfile::tempdir_in(shm).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let log = dir.path().join("console.log");
        let mut files = Vec::new();
        let (folder, base) = Folder::of_file(&log).unwrap();
        // The oldest first, as they were written: times are evidence.
        for (suffix, content, kind) in case.found.iter().rev() {
            let name = format!("console.log{suffix}");
            fs::write(dir.path().join(&name), content).unwrap();
            if *kind == Kind::Handed {
                let stat = folder.stat(OsStr::new(&name)).unwrap().unwrap();
                files.push((stat.id, stat.size));
            }
        }
        let mut record = Record::new(Uuid::nil(), console());
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
        let here = Arc::new(AtomicBool::new(false));
        let logd = Logd {
            here: Arc::clone(&here),
            log: log.clone(),
            max: case.max_backups,
            full: usize::try_from(case.max_size.saturating_sub(80)).unwrap(),
            events: VecDeque::new(),
            wrote: Vec::new(),
        };
        Self {
            dir,
            log,
            case: case.clone(),
            id: HandoffId::random(),
            record,
            here,
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
        Arc::new(Guest(Arc::clone(&self.here)))
    }

    fn open(&self) -> Result<Staging> {
        Staging::open(&self.log, self.id, self.rules(), self.writers())
    }

    /// libvirt prepares the migration, the guest comes and writes.
    fn arrive(&self) {
        if self.is_or_was_here() {
            return;
        }
        self.here.store(true, Ordering::Relaxed);
        if !self.case.append {
            let _ = fs::remove_file(&self.log);
            for n in 0..self.case.max_backups {
                let _ = fs::remove_file(numbered(&self.log, n));
            }
        }
        let line = LINE;
        let old = fs::read_to_string(&self.log).unwrap_or_default();
        fs::write(&self.log, format!("{old}{line}")).unwrap();
        let mut logd = self.logd.borrow_mut();
        logd.wrote.push(format!("{old}{line}"));
        for _ in 0..self.case.rolled {
            logd.begin_rollover();
            logd.finish();
        }
    }

    /// The migration failed: nobody writes here any more.
    fn leave(&self) {
        self.logd.borrow_mut().finish();
        self.here.store(false, Ordering::Relaxed);
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

    fn owed(&self) -> Owed {
        Owed {
            domain: Uuid::nil(),
            console: console(),
            bytes: 0,
            digest: String::new(),
            from: String::new(),
            host: String::new(),
            at: Timestamp::constant(1, 0),
            history: History::default(),
            contains: Vec::new(),
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
        let wrote = self.logd.borrow().wrote.clone();
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
        !self.logd.borrow().wrote.is_empty()
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
