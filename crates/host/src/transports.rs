//! Picks a transport by its URL: the one place that knows them all.

use std::ffi::OsString;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use logchain_core::transport::{self, DirectoryTransport, LogTransport};
use logchain_libvirt::uri::Uri;
use logchain_transport_s3::{StoreOptions, StoreTransport, StoreUrl};
use logchain_transport_ssh::{BadTarget, SshLogin, SshOptions, SshTarget, SshTransport};
use logchain_transport_tls::{
    AllowedNames, BadAddress, ClientCredentials, ExpectedPeer, LinkOptions, Notice, PeerAddress,
    PeerLink, Pki,
};

use crate::blocking::blocking;
use crate::error::{Error, Result};

/// The least time that one answer is waited for, however short the caller's patience is.
const LEAST: Duration = Duration::from_secs(1);

/// The kinds of URLs, for messages.
const KNOWN: &str =
    "ssh://host/spool, file:///folder, s3://bucket/prefix, gs://, az:// or tls://host";

/// A transport that was asked for, not opened yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TransportChoice {
    /// A spool over ssh.
    Ssh(SshSpool),
    /// A folder here.
    Folder(PathBuf),
    /// An object store.
    Store {
        /// Which.
        url: StoreUrl,
        /// The destination's host, where it is known: its half can be started there.
        host: Option<SshTarget>,
    },
    /// The spool of another host's agent.
    Agent(PeerAddress),
    /// None could be found, and why.
    Nowhere(String),
}

/// A spool over ssh, at the destination or on a third host.
#[derive(Clone, Debug)]
pub struct SshSpool {
    target: SshTarget,
    /// The destination's host, where it is known to be another.
    host: Option<SshTarget>,
    /// Whether SFTP will do: not at the destination, where logchain has to run anyway.
    sftp: bool,
    /// What is weaker because the spool is served by SFTP, once that is known.
    caution: Arc<OnceLock<String>>,
}

impl SshSpool {
    fn new(target: SshTarget, sftp: bool) -> Self {
        Self {
            target,
            host: None,
            sftp,
            caution: Arc::default(),
        }
    }

    /// `host`: where the destination's half runs.
    fn beside(&mut self, host: Option<SshTarget>) {
        self.sftp &= host.as_ref().is_none_or(|h| !h.is_same_host(&self.target));
        self.host = host.filter(|_| self.sftp);
    }

    fn by_sftp(&self) -> bool {
        self.caution.get().is_some()
    }
}

impl TransportChoice {
    /// By URL. `host`: the destination's, where it is known.
    ///
    /// # Errors
    /// [`Error::Usage`] where it is no URL of a transport.
    pub fn of(url: Option<&str>, host: Option<SshTarget>) -> Result<Self> {
        let Some(url) = url else {
            return Err(Error::Usage(format!(
                "say where the pieces are with --transport, as {KNOWN}"
            )));
        };
        let mut choice = Self::by_url(url)?;
        match &mut choice {
            Self::Ssh(spool) => spool.beside(host),
            Self::Store { host: there, .. } => *there = host,
            Self::Folder(_) | Self::Agent(_) | Self::Nowhere(_) => {}
        }
        Ok(choice)
    }

    /// The destination's own spool.
    #[must_use]
    pub fn at(host: SshTarget) -> Self {
        Self::Ssh(SshSpool::new(host, false))
    }

