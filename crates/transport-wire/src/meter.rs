//! When bytes last moved on a connection, and whether it is over. Only one on
//! which nothing moves is lost: on a slow one an answer may come late behind
//! large objects.
//!
//! Must not know: what the bytes mean.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// When bytes last moved on a connection.
#[derive(Debug)]
pub struct Meter {
    /// When bytes moved last, either way, or a request began.
    moved: Mutex<Instant>,
    gone: watch::Sender<bool>,
}

impl Meter {
    /// Of a connection that begins now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            moved: Mutex::new(Instant::now()),
            gone: watch::Sender::new(false),
        })
    }

    /// Something moved.
    pub fn note(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the future gives; `None` where nothing moved for `quiet` while it was awaited.
    pub async fn patient<T>(&self, quiet: Duration, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        loop {
            let moved = self.last();
            match timeout_at(moved + quiet, &mut future).await {
                Ok(done) => return Some(done),
                Err(_) if self.last() > moved => {}
                Err(_) => return None,
            }
        }
    }

    /// From now on nothing comes any more.
    pub fn end(&self) {
        self.gone.send_replace(true);
    }

    /// Whether nothing comes any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Until nothing comes any more.
    pub async fn gone(&self) {
        // The sender is ours, so this fails never.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }
}

/// Notes when bytes move, and when they end.
#[derive(Debug)]
pub struct Metered<T> {
    inner: T,
    meter: Arc<Meter>,
}

impl<T> Metered<T> {
    /// Has the meter note what moves on `inner`.
    pub fn new(inner: T, meter: &Arc<Meter>) -> Self {
        let meter = Arc::clone(meter);
        Self { inner, meter }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (room, before) = (buf.remaining(), buf.filled().len());
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        if read.is_err() || (room > 0 && buf.filled().len() == before) {
            self.meter.end();
        } else {
            self.meter.note();
        }
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf));
        self.meter.note();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
