//! Who a certificate says that its holder is.
//!
//! Must not know: whether to believe it; that is TLS's.

use std::fmt;
use std::net::IpAddr;

use tracing::debug;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::dn;

/// A certificate that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read: {0}")]
pub struct BadCertificate(String);

/// The names in a certificate. `Display` gives the one that people know it by: the subject, or
/// where there is none the first of its other names.
///
/// None of them has control characters; where a certificate has some, U+FFFD stands for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerNames {
    dn: String,
    common_names: Vec<String>,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl PeerNames {
    /// Of a certificate in DER.
    ///
    /// # Errors
    /// [`BadCertificate`] where it is none. Alternative names that cannot be read count as none.
    pub fn of_der(certificate: &[u8]) -> Result<Self, BadCertificate> {
        let certificate =
            Certificate::from_der(certificate).map_err(|e| BadCertificate(e.to_string()))?;
        let certificate = certificate.tbs_certificate();
        let mut names = Self {
            dn: dn::text(certificate.subject()),
            common_names: dn::common_names(certificate.subject()),
            dns_names: Vec::new(),
            addresses: Vec::new(),
        };
        match certificate.get_extension::<SubjectAltName>() {
            Ok(Some((_, SubjectAltName(alternatives)))) => {
                alternatives.iter().for_each(|name| names.add(name));
            }
            Ok(None) => {}
            Err(error) => debug!(dn = names.dn, %error, "unreadable alternative names"),
        }
        Ok(names)
    }

    /// Those of a certificate with one common name and nothing else, for tests.
    #[must_use]
    pub fn of_common_name(name: &str) -> Self {
        Self {
            dn: format!("CN={name}"),
            common_names: vec![name.to_owned()],
            dns_names: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn add(&mut self, name: &GeneralName) {
        match name {
            GeneralName::DnsName(name) => {
                let name = name.as_str();
                if !name.chars().any(char::is_control) {
                    self.dns_names.push(name.to_ascii_lowercase());
                }
            }
            GeneralName::IpAddress(address) => {
                let bytes = address.as_bytes();
                let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
                self.addresses.extend(address);
            }
            _ => {}
        }
    }

    /// The subject as libvirt prints it: `C=GB,ST=London,O=Red Hat,CN=h1`. Empty where the
    /// certificate has no subject.
    #[must_use]
    pub fn dn(&self) -> &str {
        &self.dn
    }

    /// The common names in the subject, as they are.
    #[must_use]
    pub fn common_names(&self) -> &[String] {
        &self.common_names
    }

    /// The DNS names of the certificate, in lower case.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The addresses of the certificate.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether `fits` one of the names, each as text.
    pub(crate) fn any(&self, mut fits: impl FnMut(&str) -> bool) -> bool {
        fits(&self.dn)
            || self.common_names.iter().any(|name| fits(name))
            || self.dns_names.iter().any(|name| fits(name))
            || self.addresses.iter().any(|a| fits(&a.to_string()))
    }
}

impl fmt::Display for PeerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.addresses.first().map(ToString::to_string);
        if !self.dn.is_empty() {
            f.write_str(&self.dn)
        } else if let Some(name) = self.dns_names.first().or(address.as_ref()) {
            f.write_str(name)
        } else {
            f.write_str("a certificate without a name")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each subject as `virt-pki-query-dn` of libvirt 9.0 prints it, but for the telephone
    /// number, which it calls by name.
    #[test]
    fn names_are_as_libvirt_prints_them() {
        let names = include_bytes!("../../../fuzz/seeds/certificate/names");
        let names = PeerNames::of_der(names).unwrap();
        assert_eq!(names.dn(), "C=GB,O=Red Hat,CN=h1");
        assert_eq!(names.common_names(), ["h1"]);
        assert_eq!(names.dns_names(), ["h1.example.org"]);
        let addresses: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        assert_eq!(names.addresses(), addresses);

        let odd = include_bytes!("../../../fuzz/seeds/certificate/odd-subject");
        let odd = PeerNames::of_der(odd).unwrap();
        assert_eq!(
            odd.dn(),
            "DC=org,O=a\\, b+OU=\\ \\\"x\\\"\\ ,2.5.4.20=#0c023132,EMAIL=a@b,CN=ü#"
        );
    }
}
