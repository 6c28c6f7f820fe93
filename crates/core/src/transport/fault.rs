//! A transport that fails on purpose, by a plan: around any other, in tests of
//! whatever relies on one.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};

use super::{ByteStream, Entry, Error, Key, LogTransport, Prefix, Result};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// [`LogTransport::put`].
    Put,
    /// [`LogTransport::get`].
    Get,
    /// [`LogTransport::list`].
    List,
    /// [`LogTransport::delete`].
    Delete,
}

/// One call, as a plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// How many calls there were before.
    pub number: u64,
    /// Which verb.
    pub verb: Verb,
    /// The object; none for a listing.
    pub key: Option<&'a Key>,
}

/// What happens to a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails so, and nothing was done.
    Fail(Error),
    /// It is done, and then the connection is gone: nobody learns of it.
    LoseAnswer,
    /// It begins so much later.
    Delay(Duration),
    /// A get gives one byte altered. Other verbs are as ever.
    Alter,
    /// A get breaks after so many bytes. Other verbs are as ever.
    Cut(usize),
}

impl Fault {
    /// The other side is away.
    #[must_use]
    pub fn unreachable() -> Self {
        Self::Fail(broken())
    }
}

fn broken() -> Error {
    Error::Unreachable {
        transport: "fault".to_owned(),
        reason: "broken on purpose".to_owned(),
    }
}

type Plan = dyn Fn(&Call<'_>) -> Option<Fault> + Send + Sync;

/// A transport around another, with faults.
pub struct FaultTransport {
    inner: Arc<dyn LogTransport>,
    plan: Box<Plan>,
    calls: AtomicU64,
}

impl FaultTransport {
    /// `plan` says for every call what happens to it; `None`: nothing.
    pub fn new(
        inner: Arc<dyn LogTransport>,
        plan: impl Fn(&Call<'_>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            plan: Box::new(plan),
            calls: AtomicU64::new(0),
        }
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The fault that is not over before the call begins.
    async fn begin(&self, verb: Verb, key: Option<&Key>) -> Result<Option<Fault>> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        match (self.plan)(&Call { number, verb, key }) {
            Some(Fault::Fail(error)) => Err(error),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }
}

fn end<T>(fault: Option<Fault>, done: Result<T>) -> Result<T> {
    match fault {
        Some(Fault::LoseAnswer) => Err(broken()),
        _ => done,
    }
}

impl fmt::Display for FaultTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for FaultTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultTransport({:?})", self.inner)
    }
}

#[async_trait]
impl LogTransport for FaultTransport {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let fault = self.begin(Verb::Put, Some(key)).await?;
        end(fault, self.inner.put(key, data).await)
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let fault = self.begin(Verb::Get, Some(key)).await?;
        let parts = self.inner.get(key, range).await;
        match fault {
            Some(Fault::Alter) => Ok(alter(parts?)),
            Some(Fault::Cut(after)) => Ok(cut(parts?, after)),
            fault => end(fault, parts),
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let fault = self.begin(Verb::List, None).await?;
        end(fault, self.inner.list(prefix, after).await)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let fault = self.begin(Verb::Delete, Some(key)).await?;
        end(fault, self.inner.delete(key).await)
    }
}

/// The last byte of the first part that has one.
fn alter(parts: ByteStream) -> ByteStream {
    let mut altered = false;
    parts
        .map(move |part| {
            let mut part = BytesMut::from(&*part?);
            if let Some(byte) = part.last_mut().filter(|_| !altered) {
                *byte ^= 1;
                altered = true;
            }
            Ok(part.freeze())
        })
        .boxed()
}

fn cut(parts: ByteStream, mut left: usize) -> ByteStream {
    let kept = parts.map(move |part| {
        let mut part = part?;
        part.truncate(left);
        left = left.saturating_sub(part.len());
        Ok(part)
    });
    kept.chain(stream::iter([Err(broken())])).boxed()
}
