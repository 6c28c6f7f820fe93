//! Which files beside a log belong to another guest. Names do not tell: one guest may log to
//! `web.1` in the folder in which another one logs to `web`. libvirt's definitions and the
//! kernel's leases do.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use logchain_core::OkLogged as _;
use logchain_core::chain::{Listing, LogChain, NumberingChoice, Ownership, Remark};
use logchain_core::folder::Folder;
use logchain_libvirt::consoles::consoles;
use logchain_libvirt::{Connection, Domain, drain};
use tokio::time::timeout;

/// The console logs of all domains that libvirt here knows, running or not. Libvirt is asked
/// once, and only where a log has files that may be another log; again after [`outdated`].
static LOGS: RwLock<Option<Arc<[PathBuf]>>> = RwLock::new(None);

fn logs() -> Option<Arc<[PathBuf]>> {
    let logs = LOGS.read().unwrap_or_else(PoisonError::into_inner);
    logs.clone()
}

fn set_logs(logs: Option<Arc<[PathBuf]>>) {
    *LOGS.write().unwrap_or_else(PoisonError::into_inner) = logs;
}

/// Domains came or went: whoever asks next learns their logs anew. For a process that lives
/// longer than one job.
pub fn outdated() {
    set_logs(None);
}

/// How long libvirt may take to name all logs. After that, leases and times decide alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks libvirt for every domain's logs, if that could matter for one of `logs`.
pub async fn learn(connection: &Connection, logs: Vec<PathBuf>) {
    if self::logs().is_some() {
        return;
    }
    let look = move || logs.iter().any(|log| is_doubtful(log));
    if !tokio::task::spawn_blocking(look).await.unwrap_or(false) {
        return;
    }
    if let Ok(Some(named)) = timeout(PATIENCE, named(connection)).await {
        set_logs(Some(named.into()));
    }
}

/// As [`learn`], for a log that is only known by its path, on a host that may have no
/// libvirt.
pub async fn learn_of_path(log: &Path) {
    if let Ok(connection) = Connection::open_within(None, PATIENCE).await
        && connection.is_local()
    {
        learn(&connection, vec![log.to_owned()]).await;
    }
}

async fn named(connection: &Connection) -> Option<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for domain in connection
        .domains()
        .await
        .ok_logged("files and leases alone tell whose a file is")?
    {
        // A domain that goes meanwhile, or whose definition cannot be read, names no log.
        if let Ok(xml) = domain.live_xml().await
            && let Ok(found) = consoles(&xml)
        {
            logs.extend(found.into_iter().map(|console| console.path));
        }
    }
    Some(logs)
}

fn is_doubtful(log: &Path) -> bool {
    let found = Folder::of_file(log)
        .map(|(folder, base)| Listing::read(&folder, &base))
        .ok_logged("no file beside this log is in doubt")
        .and_then(|listing| listing.ok_logged("no file beside this log is in doubt"));
    found.is_some_and(|listing| listing.unproven().next().is_some())
}

/// What is known of the files beside the log `base` in `folder`. Blocks on files.
#[must_use]
pub fn ownership(folder: &Folder, base: &OsStr) -> Ownership {
    let mut known = Ownership::default();
    let Ok(listing) = Listing::read(folder, base) else {
        return known;
    };
    let mut doubtful = listing.unproven().peekable();
    if doubtful.peek().is_none() {
        return known;
    }
    let logs = logs();
    let logs = logs.as_deref().unwrap_or_default();
    let written = |name: &OsStr| {
        let opened = folder.open_file(name);
        opened.is_ok_and(|(file, _)| drain::has_writer(&file) == drain::Writer::Some)
    };
    // virtlogd writes to one file of a log at a time: two that are written are two logs.
    let base_is_written = written(base);
    for name in doubtful {
        if logs.iter().any(|log| is_at(log, folder, name)) {
            known.named_by_another(name.to_owned());
        } else if base_is_written && written(name) {
            known.written_by_another(name.to_owned());
        }
    }
    known
}

fn is_at(log: &Path, folder: &Folder, name: &OsStr) -> bool {
    log.file_name() == Some(name)
        && Folder::of_file(log).is_ok_and(|(its, _)| {
            let (its, this) = (its.id(), folder.id());
            its.ok()
                .zip(this.ok())
                .is_some_and(|(its, this)| its == this)
        })
}

/// The chain of the log at `path`, without the files of other logs. Blocks on files.
///
/// # Errors
/// As [`LogChain::open`].
pub fn chain(path: &Path, numbering: NumberingChoice) -> logchain_core::chain::Result<LogChain> {
    let (folder, base) = Folder::of_file(path)?;
    chain_in(folder, base, numbering)
}

/// As [`chain`], of the log `base` in a folder that is open already.
///
/// # Errors
/// As [`LogChain::beneath`].
pub fn chain_in(
    folder: Folder,
    base: OsString,
    numbering: NumberingChoice,
) -> logchain_core::chain::Result<LogChain> {
    let known = ownership(&folder, &base);
    LogChain::beneath(folder, base, numbering)?.owned(known)
}

/// What a reader of a domain's logs should know, each with the log's path.
pub async fn remarks(domain: &Domain, numbering: NumberingChoice) -> Vec<String> {
    let Ok(found) = async { consoles(&domain.live_xml().await?) }.await else {
        return Vec::new();
    };
    let paths: Vec<PathBuf> = found.into_iter().map(|console| console.path).collect();
    learn(domain.connection(), paths.clone()).await;
    let look = move || {
        let mut sentences = Vec::new();
        for path in paths {
            // A log that is not there, or cannot be read, is told of elsewhere.
            if let Ok(snapshot) = chain(&path, numbering).and_then(|chain| chain.snapshot()) {
                sentences.extend(snapshot.remarks().iter().map(|r| sentence(&path, r)));
            }
        }
        sentences
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

/// A remark, with the log that it is of.
#[must_use]
pub fn sentence(path: &Path, remark: &Remark) -> String {
    format!("{}: {remark}", path.display())
}
