//! `ssh://[user@]host[:port]/spool[?keyfile=…]`

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::login::SshLogin;

/// The spool where a URL names none.
pub const DEFAULT_SPOOL: &str = "/var/lib/logchain/spool";

/// What a user's name keeps as it is in a URL.
const USER: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'_')
    .remove(b'-')
    .remove(b'+');

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
    login: SshLogin,
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
            login: SshLogin::default(),
        })
    }

    /// The same host, as this user.
    ///
    /// # Errors
    /// [`BadTarget`] where ssh could not be given such a name.
    pub fn as_user(mut self, user: &str) -> Result<Self, BadTarget> {
        check_user(user).map_err(|what| BadTarget {
            url: user.to_owned(),
            what,
        })?;
        self.user = Some(user.to_owned());
        Ok(self)
    }

    /// The same host, with this folder as its spool.
    #[must_use]
    pub fn with_spool(mut self, spool: impl Into<PathBuf>) -> Self {
        self.spool = spool.into();
        self
    }

    /// The same host, at this port.
    #[must_use]
    pub fn at_port(mut self, port: u16) -> Self {
        self.port = Some(port).filter(|port| *port > 0);
        self
    }

    /// The same host, by this login.
    #[must_use]
    pub fn with_login(mut self, login: SshLogin) -> Self {
        self.login = login;
        self
    }

    /// How ssh gets in there, beside what the user's configuration says.
    #[must_use]
    pub fn login(&self) -> &SshLogin {
        &self.login
    }

    /// Whether ssh is given the same host: names have no case, and may end in a dot.
    #[must_use]
    pub fn is_same_host(&self, other: &Self) -> bool {
        let plain = |host: &str| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        plain(&self.host) == plain(&other.host)
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
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let login = SshLogin::parse(query).map_err(bad)?;
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
        let decoded = |part: &str, what| {
            let decoded = percent_decode_str(part).decode_utf8();
            decoded.map(String::from).map_err(|_| bad(what))
        };
        let host = decoded(host, NO_HOST)?;
        check_host(&host).map_err(bad)?;
        let user = user.map(|user| decoded(user, NO_USER)).transpose()?;
        if let Some(user) = &user {
            check_user(user).map_err(bad)?;
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
            user,
            host,
            port,
            spool: PathBuf::from(spool),
            login,
        })
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", utf8_percent_encode(user, USER))?;
        }
        // It separates an address from its zone.
        let host = self.host.replace('%', "%25");
        if host.contains(':') {
            write!(f, "[{host}]")?;
        } else {
            f.write_str(&host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}{}", self.spool.display(), self.login)
    }
}

const NO_HOST: &str = "the host is not a name or an address";
const NO_USER: &str = "the user is not a user's name";

/// ssh gets it as an argument of its own, and looks at it itself: `corp\\adm` and
/// `adm@corp` are users as well.
fn check_user(user: &str) -> Result<(), &'static str> {
    if user.is_empty() || user.starts_with('-') || user.chars().any(char::is_control) {
        return Err(NO_USER);
    }
    Ok(())
}

/// A host may not look like an option to ssh, nor like anything to a shell.
fn check_host(host: &str) -> Result<(), &'static str> {
    let fits = |b: u8| is_plain(b) || matches!(b, b':' | b'%');
    if host.is_empty() {
        return Err("it names no host");
    }
    if host.starts_with('-') || !host.bytes().all(fits) {
        return Err(NO_HOST);
    }
    Ok(())
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')
}
