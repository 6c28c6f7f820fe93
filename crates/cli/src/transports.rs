//! Picks a transport by its URL: the one place that knows them all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logchain_core::transport::{DirectoryTransport, LogTransport};
use logchain_transport_ssh::{SshOptions, SshTarget, SshTransport};

use crate::args::Carry;
use crate::exit::Usage;

/// A transport that was asked for, not opened yet.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    Ssh(SshTarget),
    Folder(PathBuf),
}

impl Choice {
    /// By URL; without one, ssh to the host in the destination's URI.
    pub(crate) fn of(url: Option<&str>, dest_uri: Option<&str>) -> Result<Self, Usage> {
        if let Some(url) = url {
            return Self::by_url(url);
        }
        let Some(uri) = dest_uri else {
            return Err(Usage(
                "say where the pieces are with --transport, as ssh://host/spool or file:///folder"
                    .to_owned(),
            ));
        };
        let target = host_of(uri).ok_or_else(|| {
            Usage(format!(
                "{uri} names no host that ssh could reach; name a transport with --transport"
            ))
        })?;
        let parsed = format!("ssh://{target}").parse();
        parsed
            .map(Self::Ssh)
            .map_err(|e: logchain_transport_ssh::BadTarget| Usage(e.to_string()))
    }

    fn by_url(url: &str) -> Result<Self, Usage> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(Usage(format!(
                "{url:?} is not the URL of a transport; write ssh://host/spool or file:///folder"
            )));
        };
        match scheme {
            "ssh" => url.parse().map(Self::Ssh).map_err(|e| {
                let error: logchain_transport_ssh::BadTarget = e;
                Usage(error.to_string())
            }),
            "file" if Path::new(rest).is_absolute() => Ok(Self::Folder(PathBuf::from(rest))),
            "file" => Err(Usage(format!(
                "{url:?} names no folder from the root; write file:///folder"
            ))),
            "s3" | "gs" | "az" => Err(Usage(format!(
                "object stores are not part of this build yet ({url:?}); there are ssh:// and file://"
            ))),
            _ => Err(Usage(format!(
                "there is no transport {scheme}://; there are ssh:// and file://"
            ))),
        }
    }

    pub(crate) async fn open(&self, ssh: &SshOptions) -> anyhow::Result<Arc<dyn LogTransport>> {
        Ok(match self {
            Self::Ssh(target) => {
                Arc::new(SshTransport::connect(target.clone(), ssh.clone()).await?)
            }
            Self::Folder(path) => Arc::new(DirectoryTransport::create(path)?),
        })
    }
}

/// How ssh is called.
pub(crate) fn ssh_options(carry: &Carry) -> SshOptions {
    SshOptions {
        remote_logchain: carry.remote_logchain.clone().into(),
        ..SshOptions::default()
    }
}

/// `[user@]host[:port]` of a connection URI; a port only where it is ssh's.
fn host_of(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, authority),
    };
    let port_at = match address.rfind(']') {
        Some(end) => address.get(end..)?.find(':').map(|at| end + at),
        None => address.find(':'),
    };
    let ssh =
        scheme.ends_with("+ssh") || scheme.ends_with("+libssh") || scheme.ends_with("+libssh2");
    let host = match port_at {
        Some(at) if !ssh => address.get(..at)?,
        _ => address,
    };
    if host.is_empty() {
        return None;
    }
    // Another protocol's user is not ssh's.
    Some(match user.filter(|_| ssh) {
        Some(user) => format!("{user}@{host}"),
        None => host.to_owned(),
    })
}
