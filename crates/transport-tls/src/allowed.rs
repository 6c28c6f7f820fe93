//! Which names a peer may have.
//!
//! Must not know: certificates, or what a peer may do.

use crate::PeerNames;

/// Patterns of the names that peers may have, as libvirt's `tls_allowed_dn_list` has them: `*`
/// stands for any characters, `?` for one, and everything else for itself. An empty list allows
/// every certificate of the CA.
///
/// A pattern is compared with the [subject](PeerNames::dn) as libvirt does, and besides with
/// each common name, DNS name and address by itself: `*.example.org` allows all hosts of that
/// name. DNS names are compared in lower case.
///
/// ```
/// use logchain_transport_tls::AllowedNames;
///
/// let allowed: AllowedNames = ["C=GB,O=Red Hat,CN=*", "*.example.org"].into_iter().collect();
/// assert!(!allowed.is_any());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedNames(Vec<String>);

impl AllowedNames {
    /// Every certificate of the CA.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Whether every certificate of the CA is allowed.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer with these names is allowed.
    #[must_use]
    pub fn allow(&self, names: &PeerNames) -> bool {
        self.is_any() || self.0.iter().any(|p| names.any(|name| matches(p, name)))
    }
}

impl<S: Into<String>> FromIterator<S> for AllowedNames {
    fn from_iter<I: IntoIterator<Item = S>>(patterns: I) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }
}

/// Who has to answer where a link leads.
///
/// The address that was dialled decides nothing: it is often one that was found in a socket,
/// and no certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedPeer {
    /// Anybody who is allowed.
    Allowed(AllowedNames),
    /// Whoever has just this name: a subject, a common name, a DNS name or an address.
    Named(String),
}

impl ExpectedPeer {
    /// Whether it is a peer with these names.
    #[must_use]
    pub fn is(&self, names: &PeerNames) -> bool {
        match self {
            Self::Allowed(allowed) => allowed.allow(names),
            Self::Named(expected) => names.any(|name| !name.is_empty() && name == expected),
        }
    }
}

/// Takes time that grows with the product of both lengths at the most.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Behind the last star, and where in the name what follows it was tried last.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(n) {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                star = Some((p, n));
            }
            Some(wanted) if *wanted == '?' || wanted == c => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((behind, tried)) = star else {
                    return false;
                };
                p = behind;
                n = tried + 1;
                star = Some((behind, n));
            }
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_libvirt() {
        let dn = "C=GB,ST=London,O=Red Hat,CN=h1";
        for pattern in [
            dn,
            "*",
            "*CN=h1",
            "*CN=h?",
            "C=GB,*,CN=*",
            "C=GB*O=Red*h1*",
            "**h1",
        ] {
            assert!(matches(pattern, dn), "{pattern}");
        }
        for pattern in ["", "CN=h1", "*CN=h", "*CN=h1?", "C=gb*", "[C]*", "*CN=h2*"] {
            assert!(!matches(pattern, dn), "{pattern}");
        }
        assert!(matches("*", "") && matches("", "") && !matches("?", ""));
        // Stars are not tried in all combinations.
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
    }
}
