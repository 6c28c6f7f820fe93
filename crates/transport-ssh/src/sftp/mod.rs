//! The way by sshd's own SFTP server, for a host without a logchain: the same
//! spool in the same layout as the folder transport's.
//!
//! What SFTP lacks, against a logchain over there:
//! - It cannot sync a folder. A file is synced before it gets its name, so after a
//!   crash an object is whole or not there at all; but one that was put just
//!   before may be gone.
//! - It resolves whole paths and follows links on the way. So the spool must be
//!   ours alone, what lies on the way is looked at first, and files are made with
//!   `EXCL`, which follows none.
//!
//! Must not know: what objects hold.

mod file;
mod list;
mod put;
mod session;
mod spool;
mod sweep;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use logchain_core::transport::{ByteStream, Entry, Error, Key, MAX_OBJECT, Prefix, Result};
use logchain_transport_wire::{DialFailure as _, Line, Outcome};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::process::LAST_WORDS;
use crate::{SshOptions, SshTarget, again};
use file::File;
use session::{Session, SharedSession, Trouble};

/// Reads of one object under way at once.
const READS: usize = 8;

pub(crate) struct Sftp {
    name: String,
    target: SshTarget,
    options: SshOptions,
    /// The spool's path there, without a slash at its end.
    root: String,
    line: Line<SharedSession, Failure>,
    /// Who we are there, once that was found out.
    uid: OnceLock<u32>,
    swept: AtomicBool,
}

impl Sftp {
    pub(crate) async fn connect(
        target: SshTarget,
        options: SshOptions,
    ) -> std::result::Result<Self, Failure> {
        let Some(root) = target.spool().to_str() else {
            return Err(Failure::denied(
                "SFTP needs a spool whose path is plain text",
            ));
        };
        let sftp = Self {
            name: format!("{target} (SFTP)"),
            root: root.trim_end_matches('/').to_owned(),
            target,
            options,
            line: Line::new(None),
            uid: OnceLock::new(),
            swept: AtomicBool::new(false),
        };
        sftp.enter().await?;
        Ok(sftp)
    }

    async fn enter(&self) -> std::result::Result<Arc<Session>, Failure> {
        let open = || async {
            let session = Session::open(&self.target, &self.options).await?;
            let limit = self.options.connect_timeout.saturating_add(LAST_WORDS);
            let prepared = spool::prepare(&session, &self.root, &self.uid);
            match timeout(limit, prepared).await {
                Ok(Ok(())) => Ok(SharedSession(session)),
                Ok(Err(trouble)) => Err(self.failure(&session, trouble).await),
                Err(_) => Err(session::too_late(self.target.host(), limit)),
            }
        };
        self.line
            .way(again::open(self.options.connect_timeout, open))
            .await
    }

    async fn failure(&self, session: &Session, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Lost => Failure::unreachable(session.why().await),
            Trouble::Quiet => Failure::of(Outcome::Timeout, self.quiet()),
            Trouble::Denied(sentence) => Failure::denied(sentence),
            Trouble::Full(sentence) => Failure::of(Outcome::Full, sentence),
            Trouble::NotFound(what) => Failure::denied(format!("{what} does not exist")),
            Trouble::Failed(sentence) | Trouble::Wrong(sentence) => {
                Failure::of(Outcome::Other, sentence)
            }
            trouble @ (Trouble::Exists | Trouble::End | Trouble::Odd(_)) => {
                Failure::of(Outcome::Corrupt, trouble.sentence())
            }
        }
    }

    fn quiet(&self) -> String {
        format!("nothing came for {} s", self.options.quiet.as_secs_f64())
    }

    /// What a verb gave, as all transports say it.
    async fn told<T>(
        &self,
        session: &Session,
        key: &str,
        done: std::result::Result<T, Trouble>,
    ) -> Result<T> {
        if !matches!(done, Err(Trouble::Lost | Trouble::Quiet)) {
            self.line.is_of_use();
        }
        let transport = self.name.clone();
        let key = key.to_owned();
        match done {
            Ok(done) => Ok(done),
            Err(Trouble::NotFound(_)) => Err(Error::NotFound { transport, key }),
            Err(Trouble::Exists) => Err(Error::AlreadyExists { transport, key }),
            Err(trouble) => Err(self.failure(session, trouble).await.into_error(transport)),
        }
    }

    async fn session(&self) -> Result<Arc<Session>> {
        let entered = self.enter().await;
        entered.map_err(|failure| failure.into_error(self.name.clone()))
    }

    pub(crate) async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let text = key.to_string();
        if data.len() > MAX_OBJECT {
            return Err(Error::TooLarge { key: text });
        }
        let session = self.session().await?;
        let done = put::put(&session, &self.root, &text, &data).await;
        self.told(&session, &text, done).await
    }

    pub(crate) async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let text = key.to_string();
        let session = self.session().await?;
        let opened = spool::open(&session, &self.root, &text).await;
        let (file, size) = self.told(&session, &text, opened).await?;
        let range = range.unwrap_or(0..size);
        if range.start > range.end || range.end > size {
            let transport = self.name.clone();
            return Err(Error::BadRange {
                transport,
                key: text,
            });
        }
        let reader = Arc::new(Reader {
            file,
            name: self.name.clone(),
            quiet: self.quiet(),
        });
        let step = session.read_size();
        let parts = stream::iter((range.start..range.end).step_by(step)).map(move |at| {
            let end = at.saturating_add(step as u64).min(range.end);
            let reader = Arc::clone(&reader);
            async move { reader.read(at..end).await }
        });
        Ok(parts.buffered(READS).boxed())
    }

    pub(crate) async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let session = self.session().await?;
        let done = list::list(&session, &self.root, prefix, after).await;
        self.told(&session, "", done).await
    }

    pub(crate) async fn delete(&self, key: &Key) -> Result<()> {
        let text = key.to_string();
        let session = self.session().await?;
        let done = spool::delete(&session, &self.root, &text).await;
        self.told(&session, &text, done).await?;
        if !self.swept.swap(true, Ordering::Relaxed) {
            sweep::sweep(&session, &self.root).await;
        }
        Ok(())
    }
}

/// An object's bytes that are still to be read.
struct Reader {
    file: File,
    name: String,
    quiet: String,
}

impl Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let transport = self.name.clone();
        match self.file.read_exact(range).await {
            Ok(part) => Ok(part),
            Err(Trouble::Quiet) => Err(Error::Timeout {
                transport,
                reason: self.quiet.clone(),
            }),
            Err(Trouble::Lost) => Err(Error::Unreachable {
                transport,
                reason: self.file.session().why().await,
            }),
            // An object never changes: one that ends early was cut from outside.
            Err(trouble) => Err(Error::Corrupt {
                transport,
                reason: trouble.sentence(),
            }),
        }
    }
}
