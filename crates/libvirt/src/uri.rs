//! Pure: connection URIs, read as libvirt reads them.
//!
//! `driver[+transport]://[user@][host][:port]/[path][?name=value&…]`. libvirt has
//! libxml2 split a URI (RFC 3986) and decodes its parts: `%40` in a user is an `@`,
//! `%25` in an address separates the zone. A text without a scheme can be an alias
//! from the client's configuration, which only libvirt resolves.
//!
//! Must not know: what a host is reached for, or how.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use percent_encoding::{percent_decode, percent_decode_str};

/// A connection URI, taken apart and decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    driver: String,
    transport: Option<String>,
    user: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    parameters: Vec<(String, OsString)>,
}

impl Uri {
    /// `None` where it has no scheme, as an alias, or is no URI.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
            return None;
        }
        // libvirt compares drivers and transports without their case.
        let scheme = scheme.to_ascii_lowercase();
        let (driver, transport) = match scheme.split_once('+') {
            Some((driver, transport)) => (driver.to_owned(), Some(transport.to_owned())),
            None => (scheme, None),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = before.split('/').next().unwrap_or_default();
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (host, port) = split_port(address)?;
        let decoded = |part: &str| -> Option<String> {
            let decoded = percent_decode_str(part).decode_utf8().ok()?;
            Some(decoded.into_owned())
        };
        Some(Self {
            driver,
            transport,
            user: match user {
                Some(user) if !user.is_empty() => Some(decoded(user)?),
                _ => None,
            },
            host: match host {
                "" => None,
                host => Some(decoded(host)?),
            },
            port,
            parameters: parameters(query),
        })
    }

    /// The hypervisor's driver: `qemu`.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// How the connection is made, in lower case: `ssh`, `tcp`, … Where none is named,
    /// it is TLS to a host, and a local socket without one.
    #[must_use]
    pub fn transport(&self) -> Option<&str> {
        self.transport.as_deref()
    }

    /// Whether libvirt reaches the host by ssh, its own kinds of it included.
    #[must_use]
    pub fn is_ssh(&self) -> bool {
        matches!(self.transport(), Some("ssh" | "libssh" | "libssh2"))
    }

    /// The user, in the terms of the transport.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host's name or address, an IPv6 one without its brackets.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The transport's port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The value of a parameter. As in libvirt names have no case, and the last one counts.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&OsString> {
        let mut named = self.parameters.iter().rev();
        let found = named.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// A parameter that libvirt reads as a number: whether it is set, and not 0.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        let value = self.parameter(name).and_then(|value| value.to_str());
        let number = value.and_then(|value| value.trim().parse::<i64>().ok());
        number.is_some_and(|number| number != 0)
    }

    /// Whether the connection ends on this machine, whatever answers at its other end
    /// may be forwarded from: a local socket, or a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let Some(host) = self.host() else {
            return true;
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        host.eq_ignore_ascii_case("localhost")
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// Whether it names this machine's own daemon, by the socket where it always is.
    pub(crate) fn is_own_socket(&self) -> bool {
        let unix = matches!(self.transport(), None | Some("unix"));
        self.host.is_none() && unix && self.parameter("socket").is_none()
    }
}

/// `host[:port]`, or `[address][:port]`.
fn split_port(address: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']')?;
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return None,
            }
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let port = match port {
        "" => None,
        port => Some(port.parse().ok()?),
    };
    Some((host, port))
}

