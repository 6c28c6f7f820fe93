//! A folder as a transport: on this host, or on storage that both hosts share.
//!
//! An object is a file under the folders of its key. It is written under a
//! temporary name, synced, and linked to its own name, which fails where that
//! exists; then the folder is synced. What is in the folder without reading as
//! a key is left alone and never listed.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use uuid::Uuid;

use super::{ByteStream, Entry, Error, Key, LIST_PAGE, LogTransport, MAX_OBJECT, Prefix, Result};
use crate::folder::{self, Folder};

/// Names of objects not finished; no key begins so.
const TEMPORARY: &str = ".new-";

/// How often a folder that a deletion takes away between two of our calls is made again.
const TRIES: u32 = 20;

/// Objects as files in a folder.
#[derive(Debug)]
pub struct DirectoryTransport {
    root: Arc<Folder>,
    path: PathBuf,
}

impl DirectoryTransport {
    /// The folder at `path`, which must exist.
    ///
    /// # Errors
    /// [`Error::Denied`] or [`Error::Other`] where it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let root = Folder::open(path).map_err(|e| failed(&name, e))?;
        Ok(Self {
            root: Arc::new(root),
            path: path.to_owned(),
        })
    }

    /// The folder at `path`, created with mode 0700 where it does not exist.
    ///
    /// # Errors
    /// As [`DirectoryTransport::open`].
    pub fn create(path: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
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
            return Err(failed(&path.display().to_string(), error));
        }
        Self::open(path)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = Arc::clone(&self.root);
        match tokio::task::spawn_blocking(move || work(&root)).await {
            Ok(result) => result,
            Err(e) => Err(Error::Other {
                transport: self.to_string(),
                reason: e.to_string(),
            }),
        }
    }
}

impl fmt::Display for DirectoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file://{}", self.path.display())
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
        let (name, key) = (self.to_string(), key.clone());
        self.blocking(move |root| put(root, &name, &key, &data))
            .await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let (name, key) = (self.to_string(), key.clone());
        let data = self
            .blocking(move |root| get(root, &name, &key, range))
            .await?;
        Ok(stream::iter([Ok(data)]).boxed())
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let (name, prefix, after) = (self.to_string(), prefix.clone(), after.cloned());
        self.blocking(move |root| list(root, &name, &prefix, after.as_ref()))
            .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let (name, key) = (self.to_string(), key.clone());
        self.blocking(move |root| delete(root, &name, &key)).await
    }
}

/// The folders of a key, and the object's name.
fn parts(key: &Key) -> (Vec<OsString>, OsString) {
    let text = key.to_string();
    let mut parts: Vec<OsString> = text.split('/').map(OsString::from).collect();
    let object = parts.pop().unwrap_or_default();
    (parts, object)
}

fn descend(root: &Folder, parts: &[OsString], create: bool) -> folder::Result<Folder> {
    let mut folder = root.try_clone()?;
    for part in parts {
        let deeper = match folder.open_folder(part) {
            Err(folder::Error::NotFound { .. }) if create => {
                let made = folder.make_folder(part)?;
                folder.sync()?;
                made
            }
            other => other?,
        };
        folder = deeper;
    }
    Ok(folder)
}

fn put(root: &Folder, name: &str, key: &Key, data: &[u8]) -> Result<()> {
    let (parts, object) = parts(key);
    for _ in 0..TRIES {
        let tried = descend(root, &parts, true).and_then(|folder| put_in(&folder, &object, data));
        match tried {
            Ok(()) => return Ok(()),
            // A deletion elsewhere took the empty folder away.
            Err(folder::Error::NotFound { .. }) => {}
            Err(folder::Error::AlreadyExists { .. }) => {
                return Err(Error::AlreadyExists {
                    transport: name.to_owned(),
                    key: key.to_string(),
                });
            }
            Err(e) => return Err(failed(name, e)),
        }
    }
    let reason = format!("the folders of {key} keep vanishing");
    Err(Error::Unreachable {
        transport: name.to_owned(),
        reason,
    })
}

fn put_in(folder: &Folder, object: &OsStr, data: &[u8]) -> folder::Result<()> {
    // The usual second put is answered without writing.
    if folder.stat(object)?.is_some() {
        return Err(folder::Error::AlreadyExists {
            path: folder.path().join(object),
        });
    }
    let temporary = OsString::from(format!("{TEMPORARY}{}", Uuid::new_v4()));
    let mut file = folder.create_new(&temporary, 0o600)?;
    let written = file.write_all(data).and_then(|()| file.sync_all());
    let linked = written
        .map_err(|source| folder::Error::Io {
            action: "write",
            path: folder.path().join(object),
            source,
        })
        .and_then(|()| folder.link_from(folder, &temporary, object));
    folder.remove(&temporary)?;
    linked?;
    folder.sync()
}

