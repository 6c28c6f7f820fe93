//! A folder as a transport: on this host, or on storage that both hosts share.
//!
//! An object is a file under the folders of its key. It is written under a
//! temporary name, synced, and linked to its own name, which fails where that
//! exists; then the folders are synced. What is in the folder without reading as
//! a key is left alone and never listed.
//!
//! Where a spool is [`lazy`](DirectoryTransport::lazy), pieces of handoffs are not
//! synced: until the receipt the source has them all, and the receipt is given for
//! what lies durably in its place. What a power cut took of them is found damaged
//! or missing, cleared, and sent anew.
//!
//! A writer that was killed leaves its temporary behind, and a source that never
//! came back its pieces: [`sweep`] takes them away.

mod list;
mod sweep;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use uuid::Uuid;

use super::{ByteStream, Entry, Error, Key, LogTransport, MAX_OBJECT, ObjectName, Prefix, Result};
use crate::OkLogged as _;
use crate::folder::{self, Folder, fault};

/// Names of objects not finished; no key begins so.
const TEMPORARY: &str = ".new-";

/// How often a folder that a deletion takes away between two of our calls is made again.
const TRIES: u32 = 20;

/// Bytes read at once: a piece of a handoff.
const PART: u64 = 2304 * 1024;

/// Handoffs remembered as lying in folders that are durable.
const REMEMBERED: usize = 4096;

/// Objects as files in a folder.
#[derive(Debug)]
pub struct DirectoryTransport {
    spool: Arc<Spool>,
    is_lazy: bool,
}

#[derive(Debug)]
struct Spool {
    root: Folder,
    /// For people.
    name: String,
    /// Handoffs whose folders are known to be durable.
    durable: Mutex<HashSet<PathBuf>>,
    swept: AtomicBool,
}

impl DirectoryTransport {
    /// The folder at `path`, which must exist.
    ///
    /// # Errors
    /// [`Error::Denied`] or [`Error::Other`] where it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let name = format!("file://{}", path.display());
        let root = Folder::open(path).map_err(|e| failed(&name, &e))?;
        let spool = Spool {
            root,
            name,
            durable: Mutex::default(),
            swept: AtomicBool::new(false),
        };
        Ok(Self {
            spool: Arc::new(spool),
            is_lazy: false,
        })
    }

    /// Syncs all but the pieces of handoffs: for a spool on the destination's own
    /// disk, where each is read at once and then written to its place. There it
    /// halves what the disk has to do; what is deleted soon never reaches it.
    #[must_use]
    pub fn lazy(self) -> Self {
        Self {
            is_lazy: true,
            ..self
        }
    }

    /// The folder at `path`, created with mode 0700 where it does not exist.
    ///
    /// # Errors
    /// As [`DirectoryTransport::open`].
    pub fn create(path: &Path) -> Result<Self> {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        if let Err(source) = made {
            let error = folder::Error::Io {
                action: "create",
                path: path.to_owned(),
                source,
            };
            return Err(failed(&format!("file://{}", path.display()), &error));
        }
        Self::open(path)
    }

    /// Takes away what nobody comes back for: temporaries older than an hour, empty
    /// folders, and handoffs to which nothing happened for seven days, but for those
    /// that are committed and not received. Gives how many objects and folders. The
    /// first deletion does it unasked.
    pub async fn sweep(&self) -> Result<u64> {
        self.blocking(|spool| {
            spool.swept.store(true, Ordering::Relaxed);
            sweep::sweep(&spool.root).map_err(|e| spool.failed(&e))
        })
        .await
    }

    /// Whether what becomes of this object must outlive a power cut.
    fn is_durable(&self, key: &Key) -> bool {
        !(self.is_lazy && matches!(key.object, ObjectName::Chunk { .. }))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Spool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let spool = Arc::clone(&self.spool);
        blocking(&self.spool.name, move || work(&spool)).await
    }
}

impl fmt::Display for DirectoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spool.name)
    }
}

