//! A transport of which only so many calls are under way at once, whoever calls.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

use super::Budget;
use crate::transport::{ByteStream, Entry, Key, LogTransport, Prefix, Result};

#[derive(Debug)]
pub(super) struct Bounded {
    pub(super) inner: Arc<dyn LogTransport>,
    pub(super) budget: Budget,
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl LogTransport for Bounded {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let _call = self.budget.call().await;
        self.inner.put(key, data).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let call = self.budget.call().await;
        let parts = self.inner.get(key, range).await?;
        // Under way until the last part is here.
        let parts = parts.map(move |part| {
            let _call = &call;
            part
        });
        Ok(parts.boxed())
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let _call = self.budget.call().await;
        self.inner.list(prefix, after).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let _call = self.budget.call().await;
        self.inner.delete(key).await
    }
}