fn get(root: &Folder, name: &str, key: &Key, range: Option<Range<u64>>) -> Result<Bytes> {
    let (parts, object) = parts(key);
    let opened = descend(root, &parts, false).and_then(|folder| folder.open_file(&object));
    let (file, stat) = match opened {
        Ok(opened) => opened,
        Err(folder::Error::NotFound { .. }) => {
            return Err(Error::NotFound {
                transport: name.to_owned(),
                key: key.to_string(),
            });
        }
        Err(e) => return Err(failed(name, e)),
    };
    let corrupt = |reason: String| Error::Corrupt {
        transport: name.to_owned(),
        reason,
    };
    if stat.size > MAX_OBJECT as u64 {
        return Err(corrupt(format!("{key} is larger than {MAX_OBJECT} bytes")));
    }
    let range = range.unwrap_or(0..stat.size);
    if range.start > range.end || range.end > stat.size {
        return Err(Error::BadRange {
            transport: name.to_owned(),
            key: key.to_string(),
        });
    }
    let len = usize::try_from(range.end - range.start).map_err(|e| corrupt(e.to_string()))?;
    let mut data = vec![0; len];
    file.read_exact_at(&mut data, range.start)
        .map_err(|e| corrupt(format!("{key}: {e}")))?;
    Ok(data.into())
}

/// Folder by folder in the order of names, and no deeper than the prefix asks.
fn list(root: &Folder, name: &str, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let wanted = prefix.to_string();
    let wanted: Vec<&str> = wanted.split('/').filter(|p| !p.is_empty()).collect();
    let root = root.try_clone().map_err(|e| failed(name, e))?;
    let after = after.map(ToString::to_string);
    walk(&root, String::new(), &wanted, after.as_deref(), &mut found)
        .map_err(|e| failed(name, e))?;
    Ok(found)
}

fn walk(
    folder: &Folder,
    at: String,
    wanted: &[&str],
    after: Option<&str>,
    found: &mut Vec<Entry>,
) -> folder::Result<()> {
    let depth = at.bytes().filter(|b| *b == b'/').count();
    let mut names = match wanted.get(depth) {
        Some(only) => vec![OsString::from(only)],
        None => folder.names()?,
    };
    names.sort();
    for name in names {
        let Some(text) = name.to_str() else { continue };
        let path = format!("{at}{text}");
        if found.len() >= LIST_PAGE {
            return Ok(());
        }
        if depth == 4 {
            let Ok(key) = path.parse::<Key>() else {
                continue;
            };
            if after.is_some_and(|after| path.as_str() <= after) {
                continue;
            }
            // Gone since the names were read: deleted.
            let Some(stat) = folder.stat(&name)?.filter(|s| s.regular) else {
                continue;
            };
            found.push(Entry {
                key,
                size: stat.size,
            });
            continue;
        }
        // A whole folder before `after` needs no look.
        let deeper = format!("{path}/");
        if after.is_some_and(|after| !after.starts_with(&deeper) && deeper.as_str() < after) {
            continue;
        }
        match folder.open_folder(&name) {
            Ok(next) => walk(&next, deeper, wanted, after, found)?,
            Err(folder::Error::NotFound { .. }) => {}
            // A file or a link where folders belong is not ours.
            Err(folder::Error::NotFolder { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn delete(root: &Folder, name: &str, key: &Key) -> Result<()> {
    let (parts, object) = parts(key);
    let removed = descend(root, &parts, false).and_then(|folder| {
        folder.remove(&object)?;
        folder.sync()
    });
    match removed {
        Ok(()) => {}
        Err(folder::Error::NotFound { .. }) => return Ok(()),
        Err(e) => return Err(failed(name, e)),
    }
    // Empty folders go too; one that is filled just now stays, and is no failure.
    for depth in (1..parts.len()).rev() {
        let (Some(above), Some(part)) = (parts.get(..depth), parts.get(depth)) else {
            break;
        };
        let emptied = descend(root, above, false).and_then(|folder| folder.remove_folder(part));
        if !matches!(emptied, Ok(true)) {
            break;
        }
    }
    Ok(())
}

fn failed(transport: &str, error: folder::Error) -> Error {
    let transport = transport.to_owned();
    let reason = error.to_string();
    let folder::Error::Io { source, .. } = &error else {
        return Error::Other { transport, reason };
    };
    match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::Denied { transport, reason }
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full { transport, reason },
        _ => Error::Other { transport, reason },
    }
}
