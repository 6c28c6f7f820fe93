//! A console's log on this host, as the source's half handles it.

use std::fs::File;
use std::path::PathBuf;

use logchain_core::OkLogged as _;
use logchain_core::chain::{LogChain, NumberingChoice};
use logchain_core::handoff::Handoff;
use logchain_core::handoff::offer::Held;
use logchain_core::ids::{ConsoleName, HandoffId};
use uuid::Uuid;

use crate::blocking::blocking;
use crate::limits::numbering_of_host;
use crate::{Error, Events, Result, neighbours};

/// A console's log here.
#[derive(Clone, Debug)]
pub struct ConsoleLog {
    /// Which console of its domain.
    pub console: ConsoleName,
    /// Its base file.
    pub path: PathBuf,
}

impl ConsoleLog {
    /// Its chain, without files that are another log's. Blocks on files.
    ///
    /// # Errors
    /// [`Error::Chain`].
    pub fn chain(&self, events: &Events) -> Result<LogChain> {
        Ok(neighbours::chain(&self.path, numbering_of_host(events))?)
    }

    /// Tells what of the log will not be carried, or is in doubt.
    pub(crate) fn tell_remarks(&self, events: &Events, held: &Held) {
        for remark in held.remarks() {
            events.warn(format!(
                "{}: {}",
                self.console,
                neighbours::sentence(&self.path, remark)
            ));
        }
    }

    /// Opens every file of the log: from now on its bytes are ours, whatever happens to its
    /// names.
    pub(crate) async fn hold(&self, domain: Uuid, events: &Events) -> Result<Held> {
        self.hold_for(domain, None, (None, None), events).await
    }

    /// As [`ConsoleLog::hold`], before a migration. Should the destination have the same
    /// folder, it finds the handoff's name there. `newest`: the file that the log is really
    /// written to, where its path does not lead there. `numbering`: how rotated files are
    /// numbered here, where the caller knows.
    pub(crate) async fn hold_for(
        &self,
        domain: Uuid,
        handoff: Option<HandoffId>,
        (newest, numbering): (Option<File>, Option<NumberingChoice>),
        events: &Events,
    ) -> Result<Held> {
        let (log, events) = (self.clone(), events.clone());
        let work = move || {
            let numbering = numbering.unwrap_or_else(|| numbering_of_host(&events));
            let chain = neighbours::chain(&log.path, numbering)?;
            let held = Held::open_with(&chain, newest, domain, &log.console);
            let held = held.map_err(|e| Error::Handoff(e.to_string()))?;
            if let Some(id) = handoff {
                let console = log.console;
                let handoff = Handoff {
                    domain,
                    console,
                    id,
                };
                held.announce(&handoff).ok_logged(
                    "a folder that cannot be written here is shared with nobody who could",
                );
            }
            Ok(held)
        };
        blocking(work).await
    }

    /// Whether anybody could still open it here.
    pub(crate) async fn is_there(&self) -> bool {
        let path = self.path.clone();
        let look = move || std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }
}
