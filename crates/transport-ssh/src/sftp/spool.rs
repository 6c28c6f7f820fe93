//! The spool folder as SFTP shows it: made, and refused where others could write
//! in it; the way from it to an object; opening and deleting one.

use std::sync::{Arc, OnceLock};

use logchain_core::transport::MAX_OBJECT;
use russh_sftp::protocol::FileAttributes;
use uuid::Uuid;

use super::file::File;
use super::session::{Done, Kind, Session, Trouble, kind};

/// Names of objects not finished, as the folder transport has them; no key begins so.
pub(super) const TEMPORARY: &str = ".new-";

/// Makes the spool where it is not there, and looks whether it is ours alone.
pub(super) async fn prepare(session: &Arc<Session>, root: &str, uid: &OnceLock<u32>) -> Done<()> {
    let attrs = match session.resolve(root).await? {
        Some(there) => there,
        None => {
            let made = make_all(session, root).await;
            if let Err(trouble) = made {
                return Err(session.with_reason("/", 0, trouble).await);
            }
            let made = session.resolve(root).await?;
            made.ok_or_else(|| Trouble::NotFound(root.to_owned()))?
        }
    };
    if kind(&attrs) != Kind::Folder {
        return Err(Trouble::Denied(format!("{root} is not a folder")));
    }
    if attrs.permissions.is_none_or(|mode| mode & 0o022 != 0) {
        return Err(Trouble::Denied(format!(
            "others may write in {root}; take that away there (chmod go-w)"
        )));
    }
    let we = match uid.get() {
        Some(known) => Some(*known),
        None => who_we_are(session, root).await?,
    };
    if let Some(we) = we {
        let _ = uid.set(we);
        if attrs.uid != Some(we) {
            return Err(Trouble::Denied(format!(
                "{root} belongs to somebody else than who logs in; name another folder"
            )));
        }
    }
    Ok(())
}

async fn make_all(session: &Session, root: &str) -> Done<()> {
    let ends = root.match_indices('/').map(|(at, _)| at).skip(1);
    for end in ends.chain([root.len()]) {
        let path = root.get(..end).unwrap_or_default();
        if path.is_empty() || session.resolve(path).await?.is_some() {
            continue;
        }
        match session.make_folder(path).await {
            Ok(()) => {}
            // Somebody else was quicker, maybe.
            Err(Trouble::Failed(_)) if session.resolve(path).await?.is_some() => {}
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(())
}

/// SFTP does not tell; a file that we made does. `None` where none can be made for
/// lack of room: then nothing can be put there either.
async fn who_we_are(session: &Arc<Session>, root: &str) -> Done<Option<u32>> {
    let path = format!("{root}/{TEMPORARY}{}", Uuid::new_v4());
    let file = match session.create(&path).await {
        Ok(file) => file,
        Err(Trouble::Failed(_)) => return Ok(None),
        Err(trouble) => return Err(trouble),
    };
    let attrs = file.attributes().await;
    file.end().await;
    Ok(Some(attrs?.uid.unwrap_or(u32::MAX)))
}

/// An object's path, and what lies on it.
pub(super) struct Place {
    /// Those above the object, from the outermost, and the object itself.
    paths: Vec<String>,
    found: Vec<Option<FileAttributes>>,
}

impl Place {
    /// One round trip. What is no folder on the way is an error: SFTP itself would
    /// follow a link there.
    pub(super) async fn look(session: &Session, root: &str, key: &str) -> Done<Self> {
        let path = format!("{root}/{key}");
        let ends = path.match_indices('/').map(|(at, _)| at);
        let ends = ends.filter(|at| *at > root.len()).chain([path.len()]);
        let paths: Vec<String> = ends
            .filter_map(|end| path.get(..end).map(str::to_owned))
            .collect();
        let found = session.look(&paths).await?;
        let folders = paths.len().saturating_sub(1);
        for (path, found) in paths.iter().zip(&found).take(folders) {
            if found.as_ref().is_some_and(|f| kind(f) != Kind::Folder) {
                return Err(Trouble::Wrong(format!("{path} is not a folder")));
            }
        }
        Ok(Self { paths, found })
    }

    pub(super) fn path(&self) -> &str {
        self.paths.last().map(String::as_str).unwrap_or_default()
    }

    fn folders(&self) -> &[String] {
        self.paths
            .split_last()
            .map(|(_, folders)| folders)
            .unwrap_or_default()
    }

    pub(super) fn folder(&self) -> &str {
        self.folders()
            .last()
            .map(String::as_str)
            .unwrap_or_default()
    }

    fn object(&self) -> Option<&FileAttributes> {
        self.found.last().and_then(Option::as_ref)
    }

    pub(super) fn object_kind(&self) -> Kind {
        self.object().map_or(Kind::Nothing, kind)
    }

    /// Makes those that were missing.
    pub(super) async fn make_folders(&self, session: &Session) -> Done<()> {
        for (path, found) in self.folders().iter().zip(&self.found) {
            if found.is_some() {
                continue;
            }
            match session.make_folder(path).await {
                // Somebody else was quicker, maybe.
                Err(trouble @ Trouble::Failed(_)) => {
                    let found = session.look(std::slice::from_ref(path)).await?;
                    if !matches!(found.as_slice(), [Some(f)] if kind(f) == Kind::Folder) {
                        return Err(trouble);
                    }
                }
                made => made?,
            }
        }
        Ok(())
    }
}

/// An object to read, and its size.
pub(super) async fn open(session: &Arc<Session>, root: &str, key: &str) -> Done<(File, u64)> {
    let place = Place::look(session, root, key).await?;
    let path = place.path();
    let is_object = |kind| match kind {
        Kind::File => Ok(()),
        Kind::Nothing => Err(Trouble::NotFound(path.to_owned())),
        Kind::Folder | Kind::Other => Err(Trouble::Wrong(format!("{path} is not a regular file"))),
    };
    is_object(place.object_kind())?;
    let file = session.open_file(path).await?;
    let attrs = match file.attributes().await {
        Ok(attrs) => attrs,
        Err(trouble) => {
            file.end().await;
            return Err(trouble);
        }
    };
    // What was opened counts, whatever was looked at before.
    is_object(kind(&attrs))?;
    match attrs.size {
        Some(size) if size <= MAX_OBJECT as u64 => Ok((file, size)),
        _ => Err(Trouble::Odd(format!(
            "{key} is larger than {MAX_OBJECT} bytes"
        ))),
    }
}

/// It is no error if it is gone.
pub(super) async fn delete(session: &Session, root: &str, key: &str) -> Done<()> {
    let place = Place::look(session, root, key).await?;
    if place.object_kind() != Kind::Nothing {
        session.remove(place.path()).await?;
    }
    // Empty folders go too, up to the layout's own; one that is filled just now
    // stays, and is no failure.
    for folder in place.folders().iter().skip(1).rev() {
        match session.remove_folder(folder).await {
            Ok(()) | Err(Trouble::NotFound(_)) => {}
            Err(trouble @ (Trouble::Lost | Trouble::Quiet)) => return Err(trouble),
            Err(_) => break,
        }
    }
    Ok(())
}
