//! Which transport leads to the destination, and by which name ssh reaches its host.
//!
//! libvirt finds the destination's libvirt; ssh needs the name of a host. Where there is none,
//! the migration goes on without the log.

use logchain_libvirt::Connection;
use logchain_libvirt::uri::Uri;
use logchain_transport_ssh::SshTarget;

use crate::Result;
use crate::transports::{TransportChoice, ssh_to};

/// What libvirt says of a destination that it reached.
struct Reached<'a> {
    uri: &'a str,
    hostname: &'a str,
}

/// # Errors
/// [`Error::Usage`](crate::Error::Usage) where `transport` is no URL of a transport.
pub(super) fn choose(
    transport: Option<&str>,
    dest_uri: &str,
    dest: Option<&Connection>,
) -> Result<TransportChoice> {
    let reached = dest.map(|dest| Reached {
        uri: dest.uri(),
        hostname: dest.hostname(),
    });
    let host = host(dest_uri, reached.as_ref());
    match (transport, host) {
        (None, Err(reason)) => Ok(TransportChoice::Nowhere(reason)),
        (None, Ok(host)) => Ok(TransportChoice::at(host)),
        (Some(url), host) => TransportChoice::of(Some(url), host.ok()),
    }
}

/// Pure: the destination's host, as ssh is given it.
fn host(given: &str, reached: Option<&Reached<'_>>) -> Result<SshTarget, String> {
    let nowhere =
        |why: &str| format!("{why}; name a way for the log with --transport, as ssh://host");
    // What libvirt takes for an alias has no scheme; it says itself what it stands for.
    let uri = Uri::parse(given).or_else(|| Uri::parse(reached?.uri));
    let target = match &uri {
        // A loopback address is a tunnel to the destination for libvirt only; ssh to it reaches
        // this host.
        Some(uri) if uri.is_loopback() && !(uri.is_ssh() && uri.host().is_some()) => None,
        Some(uri) => ssh_to(uri),
        None => None,
    };
    if let Some(target) = target {
        return target.map_err(|e| nowhere(&e.to_string()));
    }
    match reached {
        Some(reached) => SshTarget::on(reached.hostname).map_err(|e| nowhere(&e.to_string())),
        None => Err(nowhere(&format!(
            "{given} names no host that ssh could reach"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &str, reached: Option<(&str, &str)>) -> Result<String, String> {
        let reached = reached.map(|(uri, hostname)| Reached { uri, hostname });
        host(given, reached.as_ref()).map(|target| target.to_string())
    }

    const SPOOL: &str = "/var/lib/logchain/spool";

    #[test]
    fn libvirt_says_what_an_alias_stands_for() {
        let reached = Some(("qemu+ssh://root@h2:2222/system", "h2.example"));
        assert_eq!(
            of("hail", reached),
            Ok(format!("ssh://root@h2:2222{SPOOL}"))
        );
        let said = of("hail", None).unwrap_err();
        assert!(
            said.starts_with("hail names no host") && said.contains("--transport"),
            "{said}"
        );
    }

    #[test]
    fn the_uri_itself_counts_where_it_names_a_host() {
        let reached = Some(("qemu+tcp://other/system", "other"));
        for (given, want) in [
            ("qemu+tcp://h2:16509/system", "ssh://h2"),
            ("qemu+tls://h2./system", "ssh://h2."),
            ("qemu://user@H2/system", "ssh://H2"),
            ("qemu+ssh://adm%40corp@h2/system", "ssh://adm%40corp@h2"),
            (
                "qemu+ssh://CORP%5Cadm@h2:222/system",
                "ssh://CORP%5Cadm@h2:222",
            ),
            ("qemu+libssh://a%2bb@h2/system", "ssh://a+b@h2"),
            (
                "qemu+tcp://[fe80::1%25eth0]:16509/system",
                "ssh://[fe80::1%25eth0]",
            ),
            ("qemu+ssh://localhost:2222/system", "ssh://localhost:2222"),
        ] {
            assert_eq!(of(given, reached), Ok(format!("{want}{SPOOL}")), "{given}");
            assert_eq!(of(given, None), Ok(format!("{want}{SPOOL}")), "{given}");
        }
    }

    #[test]
    fn ssh_gets_in_as_libvirts_ssh_does() {
        let uri = "qemu+ssh://h2/system?keyfile=/k&no_verify=1&known_hosts=/a%20b&socket=/s\
                   &netcat=/nc&no_tty=1&command=/opt/ssh&proxy=auto&sshauth=agent&mode=auto";
        assert_eq!(
            of(uri, None),
            Ok(format!(
                "ssh://h2{SPOOL}?command=/opt/ssh&keyfile=/k&known_hosts=/a%20b&no_verify=1"
            ))
        );
        let uri = "qemu+libssh://h2/system?known_hosts_verify=auto&command=/no";
        assert_eq!(
            of(uri, None),
            Ok(format!("ssh://h2{SPOOL}?known_hosts_verify=auto"))
        );
        // Of another transport they mean something else.
        let uri = "qemu+tls://h2/system?no_verify=1&pkipath=/p";
        assert_eq!(of(uri, None), Ok(format!("ssh://h2{SPOOL}")));
    }

    #[test]
    fn what_listens_here_leads_to_a_host_that_says_its_name() {
        for given in [
            "qemu+tcp://localhost:16510/system",
            "qemu+tcp:///system",
            "qemu+ssh:///system",
            "qemu+unix:///system?socket=/run/forwarded",
        ] {
            let reached = Some((given, "h2.example"));
            assert_eq!(
                of(given, reached),
                Ok(format!("ssh://h2.example{SPOOL}")),
                "{given}"
            );
            assert!(of(given, None).is_err(), "{given}");
        }
        let odd = Some(("qemu+unix:///system?socket=/x", "-oProxyCommand=x"));
        assert!(of("hail", odd).is_err());
    }

    #[test]
    fn no_way_is_no_mistake_but_a_wrong_transport_is() {
        let choice = choose(None, "hail", None).unwrap();
        assert!(matches!(choice, TransportChoice::Nowhere(_)), "{choice:?}");
        assert!(choose(Some("ftp://h2/x"), "qemu+tcp://h2/system", None).is_err());
        assert!(
            choose(Some("s3://b/p"), "hail", None)
                .unwrap()
                .far()
                .is_none()
        );
    }
}