fn parameters(query: &str) -> Vec<(String, OsString)> {
    let decoded = |text: &str| percent_decode(text.as_bytes()).collect::<Vec<u8>>();
    let pairs = query.split(['&', ';']).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = String::from_utf8_lossy(&decoded(name)).into_owned();
        (name, OsString::from_vec(decoded(value)))
    });
    pairs.filter(|(name, _)| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(uri: &str) -> Option<String> {
        Uri::parse(uri).unwrap().host().map(str::to_owned)
    }

    #[test]
    fn hosts_and_ports() {
        for (uri, host, port) in [
            ("qemu:///system", None, None),
            ("test:///default", None, None),
            ("qemu+unix:///system?socket=/run/x", None, None),
            ("qemu+tcp:///system", None, None),
            ("qemu+tcp://h2/system", Some("h2"), None),
            (
                "qemu+tls://H2.Example.:16514",
                Some("H2.Example."),
                Some(16514),
            ),
            (
                "qemu+ssh://root@h2.example:2222/system",
                Some("h2.example"),
                Some(2222),
            ),
            (
                "qemu+tls://[fd00::2]:16514/system",
                Some("fd00::2"),
                Some(16514),
            ),
            (
                "qemu+ssh://[fe80::1%25eth0]/system",
                Some("fe80::1%eth0"),
                None,
            ),
            (
                "qemu+ssh://[fe80::1%eth0]/system",
                Some("fe80::1%eth0"),
                None,
            ),
            ("qemu+tcp://localhost?x=y", Some("localhost"), None),
            ("qemu+ssh://user@/system", None, None),
            ("qemu://h2:/system#x", Some("h2"), None),
        ] {
            let parsed = Uri::parse(uri).unwrap();
            assert_eq!((parsed.host(), parsed.port()), (host, port), "{uri}");
        }
        for none in [
            "hail",
            "",
            "://h2",
            "q emu://h2",
            "qemu://[::1",
            "qemu://[::1]x/",
            "qemu://h2:x/",
            "qemu://h2:99999/",
            "qemu://%ff/",
        ] {
            assert_eq!(Uri::parse(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_encoded_in_a_user_is_decoded() {
        for (uri, user) in [
            ("qemu+ssh://root@h2/system", Some("root")),
            ("qemu+ssh://adm%40corp@h2/system", Some("adm@corp")),
            ("qemu+ssh://CORP%5Cadm@h2/system", Some("CORP\\adm")),
            ("qemu+ssh://a%2Bb@h2/system", Some("a+b")),
            ("qemu+ssh://a+b@h2/system", Some("a+b")),
            ("qemu+ssh://50%@h2/system", Some("50%")),
            ("qemu+ssh://h2/system", None),
            ("qemu+ssh://@h2/system", None),
        ] {
            let parsed = Uri::parse(uri).unwrap();
            assert_eq!((parsed.user(), parsed.host()), (user, Some("h2")), "{uri}");
        }
    }

    #[test]
    fn transports_have_no_case() {
        for (uri, transport, ssh) in [
            ("qemu://h2/system", None, false),
            ("qemu+TCP://h2/system", Some("tcp"), false),
            ("QEMU+SSH://h2/system", Some("ssh"), true),
            ("qemu+libssh://h2/system", Some("libssh"), true),
            ("qemu+libssh2://h2/system", Some("libssh2"), true),
            ("qemu+ext://h2/system", Some("ext"), false),
        ] {
            let parsed = Uri::parse(uri).unwrap();
            assert_eq!(
                (parsed.transport(), parsed.is_ssh()),
                (transport, ssh),
                "{uri}"
            );
            assert_eq!(parsed.driver(), "qemu");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let uri =
            "qemu+ssh://h2/system?KeyFile=/k%20y&no_verify=1&&=x&no_tty=0&empty;known_hosts=/a";
        let uri = Uri::parse(uri).unwrap();
        let of = |name| uri.parameter(name).and_then(|v| v.to_str());
        assert_eq!(of("keyfile"), Some("/k y"));
        assert_eq!(of("known_hosts"), Some("/a"));
        assert_eq!(of("empty"), Some(""));
        assert_eq!(of("nothing"), None);
        assert!(uri.is_set("no_verify") && !uri.is_set("no_tty") && !uri.is_set("empty"));
    }

    #[test]
    fn what_ends_on_this_machine() {
        for (uri, loopback, own) in [
            ("qemu:///system", true, true),
            ("qemu+unix:///system", true, true),
            ("qemu+unix:///system?socket=/run/forwarded", true, false),
            ("qemu+tcp:///system", true, false),
            ("qemu+tcp://LOCALHOST/system", true, false),
            ("qemu+tcp://localhost./system", true, false),
            ("qemu+tcp://127.0.0.2/system", true, false),
            ("qemu+tcp://[::1]/system", true, false),
            ("qemu+tcp://10.0.0.1/system", false, false),
            ("qemu+tcp://h2/system", false, false),
        ] {
            let parsed = Uri::parse(uri).unwrap();
            assert_eq!(
                (parsed.is_loopback(), parsed.is_own_socket()),
                (loopback, own),
                "{uri}"
            );
        }
        assert_eq!(host("qemu+tcp://user%40x@h2"), Some("h2".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}", middle in "[a-z@:/?%&=;\\[\\]#+.]{0,40}") {
            drop(Uri::parse(&text));
            if let Some(uri) = Uri::parse(&format!("qemu+ssh://{middle}")) {
                // What would be no host is none.
                assert!(uri.host().is_none_or(|host| !host.is_empty()));
                assert!(uri.user().is_none_or(|user| !user.is_empty()));
            }
        }
    }
}
