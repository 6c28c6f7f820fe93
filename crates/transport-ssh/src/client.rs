//! The near side: one ssh, many requests under way in it, made anew when it breaks.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use logchain_core::transport::{
    ByteStream, Entry, Error, Key, LogTransport, MAX_OBJECT, Prefix, Result,
};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::link::{Asked, Link, Lost, Way};
use crate::wire::{Answer, IN_FLIGHT, Verb, WirePrefix};
use crate::{SshOptions, SshTarget, Tries, command};

/// How long no connection is tried after one that was of no use; twice as long
/// after each further one.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// A spool on another host, over ssh.
pub struct SshTransport {
    name: String,
    target: SshTarget,
    options: SshOptions,
    line: Mutex<Line>,
    /// Connections in a row that were of no use.
    useless: AtomicU32,
    next: AtomicU64,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Line {
    link: Option<Link>,
    /// When a connection was tried last.
    tried: Option<Instant>,
    /// Why that failed.
    failure: Option<Failure>,
}

impl SshTransport {
    /// Connects to the spool and shakes hands.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Denied`] with a sentence that an
    /// operator can act on.
    pub async fn connect(target: SshTarget, options: SshOptions) -> Result<Self> {
        let transport = Self::new(target, options, Line::default());
        transport.way().await?;
        Ok(transport)
    }

    fn new(target: SshTarget, options: SshOptions, line: Line) -> Self {
        Self {
            name: target.to_string(),
            target,
            options,
            line: Mutex::new(line),
            useless: AtomicU32::new(0),
            next: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    fn unreachable(&self, reason: impl Into<String>) -> Error {
        Error::Unreachable {
            transport: self.name.clone(),
            reason: reason.into(),
        }
    }

    fn lost(&self, lost: Lost) -> Error {
        match lost {
            Lost::Broken(why) => self.unreachable(why),
            Lost::Quiet(time) => Error::Timeout {
                transport: self.name.clone(),
                reason: format!("nothing came for {} s", time.as_secs_f64()),
            },
        }
    }

    /// The way into the connection, made where there is none.
    async fn way(&self) -> Result<Way> {
        let mut line = self.line.lock().await;
        if let Some(link) = line.link.as_ref().filter(|l| !l.is_broken()) {
            return Ok(link.way());
        }
        // Many requests at once try once.
        let useless = self.useless.load(Ordering::Relaxed);
        if line.tried.is_some_and(|at| at.elapsed() < pause(useless)) {
            let broke = || Failure::unreachable("the connection broke");
            let failure = line.failure.clone().unwrap_or_else(broke);
            return Err(failure.into_error(self.name.clone()));
        }
        line.tried = Some(Instant::now());
        // Until it answers a request it is of no use.
        self.useless.fetch_add(1, Ordering::Relaxed);
        line.link = None;
        match self.open().await {
            Ok(link) => {
                let way = link.way();
                line.link = Some(link);
                line.failure = None;
                Ok(way)
            }
            Err(failure) => {
                line.failure = Some(failure.clone());
                Err(failure.into_error(self.name.clone()))
            }
        }
    }

    /// Again where the host turned it away, for as long as connecting may take.
    async fn open(&self) -> std::result::Result<Link, Failure> {
        let mut tries = Tries::within(self.options.connect_timeout);
        loop {
            match self.open_once().await {
                Err(failure) if failure.turned_away && tries.again().await => {}
                other => return other,
            }
        }
    }

    async fn open_once(&self) -> std::result::Result<Link, Failure> {
        let words = [
            self.options.remote_logchain.clone(),
            "transport".into(),
            "serve".into(),
            self.target.spool().as_os_str().to_owned(),
        ];
        let child = command(&self.target, &self.options, &words)
            .spawn()
            .map_err(|e| {
                let program = self.options.program.display();
                Failure::denied(format!("cannot start {program}: {e}"))
            })?;
        Link::over_child(child, &self.target, &self.options).await
    }

    async fn ask(&self, verb: Verb, body: Bytes) -> Result<Asked> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|e| self.unreachable(e.to_string()))?;
        let way = self.way().await?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let asked = way.ask(id, verb, body, place, self.options.quiet).await;
        asked.map_err(|lost| self.lost(lost))
    }

