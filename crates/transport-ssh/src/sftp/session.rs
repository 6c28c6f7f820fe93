//! One SFTP session: an ssh process, and requests to the SFTP server behind it,
//! a bounded number of them under way at once.
//!
//! The protocol is `russh-sftp`'s. It waits for each answer by a clock of its own,
//! which is turned off: only a connection on which nothing moves is given up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use logchain_transport_wire::{Connection, Meter, Metered};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio::time::timeout;
use tracing::{Instrument as _, debug};

use crate::command::subsystem;
use crate::failure::Failure;
use crate::process::{Asks, LAST_WORDS, Process};
use crate::{SshOptions, SshTarget};

use super::file::File;

/// Requests under way at once: with the largest writes that OpenSSH takes, 8 MiB.
const WINDOW: usize = 32;

/// Files and folders held open at once; OpenSSH allows some hundred.
const HANDLES: usize = 32;

/// The largest message that OpenSSH sends or takes.
const MAX_PACKET: u32 = 256 * 1024;

/// Bytes of one read or write where the server does not tell its limits.
const PLAIN: usize = 32 * 1024;

/// The most where it does.
const LARGE: usize = 255 * 1024;

const HARDLINK: &str = "hardlink@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const LIMITS: &str = "limits@openssh.com";

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection broke.
    Lost,
    /// Nothing moved on it.
    Quiet,
    /// Of a folder's names or a file's bytes.
    End,
    NotFound(String),
    Exists,
    Denied(String),
    Full(String),
    /// The server says no more than that it failed.
    Failed(String),
    /// What lies there is not as it has to be.
    Wrong(String),
    /// It answered what does not fit.
    Odd(String),
}

impl Trouble {
    pub(super) fn sentence(self) -> String {
        match self {
            Self::Lost => "the connection broke".to_owned(),
            Self::Quiet => "nothing came".to_owned(),
            Self::End => "it ends too early".to_owned(),
            Self::Exists => "it exists already".to_owned(),
            Self::NotFound(what) => format!("{what} does not exist"),
            Self::Denied(s) | Self::Full(s) | Self::Failed(s) | Self::Wrong(s) | Self::Odd(s) => s,
        }
    }
}

pub(super) type Done<T> = Result<T, Trouble>;

/// What lies under a name, or that nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nothing,
    Folder,
    File,
    Other,
}

