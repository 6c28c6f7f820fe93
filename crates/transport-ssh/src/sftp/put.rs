//! Creating an object: written under a temporary name, synced, linked to its own
//! name, which fails where that exists.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::session::{Done, Kind, Session, Trouble};
use super::spool::{Place, TEMPORARY};

/// How often a folder that a deletion takes away between two of our requests is
/// made again.
const TRIES: u32 = 20;

pub(super) async fn put(session: &Arc<Session>, root: &str, key: &str, data: &Bytes) -> Done<()> {
    for _ in 0..TRIES {
        match try_put(session, root, key, data).await {
            // A deletion elsewhere took the empty folder away.
            Err(Trouble::NotFound(_)) => {}
            Err(trouble) => return Err(session.with_reason(root, data.len(), trouble).await),
            Ok(()) => return Ok(()),
        }
    }
    Err(Trouble::Wrong(format!(
        "the folders of {key} keep vanishing"
    )))
}

async fn try_put(session: &Arc<Session>, root: &str, key: &str, data: &Bytes) -> Done<()> {
    let place = Place::look(session, root, key).await?;
    if place.object_kind() != Kind::Nothing {
        return Err(Trouble::Exists);
    }
    place.make_folders(session).await?;
    let temporary = format!("{}/{TEMPORARY}{}", place.folder(), Uuid::new_v4());
    let file = session.create(&temporary).await?;
    let mut done = file.write_synced(data, place.path()).await;
    if done.is_ok() {
        done = link(session, &temporary, place.path()).await;
    }
    // PendingRequest while the temporary still takes its room.
    if let Err(trouble @ Trouble::Failed(_)) = done {
        done = Err(session.with_reason(root, data.len(), trouble).await);
    }
    file.end().await;
    done
}

async fn link(session: &Session, temporary: &str, path: &str) -> Done<()> {
    match session.link(temporary, path).await {
        // SFTP has no word for a name that is taken.
        Err(trouble @ (Trouble::Failed(_) | Trouble::Denied(_))) => {
            match session.look(&[path.to_owned()]).await?.as_slice() {
                [Some(_)] => Err(Trouble::Exists),
                _ => Err(trouble),
            }
        }
        linked => linked,
    }
}
