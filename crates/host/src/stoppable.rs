//! A transport for the destination's half that can be stopped: from then on it lists nothing
//! more, so the half discards what is not sealed, and finishes what is.
//!
//! Must not know: handoffs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::transport::{ByteStream, Entry, Error, Key, LogTransport, Prefix, Result};

use crate::stop::Stop;

/// The reason with which the half then fails.
pub(crate) const INTERRUPTED: &str = "interrupted";

#[derive(Debug)]
pub(crate) struct Stoppable {
    inner: Arc<dyn LogTransport>,
    stop: Stop,
}

impl Stoppable {
    pub(crate) fn new(inner: Arc<dyn LogTransport>, stop: Stop) -> Self {
        Self { inner, stop }
    }

    fn interrupted(&self) -> Error {
        Error::Other {
            transport: self.to_string(),
            reason: INTERRUPTED.to_owned(),
        }
    }
}

impl fmt::Display for Stoppable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl LogTransport for Stoppable {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        // Tried once all the same: a receipt that arrives saves the next run all of it.
        match self.inner.put(key, data).await {
            Err(Error::Unreachable { .. } | Error::Timeout { .. }) if self.stop.is_asked() => {
                Err(self.interrupted())
            }
            put => put,
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        self.inner.get(key, range).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        tokio::select! {
            biased;
            () = self.stop.asked() => Err(self.interrupted()),
            listed = self.inner.list(prefix, after) => listed,
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::stop;
    use logchain_core::transport::MemoryTransport;

    #[tokio::test]
    async fn it_lists_until_it_is_asked_to_end() {
        let (request, stop) = stop();
        let transport = Stoppable::new(Arc::new(MemoryTransport::new()), stop);
        assert!(transport.list(&Prefix::All, None).await.unwrap().is_empty());
        request.ask();
        let error = transport.list(&Prefix::All, None).await.unwrap_err();
        assert!(error.to_string().ends_with(INTERRUPTED), "{error}");
        // A receipt is still given.
        let key = "v1/9e2b0c39-0000-4000-8000-000000000001/serial0/9e2b0c39-0000-4000-8000-000000000002/receipt";
        transport
            .put(&key.parse().unwrap(), Bytes::new())
            .await
            .unwrap();
    }
}