    fn by_url(url: &str) -> Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(Error::Usage(format!(
                "{url:?} is not the URL of a transport; write {KNOWN}"
            )));
        };
        match scheme {
            "ssh" => {
                let target = url.parse()?;
                Ok(Self::Ssh(SshSpool::new(target, true)))
            }
            "file" if Path::new(rest).is_absolute() => {
                let path = PathBuf::from(rest);
                if path.components().any(|part| part == Component::ParentDir) {
                    return Err(Error::Usage(format!(
                        "{url:?} has .. in it; write the folder's own path from the root"
                    )));
                }
                Ok(Self::Folder(path))
            }
            "file" => Err(Error::Usage(format!(
                "{url:?} names no folder from the root; write file:///folder"
            ))),
            "s3" | "gs" | "az" => {
                let url = url.parse()?;
                Ok(Self::Store { url, host: None })
            }
            "tls" => url
                .parse()
                .map(Self::Agent)
                .map_err(|e: BadAddress| Error::Usage(e.to_string())),
            _ => Err(Error::Usage(format!(
                "there is no transport {scheme}://; write {KNOWN}"
            ))),
        }
    }

    /// The destination's host, and where its half finds the pieces, if that half
    /// can be started from here.
    #[must_use]
    pub fn far(&self) -> Option<(&SshTarget, OsString)> {
        match self {
            Self::Ssh(spool) if spool.by_sftp() => {
                Some((spool.host.as_ref()?, spool.target.to_string().into()))
            }
            Self::Ssh(SshSpool { target, .. }) => {
                let mut spool = OsString::from("file://");
                spool.push(target.spool());
                Some((target, spool))
            }
            Self::Folder(_) | Self::Agent(_) | Self::Nowhere(_) => None,
            Self::Store { url, host } => Some((host.as_ref()?, url.to_string().into())),
        }
    }

    /// Whether the pieces go where the destination's half runs: without that half
    /// there is no way at all.
    #[must_use]
    pub fn needs_far(&self) -> bool {
        matches!(self, Self::Ssh(spool) if !spool.by_sftp())
    }

    /// What people should know of an open transport, in a sentence.
    #[must_use]
    pub fn caution(&self) -> Option<&str> {
        match self {
            Self::Ssh(spool) => spool.caution.get().map(String::as_str),
            Self::Folder(_) | Self::Store { .. } | Self::Agent(_) | Self::Nowhere(_) => None,
        }
    }

    /// To put something there: a folder that does not exist is made.
    ///
    /// # Errors
    /// [`Error::Transport`]; [`Error::Refused`] where there is no way at all.
    pub async fn open(
        &self,
        ssh: &SshOptions,
        patience: Duration,
    ) -> Result<Arc<dyn LogTransport>> {
        self.open_as(ssh, patience, DirectoryTransport::create)
            .await
    }

    /// To take something from there: nothing is made.
    ///
    /// # Errors
    /// As [`TransportChoice::open`].
    pub async fn open_existing(
        &self,
        ssh: &SshOptions,
        patience: Duration,
    ) -> Result<Arc<dyn LogTransport>> {
        self.open_as(ssh, patience, DirectoryTransport::open).await
    }

    async fn open_as(
        &self,
        ssh: &SshOptions,
        patience: Duration,
        folder: fn(&Path) -> transport::Result<DirectoryTransport>,
    ) -> Result<Arc<dyn LogTransport>> {
        Ok(match self {
            Self::Ssh(spool) => {
                let options = SshOptions {
                    sftp: ssh.sftp && spool.sftp,
                    ..ssh.clone()
                };
                let transport = SshTransport::connect(spool.target.clone(), options).await?;
                if let Some(caution) = transport.caution() {
                    let _ = spool.caution.set(caution);
                }
                Arc::new(transport)
            }
            Self::Nowhere(reason) => return Err(Error::Refused(reason.clone())),
            Self::Agent(address) => {
                let credentials = ClientCredentials::load(Pki::libvirt(), Notice::default()).await;
                let credentials = credentials.map_err(|e| Error::Refused(e.to_string()))?;
                let expected = ExpectedPeer::Allowed(AllowedNames::any());
                let options = LinkOptions::default();
                Arc::new(PeerLink::new(
                    address.clone(),
                    credentials,
                    expected,
                    options,
                ))
            }
            Self::Folder(path) => Arc::new(folder(path)?),
            Self::Store { url, .. } => {
                let options = StoreOptions {
                    patience: patience.max(LEAST),
                    ..StoreOptions::default()
                };
                let url = url.clone();
                let open = move || StoreTransport::open(&url, &options);
                let store = blocking(move || Ok(open()?)).await?;
                // Both halves rest on it that nothing is ever overwritten.
                store.probe().await?;
                Arc::new(store)
            }
        })
    }
}

impl fmt::Display for TransportChoice {
    /// The URL; a place for one where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh(spool) => spool.target.fmt(f),
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Store { url, .. } => url.fmt(f),
            Self::Agent(address) => write!(f, "tls://{address}"),
            Self::Nowhere(_) => f.write_str("ssh://DESTINATION"),
        }
    }
}

/// How ssh is called by a caller who waits `patience`: a connection that hangs must leave time
/// for another. `remote`: what logchain is called at the far side.
#[must_use]
pub fn ssh_options(remote: Option<&str>, patience: Duration) -> SshOptions {
    let known = SshOptions::default();
    SshOptions {
        // A caller who names the program wants that one, and no SFTP instead.
        sftp: remote.is_none_or(|named| known.remote_logchain == named),
        remote_logchain: remote.map_or(known.remote_logchain, Into::into),
        connect_timeout: known.connect_timeout.min(patience).max(LEAST),
        quiet: known.quiet.min(patience / 2).max(LEAST),
        ..known
    }
}

