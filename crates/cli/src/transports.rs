//! Picks a transport by its URL: the one place that knows them all.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logchain_core::transport::{self, DirectoryTransport, LogTransport};
use logchain_transport_ssh::{SshOptions, SshTarget, SshTransport};

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
            "file" if Path::new(rest).is_absolute() => {
                let path = PathBuf::from(rest);
                if path.components().any(|part| part == Component::ParentDir) {
                    return Err(Usage(format!(
                        "{url:?} has .. in it; write the folder's own path from the root"
                    )));
                }
                Ok(Self::Folder(path))
            }
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

    /// To put something there: a folder that does not exist is made.
    pub(crate) async fn open(&self, ssh: &SshOptions) -> anyhow::Result<Arc<dyn LogTransport>> {
        self.open_as(ssh, DirectoryTransport::create).await
    }

    /// To take something from there: nothing is made.
    pub(crate) async fn open_existing(
        &self,
        ssh: &SshOptions,
    ) -> anyhow::Result<Arc<dyn LogTransport>> {
        self.open_as(ssh, DirectoryTransport::open).await
    }

    async fn open_as(
        &self,
        ssh: &SshOptions,
        folder: fn(&Path) -> transport::Result<DirectoryTransport>,
    ) -> anyhow::Result<Arc<dyn LogTransport>> {
        Ok(match self {
            Self::Ssh(target) => {
                Arc::new(SshTransport::connect(target.clone(), ssh.clone()).await?)
            }
            Self::Folder(path) => Arc::new(folder(path)?),
        })
    }
}

impl fmt::Display for Choice {
    /// The URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh(target) => target.fmt(f),
            Self::Folder(path) => write!(f, "file://{}", path.display()),
        }
    }
}

/// How ssh is called by who waits no longer than `patience`: one connection that
/// hangs must leave time for another.
pub(crate) fn ssh_options(remote: Option<&str>, patience: Duration) -> SshOptions {
    let known = SshOptions::default();
    let least = Duration::from_secs(1);
    SshOptions {
        remote_logchain: remote.map_or(known.remote_logchain, Into::into),
        connect_timeout: known.connect_timeout.min(patience).max(least),
        quiet: known.quiet.min(patience / 2).max(least),
        ..known
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_without_detours() {
        for url in ["file:///..", "file:///a/../b", "file:///a/.."] {
            assert!(Choice::by_url(url).is_err(), "{url}");
        }
        for url in ["file:///", "file:///a/..b", "file:///a b/..."] {
            assert_eq!(Choice::by_url(url).unwrap().to_string(), url);
        }
    }

    #[test]
    fn ssh_waits_no_longer_than_who_calls_it() {
        let of = |seconds: f64| {
            let options = ssh_options(None, Duration::from_secs_f64(seconds));
            (
                options.connect_timeout.as_secs_f64(),
                options.quiet.as_secs_f64(),
            )
        };
        assert_eq!(of(0.0), (1.0, 1.0));
        assert_eq!(of(6.0), (6.0, 3.0));
        assert_eq!(of(60.0), (10.0, 30.0));
        assert_eq!(of(3600.0), (10.0, 60.0));
    }
}