#[async_trait]
impl LogTransport for DirectoryTransport {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        if data.len() > MAX_OBJECT {
            return Err(Error::TooLarge {
                key: key.to_string(),
            });
        }
        let key = key.clone();
        let sync = self.is_durable(&key);
        self.blocking(move |spool| spool.put(&key, &data, sync))
            .await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let key = key.clone();
        let (first, rest) = self
            .blocking(move |spool| {
                let mut rest = spool.open(&key, range)?;
                Ok((rest.read()?, rest))
            })
            .await?;
        let later = stream::try_unfold(rest, |mut rest| async move {
            if rest.range.is_empty() {
                return Ok(None);
            }
            let name = rest.name.clone();
            let read = move || Ok(Some((rest.read()?, rest)));
            blocking(&name, read).await
        });
        Ok(stream::iter([Ok(first)]).chain(later).boxed())
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let (prefix, after) = (prefix.clone(), after.cloned());
        self.blocking(move |spool| {
            list::list(&spool.root, &prefix, after.as_ref()).map_err(|e| spool.failed(&e))
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        let sync = self.is_durable(&key);
        self.blocking(move |spool| {
            spool.delete(&key, sync)?;
            if !spool.swept.swap(true, Ordering::Relaxed) {
                // What others left is no failure of this deletion.
                sweep::sweep(&spool.root)
                    .ok_logged("what others left stays until another process sweeps");
            }
            Ok(())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::Other {
            transport: name.to_owned(),
            reason: e.to_string(),
        }),
    }
}

/// An object's bytes that are still to be read.
struct Unread {
    file: File,
    range: Range<u64>,
    name: String,
    key: Key,
}

impl Unread {
    fn read(&mut self) -> Result<Bytes> {
        let at = self.range.start;
        let corrupt = |reason: String| Error::Corrupt {
            transport: self.name.clone(),
            reason,
        };
        let len = self.range.end.saturating_sub(at).min(PART);
        let size = usize::try_from(len).map_err(|e| corrupt(e.to_string()))?;
        let mut data = vec![0; size];
        // An object never changes: one that ends early was cut from outside.
        self.file
            .read_exact_at(&mut data, at)
            .map_err(|e| corrupt(format!("{}: {e}", self.key)))?;
        self.range.start = at.saturating_add(len);
        Ok(data.into())
    }
}

/// The folder that an object lies in, and those above it.
struct Place {
    above: Vec<Folder>,
    folder: Folder,
    /// Whether one of them was not there before.
    made: bool,
}

fn descend(root: &Folder, parts: &[OsString], create: bool) -> folder::Result<Place> {
    let mut place = Place {
        above: Vec::new(),
        folder: root.try_clone()?,
        made: false,
    };
    for part in parts {
        let deeper = match place.folder.open_folder(part) {
            Err(folder::Error::NotFound { .. }) if create => {
                place.made = true;
                place.folder.make_folder(part)?
            }
            other => other?,
        };
        place
            .above
            .push(std::mem::replace(&mut place.folder, deeper));
    }
    Ok(place)
}

/// The folders of a key, and the object's name.
fn parts(key: &Key) -> (Vec<OsString>, OsString) {
    let text = key.to_string();
    let mut parts: Vec<OsString> = text.split('/').map(OsString::from).collect();
    let object = parts.pop().unwrap_or_default();
    (parts, object)
}

impl Spool {
    fn put(&self, key: &Key, data: &[u8], sync: bool) -> Result<()> {
        let (parts, object) = parts(key);
        // What is said about pieces is small, and makes room in the end.
        let is_piece = matches!(key.object, ObjectName::Chunk { .. });
        for _ in 0..TRIES {
            match self.try_put(&parts, &object, data, (sync, is_piece)) {
                Ok(()) => return Ok(()),
                // A deletion elsewhere took the empty folder away.
                Err(folder::Error::NotFound { .. }) => {}
                Err(folder::Error::AlreadyExists { .. }) => {
                    return Err(Error::AlreadyExists {
                        transport: self.name.clone(),
                        key: key.to_string(),
                    });
                }
                Err(e) => return Err(self.failed(&e)),
            }
        }
        let reason = format!("the folders of {key} keep vanishing");
        Err(Error::Unreachable {
            transport: self.name.clone(),
            reason,
        })
    }

    fn try_put(
        &self,
        parts: &[OsString],
        object: &OsStr,
        data: &[u8],
        (sync, is_piece): (bool, bool),
    ) -> folder::Result<()> {
        let place = descend(&self.root, parts, true)?;
        if is_piece {
            place.folder.check_room(data.len() as u64)?;
        }
        let created = create(&place.folder, object, data, sync);
        if !sync {
            return created;
        }
        if let Ok(()) | Err(folder::Error::AlreadyExists { .. }) = created {
            // Also where another was first: it may not have come so far yet, and
            // whoever learns that the object exists relies on it.
            place.folder.sync()?;
            let handoff: PathBuf = parts.iter().collect();
            if place.made || !self.durable().contains(&handoff) {
                for folder in &place.above {
                    folder.sync()?;
                }
                let mut durable = self.durable();
                if durable.len() >= REMEMBERED {
                    durable.clear();
                }
                durable.insert(handoff);
            }
        }
        created
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // A panic elsewhere leaves the set whole: every change is one call.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Unread> {
        let (parts, object) = parts(key);
        let opened = descend(&self.root, &parts, false).and_then(|p| p.folder.open_file(&object));
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(folder::Error::NotFound { .. }) => {
                return Err(Error::NotFound {
                    transport: self.name.clone(),
                    key: key.to_string(),
                });
            }
            Err(e) => return Err(self.failed(&e)),
        };
        if stat.size > MAX_OBJECT as u64 {
            return Err(Error::Corrupt {
                transport: self.name.clone(),
                reason: format!("{key} is larger than {MAX_OBJECT} bytes"),
            });
        }
        let range = range.unwrap_or(0..stat.size);
        if range.start > range.end || range.end > stat.size {
            return Err(Error::BadRange {
                transport: self.name.clone(),
                key: key.to_string(),
            });
        }
        Ok(Unread {
            file,
            range,
            name: self.name.clone(),
            key: key.clone(),
        })
    }

    fn delete(&self, key: &Key, sync: bool) -> Result<()> {
        let (parts, object) = parts(key);
        let place = match descend(&self.root, &parts, false) {
            Ok(place) => place,
            Err(folder::Error::NotFound { .. }) => return Ok(()),
            Err(e) => return Err(self.failed(&e)),
        };
        place
            .folder
            .remove(&object)
            .and_then(|()| if sync { place.folder.sync() } else { Ok(()) })
            .map_err(|e| self.failed(&e))?;
        // Empty folders go too, up to the layout's own; one that is filled just
        // now stays, and is no failure.
        for (above, part) in place.above.iter().zip(&parts).skip(1).rev() {
            if !matches!(above.remove_folder(part), Ok(true)) {
                break;
            }
        }
        Ok(())
    }

    fn failed(&self, error: &folder::Error) -> Error {
        failed(&self.name, error)
    }
}

fn create(folder: &Folder, object: &OsStr, data: &[u8], sync: bool) -> folder::Result<()> {
    // The usual second put is answered without writing.
    if folder.stat(object)?.is_some() {
        return Err(folder::Error::AlreadyExists {
            path: folder.path().join(object),
        });
    }
    let temporary = OsString::from(format!("{TEMPORARY}{}", Uuid::new_v4()));
    let mut file = folder.create_new(&temporary, 0o600)?;
    let written = fault::write_in_blocks(&mut file, data);
    let written = written.and_then(|()| if sync { file.sync_all() } else { Ok(()) });
    let linked = written
        .map_err(|source| folder::Error::Io {
            action: "write",
            path: folder.path().join(object),
            source,
        })
        .and_then(|()| folder.link_from(folder, &temporary, object));
    // The object is there or not all the same.
    folder
        .remove(&temporary)
        .ok_logged("the temporary file stays until a sweep removes it");
    linked
}

fn failed(transport: &str, error: &folder::Error) -> Error {
    let transport = transport.to_owned();
    let reason = error.to_string();
    let source = match error {
        folder::Error::Io { source, .. } => source,
        folder::Error::NoRoom { .. } => return Error::Full { transport, reason },
        _ => return Error::Other { transport, reason },
    };
    match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::Denied { transport, reason }
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full { transport, reason },
        // A folder on another host that is away.
        ErrorKind::StaleNetworkFileHandle
        | ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown => Error::Unreachable { transport, reason },
        _ => Error::Other { transport, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_named_by_outcome() {
        use rustix::io::Errno;
        let of = |errno: Errno| {
            let source = errno.into();
            failed(
                "file:///spool",
                &folder::Error::Io {
                    action: "write",
                    path: PathBuf::from("/spool/x"),
                    source,
                },
            )
        };
        assert!(matches!(of(Errno::NOSPC), Error::Full { .. }));
        assert!(matches!(of(Errno::DQUOT), Error::Full { .. }));
        assert!(matches!(of(Errno::ACCESS), Error::Denied { .. }));
        assert!(matches!(of(Errno::ROFS), Error::Denied { .. }));
        assert!(matches!(of(Errno::STALE), Error::Unreachable { .. }));
        assert!(matches!(of(Errno::IO), Error::Other { .. }));
    }
}
