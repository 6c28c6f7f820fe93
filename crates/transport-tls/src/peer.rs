//! The agent at the other end of a connection: where it is, and who.
//!
//! Must not know: how it is reached.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::{DEFAULT_PORT, PeerNames};

/// The other end of an authenticated connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    names: PeerNames,
    remote: SocketAddr,
    local: SocketAddr,
}

impl Peer {
    /// A peer with these names and addresses of both ends. Those that a server or link gives were
    /// authenticated; others are for tests.
    #[must_use]
    pub fn new(names: PeerNames, remote: SocketAddr, local: SocketAddr) -> Self {
        // An IPv4 peer at a socket for both: as the rest of the host knows it.
        let plain = |a: SocketAddr| match a.ip().to_canonical() {
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, a.port()),
            // With its scope, where it has one.
            IpAddr::V6(_) => a,
        };
        Self {
            names,
            remote: plain(remote),
            local: plain(local),
        }
    }

    /// The names in its certificate.
    #[must_use]
    pub fn names(&self) -> &PeerNames {
        &self.names
    }

    /// The address of its end of the connection.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The address of our end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.names, self.remote.ip())
    }
}

/// Where an agent listens. Read from `h2`, `h2:16515`, `192.0.2.7`, `[2001:db8::7]:16515`, or one
/// of these after `tls://`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    host: String,
    port: u16,
}

/// Not the address of an agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host, or a host and a port")]
pub struct BadAddress(String);

impl PeerAddress {
    /// The host: a name or an address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        let port = address.port();
        let host = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            // Link-local addresses have a scope.
            SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            SocketAddr::V6(v6) => v6.ip().to_string(),
        };
        Self { host, port }
    }
}

impl FromStr for PeerAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        let rest = text.strip_prefix("tls://").unwrap_or(text);
        let port = |port: &str| port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad);
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, rest) = bracketed.split_once(']').ok_or_else(bad)?;
            let address = host.split('%').next().unwrap_or_default();
            address.parse::<Ipv6Addr>().map_err(|_| bad())?;
            match rest.strip_prefix(':') {
                Some(rest) => (host, port(rest)?),
                None if rest.is_empty() => (host, DEFAULT_PORT),
                None => return Err(bad()),
            }
        } else if rest.parse::<Ipv6Addr>().is_ok() {
            (rest, DEFAULT_PORT)
        } else {
            match rest.split_once(':') {
                Some((host, rest)) => (host, port(rest)?),
                None => (rest, DEFAULT_PORT),
            }
        };
        let odd = |c: char| c.is_control() || c.is_whitespace() || "/@[]".contains(c);
        if host.is_empty() || host.contains(odd) {
            return Err(bad());
        }
        let host = host.to_owned();
        Ok(Self { host, port })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("h2", "h2:16515"),
            ("h2:7", "h2:7"),
            ("tls://h2.example.org", "h2.example.org:16515"),
            ("192.0.2.7", "192.0.2.7:16515"),
            ("2001:db8::7", "[2001:db8::7]:16515"),
            ("[2001:db8::7]", "[2001:db8::7]:16515"),
            ("[fe80::7%2]:9", "[fe80::7%2]:9"),
        ] {
            let read: PeerAddress = text.parse().unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse(), Ok(read));
        }
        for text in [
            "", ":7", "h2:", "h2:0", "h2:70000", "a b", "[h2]", "[::1", "h/x", "u@h",
        ] {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
        let address: SocketAddr = "[::1]:16515".parse().unwrap();
        assert_eq!(PeerAddress::from(address).to_string(), "[::1]:16515");
    }

    #[test]
    fn an_ipv4_peer_is_known_by_its_ipv4_address() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:1".parse().unwrap();
        let peer = Peer::new(PeerNames::of_common_name("h2"), mapped, mapped);
        assert_eq!(peer.remote().to_string(), "192.0.2.7:1");
        assert_eq!(peer.to_string(), "CN=h2 at 192.0.2.7");
    }
}
