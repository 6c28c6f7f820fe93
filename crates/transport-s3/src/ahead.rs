//! An object that comes on while nobody asks for its next part: who is busy with
//! one does not hold up the others that were asked for.
//!
//! Must not know: what is read, or from where.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use logchain_core::transport::{ByteStream, MAX_OBJECT, Result};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::failure::Who;

/// Bytes that wait to be asked for: all of an object of ours.
const ROOM: usize = MAX_OBJECT;

/// Opens an object and reads it in a task of its own, which ends with the stream.
pub(crate) async fn read_ahead(
    who: Who,
    open: impl Future<Output = Result<ByteStream>> + Send + 'static,
) -> Result<ByteStream> {
    let (opened, answer) = oneshot::channel();
    // Its end is bounded by the semaphore, part by part.
    let (sender, parts) = mpsc::unbounded_channel();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut body = match open.await {
            Ok(body) => body,
            Err(e) => {
                let _ = opened.send(Err(e));
                return;
            }
        };
        let _ = opened.send(Ok(()));
        let room = Arc::new(Semaphore::new(ROOM));
        while let Some(part) = body.next().await {
            let len = part.as_ref().map_or(0, Bytes::len).min(ROOM);
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let Ok(taken) = Arc::clone(&room).acquire_many_owned(len).await else {
                return;
            };
            if sender.send(Some((part, taken))).is_err() {
                return;
            }
        }
        let _ = sender.send(None);
    });
    // A task that was ended, and the runtime with it.
    let lost = |who: &Who| who.unreachable("reading was broken off".to_owned());
    answer.await.unwrap_or_else(|_| Err(lost(&who)))?;
    let parts = stream::unfold(Some((parts, task)), move |state| {
        let who = who.clone();
        async move {
            let (mut parts, task) = state?;
            match parts.recv().await {
                Some(Some((part, _))) => Some((part, Some((parts, task)))),
                // It said that this is the end.
                Some(None) => None,
                None => Some((Err(lost(&who)), None)),
            }
        }
    });
    Ok(parts.boxed())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use logchain_core::transport::Error;

    use super::*;
    use crate::url::Kind;

    const PART: usize = 1 << 20;

    fn who() -> Who {
        Who::new("s3://b".to_owned(), Kind::Amazon)
    }

    /// Parts without an end, and how many of them were taken.
    fn endless() -> (ByteStream, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let parts = stream::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from(vec![7; PART]))
        });
        (parts.boxed(), taken)
    }

    #[tokio::test]
    async fn it_reads_on_unasked_but_not_without_end() {
        let (body, taken) = endless();
        let mut ahead = read_ahead(who(), async { Ok(body) }).await.unwrap();
        let room = ROOM / PART;
        for asked in 0..3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // And the one that found no room.
            assert_eq!(taken.load(Ordering::Relaxed), asked + room + 1);
            assert_eq!(ahead.next().await.unwrap().unwrap().len(), PART);
        }
        drop(ahead);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let then = taken.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(taken.load(Ordering::Relaxed), then, "it goes on");
    }

    #[tokio::test]
    async fn an_end_is_told_from_a_loss() {
        let body = stream::iter([Ok(Bytes::from_static(b"a"))]).boxed();
        let ahead = read_ahead(who(), async { Ok(body) }).await.unwrap();
        assert_eq!(ahead.count().await, 1);
        let body = stream::once(async { panic!("a task that ends") });
        let mut ahead = read_ahead(who(), async { Ok(body.boxed()) }).await.unwrap();
        let lost = ahead.next().await.unwrap();
        assert!(matches!(lost, Err(Error::Unreachable { .. })), "{lost:?}");
        assert!(ahead.next().await.is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_said_at_once() {
        let failure = who().denied("no".to_owned());
        let opened = read_ahead(who(), async { Err(failure) }).await.err();
        assert!(matches!(opened, Some(Error::Denied { .. })), "{opened:?}");
    }
}
