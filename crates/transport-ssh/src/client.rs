//! The near side: by a logchain over there where there is one, else by SFTP.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::transport::{ByteStream, Entry, Key, LogTransport, Prefix, Result};
use logchain_transport_wire::{Client, DialFailure as _};
use tracing::debug;

use crate::failure::Failure;
use crate::link::SshDial;
use crate::sftp::Sftp;
use crate::{SshOptions, SshTarget};

/// A spool on another host, over ssh.
pub struct SshTransport {
    name: String,
    host: String,
    far: FarSide,
}

/// Chosen once: a logchain that is missing later is a failure, and does not make
/// what is under way less durable.
enum FarSide {
    Logchain(Box<Client<SshDial>>),
    Sftp(Box<Sftp>),
}

/// Who serves the spool on the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServedBy {
    /// A logchain: what is put is durable, its name too.
    Logchain,
    /// sshd's SFTP server, which cannot sync a folder: see [`SshTransport::caution`].
    Sftp,
}

impl SshTransport {
    /// Connects to the spool. Where the far side has no logchain, or allows
    /// nothing but SFTP, SFTP is used, unless [`SshOptions::sftp`] forbids it.
    ///
    /// # Errors
    /// [`Error::Unreachable`](logchain_core::transport::Error::Unreachable) or
    /// [`Error::Denied`](logchain_core::transport::Error::Denied) with a sentence
    /// that an operator can act on.
    pub async fn connect(target: SshTarget, options: SshOptions) -> Result<Self> {
        let (name, host) = (target.to_string(), target.host().to_owned());
        let dial = SshDial {
            target: target.clone(),
            options: options.clone(),
        };
        let client = Client::new(name.clone(), dial, options.quiet);
        let far = match client.connect().await {
            Ok(()) => FarSide::Logchain(Box::new(client)),
            Err(failure) if failure.no_logchain && options.sftp => {
                debug!(host, reason = failure.sentence, "SFTP is used instead");
                match Sftp::connect(target, options).await {
                    Ok(sftp) => FarSide::Sftp(Box::new(sftp)),
                    Err(also) => return Err(neither(&failure, also).into_error(name)),
                }
            }
            Err(failure) => return Err(failure.into_error(name)),
        };
        Ok(Self { name, host, far })
    }

    /// Who serves the spool there.
    #[must_use]
    pub fn served_by(&self) -> ServedBy {
        match self.far {
            FarSide::Logchain(_) => ServedBy::Logchain,
            FarSide::Sftp(_) => ServedBy::Sftp,
        }
    }

    /// What the user should know of this way: one sentence, where there is something.
    #[must_use]
    pub fn caution(&self) -> Option<String> {
        let host = &self.host;
        match self.served_by() {
            ServedBy::Logchain => None,
            ServedBy::Sftp => Some(format!(
                "{host} runs no logchain for this, so the pieces lie there by SFTP, which can \
                 sync files but no folders: if {host} crashes, pieces put just before may be \
                 gone, though none is ever half there"
            )),
        }
    }
}

fn neither(no_logchain: &Failure, no_sftp: Failure) -> Failure {
    Failure {
        sentence: format!(
            "{}; nor does SFTP serve: {}",
            no_logchain.sentence, no_sftp.sentence
        ),
        ..no_sftp
    }
}

impl fmt::Display for SshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.far {
            FarSide::Logchain(_) => Ok(()),
            FarSide::Sftp(_) => f.write_str(" (SFTP)"),
        }
    }
}

impl fmt::Debug for SshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshTransport({self})")
    }
}

#[async_trait]
impl LogTransport for SshTransport {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        match &self.far {
            FarSide::Logchain(far) => far.put(key, data).await,
            FarSide::Sftp(far) => far.put(key, data).await,
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        match &self.far {
            FarSide::Logchain(far) => far.get(key, range).await,
            FarSide::Sftp(far) => far.get(key, range).await,
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        match &self.far {
            FarSide::Logchain(far) => far.list(prefix, after).await,
            FarSide::Sftp(far) => far.list(prefix, after).await,
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match &self.far {
            FarSide::Logchain(far) => far.delete(key).await,
            FarSide::Sftp(far) => far.delete(key).await,
        }
    }
}

#[cfg(test)]
impl SshTransport {
    /// Over any two streams, in place of ssh.
    pub(crate) async fn over(
        output: impl tokio::io::AsyncRead + Send + Unpin + 'static,
        input: impl tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> std::io::Result<Self> {
        use std::io;

        let protocol = logchain_transport_wire::Protocol::TRANSPORT;
        let streams =
            logchain_transport_wire::shake_hands(output, input, protocol, &mut Vec::new()).await?;
        let link = logchain_transport_wire::Link::start(streams, async {
            "the connection broke".to_owned()
        });
        let target = SshTarget::on("test").map_err(io::Error::other)?;
        let options = SshOptions {
            program: "/bin/false".into(),
            ..SshOptions::default()
        };
        let (name, host) = (target.to_string(), target.host().to_owned());
        let quiet = options.quiet;
        let dial = SshDial { target, options };
        let client = Client::over(name.clone(), dial, quiet, Some(link));
        let far = FarSide::Logchain(Box::new(client));
        Ok(Self { name, host, far })
    }
}