    async fn one(&self, verb: Verb, body: Bytes, key: &str) -> Result<Answer> {
        let mut asked = self.ask(verb, body).await?;
        Ok(self.answer(&mut asked, key).await?.0)
    }

    async fn answer(&self, asked: &mut Asked, key: &str) -> Result<(Answer, Bytes)> {
        let answer = asked.answer().await.map_err(|lost| self.lost(lost))?;
        self.useless.store(0, Ordering::Relaxed);
        match answer {
            (Answer::Failed { outcome, reason }, _) => {
                Err(outcome.into_error(self.name.clone(), key, reason))
            }
            answer => Ok(answer),
        }
    }

    fn odd(&self) -> Error {
        Error::Corrupt {
            transport: self.name.clone(),
            reason: "an answer that does not fit the request".to_owned(),
        }
    }
}

fn pause(useless: u32) -> Duration {
    match useless.checked_sub(1) {
        None => Duration::ZERO,
        Some(n) => PAUSE.saturating_mul(2u32.saturating_pow(n)).min(MAX_PAUSE),
    }
}

impl fmt::Display for SshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for SshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshTransport({})", self.name)
    }
}

#[async_trait]
impl LogTransport for SshTransport {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let key = key.to_string();
        if data.len() > MAX_OBJECT {
            return Err(Error::TooLarge { key });
        }
        match self.one(Verb::Put { key: key.clone() }, data, &key).await? {
            Answer::Done => Ok(()),
            _ => Err(self.odd()),
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let key = key.to_string();
        let verb = Verb::Get {
            key: key.clone(),
            range: range.map(|r| (r.start, r.end)),
        };
        let mut asked = self.ask(verb, Bytes::new()).await?;
        let mut parts = Vec::new();
        let mut total = 0;
        loop {
            let (part, last) = match self.answer(&mut asked, &key).await? {
                (Answer::Part { last }, part) => (part, last),
                _ => return Err(self.odd()),
            };
            total += part.len();
            if total > MAX_OBJECT {
                return Err(self.odd());
            }
            parts.push(Ok(part));
            if last {
                return Ok(stream::iter(parts).boxed());
            }
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let prefix = match prefix {
            Prefix::All => WirePrefix::default(),
            Prefix::Domain(d) => WirePrefix {
                domain: Some(d.to_string()),
                ..WirePrefix::default()
            },
            Prefix::Console(d, c) => WirePrefix {
                domain: Some(d.to_string()),
                console: Some(c.to_string()),
                handoff: None,
            },
            Prefix::Lot(d, c, lot) => WirePrefix {
                domain: Some(d.to_string()),
                console: Some(c.to_string()),
                handoff: Some(lot.to_string()),
            },
        };
        let verb = Verb::List {
            prefix,
            after: after.map(ToString::to_string),
        };
        let Answer::Entries(entries) = self.one(verb, Bytes::new(), "").await? else {
            return Err(self.odd());
        };
        entries
            .into_iter()
            .map(|(key, size)| {
                Ok(Entry {
                    key: key.parse()?,
                    size,
                })
            })
            .collect()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.to_string();
        match self
            .one(Verb::Delete { key: key.clone() }, Bytes::new(), &key)
            .await?
        {
            Answer::Done => Ok(()),
            _ => Err(self.odd()),
        }
    }
}

#[cfg(test)]
impl SshTransport {
    /// Over any two streams, in place of ssh.
    pub(crate) async fn over(
        output: impl tokio::io::AsyncRead + Send + Unpin + 'static,
        input: impl tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> std::io::Result<Self> {
        use std::io;

        let link = Link::over_streams(output, input).await?;
        let target = SshTarget::on("test").map_err(io::Error::other)?;
        let options = SshOptions {
            program: "/bin/false".into(),
            ..SshOptions::default()
        };
        let line = Line {
            link: Some(link),
            ..Line::default()
        };
        Ok(Self::new(target, options, line))
    }
}
