//! The way by a logchain on the far side: one ssh, many requests under way in it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use logchain_core::transport::{ByteStream, Entry, Error, Key, MAX_OBJECT, Prefix, Result};
use tokio::sync::Semaphore;

use crate::failure::Failure;
use crate::line::Line;
use crate::link::{Link, LinkEntry, Lost, PendingRequest};
use crate::wire::{Answer, IN_FLIGHT, Verb, WirePrefix};
use crate::{SshOptions, SshTarget, again};

pub(crate) struct Helper {
    name: String,
    target: SshTarget,
    options: SshOptions,
    line: Line<Link>,
    next: AtomicU64,
    places: Arc<Semaphore>,
}

impl Helper {
    /// Connects to the spool and shakes hands.
    pub(crate) async fn connect(
        target: SshTarget,
        options: SshOptions,
    ) -> std::result::Result<Self, Failure> {
        let helper = Self::over(target, options, None);
        helper.enter().await?;
        Ok(helper)
    }

    pub(crate) fn over(target: SshTarget, options: SshOptions, link: Option<Link>) -> Self {
        Self {
            name: target.to_string(),
            target,
            options,
            line: Line::new(link),
            next: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    async fn enter(&self) -> std::result::Result<LinkEntry, Failure> {
        let open = || Link::open(&self.target, &self.options);
        self.line
            .way(again::open(self.options.connect_timeout, open))
            .await
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

    async fn ask(&self, verb: Verb, body: Bytes) -> Result<PendingRequest> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|e| self.unreachable(e.to_string()))?;
        let entered = self.enter().await;
        let way = entered.map_err(|failure| failure.into_error(self.name.clone()))?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let asked = way.ask(id, verb, body, place, self.options.quiet).await;
        asked.map_err(|lost| self.lost(lost))
    }

    async fn one(&self, verb: Verb, body: Bytes, key: &str) -> Result<Answer> {
        let mut asked = self.ask(verb, body).await?;
        Ok(self.answer(&mut asked, key).await?.0)
    }

    async fn answer(&self, asked: &mut PendingRequest, key: &str) -> Result<(Answer, Bytes)> {
        let answer = asked.answer().await.map_err(|lost| self.lost(lost))?;
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
impl Helper {
    pub(crate) async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let key = key.to_string();
        if data.len() > MAX_OBJECT {
            return Err(Error::TooLarge { key });
        }
        match self.one(Verb::Put { key: key.clone() }, data, &key).await? {
            Answer::Done => Ok(()),
            _ => Err(self.odd()),
        }
    }

    pub(crate) async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
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

    pub(crate) async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
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

    pub(crate) async fn delete(&self, key: &Key) -> Result<()> {
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
