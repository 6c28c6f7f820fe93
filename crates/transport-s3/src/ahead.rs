//! An object that comes on while nobody asks for it: who is busy with one does not
//! hold up the others that were asked for.
//!
//! Must not know: what is read, or from where.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use logchain_core::transport::{ByteStream, MAX_OBJECT, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::buffers::Shelf;
use crate::failure::Who;

/// Bytes that are given at once: all of an object of ours. Gathered, they let the
/// connection use its own buffer again and again.
const PART: usize = MAX_OBJECT;

/// An object that was opened.
pub(crate) struct Opened {
    pub(crate) len: u64,
    pub(crate) body: ByteStream,
}

/// Opens an object and reads it in a task of its own, which ends with the stream.
/// It is one part ahead of whoever asks, beside the one that it gathers.
pub(crate) async fn read_ahead(
    who: Who,
    shelf: Arc<Shelf>,
    open: impl Future<Output = Result<Opened>> + Send + 'static,
) -> Result<ByteStream> {
    let (said, answer) = oneshot::channel();
    let (sender, parts) = mpsc::channel(1);
    let mut task = JoinSet::new();
    let read = async move {
        match open.await {
            Ok(opened) => {
                let _ = said.send(Ok(()));
                // Nobody wants it any more, if it cannot be sent.
                let _ = gather(opened, &shelf, &sender).await;
            }
            Err(e) => drop(said.send(Err(e))),
        }
    };
    task.spawn(read.in_current_span());
    // A task that was ended, and the runtime with it.
    let lost = |who: &Who| who.unreachable("reading was broken off".to_owned());
    answer.await.unwrap_or_else(|_| Err(lost(&who)))?;
    let parts = stream::unfold(Some((parts, task)), move |state| {
        let who = who.clone();
        async move {
            let (mut parts, task) = state?;
            match parts.recv().await {
                Some(Some(Ok(part))) => Some((Ok(part), Some((parts, task)))),
                Some(Some(Err(e))) => Some((Err(e), None)),
                // It said that this is the end.
                Some(None) => None,
                None => Some((Err(lost(&who)), None)),
            }
        }
    });
    Ok(parts.boxed())
}

type Sender = mpsc::Sender<Option<Result<Bytes>>>;
type Unwanted = mpsc::error::SendError<Option<Result<Bytes>>>;

async fn gather(mut opened: Opened, shelf: &Arc<Shelf>, sender: &Sender) -> Result<(), Unwanted> {
    // The store's word, which decides on nothing but the buffer's size.
    let mut left = usize::try_from(opened.len).unwrap_or(PART);
    let mut part = shelf.take(left.min(PART));
    while let Some(bytes) = opened.body.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(e) => return sender.send(Some(Err(e))).await,
        };
        if part.len().saturating_add(bytes.len()) > PART {
            left = left.saturating_sub(part.len());
            let full = std::mem::replace(&mut part, shelf.take(left.min(PART)));
            sender.send(Some(Ok(full.freeze()))).await?;
        }
        part.push(&bytes);
    }
    if part.len() > 0 {
        sender.send(Some(Ok(part.freeze()))).await?;
    }
    sender.send(None).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use logchain_core::transport::Error;

    use super::*;
    use crate::buffers::Buffers;
    use crate::url::Kind;

    fn who() -> Who {
        Who::new("s3://b".to_owned(), Kind::Amazon)
    }

    async fn read(body: ByteStream) -> ByteStream {
        let len = 1;
        let shelf = Buffers::default().shelf();
        let opened = read_ahead(who(), shelf, async move { Ok(Opened { len, body }) });
        opened.await.unwrap()
    }

    #[tokio::test]
    async fn it_reads_on_unasked_but_not_without_end() {
        const MIB: usize = 1 << 20;
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let endless = stream::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from(vec![7; MIB]))
        });
        let mut ahead = read(endless.boxed()).await;
        let a_while = Duration::from_millis(50);
        for asked in 1..4 {
            // One part waits, one is whole, and there is what did not fit into it.
            let most = (asked + 1) * PART / MIB + 1;
            for _ in 0..200 {
                if taken.load(Ordering::Relaxed) == most {
                    break;
                }
                tokio::time::sleep(a_while).await;
            }
            tokio::time::sleep(a_while).await;
            assert_eq!(taken.load(Ordering::Relaxed), most);
            assert_eq!(ahead.next().await.unwrap().unwrap().len(), PART);
        }
        drop(ahead);
        tokio::time::sleep(a_while).await;
        let then = taken.load(Ordering::Relaxed);
        tokio::time::sleep(a_while).await;
        assert_eq!(taken.load(Ordering::Relaxed), then, "it goes on");
    }

    #[tokio::test]
    async fn all_comes_in_order() {
        let sizes = [1, PART - 1, 1, PART, 5, 0, PART + 3];
        let body = sizes.map(|size| Ok(Bytes::from(vec![u8::try_from(size % 7).unwrap(); size])));
        let all: Vec<u8> = body
            .iter()
            .flat_map(|part| part.as_ref().unwrap().to_vec())
            .collect();
        let mut ahead = read(stream::iter(body).boxed()).await;
        let mut got = Vec::new();
        while let Some(part) = ahead.next().await {
            got.extend_from_slice(&part.unwrap());
        }
        assert!(got == all, "{} of {}", got.len(), all.len());
    }

    #[tokio::test]
    async fn an_end_is_told_from_a_loss() {
        let body = stream::iter([Ok(Bytes::from_static(b"a"))]).boxed();
        assert_eq!(read(body).await.count().await, 1);
        let body = stream::once(async { panic!("a task that ends") }).boxed();
        let mut ahead = read(body).await;
        let lost = ahead.next().await.unwrap();
        assert!(matches!(lost, Err(Error::Unreachable { .. })), "{lost:?}");
        assert!(ahead.next().await.is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_said_at_once() {
        let failure = who().denied("no".to_owned());
        let shelf = Buffers::default().shelf();
        let opened = read_ahead(who(), shelf, async { Err(failure) });
        let opened = opened.await.err();
        assert!(matches!(opened, Some(Error::Denied { .. })), "{opened:?}");
    }
}
