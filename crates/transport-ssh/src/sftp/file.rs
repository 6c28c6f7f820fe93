//! A file or folder open on the far side. However it goes out of use, its handle
//! is closed there, and a file that was to be temporary is removed.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use russh_sftp::protocol::{File as Name, FileAttributes};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument as _, debug};

use super::session::{Done, Session, Trouble};

/// Writes of one file under way at once.
const WRITES: usize = 16;

pub(super) struct File {
    session: Arc<Session>,
    handle: String,
    place: Option<OwnedSemaphorePermit>,
    temporary: Option<String>,
    closed: bool,
}

impl File {
    pub(super) fn new(
        session: Arc<Session>,
        handle: String,
        place: OwnedSemaphorePermit,
        temporary: Option<String>,
    ) -> Done<Self> {
        // Handles are bytes, and the library holds them as text.
        if handle.contains(char::REPLACEMENT_CHARACTER) {
            let odd = "the SFTP server names open files in a way that is not understood here";
            return Err(Trouble::Odd(odd.to_owned()));
        }
        Ok(Self {
            session,
            handle,
            place: Some(place),
            temporary,
            closed: false,
        })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) async fn attributes(&self) -> Done<FileAttributes> {
        let asked = self.session.raw().fstat(self.handle.as_str());
        Ok(self
            .session
            .ask(("look at", "an open file"), asked)
            .await?
            .attrs)
    }

    /// All of `data`, many writes at once, and then synced.
    pub(super) async fn write_synced(&self, data: &Bytes, what: &str) -> Done<()> {
        let (session, handle) = (&self.session, self.handle.as_str());
        let step = session.write_size();
        let parts = (0..data.len()).step_by(step).map(|at| async move {
            let end = at.saturating_add(step).min(data.len());
            // Copied only once it is its turn.
            let write = async {
                session
                    .raw()
                    .write(handle, at as u64, data.slice(at..end).to_vec())
                    .await
            };
            session.ask(("write", what), write).await.map(drop)
        });
        stream::iter(parts)
            .buffer_unordered(WRITES)
            .try_collect::<()>()
            .await?;
        let synced = session.raw().fsync(handle);
        session.ask(("sync", what), synced).await?;
        Ok(())
    }

    pub(super) async fn read_exact(&self, range: Range<u64>) -> Done<Bytes> {
        let mut data = BytesMut::new();
        let mut at = range.start;
        while at < range.end {
            let left = u32::try_from(range.end.saturating_sub(at)).unwrap_or(u32::MAX);
            let read = self.session.raw().read(self.handle.as_str(), at, left);
            let part = self.session.ask(("read", "an object"), read).await?.data;
            if part.is_empty() || part.len() > left as usize {
                return Err(Trouble::Odd("a read gave an impossible length".to_owned()));
            }
            at = at.saturating_add(part.len() as u64);
            // The usual one comes whole and is not copied.
            if data.is_empty() && at == range.end {
                return Ok(part.into());
            }
            data.extend_from_slice(&part);
        }
        Ok(data.freeze())
    }

    /// Some names of an open folder; none where it is at its end.
    pub(super) async fn names(&self) -> Done<Vec<Name>> {
        let names = self.session.raw().readdir(self.handle.as_str());
        match self.session.ask(("list", "a folder"), names).await {
            Ok(names) => Ok(names.files),
            Err(Trouble::End) => Ok(Vec::new()),
            Err(trouble) => Err(trouble),
        }
    }

    /// Closes it, and removes it where it was to be temporary. What fails is no
    /// failure of what was done with it.
    pub(super) async fn end(mut self) {
        self.closed = true;
        let (session, handle) = (Arc::clone(&self.session), std::mem::take(&mut self.handle));
        clean(&session, handle, self.temporary.take()).await;
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.closed || self.session.is_over() {
            return;
        }
        // Given up halfway. What cleans up is bounded as every request is.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let session = Arc::clone(&self.session);
        let (handle, temporary) = (std::mem::take(&mut self.handle), self.temporary.take());
        let place = self.place.take();
        let cleanup = async move {
            clean(&session, handle, temporary).await;
            drop(place);
        };
        runtime.spawn(cleanup.in_current_span());
    }
}

async fn clean(session: &Session, handle: String, temporary: Option<String>) {
    let closed = async {
        let close = session.raw().close(handle);
        if let Err(trouble) = session.ask(("close", "a file"), close).await {
            debug!(?trouble, "a file is open there until the connection ends");
        }
    };
    let removed = async {
        if let Some(path) = temporary
            && let Err(trouble) = session.remove(&path).await
        {
            debug!(
                ?trouble,
                path, "a temporary file stays until a sweep removes it"
            );
        }
    };
    futures_util::future::join(closed, removed).await;
}
