//! `ssh://[user@]host[:port]/spool`

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The spool where a URL names none.
pub const DEFAULT_SPOOL: &str = "/var/lib/logchain/spool";

/// A text that is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no ssh target: {what}; write ssh://[user@]host[:port]/spool")]
pub struct BadTarget {
    url: String,
    what: &'static str,
}

/// A spool folder on another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    spool: PathBuf,
}

impl SshTarget {
    /// The default spool on `host`.
    ///
    /// # Errors
    /// [`BadTarget`] where it is not a host's name or address.
    pub fn on(host: &str) -> Result<Self, BadTarget> {
        let bad = |what| BadTarget {
            url: host.to_owned(),
            what,
        };
        check_host(host).map_err(bad)?;
        let spool = PathBuf::from(DEFAULT_SPOOL);
        Ok(Self {
            user: None,
            host: host.to_owned(),
            port: None,
            spool,
        })
    }

    /// The host, as ssh is given it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The user, where one is named.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The port, where one is named.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The spool folder there.
    #[must_use]
    pub fn spool(&self) -> &Path {
        &self.spool
    }
}

impl FromStr for SshTarget {
    type Err = BadTarget;

    fn from_str(url: &str) -> Result<Self, BadTarget> {
        let bad = |what| BadTarget {
            url: url.to_owned(),
            what,
        };
        let rest = url
            .strip_prefix("ssh://")
            .ok_or_else(|| bad("it does not begin with ssh://"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (host, port) = if let Some(inner) = address.strip_prefix('[') {
            let (host, after) = inner.split_once(']').ok_or_else(|| bad("a ] is missing"))?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err(bad("something follows the ]")),
            };
            (host, port)
        } else {
            match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            }
        };
        check_host(host).map_err(bad)?;
        if user.is_some_and(|u| u.is_empty() || u.starts_with('-') || !u.bytes().all(is_plain)) {
            return Err(bad("the user is not a user's name"));
        }
        let port = match port {
            None => None,
            Some(text) => match text.parse() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err(bad("the port is not a port")),
            },
        };
        if path.contains('\0') || path.split('/').any(|part| part == "..") {
            return Err(bad("the spool is not a plain path"));
        }
        let spool = if path.is_empty() || path == "/" {
            DEFAULT_SPOOL
        } else {
            path
        };
        Ok(Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            spool: PathBuf::from(spool),
        })
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.spool.display())
    }
}

/// A host may not look like an option to ssh, nor like anything to a shell.
fn check_host(host: &str) -> Result<(), &'static str> {
    let fits = |b: u8| is_plain(b) || matches!(b, b':' | b'%');
    if host.is_empty() {
        return Err("it names no host");
    }
    if host.starts_with('-') || !host.bytes().all(fits) {
        return Err("the host is not a name or an address");
    }
    Ok(())
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')
}
