//! `logchain transport serve`: the far side of the ssh transport.

use std::path::Path;
use std::sync::Arc;

use logchain_core::transport::DirectoryTransport;

use crate::exit::Exit;

pub(crate) async fn run(spool: &Path) -> anyhow::Result<Exit> {
    // The source has all of it until the destination here has made it durable.
    let folder = DirectoryTransport::create(spool)?.lazy();
    let folder = Arc::new(folder);
    let swept = Arc::clone(&folder);
    // Beside what is asked for; what cannot be swept is no failure of that.
    tokio::spawn(async move { swept.sweep().await });
    logchain_transport_ssh::serve(folder, tokio::io::stdin(), tokio::io::stdout()).await?;
    Ok(Exit::Done)
}
