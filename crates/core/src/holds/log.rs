//! One held log: what is held of it, and what a look at its folder changes.
//!
//! Must not know: when a look comes, who asked for it.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::debug;

use super::Limits;
use super::bounds::HELD;
use super::decide::{self, Entry, Meaning};
use super::generation::{Generation, HeldFile};
use super::notice::{Notice, Notices};
use super::saved::Saved;
use super::table::Key;
use super::watcher::{Told, Watcher};
use crate::OkLogged as _;
use crate::chain::{ChainFile, Glimpse, LogChain, Part, Remark, Snapshot};
use crate::folder::{self, FileId, Folder, Stat, stat_open};
use crate::follow::{Result, Writer, Writers};
use crate::ids::ConsoleId;
use crate::record::Record;
use crate::sentence;

/// How soon a log is looked at again whose names changed during a look. Twice as long
/// each time that this happens again.
const SOON: Duration = Duration::from_millis(5);

/// How often a log is looked at of which the system may not tell everything, or whose
/// names are gone.
pub(super) const SELDOM: Duration = Duration::from_secs(5);

/// A log that is held.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) key: Key,
    pub(super) owner: ConsoleId,
    /// Where its folder is, or will be again.
    path: PathBuf,
    limits: Limits,
    state: Mutex<State>,
}

/// What is held of it.
#[derive(Debug)]
pub(super) struct State {
    /// In the folder in which the current files were found last.
    pub(super) chain: LogChain,
    pub(super) current: Generation,
    /// Oldest first.
    pub(super) earlier: VecDeque<Generation>,
    pub(super) remarks: Vec<Remark>,
    pub(super) notices: Notices,
    /// What of it is kept for the next process; `None`: nothing is.
    pub(super) saved: Option<Saved>,
    folder: FileId,
    /// The record on disk, when it was read last.
    record: Option<Stat>,
    is_gone: bool,
    watched: Watched,
    /// How many looks in a row settled nothing.
    unsettled: u32,
    /// Whether the last look failed: that is logged once.
    fails: bool,
}

/// What events come for.
#[derive(Debug)]
struct Watched {
    folder: Option<FileId>,
    told: Told,
    /// Whether the folder's own coming is told of.
    parent: bool,
}

/// What one look left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    /// Look again after this time, whatever happens.
    pub(super) again: Option<Duration>,
    /// Whether names were at rest, so that what is held is the log.
    pub(super) is_settled: bool,
}

/// Where the path of the folder leads.
enum Place {
    Here,
    Elsewhere(LogChain, FileId),
    Nowhere,
}

