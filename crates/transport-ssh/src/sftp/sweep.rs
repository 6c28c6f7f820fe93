//! Takes away what killed writers leave, as the folder transport does: their
//! temporaries, and folders that they made and did not fill.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;
use tracing::debug;

use super::list::{DEPTH, fits, names};
use super::session::{Done, Kind, Session, kind};
use super::spool::TEMPORARY;

/// No writer takes so long over one object. The clock of the other host may be
/// off by less.
const STALE: Duration = Duration::from_secs(3600);

/// Every folder costs round trips: the next process goes on.
const LIMIT: Duration = Duration::from_secs(3);

/// What fails or takes too long is left: it is no failure of whoever sweeps.
pub(super) async fn sweep(session: &Arc<Session>, root: &str) {
    match timeout(LIMIT, folder(session, root.to_owned(), 0)).await {
        Ok(Ok(())) => {}
        Ok(Err(trouble)) => {
            debug!(
                ?trouble,
                "what killed writers left stays until another process sweeps"
            );
        }
        Err(_) => debug!(limit = ?LIMIT, "the next process sweeps the rest"),
    }
}

type Swept<'a> = Pin<Box<dyn Future<Output = Done<()>> + Send + 'a>>;

fn folder(session: &Arc<Session>, path: String, depth: usize) -> Swept<'_> {
    Box::pin(async move {
        let is_of_use = |name: &str| match depth {
            DEPTH => name.starts_with(TEMPORARY) && !name.contains('/'),
            _ => fits(depth, name),
        };
        for (name, attrs) in names(session, &path, is_of_use).await?.unwrap_or_default() {
            let path = format!("{path}/{name}");
            match (depth, kind(&attrs)) {
                (DEPTH, Kind::File) if is_stale(attrs.mtime) => session.remove(&path).await?,
                (DEPTH, _) => {}
                (_, Kind::Folder) => {
                    folder(session, path.clone(), depth + 1).await?;
                    if depth > 0 {
                        // One that is not empty stays.
                        let _ = session.remove_folder(&path).await;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    })
}

fn is_stale(written: Option<u32>) -> bool {
    let written = written.map(|at| UNIX_EPOCH + Duration::from_secs(u64::from(at)));
    // One from the future is nobody's that is known: it waits.
    written.is_some_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|age| age > STALE)
    })
}
