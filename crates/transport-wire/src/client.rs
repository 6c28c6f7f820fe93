//! The near side: one connection at a time, many requests under way in it.
//!
//! Must not know: what carries the connection.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use logchain_core::transport::{ByteStream, Entry, Error, Key, MAX_OBJECT, Prefix, Result};
use tokio::sync::Semaphore;

use crate::frame::{Answer, IN_FLIGHT, MAX_MESSAGE, Operation, WirePrefix};
use crate::line::{DialFailure, Line};
use crate::link::{Link, LinkEntry, Lost, PendingRequest};

/// How a connection is made.
pub trait Dial: Send + Sync + 'static {
    /// Why it is not.
    type Failure: DialFailure;

    /// Connects and shakes hands, within a time of its own.
    fn dial(&self) -> impl Future<Output = Result<Link, Self::Failure>> + Send;
}

/// The four verbs, and messages, to a server that [`Dial`] reaches. A connection that broke is
/// made anew by the next request, after a pause where it was of no use.
pub struct Client<D: Dial> {
    name: String,
    dial: D,
    quiet: Duration,
    line: Line<Link, D::Failure>,
    next: AtomicU64,
    places: Arc<Semaphore>,
}

impl<D: Dial> fmt::Debug for Client<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.name)
    }
}

impl<D: Dial> Client<D> {
    /// A client that errors call `name`; it connects when it is first asked for something.
    /// `quiet`: how long nothing may move while an answer is awaited; then the connection counts
    /// as lost.
    pub fn new(name: String, dial: D, quiet: Duration) -> Self {
        Self::over(name, dial, quiet, None)
    }

    /// As [`Client::new`], with a connection that is there.
    pub fn over(name: String, dial: D, quiet: Duration, link: Option<Link>) -> Self {
        Self {
            name,
            dial,
            quiet,
            line: Line::new(link),
            next: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// What makes its connections.
    pub fn dial(&self) -> &D {
        &self.dial
    }

    /// Sees to it that there is a connection.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self) -> Result<(), D::Failure> {
        self.enter().await.map(drop)
    }

    async fn enter(&self) -> Result<LinkEntry, D::Failure> {
        self.line.way(self.dial.dial()).await
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

    async fn request(&self, operation: Operation, body: Bytes) -> Result<PendingRequest> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|e| self.unreachable(e.to_string()))?;
        let entered = self.enter().await;
        let way = entered.map_err(|failure| failure.into_error(self.name.clone()))?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let pending = way.ask(id, operation, body, place, self.quiet).await;
        pending.map_err(|lost| self.lost(lost))
    }

    async fn one(&self, operation: Operation, body: Bytes, key: &str) -> Result<Answer> {
        let mut pending = self.request(operation, body).await?;
        Ok(self.answer(&mut pending, key).await?.0)
    }

    async fn answer(&self, pending: &mut PendingRequest, key: &str) -> Result<(Answer, Bytes)> {
        let answer = pending.answer().await.map_err(|lost| self.lost(lost))?;
        self.line.is_of_use();
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

/// The verbs of [`LogTransport`](logchain_core::transport::LogTransport).
impl<D: Dial> Client<D> {
    /// As [`LogTransport::put`](logchain_core::transport::LogTransport::put).
    ///
    /// # Errors
    /// As there.
    pub async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let key = key.to_string();
        if data.len() > MAX_OBJECT {
            return Err(Error::TooLarge { key });
        }
        match self
            .one(Operation::Put { key: key.clone() }, data, &key)
            .await?
        {
            Answer::Done => Ok(()),
            _ => Err(self.odd()),
        }
    }

    /// As [`LogTransport::get`](logchain_core::transport::LogTransport::get).
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let key = key.to_string();
        let operation = Operation::Get {
            key: key.clone(),
            range: range.map(|r| (r.start, r.end)),
        };
        let mut pending = self.request(operation, Bytes::new()).await?;
        let mut parts = Vec::new();
        let mut total = 0;
        loop {
            let (part, last) = match self.answer(&mut pending, &key).await? {
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

    /// As [`LogTransport::list`](logchain_core::transport::LogTransport::list).
    ///
    /// # Errors
    /// As there.
    pub async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
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
            Prefix::Collection(d, c, collection) => WirePrefix {
                domain: Some(d.to_string()),
                console: Some(c.to_string()),
                handoff: Some(collection.to_string()),
            },
        };
        let operation = Operation::List {
            prefix,
            after: after.map(ToString::to_string),
        };
        let Answer::Entries(entries) = self.one(operation, Bytes::new(), "").await? else {
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

    /// As [`LogTransport::delete`](logchain_core::transport::LogTransport::delete).
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.to_string();
        match self
            .one(Operation::Delete { key: key.clone() }, Bytes::new(), &key)
            .await?
        {
            Answer::Done => Ok(()),
            _ => Err(self.odd()),
        }
    }

    /// Asks what the server's [`Handler::message`](crate::Handler::message) answers: a message of
    /// at most [`MAX_MESSAGE`] bytes for another one.
    ///
    /// # Errors
    /// As other transports have them; [`Error::Denied`] also where the message is too long.
    pub async fn ask(&self, message: Bytes) -> Result<Bytes> {
        if message.len() > MAX_MESSAGE {
            return Err(Error::Denied {
                transport: self.name.clone(),
                reason: format!("a message has at most {MAX_MESSAGE} bytes"),
            });
        }
        let mut pending = self.request(Operation::Message, message).await?;
        match self.answer(&mut pending, "").await? {
            (Answer::Part { last: true }, answer) if answer.len() <= MAX_MESSAGE => Ok(answer),
            _ => Err(self.odd()),
        }
    }
}
