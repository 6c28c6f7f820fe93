//! A transport for the destination's half that can be asked to end: from then on
//! it lists nothing more, so what is not sealed is discarded, and what is sealed
//! comes to its end.
//!
//! Must not know: signals' numbers, handoffs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::transport::{ByteStream, Entry, Error, Key, LogTransport, Prefix, Result};

use crate::interrupt::Interrupt;

/// What the half then fails with.
pub(crate) const INTERRUPTED: &str = "interrupted";

#[derive(Debug)]
pub(crate) struct Ending {
    inner: Arc<dyn LogTransport>,
    interrupt: Interrupt,
}

impl Ending {
    pub(crate) fn new(inner: Arc<dyn LogTransport>, interrupt: Interrupt) -> Self {
        Self { inner, interrupt }
    }

    fn interrupted(&self) -> Error {
        Error::Other {
            transport: self.to_string(),
            reason: INTERRUPTED.to_owned(),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl LogTransport for Ending {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        // Tried all the same: a receipt that arrives is worth a try.
        match self.inner.put(key, data).await {
            Err(Error::Unreachable { .. } | Error::Timeout { .. }) if self.interrupt.came() => {
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
            () = self.interrupt.first() => Err(self.interrupted()),
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
    use logchain_core::transport::MemoryTransport;
    use tokio::sync::watch;

    #[tokio::test]
    async fn it_lists_until_it_is_asked_to_end() {
        let count = watch::Sender::new(0);
        let interrupt = Interrupt::of(count.subscribe());
        let ending = Ending::new(Arc::new(MemoryTransport::new()), interrupt);
        assert!(ending.list(&Prefix::All, None).await.unwrap().is_empty());
        count.send_replace(1);
        let error = ending.list(&Prefix::All, None).await.unwrap_err();
        assert!(error.to_string().ends_with(INTERRUPTED), "{error}");
        // A receipt is still given.
        let key = "v1/9e2b0c39-0000-4000-8000-000000000001/serial0/9e2b0c39-0000-4000-8000-000000000002/receipt";
        ending
            .put(&key.parse().unwrap(), Bytes::new())
            .await
            .unwrap();
    }
}
