//! One connection to a logchain on the far side: an ssh process, and the frames in its pipes.
//!
//! Must not know: what goes in the frames.

use std::io;

use logchain_transport_wire::{Dial, Link, Protocol, shake_hands};
use tokio::time::timeout;
use tracing::debug;

use crate::failure::Failure;
use crate::process::{Asks, LAST_WORDS, Process};
use crate::{SshOptions, SshTarget, again, command};

/// How a connection to a logchain on the far side is made.
pub(crate) struct SshDial {
    pub(crate) target: SshTarget,
    pub(crate) options: SshOptions,
}

impl Dial for SshDial {
    type Failure = Failure;

    async fn dial(&self) -> Result<Link, Failure> {
        let once = || open(&self.target, &self.options);
        again::open(self.options.connect_timeout, once).await
    }
}

/// Starts `logchain transport serve` on the far side and shakes hands with it.
async fn open(target: &SshTarget, options: &SshOptions) -> Result<Link, Failure> {
    let words = [
        options.remote_logchain.clone(),
        "transport".into(),
        "serve".into(),
        target.spool().as_os_str().to_owned(),
    ];
    let command = command(target, options, &words);
    let (mut process, output, input) = Process::start(command, target, options, Asks::Logchain)?;
    let mut answered = Vec::new();
    // ssh has its own, shorter bound on connecting; this one holds for the rest too.
    let limit = options.connect_timeout.saturating_add(LAST_WORDS);
    let host = target.host();
    match timeout(
        limit,
        shake_hands(output, input, Protocol::TRANSPORT, &mut answered),
    )
    .await
    {
        Ok(Ok(streams)) => {
            // The link owns the process: it takes the ssh with it.
            let why = async move { process.failure(b"").await.sentence };
            Ok(Link::start(streams, why))
        }
        Ok(Err(e)) if e.kind() == io::ErrorKind::Unsupported => Err(Failure::denied(format!(
            "at {host}: {e}; bring both to one release"
        ))),
        Ok(Err(e)) if e.kind() == io::ErrorKind::InvalidData => {
            Err(Failure::denied(format!("at {host}: {e}")))
        }
        Ok(Err(error)) => {
            debug!(host, %error, "no greeting came");
            Err(process.failure(&answered).await)
        }
        Err(_) => {
            let secs = limit.as_secs_f64();
            Err(Failure::unreachable(format!(
                "{host} did not answer within {secs:.0} s"
            )))
        }
    }
}
