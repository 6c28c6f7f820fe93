//! The far side of a [`SshTransport`](crate::SshTransport): what `logchain transport serve` does.

use std::sync::Arc;

use logchain_core::transport::LogTransport;
use logchain_transport_wire::{Protocol, ServeError, ServeOptions, Unrestricted};
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves requests until `input` ends.
///
/// # Errors
/// [`ServeError::Io`] where the connection breaks or carries nonsense.
pub async fn serve(
    transport: Arc<dyn LogTransport>,
    input: impl AsyncRead + Send + Unpin,
    output: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), ServeError> {
    let handler = Arc::new(Unrestricted(transport));
    let options = ServeOptions::default();
    logchain_transport_wire::serve(handler, input, output, Protocol::TRANSPORT, options).await
}
