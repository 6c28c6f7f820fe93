//! What is kept of one log for the process that starts next.
//!
//! Must not know: why the held files changed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tracing::debug;

use super::log::{SELDOM, State};
use super::stored::{LogState, Put, Stored};
use super::table::Key;
use crate::folder::{FileId, Folder, reopen};
use crate::ids::ConsoleId;
use crate::{OkLogged as _, sentence};

/// What of a log is in the store.
#[derive(Debug)]
pub(super) struct Saved {
    stored: Stored,
    /// What the store calls each file.
    names: HashMap<FileId, String>,
    /// What it calls the folder.
    folder: Option<(FileId, String)>,
    /// What was written last.
    written: Option<LogState>,
    /// Whether it could not be written: that is logged once.
    fails: bool,
}

impl Saved {
    /// Nothing of it is stored yet.
    pub(super) fn new(stored: Stored) -> Self {
        Self::with(stored, HashMap::new(), None)
    }

    /// This came back from the store, where it still is.
    pub(super) fn with(
        stored: Stored,
        names: HashMap<FileId, String>,
        folder: Option<(FileId, String)>,
    ) -> Self {
        Self {
            stored,
            names,
            folder,
            written: None,
            fails: false,
        }
    }

    fn put_folder(&mut self, folder: &Folder) -> Option<Put> {
        let id = folder.id().ok_logged("the folder is not kept")?;
        if self.folder.as_ref().is_some_and(|(of, _)| *of == id) {
            return None;
        }
        match self.stored.put(|| folder.reopen()) {
            Ok(name) => {
                // The old one is named by the state that is written still.
                if let Some((old, old_name)) = self.folder.replace((id, name)) {
                    self.names.insert(old, old_name);
                }
                None
            }
            Err(why) => Some(why),
        }
    }
}

impl State {
    /// Gives what is held now to the store, says what it is, and takes back what is not held any
    /// more: in this order. Gives when to try again what could not be given.
    pub(super) fn save(
        &mut self,
        key: Key,
        (owner, path): (&ConsoleId, PathBuf),
    ) -> Option<Duration> {
        let mut saved = self.saved.take()?;
        let again = self.save_to(&mut saved, key, (owner, path));
        self.saved = Some(saved);
        again
    }

    fn save_to(
        &self,
        saved: &mut Saved,
        key: Key,
        (owner, path): (&ConsoleId, PathBuf),
    ) -> Option<Duration> {
        let logs = || self.earlier.iter().chain([&self.current]);
        let held = || logs().flat_map(|log| &log.files);
        if held().next().is_none() {
            self.unsave_from(saved, key, owner);
            return None;
        }
        // The service manager must never wait for the server of a file system.
        if self.chain.folder().is_shared() {
            return None;
        }
        let mut again = None;
        let mut refused = |why| {
            if why == Put::Later {
                again = Some(SELDOM);
            }
        };
        if let Some(why) = saved.put_folder(self.chain.folder()) {
            refused(why);
        }
        for file in held() {
            if saved.names.contains_key(&file.id()) {
                continue;
            }
            match saved.stored.put(|| reopen(file.file.file())) {
                Ok(name) => drop(saved.names.insert(file.id(), name)),
                Err(why) => refused(why),
            }
        }
        let state = LogState::of((owner, path), saved.folder.clone(), logs(), &saved.names);
        if saved.written.as_ref() != Some(&state) {
            if let Err(error) = saved.stored.write(key, &state) {
                if !std::mem::replace(&mut saved.fails, true) {
                    debug!(error = %sentence(&error), "what is held of a log is not written down");
                }
                // What the last state names stays in the store.
                return Some(SELDOM);
            }
            saved.fails = false;
            saved.written = Some(state);
        }
        let wanted: Vec<FileId> = held().map(super::generation::HeldFile::id).collect();
        let stored = &saved.stored;
        saved.names.retain(|id, name| {
            let is_wanted = wanted.contains(id);
            if !is_wanted {
                stored.remove(name);
            }
            is_wanted
        });
        again
    }

    /// Nothing of this log is wanted any more, by no process.
    pub(super) fn unsave(&mut self, key: Key, owner: &ConsoleId) {
        if let Some(mut saved) = self.saved.take() {
            self.unsave_from(&mut saved, key, owner);
        }
    }

    fn unsave_from(&self, saved: &mut Saved, key: Key, owner: &ConsoleId) {
        if saved.written.take().is_some() || !saved.names.is_empty() {
            saved.stored.remove_state(key, owner);
        }
        let folder = saved.folder.take().map(|(_, name)| name);
        for name in saved.names.drain().map(|(_, name)| name).chain(folder) {
            saved.stored.remove(&name);
        }
    }
}