/// Why ssh cannot be given the host of a connection URI: mend the URI, or name a transport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSshTarget {
    /// Its host or its user is none that ssh takes.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// A parameter of it has a value that ssh cannot be given.
    #[error("{what}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// What is wrong with its value.
        what: &'static str,
    },
}

/// ssh to the host in a connection URI, if it names one; by libvirt's own login where
/// libvirt takes ssh as well.
#[must_use]
pub fn ssh_to(uri: &Uri) -> Option<Result<SshTarget, NoSshTarget>> {
    Some(ssh_into(uri, uri.host()?))
}

fn ssh_into(uri: &Uri, host: &str) -> Result<SshTarget, NoSshTarget> {
    let mut target = SshTarget::on(host)?;
    // Another protocol's user, port and parameters are not ssh's.
    if !uri.is_ssh() {
        return Ok(target);
    }
    if let Some(user) = uri.user() {
        target = target.as_user(user)?;
    }
    if let Some(port) = uri.port() {
        target = target.at_port(port);
    }
    let by_program = uri.transport() == Some("ssh");
    let names = ["keyfile", "no_verify", "known_hosts", "known_hosts_verify"];
    let mut login = SshLogin::default();
    for name in names.into_iter().chain(by_program.then_some("command")) {
        if let Some(value) = uri.parameter(name) {
            login
                .set(name, value)
                .map_err(|what| NoSshTarget::Parameter { name, what })?;
        }
    }
    Ok(target.with_login(login))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(uri: Option<&str>) -> Option<SshTarget> {
        ssh_to(&Uri::parse(uri?)?)?.ok()
    }

    #[test]
    fn a_folder_is_named_without_detours() {
        for url in ["file:///..", "file:///a/../b", "file:///a/.."] {
            assert!(TransportChoice::by_url(url).is_err(), "{url}");
        }
        for url in ["file:///", "file:///a/..b", "file:///a b/..."] {
            assert_eq!(TransportChoice::by_url(url).unwrap().to_string(), url);
        }
    }

    #[test]
    fn a_store_knows_the_destination_from_its_uri_alone() {
        let far = |url, uri| {
            let choice = TransportChoice::of(Some(url), there(uri)).unwrap();
            choice
                .far()
                .map(|(host, url)| (host.host().to_owned(), url.into_string().unwrap()))
        };
        for url in ["s3://b/p", "gs://b", "az://c/p/q"] {
            let there = Some(("h2".to_owned(), url.to_owned()));
            assert_eq!(far(url, Some("qemu+tcp://h2:16509/system")), there);
            assert_eq!(far(url, Some("qemu:///system")), None);
            assert_eq!(far(url, None), None);
        }
        assert_eq!(far("file:///f", Some("qemu+tcp://h2/system")), None);
        let spool = far("ssh://h3/s", Some("qemu+tcp://h2/system"));
        assert_eq!(spool, Some(("h3".to_owned(), "file:///s".to_owned())));
    }

    #[test]
    fn sftp_serves_where_no_half_of_ours_runs() {
        let of = |url: Option<&str>, uri| {
            let choice = match url {
                Some(url) => TransportChoice::of(Some(url), there(uri)).unwrap(),
                None => TransportChoice::at(there(uri).unwrap()),
            };
            match choice {
                TransportChoice::Ssh(spool) => spool,
                other => panic!("{other}"),
            }
        };
        let uri = Some("qemu+tcp://h2/system");
        assert!(!of(None, uri).sftp);
        assert!(!of(Some("ssh://h2/s"), uri).sftp);
        assert!(!of(Some("ssh://H2./s"), uri).sftp);
        assert!(of(Some("ssh://h3/s"), uri).sftp);
        assert!(of(Some("ssh://h3/s"), None).sftp);
        // Then the destination's half runs at the destination, and gets the pieces there.
        let spool = of(Some("ssh://h3/s"), uri);
        spool.caution.set("SFTP".to_owned()).unwrap();
        let choice = TransportChoice::Ssh(spool);
        let (host, url) = choice.far().unwrap();
        assert_eq!((host.host(), url.to_str().unwrap()), ("h2", "ssh://h3/s"));
        assert!(!choice.needs_far());
        let spool = of(Some("ssh://h3/s"), None);
        spool.caution.set("SFTP".to_owned()).unwrap();
        assert!(TransportChoice::Ssh(spool).far().is_none());
        assert!(ssh_options(Some("logchain"), Duration::ZERO).sftp);
        assert!(!ssh_options(Some("/opt/logchain"), Duration::ZERO).sftp);
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
