//! Old batches go, where that is asked for.

use super::{Archive, Result, offset_of};
use crate::transport::LogTransportExt;

impl Archive {
    /// Deletes what lies wholly before `offset`.
    pub async fn forget_before(&self, offset: u64) -> Result<()> {
        loop {
            // The newest first: the first of them may reach beyond the offset.
            let key = self.key(offset);
            let page = self.transport.list_page(&self.prefix(), Some(&key)).await?;
            let mut old = page.iter().map(|e| &e.key);
            let Some(first) = old.next() else {
                return Ok(());
            };
            let reaches = match offset_of(first) {
                Some(at) => self.batch(at).await?.is_some_and(|b| b.end() > offset),
                None => true,
            };
            let mut gone = 0;
            for key in (!reaches).then_some(first).into_iter().chain(old) {
                self.transport.delete(key).await?;
                gone += 1;
            }
            if gone == 0 {
                return Ok(());
            }
        }
    }
}