/// Of attributes, by the type bits; without them it is nothing of ours.
pub(super) fn kind(attrs: &FileAttributes) -> Kind {
    match attrs.permissions.map(|mode| mode & 0o170_000) {
        Some(0o040_000) => Kind::Folder,
        Some(0o100_000) => Kind::File,
        _ => Kind::Other,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    New,
    File,
    Folder,
}

pub(super) fn too_late(host: &str, limit: Duration) -> Failure {
    let secs = limit.as_secs_f64();
    Failure::unreachable(format!("SFTP at {host} did not answer within {secs:.0} s"))
}

pub(super) struct Session {
    raw: RawSftpSession,
    meter: Arc<Meter>,
    process: Mutex<Process>,
    ended: OnceCell<String>,
    window: Semaphore,
    handles: Arc<Semaphore>,
    quiet: Duration,
    read: usize,
    write: usize,
}

/// A session that requests may share.
pub(super) struct SharedSession(pub(super) Arc<Session>);

impl Connection for SharedSession {
    type LinkEntry = Arc<Session>;

    fn is_broken(&self) -> bool {
        self.0.meter.is_gone()
    }

    fn way(&self) -> Arc<Session> {
        Arc::clone(&self.0)
    }
}

impl Session {
    pub(super) async fn open(
        target: &SshTarget,
        options: &SshOptions,
    ) -> Result<Arc<Self>, Failure> {
        let (process, output, input) =
            Process::start(subsystem(target, options), target, options, Asks::Sftp)?;
        let meter = Meter::new();
        let stream = tokio::io::join(Metered::new(output, &meter), Metered::new(input, &meter));
        let config = Config {
            max_packet_len: MAX_PACKET,
            // Too far away to be reckoned with.
            request_timeout_secs: u64::MAX,
            ..Config::default()
        };
        let mut session = Self {
            raw: RawSftpSession::new_with_config(stream, config),
            meter,
            process: Mutex::new(process),
            ended: OnceCell::new(),
            window: Semaphore::new(WINDOW),
            handles: Arc::new(Semaphore::new(HANDLES)),
            quiet: options.quiet,
            read: PLAIN,
            write: PLAIN,
        };
        // ssh has its own, shorter bound on connecting; this one holds for the rest too.
        let limit = options.connect_timeout.saturating_add(LAST_WORDS);
        let host = target.host();
        match timeout(limit, session.shake_hands(host)).await {
            Ok(Ok(())) => Ok(Arc::new(session)),
            Ok(Err(Some(failure))) => Err(failure),
            Ok(Err(None)) => {
                let process = session.process.get_mut();
                Err(process.failure(b"").await)
            }
            Err(_) => Err(too_late(host, limit)),
        }
    }

    /// `None`: the process has to say why.
    async fn shake_hands(&mut self, host: &str) -> Result<(), Option<Failure>> {
        let version = tokio::select! {
            biased;
            version = self.raw.init() => version.map_err(|error| {
                debug!(host, %error, "no SFTP version came");
                None
            })?,
            () = self.meter.gone() => return Err(None),
        };
        if version.version != 3 {
            let of = version.version;
            return Err(Some(Failure::denied(format!(
                "{host} speaks SFTP of version {of}; 3 is needed"
            ))));
        }
        // Without the first nothing is created without overwriting; without the
        // second a crash could leave a piece that is named and not whole.
        let has = |name: &str| version.extensions.contains_key(name);
        for (name, what) in [
            (HARDLINK, "link a file to a name that must be free"),
            (FSYNC, "sync a file"),
        ] {
            if !has(name) {
                return Err(Some(Failure::denied(format!(
                    "the SFTP server of {host} cannot {what} ({name}), so no log would be safe \
                     there; install logchain at {host}"
                ))));
            }
        }
        if has(LIMITS) {
            let limits = match self.ask(("ask for", "limits"), self.raw.limits()).await {
                Ok(limits) => limits,
                Err(trouble) => {
                    debug!(host, ?trouble, "small reads and writes are used");
                    return Ok(());
                }
            };
            // Zero says that there is none.
            let bounded = |limit: u64| match usize::try_from(limit) {
                Ok(limit @ 1..) => limit.min(LARGE),
                Ok(0) | Err(_) => LARGE,
            };
            self.read = bounded(limits.max_read_len);
            self.write = bounded(limits.max_write_len);
        }
        Ok(())
    }

    /// Why it is over. Waits for the process's last words, which are bounded.
    pub(super) async fn why(&self) -> String {
        let last_words = async { self.process.lock().await.failure(b"").await.sentence };
        self.ended.get_or_init(|| last_words).await.clone()
    }

    pub(super) fn read_size(&self) -> usize {
        self.read
    }

    pub(super) fn write_size(&self) -> usize {
        self.write
    }

    /// One request and its answer. What it does is for whoever reads that it failed.
    pub(super) async fn ask<T>(
        &self,
        (verb, object): (&str, &str),
        request: impl Future<Output = Result<T, SftpError>>,
    ) -> Done<T> {
        self.meter.note();
        let asked = async {
            let _place = self.window.acquire().await;
            // A request that the library takes just as the connection breaks is
            // forgotten by it.
            tokio::select! {
                biased;
                answer = request => answer,
                () = self.meter.gone() => Err(SftpError::UnexpectedPacket),
            }
        };
        match self.meter.patient(self.quiet, asked).await {
            None => {
                self.meter.end();
                Err(Trouble::Quiet)
            }
            Some(Ok(answer)) => Ok(answer),
            Some(Err(SftpError::Status(status))) => Err(match status.status_code {
                StatusCode::Eof => Trouble::End,
                StatusCode::NoSuchFile => Trouble::NotFound(object.to_owned()),
                StatusCode::PermissionDenied => {
                    Trouble::Denied(format!("cannot {verb} {object}: permission denied"))
                }
                code => Trouble::Failed(format!("cannot {verb} {object}: the server says {code}")),
            }),
            Some(Err(_)) if self.meter.is_gone() => Err(Trouble::Lost),
            Some(Err(error)) => {
                // What follows an answer that does not fit cannot be trusted either.
                self.meter.end();
                Err(match error {
                    SftpError::UnexpectedPacket | SftpError::Limited(_) => {
                        Trouble::Odd(format!("cannot {verb} {object}: {error}"))
                    }
                    error => {
                        debug!(%error, "the SFTP connection broke");
                        Trouble::Lost
                    }
                })
            }
        }
    }

    /// What lies at each path; links are not followed at its end. One round trip.
    pub(super) async fn look(&self, paths: &[String]) -> Done<Vec<Option<FileAttributes>>> {
        let looks = paths.iter().map(|path| async move {
            match self.ask(("look at", path), self.raw.lstat(path)).await {
                Ok(found) => Ok(Some(found.attrs)),
                Err(Trouble::NotFound(_)) => Ok(None),
                Err(trouble) => Err(trouble),
            }
        });
        join_all(looks).await.into_iter().collect()
    }

    /// As the server resolves it, links followed.
    pub(super) async fn resolve(&self, path: &str) -> Done<Option<FileAttributes>> {
        match self.ask(("look at", path), self.raw.stat(path)).await {
            Ok(found) => Ok(Some(found.attrs)),
            Err(Trouble::NotFound(_)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    pub(super) async fn make_folder(&self, path: &str) -> Done<()> {
        let attrs = FileAttributes {
            permissions: Some(0o700),
            ..FileAttributes::empty()
        };
        let made = self.raw.mkdir(path, attrs);
        self.ask(("create the folder", path), made).await?;
        Ok(())
    }

    pub(super) async fn remove_folder(&self, path: &str) -> Done<()> {
        let removed = self.raw.rmdir(path);
        self.ask(("remove the folder", path), removed).await?;
        Ok(())
    }

    /// It is no error if it is gone.
    pub(super) async fn remove(&self, path: &str) -> Done<()> {
        match self.ask(("remove", path), self.raw.remove(path)).await {
            Ok(_) | Err(Trouble::NotFound(_)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// Fails where `to` exists, whatever it is.
    pub(super) async fn link(&self, from: &str, to: &str) -> Done<()> {
        let linked = self.raw.hardlink(from, to);
        self.ask(("link", to), linked).await?;
        Ok(())
    }

    /// A new file, or a failure: nothing that is there is opened, no link followed.
    pub(super) async fn create(self: &Arc<Self>, path: &str) -> Done<File> {
        self.open_as(path, Open::New).await
    }

    pub(super) async fn open_file(self: &Arc<Self>, path: &str) -> Done<File> {
        self.open_as(path, Open::File).await
    }

    pub(super) async fn open_folder(self: &Arc<Self>, path: &str) -> Done<File> {
        self.open_as(path, Open::Folder).await
    }

    async fn open_as(self: &Arc<Self>, path: &str, how: Open) -> Done<File> {
        let place = self.handle().await?;
        let (session, path) = (Arc::clone(self), path.to_owned());
        // Runs to its end even if nobody waits for it: a handle that came is closed.
        let opening = async move {
            let none = FileAttributes::empty();
            let opened = match how {
                Open::New => {
                    let attrs = FileAttributes {
                        permissions: Some(0o600),
                        ..none
                    };
                    let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
                    let opened = session.raw.open(path.as_str(), flags, attrs);
                    session.ask(("create", &path), opened).await?
                }
                Open::File => {
                    let opened = session.raw.open(path.as_str(), OpenFlags::READ, none);
                    session.ask(("open", &path), opened).await?
                }
                Open::Folder => {
                    let opened = session.raw.opendir(path.as_str());
                    session.ask(("list", &path), opened).await?
                }
            };
            let temporary = (how == Open::New).then_some(path);
            File::new(session, opened.handle, place, temporary)
        };
        let opened = tokio::spawn(opening.in_current_span());
        opened.await.unwrap_or(Err(Trouble::Lost))
    }

    async fn handle(&self) -> Done<tokio::sync::OwnedSemaphorePermit> {
        self.meter.note();
        let place = Arc::clone(&self.handles).acquire_owned();
        match self.meter.patient(self.quiet, place).await {
            Some(Ok(place)) => Ok(place),
            Some(Err(_)) => Err(Trouble::Lost),
            None => Err(Trouble::Quiet),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.meter.is_gone()
    }

    pub(super) fn raw(&self) -> &RawSftpSession {
        &self.raw
    }

    /// A failure that gives no reason, with the reason where it is a full disk:
    /// SFTP has no word for that.
    pub(super) async fn with_reason(&self, root: &str, size: usize, trouble: Trouble) -> Trouble {
        let Trouble::Failed(sentence) = trouble else {
            return trouble;
        };
        let asked = self.ask(("ask for", "room"), self.raw.statvfs(root)).await;
        if let Err(trouble) = &asked {
            debug!(?trouble, "whether the disk is full is not known");
        }
        let is_full = asked.is_ok_and(|fs| {
            let room = fs.blocks_avail.saturating_mul(fs.fragment_size);
            // One block more, for a folder that has to grow.
            let need = (size as u64).saturating_add(fs.fragment_size);
            room < need || (fs.inodes > 0 && fs.inodes_avail == 0)
        });
        if is_full {
            let (what, _) = sentence.split_once(": ").unwrap_or((&sentence, ""));
            return Trouble::Full(format!("{what}: no space left on device"));
        }
        Trouble::Failed(sentence)
    }
}
