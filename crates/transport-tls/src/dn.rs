//! A certificate's subject as one string, written as GnuTLS and so libvirt writes it
//! (`virt-pki-query-dn`): in the certificate's order, `C=GB,ST=London,O=Red Hat,CN=h1`.
//!
//! Must not know: what names are for.

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, BmpString, ObjectIdentifier};
use x509_cert::der::{Encode, Tag, Tagged};
use x509_cert::name::Name;

/// The names that GnuTLS has for what a subject is made of.
const NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "surName"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "givenName"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "EMAIL"),
];

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The subject as one string.
pub(crate) fn text(name: &Name) -> String {
    let rdns = name.iter_rdn().map(|rdn| {
        let parts = rdn.iter().map(attribute);
        parts.collect::<Vec<_>>().join("+")
    });
    rdns.collect::<Vec<_>>().join(",")
}

/// Its common names, as they are.
pub(crate) fn common_names(name: &Name) -> Vec<String> {
    let names = name.iter().filter(|part| part.oid == COMMON_NAME);
    names.filter_map(|part| value(&part.value)).collect()
}

fn attribute(part: &AttributeTypeAndValue) -> String {
    let oid = part.oid.to_string();
    let known = NAMES.iter().find(|(known, _)| *known == oid);
    match (known, value(&part.value)) {
        (Some((_, name)), Some(value)) => format!("{name}={}", escape(&value)),
        (known, _) => {
            let name = known.map_or(oid.as_str(), |(_, name)| name);
            let der = part.value.to_der().unwrap_or_default();
            let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name}=#{hex}")
        }
    }
}

/// Text, where it is of a kind that can be text. What would not be one line is replaced.
fn value(any: &Any) -> Option<String> {
    let text = match any.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            std::str::from_utf8(any.value()).ok()?.to_owned()
        }
        // Latin 1 in practice.
        Tag::TeletexString => any.value().iter().copied().map(char::from).collect(),
        Tag::BmpString => BmpString::from_ucs2(any.value()).ok()?.to_string(),
        _ => return None,
    };
    let printable = |c: char| match c.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    };
    Some(text.chars().map(printable).collect())
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (n, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';');
        let at_an_end = (n == 0 && (c == '#' || c == ' ')) || (n == last && c == ' ');
        if special || at_an_end {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each as `virt-pki-query-dn` of libvirt 9.0 with GnuTLS 3.7 prints it.
    #[test]
    fn special_characters_are_escaped_as_gnutls_does() {
        for (value, printed) in [
            ("Red Hat", "Red Hat"),
            ("a,b", "a\\,b"),
            ("x \"q\" <a>;b\\c", "x \\\"q\\\" \\<a\\>\\;b\\\\c"),
            ("#a#b", "\\#a#b"),
            ("a+b=c", "a\\+b=c"),
            ("  two  ", "\\  two \\ "),
            (" sp ", "\\ sp\\ "),
            ("h ü", "h ü"),
            ("", ""),
        ] {
            assert_eq!(escape(value), printed);
        }
    }
}