impl Log {
    /// `saved`: what is kept of it for the next process.
    pub(super) fn new(
        (key, owner): (Key, ConsoleId),
        chain: LogChain,
        limits: Limits,
        saved: Option<Saved>,
    ) -> Result<Self> {
        let record = Record::new(owner.domain, owner.console.clone());
        let current = Generation {
            number: 0,
            files: Vec::new(),
            record,
            committed: Arc::default(),
            is_received: false,
        };
        Ok(Self {
            key,
            owner,
            path: chain.folder().path().to_owned(),
            limits,
            state: Mutex::new(State {
                folder: chain.folder().id()?,
                chain,
                current,
                earlier: VecDeque::new(),
                remarks: Vec::new(),
                notices: Notices::default(),
                saved,
                record: None,
                is_gone: false,
                watched: Watched {
                    folder: None,
                    told: Told::NotAll,
                    parent: false,
                },
                unsettled: 0,
                fails: false,
            }),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A look that panicked left what it held: a file is taken out only at its end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks, and holds what came. What fails is tried again later; what is held stays.
    pub(super) fn look(
        &self,
        state: &mut State,
        watcher: &Watcher,
        writers: &dyn Writers,
        now: Instant,
    ) -> Looked {
        let looked = self.try_look(state, watcher, writers, now);
        state.keep_newest();
        match looked {
            Ok(looked) => {
                state.fails = false;
                Looked {
                    again: looked.again.into_iter().chain(self.save(state)).min(),
                    ..looked
                }
            }
            Err(error) => {
                if !state.fails {
                    debug!(
                        error = %sentence(&error), log = %state.chain.path().display(),
                        "what is held stays held; the log is looked at again"
                    );
                }
                state.fails = true;
                Looked {
                    again: Some(SELDOM),
                    is_settled: true,
                }
            }
        }
    }

    /// Gives to the store what is held now. Gives when to try again what could not be given.
    pub(super) fn save(&self, state: &mut State) -> Option<Duration> {
        let path = self.path.join(state.chain.base_name());
        state.save(self.key, (&self.owner, path))
    }

    /// As [`Log::look`], but a failure is told, and files are held beyond the bound until
    /// the next look.
    pub(super) fn try_look(
        &self,
        state: &mut State,
        watcher: &Watcher,
        writers: &dyn Writers,
        now: Instant,
    ) -> Result<Looked> {
        let place = self.place(state)?;
        self.watch(state, &place, watcher);
        state.tell_of_folder(&place);
        let ours = state.current.ids();
        let glimpse = match &place {
            Place::Here => state.chain.glimpse(ours)?,
            Place::Elsewhere(chain, _) => chain.glimpse(ours)?,
            Place::Nowhere => Glimpse::Nothing,
        };
        let snapshot = match glimpse {
            Glimpse::Files(snapshot) => Some(*snapshot),
            Glimpse::Nothing => None,
            Glimpse::Moving => {
                return Ok(Looked {
                    again: Some(state.later()),
                    is_settled: false,
                });
            }
        };
        let applied = self.apply(state, place, snapshot, writers, now);
        state.keep_within(self.limits.generations, self.limits.unlinked_bytes);
        state.read_record(&self.owner);
        let looked_out = self.look_out(state, watcher);
        Ok(Looked {
            again: applied.into_iter().chain(looked_out).min(),
            is_settled: true,
        })
    }

    fn place(&self, state: &State) -> Result<Place> {
        let folder = match Folder::open(&self.path) {
            Err(folder::Error::NotFound { .. } | folder::Error::NotFolder { .. }) => {
                return Ok(Place::Nowhere);
            }
            opened => opened?,
        };
        let id = folder.id()?;
        Ok(if id == state.folder {
            Place::Here
        } else {
            Place::Elsewhere(state.chain.moved_to(folder), id)
        })
    }

    /// Sees to it that events come for the folder to which the path leads.
    fn watch(&self, state: &mut State, place: &Place, watcher: &Watcher) {
        let (folder, id) = match place {
            Place::Here => (state.chain.folder(), state.folder),
            Place::Elsewhere(chain, id) => (chain.folder(), *id),
            Place::Nowhere => return,
        };
        if state.watched.folder != Some(id) {
            watcher.forget(self.key);
            state.watched = Watched {
                folder: Some(id),
                told: watcher.watch_log(self.key, folder, state.chain.base_name()),
                parent: false,
            };
        }
    }

    /// Holds and lets go as decided. Gives when to look again in any case.
    fn apply(
        &self,
        state: &mut State,
        place: Place,
        snapshot: Option<Snapshot>,
        writers: &dyn Writers,
        at: Instant,
    ) -> Option<Duration> {
        let remarks = snapshot.as_ref().map(|s| s.remarks().to_vec());
        let files = snapshot.map(Snapshot::into_files).unwrap_or_default();
        let entry = |file: &ChainFile| Entry {
            id: file.id(),
            part: file.part(),
            is_compressed: file.compression().is_some(),
        };
        let named: Vec<_> = files.iter().map(entry).collect();
        for held in &mut state.current.files {
            held.is_named = named.iter().any(|entry| entry.id == held.id());
        }
        let (held, generation) = (state.current.entries(), state.current.number);
        let order = decide::merge(&held, &named);
        let newest = state.current.files.last();
        let mut writer = Writer::Unknown;
        let meaning = decide::decide(&held, &named, || {
            writer = newest.map_or(Writer::None, |held| writers.writer(held.file.file()));
            writer
        });
        let mut again = None;
        match meaning {
            Meaning::SameLog { dropped, vanished } => {
                again = state.let_go(&dropped, &vanished, at, self.limits.linger);
                state.hold(files, &order);
                state.remarks = remarks.unwrap_or_default();
                state.move_to(place);
            }
            Meaning::NamesGone { compressed } => {
                state.keep_all_but(&compressed);
                // What lies in another folder is the beginning of another log.
                if let Place::Here = place {
                    state.hold(files, &order);
                }
            }
            Meaning::WrittenWithoutName => return Some(state.later()),
            Meaning::NewLog { compressed } => {
                state.keep_all_but(&compressed);
                state.begin_anew(files, writer);
                state.remarks = remarks.unwrap_or_default();
                state.move_to(place);
            }
        }
        state.unsettled = 0;
        let now = state.current.ids();
        let beyond = now.len().saturating_sub(HELD);
        let is_other = held
            .iter()
            .map(|entry| entry.id)
            .ne(now.into_iter().skip(beyond));
        if !held.is_empty() && is_other && state.current.number == generation {
            state.notices.tell(Notice::Rotated);
        }
        again
    }

    /// Where no event may come, or too late: when to look again. Without a base the folder
    /// may go next and come again, and nobody tells that of a folder that is held open.
    fn look_out(&self, state: &mut State, watcher: &Watcher) -> Option<Duration> {
        let newest = state.current.files.last();
        let has_base = newest.is_some_and(|held| held.is_named && held.file.is_base());
        if has_base && !state.is_gone {
            return (state.watched.told == Told::NotAll).then_some(SELDOM);
        }
        if state.watched.parent {
            return Some(SELDOM);
        }
        watcher.watch_for_folder(self.key, &self.path);
        state.watched.parent = true;
        // It may have come before its coming was told of.
        Some(SOON)
    }
}

impl State {
    /// Takes up what an earlier process held: the last is the present log, and of each of the
    /// others the owner is told that it was wiped.
    pub(super) fn resume(&mut self, mut logs: Vec<Generation>) {
        let Some(current) = logs.pop() else {
            return;
        };
        self.current = current;
        for log in logs.into_iter().filter(|log| !log.files.is_empty()) {
            let generation = log.number;
            self.earlier.push_back(log);
            self.notices.tell(Notice::Wiped { generation });
        }
    }

    /// Takes hold of the file that is really written, although it has no name: it is the
    /// newest, and what has the name of the base is another's. Not of one that is held.
    pub(super) fn hold_nameless(&mut self, file: File) -> std::io::Result<()> {
        let stat = stat_open(&file)?;
        if self.current.ids().contains(&stat.id) {
            return Ok(());
        }
        let (folder, base) = (self.chain.folder().path(), self.chain.base_name());
        let file = ChainFile::new((file, stat), folder, base, Part::Base, None);
        let files = &mut self.current.files;
        files.retain(|held| !held.is_named || !held.file.is_base());
        files.push(HeldFile {
            is_named: false,
            ..HeldFile::named(file)
        });
        Ok(())
    }

    /// When to look again because nothing is settled.
    fn later(&mut self) -> Duration {
        let factor = 1_u32 << self.unsettled.min(10);
        self.unsettled = self.unsettled.saturating_add(1);
        SOON.saturating_mul(factor).min(SELDOM)
    }

    fn tell_of_folder(&mut self, place: &Place) {
        let is_gone = matches!(place, Place::Nowhere);
        if is_gone != self.is_gone {
            self.is_gone = is_gone;
            let notice = if is_gone { Notice::Gone } else { Notice::Back };
            self.notices.tell(notice);
        }
    }

    /// The log's files lie there now.
    fn move_to(&mut self, place: Place) {
        if let Place::Elsewhere(chain, id) = place {
            (self.chain, self.folder, self.record) = (chain, id, None);
        }
    }

    /// Lets go of what a rotation dropped, and after a while of what vanished otherwise.
    /// Gives when the next of these is due.
    fn let_go(
        &mut self,
        dropped: &[usize],
        vanished: &[usize],
        now: Instant,
        linger: Duration,
    ) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        let mut index = 0;
        self.current.files.retain_mut(|held| {
            let here = index;
            index += 1;
            if dropped.contains(&here) {
                return false;
            }
            if !vanished.contains(&here) {
                held.vanished = None;
                return true;
            }
            let since = *held.vanished.get_or_insert(now);
            let left = linger.saturating_sub(now.saturating_duration_since(since));
            if !left.is_zero() {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
            !left.is_zero()
        });
        next
    }

    /// Keeps what vanished as well, since with it the whole log did.
    fn keep_all_but(&mut self, these: &[usize]) {
        let mut index = 0;
        self.current.files.retain_mut(|held| {
            let here = index;
            index += 1;
            held.vanished = None;
            !these.contains(&here)
        });
    }

    /// Takes hold of the files that were found by name, and puts all in this order.
    fn hold(&mut self, files: Vec<ChainFile>, order: &[FileId]) {
        let named: Vec<_> = files.iter().map(ChainFile::id).collect();
        let mut all = std::mem::take(&mut self.current.files);
        all.retain(|held| !named.contains(&held.id()));
        all.extend(files.into_iter().map(HeldFile::named));
        all.sort_by_key(|held| order.iter().position(|id| *id == held.id()));
        self.current.files = all;
    }

    /// The log was wiped: what has no name any more is an earlier one from now on.
    fn begin_anew(&mut self, files: Vec<ChainFile>, writer: Writer) {
        let number = self.current.number;
        let fresh = match &self.current.record.owner {
            Some(owner) => Record::new(owner.domain, owner.console.clone()),
            None => Record::unowned(),
        };
        let next = Generation {
            number: number.saturating_add(1),
            files: files.into_iter().map(HeldFile::named).collect(),
            record: fresh,
            committed: Arc::default(),
            is_received: false,
        };
        let mut wiped = std::mem::replace(&mut self.current, next);
        self.record = None;
        wiped.files.retain(|held| !held.is_named);
        // An empty one that nobody can write any more has nothing to be kept for.
        if wiped.bytes() > 0 || writer != Writer::None {
            self.earlier.push_back(wiped);
            self.notices.tell(Notice::Wiped { generation: number });
        }
    }

    /// Reads what is remembered beside the log, where that changed. What was read last is
    /// remembered here when the folder goes.
    fn read_record(&mut self, owner: &ConsoleId) {
        let (folder, base) = (self.chain.folder(), self.chain.base_name());
        let there = folder.stat(&Record::name(base));
        let there = there.ok_logged("the record counts as unchanged").flatten();
        if there.is_none() || there == self.record {
            return;
        }
        let record = Record::read(folder, base, owner.domain, &owner.console);
        if let Some(Some(record)) = record.ok_logged("what was remembered before still counts") {
            self.current.record = record;
        }
        self.record = there;
    }

    /// Whether the path of the log's folder led nowhere at the last look.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }
}
