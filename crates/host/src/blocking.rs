//! Work that blocks on files, kept off the runtime's own threads.

use tracing::Span;

use crate::Result;

/// Runs `work` on a thread that may block, within the caller's span.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await?
}
